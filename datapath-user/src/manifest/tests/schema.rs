//! The schema and the reader say the same.

use serde_json::{Map, Value, json};

use super::read_all;
use crate::manifest::schema::schema;

/// A document with every field, each of whose rules and roles is in another form.
fn full() -> Value {
    json!({
        "weft": "v1",
        "policy": "shop",
        "apps": {
            "shop": {
                "prefixes": ["10.1.0.0/16"],
                "labels": {"team": "a"},
                "roles": ["web", {"name": "db", "labels": {"tier": "db"}, "ports": {"pg": "tcp/1", "dns": ["tcp/2", "udp/2"]}, "number": 7}],
                "inside": "open",
                "from-apps": "closed",
                "from-host": "open",
                "to-outside": "closed",
                "shadow": true,
                "number": 70000,
                "blocks": {"h1": ["10.1.1.0/24"]},
            },
        },
        "rules": [
            "allow a -> b",
            {"allow": {"from": "a", "to": "b", "ports": "tcp/1", "on": "ingress", "precedence": 5, "name": "x"}},
            {"allow": {"from": "a", "to": "b", "shadow": true, "until": "2026-01-31T09:05:00Z"}},
            {"deny": {"from": {"app": "a", "matchLabels": {"a": "b"}}, "to": {"apps": {"matchLabels": {"a": "b"}}}}},
            {"reject": {
                "from": {"app": "any", "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
                "to": {"apps": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}},
                "ports": ["tcp/1", "udp/1"],
            }},
            {"pass": {"from": "a", "to": "b", "on": "egress", "precedence": -1}},
        ],
        "expect": ["a -> b allow"],
    })
}

/// Whether a value is as a schema says: the keywords that ours has.
fn fits(schema: &Value, root: &Value, value: &Value) -> bool {
    let Value::Object(keywords) = schema else { return schema.as_bool().unwrap() };
    let fits = |schema: &Value| fits(schema, root, value);
    let all = |schemas: &Value| schemas.as_array().unwrap().iter().filter(|schema| fits(schema)).count();
    let size = |of: Option<usize>, limit: &Value, is: fn(usize, usize) -> bool| {
        of.is_none_or(|size| is(size, usize::try_from(limit.as_u64().unwrap()).unwrap()))
    };
    let object = value.as_object();
    let has = |names: &Value| {
        let mut names = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        object.is_none_or(|object| names.all(|name| object.contains_key(name)))
    };
    keywords.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$ref" => fits(root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).unwrap()),
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64(),
            "boolean" => value.is_boolean(),
            other => panic!("{other}"),
        },
        "const" => value == rule,
        "enum" => rule.as_array().unwrap().contains(value),
        "oneOf" => all(rule) == 1,
        "anyOf" => all(rule) > 0,
        "if" => fits(keywords.get(if fits(rule) { "then" } else { "else" }).unwrap_or(&Value::Bool(true))),
        "required" => has(rule),
        "dependentRequired" => rule
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, needs)| object.is_none_or(|object| !object.contains_key(name) || has(needs))),
        "properties" => object.is_none_or(|object| {
            rule.as_object()
                .unwrap()
                .iter()
                .all(|(name, rule)| object.get(name).is_none_or(|value| self::fits(rule, root, value)))
        }),
        "additionalProperties" => {
            let known = |name: &String| keywords.get("properties").is_some_and(|known| known.get(name).is_some());
            object.is_none_or(|object| object.iter().all(|(name, value)| known(name) || self::fits(rule, root, value)))
        }
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| self::fits(rule, root, item))),
        "minItems" => size(value.as_array().map(Vec::len), rule, |size, least| size >= least),
        "maxItems" => size(value.as_array().map(Vec::len), rule, |size, most| size <= most),
        "minProperties" => size(object.map(Map::len), rule, |size, least| size >= least),
        "maxProperties" => size(object.map(Map::len), rule, |size, most| size <= most),
        "minimum" => value.as_i64().is_none_or(|number| number >= rule.as_i64().unwrap()),
        "maximum" => value.as_i64().is_none_or(|number| number <= rule.as_i64().unwrap()),
        "$schema" | "$defs" | "title" | "description" | "default" | "then" | "else" => true,
        other => panic!("{other} is not understood"),
    })
}

/// What a document becomes when one part of it is another, wherever it is: taken away, empty, of another type.
fn changed(value: &Value, into: &mut Vec<Value>) {
    let others = [
        Value::Null,
        json!({}),
        json!([]),
        json!(["x y"]),
        json!({"unknown": "a"}),
        json!(1),
        json!("x y"),
        json!(true),
    ];
    into.extend(others);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let mut without = fields.clone();
                without.remove(name);
                into.push(without.clone().into());
                let mut parts = Vec::new();
                changed(field, &mut parts);
                into.extend(parts.into_iter().map(|part| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), part);
                    fields.into()
                }));
                without.insert("unknown".to_owned(), field.clone());
                into.push(without.into());
            }
            let mut with = fields.clone();
            with.insert("unknown".to_owned(), json!("a"));
            into.push(with.into());
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let mut parts = Vec::new();
                changed(item, &mut parts);
                into.extend(parts.into_iter().map(|part| {
                    let mut items = items.clone();
                    items[at] = part;
                    items.into()
                }));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_schema_fits_what_the_reader_takes() {
    let schema = schema();
    assert!(fits(&schema, &schema, &full()));
    read_all(&[&full().to_string()]).unwrap();
    let mut documents = Vec::new();
    changed(&full(), &mut documents);
    assert!(documents.len() > 500, "{}", documents.len());
    let mut taken = 0;
    for document in documents.iter().filter(|document| document.is_object()) {
        let read = read_all(&[&document.to_string()]);
        let fits = fits(&schema, &schema, document);
        taken += u32::from(read.is_ok());
        match &read {
            Ok(_) => assert!(fits, "the schema refuses what is read: {document}"),
            // A schema says nothing of what texts mean.
            Err(problems) => {
                let meaning = [" is no ", "looks like", "is there twice", "needs a precedence", "a name is one rule's"];
                let is_meaning = |text: &String| meaning.iter().any(|part| text.contains(part));
                let is_field = |text: &String| text.contains("is no field of") || text.contains("is no operator");
                let only_meaning = problems.iter().all(|problem| is_meaning(&problem.text) && !is_field(&problem.text));
                assert!(!fits || only_meaning, "the schema takes what is refused: {document}\n{problems:#?}");
            }
        }
    }
    assert!(taken > 50, "{taken}");
}

#[test]
fn no_field_is_without_a_meaning() {
    fn check(schema: &Value) {
        match schema {
            Value::Object(fields) => {
                for (name, field) in fields {
                    assert!(*field != Value::Bool(false) || name == "additionalProperties", "{name}");
                    check(field);
                }
            }
            Value::Array(items) => items.iter().for_each(check),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    check(&schema());
}

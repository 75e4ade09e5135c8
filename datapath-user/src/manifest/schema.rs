//! The JSON schema of weft's own form, for editors and for those who make manifests with programs.
//!
//! Made from the forms that the reader goes by, so that neither knows a field that the other does not.

use serde_json::{Value, json};
use weft_common::policy::{Action, Direction};

use crate::model::{app::Gate, rule::Precedence};

use super::{fields::Form, native, selectors};

/// JSON schema (draft 2020-12) of weft's own form.
pub fn schema() -> Value {
    let mut schema = document();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "A weft manifest".into();
    schema["$defs"] = json!({
        "app": app(),
        "role": { "oneOf": [text("The role's name, which is also its label `role`."), role()] },
        "rule": { "oneOf": [text("The text of a rule, as `allow shop/web -> blog/db tcp/5432`."), rule()] },
        "long": long(),
        "selector": { "oneOf": [text("The text of a selector, as `shop/web`."), selector()] },
        "labelSelector": label_selector(),
        "expression": expression(),
        "labels": map_of(&text("The label's value.")),
        "texts": list_of(&json!({ "type": "string" })),
    });
    schema
}

fn document() -> Value {
    let about = "What operators write of a policy and of apps.";
    let mut schema = object(&native::DOCUMENT, &["weft"], about, |field| match field {
        "weft" => json!({ "const": native::VERSION, "description": "The version of this form." }),
        "policy" => text("The policy's name."),
        "apps" => map_of(&refer("app")),
        "rules" => list_of(&refer("rule")),
        "expect" => list_of(&text("What has to hold, as `shop/web -> blog/db tcp/5432 allow`.")),
        _ => Value::Bool(false),
    });
    schema["dependentRequired"] = json!({ "rules": ["policy"], "expect": ["policy"] });
    schema["anyOf"] = json!([{ "required": ["apps"] }, { "required": ["policy"] }]);
    schema["if"] = json!({ "required": ["policy"] });
    schema["then"] = json!({ "anyOf": [{ "required": ["rules"] }, { "required": ["expect"] }] });
    schema
}

fn app() -> Value {
    let gate = |about: &str| json!({ "enum": [Gate::Open.name(), Gate::Closed.name()], "description": about });
    object(&native::APP, &[], "An app. What is left out stays as it is.", |field| match field {
        "prefixes" => refer("texts"),
        "labels" => refer("labels"),
        "roles" => list_of(&refer("role")),
        "inside" => gate("From its own endpoints, where no rule speaks."),
        "from-apps" => gate("From other apps, where no rule speaks."),
        "from-host" => gate("From the hosts, where no rule speaks."),
        "to-outside" => gate("To the outside and to the hosts, where no rule speaks."),
        "shadow" => truth("Whether its policy is only tried, and everything passes."),
        "blocks" => map_of(&refer("texts")),
        "number" => wire(native::APP_NUMBERS),
        _ => Value::Bool(false),
    })
}

fn role() -> Value {
    let port = text("A port, as `tcp/5432`.");
    object(&native::ROLE, &["name"], "A tier of an app.", |field| match field {
        "name" => text("The role's name."),
        "labels" => refer("labels"),
        "ports" => map_of(&json!({ "oneOf": [port, list_of(&port)] })),
        "number" => wire(native::ROLE_NUMBERS),
        _ => Value::Bool(false),
    })
}

fn rule() -> Value {
    let is_action = |field: &str| Action::ALL.iter().any(|action| action.name() == field);
    let mut schema =
        object(
            &native::RULE,
            &[],
            "A rule.",
            |field| {
                if is_action(field) { refer("long") } else { Value::Bool(false) }
            },
        );
    schema["minProperties"] = 1.into();
    schema["maxProperties"] = 1.into();
    schema
}

fn long() -> Value {
    let traffic = text("Traffic, as `tcp/80,8000-8100,http`.");
    let directions = [Direction::Ingress.name(), Direction::Egress.name()];
    let (least, most) = (Precedence::MIN.raw(), Precedence::MAX.raw());
    object(&native::LONG, &["from", "to"], "What a rule says.", |field| match field {
        "from" | "to" => refer("selector"),
        "ports" => json!({ "oneOf": [traffic, { "type": "array", "items": traffic, "minItems": 1 }] }),
        "on" => json!({ "enum": directions, "description": "Whose rule it is; left out: of both sides." }),
        "precedence" => json!({
            "type": "integer",
            "minimum": least,
            "maximum": most,
            "default": Precedence::DEFAULT.raw(),
            "description": "The greater wins."
        }),
        "shadow" => truth("Whether the rule is only tried."),
        "until" => text("When it ends, as `2026-01-31T09:05:00Z`; only an allow can."),
        "name" => text("What the rule is called."),
        _ => Value::Bool(false),
    })
}

fn selector() -> Value {
    let about = "Endpoints of an app, or of apps that labels select, with certain labels.";
    let mut schema = object(&native::SELECTOR, &[], about, |field| match field {
        "app" => text("An app, or `any`."),
        "apps" => refer("labelSelector"),
        "matchLabels" => refer("labels"),
        "matchExpressions" => list_of(&refer("expression")),
        _ => Value::Bool(false),
    });
    schema["oneOf"] = json!([{ "required": ["app"] }, { "required": ["apps"] }]);
    schema
}

fn label_selector() -> Value {
    object(&selectors::NATIVE, &[], "All of it has to hold; nothing selects everybody.", |field| match field {
        "matchLabels" => refer("labels"),
        "matchExpressions" => list_of(&refer("expression")),
        _ => Value::Bool(false),
    })
}

fn expression() -> Value {
    let some = json!({ "required": ["values"], "properties": { "values": { "minItems": 1 } } });
    let mut schema =
        object(&selectors::EXPRESSION, &["key", "operator"], "What has to hold of a key.", |field| match field {
            "key" => text("The label's key."),
            "operator" => json!({ "enum": selectors::OPERATORS }),
            "values" => refer("texts"),
            _ => Value::Bool(false),
        });
    schema["if"] = json!({ "properties": { "operator": { "enum": ["In", "NotIn"] } } });
    schema["then"] = some;
    schema["else"] = json!({ "properties": { "values": { "maxItems": 0 } } });
    schema
}

/// A mapping with the fields of a form. What no arm of `field` knows nothing can be.
fn object(form: &Form, required: &[&str], about: &str, field: impl Fn(&str) -> Value) -> Value {
    let properties = form.fields.iter().map(|name| ((*name).to_owned(), field(name)));
    json!({
        "type": "object",
        "description": about,
        "properties": properties.collect::<serde_json::Map<_, _>>(),
        "required": required,
        "additionalProperties": false,
    })
}

fn text(about: &str) -> Value {
    json!({ "type": "string", "description": about })
}

fn truth(about: &str) -> Value {
    json!({ "type": "boolean", "description": about })
}

/// A number on the wire.
fn wire((least, most): (i32, i32)) -> Value {
    let about = "What it is called on the wire; left out: what its name gives.";
    json!({ "type": "integer", "minimum": least, "maximum": most, "description": about })
}

fn list_of(item: &Value) -> Value {
    json!({ "type": "array", "items": item })
}

fn map_of(value: &Value) -> Value {
    json!({ "type": "object", "additionalProperties": value })
}

fn refer(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

//! `matchLabels` and `matchExpressions`: the same in both forms, with Kubernetes' grammar and meaning
//! (`k8s.io/apimachinery/pkg/apis/meta/v1`, LabelSelector). All that is named has to hold; `{}` selects everybody.
//!
//! | field | |
//! |---|---|
//! | `matchLabels` | each key with its one value |
//! | `matchExpressions` | a list of `key`, `operator` (In, NotIn, Exists, DoesNotExist) and, for the first two, `values` |

use crate::model::{
    invalid::{Invalid, Quoted},
    labels::{LabelKey, LabelSelector, LabelValue, Labels, Requirement},
};

use super::{
    Faults,
    fields::{Fields, Form, Null, entries, list, listed, parsed, text},
    tree::Node,
};

/// A selector by itself. It is the same in both forms but for fields with nothing in them.
pub(super) const KUBERNETES: Form = Form { null: Null::Missing, ..NATIVE };
/// As in weft's own form.
pub(super) const NATIVE: Form =
    Form { what: "a label selector", fields: &["matchLabels", "matchExpressions"], null: Null::Fault };

const KUBERNETES_EXPRESSION: Form = Form { null: Null::Missing, ..EXPRESSION };
/// What has to hold of one key.
pub(super) const EXPRESSION: Form =
    Form { what: "a label expression", fields: &["key", "operator", "values"], null: Null::Fault };

/// What can be asked of a key.
pub(super) const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// A selector.
pub(super) fn selector(node: &Node, null: Null, faults: &mut Faults) -> Option<LabelSelector> {
    let form = if null == Null::Missing { &KUBERNETES } else { &NATIVE };
    of(&Fields::of(node, form, faults)?, null, faults)
}

/// The selector that is among the fields of something.
pub(super) fn of(fields: &Fields<'_>, null: Null, faults: &mut Faults) -> Option<LabelSelector> {
    let mut found = Vec::new();
    if let Some(node) = fields.get("matchLabels") {
        found.extend(labels(node, "matchLabels", faults)?.iter().map(|(key, value)| {
            let only = [value.clone()].into_iter();
            Requirement::is_in(key.clone(), only)
        }));
    }
    let mut is_whole = true;
    if let Some(node) = fields.get("matchExpressions") {
        for item in list(node, "matchExpressions", faults)? {
            match expression(item, null, faults) {
                Some(requirement) => found.push(Ok(requirement)),
                None => is_whole = false,
            }
        }
    }
    let found = faults.check(fields.at, found.into_iter().collect::<Result<LabelSelector, Invalid>>())?;
    is_whole.then_some(found)
}

fn expression(node: &Node, null: Null, faults: &mut Faults) -> Option<Requirement> {
    let form = if null == Null::Missing { &KUBERNETES_EXPRESSION } else { &EXPRESSION };
    let fields = Fields::of(node, form, faults)?;
    let key = fields.need("key", faults).and_then(|node| parsed::<LabelKey>(node, "key", faults));
    let operator = fields.need("operator", faults).and_then(|node| Some((node.at, text(node, "operator", faults)?)));
    let values = match fields.get("values") {
        Some(node) => values(node, faults),
        None => Some(Vec::new()),
    };
    let (key, (at, operator), values) = (key?, operator?, values?);
    let takes_none = |faults: &mut Faults| {
        let at = fields.key_at("values");
        values.is_empty().then_some(()).or_else(|| {
            faults.add(at, format!("{operator} takes no values: take them away, or use In or NotIn"));
            None
        })
    };
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            faults.add(fields.key_at("values"), format!("{operator} needs at least one of values"));
            None
        }
        "In" => faults.check(at, Requirement::is_in(key, values)),
        "NotIn" => faults.check(at, Requirement::is_not_in(key, values)),
        "Exists" => takes_none(faults).map(|()| Requirement::Exists(key)),
        "DoesNotExist" => takes_none(faults).map(|()| Requirement::Absent(key)),
        other => {
            faults.add(at, format!("{} is no operator: use {}", Quoted(other), listed(&OPERATORS)));
            None
        }
    }
}

fn values(node: &Node, faults: &mut Faults) -> Option<Vec<LabelValue>> {
    let items = list(node, "values", faults)?;
    let values: Vec<_> = items.iter().map(|item| parsed(item, "a value", faults)).collect();
    values.into_iter().collect()
}

/// Labels, as a mapping of texts.
pub(super) fn labels(node: &Node, what: &str, faults: &mut Faults) -> Option<Labels> {
    let mut labels = Vec::new();
    for entry in entries(node, what, faults)? {
        let key = faults.check(entry.at, entry.key.parse::<LabelKey>());
        let value = parsed::<LabelValue>(&entry.value, "the value of a label", faults);
        labels.push(key.zip(value));
    }
    labels.into_iter().collect()
}

//! weft's own form, written: what is read of it again says the same.

use std::fmt::Write as _;

use super::{Policies, native::VERSION, tree};

/// Policies as manifests, a document each. Rules are in their short form.
pub fn write(policies: &Policies) -> String {
    let mut text = String::new();
    for (at, (name, (policy, rules))) in policies.iter().enumerate() {
        let between = if at > 0 { "---\n" } else { "" };
        let head = format!("{between}weft: {VERSION}\npolicy: {}\n", scalar(name.as_str()));
        text.push_str(&head);
        list(&mut text, "rules", rules);
        if !policy.expect.is_empty() {
            list(&mut text, "expect", &policy.expect);
        }
    }
    text
}

fn list<T: ToString>(text: &mut String, key: &str, items: &[T]) {
    text.push_str(key);
    text.push_str(if items.is_empty() { ": []\n" } else { ":\n" });
    for item in items {
        // Writing to a String can not fail.
        writeln!(text, "  - {}", scalar(&item.to_string())).unwrap_or_default();
    }
}

/// A text without quotes if it is the same text then.
fn scalar(text: &str) -> String {
    let starts_plain = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_plain = starts_plain
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([':', ' '])
        && matches!(tree::plain(text), tree::Value::Text(_));
    // A text in quotes is the same in JSON and in YAML.
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

//! What readers of both forms ask of a tree: mappings with fields that are known, lists, texts, numbers.
//!
//! Each answer is none if there was a fault, which is noted then.

use std::{rc::Rc, str::FromStr};

use crate::{
    model::invalid::{Invalid, Quoted},
    store::Position,
};

use super::{
    Faults,
    tree::{Entry, Node, Value},
};

/// What fields a mapping can have.
pub(super) struct Form {
    /// What it is, in a message: `a rule`.
    pub(super) what: &'static str,
    /// All that it can have.
    pub(super) fields: &'static [&'static str],
    /// What a field with nothing in it is.
    pub(super) null: Null,
}

/// What a field with nothing in it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    /// As if the field were not there, as Kubernetes has it.
    Missing,
    /// A fault: nothing can be meant by it.
    Fault,
}

/// The fields of a mapping.
pub(super) struct Fields<'a> {
    pub(super) at: Position,
    form: &'static Form,
    entries: &'a [Entry],
    /// Whether no entry is a fault by itself.
    pub(super) is_whole: bool,
}

impl<'a> Fields<'a> {
    /// The fields of `node`. Those that are not known are faults.
    pub(super) fn of(node: &'a Node, form: &'static Form, faults: &mut Faults) -> Option<Self> {
        let Form { what, fields, null } = form;
        let Value::Map(entries) = &node.value else {
            faults.add(node.at, format!("{what} is a mapping with {}, and this is {}", listed(fields), node.kind()));
            return None;
        };
        let mut is_whole = true;
        for Entry { key, at, value } in entries {
            if !fields.contains(&key.as_str()) {
                faults.add(*at, format!("{} is no field of {what}: use {}", Quoted(key), listed(fields)));
                is_whole = false;
            } else if *null == Null::Fault && matches!(value.value, Value::Null) {
                faults.add(*at, format!("{key} has nothing in it: take it away, or say what is meant"));
                is_whole = false;
            }
        }
        Some(Self { at: node.at, form, entries, is_whole })
    }

    /// A field that may be missing.
    pub(super) fn get(&self, name: &'static str) -> Option<&'a Node> {
        debug_assert!(self.form.fields.contains(&name), "{name} is not in the form");
        self.entry(name).map(|entry| &*entry.value)
    }

    /// A field that has to be there.
    pub(super) fn need(&self, name: &'static str, faults: &mut Faults) -> Option<&'a Node> {
        let found = self.get(name);
        // One with nothing in it was noted if that is a fault by itself.
        if found.is_none() && (self.form.null == Null::Missing || !self.is_written(name)) {
            faults.add(self.at, format!("{} needs {name}", self.form.what));
        }
        found
    }

    /// The one field of those that is there.
    pub(super) fn one_of(&self, names: &[&'static str], faults: &mut Faults) -> Option<(&'static str, &'a Node)> {
        let found: Vec<_> = names.iter().filter_map(|name| Some((*name, self.entry(name)?))).collect();
        match found.as_slice() {
            [(name, entry)] => Some((name, &entry.value)),
            [] => {
                // One that is not written as it should be was noted already.
                if self.is_whole {
                    faults.add(self.at, format!("{} needs one of {}", self.form.what, listed(names)));
                }
                None
            }
            [(first, _), (second, entry), ..] => {
                let what = self.form.what;
                faults.add(entry.at, format!("{what} has one of {}, not both {first} and {second}", listed(names)));
                None
            }
        }
    }

    /// Where a field's name is.
    pub(super) fn key_at(&self, name: &'static str) -> Position {
        self.entry(name).map_or(self.at, |entry| entry.at)
    }

    fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == name && !matches!(entry.value.value, Value::Null))
    }

    fn is_written(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == name)
    }
}

/// The items of a list.
pub(super) fn list<'a>(node: &'a Node, what: &str, faults: &mut Faults) -> Option<&'a [Rc<Node>]> {
    let Value::List(items) = &node.value else {
        faults.add(node.at, format!("{what} is a list, and this is {}", node.kind()));
        return None;
    };
    Some(items)
}

/// The entries of a mapping whose keys are names.
pub(super) fn entries<'a>(node: &'a Node, what: &str, faults: &mut Faults) -> Option<&'a [Entry]> {
    let Value::Map(entries) = &node.value else {
        faults.add(node.at, format!("{what} is a mapping, and this is {}", node.kind()));
        return None;
    };
    Some(entries)
}

/// A text.
pub(super) fn text<'a>(node: &'a Node, what: &str, faults: &mut Faults) -> Option<&'a str> {
    let Value::Text(text) = &node.value else {
        let help = if matches!(node.value, Value::Number(_) | Value::Bool(_)) { ": put it in quotes" } else { "" };
        faults.add(node.at, format!("{what} is a text, and this is {}{help}", node.kind()));
        return None;
    };
    Some(text)
}

/// A truth value.
pub(super) fn truth(node: &Node, what: &str, faults: &mut Faults) -> Option<bool> {
    let Value::Bool(truth) = node.value else {
        faults.add(node.at, format!("{what} is true or false, and this is {}", node.kind()));
        return None;
    };
    Some(truth)
}

/// What a text means.
pub(super) fn parsed<T: FromStr<Err = Invalid>>(node: &Node, what: &str, faults: &mut Faults) -> Option<T> {
    let text = text(node, what, faults)?;
    faults.check(node.at, text.parse())
}

/// A whole number in this range.
pub(super) fn number(node: &Node, what: &str, (least, most): (i32, i32), faults: &mut Faults) -> Option<i32> {
    let help = format!("{what} is a number from {least} to {most}");
    let Value::Number(text) = &node.value else {
        faults.add(node.at, format!("{help}, and this is {}", node.kind()));
        return None;
    };
    // In YAML 1.1, which other readers follow, a zero in front makes it octal.
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = digits == "0" || !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_plain && (least..=most).contains(number));
    if number.is_none() {
        faults.add(node.at, format!("{help}, and this is {}", Quoted(text)));
    }
    number
}

/// `a, b or c`.
pub(super) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => (*name).to_owned(),
        [names @ .., last] => format!("{} or {last}", names.join(", ")),
    }
}

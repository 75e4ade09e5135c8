//! The text of a manifest as a tree in which every value knows its place.
//!
//! Scalars have the types of YAML 1.2's core schema, and numbers keep their digits as they were written: whoever reads one
//! decides what it can be. Aliases share what they stand for; a document that would be too large with all of them written
//! out is refused, and so is one that is nested deeper than any manifest.

use std::{collections::BTreeMap, rc::Rc};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::{model::invalid::Quoted, store::Position};

use super::Faults;

/// A value and where it is.
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
    /// How many values it is, with those that aliases stand for.
    size: usize,
}

pub(super) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// A key with its value. No key is twice in a map.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) value: Rc<Node>,
}

impl Node {
    /// A field, whatever others there are. One with nothing in it is not there.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        let found = entries.iter().find(|entry| entry.key == name).map(|entry| &*entry.value);
        found.filter(|node| !matches!(node.value, Value::Null))
    }

    /// What it is, in a message.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a truth value",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Deeper than any manifest: Kubernetes' forms have 10 levels.
const DEEPEST: usize = 32;
/// How many values a document can have, with those that aliases stand for.
const LARGEST: usize = 1_000_000;

/// The documents of a text, those that can be read at all.
pub(super) fn documents(text: &str, faults: &mut Faults) -> Vec<Rc<Node>> {
    let options = granit_parser::options! {
        flow_nesting_limit: DEEPEST,
        block_nesting_limit: DEEPEST,
        emit_comments: false,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    loop {
        match document(&mut parser, faults) {
            Ok(Some(node)) => documents.push(node),
            Ok(None) => return documents,
            Err(Broken(at, text)) => {
                faults.add(at, text);
                if !parser.proceed_next_document().unwrap_or(false) {
                    return documents;
                }
            }
        }
    }
}

/// Why a document can not be read.
struct Broken(Position, String);

fn document<'a>(
    parser: &mut Parser<'a, granit_parser::StrInput<'a>>,
    faults: &mut Faults,
) -> Result<Option<Rc<Node>>, Broken> {
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            Broken(position(*error.marker()), format!("this is no YAML: {}", shortened(&error.info())))
        })?;
        let at = position(span.start);
        #[expect(clippy::wildcard_enum_match_arm, reason = "the enum can grow, and what is new was not asked for")]
        match event {
            Event::StreamEnd => return Ok(None),
            Event::DocumentEnd => {
                let root = builder.root.take();
                return Ok(Some(root.unwrap_or_else(|| Node { at, value: Value::Null, size: 1 }.into())));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref()).map_err(|help| Broken(at, help))?;
                builder.leaf(at, (&text, value), anchor, faults)?;
            }
            Event::Alias(anchor) => builder.alias(at, anchor, faults)?,
            Event::SequenceStart(_, anchor, tag) => {
                refuse(tag.as_deref(), "seq").map_err(|help| Broken(at, help))?;
                builder.open(Open { at, anchor, size: 1, content: Content::List(Vec::new()) })?;
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse(tag.as_deref(), "map").map_err(|help| Broken(at, help))?;
                builder.open(Open { at, anchor, size: 1, content: Content::Map(Vec::new(), BTreeMap::new(), None) })?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close(faults)?,
            Event::StreamStart | Event::DocumentStart(..) => {}
            _ => return Err(Broken(at, "this part of YAML is not understood: write it in another way".to_owned())),
        }
    }
    Ok(None)
}

/// A document that is being read.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    size: usize,
}

/// A list or mapping whose end has not come.
struct Open {
    at: Position,
    anchor: usize,
    size: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    /// Entries, the lines of their keys, and the key whose value has not come.
    Map(Vec<Entry>, BTreeMap<String, u32>, Option<(String, Position)>),
}

impl Builder {
    fn open(&mut self, open: Open) -> Result<(), Broken> {
        self.not_a_key(open.at)?;
        self.open.push(open);
        Ok(())
    }

    fn leaf(
        &mut self,
        at: Position,
        (text, value): (&str, Value),
        anchor: usize,
        faults: &mut Faults,
    ) -> Result<(), Broken> {
        if let Some(Open { content: Content::Map(_, _, key @ None), .. }) = self.open.last_mut() {
            *key = Some((text.to_owned(), at));
            if anchor != 0 {
                self.anchors.insert(anchor, Rc::new(Node { at, value: Value::Text(text.to_owned()), size: 1 }));
            }
            return Ok(());
        }
        self.add(Node { at, value, size: 1 }.into(), anchor, faults)
    }

    fn alias(&mut self, at: Position, anchor: usize, faults: &mut Faults) -> Result<(), Broken> {
        let found = self.anchors.get(&anchor).cloned();
        let node = found.ok_or_else(|| Broken(at, "an alias can not stand for what it is a part of".to_owned()))?;
        if let Value::Text(text) = &node.value {
            return self.leaf(at, (text, Value::Text(text.clone())), 0, faults);
        }
        self.not_a_key(at)?;
        self.add(node, 0, faults)
    }

    fn close(&mut self, faults: &mut Faults) -> Result<(), Broken> {
        let Some(Open { at, anchor, size, content }) = self.open.pop() else { return Ok(()) };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map(entries, ..) => Value::Map(entries),
        };
        self.add(Node { at, value, size }.into(), anchor, faults)
    }

    fn not_a_key(&self, at: Position) -> Result<(), Broken> {
        match self.open.last() {
            Some(Open { content: Content::Map(_, _, None), .. }) => {
                Err(Broken(at, "a key is a text; if it starts with one of [{*&!|>%@, put it in quotes".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Adds a value to what is open.
    fn add(&mut self, node: Rc<Node>, anchor: usize, faults: &mut Faults) -> Result<(), Broken> {
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let at = node.at;
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.size = parent.size.saturating_add(node.size);
        self.size = self.size.max(parent.size);
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map(entries, lines, key) => {
                let Some((key, key_at)) = key.take() else { return Ok(()) };
                if let Some(line) = lines.get(&key) {
                    let text = format!("{} is there twice, first in line {line}: take one away", Quoted(&key));
                    faults.add(key_at, text);
                } else {
                    lines.insert(key.clone(), key_at.line);
                    entries.push(Entry { key, at: key_at, value: node });
                }
            }
        }
        if self.size > LARGEST {
            return Err(Broken(at, format!("the document has more than {LARGEST} values: write smaller ones")));
        }
        Ok(())
    }
}

/// What a scalar is, by the core schema of YAML 1.2 (section 10.3.2).
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    if tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str")) {
        return Ok(Value::Text(text.to_owned()));
    }
    refuse(tag, "str")?;
    Ok(if style == ScalarStyle::Plain { plain(text) } else { Value::Text(text.to_owned()) })
}

/// What a text is without quotes.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let some = |text: &str, is: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(is);
    if let Some(digits) = text.strip_prefix("0x") {
        return some(digits, u8::is_ascii_hexdigit);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return some(digits, |digit| (b'0'..=b'7').contains(digit));
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if [".inf", ".Inf", ".INF"].contains(&unsigned) || [".nan", ".NaN", ".NAN"].contains(&text) {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    digits(whole)
        && digits(part)
        && !(whole.is_empty() && part.is_empty())
        && exponent.is_none_or(|text| some(text.strip_prefix(['+', '-']).unwrap_or(text), u8::is_ascii_digit))
}

fn refuse(tag: Option<&Tag>, own: &str) -> Result<(), String> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(own) => {
            Err(format!("the tag {} is not understood: take it away", Quoted(&tag.original())))
        }
        _ => Ok(()),
    }
}

fn position(marker: Marker) -> Position {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Position { line: number(marker.line()), column: number(marker.col()).saturating_add(1) }
}

/// A sentence of the parser, which can quote the text.
fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(200).map_or(text.len(), |(end, _)| end);
    &text[..end]
}

//! Labels of apps and endpoints, and what selects by them: the grammar and the meaning are Kubernetes'.
//!
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>. Operators give labels; nothing that a
//! container says changes them. Invariant: keys and values are ASCII and have no space, comma, bracket or `=`, so that
//! the text of a selector can be read in one way only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use super::invalid::Invalid;

/// A label's key: `tier`, or with a domain in front as `example.org/tier`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey(Arc<str>);

/// A label's value, which may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelValue(Arc<str>);

/// What somebody is labelled with: each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(BTreeMap<LabelKey, LabelValue>);

/// Which labels somebody has to have. All requirements hold together; none selects everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector(BTreeSet<Requirement>);

/// What has to hold of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The key is there with one of these values. At least one.
    In(LabelKey, BTreeSet<LabelValue>),
    /// The key is not there, or with none of these values. At least one.
    NotIn(LabelKey, BTreeSet<LabelValue>),
    /// The key is there.
    Exists(LabelKey),
    /// The key is not there.
    Absent(LabelKey),
}

/// The longest name of a key, and the longest value.
const LONGEST: usize = 63;
/// The longest domain of a key.
const LONGEST_DOMAIN: usize = 253;

fn is_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST && bytes.iter().all(|&b| inner(b)) && outer(bytes.first()) && outer(bytes.last())
}

fn is_domain(text: &str) -> bool {
    let part =
        |part: &str| is_word(part) && part.bytes().all(|b| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= LONGEST_DOMAIN && text.split('.').all(part)
}

impl LabelKey {
    /// The key by which an endpoint's plain role is a label too.
    pub fn role() -> Self {
        Self("role".into())
    }

    /// The key under which every app has its own name, as Kubernetes gives it to namespaces.
    pub fn name() -> Self {
        Self("kubernetes.io/metadata.name".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabelKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = match text.split_once('/') {
            Some((domain, name)) => is_domain(domain) && is_word(name),
            None => is_word(text),
        };
        let help = "use letters, digits, '-', '_' and '.', at most 63, with a domain and '/' in front if need be";
        if fits { Ok(Self(text.into())) } else { Err(Invalid::new("label key", text, help)) }
    }
}

impl LabelValue {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabelValue {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let help = "use letters, digits, '-', '_' and '.', at most 63, or nothing";
        if text.is_empty() || is_word(text) {
            Ok(Self(text.into()))
        } else {
            Err(Invalid::new("label value", text, help))
        }
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Labels {
    /// The value of a key, if it is there.
    pub fn get(&self, key: &LabelKey) -> Option<&LabelValue> {
        self.0.get(key)
    }

    /// Gives a key a value. What it had before.
    pub fn set(&mut self, key: LabelKey, value: LabelValue) -> Option<LabelValue> {
        self.0.insert(key, value)
    }

    /// Takes a key away. What it had.
    pub fn unset(&mut self, key: &LabelKey) -> Option<LabelValue> {
        self.0.remove(key)
    }

    /// With the labels of `set`, and without the keys of `unset`.
    pub fn change(&mut self, set: &Self, unset: &[LabelKey]) {
        self.0.retain(|key, _| !unset.contains(key));
        self.0.extend(set.0.clone());
    }

    /// Each key with its value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&LabelKey, &LabelValue)> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(LabelKey, LabelValue)> for Labels {
    fn from_iter<I: IntoIterator<Item = (LabelKey, LabelValue)>>(labels: I) -> Self {
        Self(labels.into_iter().collect())
    }
}

/// `tier=db`.
pub fn label(text: &str) -> Result<(LabelKey, LabelValue), Invalid> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| Invalid::new("label", text, "write KEY=VALUE, as tier=db"))?;
    Ok((key.parse()?, value.parse()?))
}

/// `env=prod,tier=db`; nothing for none.
impl FromStr for Labels {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut labels = Self::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (key, value) = label(part)?;
            if let Some(before) = labels.set(key.clone(), value.clone()).filter(|before| *before != value) {
                return Err(Invalid::new("set of labels", text, format!("{key} is both {before} and {value}")));
            }
        }
        Ok(labels)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl Requirement {
    /// The key is there with one of `values`. Refuses none: it would select nobody, and is mostly a mistake.
    pub fn is_in(key: LabelKey, values: impl IntoIterator<Item = LabelValue>) -> Result<Self, Invalid> {
        let values = some(&key, values)?;
        Ok(Self::In(key, values))
    }

    /// The key is not there, or with none of `values`. Refuses none: it would select everybody.
    pub fn is_not_in(key: LabelKey, values: impl IntoIterator<Item = LabelValue>) -> Result<Self, Invalid> {
        let values = some(&key, values)?;
        Ok(Self::NotIn(key, values))
    }

    /// Whether it holds of `labels`.
    pub fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::Absent(key) => labels.get(key).is_none(),
        }
    }
}

fn some(key: &LabelKey, values: impl IntoIterator<Item = LabelValue>) -> Result<BTreeSet<LabelValue>, Invalid> {
    let values: BTreeSet<_> = values.into_iter().collect();
    if values.is_empty() {
        return Err(Invalid::new("requirement", key.as_str(), "name at least one value"));
    }
    Ok(values)
}

impl LabelSelector {
    /// Whether it selects whoever has `labels`.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }

    /// Whether it selects everybody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Requirement> for LabelSelector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        Self(requirements.into_iter().collect())
    }
}

/// `tier=db,env in (prod,test),!canary`, as kubectl's `--selector`; nothing for everybody.
impl FromStr for LabelSelector {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        parts(text).ok_or_else(|| Invalid::new("label selector", text, HELP))?.into_iter().map(str::parse).collect()
    }
}

const HELP: &str = "write KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY, with ',' between";

/// The parts between commas that are in no brackets. None: brackets do not match.
fn parts(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' if inside => return None,
            b')' if !inside => return None,
            b'(' | b')' => inside = !inside,
            b',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    Some(parts).filter(|_| !inside)
}

impl FromStr for Requirement {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        if let Some((head, list)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            let values = || list.split(',').map(|value| value.trim().parse()).collect::<Result<Vec<_>, _>>();
            let words: Vec<_> = head.split_ascii_whitespace().collect();
            return match words.as_slice() {
                _ if list.trim().is_empty() => Err(Invalid::new("requirement", text, "name at least one value")),
                [key, "in"] => Self::is_in(key.parse()?, values()?),
                [key, "notin"] => Self::is_not_in(key.parse()?, values()?),
                _ => Err(Invalid::new("requirement", text, HELP)),
            };
        }
        if let Some((key, value)) = text.split_once("!=") {
            return Self::is_not_in(key.trim().parse()?, [value.trim().parse()?]);
        }
        if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Self::is_in(key.trim().parse()?, [value.trim().parse()?]);
        }
        match text.strip_prefix('!') {
            Some(key) => Ok(Self::Absent(key.trim().parse()?)),
            None => Ok(Self::Exists(text.parse()?)),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, key, (one, many), values: &BTreeSet<LabelValue>| {
            let texts: Vec<_> = values.iter().map(LabelValue::as_str).collect();
            match texts.as_slice() {
                [value] => write!(f, "{key}{one}{value}"),
                values => write!(f, "{key} {many} ({})", values.join(",")),
            }
        };
        match self {
            Self::In(key, values) => list(f, key, ("=", "in"), values),
            Self::NotIn(key, values) => list(f, key, ("!=", "notin"), values),
            Self::Exists(key) => write!(f, "{key}"),
            Self::Absent(key) => write!(f, "!{key}"),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.0.iter().enumerate() {
            write!(f, "{}{requirement}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_printed() {
        let check = |text: &str, expect: &str| {
            let selector: LabelSelector = text.parse().unwrap();
            assert_eq!(selector.to_string(), expect);
            assert_eq!(selector.to_string().parse::<LabelSelector>().unwrap(), selector);
        };
        check("", "");
        check("tier=db", "tier=db");
        check("tier==db , env in ( test,prod )", "env in (prod,test),tier=db");
        check("!canary,example.org/team,a!=b,c notin (d,e)", "a!=b,c notin (d,e),example.org/team,!canary");
        check("empty=", "empty=");
        check("env in (prod)", "env=prod");
    }

    #[test]
    fn what_is_no_selector_is_refused_by_name() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<LabelSelector>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("a in ()", "name at least one value");
        check("a in (b", "is no label selector");
        check("a in b)", "is no label selector");
        check("a within (b)", "is no requirement");
        check("a=b=c", "\"b=c\" is no label value");
        check("a,,b", "\"\" is no label key");
        check("-a", "is no label key");
        check("Example.org/a", "is no label key");
        check("a=\u{e9}", "is no label value");
    }

    #[test]
    fn a_requirement_means_what_kubernetes_says() {
        let labels: Labels = "tier=db,env=prod,empty=".parse().unwrap();
        let check = |text: &str, expect: bool| {
            assert_eq!(text.parse::<LabelSelector>().unwrap().selects(&labels), expect, "{text}");
        };
        check("", true);
        check("tier=db", true);
        check("tier=web", false);
        check("tier!=web", true);
        check("tier!=db", false);
        // A key that is not there is in no list of values.
        check("team!=a", true);
        check("team notin (a,b)", true);
        check("team in (a,b)", false);
        check("tier in (web,db)", true);
        check("empty", true);
        check("empty=", true);
        check("!empty", false);
        check("!team", true);
        check("tier=db,env=test", false);
    }

    #[test]
    fn labels_are_read_and_printed() {
        let labels: Labels = "b=2,a=1".parse().unwrap();
        assert_eq!(labels.to_string(), "a=1,b=2");
        assert!("".parse::<Labels>().unwrap().is_empty());
        "a=1,a=1".parse::<Labels>().unwrap();
        assert!("a=1,a=2".parse::<Labels>().unwrap_err().to_string().contains("a is both 1 and 2"));
        assert!("a".parse::<Labels>().unwrap_err().to_string().contains("write KEY=VALUE"));
    }
}

//! What is said of a text that is not what it should be.

use std::{borrow::Cow, error::Error, fmt};

/// A text that was refused: what it should have been, the text, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    kind: &'static str,
    text: String,
    help: Cow<'static, str>,
}

impl Invalid {
    /// `text` is no `kind`; `help` says what to do.
    pub fn new(kind: &'static str, text: &str, help: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, text: text.to_owned(), help: help.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, text, help } = self;
        write!(f, "{} is no {kind}: {help}", Quoted(text))
    }
}

impl Error for Invalid {}

/// Text from outside, fit for a terminal: in quotes, escaped, and not longer than a line.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl Quoted<'_> {
    const LONGEST: usize = 80;
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut: String = self.0.chars().take(Self::LONGEST).collect();
        let more = if cut.len() < self.0.len() { "..." } else { "" };
        f.write_str("\"")?;
        for c in cut.chars() {
            // Beyond ASCII lie characters that reorder or hide others.
            if c.is_ascii() { write!(f, "{}", c.escape_debug())? } else { write!(f, "{}", c.escape_unicode())? }
        }
        write!(f, "{more}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_reaches_a_terminal_unescaped() {
        let check = |text: &str, expect: &str| assert_eq!(Quoted(text).to_string(), expect);
        check("shop", "\"shop\"");
        check("a\u{1b}[2J\n", "\"a\\u{1b}[2J\\n\"");
        check("a\"b\\", "\"a\\\"b\\\\\"");
        check("a\u{202e}b\u{e9}", "\"a\\u{202e}b\\u{e9}\"");
        assert_eq!(Quoted(&"x".repeat(1000)).to_string().len(), Quoted::LONGEST + 5);
    }

    #[test]
    fn it_says_what_and_what_to_do() {
        let invalid = Invalid::new("port", "70000", "use 1 to 65535");
        assert_eq!(invalid.to_string(), "\"70000\" is no port: use 1 to 65535");
    }
}

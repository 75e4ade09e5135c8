//! What a person reads: lines, and tables among them.
//!
//! Invariant: text gets onto a page only through [`escape`], so that a name can not move the cursor, change the
//! colour, or read from right to left.

use std::fmt::{self, Write as _};

use super::table::Table;

/// Lines for a terminal or a pipe.
#[derive(Debug)]
pub struct Page {
    text: String,
    colour: Colour,
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// They are.
    On,
    /// They are not.
    Off,
}

/// How something is, as a colour says it. The text says it, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing to say of it.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Odd,
    /// Not as it should be.
    Bad,
    /// Beside the point.
    Faint,
    /// A heading.
    Strong,
}

/// A piece of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    text: String,
    tone: Tone,
}

/// Text from outside, fit for a terminal: ASCII that can be seen, the rest as `\u{...}`. Letters beyond ASCII
/// are escaped with those that reorder or hide others: no name of weft has any.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => escaped.push(c),
            '\t' | '\n' | '\r' => escaped.extend(c.escape_default()),
            other => escaped.extend(other.escape_unicode()),
        }
    }
    escaped
}

impl Span {
    /// A piece of a line in a tone.
    pub fn new(tone: Tone, text: impl fmt::Display) -> Self {
        Self { text: escape(&text.to_string()), tone }
    }

    /// Characters that it takes on the screen.
    pub fn width(&self) -> usize {
        // All ASCII.
        self.text.len()
    }

    /// As it is printed.
    pub fn paint(&self, colour: Colour) -> String {
        let Self { text, tone } = self;
        let code = match tone {
            Tone::Plain => None,
            Tone::Good => Some("32"),
            Tone::Odd => Some("33"),
            Tone::Bad => Some("31"),
            Tone::Faint => Some("2"),
            Tone::Strong => Some("1"),
        };
        match (colour, code) {
            (Colour::On, Some(code)) if !text.is_empty() => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            (Colour::On | Colour::Off, _) => text.clone(),
        }
    }
}

/// In no tone.
impl<T: fmt::Display> From<T> for Span {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

impl Page {
    /// Nothing yet.
    pub fn new(colour: Colour) -> Self {
        Self { text: String::new(), colour }
    }

    /// A line.
    pub fn line(&mut self, text: impl fmt::Display) {
        self.spans([Span::from(text)]);
    }

    /// A line in one tone.
    pub fn toned(&mut self, tone: Tone, text: impl fmt::Display) {
        self.spans([Span::new(tone, text)]);
    }

    /// A line of pieces, which bring their own spaces.
    pub fn spans(&mut self, spans: impl IntoIterator<Item = Span>) {
        self.text.extend(spans.into_iter().map(|span| span.paint(self.colour)));
        self.text.push('\n');
    }

    /// An empty line, unless the page is empty.
    pub fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// A table.
    pub fn table(&mut self, table: &Table) {
        // Writing to a string does not fail.
        let _written = write!(self.text, "{}", table.on(self.colour));
    }

    /// All lines.
    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_reaches_a_terminal_unescaped() {
        let check = |text: &str, expect: &str| assert_eq!(escape(text), expect);
        check("shop/web-1 \"~\"\\", "shop/web-1 \"~\"\\");
        check("a\u{1b}[2Jb", "a\\u{1b}[2Jb");
        check("a\nb\r\tc\0\u{7f}", "a\\nb\\r\\tc\\u{0}\\u{7f}");
        check("\u{9b}2J\u{202e}\u{2066}\u{200b}\u{e9}", "\\u{9b}2J\\u{202e}\\u{2066}\\u{200b}\\u{e9}");
    }

    #[test]
    fn colours_are_around_the_text_and_only_if_wanted() {
        let span = Span::new(Tone::Bad, "a\u{1b}");
        assert_eq!(span.paint(Colour::Off), "a\\u{1b}");
        assert_eq!(span.paint(Colour::On), "\u{1b}[31ma\\u{1b}\u{1b}[0m");
        assert_eq!(span.width(), 7);
        assert_eq!(Span::new(Tone::Bad, "").paint(Colour::On), "");
    }
}

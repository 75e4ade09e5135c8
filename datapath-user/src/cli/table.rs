//! Tables: a heading, and columns as wide as their widest entry. Plain text that `grep` and `awk` can read.

use std::fmt;

use super::page::{Colour, Span, Tone};

/// Rows of equal length.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Span>>,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    side: Align,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// Words.
pub const fn left(name: &'static str) -> Column {
    Column { name, side: Align::Left }
}

/// Numbers.
pub const fn right(name: &'static str) -> Column {
    Column { name, side: Align::Right }
}

/// Between columns.
const GAP: &str = "  ";

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row with an entry for each column; one that is empty is shown as `-`.
    pub fn row(&mut self, row: impl IntoIterator<Item = Span>) {
        let entry = |span: Span| if span.width() == 0 { Span::new(Tone::Faint, "-") } else { span };
        self.rows.push(row.into_iter().map(entry).collect());
        debug_assert_eq!(self.rows.last().map(Vec::len), Some(self.columns.len()));
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As it is printed.
    pub fn on(&self, colour: Colour) -> impl fmt::Display {
        let heading = self.columns.iter().map(|column| Span::new(Tone::Strong, column.name)).collect();
        let rows: Vec<&Vec<Span>> = std::iter::once(&heading).chain(&self.rows).collect();
        let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(Span::width).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            // Spaces that nothing follows are not printed.
            let mut pending = 0;
            for ((span, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let fill = width - span.width();
                let (before, after) = match column.side {
                    Align::Left => (0, fill),
                    Align::Right => (fill, 0),
                };
                line.extend(std::iter::repeat_n(' ', pending + before));
                line.push_str(&span.paint(colour));
                pending = after + GAP.len();
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colours() {
        let mut table = Table::new([left("NAME"), right("N"), left("STATE")]);
        assert!(table.is_empty());
        table.row(["a".into(), "1000".into(), Span::new(Tone::Good, "ready")]);
        table.row(["long\u{1b}".into(), "7".into(), Span::default()]);
        let plain = "\
NAME           N  STATE
a           1000  ready
long\\u{1b}     7  -
";
        assert_eq!(table.on(Colour::Off).to_string(), plain);
        let coloured = table.on(Colour::On).to_string();
        assert!(coloured.contains("  \u{1b}[32mready\u{1b}[0m\n"), "{coloured:?}");
        assert!(coloured.starts_with("\u{1b}[1mNAME\u{1b}[0m           \u{1b}[1mN\u{1b}[0m  "), "{coloured:?}");
    }
}

//! Text in columns: the first column to the left, the others to the right, as numbers are read.

use std::fmt;

/// Rows of cells. A row may be shorter than others.
#[derive(Default)]
pub(crate) struct Grid {
    rows: Vec<Vec<String>>,
    /// The columns that are text: from the left.
    text: usize,
}

impl Grid {
    /// The first `text` columns are aligned to the left.
    pub(crate) fn new(text: usize) -> Self {
        Self { rows: Vec::new(), text }
    }

    /// Adds a row.
    pub(crate) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        (0..columns).map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or_default()).collect()
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let cell =
                    if column < self.text { format!("{gap}{cell:<width$}") } else { format!("{gap}{cell:>width$}") };
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_left_and_numbers_are_right() {
        let mut grid = Grid::new(1);
        grid.row(["tcp", "1.00", "2"]);
        grid.row(["requests", "30.25"]);
        assert_eq!(grid.to_string(), "tcp        1.00  2\nrequests  30.25\n");
    }
}

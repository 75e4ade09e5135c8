//! Who reaches whom: for people, and as a picture.

use std::fmt::Write as _;

use super::{
    junit::escape,
    page::{Page, Span, Tone},
};
use crate::front::api::dto::policies::{Cell, Matrix, Reach};

pub(super) fn show(page: &mut Page, Matrix { parties, tables }: &Matrix) {
    let digits = parties.len().to_string().len();
    let widest = parties.iter().map(|name| Span::from(name).width()).max().unwrap_or_default();
    for Reach { with, rows } in tables {
        page.toned(Tone::Strong, format!("with {with}"));
        let mut heading = " ".repeat(digits + 1 + widest);
        heading.extend((1..=parties.len()).map(|number| format!(" {number:>digits$}")));
        page.line(heading);
        for ((number, name), cells) in (1..).zip(parties).zip(rows) {
            let name = Span::from(name);
            let fill = " ".repeat(widest - name.width());
            let head = [Span::from(format!("{number:>digits$} ")), name, fill.into()];
            let cell = |cell: &Cell| {
                let (tone, sign) = match cell {
                    Cell::All => (Tone::Good, "."),
                    Cell::Nothing => (Tone::Bad, "X"),
                    Cell::Some(_) => (Tone::Odd, "+"),
                    Cell::Itself => (Tone::Faint, "#"),
                };
                [Span::from(" ".repeat(digits)), Span::new(tone, sign)]
            };
            page.spans(head.into_iter().chain(cells.iter().flat_map(cell)));
        }
        for (from, cells) in parties.iter().zip(rows) {
            for (to, cell) in parties.iter().zip(cells) {
                if let Cell::Some(what) = cell {
                    page.line(format!("{from} -> {to}: {}", what.join(", ")));
                }
            }
        }
        page.gap();
    }
    page.toned(Tone::Faint, "senders from top to bottom; . allowed, X denied, + in part (listed), # itself");
}

/// Side of a cell, and what a letter is wide.
const CELL: usize = 18;
const LETTER: usize = 7;
const MARGIN: usize = 16;
const LINE: usize = 22;

/// The picture: a table below the other. Static SVG without scripts, fonts and links.
pub(super) fn svg(matrix: &Matrix) -> String {
    let Matrix { parties, tables } = matrix;
    let longest = parties.iter().map(|name| escape(name).len()).max().unwrap_or_default();
    let label = longest * LETTER + 8;
    let side = parties.len() * CELL;
    let each = LINE + label + side + MARGIN;
    let width = (MARGIN * 2 + label + side).max(420);
    let height = MARGIN + each * tables.len() + LINE + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" font-family=\"ui-monospace,monospace\" font-size=\"12\">\n\
         <title>Who reaches whom</title>\n\
         <style>text{{fill:#1f2933}}.f{{fill:#7b8794}}.a{{fill:#2f9e6e}}.s{{fill:#f0b429}}.n{{fill:#f6dcdc}}\
         .i{{fill:#e4e7eb}}.g{{stroke:#fff;stroke-width:1}}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (at, table) in tables.iter().enumerate() {
        let place = Place { top: MARGIN + at * each, left: MARGIN + label, head: LINE + label };
        table_svg(&mut svg, parties, table, &place);
    }
    let mut left = MARGIN;
    let below = height - MARGIN;
    for (class, what) in [("a", "allowed"), ("s", "in part"), ("n", "denied"), ("i", "itself")] {
        let (top, after) = (below - 11, left + 18);
        // Writing to a string does not fail.
        let _written = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"12\" height=\"12\"/>\
             <text class=\"f\" x=\"{after}\" y=\"{below}\">{what}</text>"
        );
        left += 26 + (what.len() + 1) * LETTER;
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where a table is.
struct Place {
    top: usize,
    /// Where its cells begin, from the left.
    left: usize,
    /// And below its top.
    head: usize,
}

fn table_svg(svg: &mut String, parties: &[String], Reach { with, rows }: &Reach, place: &Place) {
    let Place { top, left, head } = *place;
    let (cells, side) = (top + head, parties.len() * CELL);
    // Writing to a string does not fail.
    let _written = write!(
        svg,
        "<g><text x=\"{MARGIN}\" y=\"{}\" font-weight=\"bold\">with {}</text>\n\
         <rect class=\"n\" x=\"{left}\" y=\"{cells}\" width=\"{side}\" height=\"{side}\"/>\n",
        top + 12,
        escape(with)
    );
    for (at, name) in parties.iter().enumerate() {
        let (name, middle) = (escape(name), at * CELL + CELL / 2 + 4);
        let (row, column) = (cells + middle, left + middle);
        let (end, start) = (left - 6, cells - 6);
        let _written = writeln!(
            svg,
            "<text x=\"{end}\" y=\"{row}\" text-anchor=\"end\">{name}</text>\
             <text transform=\"translate({column},{start}) rotate(-90)\">{name}</text>"
        );
    }
    for (from, (row, cells_of)) in parties.iter().zip(rows.iter().enumerate()) {
        for (to, (column, cell)) in parties.iter().zip(cells_of.iter().enumerate()) {
            let (class, what) = match cell {
                // The ground is denied.
                Cell::Nothing => continue,
                Cell::All => ("a", with.clone()),
                Cell::Some(what) => ("s", what.join(", ")),
                Cell::Itself => ("i", "itself".to_owned()),
            };
            let (x, y) = (left + column * CELL, cells + row * CELL);
            let title = escape(&format!("{from} -> {to}: {what}"));
            let _written = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\"><title>{title}</title></rect>"
            );
        }
    }
    for line in 0..=parties.len() {
        let (x, y) = (left + line * CELL, cells + line * CELL);
        let _written = write!(svg, "<path class=\"g\" d=\"M{left} {y}h{side}M{x} {cells}v{side}\"/>");
    }
    svg.push_str("</g>\n");
}

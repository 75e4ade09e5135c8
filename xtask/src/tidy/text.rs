//! Checks of one file that need no knowledge of the others: characters, layout, names, size, where unsafe is.

use std::fmt;

use super::{
    Finding,
    source::{Source, Token, tokens},
};

/// No file is longer, whatever it is.
const LIMIT: usize = 600;

/// A file that is longer than it should be.
#[derive(Debug, PartialEq)]
pub(super) enum Size {
    /// A signal to look.
    Guide(String),
    /// A failure.
    Limit(Finding),
}

/// Source is ASCII: what looks like another character cannot hide there. Comments may draw.
pub(super) fn ascii(source: &Source) -> Vec<Finding> {
    let comments = source.comments();
    let lines = source.text.lines().zip(comments.lines()).enumerate();
    let foreign = |(index, (line, comment)): (usize, (&str, &str))| {
        let mut pairs = line.chars().zip(comment.chars());
        let (c, _) = pairs.find(|&(c, comment)| !(c.is_ascii() || comment == c && draws(c)))?;
        Some(Finding::new(&source.path, index + 1, format!("{} is not ASCII", Shown(c))))
    };
    lines.filter_map(foreign).collect()
}

/// No blanks at the end of a line, a line end at the end of the file.
pub(super) fn layout(path: &str, text: &str) -> Vec<Finding> {
    let trailing = text.lines().enumerate().filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
    let mut findings: Vec<_> =
        trailing.map(|(index, _)| Finding::new(path, index + 1, "blanks at the end of the line")).collect();
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::new(path, text.lines().count(), "no line end at the end of the file"));
    }
    findings
}

/// A name says what is inside.
pub(super) fn names(source: &Source, nameless: &[&str]) -> Vec<Finding> {
    let what = |name: &str| format!("{name} says nothing about what is inside");
    // The first part is the package; `common` may be one.
    let parts = source.path.split('/').skip(1).map(|part| part.strip_suffix(".rs").unwrap_or(part));
    let mut findings: Vec<_> =
        parts.filter(|part| nameless.contains(part)).map(|part| Finding::new(&source.path, 1, what(part))).collect();
    for pair in tokens(&source.code()).windows(2) {
        if let [(_, Token::Word(keyword)), (line, Token::Word(name))] = pair
            && keyword == "mod"
            && nameless.contains(&name.as_str())
        {
            findings.push(Finding::new(&source.path, *line, what(name)));
        }
    }
    findings
}

/// `unsafe` only where it is reviewed as such.
pub(super) fn unsafety(source: &Source, allowed: &[&str]) -> Vec<Finding> {
    let listed = |entry: &&str| source.path == **entry || entry.ends_with('/') && source.path.starts_with(*entry);
    if allowed.iter().any(listed) {
        return Vec::new();
    }
    let keyword = Token::Word("unsafe".to_owned());
    let uses = tokens(&source.code()).into_iter().filter(|(_, token)| *token == keyword);
    let what = "unsafe outside the files listed in xtask/src/tidy.rs";
    uses.map(|(line, _)| Finding::new(&source.path, line, what)).collect()
}

/// Compares the lines of a file, without its test modules, with what its kind should have.
pub(super) fn size(source: &Source) -> Option<Size> {
    let lines = source.product_lines();
    let path = &source.path;
    let guide = if path.starts_with("datapath-ebpf/") {
        200
    } else if path.starts_with("tests/") || path.ends_with("/tests.rs") {
        500
    } else {
        400
    };
    if lines > LIMIT {
        return Some(Size::Limit(Finding::new(path, LIMIT, format!("{lines} lines; no file has more than {LIMIT}"))));
    }
    (lines > guide).then(|| Size::Guide(format!("{path}: {lines} lines, where {guide} are the guide")))
}

/// Dashes, arrows, boxes, and the few signs of arithmetic that a formula needs.
fn draws(c: char) -> bool {
    matches!(c, '\u{2010}'..='\u{2015}' | '\u{2190}'..='\u{21ff}' | '\u{2500}'..='\u{257f}')
        || matches!(c, '\u{25ba}' | '\u{25c4}' | '\u{25b2}' | '\u{25bc}' | '\u{2026}')
        || matches!(
            c,
            '\u{a7}' | '\u{b2}' | '\u{b3}' | '\u{b5}' | '\u{b7}' | '\u{d7}' | '\u{2260}' | '\u{2264}' | '\u{2265}'
        )
}

/// A character by sight and by number.
struct Shown(char);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (U+{:04X})", self.0, u32::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn only_comments_draw() {
        let check =
            |text: &str, expect: &[usize]| assert_eq!(lines(&ascii(&Source::new("a.rs", text))), expect, "{text}");
        check("//! a \u{2500}\u{25ba} b \u{2014} c \u{2264} d\n", &[]);
        check("// a\nlet a = \"\u{2014}\";\n", &[2]);
        check("// caf\u{e9}\n", &[1]);
        check("// right \u{202e} to left\n", &[1]);
    }

    #[test]
    fn lines_and_files_end_well() {
        let check = |text: &str, expect: &[usize]| assert_eq!(lines(&layout("a", text)), expect, "{text:?}");
        check("a\nb\n", &[]);
        check("a \nb\t\n\n", &[1, 2]);
        check("a\nb", &[2]);
        check("a\r\nb\n", &[]);
        check("", &[]);
    }

    #[test]
    fn names_say_something() {
        let check = |path: &str, text: &str, expect: &[usize]| {
            assert_eq!(lines(&names(&Source::new(path, text), &["utils", "common"])), expect, "{path}: {text}");
        };
        check("common/src/wire.rs", "mod wire;", &[]);
        check("tests/common/mod.rs", "", &[1]);
        check("xtask/src/utils.rs", "", &[1]);
        check("xtask/src/main.rs", "mod a;\npub(crate) mod utils {}\n// mod utils", &[2]);
    }

    #[test]
    fn unsafe_is_listed() {
        let check = |path: &str, text: &str, expect: &[usize]| {
            assert_eq!(
                lines(&unsafety(&Source::new(path, text), &["a/wire.rs", "b/kernel/"])),
                expect,
                "{path}: {text}"
            );
        };
        check("a/wire.rs", "unsafe {}", &[]);
        check("b/kernel/load.rs", "unsafe {}", &[]);
        check("b/kernels.rs", "fn f() {\n    unsafe {}\n}", &[2]);
        check("c.rs", "#![forbid(unsafe_code)] // unsafe\n\"unsafe\"", &[]);
        check("c.rs", "#[unsafe(no_mangle)]", &[1]);
    }

    #[test]
    fn a_long_file_is_told_and_a_very_long_one_fails() {
        let check = |path: &str, lines: usize| size(&Source::new(path, &"//\n".repeat(lines)));
        assert_eq!(check("datapath-ebpf/src/encap.rs", 200), None);
        assert!(matches!(check("datapath-ebpf/src/encap.rs", 201), Some(Size::Guide(_))));
        assert_eq!(check("datapath-user/src/status.rs", 400), None);
        assert_eq!(check("tests/prog/local.rs", 500), None);
        assert!(matches!(check("tests/prog/local.rs", 600), Some(Size::Guide(_))));
        assert!(matches!(check("tests/prog/local.rs", 601), Some(Size::Limit(_))));
    }
}

//! Drop reasons: each has a sentence for the operator and a test that sees it.

use super::{
    Finding,
    source::{Source, body, has_word},
};

const HOME: &str = "common/src/verdict.rs";

/// The macro that makes `DropReason` of lines `/// Sentence.` and `Variant = "word",`.
const LIST: &str = "drop_reasons!";

/// Reasons that no story tells yet. The list only gets shorter: one that a test names has to leave it, and a new
/// reason comes with its test.
const UNTOLD: &[&str] = &[];

/// One variant.
#[derive(Debug, PartialEq)]
struct Reason {
    name: String,
    /// What an operator sees and searches for.
    word: String,
    doc: String,
    line: usize,
}

/// What the reasons lack.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let reasons = sources.iter().find(|source| source.path == HOME).map_or_else(Vec::new, reasons);
    if reasons.is_empty() {
        return vec![Finding::new(
            HOME,
            1,
            format!("no `{LIST} {{ /// Sentence. Variant = \"word\", }}` is found here"),
        )];
    }
    let tests: Vec<_> = sources.iter().filter(|source| source.path.starts_with("tests/")).collect();
    let code: Vec<_> = tests.iter().map(|source| source.code()).collect();
    let literals: Vec<_> = tests.iter().map(|source| source.literals()).collect();

    let mut findings = Vec::new();
    for Reason { name, word, doc, line } in reasons {
        if !doc.ends_with('.') {
            let what = format!("DropReason::{name} has no sentence that ends in a full stop");
            findings.push(Finding::new(HOME, line, what));
        }
        let tested = code.iter().any(|code| has_word(code, &name)) || literals.iter().any(|text| has_word(text, &word));
        let untold = UNTOLD.contains(&name.as_str());
        if tested && untold {
            let what = format!("DropReason::{name} has a test now: take it off the list in xtask/src/tidy/drops.rs");
            findings.push(Finding::new(HOME, line, what));
        }
        if !tested && !untold {
            let what = format!("no test under tests/ names DropReason::{name} or \"{word}\"");
            findings.push(Finding::new(HOME, line, what));
        }
    }
    findings
}

fn reasons(home: &Source) -> Vec<Reason> {
    let code = home.code();
    let Some(open) = code.find(LIST).and_then(|at| Some(at + code[at..].find('{')?)) else {
        return Vec::new();
    };
    let first = code[..open].lines().count();
    let last = code[..open + body(&code[open..])].lines().count();

    let mut found = Vec::new();
    let mut doc = Vec::new();
    for (index, line) in home.text.lines().enumerate().take(last).skip(first) {
        if let Some(sentence) = line.trim_start().strip_prefix("///") {
            doc.push(sentence.trim());
        } else if let Some((name, rest)) = line.split_once(" = ") {
            let word = rest.split('"').nth(1).unwrap_or_default().to_owned();
            found.push(Reason { name: name.trim().to_owned(), word, doc: doc.join(" "), line: index + 1 });
            doc.clear();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = r#"
macro_rules! drop_reasons {
    ($( $variant:ident = $name:literal, )*) => {
        pub enum DropReason { $( $variant ),* }
    };
}

drop_reasons! {
    /// The source is not
    /// the endpoint's own.
    SpoofedSource = "spoofed",
    /// No stop
    Stale = "stale",
    Bare = "bare-word",
}

const COUNT: usize = 3;
"#;

    #[test]
    fn variants_are_read_with_their_words_and_sentences() {
        let check = |text: &str, expect: &[(&str, &str, &str, usize)]| {
            let found = reasons(&Source::new(HOME, text));
            let found: Vec<_> =
                found.iter().map(|r| (r.name.as_str(), r.word.as_str(), r.doc.as_str(), r.line)).collect();
            assert_eq!(found, expect);
        };
        check(
            LISTED,
            &[
                ("SpoofedSource", "spoofed", "The source is not the endpoint's own.", 11),
                ("Stale", "stale", "No stop", 13),
                ("Bare", "bare-word", "", 14),
            ],
        );
        check("enum Other {\n    A = 1,\n}\n", &[]);
    }

    #[test]
    fn a_reason_needs_a_sentence_and_a_test() {
        let check = |test: &str, expect: &[&str]| {
            let found = check(&[Source::new(HOME, LISTED), Source::new("tests/prog/a.rs", test)]);
            let found: Vec<_> = found.iter().map(|finding| finding.what.as_str()).collect();
            assert_eq!(found, expect, "{test}");
        };
        let stale = "DropReason::Stale has no sentence that ends in a full stop";
        let bare = "DropReason::Bare has no sentence that ends in a full stop";
        check("f(\"a.spoofed +1\", DropReason::Stale, \"bare-word\")", &[stale, bare]);
        let untested = "no test under tests/ names DropReason::Bare or \"bare-word\"";
        check("f(\"spoofed\", \"stale\") // bare-word", &[stale, bare, untested]);
    }
}

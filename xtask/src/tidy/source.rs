//! A Rust file as the checks see it: which character is code, literal or comment, and where the test modules are.
//! A reader of tokens, not a parser: macros are read as they are written.

/// What a character belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Class {
    Code,
    Literal,
    Comment,
}

/// A file, classified.
pub(super) struct Source {
    /// From the root of the workspace.
    pub(super) path: String,
    pub(super) text: String,
    classes: Vec<Class>,
}

/// A word or a sign of the code.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    /// `::`
    Path,
    Sign(char),
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), classes: classify(text) }
    }

    /// The text with comments and literals blanked; lines stay where they are.
    pub(super) fn code(&self) -> String {
        self.keep(Class::Code)
    }

    /// The text with all but the insides of literals blanked.
    pub(super) fn literals(&self) -> String {
        self.keep(Class::Literal)
    }

    /// The text with all but comments blanked.
    pub(super) fn comments(&self) -> String {
        self.keep(Class::Comment)
    }

    /// As [`Self::code`], without what is compiled for tests only.
    pub(super) fn product(&self) -> String {
        let code = self.code();
        let mut kept = String::new();
        let mut from = 0;
        for (start, end) in test_modules(&code) {
            kept.push_str(&code[from..start]);
            kept.extend(code[start..end].chars().filter(|c| *c == '\n'));
            from = end;
        }
        kept.push_str(&code[from..]);
        kept
    }

    /// Lines without the test modules.
    pub(super) fn product_lines(&self) -> usize {
        let code = self.code();
        let tests: usize = test_modules(&code).iter().map(|&(start, end)| code[start..end].lines().count()).sum();
        code.lines().count() - tests
    }

    fn keep(&self, class: Class) -> String {
        let kept = |(c, of): (char, &Class)| if *of == class || c == '\n' { c } else { ' ' };
        self.text.chars().zip(&self.classes).map(kept).collect()
    }
}

/// The tokens of blanked code, with their lines (from 1).
pub(super) fn tokens(code: &str) -> Vec<(usize, Token)> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (token, length) = if length > 0 {
                (Token::Word(rest[..length].to_owned()), length)
            } else if rest.starts_with("::") {
                (Token::Path, 2)
            } else {
                (Token::Sign(first), first.len_utf8())
            };
            tokens.push((index + 1, token));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Whether a text has a word that is not part of a longer one.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let inside = |c: Option<char>| c.is_some_and(|c| is_word(c) || c == '-');
        !inside(text[..at].chars().next_back()) && !inside(text[at + word.len()..].chars().next())
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn classify(text: &str) -> Vec<Class> {
    let chars: Vec<char> = text.chars().collect();
    let mut classes = Vec::with_capacity(chars.len());
    while let Some(&first) = chars.get(classes.len()) {
        let at = classes.len();
        let rest = &chars[at..];
        let (class, length) = match first {
            '/' if rest.get(1) == Some(&'/') => (Class::Comment, line_comment(rest)),
            '/' if rest.get(1) == Some(&'*') => (Class::Comment, block_comment(rest)),
            '"' => (Class::Literal, string(rest)),
            'r' if !follows_word(&chars, at) => raw_string(rest).map_or((Class::Code, 1), |n| (Class::Literal, n)),
            '\'' => character(rest).map_or((Class::Code, 1), |n| (Class::Literal, n)),
            _ => (Class::Code, 1),
        };
        classes.extend(std::iter::repeat_n(class, length));
    }
    classes
}

/// `br"…"` and `cr"…"` are raw strings too, `for"` is not.
fn follows_word(chars: &[char], at: usize) -> bool {
    let before = |n: usize| at.checked_sub(n).and_then(|at| chars.get(at)).copied();
    match before(1) {
        Some('b' | 'c') => before(2).is_some_and(is_word),
        other => other.is_some_and(is_word),
    }
}

fn line_comment(rest: &[char]) -> usize {
    rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"` or `r#"…"#`; not `r#type`.
fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let open = 1 + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let closes =
        |at: usize| rest[at] == '"' && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    let close = (open + 1..rest.len()).find(|&at| closes(at));
    Some(close.map_or(rest.len(), |at| at + 1 + hashes))
}

/// `'x'` or `'\n'`; not the lifetime `'a`.
fn character(rest: &[char]) -> Option<usize> {
    match rest {
        ['\'', '\\', _, tail @ ..] => tail.iter().position(|c| *c == '\'').map(|end| end + 4),
        ['\'', _, '\'', ..] => Some(3),
        _ => None,
    }
}

/// From each `#[cfg(test)]` that is put before a module with a body, to the end of that body; in bytes of blanked code.
fn test_modules(code: &str) -> Vec<(usize, usize)> {
    const MARK: &str = "#[cfg(test)]";
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (start, _) in code.match_indices(MARK) {
        if found.last().is_some_and(|&(_, end)| start < end) {
            continue;
        }
        let mut rest = code[start + MARK.len()..].trim_start();
        while let Some(attribute) = rest.strip_prefix("#[") {
            rest = attribute.split_once(']').map_or("", |(_, rest)| rest).trim_start();
        }
        let Some((head, _)) = rest.split_once('{') else { continue };
        if !has_word(head, "mod") || head.contains(';') {
            continue;
        }
        let open = code.len() - rest.len() + head.len();
        found.push((start, open + body(&code[open..])));
    }
    found
}

/// The length of a text that starts with a brace, up to the brace that closes it.
pub(super) fn body(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("a.rs", text)
    }

    #[test]
    fn code_is_what_is_neither_literal_nor_comment() {
        let check = |text: &str, expect: &str| {
            let code = source(text).code();
            assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), expect, "{text}");
        };
        check("a // b\nc", "a c");
        check("a /* b /* c */ d */ e", "a e");
        check("a(\"b // \\\" c\") d", "a( ) d");
        check("a(r#\"b \" c\"#) d", "a( ) d");
        check("a(br\"\\\") d", "a(b ) d");
        check("r#type a", "r#type a");
        check("a('\"', '\\'', '\\u{2014}') b", "a( , , ) b");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
    }

    #[test]
    fn literals_and_comments_are_kept_apart() {
        let source = source("f(\"spoofed\"); // why");
        assert_eq!(source.literals().trim(), "\"spoofed\"");
        assert_eq!(source.comments().trim(), "// why");
    }

    #[test]
    fn test_modules_are_not_the_product() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { \"}\" }\n}\nfn c() {}\n";
        let source = source(text);
        assert_eq!(source.product_lines(), 2);
        assert_eq!(source.product().split_whitespace().collect::<Vec<_>>(), ["fn", "a()", "{}", "fn", "c()", "{}"]);
        assert_eq!(tokens(&source.product()).last(), Some(&(6, Token::Sign('}'))));
    }

    #[test]
    fn only_a_module_with_a_body_is_a_test_module() {
        let check = |text: &str, lines: usize| assert_eq!(source(text).product_lines(), lines, "{text}");
        check("#[cfg(test)]\nmod tests;\nfn a() {\n}\n", 4);
        check("#[cfg(test)]\nfn a() {\n}\n", 3);
        check("a\n#[cfg(test)]\n#[expect(x, reason = \"y\")]\npub(crate) mod fake {\n}\n", 1);
    }

    #[test]
    fn words_end_where_they_end() {
        let check = |text: &str, word: &str, expect: bool| assert_eq!(has_word(text, word), expect, "{word} in {text}");
        check("drops.spoofed-source +1", "spoofed-source", true);
        check("drops.spoofed-source +1", "spoofed", false);
        check("src/plan/mod.rs", "plan", true);
        check("planner", "plan", false);
    }
}

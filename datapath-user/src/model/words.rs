//! Words of a line: what is between spaces, but for spaces in brackets.

/// The words of `text`. None: brackets do not match.
pub(super) fn split(text: &str) -> Option<Vec<&str>> {
    let (mut words, mut start, mut open) = (Vec::new(), None, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => open.push(byte),
            b')' | b']' | b'}' => {
                let expected = match byte {
                    b')' => b'(',
                    b']' => b'[',
                    _ => b'{',
                };
                if open.pop() != Some(expected) {
                    return None;
                }
            }
            _ => {}
        }
        // Inside a character of several bytes there is no space.
        if byte.is_ascii_whitespace() && open.is_empty() {
            words.extend(start.take().map(|start: usize| &text[start..at]));
        } else if start.is_none() {
            start = Some(at);
        }
    }
    words.extend(start.map(|start| &text[start..]));
    Some(words).filter(|_| open.is_empty())
}

/// Takes out spaces around commas: a list is one word.
pub(super) fn join_lists(text: &str) -> String {
    let parts: Vec<_> = text.split(',').collect();
    let last = parts.len() - 1;
    let trimmed = parts.iter().enumerate().map(|(at, part)| {
        let part = if at > 0 { part.trim_ascii_start() } else { part };
        if at < last { part.trim_ascii_end() } else { part }
    });
    trimmed.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_in_brackets_separate_nothing() {
        let check = |text: &str, expect: &[&str]| assert_eq!(split(text).unwrap(), expect);
        check("", &[]);
        check(" a  b\tc ", &["a", "b", "c"]);
        check("a{b in (c, d), e} f", &["a{b in (c, d), e}", "f"]);
        check("[a = b]{c = d}", &["[a = b]{c = d}"]);
        check("\u{e9} b", &["\u{e9}", "b"]);
        for text in ["a{b", "a}b", "(a]", "{(})"] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}

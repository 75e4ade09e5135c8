//! What a program reads: the answer as the daemon gave it, with its schema.

use serde::Serialize;

use crate::front::api::dto::Versioned;

/// An answer over several lines.
pub fn document<A: Serialize>(answer: A) -> serde_json::Result<String> {
    let mut text = ascii(&serde_json::to_string_pretty(&Versioned::new(answer))?);
    text.push('\n');
    Ok(text)
}

/// An answer as one line of many.
pub fn line<A: Serialize>(answer: A) -> serde_json::Result<String> {
    let mut text = ascii(&serde_json::to_string(&Versioned::new(answer))?);
    text.push('\n');
    Ok(text)
}

/// Escapes what JSON allows and a terminal obeys. Such characters are only ever inside of strings.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~' | '\n') {
            text.push(c);
        } else {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::api::dto::apps::Changed;

    #[test]
    fn json_stays_json_and_harms_no_terminal() {
        let done = "a\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{e9}\u{1f600}\n".to_owned();
        let answer = Changed { done, revision: 1, in_force: true };
        for text in [document(&answer).unwrap(), line(&answer).unwrap()] {
            assert!(text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')), "{text:?}");
            assert!(text.ends_with("}\n"));
            assert_eq!(serde_json::from_str::<Versioned<Changed>>(&text).unwrap().answer, answer);
        }
        assert_eq!(line(&answer).unwrap().lines().count(), 1);
    }
}

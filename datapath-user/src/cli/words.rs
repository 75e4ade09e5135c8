//! Rules and questions as words of a command line.
//!
//! A shell takes an unquoted `>` for itself, so the arrow may be left out or written `to`.

use std::{ffi::OsString, time::Duration};

use weft_common::policy::Action;

use crate::front::api::dto::{
    naming::{Party, Probe},
    why::Why,
};
use crate::model::{invalid::Invalid, name::RuleName, rule::Precedence, rule::Rule, time::Until};

/// The arrow for those who can not write it.
const TO: &str = "to";
const ARROW: &str = "->";

/// Arguments as clap can read them: an arrow would look like an option.
pub(super) fn without_arrows(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut read = Vec::new();
    for arg in args {
        match arg.to_str().and_then(|text| text.strip_prefix(ARROW)) {
            Some(rest) => {
                read.push(TO.into());
                read.extend(Some(rest.trim_ascii()).filter(|rest| !rest.is_empty()).map(OsString::from));
            }
            None => read.push(arg),
        }
    }
    read
}

/// The rule that `FROM [->|to] TO [WHAT]` means.
pub(super) fn rule(
    action: Action,
    words: &[String],
    precedence: Option<Precedence>,
    until: Option<Until>,
    name: Option<&RuleName>,
) -> Result<Rule, Invalid> {
    let mut text = format!("{} {}", action.name(), with_arrow(words)?.join(" "));
    text.extend(precedence.map(|precedence| format!(" precedence {}", precedence.raw())));
    text.extend(until.map(|until| format!(" until {until}")));
    text.extend(name.map(|name| format!(" as {name}")));
    text.parse()
}

/// How long a rule is to hold: `90s`, `10m`, `8h` or `2d`.
pub(super) fn length(text: &str) -> Result<Duration, Invalid> {
    const MONTH: u64 = 30 * 86_400;
    let refuse = || Invalid::new("length of time", text, "write 90s, 10m, 8h or 2d, at most 30d");
    let (unit, seconds) = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)]
        .into_iter()
        .find(|(unit, _)| text.ends_with(*unit))
        .ok_or_else(refuse)?;
    let number = text.strip_suffix(unit).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let number = number.and_then(|text| text.parse::<u32>().ok()).ok_or_else(refuse)?;
    let length = u64::from(number) * seconds;
    if (1..=MONTH).contains(&length) { Ok(Duration::from_secs(length)) } else { Err(refuse()) }
}

/// The question that `FROM [->|to] TO WHAT` means.
pub(super) fn question(words: &[String], live: bool) -> Result<Why, Invalid> {
    let words = with_arrow(words)?;
    let words: Vec<_> = words.iter().filter(|word| *word != ARROW).collect();
    let [from, to, what] = words.as_slice() else {
        let text = words.into_iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        return Err(Invalid::new("question", &text, "write FROM TO WHAT, as: weft why shop/web blog/db tcp/5432"));
    };
    Ok(Why { from: from.parse::<Party>()?, to: to.parse::<Party>()?, what: what.parse::<Probe>()?, live })
}

/// The words, with the arrow in its place.
fn with_arrow(words: &[String]) -> Result<Vec<String>, Invalid> {
    let text = words.join(" ").replace(ARROW, " -> ");
    let mut words: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
    if words.iter().any(|word| word == "-") {
        let help =
            "the shell took the '>' and what follows for itself: write 'to' for the arrow, or put quotes around all";
        return Err(Invalid::new("rule", &text, help));
    }
    if words.iter().any(|word| word == ARROW) {
        return Ok(words);
    }
    let from = if words.get(1).is_some_and(|word| word == "except") { 3 } else { 1 };
    if words.len() <= from {
        return Err(Invalid::new("rule", &text, "name both sides: who sends, and who receives"));
    }
    if words[from] == TO {
        ARROW.clone_into(&mut words[from]);
    } else {
        words.insert(from, ARROW.to_owned());
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a shell would split it.
    fn split(line: &str) -> Vec<String> {
        let args: Vec<OsString> = line.split('|').map(OsString::from).collect();
        without_arrows(args).into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    fn read(line: &str) -> Result<String, String> {
        rule(Action::Allow, &split(line), None, None, None)
            .map(|rule| rule.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_arrow_can_be_written_in_many_ways() {
        for line in [
            "shop/web -> blog/db tcp/5432",
            "shop/web->blog/db tcp/5432",
            "shop/web|->|blog/db|tcp/5432",
            "shop/web|-> blog/db|tcp/5432",
            "shop/web|->blog/db|tcp/5432",
            "shop/web ->|blog/db tcp/5432",
            "shop/web|to|blog/db|tcp/5432",
            "shop/web to blog/db tcp/5432",
            "shop/web|blog/db|tcp/5432",
            "shop/web blog/db|tcp/5432",
        ] {
            assert_eq!(read(line).unwrap(), "allow shop/web -> blog/db tcp/5432", "{line}");
        }
        let check = |line: &str, expect: &str| assert_eq!(read(line).unwrap(), expect);
        check("shop|blog", "allow shop -> blog any");
        check("shop|->|to", "allow shop -> to any");
        check("to|shop", "allow to -> shop any");
        check("shop|10.0.0.0/8|except|10.1.0.0/16|udp", "allow shop -> 10.0.0.0/8 except 10.1.0.0/16 udp");
        check("10.0.0.0/8 except 10.1.0.0/16|to|shop", "allow 10.0.0.0/8 except 10.1.0.0/16 -> shop any");
        check("shop|blog|tcp/80,|443|precedence 7 as x", "allow shop -> blog tcp/80,443 precedence 7 as x");
    }

    #[test]
    fn what_is_no_rule_is_refused_by_name() {
        let check = |line: &str, part: &str| {
            let error = read(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        };
        check("shop/web|-|tcp/5432", "the shell took the '>'");
        check("shop", "name both sides");
        check("", "name both sides");
        check("shop|to", "write [shadow] ACTION FROM -> TO");
        check("shop|blog|tcp/99999", "\"99999\" is no port");
        check("shop|blog|tcp/1|udp/1", "\"udp/1\" is not understood");
        check("Shop|blog", "\"Shop\" is no app name");
        check("\u{1b}[2J|blog", "\\u{1b}");
    }

    #[test]
    fn precedence_and_name_are_given_once() {
        let words = split("shop|blog|precedence|7");
        let precedence = Precedence::new(9);
        let name = "x".parse().unwrap();
        let rule =
            |words: &[String]| rule(Action::Deny, words, precedence, None, Some(&name)).map(|rule| rule.to_string());
        assert_eq!(rule(&words[..2]).unwrap(), "deny shop -> blog any precedence 9 as x");
        assert!(rule(&words).unwrap_err().to_string().contains("is there twice"));
    }

    #[test]
    fn lengths_of_time_are_a_number_and_a_unit() {
        let check = |text: &str, seconds: u64| assert_eq!(length(text).unwrap(), Duration::from_secs(seconds));
        check("90s", 90);
        check("10m", 600);
        check("8h", 28_800);
        check("30d", 2_592_000);
        for text in ["", "s", "0s", "10", "-1s", "+1s", "1.5h", "10 m", "31d", "99999999999s", "1w", "1\u{e9}"] {
            let error = length(text).unwrap_err().to_string();
            assert!(error.contains("write 90s, 10m, 8h or 2d"), "{error}");
        }
    }

    #[test]
    fn questions_are_read_as_rules_are() {
        for line in ["shop/web|blog/db|tcp/5432", "shop/web|->|blog/db|tcp/5432", "shop/web to blog/db tcp/5432"] {
            let Why { from, to, what, live } = question(&split(line), true).unwrap();
            assert_eq!((from.to_string(), to.to_string(), what.to_string()), {
                ("shop/web".to_owned(), "blog/db".to_owned(), "tcp/5432".to_owned())
            });
            assert!(live);
        }
        let check = |line: &str, part: &str| {
            let error = question(&split(line), false).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        };
        check("a|b", "write FROM TO WHAT");
        check("a|b|tcp/1|udp/1", "write FROM TO WHAT");
        check("a|b|tcp", "name one protocol and one port");
        check("any|b|tcp/1", "name one of them");
    }
}

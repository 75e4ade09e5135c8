//! Numbers and small things as people read them.

use std::time::Duration;

use super::page::{Span, Tone};
use crate::front::api::dto::{
    side::{Miss, Nearest, RuleMention, Side, Source, State},
    time::Timestamp,
};
use crate::model::rule::Rule;

/// A length of time in its two largest units.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.subsec_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A length of time in milliseconds.
pub(super) fn millis(millis: u64) -> String {
    duration(Duration::from_millis(millis))
}

/// How long ago something was.
pub(super) fn ago(time: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(time.age(now)))
}

/// Bytes, with three digits.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// A count, with three digits.
pub(super) fn count(count: u64) -> String {
    scaled(count, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

fn scaled(number: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let mut of_unit = 1;
    while unit + 1 < units.len() && number / of_unit >= step {
        of_unit *= step;
        unit += 1;
    }
    let whole = number / of_unit;
    let tenths = u128::from(number % of_unit) * 10 / u128::from(of_unit);
    if unit == 0 || whole >= 100 {
        format!("{whole}{}", units[unit])
    } else {
        format!("{whole}.{tenths}{}", units[unit])
    }
}

/// One end of a packet: `shop/web web-1 10.1.0.7:53002`.
pub(super) fn side(side: &Side) -> String {
    let Side { app, role, name, address, port } = side;
    let role = role.as_ref().map(|role| format!("/{role}")).unwrap_or_default();
    let who = app.as_ref().map(|app| format!("{app}{role}"));
    let v6 = address.as_ref().is_some_and(|address| address.contains(':'));
    let address = match (address, port) {
        (Some(address), Some(port)) if v6 => Some(format!("[{address}]:{port}")),
        (Some(address), Some(port)) => Some(format!("{address}:{port}")),
        (None, Some(port)) => Some(format!("port {port}")),
        (address, None) => address.clone(),
    };
    let parts: Vec<_> = [who, name.clone(), address].into_iter().flatten().collect();
    if parts.is_empty() { "unknown".to_owned() } else { parts.join(" ") }
}

/// A place in a file: `cluster.toml:12:7`.
pub(super) fn source(source: &Source) -> String {
    let Source { file, line, column } = source;
    let numbers = [*line, *column].into_iter().flatten().map(|number| format!(":{number}"));
    std::iter::once(file.clone()).chain(numbers).collect()
}

/// A rule and where it is: `allow shop -> blog any (cluster.toml:12)`.
pub(super) fn mention(rule: &RuleMention) -> String {
    let RuleMention { text, id, source: at } = rule;
    match (at, id) {
        (Some(at), _) => format!("{text} ({})", source(at)),
        (None, Some(id)) => format!("{text} (#{id})"),
        (None, None) => text.clone(),
    }
}

/// What a rule allows instead of what it misses: `allows only to blog/db`.
pub(super) fn allows(nearest: &Nearest) -> String {
    let to = match nearest.miss {
        Miss::Traffic | Miss::Sender => "",
        Miss::Receiver => "to ",
    };
    format!("allows only {to}{}", nearest.only)
}

/// How far something is, in one word or with its reason.
pub(super) fn state(state: &State) -> Span {
    match state {
        State::Ready => Span::new(Tone::Good, "ready"),
        State::Waiting(why) => Span::new(Tone::Odd, format!("waiting: {why}")),
        State::Failed(why) => Span::new(Tone::Bad, format!("failed: {why}")),
    }
}

/// A command that adds a rule, to be copied into a shell. Only of what is a rule: of its characters none means
/// anything in single quotes.
pub(super) fn command(rule: &str) -> Option<String> {
    let rule: Rule = rule.parse().ok()?;
    let text = rule.to_string();
    let (action, rest) = text.split_once(' ')?;
    Some(format!("weft {action} '{rest}'"))
}

/// Texts with spaces between them.
pub(super) fn list(texts: &[String]) -> String {
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::api::example;

    #[test]
    fn lengths_of_time_have_two_units() {
        let check = |ms: u64, expect: &str| assert_eq!(millis(ms), expect);
        check(0, "0ms");
        check(999, "999ms");
        check(59_999, "59s");
        check(60_000, "1m00s");
        check(3_599_000, "59m59s");
        check(3_600_000, "1h00m");
        check(86_400_000 * 400 + 3_600_000, "400d01h");
        assert_eq!(ago(example::time(0), example::time(5)), "5s ago");
        assert_eq!(ago(example::time(5), example::time(0)), "0ms ago");
    }

    #[test]
    fn numbers_have_three_digits() {
        let check = |number: u64, as_bytes: &str, as_count: &str| {
            assert_eq!((bytes(number), count(number)), (as_bytes.to_owned(), as_count.to_owned()));
        };
        check(0, "0B", "0");
        check(999, "999B", "999");
        check(1536, "1.5KiB", "1.5k");
        check(123_456_789, "117MiB", "123M");
        check(u64::MAX, "15.9EiB", "18.4E");
    }

    #[test]
    fn sides_say_what_is_known() {
        let check = |known: &Side, expect: &str| assert_eq!(side(known), expect);
        check(&example::web(), "shop/web web-1 10.1.0.7:53002");
        check(&example::db(), "blog/db db-1 [fd00:2::4]:5432");
        check(&example::outside(), "outside 203.0.113.9:443");
        check(&Side::default(), "unknown");
        check(&Side { port: Some(7), ..Side::default() }, "port 7");
        check(&Side { app: Some("host".to_owned()), ..Side::default() }, "host");
    }

    #[test]
    fn the_nearest_rule_says_what_it_allows_instead() {
        let check = |miss, only: &str, expect: &str| {
            let rule = RuleMention { text: String::new(), id: None, source: None };
            assert_eq!(allows(&Nearest { rule, miss, only: only.to_owned() }), expect);
        };
        check(Miss::Traffic, "tcp/5432", "allows only tcp/5432");
        check(Miss::Sender, "blog", "allows only blog");
        check(Miss::Receiver, "blog/db", "allows only to blog/db");
    }

    #[test]
    fn only_a_rule_becomes_a_command() {
        assert_eq!(command("allow a->b tcp/80").as_deref(), Some("weft allow 'a -> b tcp/80'"));
        for text in ["", "allow", "allow a -> b'; reboot; '", "allow $(reboot) -> b", "reboot"] {
            assert_eq!(command(text), None, "{text}");
        }
    }
}

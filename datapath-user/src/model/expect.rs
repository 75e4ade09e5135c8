//! What has to hold of a policy, written beside it: `shop/web -> blog/db tcp/5432 allow`.

use std::{fmt, str::FromStr};

use super::{
    invalid::Invalid,
    rule::Source,
    selector::Selector,
    traffic::Traffic,
    words::{self, join_lists},
};

/// That some traffic passes, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Who sends: everybody it selects.
    pub from: Selector,
    /// Who receives.
    pub to: Selector,
    /// What is sent: all of it.
    pub traffic: Traffic,
    /// Whether it passes.
    pub passes: bool,
    /// Where it was written, if in a file.
    pub source: Option<Source>,
}

const HELP: &str = "write FROM -> TO [TRAFFIC] allow|deny, as: shop/web -> blog/db tcp/5432 allow";

impl FromStr for Expectation {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let spaced = join_lists(&text.replace("->", " -> "));
        let refuse = || Invalid::new("expectation", text, HELP);
        let words = words::split(&spaced).ok_or_else(refuse)?;
        let arrow = words.iter().position(|word| *word == "->").ok_or_else(refuse)?;
        let (from, to) = (&words[..arrow], &words[arrow + 1..]);
        let [to @ .., verdict] = to else { return Err(refuse()) };
        let (to, traffic) = match to {
            [net, "except", holes] => ([*net, "except", *holes].join(" "), Traffic::Any),
            [net, "except", holes, traffic] => ([*net, "except", *holes].join(" "), traffic.parse()?),
            [to] => ((*to).to_owned(), Traffic::Any),
            [to, traffic] => ((*to).to_owned(), traffic.parse()?),
            _ => return Err(refuse()),
        };
        let from = from.join(" ");
        let passes = match *verdict {
            "allow" => true,
            "deny" => false,
            _ => return Err(refuse()),
        };
        Ok(Self { from: from.parse()?, to: to.parse()?, traffic, passes, source: None })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, traffic, passes, source: _ } = self;
        write!(f, "{from} -> {to} {traffic} {}", if *passes { "allow" } else { "deny" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_read_and_printed() {
        let check = |text: &str, expect: &str| assert_eq!(text.parse::<Expectation>().unwrap().to_string(), expect);
        check("shop/web->blog/db tcp/5432 allow", "shop/web -> blog/db tcp/5432 allow");
        check("shop{tier in (a, b)} -> any deny", "shop{tier in (a,b)} -> any any deny");
        for text in
            ["10.0.0.0/8 except 10.1.0.0/16,10.2.0.0/16 -> a any allow", "a -> ::/0 except fd00::/8 tcp/80 deny"]
        {
            check(text, text);
        }
        check(
            "a -> 10.0.0.0/8 except 10.1.0.0/16 , 10.2.0.0/16 deny",
            "a -> 10.0.0.0/8 except 10.1.0.0/16,10.2.0.0/16 any deny",
        );
        for text in
            ["", "a b allow", "a -> b", "a -> b tcp/80", "a -> b tcp/80 maybe", "a -> b{ allow", "a -> b x allow"]
        {
            text.parse::<Expectation>().unwrap_err();
        }
    }
}

//! Names that operators give. Parsed once; inside, a name is known to be safe to print and to put into a path.
//!
//! Invariant: only `a-z`, `0-9`, `-` and `.`, so no name can carry a control character, a separator or a space.

use std::{fmt, str::FromStr, sync::Arc};

use super::invalid::Invalid;

/// The longest name: what a DNS label can hold.
const LONGEST: usize = 63;

const HELP: &str = "use a-z, 0-9, '-' and '.', first and last a letter or a digit, at most 63 characters";

macro_rules! name {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $refuse:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                if !is_name(text) {
                    return Err(Invalid::new($kind, text, HELP));
                }
                let refuse: fn(&str) -> Option<&'static str> = $refuse;
                if let Some(help) = refuse(text) {
                    return Err(Invalid::new($kind, text, help));
                }
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// A machine that runs weftd.
    HostName, "host name", |_| None
}

name! {
    /// An application. The words of selectors are taken, and so is what looks like an address.
    AppName, "app name", |text| match text {
        "host" | "outside" | "any" | "everyone" => Some("the word means something else in rules, take another"),
        _ if looks_like_address(text) => Some("it looks like an address, take another"),
        _ => None,
    }
}

name! {
    /// A tier inside an app.
    RoleName, "role name", |_| None
}

name! {
    /// An endpoint, inside its app.
    EndpointName, "endpoint name", |_| None
}

name! {
    /// A rule that was given a name.
    RuleName, "rule name", |_| None
}

/// A set of rules that comes and goes as one: `shop`, or what it was made of as `networkpolicy/shop/allow-web`.
///
/// Up to three parts, each as Kubernetes names objects (RFC 1123 subdomain, at most 253 characters).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PolicyName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parts = text.split('/');
        if parts.clone().count() <= 3 && parts.all(|part| part.len() <= 253 && has_the_letters_of_a_name(part)) {
            return Ok(Self(text.into()));
        }
        Err(Invalid::new("policy name", text, "use a-z, 0-9, '-' and '.', in at most three parts with '/' between"))
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of a port of an endpoint, as `http` (RFC 6335 section 5.1: letters, digits and '-', at most 15, with a letter).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName(Arc<str>);

impl PortName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PortName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = text.len() <= 15 && is_name(text) && !text.contains('.') && !text.contains("--");
        if fits && text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Ok(Self(text.into()));
        }
        Err(Invalid::new("port name", text, "use a-z, 0-9 and '-', with a letter, at most 15 characters"))
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= LONGEST && has_the_letters_of_a_name(text)
}

fn has_the_letters_of_a_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.iter().all(|&b| inner(b)) && outer(bytes.first()) && outer(bytes.last())
}

fn looks_like_address(text: &str) -> bool {
    text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// The name of a network interface, as the kernel takes it and as it can be printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(Arc<str>);

impl LinkName {
    /// `IFNAMSIZ` without the terminating zero.
    pub const LONGEST: usize = 15;
    /// How every interface that is ours starts: reset and repair touch no other.
    pub const OURS: &'static str = "weft";

    /// The gateway device.
    pub fn gateway() -> Self {
        Self("weft0".into())
    }

    /// The host's side of an endpoint's link: the same for the same endpoint, always.
    pub fn of(app: &AppName, name: &EndpointName) -> Self {
        const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut rest = super::stable::hash("link", &[app.as_str(), name.as_str()]);
        let mut text = String::from(Self::OURS);
        while text.len() < Self::LONGEST {
            text.push(char::from(DIGITS[(rest % 32) as usize]));
            rest /= 32;
        }
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let fits = !text.is_empty() && text.len() <= Self::LONGEST;
        // The kernel refuses these two (`dev_valid_name`): they are folders of sysfs.
        if !fits || !text.bytes().all(inner) || text == "." || text == ".." {
            return Err(Invalid::new(
                "interface name",
                text,
                "use letters, digits, '-', '.', '_', at most 15 characters",
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lower_case_and_printable() {
        let good = ["a", "7", "web-1", "db.prod", "a--b", "2048", &"x".repeat(63)];
        let long = "x".repeat(64);
        let bad = ["", "-a", "a-", ".a", "a.", "A", "a b", "a/b", "a_b", "a\u{1b}", "\u{e9}", "a\n", "a\0", &long];
        for text in good {
            assert_eq!(text.parse::<HostName>().unwrap().to_string(), text);
            assert_eq!(text.parse::<AppName>().unwrap().as_str(), text);
        }
        for text in bad {
            let error = text.parse::<RoleName>().unwrap_err().to_string();
            assert!(error.contains("is no role name: use a-z"), "{error}");
            assert!(error.bytes().all(|b| (b' '..=b'~').contains(&b)), "{error}");
            assert!(text.parse::<EndpointName>().is_err());
        }
    }

    #[test]
    fn an_app_can_not_take_a_word_or_an_address() {
        for text in ["host", "outside", "any", "everyone", "10.0.0.1", "10.0.0.300", "1.2"] {
            text.parse::<AppName>().unwrap_err();
            text.parse::<RoleName>().unwrap();
        }
        "hosts".parse::<AppName>().unwrap();
    }

    #[test]
    fn link_names_fit_the_kernel() {
        let name = LinkName::of(&"shop".parse().unwrap(), &"web-1".parse().unwrap());
        assert_eq!(name.as_str().len(), LinkName::LONGEST);
        assert_eq!(name.as_str().parse::<LinkName>().unwrap(), name);
        assert_eq!(name, LinkName::of(&"shop".parse().unwrap(), &"web-1".parse().unwrap()));
        assert_ne!(name, LinkName::of(&"shop".parse().unwrap(), &"web-2".parse().unwrap()));
        assert_eq!(LinkName::gateway().as_str().parse::<LinkName>().unwrap(), LinkName::gateway());
        for text in ["", ".", "..", "a/b", "a b", "a:b", "0123456789abcdef", "e\u{1b}"] {
            text.parse::<LinkName>().unwrap_err();
        }
    }
}

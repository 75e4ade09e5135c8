//! Whom a rule speaks of.

use std::{fmt, net::IpAddr, str::FromStr};

use super::{
    app::{App, Role},
    invalid::Invalid,
    labels::LabelSelector,
    name::{AppName, RoleName},
    prefix::Prefix,
    words,
};

/// One side of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Every endpoint of an app, whatever its role.
    App(AppName),
    /// The endpoints of an app that have this role, by its name or by their label `role`.
    Role(AppName, RoleName),
    /// The endpoints that labels select.
    Labelled(Box<Labelled>),
    /// The hosts themselves, by their gateway addresses.
    Host,
    /// Whatever is neither an endpoint nor a host.
    Outside,
    /// Every endpoint of every app; neither hosts nor the outside.
    Any,
    /// Every endpoint, the hosts and the outside.
    Everyone,
    /// Whoever has one of these addresses.
    Net(Net),
}

/// Endpoints with certain labels, in certain apps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labelled {
    /// Of which apps.
    pub apps: Apps,
    /// With which labels.
    pub labels: LabelSelector,
}

/// Some of the apps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Apps {
    /// One.
    Named(AppName),
    /// All.
    Every,
    /// Those that labels select.
    With(LabelSelector),
}

/// A prefix without some of its parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net {
    prefix: Prefix,
    /// In order, each inside the prefix and not all of it.
    except: Vec<Prefix>,
}

impl Selector {
    /// The endpoints of `apps` that `labels` select, in the shortest form.
    pub fn of(apps: Apps, labels: LabelSelector) -> Self {
        match (apps, labels) {
            (Apps::With(with), labels) if with.is_empty() => Self::of(Apps::Every, labels),
            (Apps::Named(app), labels) if labels.is_empty() => Self::App(app),
            (Apps::Every, labels) if labels.is_empty() => Self::Any,
            (apps, labels) => Self::Labelled(Box::new(Labelled { apps, labels })),
        }
    }

    /// Whether nobody whom it means can have a name for a port: only endpoints have.
    pub fn is_without_names(&self) -> bool {
        match self {
            Self::Host | Self::Outside | Self::Net(_) => true,
            Self::App(_) | Self::Role(..) | Self::Labelled(_) | Self::Any | Self::Everyone => false,
        }
    }

    /// The app it names, if it names one.
    pub fn app(&self) -> Option<&AppName> {
        match self {
            Self::App(app) | Self::Role(app, _) => Some(app),
            Self::Labelled(labelled) => match &labelled.apps {
                Apps::Named(app) => Some(app),
                Apps::Every | Apps::With(_) => None,
            },
            Self::Host | Self::Outside | Self::Any | Self::Everyone | Self::Net(_) => None,
        }
    }
}

impl Apps {
    /// Whether an app is among them.
    pub fn contain(&self, app: &App) -> bool {
        match self {
            Self::Named(name) => *name == app.name,
            Self::Every => true,
            Self::With(labels) => labels.selects(&app.seen_labels()),
        }
    }
}

impl Labelled {
    /// Whether it selects the endpoints of a role; `None` are those without one.
    pub fn selects(&self, role: Option<&Role>) -> bool {
        role.map_or_else(
            || self.labels.selects(&super::labels::Labels::default()),
            |role| self.labels.selects(&role.labels),
        )
    }
}

impl Net {
    /// `prefix` without `except`.
    pub fn new(prefix: Prefix, except: impl IntoIterator<Item = Prefix>) -> Result<Self, Invalid> {
        let mut except: Vec<_> = except.into_iter().collect();
        except.sort_unstable();
        except.dedup();
        if let Some(bad) = except.iter().find(|&part| !prefix.covers(part) || *part == prefix) {
            return Err(Invalid::new("exception", &bad.to_string(), format!("name a part of {prefix}")));
        }
        Ok(Self { prefix, except })
    }

    /// What it starts from.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// What is taken out of it.
    pub fn except(&self) -> &[Prefix] {
        &self.except
    }

    /// Whether all of `part` is in the prefix and none of it is taken out by a prefix that covers it.
    pub fn covers(&self, part: &Prefix) -> bool {
        self.prefix.covers(part) && !self.except.iter().any(|hole| hole.covers(part))
    }
}

/// `shop`, `shop/web`, `shop{tier=db}`, `any{tier=db}`, `[team=a]{tier=db}`, `host`, `outside`, `any`, `everyone`,
/// `203.0.113.0/24 except 203.0.113.7/32,203.0.113.9`.
impl FromStr for Selector {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let words = words::split(text).ok_or_else(|| Invalid::new("selector", text, "close every bracket"))?;
        match words.as_slice() {
            ["host"] => Ok(Self::Host),
            ["outside"] => Ok(Self::Outside),
            ["any"] => Ok(Self::Any),
            ["everyone"] => Ok(Self::Everyone),
            [word] if word.contains(['{', '[']) => labelled(word),
            [net] if is_address(net) => Ok(Self::Net(Net::new(net_of(net)?, [])?)),
            [net, "except", list] if is_address(net) => {
                let except = list.split(',').map(net_of).collect::<Result<Vec<_>, _>>()?;
                Ok(Self::Net(Net::new(net_of(net)?, except)?))
            }
            [name] => match name.split_once('/') {
                Some((app, role)) => Ok(Self::Role(app.parse()?, role.parse()?)),
                None => Ok(Self::App(name.parse()?)),
            },
            [_, "except", ..] => Err(Invalid::new(
                "selector",
                text,
                "only a prefix can have exceptions, as 10.0.0.0/8 except 10.1.0.0/16",
            )),
            _ => Err(Invalid::new("selector", text, "use an app, app/role, host, outside, any, or a prefix")),
        }
    }
}

/// `APPS{LABELS}` or `[LABELS]`.
fn labelled(word: &str) -> Result<Selector, Invalid> {
    let (apps, labels) = match word.split_once('{') {
        None => (word, ""),
        Some((apps, labels)) => {
            let end = || Invalid::new("selector", word, "nothing can follow the labels in '{}'");
            (apps, labels.strip_suffix('}').ok_or_else(end)?)
        }
    };
    let apps = match apps.strip_prefix('[') {
        Some(with) => {
            let end = || Invalid::new("selector", word, "write the apps' labels in '[]', then the endpoints' in '{}'");
            Apps::With(with.strip_suffix(']').ok_or_else(end)?.parse()?)
        }
        None if apps == "any" => Apps::Every,
        None => Apps::Named(apps.parse()?),
    };
    Ok(Selector::of(apps, labels.parse()?))
}

/// Whether a word means an address or a prefix: no app is called like that.
fn is_address(word: &str) -> bool {
    let addr = word.split_once('/').map_or(word, |(addr, _)| addr);
    addr.contains(':') || addr.parse::<IpAddr>().is_ok()
}

/// A prefix, or an address alone.
fn net_of(word: &str) -> Result<Prefix, Invalid> {
    match word.parse() {
        Ok(addr) => Prefix::host(addr),
        Err(_) => word.parse(),
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(app) => write!(f, "{app}"),
            Self::Role(app, role) => write!(f, "{app}/{role}"),
            Self::Host => f.write_str("host"),
            Self::Outside => f.write_str("outside"),
            Self::Any => f.write_str("any"),
            Self::Everyone => f.write_str("everyone"),
            Self::Labelled(labelled) => {
                let Labelled { apps, labels } = &**labelled;
                match apps {
                    Apps::Named(app) => write!(f, "{app}")?,
                    Apps::Every => f.write_str("any")?,
                    Apps::With(with) => write!(f, "[{with}]")?,
                }
                if labels.is_empty() { Ok(()) } else { write!(f, "{{{labels}}}") }
            }
            Self::Net(Net { prefix, except }) => {
                write!(f, "{prefix}")?;
                for (at, hole) in except.iter().enumerate() {
                    write!(f, "{}{hole}", if at == 0 { " except " } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_printed() {
        let check = |text: &str, expect: &str| assert_eq!(text.parse::<Selector>().unwrap().to_string(), expect);
        for text in ["shop", "shop/web", "host", "outside", "any", "10.0.0.0/8", "::/0", "hosts", "7/7"] {
            check(text, text);
        }
        for text in ["everyone", "shop{tier=db}", "any{!canary}", "[team=a]", "[team in (a,b)]{tier=db,env!=prod}"] {
            check(text, text);
        }
        check("shop{}", "shop");
        check("any{ }", "any");
        check("[]", "any");
        check("[]{a = b}", "any{a=b}");
        check("[team=a]{}", "[team=a]");
        check("192.0.2.1", "192.0.2.1/32");
        check("fd00::1", "fd00::1/128");
        check("10.0.0.0/8 except 10.2.0.0/16,10.1.0.0/16,10.1.0.0/16", "10.0.0.0/8 except 10.1.0.0/16,10.2.0.0/16");
    }

    #[test]
    fn what_is_no_selector_is_refused_by_name() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("", "is no selector");
        check("Shop", "\"Shop\" is no app name");
        check("shop/web/1", "\"web/1\" is no role name");
        check("shop/", "\"\" is no role name");
        check("host/web", "\"host\" is no app name");
        check("10.0.0.1/8", "host bits are set, use 10.0.0.0/8");
        check("10.0.0.300/8", "looks like an address");
        check("10.0.0.0/8 except 11.0.0.0/16", "name a part of 10.0.0.0/8");
        check("10.0.0.0/8 except 10.0.0.0/8", "name a part of 10.0.0.0/8");
        check("10.0.0.0/8 except", "is no selector");
        check("shop except 10.0.0.0/8", "only a prefix can have exceptions");
        check("::/0 except 10.0.0.0/8", "name a part of ::/0");
        check("fd00::zz", "is no prefix");
        check("shop{a", "close every bracket");
        check("shop{a}b", "nothing can follow");
        check("host{a}", "\"host\" is no app name");
        check("shop[a]", "\"shop[a]\" is no app name");
        check("shop[a]{b}", "is no app name");
        check("[a]b{c}", "in '[]'");
        check("shop{a in ()}", "name at least one value");
        check("shop/web{a}", "is no app name");
    }
}

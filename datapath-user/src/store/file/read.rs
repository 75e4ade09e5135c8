//! The text of a cluster file, read: every name, prefix and rule is checked here, and every fault has its place.
//!
//! ```toml
//! port = 6784                                   # UDP port of the tunnel; may be left out
//! rules = [
//!     "allow shop/web -> blog/db tcp/5432",     # as on the command line
//! ]
//!
//! [host.h1]
//! address = "192.0.2.1"                         # or a list; the preferred one first
//! [host.h1.prefixes]
//! shop = ["10.1.1.0/24", "fd00:1:1::/64"]       # what it gives to endpoints
//!
//! [app.shop]
//! prefixes = ["10.1.0.0/16", "fd00:1::/32"]
//! roles = ["web", { name = "db", number = 7 }]  # a number only if names collide
//! number = 4660                                 # likewise
//! labels = { team = "a" }                       # for rules that select apps
//! inside = "open"                               # from its own endpoints
//! from_apps = "closed"                          # from other apps
//! from_host = "open"                            # from hosts
//! to_outside = "open"                           # to the outside and to hosts
//! shadow = true                                 # its policy is only tried: counted, not enforced
//!
//! [policy.blog]                                 # as `weft policy apply` writes it
//! rules = [{ rule = "allow shop -> blog tcp/80", source = "blog.yaml:3" }]
//! expect = ["shop -> blog tcp/80 allow"]
//! ```
//!
//! A role whose endpoints have other labels than its name, or names for ports, is
//! `{ name = "db", labels = { tier = "db" }, ports = { pg = "tcp/5432" } }`.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value},
};
use toml::Spanned;

use crate::model::{
    app::{App, Defaults, Gate, Role},
    check::{self, Fault, Place},
    cluster::{Cluster, Policy, Settings},
    expect::Expectation,
    host::Host,
    invalid::Invalid,
    labels::Labels,
    name::{AppName, HostName, PolicyName, RoleName},
    rule::{Rule, Source},
};

use super::{super::Problem, disk::Lines};

/// What the file says of a cluster, wherever it says it.
#[derive(Debug, PartialEq)]
pub(super) struct Description<'a> {
    settings: &'a Settings,
    hosts: &'a BTreeMap<HostName, Host>,
    apps: &'a BTreeMap<AppName, App>,
    rules: Vec<Rule>,
    policies: BTreeMap<PolicyName, Policy>,
}

impl<'a> Description<'a> {
    pub(super) fn of(cluster: &'a Cluster) -> Self {
        let Cluster { settings, hosts, apps, rules, policies, endpoints: _, reservations: _ } = cluster;
        let rules = rules.iter().map(|rule| Rule { source: None, ..rule.as_ref().clone() }).collect();
        let bare = |policy: &Policy| {
            let expect = policy.expect.iter().map(|expected| Expectation { source: None, ..expected.clone() });
            Policy { expect: expect.collect() }
        };
        let policies = policies.iter().map(|(name, policy)| (name.clone(), bare(policy))).collect();
        Self { settings, hosts, apps, rules, policies }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    port: Option<Spanned<u16>>,
    #[serde(default)]
    rules: Vec<Spanned<String>>,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, HostTable>,
    #[serde(default)]
    app: BTreeMap<Spanned<String>, AppTable>,
    #[serde(default)]
    policy: BTreeMap<Spanned<String>, PolicyTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyTable {
    #[serde(default)]
    rules: Vec<Spanned<Sourced>>,
    #[serde(default)]
    expect: Vec<Spanned<Sourced>>,
}

/// A rule or an expectation, with the place where it was written first.
struct Sourced {
    text: String,
    source: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourcedTable {
    #[serde(alias = "expect")]
    rule: String,
    source: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostTable {
    address: Spanned<OneOrMany>,
    #[serde(default)]
    prefixes: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppTable {
    number: Option<Spanned<u32>>,
    #[serde(default)]
    prefixes: Vec<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    roles: Vec<Spanned<RoleEntry>>,
    inside: Option<Spanned<String>>,
    from_apps: Option<Spanned<String>>,
    from_host: Option<Spanned<String>>,
    to_outside: Option<Spanned<String>>,
    #[serde(default)]
    shadow: bool,
}

/// An address, or a list of them.
enum OneOrMany {
    One(String),
    Many(Vec<Spanned<String>>),
}

/// A role, by its name or with what it has beside.
#[derive(Deserialize)]
#[serde(transparent)]
struct RoleEntry(#[serde(deserialize_with = "role_entry")] RoleTable);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleTable {
    name: String,
    number: Option<u16>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    ports: BTreeMap<String, String>,
}

/// A cluster as `text` describes it for `host`, with the endpoints and reservations of `base`.
pub(super) fn read(text: &str, file: &Arc<str>, host: &HostName, base: &Cluster) -> Result<Cluster, Problem> {
    let cluster = read_for_any(text, file, base)?;
    if !cluster.hosts.contains_key(host) {
        let text = format!("there is no [host.{host}], and that is this host");
        return Err(Problem { file: Arc::clone(file), position: None, text });
    }
    Ok(cluster)
}

/// As [`read`], whoever reads it.
pub(super) fn read_for_any(text: &str, file: &Arc<str>, base: &Cluster) -> Result<Cluster, Problem> {
    let lines = Lines::of(text);
    let problem = |at: Option<usize>, text: String| Problem {
        file: Arc::clone(file),
        position: at.map(|at| lines.position(at)),
        text,
    };
    let document: Document = toml::from_str(text)
        .map_err(|error| problem(error.span().map(|span| span.start), error.message().to_owned()))?;
    let mut reader = Reader { lines: &lines, file, places: BTreeMap::new() };
    let cluster = reader.cluster(document, base).map_err(|(at, text)| problem(Some(at), text))?;
    let faults = check::check(&cluster).err().unwrap_or_default();
    let place = |place: &Place| reader.places.get(place).copied();
    let what = |fault: &Fault| {
        let hint = if matches!(fault.place, Place::Endpoint(_)) { "; detach it first" } else { "" };
        format!("{fault}{hint}")
    };
    let mut found: Vec<_> = faults.iter().map(|fault| (place(&fault.place), what(fault))).collect();
    found.sort();
    let more = match found.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    match found.into_iter().next() {
        Some((at, what)) => Err(problem(at, what + &more)),
        None => Ok(cluster),
    }
}

/// What is wrong and at which byte.
type Wrong = (usize, String);

struct Reader<'a> {
    lines: &'a Lines<'a>,
    file: &'a Arc<str>,
    /// At which byte each part of the cluster is.
    places: BTreeMap<Place, usize>,
}

impl Reader<'_> {
    fn cluster(&mut self, document: Document, base: &Cluster) -> Result<Cluster, Wrong> {
        let Document { port, rules, host, app, policy } = document;
        let mut settings = Settings::default();
        if let Some(port) = port {
            self.places.insert(Place::Settings, port.span().start);
            settings.port = port.into_inner();
        }
        let apps = app.into_iter().map(|(name, table)| self.app(&name, table)).collect::<Result<Vec<_>, _>>()?;
        let hosts = host.into_iter().map(|(name, table)| self.host(&name, table)).collect::<Result<Vec<_>, _>>()?;
        let mut rules =
            rules.iter().enumerate().map(|(at, rule)| self.rule(at, rule)).collect::<Result<Vec<_>, _>>()?;
        let mut policies = BTreeMap::new();
        // By name, whatever their order in the file.
        for (name, table) in policy {
            let name: PolicyName = parsed(&name)?;
            for entry in &table.rules {
                self.places.insert(Place::Rule(rules.len()), entry.span().start);
                let rule: Rule = parse(entry.span().start, &entry.get_ref().text)?;
                rules.push(Rule { policy: Some(name.clone()), source: Some(self.source(entry)), ..rule });
            }
            let expected = |entry: &Spanned<Sourced>| {
                let expected: Expectation = parse(entry.span().start, &entry.get_ref().text)?;
                Ok(Expectation { source: Some(self.source(entry)), ..expected })
            };
            let expect = table.expect.iter().map(expected).collect::<Result<Vec<_>, Wrong>>()?;
            policies.insert(name, Policy { expect });
        }
        Ok(Cluster {
            policies: shared(&base.policies, policies),
            settings,
            apps: shared(&base.apps, apps.into_iter().map(|app| (app.name.clone(), app)).collect()),
            hosts: shared(&base.hosts, hosts.into_iter().map(|host| (host.name.clone(), host)).collect()),
            rules: shared(&base.rules, rules.into_iter().map(Arc::new).collect()),
            endpoints: base.endpoints.clone(),
            reservations: base.reservations.clone(),
        })
    }

    fn app(&mut self, name: &Spanned<String>, table: AppTable) -> Result<App, Wrong> {
        let AppTable { number, prefixes, labels, roles, inside, from_apps, from_host, to_outside, shadow } = table;
        let mut app = App::new(parsed(name)?, Vec::new(), []);
        self.places.insert(Place::App(app.name.clone()), name.span().start);
        if let Some(number) = number {
            self.places.insert(Place::App(app.name.clone()), number.span().start);
            app.set_number(number.into_inner());
        }
        for (at, prefix) in prefixes.iter().enumerate() {
            self.places.insert(Place::AppPrefix(app.name.clone(), at), prefix.span().start);
            app.prefixes.push(parsed(prefix)?);
        }
        for (key, value) in &labels {
            app.labels.set(parsed(key)?, parsed(value)?);
        }
        for entry in &roles {
            let at = entry.span().start;
            let (name, role) = entry.get_ref().0.role().map_err(|error| wrong(at, error))?;
            self.places.insert(Place::Role(app.name.clone(), name.clone()), at);
            if app.roles.insert(name, role).is_some() {
                return Err((at, format!("app {} has this role twice", app.name)));
            }
        }
        app.shadow = shadow;
        let Defaults { inside: a, from_apps: b, from_host: c, to_outside: d } = &mut app.defaults;
        for (gate, text) in [(a, inside), (b, from_apps), (c, from_host), (d, to_outside)] {
            if let Some(text) = text {
                *gate = parsed::<Gate>(&text)?;
            }
        }
        Ok(app)
    }

    fn host(&mut self, name: &Spanned<String>, table: HostTable) -> Result<Host, Wrong> {
        let HostTable { address, prefixes } = table;
        let mut host = Host { name: parsed(name)?, addresses: Vec::new(), blocks: BTreeMap::new() };
        self.places.insert(Place::Host(host.name.clone()), name.span().start);
        let span = address.span();
        let texts = match address.into_inner() {
            OneOrMany::One(text) => vec![Spanned::new(span, text)],
            OneOrMany::Many(texts) => texts,
        };
        for (at, text) in texts.iter().enumerate() {
            self.places.insert(Place::HostAddress(host.name.clone(), at), text.span().start);
            let help = "write it as 192.0.2.1 or 2001:db8::1";
            let addr = text.get_ref().parse::<IpAddr>().map_err(|_| Invalid::new("address", text.get_ref(), help));
            host.addresses.push(addr.map_err(|error| wrong(text.span().start, error))?);
        }
        for (app, blocks) in &prefixes {
            let app_name: AppName = parsed(app)?;
            self.places.insert(Place::Blocks(host.name.clone(), app_name.clone()), app.span().start);
            for (at, block) in blocks.iter().enumerate() {
                self.places.insert(Place::Block(host.name.clone(), app_name.clone(), at), block.span().start);
                host.blocks.entry(app_name.clone()).or_default().push(parsed(block)?);
            }
        }
        Ok(host)
    }

    fn rule(&mut self, at: usize, text: &Spanned<String>) -> Result<Rule, Wrong> {
        let start = text.span().start;
        self.places.insert(Place::Rule(at), start);
        let line = self.lines.line(start);
        let rule: Rule = parsed(text)?;
        Ok(Rule { source: Some(Source { file: Arc::clone(self.file), line }), ..rule })
    }
}

impl Reader<'_> {
    /// Where an entry was written first: in another file, or on its line of this one.
    fn source(&self, entry: &Spanned<Sourced>) -> Source {
        let noted = entry.get_ref().source.as_deref().and_then(|source| source.rsplit_once(':'));
        let other = noted.and_then(|(file, line)| Some(Source { file: file.into(), line: line.parse().ok()? }));
        let here = || Source { file: Arc::clone(self.file), line: self.lines.line(entry.span().start) };
        other.unwrap_or_else(here)
    }
}

impl RoleTable {
    fn role(&self) -> Result<(RoleName, Role), Invalid> {
        let Self { name, number, labels, ports } = self;
        let name: RoleName = name.parse()?;
        let mut role = Role::plain(&name);
        if let Some(labels) = labels {
            let label = |(key, value): (&String, &String)| Ok((key.parse()?, value.parse()?));
            role.labels = labels.iter().map(label).collect::<Result<Labels, Invalid>>()?;
        }
        if let Some(number) = number {
            role.set_number(*number);
        }
        for (name, port) in ports {
            role.ports.add(name, port)?;
        }
        Ok((name, role))
    }
}

fn parsed<T: FromStr<Err: fmt::Display>>(text: &Spanned<String>) -> Result<T, Wrong> {
    parse(text.span().start, text.get_ref())
}

fn parse<T: FromStr<Err: fmt::Display>>(at: usize, text: &str) -> Result<T, Wrong> {
    text.parse().map_err(|error| wrong(at, error))
}

fn wrong(at: usize, error: impl fmt::Display) -> Wrong {
    (at, error.to_string())
}

/// The old value if the new one is equal: then nobody has to compare them again.
fn shared<T: PartialEq>(old: &Arc<T>, new: T) -> Arc<T> {
    if **old == new { Arc::clone(old) } else { Arc::new(new) }
}

// Not by `#[serde(untagged)]`: its errors say neither what is wrong nor where.
impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or a list of addresses")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<OneOrMany, A::Error> {
                Vec::deserialize(value::SeqAccessDeserializer::new(seq)).map(OneOrMany::Many)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

fn role_entry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RoleTable, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = RoleTable;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a role's name, or { name = \"web\", number = 7 }")
        }

        fn visit_str<E: de::Error>(self, name: &str) -> Result<RoleTable, E> {
            Ok(RoleTable { name: name.to_owned(), number: None, labels: None, ports: BTreeMap::new() })
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RoleTable, A::Error> {
            RoleTable::deserialize(value::MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(Either)
}

impl<'de> Deserialize<'de> for Sourced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Sourced;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or { rule = \"...\", source = \"FILE:LINE\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sourced, E> {
                Ok(Sourced { text: text.to_owned(), source: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Sourced, A::Error> {
                let SourcedTable { rule, source } = SourcedTable::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(Sourced { text: rule, source })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

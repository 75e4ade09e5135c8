//! weft's own form.
//!
//! ```yaml
//! weft: v1
//! policy: shop
//! apps:
//!   shop: {prefixes: [10.1.0.0/16], labels: {team: a}, roles: [web, {name: db, labels: {tier: db}, ports: {pg: tcp/5432}}]}
//! rules:
//!   - allow shop/web -> blog/db tcp/5432
//!   - deny:
//!       from: {app: shop, matchExpressions: [{key: env, operator: NotIn, values: [prod]}]}
//!       to: blog
//!       ports: [tcp/5432, udp/53]
//! expect:
//!   - shop/web -> blog/db tcp/5432 allow
//! ```
//!
//! A document:
//!
//! | field | |
//! |---|---|
//! | `weft` | `v1`, the version of this form; required |
//! | `policy` | name of the policy; required with `rules` and `expect` |
//! | `rules` | what the policy says, in order; `[]` for a policy without rules |
//! | `expect` | what has to hold while the policy is in force, each as `FROM -> TO [TRAFFIC] allow` or `deny` |
//! | `apps` | apps by name |
//!
//! An app; what is left out stays as it is, or is the usual for a new app:
//!
//! | field | |
//! |---|---|
//! | `prefixes` | where its endpoints have their addresses |
//! | `labels` | what rules can select it by |
//! | `roles` | its tiers: each a name, or a mapping with `name`, `labels` (left out: `role` with the name), `ports` and `number` |
//! | `inside`, `from-apps`, `from-host`, `to-outside` | `open` or `closed`, where no rule speaks |
//! | `shadow` | `true`: its policy is only tried, and everything passes; `false` |
//! | `blocks` | by host, which prefixes it gives to endpoints of the app |
//! | `number` | what the app, or a role, is called on the wire; left out: what its name gives. Only needed where those collide |
//!
//! A rule is the text of a rule, or a mapping with one field, `allow`, `deny`, `reject` or `pass`, which has:
//!
//! | field | |
//! |---|---|
//! | `from`, `to` | the text of a selector, or a mapping with `app` (a name, or `any`) or `apps` (a label selector of apps), and with `matchLabels` and `matchExpressions` of endpoints; required |
//! | `ports` | traffic as `tcp/80,8000-8100,http`, or a list of such; left out: any. Several protocols are several rules |
//! | `on` | `ingress` or `egress`: whose rule it is; left out: of both sides |
//! | `precedence` | a number, the greater wins; left out: 1000 |
//! | `shadow` | `true`: the rule is only tried; left out: `false` |
//! | `until` | when it ends, in UTC as `2026-01-31T09:05:00Z`; only an allow can end; left out: never |
//! | `name` | what the rule is called |
//!
//! A rule that has ended is no mistake: it is kept and says nothing, so that a manifest can be applied again at any time. Take it
//! out when nobody asks for it any more.
//!
//! A field with nothing in it is a fault here: nobody can tell whether all is meant by it or nothing.

use std::{collections::BTreeMap, rc::Rc, str::FromStr};

use weft_common::{
    id::{AppId, RoleId},
    policy::{Action, Direction},
};

use crate::{
    model::{
        app::{Gate, Role},
        cluster::Policy,
        expect::Expectation,
        invalid::{Invalid, Quoted},
        name::{AppName, PolicyName, RoleName},
        rule::{Precedence, Rule},
        selector::{Apps, Selector},
        time::Until,
        traffic::{NamedPorts, Traffic, named_port},
    },
    store::Position,
};

use super::{
    AppSpec, Faults, Reader,
    fields::{Fields, Form, Null, entries, list, number, parsed, text, truth},
    selectors,
    traffic::joined,
    tree::{Node, Value},
};

const fn form(what: &'static str, fields: &'static [&'static str]) -> Form {
    Form { what, fields, null: Null::Fault }
}

pub(super) const DOCUMENT: Form = form("a manifest", &["weft", "policy", "apps", "rules", "expect"]);
pub(super) const APP: Form = form(
    "an app",
    &["prefixes", "labels", "roles", "inside", "from-apps", "from-host", "to-outside", "shadow", "blocks", "number"],
);
pub(super) const ROLE: Form = form("a role", &["name", "labels", "ports", "number"]);
pub(super) const RULE: Form = form("a rule", &["allow", "deny", "reject", "pass"]);
pub(super) const LONG: Form = form("a rule", &["from", "to", "ports", "on", "precedence", "shadow", "until", "name"]);
pub(super) const SELECTOR: Form = form("a selector", &["app", "apps", "matchLabels", "matchExpressions"]);

/// What apps and roles can be called on the wire.
pub(super) const APP_NUMBERS: (i32, i32) = (AppId::FIRST.0.cast_signed(), AppId::LAST.0.cast_signed());
pub(super) const ROLE_NUMBERS: (i32, i32) = (1, RoleId::LAST.0 as i32);

/// The version of this form.
pub(super) const VERSION: &str = "v1";

pub(super) fn document(node: &Node, reader: &mut Reader, faults: &mut Faults) {
    let Some(fields) = Fields::of(node, &DOCUMENT, faults) else { return };
    if let Some(node) = fields.need("weft", faults)
        && let Some(version) = text(node, "weft", faults)
        && version != VERSION
    {
        faults.add(node.at, format!("version {} is not understood: use {VERSION}", Quoted(version)));
    }
    for entry in fields.get("apps").and_then(|node| entries(node, "apps", faults)).into_iter().flatten() {
        let name = faults.check(entry.at, entry.key.parse::<AppName>());
        if let (Some(name), Some(spec)) = (name, app(&entry.value, entry.at, faults)) {
            reader.app((name, entry.at), spec, faults);
        }
    }
    policy(&fields, reader, faults);
}

fn policy(fields: &Fields<'_>, reader: &mut Reader, faults: &mut Faults) {
    let (said_rules, said_expect) = (fields.get("rules"), fields.get("expect"));
    let mut rules = Vec::new();
    for node in said_rules.and_then(|node| list(node, "rules", faults)).into_iter().flatten() {
        rules.extend(rule(node, faults).into_iter().flatten().map(|rule| (node.at, rule)));
    }
    let mut policy = Policy::default();
    for node in said_expect.and_then(|node| list(node, "expect", faults)).into_iter().flatten() {
        let expected = parsed::<Expectation>(node, "an expectation", faults);
        let source = Some(faults.source(node.at));
        policy.expect.extend(expected.map(|expected| Expectation { source, ..expected }));
    }
    let Some(node) = fields.get("policy") else {
        if said_rules.or(said_expect).is_some() {
            fields.need("policy", faults);
        } else if fields.get("apps").is_none() {
            faults.add(fields.at, "this manifest says nothing: write apps, or policy and rules");
        }
        return;
    };
    let Some(name) = parsed::<PolicyName>(node, "policy", faults) else { return };
    if said_rules.or(said_expect).is_none() {
        faults.add(node.at, format!("policy {name} has no rules: write rules: [] if there are to be none"));
    }
    reader.policy((name, node.at), policy, rules, faults);
}

fn app(node: &Node, at: Position, faults: &mut Faults) -> Option<AppSpec> {
    let fields = Fields::of(node, &APP, faults)?;
    let gate = |name, faults: &mut Faults| fields.get(name).and_then(|node| parsed::<Gate>(node, name, faults));
    let roles = |node: &Node, faults: &mut Faults| {
        let mut roles = BTreeMap::new();
        for node in list(node, "roles", faults)? {
            let Some((name, role, number)) = role(node, faults) else { continue };
            if roles.insert(name.clone(), (role, number)).is_some() {
                faults.add(node.at, format!("role {name} is there twice: take one away"));
            }
        }
        Some(roles)
    };
    let blocks = |node: &Node, faults: &mut Faults| {
        let mut blocks = BTreeMap::new();
        for entry in entries(node, "blocks", faults)? {
            let host = faults.check(entry.at, entry.key.parse());
            let prefixes = many(&entry.value, "what a host gives", faults);
            blocks.extend(host.zip(prefixes));
        }
        Some(blocks)
    };
    Some(AppSpec {
        prefixes: fields.get("prefixes").and_then(|node| many(node, "prefixes", faults)),
        labels: fields.get("labels").and_then(|node| selectors::labels(node, "labels", faults)),
        roles: fields.get("roles").and_then(|node| roles(node, faults)),
        inside: gate("inside", faults),
        from_apps: gate("from-apps", faults),
        from_host: gate("from-host", faults),
        to_outside: gate("to-outside", faults),
        shadow: fields.get("shadow").and_then(|node| truth(node, "shadow", faults)),
        number: fields.get("number").and_then(|node| numbered(node, APP_NUMBERS, faults)).map(AppId),
        blocks: fields.get("blocks").and_then(|node| blocks(node, faults)),
        source: faults.source(at),
    })
}

/// A list of what texts mean.
fn many<T: FromStr<Err = Invalid>>(node: &Node, what: &str, faults: &mut Faults) -> Option<Vec<T>> {
    let items = list(node, what, faults)?;
    let found: Vec<_> = items.iter().map(|item| parsed(item, "each", faults)).collect();
    found.into_iter().collect()
}

/// By its name alone, or with what it has beside.
fn role(node: &Node, faults: &mut Faults) -> Option<(RoleName, Role, Option<RoleId>)> {
    if matches!(node.value, Value::Text(_)) {
        let name: RoleName = parsed(node, "a role", faults)?;
        return Some((name.clone(), Role::plain(&name), None));
    }
    let fields = Fields::of(node, &ROLE, faults)?;
    let name = fields.need("name", faults).and_then(|node| parsed::<RoleName>(node, "name", faults));
    let labels = fields.get("labels").map(|node| selectors::labels(node, "labels", faults));
    let ports = fields.get("ports").map(|node| ports(node, faults));
    let number = fields.get("number").map(|node| numbered(node, ROLE_NUMBERS, faults));
    let number = number.map_or(Some(None), |number| number.map(Some))?;
    let name = name?;
    let mut role = Role::plain(&name);
    if let Some(labels) = labels {
        role.labels = labels?;
    }
    if let Some(ports) = ports {
        role.ports = ports?;
    }
    Some((name, role, number.and_then(|number| u16::try_from(number).ok()).map(RoleId)))
}

/// A number on the wire.
fn numbered(node: &Node, range: (i32, i32), faults: &mut Faults) -> Option<u32> {
    number(node, "number", range, faults).and_then(|number| u32::try_from(number).ok())
}

/// Names of ports, each of one protocol or of several.
fn ports(node: &Node, faults: &mut Faults) -> Option<NamedPorts> {
    let mut ports = NamedPorts::default();
    for entry in entries(node, "ports", faults)? {
        let one = [Rc::clone(&entry.value)];
        let values = if let Value::List(values) = &entry.value.value { values.as_slice() } else { &one };
        for node in values {
            let Some(port) = text(node, "a port", faults) else { continue };
            let named = named_port(&format!("{}={port}", entry.key));
            let Some((name, protocol, port)) = faults.check(node.at, named) else { continue };
            if ports.set(name, protocol, port).is_some() {
                faults.add(node.at, format!("port {} is there twice for a protocol", Quoted(&entry.key)));
            }
        }
    }
    Some(ports)
}

/// What a rule comes to: one, or one of each protocol.
fn rule(node: &Node, faults: &mut Faults) -> Option<Vec<Rule>> {
    let source = Some(faults.source(node.at));
    if matches!(node.value, Value::Text(_)) {
        let rule: Rule = parsed(node, "a rule", faults)?;
        return Some(vec![Rule { source, ..rule }]);
    }
    let fields = Fields::of(node, &RULE, faults)?;
    let (word, node) = fields.one_of(RULE.fields, faults)?;
    let action = Action::ALL.into_iter().find(|action| action.name() == word)?;
    let fields = Fields::of(node, &LONG, faults)?;
    let from = fields.need("from", faults).and_then(|node| selector(node, faults));
    let to = fields.need("to", faults).and_then(|node| selector(node, faults));
    let traffic = fields.get("ports").map_or_else(|| Some(vec![Traffic::Any]), |node| traffic(node, faults));
    let on = fields.get("on").map(|node| direction(node, faults));
    let range = (Precedence::MIN.raw(), Precedence::MAX.raw());
    let precedence = fields.get("precedence").map(|node| number(node, "precedence", range, faults));
    let shadow = fields.get("shadow").map(|node| truth(node, "shadow", faults));
    let until = fields.get("until").map(|node| parsed::<Until>(node, "until", faults));
    let name = fields.get("name").map(|node| (node.at, parsed(node, "name", faults)));
    let (from, to, traffic) = (from?, to?, traffic?);
    let on = on.map_or(Some(None), |on| on.map(Some))?;
    let precedence = precedence.map_or(Some(Precedence::DEFAULT), |raw| Precedence::new(raw?))?;
    let shadow = shadow.unwrap_or(Some(false))?;
    let until = until.map_or(Some(None), |until| until.map(Some))?;
    if let (Some((at, _)), true) = (&name, traffic.len() > 1) {
        faults.add(*at, "a name is one rule's, and this is a rule of each protocol: write one by one");
        return None;
    }
    let name = name.map_or(Some(None), |(_, name)| name.map(Some))?;
    let rules = traffic.into_iter().map(|traffic| {
        let rule = Rule::new(action, from.clone(), to.clone(), traffic)?.placed(on, precedence)?.ending(until)?;
        Ok(Rule { shadow, name: name.clone(), source: source.clone(), ..rule })
    });
    faults.check(fields.at, rules.collect::<Result<_, Invalid>>())
}

fn selector(node: &Node, faults: &mut Faults) -> Option<Selector> {
    if matches!(node.value, Value::Text(_)) {
        return parsed(node, "a selector", faults);
    }
    let fields = Fields::of(node, &SELECTOR, faults)?;
    let labels = selectors::of(&fields, Null::Fault, faults);
    let apps = match fields.one_of(&["app", "apps"], faults)? {
        ("apps", node) => selectors::selector(node, Null::Fault, faults).map(Apps::With),
        (_, node) if matches!(&node.value, Value::Text(text) if text == "any") => Some(Apps::Every),
        (_, node) => parsed(node, "app", faults).map(Apps::Named),
    };
    Some(Selector::of(apps?, labels?))
}

fn traffic(node: &Node, faults: &mut Faults) -> Option<Vec<Traffic>> {
    let Value::List(items) = &node.value else { return Some(vec![parsed(node, "ports", faults)?]) };
    if items.is_empty() {
        faults.add(node.at, "ports names none: write any, or leave it out for all traffic");
        return None;
    }
    let found: Vec<_> = items.iter().map(|item| parsed::<Traffic>(item, "ports", faults)).collect();
    let found = found.into_iter().collect::<Option<Vec<_>>>()?;
    Some(joined(found))
}

fn direction(node: &Node, faults: &mut Faults) -> Option<Direction> {
    let word = text(node, "on", faults)?;
    let found = [Direction::Ingress, Direction::Egress].into_iter().find(|direction| direction.name() == word);
    if found.is_none() {
        faults.add(node.at, format!("{} is no direction: use ingress or egress", Quoted(word)));
    }
    found
}

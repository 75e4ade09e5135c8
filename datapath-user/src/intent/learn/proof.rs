//! Whether a learned policy allows what was seen, by the code that decides on packets, and what can be expected of it.

use std::{collections::BTreeSet, sync::Arc};

use weft_common::{
    addr::Ip,
    header::protocol,
    policy::{Decision, Query},
};

use crate::front::api::{
    dto::{learning::Contact, policies::Document},
    refusal::Refusal,
};
use crate::intent;
use crate::model::{
    cluster::{Cluster, Policy},
    expect::Expectation,
    name::{AppName, PolicyName},
    rule::Rule,
    selector::Selector,
    traffic::Traffic,
};
use crate::plan::{
    NodePlan,
    ask::{self, Asker},
    expect,
};
use crate::store::change::with_policies;

use super::{CLOSED, ends::Flow};

/// How many expectations of what does not pass are written.
const DENIED: usize = 2;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// What can be expected.
    pub(super) holds: Vec<Expectation>,
    /// What can be expected when the app is no longer in shadow.
    pub(super) later: Vec<Expectation>,
    /// What does not pass, and who denies it.
    pub(super) against: Vec<String>,
}

/// Asks about everything that was seen, in the cluster as it is with the policy and without the app's shadow.
pub(super) fn prove<'a>(
    cluster: &Cluster,
    app: &AppName,
    name: &PolicyName,
    rules: &[Rule],
    seen: impl Iterator<Item = (&'a Contact, &'a Flow)>,
) -> Result<Proven, Refusal> {
    let allowed = rules.iter().map(|rule| expected(&rule.from, &rule.to, &rule.traffic, true));
    let denied = closed(cluster, app);
    let expect: Vec<_> = allowed.chain(denied).collect();
    let next = with(cluster, app, name, rules, expect)?;
    let mut proven = Proven::default();
    let is_tried = cluster.apps.get(app).is_some_and(|app| app.shadow);
    let checked = expect::check(&next, &NodePlan::default()).into_iter();
    let ours = checked.filter(|checked| checked.policy == *name && checked.fault.is_none());
    for expected in ours.map(|checked| checked.expected) {
        match (expected.passes, is_tried) {
            (false, _) if denies(&proven) >= DENIED => {}
            // What is only tried lets everything pass.
            (false, true) => proven.later.push(expected),
            (true, _) | (false, false) => proven.holds.push(expected),
        }
    }
    let asker = Asker::new(&next);
    let against: BTreeSet<String> = seen.flat_map(|(contact, flow)| denials(&asker, contact, flow)).collect();
    proven.against.extend(against);
    Ok(proven)
}

/// Why a daemon would not put a manifest in force, a sentence each; nothing: it would.
pub(super) fn refused(cluster: &Cluster, manifest: &str) -> Vec<String> {
    let documents = vec![Document { name: "learned".to_owned(), text: manifest.to_owned() }];
    let tried = intent::read(documents).and_then(|manifest| {
        let change = intent::wanted(cluster, manifest);
        intent::preview(cluster, &change, &NodePlan::default())
    });
    let Err(Refusal { kind: _, message, more }) = tried else { return Vec::new() };
    std::iter::once(message).chain(more).map(|sentence| format!("weft policy apply refuses it: {sentence}")).collect()
}

fn denies(Proven { holds, later, against: _ }: &Proven) -> usize {
    holds.iter().chain(later).filter(|expected| !expected.passes).count()
}

/// The cluster with the policy in force.
fn with(
    cluster: &Cluster,
    app: &AppName,
    name: &PolicyName,
    rules: &[Rule],
    expect: Vec<Expectation>,
) -> Result<Cluster, Refusal> {
    let manifest = crate::manifest::write::one(name, &Policy { expect }, rules, Some((app, CLOSED)));
    let read = intent::read(vec![Document { name: "learned".to_owned(), text: manifest }])?;
    let mut next = with_policies(cluster, &intent::wanted(cluster, read).change)?;
    if let Some(app) = Arc::make_mut(&mut next.apps).get_mut(app) {
        app.shadow = false;
    }
    Ok(next)
}

/// What may be denied altogether: whether it is, is for the tables to say.
fn closed(cluster: &Cluster, app: &AppName) -> Vec<Expectation> {
    let own = Selector::App(app.clone());
    let nothing = |from: &Selector, to: &Selector| expected(from, to, &Traffic::Any, false);
    let others = cluster.apps.keys().filter(|other| *other != app).map(|other| Selector::App(other.clone()));
    let into = std::iter::once(Selector::Outside).chain(others).map(|other| nothing(&other, &own));
    into.chain([nothing(&own, &Selector::Outside)]).collect()
}

fn expected(from: &Selector, to: &Selector, traffic: &Traffic, passes: bool) -> Expectation {
    Expectation { from: from.clone(), to: to.clone(), traffic: traffic.clone(), passes, source: None }
}

/// In which of the ways in which it may be meant a contact does not pass.
fn denials<'a>(asker: &'a Asker<'_>, contact: &'a Contact, flow: &'a Flow) -> impl Iterator<Item = String> + 'a {
    // The code of ICMP is not remembered: flows are decided on again as with code 0.
    let is_icmp = matches!(contact.protocol, protocol::ICMP | protocol::ICMPV6);
    let port = if is_icmp { contact.port << 8 } else { contact.port };
    let (from, to) = (&flow.from, &flow.to);
    let pairs = from.identities.iter().flat_map(|src| to.identities.iter().map(move |dst| (*src, *dst)));
    pairs.filter_map(move |(src, dst)| {
        let query = Query {
            src,
            dst,
            src_addr: Ip::from(contact.from.address),
            dst_addr: Ip::from(contact.to.address),
            protocol: contact.protocol,
            port,
        };
        let decision: Decision = asker.decide(&query);
        if decision.verdict.is_ok() {
            return None;
        }
        let by = match asker.decider(&decision, src, dst) {
            Ok(rule) => match &rule.policy {
                Some(policy) => format!("`{rule}` of policy {policy}"),
                None => format!("`{rule}`"),
            },
            Err(default) => default,
        };
        let last = if is_icmp { port | 0xff } else { port };
        let what = ask::words(contact.protocol, port, last);
        let (from, to) = (&from.selector, &to.selector);
        Some(format!("{from} -> {to} {what} was seen and does not pass, by {by}"))
    })
}

//! The smallest manifest that allows what an app was seen to exchange, and the proof that it does.
//!
//! Contacts become ends that rules can name ([`ends`]), a table of ports between them ([`table`]), and that the fewest rules
//! ([`merge`]). Invariant: what is allowed is what was seen; where rules can not say that, or only at great length, more
//! is allowed and a note says so. Names are the cluster's own: what a contact names and the cluster does not is left out.

mod ends;
mod merge;
mod proof;
mod table;

use crate::front::api::{
    dto::learning::{Contact, LearnPolicy, Learned},
    refusal::Refusal,
};
use crate::manifest::write;
use crate::model::{
    app::{Defaults, Gate},
    cluster::{Cluster, Policy},
    expect::Expectation,
    name::PolicyName,
    rule::Rule,
};

use ends::Ends;
use table::Table;

/// What it comes to where no rule speaks: nothing that was not seen.
const CLOSED: Defaults =
    Defaults { inside: Gate::Closed, from_apps: Gate::Closed, from_host: Gate::Closed, to_outside: Gate::Closed };

/// What no host can tell.
const FLOWLESS: &str =
    "What goes to a group or to everybody, and what is not IP, has no flow: rules for it are yours to write.";

/// Learns a manifest.
pub fn learn(cluster: &Cluster, request: &LearnPolicy) -> Result<Learned, Refusal> {
    let LearnPolicy { app: name, policy, contacts, asked } = request;
    let app = cluster.apps.get(name).ok_or_else(|| Refusal::no_app(name))?;
    let policy: PolicyName = match policy {
        Some(policy) => policy.clone(),
        None => format!("learned-{name}").parse()?,
    };
    let mut notes = Vec::new();
    let mut ends = Ends::new(cluster, asked);
    let seen: Vec<_> = contacts.iter().filter_map(|contact| Some((contact, ends.of(app, contact)?))).collect();
    let mut table = Table::default();
    for (_, flow) in &seen {
        table.add(flow);
    }
    ends.tell(&mut notes);
    table.gather(&mut notes);
    let rules = merge::fewest(table, &ends.groups()).rules()?;

    let draft = |expect: Vec<Expectation>| {
        let policy_of = Policy { expect };
        write::one(&policy, &policy_of, &rules, Some((name, CLOSED)))
    };
    let looked = seen.iter().map(|(contact, flow)| (*contact, flow));
    let proven = proof::prove(cluster, name, &policy, &rules, looked)?;
    let body = draft(proven.holds.clone());
    let mut against = proven.against;
    against.extend(proof::refused(cluster, &body));

    let expectations = proven.holds.len() as u64;
    let head = format!("What app {name} was seen to exchange, by weft policy learn: {}.", count(seen.iter()));
    let mut manifest: String = [head.as_str(), FLOWLESS]
        .into_iter()
        .chain(notes.iter().chain(&against).map(String::as_str))
        .map(comment)
        .collect();
    manifest.push_str(&body);
    if !proven.later.is_empty() {
        manifest.push_str(&comment(&format!("Holds when {name} is not in shadow: put it below expect then.")));
        manifest.extend(proven.later.iter().map(|expected| comment(&format!("  - {expected}"))));
    }
    Ok(Learned {
        policy: policy.to_string(),
        manifest,
        rules: rules.len() as u64,
        expectations,
        contacts: seen.len() as u64,
        notes,
        against,
        unseen: Vec::new(),
    })
}

/// A line of a manifest that says nothing to a reader of manifests, and does nothing to a terminal.
pub fn comment(text: &str) -> String {
    let mut line = "# ".to_owned();
    for c in text.chars() {
        match c {
            ' '..='~' => line.push(c),
            other => line.extend(other.escape_default()),
        }
    }
    line.push('\n');
    line
}

fn count<'a>(seen: impl Iterator<Item = &'a (&'a Contact, ends::Flow)>) -> String {
    match seen.count() {
        1 => "1 contact".to_owned(),
        count => format!("{count} contacts"),
    }
}

/// The rules of a table's rows, in order.
impl Table {
    fn rules(&self) -> Result<Vec<Rule>, Refusal> {
        let mut rules = Vec::new();
        for (from, to, traffic) in self.traffic() {
            rules.push(Rule::new(weft_common::policy::Action::Allow, from.clone(), to.clone(), traffic)?);
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests;

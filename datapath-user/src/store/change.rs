//! Changes, and what each makes of a cluster. Pure: every engine calls the same function and writes down the result.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::model::{
    allocate::allocate,
    app::{App, Role},
    check::{self, Fault},
    cluster::{Cluster, Policy, Reservation, Revision},
    endpoint::{Addresses, Endpoint, EndpointKey, Netns},
    name::{AppName, HostName, PolicyName, RoleName, RuleName},
    prefix::Prefix,
    rule::Rule,
};

use super::ChangeError;

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a rule behind all others. One that says the same already is left as it is.
    AddRule(Rule),
    /// Takes a rule away.
    RemoveRule(RuleRef),
    /// Puts in force what is only tried.
    Promote(Promoted),
    /// Adds an app, with the blocks that hosts get of it.
    AddApp(App, BTreeMap<HostName, Vec<Prefix>>),
    /// Puts an app in the place of the one with its name, with the blocks that hosts get of it.
    SetApp(App, BTreeMap<HostName, Vec<Prefix>>),
    /// Adds a role to an app. One that is there already is left as it is.
    AddRole(AppName, RoleName, Role),
    /// Takes an app away, with the hosts' blocks of it.
    RemoveApp(AppName),
    /// Puts policies in the place of those with their names and takes others away, all as one.
    SetPolicies(SetPolicies),
    /// Adds an endpoint of this host, or puts it in the place of the one with its name. Its addresses are kept for it.
    PutEndpoint(Endpoint),
    /// Takes an endpoint of this host away; its addresses stay kept for its name. One that is not there is gone already.
    RemoveEndpoint(EndpointKey),
    /// As `RemoveEndpoint`, unless the endpoint has come to be in another namespace than this.
    EndpointGone(EndpointKey, Netns),
    /// Keeps addresses of this host for a name.
    Reserve(EndpointKey, Addresses),
    /// Keeps nothing for a name any longer.
    Release(EndpointKey),
}

/// What is to be in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promoted {
    /// A rule.
    Rule(RuleRef),
    /// All rules of a policy.
    Policy(PolicyName),
}

/// Policies that come and go as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetPolicies {
    /// Those that are to be there, with their rules in order.
    pub put: BTreeMap<PolicyName, (Policy, Vec<Rule>)>,
    /// Those that are to go. One that is not there is gone already.
    pub remove: BTreeSet<PolicyName>,
    /// Apps that are to be there like this, whether they are there or not, with the blocks that hosts get of each.
    pub apps: BTreeMap<AppName, (App, BTreeMap<HostName, Vec<Prefix>>)>,
}

/// Which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleRef {
    /// The one of this name.
    Named(RuleName),
    /// The one that says the same.
    Saying(Box<Rule>),
}

/// What `change` makes of `cluster` on host `me` in the revision after `now`. Equal if it changes nothing.
pub fn apply(cluster: &Cluster, change: &Change, me: &HostName, now: Revision) -> Result<Cluster, ChangeError> {
    let mut next = cluster.clone();
    match change {
        Change::AddRule(rule) => {
            // Those of no policy come first.
            let own = cluster.rules.partition_point(|rule| rule.policy.is_none());
            if !cluster.rules[..own].iter().any(|old| old.says_same(rule)) {
                Arc::make_mut(&mut next.rules).insert(own, Arc::new(rule.clone()));
            }
        }
        Change::RemoveRule(which) => {
            let at = position(cluster, which)?;
            Arc::make_mut(&mut next.rules).remove(at);
        }
        Change::Promote(which) => promote(&mut next, which)?,
        Change::AddApp(app, blocks) => add_app(&mut next, app, blocks)?,
        Change::SetApp(app, blocks) => set_app(&mut next, app, blocks)?,
        Change::AddRole(app, name, role) => add_role(&mut next, app, name, role)?,
        Change::RemoveApp(name) => remove_app(&mut next, name)?,
        Change::SetPolicies(policies) => set_policies(&mut next, policies)?,
        Change::PutEndpoint(endpoint) => {
            put_endpoint(&mut next, endpoint, me, now.next())?;
            return Ok(next);
        }
        Change::RemoveEndpoint(key) => {
            remove_endpoint(&mut next, key, me, now.next())?;
            return Ok(next);
        }
        Change::EndpointGone(key, netns) => {
            if cluster.endpoints.get(key).is_some_and(|endpoint| endpoint.netns == *netns) {
                remove_endpoint(&mut next, key, me, now.next())?;
            }
            return Ok(next);
        }
        Change::Reserve(key, addresses) => {
            reserve(&mut next, key, *addresses, me, now.next())?;
            return Ok(next);
        }
        Change::Release(key) => {
            if next.endpoints.contains_key(key) {
                return Err(ChangeError::InUse(format!(
                    "endpoint {key} is there and has its addresses: detach it first"
                )));
            }
            next.reservations.remove(key);
            return Ok(next);
        }
    }
    check::check(&next).map_err(ChangeError::Faults)?;
    Ok(next)
}

/// Where a rule is among the rules.
pub(super) fn position(cluster: &Cluster, which: &RuleRef) -> Result<usize, ChangeError> {
    let is_it = |rule: &Rule| match which {
        RuleRef::Named(name) => rule.name.as_ref() == Some(name),
        RuleRef::Saying(said) => rule.says_same(said),
    };
    let mut found = cluster.rules.iter().enumerate().filter(|(_, rule)| is_it(rule)).peekable();
    if let Some(policy) = found.peek().and_then(|(_, rule)| rule.policy.as_ref()) {
        return Err(ChangeError::InUse(format!(
            "the rule is of policy {policy}: change the policy's manifest and apply it"
        )));
    }
    let found = found.next().map(|(at, _)| at);
    found.ok_or_else(|| {
        ChangeError::NotFound(match which {
            RuleRef::Named(name) => format!("there is no rule with the name {name}"),
            RuleRef::Saying(rule) => format!("there is no rule `{}`", rule.statement()),
        })
    })
}

fn promote(next: &mut Cluster, which: &Promoted) -> Result<(), ChangeError> {
    let at = match which {
        Promoted::Rule(which) => vec![position(next, which)?],
        Promoted::Policy(name) if next.policies.contains_key(name) => {
            let of = next.rules.iter().enumerate().filter(|(_, rule)| rule.policy.as_ref() == Some(name));
            of.map(|(at, _)| at).collect()
        }
        Promoted::Policy(name) => return Err(ChangeError::NotFound(format!("there is no policy {name}"))),
    };
    let rules = Arc::make_mut(&mut next.rules);
    for at in at {
        Arc::make_mut(&mut rules[at]).shadow = false;
    }
    Ok(())
}

fn add_app(next: &mut Cluster, app: &App, blocks: &BTreeMap<HostName, Vec<Prefix>>) -> Result<(), ChangeError> {
    if let Some(old) = next.apps.get(&app.name) {
        let same_blocks =
            next.hosts.values().all(|host| host.blocks_of(&app.name).eq(blocks.get(&host.name).into_iter().flatten()));
        if old == app && same_blocks {
            return Ok(());
        }
        return Err(ChangeError::InUse(format!("there is an app {} already, which is not like this", app.name)));
    }
    Arc::make_mut(&mut next.apps).insert(app.name.clone(), app.clone());
    let hosts = Arc::make_mut(&mut next.hosts);
    for (name, blocks) in blocks.iter().filter(|(_, blocks)| !blocks.is_empty()) {
        let host = hosts.get_mut(name).ok_or_else(|| ChangeError::NotFound(format!("there is no host {name}")))?;
        host.blocks.insert(app.name.clone(), blocks.clone());
    }
    Ok(())
}

fn set_app(next: &mut Cluster, app: &App, blocks: &BTreeMap<HostName, Vec<Prefix>>) -> Result<(), ChangeError> {
    if !next.apps.contains_key(&app.name) {
        return Err(ChangeError::NotFound(format!("there is no app {}", app.name)));
    }
    if let Some(host) = blocks.keys().find(|host| !next.hosts.contains_key(*host)) {
        return Err(ChangeError::NotFound(format!("there is no host {host}")));
    }
    Arc::make_mut(&mut next.apps).insert(app.name.clone(), app.clone());
    for host in Arc::make_mut(&mut next.hosts).values_mut() {
        match blocks.get(&host.name).filter(|blocks| !blocks.is_empty()) {
            Some(blocks) => host.blocks.insert(app.name.clone(), blocks.clone()),
            None => host.blocks.remove(&app.name),
        };
    }
    Ok(())
}

fn add_role(next: &mut Cluster, app: &AppName, name: &RoleName, role: &Role) -> Result<(), ChangeError> {
    let unknown = || ChangeError::NotFound(format!("there is no app {app}"));
    let apps = Arc::make_mut(&mut next.apps);
    let roles = &mut apps.get_mut(app).ok_or_else(unknown)?.roles;
    match roles.get(name) {
        Some(there) if there == role => Ok(()),
        Some(_) => Err(ChangeError::InUse(format!("app {app} has a role {name} already, which is not like this"))),
        None => {
            roles.insert(name.clone(), role.clone());
            Ok(())
        }
    }
}

/// What policies and apps make of a cluster, which may have faults then.
pub fn with_policies(cluster: &Cluster, policies: &SetPolicies) -> Result<Cluster, ChangeError> {
    let mut next = cluster.clone();
    set_policies(&mut next, policies)?;
    Ok(next)
}

fn set_policies(next: &mut Cluster, SetPolicies { put, remove, apps }: &SetPolicies) -> Result<(), ChangeError> {
    for (app, blocks) in apps.values() {
        if next.apps.contains_key(&app.name) {
            set_app(next, app, blocks)?;
        } else {
            add_app(next, app, blocks)?;
        }
    }
    let policies = Arc::make_mut(&mut next.policies);
    policies.retain(|name, _| !remove.contains(name));
    policies.extend(put.iter().map(|(name, (policy, _))| (name.clone(), policy.clone())));
    let stays = |policy: &PolicyName| !put.contains_key(policy) && !remove.contains(policy);
    let mut rules: Vec<Arc<Rule>> =
        next.rules.iter().filter(|rule| rule.policy.as_ref().is_none_or(stays)).cloned().collect();
    let of = |(name, (_, rules)): (&PolicyName, &(Policy, Vec<Rule>))| {
        rules.iter().map(|rule| Arc::new(Rule { policy: Some(name.clone()), ..rule.clone() })).collect::<Vec<_>>()
    };
    rules.extend(put.iter().flat_map(of));
    // In the order in which they are read again: those of no policy, then by the policies' names.
    rules.sort_by(|a, b| a.policy.cmp(&b.policy));
    if *next.rules != rules {
        next.rules = Arc::new(rules);
    }
    Ok(())
}

fn remove_app(next: &mut Cluster, name: &AppName) -> Result<(), ChangeError> {
    if !next.apps.contains_key(name) {
        return Err(ChangeError::NotFound(format!("there is no app {name}")));
    }
    if let Some(key) = next.endpoints.keys().find(|key| key.app == *name) {
        return Err(ChangeError::InUse(format!("app {name} has endpoint {key}: detach it first")));
    }
    // They are not its own: others wrote them of their apps, too, and a policy is what its manifest says.
    let names = |rule: &&Arc<Rule>| [&rule.from, &rule.to].into_iter().any(|side| side.app() == Some(name));
    if let Some(rule) = next.rules.iter().find(names) {
        return Err(ChangeError::InUse(match &rule.policy {
            Some(policy) => format!("app {name} is named by rule `{rule}` of policy {policy}: take it out there first"),
            None => format!("app {name} is named by rule `{rule}`: remove it first"),
        }));
    }
    Arc::make_mut(&mut next.apps).remove(name);
    for host in Arc::make_mut(&mut next.hosts).values_mut() {
        host.blocks.remove(name);
    }
    next.reservations.retain(|key, _| key.app != *name);
    Ok(())
}

fn put_endpoint(next: &mut Cluster, endpoint: &Endpoint, me: &HostName, revision: Revision) -> Result<(), ChangeError> {
    let key = &endpoint.key;
    own(&endpoint.host, key, me)?;
    if let Some(old) = next.endpoints.get(key) {
        own(&old.host, key, me)?;
        if old.as_ref() == endpoint {
            return Ok(());
        }
    }
    next.endpoints.insert(key.clone(), Arc::new(endpoint.clone()));
    check::check_endpoint(next, key).map_err(ChangeError::Faults)?;
    keep(next, key, endpoint.addresses, revision);
    Ok(())
}

fn remove_endpoint(
    next: &mut Cluster,
    key: &EndpointKey,
    me: &HostName,
    revision: Revision,
) -> Result<(), ChangeError> {
    let Some(old) = next.endpoints.get(key).cloned() else { return Ok(()) };
    own(&old.host, key, me)?;
    next.endpoints.remove(key);
    keep(next, key, old.addresses, revision);
    Ok(())
}

fn reserve(
    next: &mut Cluster,
    key: &EndpointKey,
    addresses: Addresses,
    me: &HostName,
    revision: Revision,
) -> Result<(), ChangeError> {
    if next.reservations.get(key).is_some_and(|old| old.addresses == addresses) {
        return Ok(());
    }
    if next.endpoints.contains_key(key) {
        return Err(ChangeError::InUse(format!("endpoint {key} is there and has its addresses: detach it first")));
    }
    for addr in addresses.iter() {
        let refuse = |error: crate::model::allocate::AllocateError| {
            ChangeError::Faults(vec![Fault { place: check::Place::Endpoint(key.clone()), what: error.to_string() }])
        };
        allocate(next, me, key, Some(addr)).map_err(refuse)?;
    }
    keep(next, key, addresses, revision);
    Ok(())
}

/// Keeps addresses for a name; another name that is away loses those that it had of them.
fn keep(next: &mut Cluster, key: &EndpointKey, addresses: Addresses, used: Revision) {
    for (_, kept) in next.reservations.iter_mut().filter(|(other, _)| *other != key) {
        kept.addresses = kept.addresses.iter().filter(|addr| !addresses.contains(*addr)).collect();
    }
    next.reservations.retain(|_, kept| !kept.addresses.is_empty());
    next.reservations.insert(key.clone(), Reservation { addresses, used });
}

/// Each host writes its own endpoints, and no other's.
fn own(host: &HostName, key: &EndpointKey, me: &HostName) -> Result<(), ChangeError> {
    if host == me { Ok(()) } else { Err(ChangeError::InUse(format!("endpoint {key} is on host {host}: ask there"))) }
}

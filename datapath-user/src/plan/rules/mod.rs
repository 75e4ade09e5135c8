//! The policy compiler: rules and defaults become the tables that [`weft_common::policy::decide`] reads.
//!
//! # What rules mean
//!
//! A packet passes when the rules of its source let it out and the rules of its destination let it in.
//! - A rule `X -> Y` is one of the egress rules of every subject that `X` matches, about peers `Y`, and one of
//!   the ingress rules of every subject that `Y` matches, about peers `X`; `on ingress` or `on egress` it is only the one.
//! - A prefix matches peers by their address, whoever has it; it matches no subject, because an address does not
//!   say who somebody is. So `shop -> 10.2.0.9/32` lets shop out, and whether blog, whose address it is, lets it
//!   in is for blog's own rules to say.
//! - Labels select roles: the endpoints of a role have the same labels. A named port is the port that the receiving
//!   role has under that name; who has none, and a prefix, has no such port.
//! - Of the rules that match, the greatest rank wins: precedence, then reject over deny over allow over pass. Where none
//!   matches the default holds. Of equal ranks, the one reported is the one that names the peer most closely
//!   (role, app, `any`, longer prefix, in this order), then the subject, then the traffic, then the first.
//! - A pass in the upper tier hands the question to the rules below that tier, one below 0 to the defaults.
//! - A rule that has ended says nothing. It still has its number and its name.
//! - Defaults: who may come in is the receiving app's to say (`inside`, `from_apps`, `from_host`; from outside
//!   nobody), who may go out to the outside and to the hosts is the sending app's (`to_outside`); towards
//!   endpoints it is open. Hosts and the outside have no defaults of their own: they are open.
//! - [`weft_common::id::RoleId::UNKNOWN`] is an endpoint that may have any role of its app. A rule about some roles says of it that it
//!   may pass, whatever it says of them, but for a deny, which says nothing of it: the host that has the endpoint
//!   decides with the role, and answers what is to be rejected.
//!
//! What is neither IP nor ARP no rule can speak of. It passes inside an app that is open inside
//! ([`RuleSet::FRAMES_INSIDE`]) when no rule speaks of that inside at all, and nowhere else. Rules that end, which only
//! ever allow, do not count there.
//!
//! - A rule or an app in shadow is only tried: what is in force is what there would be without the rule, and with the
//!   app open to everyone. While any are, each subject has a second set, under [`SetKey::SHADOW`], with all of them.
//!
//! # How
//!
//! What a rule matches is a number of classes: an app with a role, with any, every app, the hosts, the outside. Lists
//! hold the rules of a subject about one class; defaults are flags of a set. Equal lists are one list, equal sets one
//! set; see [`super::ids`] for their numbers.
//!
//! A subject with rules that end has a set for each stretch of time, the next without those that have ended by then:
//! every set is whole, and how rules beat each other is settled here and not in the programs. There is room for
//! [`RuleSet::STAGES`] of them. What would end later than all those but the last ends with them, unless a daemon makes
//! another plan in time, as it does at every end.
//!
//! A policy knows what it was made by way of (`work`), so the next one is made of what is other: the rules that come
//! and go say whose sets they are in, and only these are made again. It is the one way: a policy that is made anew
//! follows one without rules.

mod classes;
mod draft;
pub mod list;
mod making;
mod places;
mod prefixes;
pub mod set;
mod tables;
mod work;

use std::{collections::BTreeMap, sync::Arc};

use weft_common::{
    id::Identity,
    policy::{Direction, PeerKey, PrefixKey, Rule, RuleKey, RuleSet, SetKey},
};

use crate::{
    model::{app::App, cluster::Cluster, name::AppName, rule, time::Until, traffic::Region},
    shared::{Shared, Spread},
};

use super::{facts::Clock, ids::PolicyIds};
use making::Making;
use work::Work;

/// The tables of policy, and what they were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Table SETS for slot 0, with [`SetKey::SHADOW`] where rules are tried; slot 1 has the same.
    pub sets: Shared<SetKey, RuleSet>,
    /// Table PEER_LISTS.
    pub peer_lists: Shared<PeerKey, u32>,
    /// Table PREFIX_LISTS, with the bits of the key that count.
    pub prefix_lists: Shared<(u32, PrefixKey), u32>,
    /// Table RULES, with the bits of the key that count.
    pub rules: Shared<(u32, RuleKey), Rule>,
    /// What the numbers of rules mean.
    pub names: Shared<u32, Arc<rule::Rule>>,
    /// What it is a function of, beside the numbers before. Tables that were read back do not know.
    pub made_of: Option<MadeOf>,
    work: Work,
}

/// Tables as they were read.
pub struct Read {
    /// As [`Policy::sets`].
    pub sets: Shared<SetKey, RuleSet>,
    /// As [`Policy::peer_lists`].
    pub peer_lists: BTreeMap<PeerKey, u32>,
    /// As [`Policy::prefix_lists`].
    pub prefix_lists: BTreeMap<(u32, PrefixKey), u32>,
    /// As [`Policy::rules`].
    pub rules: BTreeMap<(u32, RuleKey), Rule>,
}

/// The part of a cluster that policy depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeOf {
    pub(super) apps: Arc<BTreeMap<AppName, App>>,
    pub(super) rules: Arc<Vec<Arc<rule::Rule>>>,
    pub(super) ends: Ends,
}

/// What [`Clock`] shows when rules end, of those that have not ended.
type Ends = BTreeMap<Until, u64>;

/// What the clock shows at an end that is to come. Without a clock none is.
fn end(clock: Option<Clock>, until: Until) -> Option<u64> {
    clock.map(|clock| (clock.at(until), clock.now)).filter(|(end, now)| end > now).map(|(end, _)| end)
}

/// The tables of a cluster's policy and the numbers they have, which follow those of another. `clock` says which
/// rules have ended; without one all that end have.
pub(super) fn compile(
    cluster: &Cluster,
    clock: Option<Clock>,
    (before, ids): (&Policy, &PolicyIds),
) -> (Policy, PolicyIds) {
    Making::after(cluster, clock, before, ids).unwrap_or_else(|| Making::anew(cluster, clock, ids))
}

impl Policy {
    /// Of a cluster alone, without the rules that end.
    #[cfg(test)]
    pub(super) fn of(cluster: &Cluster) -> Self {
        compile(cluster, None, (&Self::default(), &PolicyIds::default())).0
    }

    /// What was read back from tables, which do not know what they were made of: as this says.
    #[must_use]
    pub fn with_tables_of(&self, Read { sets, peer_lists, prefix_lists, rules }: Read) -> Self {
        let (peer_lists, prefix_lists, rules) = (peer_lists.into(), prefix_lists.into(), rules.into());
        let (names, made_of) = (self.names.clone(), self.made_of.clone());
        Self { sets, peer_lists, prefix_lists, rules, names, made_of, work: Work::default() }
    }

    /// Whether there are sets for rules that are tried.
    pub(super) fn is_tried(&self) -> bool {
        // Then every subject has one.
        self.sets.contains_key(&SetKey::new(Identity::HOST, Direction::Egress, SetKey::SHADOW))
    }

    /// Whether the rules and apps it was made of are those of `cluster`. Equal parts of two clusters are mostly
    /// the same part, which `Arc` sees at once.
    pub fn is_of(&self, cluster: &Cluster) -> bool {
        self.made_of.as_ref().is_some_and(|of| of.apps == cluster.apps && of.rules == cluster.rules)
    }

    /// Whether its rules end when they do by this clock.
    pub(super) fn ends_by(&self, clock: Clock) -> bool {
        self.made_of.as_ref().is_some_and(|of| of.ends == self.work.ends(Some(clock)))
    }

    /// What [`Clock`] shows when the next rule ends after `now`.
    pub fn next_end(&self, now: u64) -> Option<u64> {
        self.made_of.iter().flat_map(|of| of.ends.values()).copied().filter(|end| *end > now).min()
    }
}

/// The sets of an app are together.
impl Spread for SetKey {
    fn hash(&self) -> u64 {
        self.app.0.into()
    }
}

/// How many protocols and ports a rule speaks of.
fn width(regions: Option<&[Region]>) -> u64 {
    let ports = |region: &Region| u64::from(*region.ports.end()) - u64::from(*region.ports.start()) + 1;
    regions.map_or(u64::MAX, |regions| regions.iter().map(ports).sum())
}

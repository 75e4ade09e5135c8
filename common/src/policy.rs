//! Decides which packets may pass. The one place that does: the programs, the slow path, `weft why`
//! and the tests call [`decide`].
//!
//! A packet passes when the rule set of its source lets it out and the rule set of its destination lets
//! it in. A rule set is what the compiler made of all rules about one identity and direction; identities
//! with the same rules share one. Invariant: what has no entry is denied.

use crate::addr::Ip;
use crate::id::{AppId, Epoch, Identity, RoleId};
use crate::verdict::DropReason;

crate::wire! {
    /// Whose rule set, and for which direction.
    pub struct SetKey {
        /// The subject's app.
        pub app: AppId,
        /// The subject's role.
        pub role: RoleId,
        /// [`Direction`].
        pub direction: u8,
        /// [`Epoch::slot`].
        pub slot: u8,
    }

    /// What a subject's rules come to when no rule says otherwise, and where to find those that do.
    pub struct RuleSet {
        /// Names the lists of this set. Content never changes under a number that is in use.
        pub id: u32,
        /// [`Self::HAS_RULES`] and [`Self::HAS_PREFIXES`]: which look-ups can find something. [`Self::OPEN_INSIDE`].
        pub flags: u32,
        /// [`Action`] when nothing matches.
        pub default: Rank,
    }

    /// The rules of a set that speak of one class of peers.
    pub struct PeerKey {
        /// [`RuleSet::id`].
        pub set: u32,
        /// The peer's app, or [`AppId::ANY`].
        pub app: AppId,
        /// The peer's role, or [`RoleId::ANY`].
        pub role: RoleId,
        /// Zero.
        pub reserved: u16,
    }

    /// The rules of a set that speak of a prefix. Searched by longest prefix.
    pub struct PrefixKey {
        /// [`RuleSet::id`].
        pub set: u32,
        /// The peer's address.
        pub addr: Ip,
    }

    /// Where in a list. Searched by longest prefix: list, then protocol, then the port's leading bits.
    pub struct RuleKey {
        /// Number of the list.
        pub list: u32,
        /// Transport protocol.
        pub protocol: u8,
        /// Port in network order, so that a prefix of it is a range.
        pub port: [u8; 2],
        /// Zero.
        pub reserved: u8,
    }

    /// The rule that won this place in its list when the list was compiled.
    pub struct Rule {
        /// Precedence and action in one number: the greatest of several wins.
        pub rank: Rank,
        /// Which rule it is: index of its counters. 0 is a default.
        pub id: u32,
    }
}

/// Precedence in the upper bits, [`Action`] in the lowest two: at equal precedence reject beats deny
/// beats allow.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u32);

crate::wire_newtype!(Rank(u32));

/// What a rule does. The numbers are the order at equal precedence; 0 is nothing, which denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// Let it pass.
    Allow = 1,
    /// Drop it in silence.
    Deny = 2,
    /// Drop it and tell the sender.
    Reject = 3,
}

/// As the application sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// To the application.
    Ingress = 0,
    /// From the application.
    Egress = 1,
}

impl RuleSet {
    /// Some peer class has a list.
    pub const HAS_RULES: u32 = 1;
    /// Some prefix has a list.
    pub const HAS_PREFIXES: u32 = 2;
    /// The app is open inside and no rule speaks of its inside: its endpoints may exchange what is not IP.
    pub const OPEN_INSIDE: u32 = 4;
}

impl Rank {
    /// The highest precedence that fits.
    pub const PRECEDENCE_MAX: u32 = u32::MAX >> 2;
    /// No rule at all.
    pub const NONE: Self = Self(0);

    /// `action` at `precedence`, which is at most [`Self::PRECEDENCE_MAX`].
    pub const fn new(precedence: u32, action: Action) -> Self {
        Self((precedence << 2) | action as u32)
    }

    /// The precedence.
    pub const fn precedence(self) -> u32 {
        self.0 >> 2
    }

    /// The action; what is none denies.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self.0 & 3 {
            1 => Action::Allow,
            3 => Action::Reject,
            _ => Action::Deny,
        }
    }
}

impl Action {
    /// The word that the CLI reads and prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
        }
    }
}

/// What is asked: may this pass?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who sends.
    pub src: Identity,
    /// Who receives.
    pub dst: Identity,
    /// Address of the sender.
    pub src_addr: Ip,
    /// Address of the receiver.
    pub dst_addr: Ip,
    /// Transport protocol.
    pub protocol: u8,
    /// Destination port, or ICMP type and code.
    pub port: u16,
}

/// The answer, with what decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Pass, or why not.
    pub verdict: Result<(), DropReason>,
    /// The rule that decided; 0 is the default of `direction`.
    pub rule: u32,
    /// Whose rule set it is in: the source's egress or the destination's ingress.
    pub direction: Direction,
}

/// Where the compiled rules are.
pub trait Rules {
    /// The rule set of a subject.
    fn set(&self, key: &SetKey) -> Option<RuleSet>;
    /// The list of a class of peers.
    fn peer_list(&self, key: &PeerKey) -> Option<u32>;
    /// The list of the longest prefix that holds an address.
    fn prefix_list(&self, key: &PrefixKey) -> Option<u32>;
    /// The rule at a place of a list.
    fn rule(&self, key: &RuleKey) -> Option<Rule>;
}

/// Whether `query` may pass under the rules of `epoch`.
#[inline(always)]
pub fn decide<R: Rules>(rules: &R, epoch: Epoch, query: &Query) -> Decision {
    let out = one_way(rules, epoch, query, Direction::Egress);
    if out.verdict.is_err() {
        return out;
    }
    let into = one_way(rules, epoch, query, Direction::Ingress);
    // The receiver's rule is the one that was written for this traffic; a default says less than a rule.
    if into.verdict.is_ok() && into.rule == 0 { out } else { into }
}

// Not inlined: the kernel's 512 bytes of stack have no room for it twice in one frame.
#[inline(never)]
fn one_way<R: Rules>(rules: &R, epoch: Epoch, query: &Query, direction: Direction) -> Decision {
    let (subject, peer, peer_addr) = match direction {
        Direction::Egress => (query.src, query.dst, query.dst_addr),
        Direction::Ingress => (query.dst, query.src, query.src_addr),
    };
    let key = SetKey { app: subject.app, role: subject.role, direction: direction as u8, slot: epoch.slot() };
    let Some(set) = rules.set(&key) else {
        return Decision { verdict: Err(DropReason::PolicyAbsent), rule: 0, direction };
    };
    let mut best = Rule { rank: set.default, id: 0 };
    if set.flags & RuleSet::HAS_RULES != 0 {
        // From the most to the least specific; at equal rank the first found is the one reported.
        let exact = PeerKey { set: set.id, app: peer.app, role: peer.role, reserved: 0 };
        consider(rules, rules.peer_list(&exact), query, &mut best);
        if peer.app.is_application() {
            consider(rules, rules.peer_list(&PeerKey { role: RoleId::ANY, ..exact }), query, &mut best);
            let any = PeerKey { app: AppId::ANY, role: RoleId::ANY, ..exact };
            consider(rules, rules.peer_list(&any), query, &mut best);
        }
    }
    if set.flags & RuleSet::HAS_PREFIXES != 0 {
        let list = rules.prefix_list(&PrefixKey { set: set.id, addr: peer_addr });
        consider(rules, list, query, &mut best);
    }
    let verdict = match best.rank.action() {
        Action::Allow => Ok(()),
        Action::Reject => Err(DropReason::PolicyRejected),
        Action::Deny if best.id == 0 => Err(DropReason::PolicyDefault),
        Action::Deny => Err(DropReason::PolicyDenied),
    };
    Decision { verdict, rule: best.id, direction }
}

/// Whether the endpoints of `app` may exchange frames that are neither IP nor ARP. No rule can speak of those: where
/// rules speak of an app's inside at all, they are not to be gone around.
#[inline(always)]
pub fn decide_frame<R: Rules>(rules: &R, epoch: Epoch, app: AppId) -> Result<(), DropReason> {
    let key = SetKey { app, role: RoleId::NONE, direction: Direction::Ingress as u8, slot: epoch.slot() };
    match rules.set(&key) {
        None => Err(DropReason::PolicyAbsent),
        Some(set) if set.flags & RuleSet::OPEN_INSIDE == 0 => Err(DropReason::NotIp),
        Some(_) => Ok(()),
    }
}

#[inline(always)]
fn consider<R: Rules>(rules: &R, list: Option<u32>, query: &Query, best: &mut Rule) {
    let Some(list) = list else { return };
    let key = RuleKey { list, protocol: query.protocol, port: query.port.to_be_bytes(), reserved: 0 };
    if let Some(rule) = rules.rule(&key)
        && rule.rank > best.rank
    {
        *best = rule;
    }
}

//! Decides which packets may pass. The one place that does: the programs, the slow path, `weft why`
//! and the tests call [`decide`].
//!
//! A packet passes when the rule set of its source lets it out and the rule set of its destination lets
//! it in. A rule set is what the compiler made of all rules about one identity and direction; identities
//! with the same rules share one. Invariant: what has no entry is denied.
//!
//! The rule of the greatest rank decides. Of those in the upper tier `pass` hands the question on to the rules below
//! it, so each place of a list holds two winners: of all rules, and of those below the upper tier. `pass` below it, or
//! no rule at all, is answered by the set's defaults.
//!
//! Rules can be tried before they are in force (*shadow*): while any are, every subject has a second rule set that holds
//! what would be in force with them, and [`shadow`] says what would have decided otherwise.
//!
//! Rules can end. A set with some that do says until when it holds; behind it, as the next stage, is the set without
//! them. So what ends does so by the kernel's own clock, whoever else is alive.

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
        /// [`Epoch::slot`], and [`Self::SHADOW`] for what is tried.
        pub slot: u8,
        /// How many sets hold before it, one after the other.
        pub stage: u32,
    }

    /// What holds for a subject where no rule says otherwise, and where to find those that do.
    pub struct RuleSet {
        /// Names the lists of this set. Content never changes under a number that is in use.
        pub id: u32,
        /// [`Self::HAS_RULES`] and [`Self::HAS_PREFIXES`]: which look-ups can find something. [`Self::FRAMES_INSIDE`].
        /// The defaults: [`Self::OPEN_INSIDE`], [`Self::OPEN_APPS`], [`Self::OPEN_HOST`], [`Self::OPEN_OUTSIDE`].
        pub flags: u32,
        /// When the next stage takes its place, in nanoseconds of [`Rules::now`]. 0: never.
        pub until: u64,
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

    /// The rules that won this place in their list when the list was compiled.
    pub struct Rule {
        /// Of all rules.
        pub top: Winner,
        /// Of those below the upper tier; the same as `top` if that is one of them.
        pub under: Winner,
    }

    /// A rule that decides.
    pub struct Winner {
        /// Precedence and action in one number: the greatest of several wins.
        pub rank: Rank,
        /// Which rule it is. 0 is none: a default decides.
        pub id: u32,
    }
}

/// Precedence in the upper bits, [`Action`] in the lowest three: at equal precedence reject beats deny
/// beats allow beats pass.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u32);

crate::wire_newtype!(Rank(u32));

/// What a rule does. The numbers are the order at equal precedence; 0 is nothing, which denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// End the tier: the rules below it decide, or the defaults.
    Pass = 1,
    /// Let it pass.
    Allow = 2,
    /// Drop it in silence.
    Deny = 3,
    /// Drop it and tell the sender.
    Reject = 4,
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

impl SetKey {
    /// The set is what would be in force with the rules that are tried.
    pub const SHADOW: u8 = 2;

    /// The first stage of a subject's sets for a direction.
    #[inline(always)]
    pub const fn new(subject: Identity, direction: Direction, slot: u8) -> Self {
        let Identity { app, role, reserved: _ } = subject;
        Self { app, role, direction: direction as u8, slot, stage: 0 }
    }
}

impl RuleSet {
    /// Most stages that a subject can have.
    pub const STAGES: u32 = 16;
    /// Some peer class has a list.
    pub const HAS_RULES: u32 = 1;
    /// Some prefix has a list.
    pub const HAS_PREFIXES: u32 = 2;
    /// The app is open inside and no rule speaks of its inside: its endpoints may exchange what is not IP.
    pub const FRAMES_INSIDE: u32 = 4;
    /// Open to and from the subject's own app.
    pub const OPEN_INSIDE: u32 = 8;
    /// Open to and from other apps.
    pub const OPEN_APPS: u32 = 16;
    /// Open to and from the hosts.
    pub const OPEN_HOST: u32 = 32;
    /// Open to and from the outside.
    pub const OPEN_OUTSIDE: u32 = 64;
    /// Open to and from everyone.
    pub const OPEN: u32 = Self::OPEN_INSIDE | Self::OPEN_APPS | Self::OPEN_HOST | Self::OPEN_OUTSIDE;

    /// Whether `peer` passes where no rule of `subject` speaks: 1 or 0.
    #[inline(always)]
    pub const fn open(&self, subject: AppId, peer: AppId) -> u32 {
        let bit = match peer {
            AppId::HOST => Self::OPEN_HOST.trailing_zeros(),
            AppId::OUTSIDE => Self::OPEN_OUTSIDE.trailing_zeros(),
            other if !other.is_application() => return 0,
            other if other.0 == subject.0 => Self::OPEN_INSIDE.trailing_zeros(),
            _ => Self::OPEN_APPS.trailing_zeros(),
        };
        self.flags >> bit & 1
    }
}

impl Rank {
    /// The lowest precedence that fits.
    pub const PRECEDENCE_MIN: i32 = -(1 << 28);
    /// The highest.
    pub const PRECEDENCE_MAX: i32 = (1 << 28) - 1;
    /// The precedence at which the upper tier starts.
    pub const UPPER: i32 = 1 << 24;
    /// No rule at all.
    pub const NONE: Self = Self(0);

    /// `action` at `precedence`, which is between [`Self::PRECEDENCE_MIN`] and [`Self::PRECEDENCE_MAX`].
    pub const fn new(precedence: i32, action: Action) -> Self {
        Self((precedence.wrapping_sub(Self::PRECEDENCE_MIN).cast_unsigned() << 3) | action as u32)
    }

    /// The precedence.
    pub const fn precedence(self) -> i32 {
        (self.0 >> 3).cast_signed() + Self::PRECEDENCE_MIN
    }

    /// The action; what is none denies.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self.0 & 7 {
            1 => Action::Pass,
            2 => Action::Allow,
            4 => Action::Reject,
            _ => Action::Deny,
        }
    }

    /// Whether it is of the upper tier.
    #[inline(always)]
    pub const fn is_upper(self) -> bool {
        self.0 >= Self::new(Self::UPPER, Action::Pass).0
    }
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Allow, Self::Deny, Self::Reject];

    /// The word that the CLI reads and prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
        }
    }
}

impl Direction {
    /// The word that the CLI reads and prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
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
    /// When it has to be asked again, in nanoseconds of [`Rules::now`]: a rule ends that may have decided. 0: never.
    pub until: u64,
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
    /// Nanoseconds since the host was booted, those included that it slept. Asked where rules end, and nowhere else.
    fn now(&self) -> u64;
}

/// Whether `query` may pass under the rules of `epoch`.
#[inline(always)]
pub fn decide<R: Rules>(rules: &R, epoch: Epoch, query: &Query) -> Decision {
    judge(rules, epoch, query).decision()
}

/// As [`decide`], in a form that costs the verifier less: it would follow each reason on its own.
#[inline(always)]
pub fn judge<R: Rules>(rules: &R, epoch: Epoch, query: &Query) -> Ruling {
    both_ways(rules, epoch.slot(), query)
}

/// What would have decided otherwise on `query` if the rules that are tried were in force: the number of a rule, or
/// [`BY_DEFAULT`]. 0: nothing, it `passes` (1) or does not (0) all the same. Beside it is until when that holds, as
/// [`Decision::until`].
#[inline(always)]
pub fn shadow<R: Rules>(rules: &R, epoch: Epoch, query: &Query, passes: u64) -> (u32, u64) {
    let tried = both_ways(rules, epoch.slot() | SetKey::SHADOW, query);
    if tried.passes() == passes {
        return (0, tried.until());
    }
    (if tried.rule() == 0 { BY_DEFAULT } else { tried.rule() }, tried.until())
}

/// What [`decide`] would say if the rules that are tried were in force.
pub fn tried<R: Rules>(rules: &R, epoch: Epoch, query: &Query) -> Decision {
    both_ways(rules, epoch.slot() | SetKey::SHADOW, query).decision()
}

/// Stands for a default where the number of a rule that is tried is expected.
pub const BY_DEFAULT: u32 = u32::MAX;

#[inline(always)]
fn both_ways<R: Rules>(rules: &R, slot: u8, query: &Query) -> Ruling {
    let mut until = 0;
    // A receiver whom policy does not know yet is not denied by what is said of all others: it may allow him.
    if rules.set(&SetKey::new(query.dst, Direction::Ingress, slot)).is_none() {
        return Ruling { answer: Answer(Answer::ABSENT), direction: Direction::Ingress, until };
    }
    let out = one_way(rules, slot, query, Direction::Egress, &mut until);
    if out.passes() == 0 {
        return Ruling { answer: out, direction: Direction::Egress, until };
    }
    let into = one_way(rules, slot, query, Direction::Ingress, &mut until);
    // The receiver's rule is the one that was written for this traffic; a default says less than a rule.
    let says_more = into.passes() == 0 || into.rule() != 0;
    if says_more {
        return Ruling { answer: into, direction: Direction::Ingress, until };
    }
    Ruling { answer: out, direction: Direction::Egress, until }
}

/// A [`Decision`] that was not looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct Ruling {
    answer: Answer,
    direction: Direction,
    until: u64,
}

impl Ruling {
    /// 1 if it passes, else 0.
    #[inline(always)]
    pub const fn passes(&self) -> u64 {
        self.answer.passes()
    }

    /// As [`Decision::rule`].
    #[inline(always)]
    pub const fn rule(&self) -> u32 {
        self.answer.rule()
    }

    /// As [`Decision::direction`].
    #[inline(always)]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// As [`Decision::until`].
    #[inline(always)]
    pub const fn until(&self) -> u64 {
        self.until
    }

    /// As [`Decision::verdict`].
    #[inline(always)]
    pub fn verdict(&self) -> Result<(), DropReason> {
        if self.passes() == 1 {
            return Ok(());
        }
        Err(match self.answer.0 & Answer::ACTION {
            Answer::ABSENT => DropReason::PolicyAbsent,
            Answer::DENY => DropReason::PolicyDenied,
            Answer::REJECT => DropReason::PolicyRejected,
            _ => DropReason::PolicyDefault,
        })
    }

    #[inline(always)]
    fn decision(&self) -> Decision {
        Decision { verdict: self.verdict(), rule: self.rule(), direction: self.direction, until: self.until }
    }
}

/// What one direction answers, in one register, which is what a function of a program can return: the rule above, and
/// below the action that won, or none, or [`Self::ABSENT`], and whether the default is open.
#[derive(Clone, Copy, Debug)]
struct Answer(u64);

impl Answer {
    const ACTION: u64 = 7;
    const NONE: u64 = 0;
    const PASS: u64 = Action::Pass as u64;
    const ALLOW: u64 = Action::Allow as u64;
    const DENY: u64 = Action::Deny as u64;
    const REJECT: u64 = Action::Reject as u64;
    /// There is no rule set.
    const ABSENT: u64 = 7;
    /// The default is open.
    const OPEN: u64 = 8;
    /// The lower four bits with which it passes, as bits.
    const PASSING: u64 = 1 << Self::ALLOW
        | 1 << (Self::ALLOW | Self::OPEN)
        | 1 << (Self::NONE | Self::OPEN)
        | 1 << (Self::PASS | Self::OPEN);
    /// The lower four bits with which a rule decided.
    const RULED: u64 =
        !(1 << Self::NONE | 1 << Self::PASS | 1 << (Self::NONE | Self::OPEN) | 1 << (Self::PASS | Self::OPEN));

    /// 1 or 0. No branch: each would be a path of its own to the verifier.
    #[inline(always)]
    const fn passes(self) -> u64 {
        Self::PASSING >> (self.0 & 15) & 1
    }

    /// The rule that decided; 0 is a default.
    #[inline(always)]
    const fn rule(self) -> u32 {
        ((self.0 >> 8) * (Self::RULED >> (self.0 & 15) & 1)) as u32
    }
}

// Not inlined: the kernel's 512 bytes of stack have no room for it twice in one frame.
#[inline(never)]
fn one_way<R: Rules>(rules: &R, slot: u8, query: &Query, direction: Direction, until: &mut u64) -> Answer {
    let (subject, peer, peer_addr) = match direction {
        Direction::Egress => (query.src, query.dst, query.dst_addr),
        Direction::Ingress => (query.dst, query.src, query.src_addr),
    };
    let Some(set) = current(rules, SetKey::new(subject, direction, slot), until) else {
        return Answer(Answer::ABSENT);
    };
    let open = set.open(subject.app, peer.app);
    let mut best = Best { top: 0, under: 0 };
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
    let Winner { rank, id } = best.decides();
    Answer(u64::from(id) << 8 | u64::from(open) << 3 | u64::from(rank.0 & 7))
}

/// The set that holds now. `until` becomes the earlier of itself and the end of that set.
#[inline(always)]
fn current<R: Rules>(rules: &R, mut key: SetKey, until: &mut u64) -> Option<RuleSet> {
    let mut set = rules.set(&key)?;
    if set.until == 0 {
        return Some(set);
    }
    let now = rules.now();
    // A counter of its own, beside the key's: verifiers before 6.8 know nothing of four bytes on the stack, and would
    // find no end of the loop.
    let mut stage = 0_u64;
    while set.until != 0 && set.until <= now {
        stage += 1;
        if stage >= u64::from(RuleSet::STAGES) {
            return None;
        }
        key.stage = stage as u32;
        set = rules.set(&key)?;
    }
    *until = earlier(*until, set.until);
    Some(set)
}

/// The earlier of two ends, of which 0 is none.
#[inline(always)]
pub const fn earlier(one: u64, other: u64) -> u64 {
    // What is none is the last of all as its number less one.
    if one.wrapping_sub(1) < other.wrapping_sub(1) { one } else { other }
}

/// The best of both tiers so far, each as one number with the rank above: registers are few.
struct Best {
    top: u64,
    under: u64,
}

impl Best {
    #[inline(always)]
    const fn better(best: u64, other: Winner) -> u64 {
        if other.rank.0 as u64 > best >> 32 { (other.rank.0 as u64) << 32 | other.id as u64 } else { best }
    }

    /// The rule that decides.
    #[inline(always)]
    fn decides(&self) -> Winner {
        let top = Rank((self.top >> 32) as u32);
        let ends_tier = top.is_upper() && top.action() == Action::Pass;
        let winner = if ends_tier { self.under } else { self.top };
        Winner { rank: Rank((winner >> 32) as u32), id: winner as u32 }
    }
}

/// Whether the endpoints of `app` may exchange frames that are neither IP nor ARP. No rule can speak of those: where
/// rules speak of an app's inside at all, they are not to be gone around.
#[inline(always)]
pub fn decide_frame<R: Rules>(rules: &R, epoch: Epoch, app: AppId) -> Result<(), DropReason> {
    // Of all stages the same is said.
    let key = SetKey::new(Identity::new(app, RoleId::NONE), Direction::Ingress, epoch.slot());
    match rules.set(&key) {
        None => Err(DropReason::PolicyAbsent),
        Some(set) if set.flags & RuleSet::FRAMES_INSIDE == 0 => Err(DropReason::NotIp),
        Some(_) => Ok(()),
    }
}

#[inline(always)]
fn consider<R: Rules>(rules: &R, list: Option<u32>, query: &Query, best: &mut Best) {
    let Some(list) = list else { return };
    let key = RuleKey { list, protocol: query.protocol, port: query.port.to_be_bytes(), reserved: 0 };
    let Some(rule) = rules.rule(&key) else { return };
    best.top = Best::better(best.top, rule.top);
    best.under = Best::better(best.under, rule.under);
}

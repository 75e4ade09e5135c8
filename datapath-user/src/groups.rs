//! Who wants which multicast group, as long as he says so.
//!
//! The programs note what containers say by IGMP and MLD, and tell the app's other hosts. Who crashes, or is cut off, says
//! nothing any more: so the daemon asks, as a router does (RFC 3376, RFC 3810), those that want something, and forgets who
//! did not answer for twice the time and one answer's. Any stack answers, whatever runs in the container. What nobody here
//! wants any more the app's other hosts are told by a leave.
//!
//! Only who asks forgets: of peers' wishes their own daemons take care. So nobody's traffic stops because a daemon does.
//!
//! Pure: the table and the time go in, what is to be done comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_common::{
    addr::{Ip, Mac},
    checksum::Sum,
    group::{GroupKey, MemberKey},
    header::{Ether, as_bytes, protocol},
    id::{AppId, Identity, PeerId, RoleId},
    route::{Hop, HopKind},
};

use crate::plan::NodePlan;
use crate::slowpath::{Command, into_tunnel};

/// How often a router asks (RFC 3376 §8.2).
pub const EVERY: Duration = Duration::from_secs(125);

/// How often a leave is said: one may be lost.
const REPEATS: u32 = 2;

/// The state of the questions.
#[derive(Debug)]
pub struct Groups {
    every: Duration,
    /// When it looked first: nobody was asked before.
    began: Option<u64>,
    asked: Option<u64>,
    /// What nobody here wants any more, and how often that is still to be said.
    leaving: BTreeMap<(AppId, Ip), u32>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask an endpoint, or tell a peer.
    Send(Command),
    /// Take this wish off table GROUPS, if nobody has said it anew since.
    Forget {
        /// Whose, and for what.
        key: GroupKey,
        /// When it was said last.
        said: u64,
    },
}

impl Groups {
    /// Asks this often, and forgets accordingly.
    pub const fn new(every: Duration) -> Self {
        Self { every, began: None, asked: None, leaving: BTreeMap::new() }
    }

    /// Looks at what table GROUPS holds at `now`, in nanoseconds of the monotonic clock.
    pub fn look(&mut self, plan: &NodePlan, wishes: &BTreeMap<GroupKey, u64>, now: u64) -> Vec<Action> {
        let began = *self.began.get_or_insert(now);
        let life = nanoseconds(self.every * 2 + self.answer_within());
        let mut actions = Vec::new();
        let mut wanted = BTreeSet::new();
        let mut left = BTreeSet::new();
        let mut ask: BTreeMap<u32, [bool; 2]> = BTreeMap::new();
        for (key, said) in wishes {
            let is_here = key.hop.kind() == HopKind::Local;
            let is_silent = is_here && now.saturating_sub(began.max(*said)) > life;
            if is_silent || !is_member(plan, key) {
                actions.push(Action::Forget { key: *key, said: *said });
                left.extend(is_here.then_some((key.app, key.group)));
            } else if is_here {
                wanted.insert((key.app, key.group));
                ask.entry(key.hop.index).or_default()[usize::from(key.group.is_v4())] = true;
            }
        }
        self.leaving.extend(left.into_iter().map(|what| (what, REPEATS)));
        self.leaving.retain(|what, _| !wanted.contains(what));
        for ((app, group), times) in &mut self.leaving {
            *times -= 1;
            actions.extend(leave(plan, *app, *group).into_iter().map(Action::Send));
        }
        self.leaving.retain(|_, times| *times > 0);
        if self.asked.is_none_or(|at| now.saturating_sub(at) >= nanoseconds(self.every)) {
            self.asked = Some(now);
            let within = self.answer_within();
            for (link, [v6, v4]) in ask {
                let frames = [v6.then(|| query6(within)), v4.then(|| query4(within))];
                let sent = frames.into_iter().flatten().map(|frame| Command::Deliver { link, frame });
                actions.extend(sent.map(Action::Send));
            }
        }
        actions
    }

    /// How long those who are asked may take to answer: ten seconds where the rest is as usual.
    fn answer_within(&self) -> Duration {
        (self.every * 10 / 125).max(Duration::from_millis(100)).min(Duration::from_secs(10))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether whoever has a wish is one of those that get copies in its app.
fn is_member(plan: &NodePlan, key: &GroupKey) -> bool {
    members(plan, key.app).any(|hop| hop == key.hop)
}

fn members(plan: &NodePlan, app: AppId) -> impl Iterator<Item = Hop> {
    let range = MemberKey { app, index: 0 }..=MemberKey { app, index: u32::MAX };
    plan.members.range(range).map(|(_, member)| member.hop)
}

/// Tells the app's other hosts that nobody here wants a group any more. Over IPv4 it comes from the block that this host
/// has of the app, which no endpoint has to be in any more.
fn leave(plan: &NodePlan, app: AppId, group: Ip) -> Vec<Command> {
    let own = plan.masquerade.iter().map(|block| block.key().1);
    let frame = if group.is_v4() {
        let body = [&[0x17, 0, 0, 0][..], &group.v4()].concat();
        let Some(src) = own.filter(|addr| addr.is_v4()).find(|addr| plan.route(*addr).identity.app == app) else {
            return Vec::new();
        };
        igmp(src, [224, 0, 0, 2], body)
    } else {
        let body = [&[132, 0, 0, 0, 0, 0, 0, 0][..], &group.bytes()].concat();
        mld(ALL_ROUTERS, body)
    };
    let identity = Identity::new(app, RoleId::UNKNOWN);
    let peers = members(plan, app).filter(|hop| hop.kind() == HopKind::Peer);
    peers.filter_map(|hop| into_tunnel(plan, PeerId(hop.index), identity, &frame, (0, group.0[3]))).collect()
}

/// A general query (RFC 3376 §4.1). It comes from nobody, as of one who only listens (RFC 4541 §2.1.1).
fn query4(within: Duration) -> Vec<u8> {
    let tenths = u8::try_from(within.as_millis() / 100).unwrap_or(127).clamp(1, 127);
    igmp(Ip::from_v4([0; 4]), [224, 0, 0, 1], vec![0x11, tenths, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0])
}

/// A general query (RFC 3810 §5.1).
fn query6(within: Duration) -> Vec<u8> {
    let milliseconds = u16::try_from(within.as_millis()).unwrap_or(0x7fff).clamp(1, 0x7fff).to_be_bytes();
    let mut body = vec![130, 0, 0, 0, milliseconds[0], milliseconds[1], 0, 0];
    body.extend([0; 16]);
    body.extend([2, 125, 0, 0]);
    mld(ALL_NODES, body)
}

const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ALL_ROUTERS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// Whom the gateway is on the link: no container's routes lead there.
const ON_LINK: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, b'w', b'e', b'f', b't', 0, 1];

/// A message about groups with its headers (RFC 3376 §4): for the link alone, with the router alert option.
fn igmp(src: Ip, dst: [u8; 4], mut body: Vec<u8>) -> Vec<u8> {
    let check = Sum::default().add_bytes(&body).field();
    body[2..4].copy_from_slice(&check);
    let total = u16::try_from(24 + body.len()).unwrap_or_default().to_be_bytes();
    let mut header = vec![0x46, 0xc0, total[0], total[1], 0, 0, 0x40, 0, 1, protocol::IGMP, 0, 0];
    header.extend(src.v4());
    header.extend(dst);
    header.extend([0x94, 4, 0, 0]);
    let check = Sum::default().add_bytes(&header).field();
    header[10..12].copy_from_slice(&check);
    let ether = Ether { dst: [1, 0, 0x5e, 0, 0, dst[3]], src: Mac::GATEWAY.bytes(), ethertype: Ether::IPV4 };
    [as_bytes(&ether), &header, &body].concat()
}

/// As [`igmp`], over IPv6 (RFC 3810 §5).
fn mld(dst: [u8; 16], mut body: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or_default();
    let pseudo = Sum::pseudo(&Ip::from_v6(ON_LINK), &Ip::from_v6(dst), protocol::ICMPV6, length.into());
    let check = pseudo.add_bytes(&body).field();
    body[2..4].copy_from_slice(&check);
    let payload = (length + 8).to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, payload[0], payload[1], 0, 1];
    header.extend(ON_LINK);
    header.extend(dst);
    // Hop-by-hop: router alert, and padding.
    header.extend([protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    let ether = Ether { dst: [0x33, 0x33, 0, 0, 0, dst[15]], src: Mac::GATEWAY.bytes(), ethertype: Ether::IPV6 };
    [as_bytes(&ether), &header, &body].concat()
}

#[cfg(test)]
mod tests;

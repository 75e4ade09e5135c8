//! What is in the tables, in words: addresses, apps and roles, ports, hosts and interfaces in the place of numbers.

#![expect(clippy::unused_self, clippy::trivially_copy_pass_by_ref, reason = "one form for the words of every record")]

use std::net::IpAddr;

use weft_common::{
    addr::{Ip, Mac},
    event::sample::Bucket,
    flow::{Flow, FlowKey, State},
    fragment::{Datagram, DatagramKey},
    group::{GroupKey, Member, MemberKey},
    header::protocol,
    id::{AppId, Identity, PeerId, RoleId},
    policy::{Direction, PeerKey, PrefixKey, Rank, Rule, RuleKey, RuleSet, SetKey, Winner},
    route::{Endpoint, Hop, HopKind, Route},
    table::{Account, Config, Counts},
    tunnel::Peer,
    verdict::DropReason,
};

use crate::kernel::{config, link};
use crate::model::traffic::protocol_name;

use super::naming::Names;

impl Names<'_> {
    pub(super) fn config(&self, value: &Config) -> String {
        let Config { epoch, gateway, port, shadow } = value;
        let tried = if *shadow == 0 { "" } else { ", rules are tried" };
        format!("epoch {}, gateway {}, udp port {port}{tried}", epoch.0, self.link(gateway))
    }

    /// An interface.
    pub(super) fn link(&self, key: &u32) -> String {
        link::name_of(*key).map_or_else(|| format!("link #{key}"), |name| format!("link {name}"))
    }

    pub(super) fn endpoint(&self, value: &Endpoint) -> String {
        let Endpoint { v4, v6, identity, mac, reserved: _ } = *value;
        let addresses = [v4, v6].into_iter().filter(|addr| *addr != Ip::NONE).map(|addr| addr.to_string());
        let addresses: Vec<_> = addresses.collect();
        format!("{} {} {mac}", self.who(identity), addresses.join(" "))
    }

    pub(super) fn route(&self, value: &Route) -> String {
        let Route { hop, identity, mac, reserved: _ } = *value;
        let mac = if mac == Mac::default() { String::new() } else { format!(" {mac}") };
        format!("{} {}{mac}", self.place(hop), self.who(identity))
    }

    pub(super) fn peer_number(&self, key: &u32) -> String {
        format!("peer {} (#{key})", self.peer(PeerId(*key)))
    }

    pub(super) fn peer_id(&self, value: &PeerId) -> String {
        self.peer_number(&value.0)
    }

    pub(super) fn peer_record(&self, value: &Peer) -> String {
        let Peer { addr, local, next_hop, uplink, path_mtu, flags, reserved: _ } = value;
        let encrypted = if flags & Peer::ENCRYPTED != 0 { ", encrypted" } else { "" };
        format!("{addr} from {local}, next hop {next_hop} by {}, path mtu {path_mtu}{encrypted}", self.link(uplink))
    }

    pub(super) fn member_key(&self, key: &MemberKey) -> String {
        format!("{} member {}", self.app_name(key.app), key.index)
    }

    pub(super) fn member(&self, value: &Member) -> String {
        format!("{} {}", self.place(value.hop), self.who(value.identity))
    }

    pub(super) fn set_key(&self, key: &SetKey) -> String {
        let SetKey { app, role, direction, slot, stage } = *key;
        let direction = if direction == Direction::Egress as u8 { "egress" } else { "ingress" };
        let tried = if slot & SetKey::SHADOW != 0 { ", with what is tried" } else { "" };
        let stage = if stage == 0 { String::new() } else { format!(", stage {stage}") };
        let slot = slot & !SetKey::SHADOW;
        format!("{direction} of {} (slot {slot}{stage}{tried})", self.who(Identity::new(app, role)))
    }

    pub(super) fn set(&self, value: &RuleSet) -> String {
        let RuleSet { id, flags, until } = *value;
        let named = |names: &[(u32, &'static str)]| {
            let there = names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name);
            there.collect::<Vec<_>>()
        };
        let open = named(&[
            (RuleSet::OPEN_INSIDE, "own app"),
            (RuleSet::OPEN_APPS, "other apps"),
            (RuleSet::OPEN_HOST, "hosts"),
            (RuleSet::OPEN_OUTSIDE, "outside"),
        ]);
        let open = if open.is_empty() { "closed".to_owned() } else { format!("open to {}", open.join("+")) };
        let has =
            [(RuleSet::HAS_RULES, "rules"), (RuleSet::HAS_PREFIXES, "prefixes"), (RuleSet::FRAMES_INSIDE, "frames")];
        let has = [vec![format!("set #{id}, {open} by default")], named(&has).into_iter().map(str::to_owned).collect()];
        let end = (until != 0).then(|| format!("until {}s after the boot", until / 1_000_000_000));
        has.concat().into_iter().chain(end).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn peer_key(&self, key: &PeerKey) -> String {
        format!("set #{} about {}", key.set, self.who(Identity::new(key.app, key.role)))
    }

    pub(super) fn prefix_key(&self, (len, key): &(u32, PrefixKey)) -> String {
        format!("set #{} about {}", key.set, prefix(len.saturating_sub(u32::BITS), key.addr))
    }

    pub(super) fn list(&self, value: &u32) -> String {
        format!("list #{value}")
    }

    pub(super) fn rule_key(&self, (len, key): &(u32, RuleKey)) -> String {
        format!("list #{} {}", key.list, traffic(len.saturating_sub(u32::BITS), key.protocol, key.port))
    }

    pub(super) fn rule_value(&self, value: &Rule) -> String {
        let Rule { top, under } = *value;
        let winner = |Winner { rank, id }: Winner| {
            if rank == Rank::NONE {
                return "the default".to_owned();
            }
            let action = rank.action().name();
            match self.rule(id) {
                Some(rule) => format!("{action} at {}: {} (#{id})", rank.precedence(), rule.text),
                None => format!("{action} at {}: rule #{id}, which is not known", rank.precedence()),
            }
        };
        if top == under { winner(top) } else { format!("{}; below the upper tier {}", winner(top), winner(under)) }
    }

    pub(super) fn flow_key(&self, key: &FlowKey) -> String {
        let FlowKey { addr: [a, b], port: [from, to], protocol, reserved: _ } = *key;
        format!("{} {} {}", protocol_name(protocol), socket(a, from), socket(b, to))
    }

    pub(super) fn flow(&self, value: &Flow) -> String {
        let (from, to) = (value.opener(), value.opener().other());
        let side = |leg: weft_common::flow::Leg| {
            let side = &value.side[leg.index()];
            format!("{} {}", self.place(side.hop), self.who(side.identity))
        };
        let rule = self.rule(value.rule).map_or_else(|| "a default".to_owned(), |rule| rule.text);
        let state = State::from_raw(value.state).name();
        format!("{state}, {} -> {}, by {rule}, epoch {}", side(from), side(to), value.epoch.0)
    }

    pub(super) fn datagram_key(&self, key: &DatagramKey) -> String {
        let DatagramKey { src, dst, id, protocol, reserved: _ } = *key;
        format!("{} {src} -> {dst} id {id}", protocol_name(protocol))
    }

    pub(super) fn datagram(&self, value: &Datagram) -> String {
        let Datagram { seen, first_end, src_port, dst_port } = *value;
        let age = age(seen);
        if first_end == Datagram::POISONED {
            return format!("refused, {age}");
        }
        format!("ports {src_port} -> {dst_port}, first {first_end} bytes, {age}")
    }

    pub(super) fn group_key(&self, key: &GroupKey) -> String {
        format!("{} in {} for {}", key.group, self.app_name(key.app), self.place(key.hop))
    }

    pub(super) fn wish(&self, value: &u64) -> String {
        format!("asked for {}", age(*value))
    }

    pub(super) fn reason(&self, key: &u32) -> String {
        let reason = usize::try_from(*key).ok().and_then(DropReason::from_index);
        reason.map_or_else(|| format!("#{key}"), |reason| reason.name().to_owned())
    }

    pub(super) fn packets(&self, value: &u64) -> String {
        format!("{value} packets")
    }

    pub(super) fn account(&self, key: &Account) -> String {
        let Account { src, dst, rule, shadow: _ } = *key;
        let by = match rule {
            0 => "a default".to_owned(),
            Account::NO_RULE => "no rule".to_owned(),
            Account::PAST => "rules that are gone".to_owned(),
            rule => self.rule(rule).map_or_else(|| format!("rule #{rule}"), |rule| rule.text),
        };
        format!("{} -> {} by {by}", self.app_name(src), self.app_name(dst))
    }

    pub(super) fn counts(&self, value: &Counts) -> String {
        let Counts { packets, bytes, flows, drops, last } = *value;
        format!("{packets} packets, {bytes} bytes, {flows} flows, {drops} drops, {}", age(last))
    }

    pub(super) fn storm_key(&self, key: &u32) -> String {
        format!("links whose number is {key} modulo {}", <weft_common::table::Storms as weft_common::table::Table>::MAX)
    }

    pub(super) fn bucket(&self, value: &Bucket) -> String {
        format!("{} more may be told at once, {} were not", value.tokens, value.skipped)
    }

    /// An identity, of which every role may be meant, or one that is not known.
    fn who(&self, identity: Identity) -> String {
        let app = self.app_name(identity.app);
        match identity.role {
            RoleId::ANY if identity.app == AppId::ANY => "any app".to_owned(),
            RoleId::ANY => format!("{app}, any role"),
            RoleId::UNKNOWN => format!("{app}, role not known"),
            _ => self.identity(identity),
        }
    }

    fn place(&self, hop: Hop) -> String {
        match hop.kind() {
            HopKind::Local => self.link(&hop.index),
            HopKind::Peer | HopKind::Host | HopKind::Nowhere => self.hop(hop),
        }
    }
}

/// An address and how many of its 128 bits count: of IPv4 those behind the first 96.
pub(super) fn prefix(len: u32, addr: Ip) -> String {
    match addr.to_std() {
        IpAddr::V4(v4) if len >= 96 => format!("{v4}/{}", len - 96),
        IpAddr::V4(_) | IpAddr::V6(_) => format!("{}/{len}", std::net::Ipv6Addr::from_octets(addr.bytes())),
    }
}

fn socket(addr: Ip, port: u16) -> String {
    std::net::SocketAddr::new(addr.to_std(), port).to_string()
}

/// A protocol and ports of which the first `len` bits count; of ICMP type and code.
fn traffic(len: u32, number: u8, port: [u8; 2]) -> String {
    let bits = len.saturating_sub(8).min(u16::BITS);
    let mask = u16::MAX.checked_shl(u16::BITS - bits).unwrap_or(0);
    let first = u16::from_be_bytes(port) & mask;
    let name = protocol_name(number);
    match (len, number, bits) {
        (0..8, _, _) => "any".to_owned(),
        (_, _, 0) => name,
        (_, protocol::ICMP | protocol::ICMPV6, 8) => format!("{name}/{}", port[0]),
        (_, protocol::ICMP | protocol::ICMPV6, 16) => format!("{name}/{}/{}", port[0], port[1]),
        (_, _, 16) => format!("{name}/{first}"),
        (_, _, _) => format!("{name}/{first}-{}", first | !mask),
    }
}

/// How long ago something was by the programs' clock.
fn age(then: u64) -> String {
    format!("{} s ago", config::now().saturating_sub(then) / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::example;
    use crate::plan::NodePlan;

    fn ip(text: &str) -> Ip {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn prefixes_have_the_length_of_their_family() {
        let check = |len, addr, expect: &str| assert_eq!(prefix(len, ip(addr)), expect);
        check(128, "10.1.0.7", "10.1.0.7/32");
        check(96, "0.0.0.0", "0.0.0.0/0");
        check(64, "fd00:1::", "fd00:1::/64");
        assert_eq!(prefix(0, Ip::NONE), "::/0");
    }

    #[test]
    fn bits_of_a_port_are_a_range() {
        let check = |len, number, port: u16, expect: &str| assert_eq!(traffic(len, number, port.to_be_bytes()), expect);
        check(0, 0, 0, "any");
        check(8, protocol::TCP, 0, "tcp");
        check(24, protocol::TCP, 5432, "tcp/5432");
        check(20, protocol::UDP, 8000, "udp/8000-8015");
        check(16, protocol::ICMP, 8 << 8, "icmp/8");
        check(24, protocol::ICMPV6, 128 << 8, "icmpv6/128/0");
    }

    #[test]
    fn numbers_become_names() {
        let cluster = example::cluster();
        let plan = NodePlan::default();
        let names = Names { cluster: &cluster, plan: &plan };
        let app = cluster.apps.values().next().unwrap();
        let (role, number) = app.roles.iter().next().unwrap();
        let identity = Identity::new(app.number, number.number);
        let endpoint = Endpoint { v4: ip("10.0.0.1"), identity, mac: Mac::GATEWAY, ..Endpoint::default() };
        assert_eq!(names.endpoint(&endpoint), format!("{}/{role} 10.0.0.1 {}", app.name, Mac::GATEWAY));
        let unknown =
            Route { hop: Hop::NOWHERE, identity: Identity::new(app.number, RoleId::UNKNOWN), ..Route::OUTSIDE };
        assert_eq!(names.route(&unknown), format!("nowhere {}, role not known", app.name));
        assert_eq!(names.link(&1), "link lo");
        let any = PeerKey { set: 7, app: AppId::ANY, role: RoleId::ANY, reserved: 0 };
        assert_eq!(names.peer_key(&any), "set #7 about any app");
        assert_eq!(names.rule_value(&Rule::default()), "the default");
        let open = RuleSet { id: 7, flags: RuleSet::OPEN_INSIDE | RuleSet::OPEN_HOST | RuleSet::HAS_RULES, until: 0 };
        assert_eq!(names.set(&open), "set #7, open to own app+hosts by default, rules");
    }
}

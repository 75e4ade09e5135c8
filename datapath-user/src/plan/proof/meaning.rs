//! What the text says that rules mean, rule by rule.

use std::net::IpAddr;

use weft_common::{policy::Direction, verdict::DropReason};

use super::{Demand, Net, Packet, Party, Role, SECOND, Statement, Tags, Tier, What, Who, World};
use crate::model::app::Gate;

const PASS_MERIT: i64 = 0;
const ALLOW: usize = 1;
const DENY: usize = 2;

/// Where the upper tier starts.
pub(super) const UPPER: i32 = 16_777_216;

/// Which rules count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Counting {
    /// Those in force; what an app tries is not.
    InForce,
    /// Those that are tried, too.
    Tried,
}

impl World {
    /// What the text says, rule by rule.
    pub(super) fn answer(
        &self,
        packet: &Packet,
        counting: Counting,
    ) -> (Result<(), DropReason>, Option<usize>, Direction) {
        let out = self.one_way(packet, Direction::Egress, counting);
        if out.0.is_err() {
            return (out.0, out.1, Direction::Egress);
        }
        let into = self.one_way(packet, Direction::Ingress, counting);
        match into {
            (Ok(()), None) => (out.0, out.1, Direction::Egress),
            (verdict, rule) => (verdict, rule, Direction::Ingress),
        }
    }

    fn one_way(
        &self,
        packet: &Packet,
        direction: Direction,
        counting: Counting,
    ) -> (Result<(), DropReason>, Option<usize>) {
        let subject = if direction == Direction::Egress { packet.src } else { packet.dst };
        if let (Party::Endpoint(app, _), Counting::InForce) = (subject, counting)
            && self.apps[app].shadow
        {
            return (Ok(()), None);
        }
        let best = self.best(packet, direction, (i32::MAX, counting));
        let best = match best {
            Some((merit, _)) if merit[0] >= i64::from(UPPER) && merit[1] == PASS_MERIT => {
                self.best(packet, direction, (UPPER - 1, counting))
            }
            best => best,
        };
        match best {
            Some((merit, at)) if merit[1] != PASS_MERIT => {
                let verdict = [Ok(()), Ok(()), Err(DropReason::PolicyDenied), Err(DropReason::PolicyRejected)];
                (verdict[usize::try_from(merit[1]).unwrap()], Some(at))
            }
            _ if self.default(packet, direction) == Gate::Open => (Ok(()), None),
            _ => (Err(DropReason::PolicyDefault), None),
        }
    }

    /// The rule that wins of those whose precedence is at most `highest`.
    fn best(
        &self,
        packet: &Packet,
        direction: Direction,
        (highest, counting): (i32, Counting),
    ) -> Option<([i64; 7], usize)> {
        let mut best: Option<([i64; 7], usize)> = None;
        for (at, rule) in self.rules.iter().enumerate() {
            let has_ended = rule.until.is_some_and(|end| end * SECOND <= packet.time);
            if has_ended
                || rule.precedence > highest
                || (rule.shadow && counting == Counting::InForce)
                || rule.on.is_some_and(|on| on != direction)
            {
                continue;
            }
            let (subject_rule, peer_rule, peer) = match direction {
                Direction::Egress => (&rule.from, &rule.to, packet.dst),
                Direction::Ingress => (&rule.to, &rule.from, packet.src),
            };
            if matches!(subject_rule, Who::Net(..)) {
                continue;
            }
            let from = self.is(&rule.from, packet.src, packet.src_addr);
            let Some((to, points)) = self.receives(rule, packet) else { continue };
            let action = match (from, to) {
                (Is::Not, _) | (_, Is::Not) => continue,
                (Is::Sure, Is::Sure) => rule.action,
                _ if rule.action == DENY => continue,
                _ => ALLOW,
            };
            let subject_closeness = match subject_rule {
                // No demands are none: it is the app, or every one.
                Who::Labelled(Err(apps), demands) if apps.is_empty() && demands.is_empty() => 1,
                Who::Labelled(Ok(_), demands) if demands.is_empty() => 2,
                Who::Role(..) | Who::Labelled(..) => 3,
                Who::App(_) | Who::Host | Who::Outside => 2,
                Who::Any | Who::Everyone | Who::Net(..) => 1,
            };
            let is_endpoint = matches!(peer, Party::Endpoint(..));
            // A port by name is one of a role.
            let by_role = direction == Direction::Egress
                && is_endpoint
                && matches!(&rule.what, What::Ports(_, _, names) if !names.is_empty());
            let (peer_closeness, bits) = match peer_rule {
                Who::Net(net, _) => (1, i64::from(net.len)),
                _ if by_role || !is_endpoint => (4, 0),
                Who::Role(..) | Who::Host | Who::Outside => (4, 0),
                Who::Labelled(_, demands) if !demands.is_empty() => (4, 0),
                Who::Labelled(Err(apps), _) if apps.is_empty() => (2, 0),
                Who::App(_) | Who::Labelled(..) => (3, 0),
                Who::Any | Who::Everyone => (2, 0),
            };
            let merit = [
                i64::from(rule.precedence),
                i64::try_from(action).unwrap(),
                peer_closeness,
                bits,
                subject_closeness,
                -points,
                -i64::try_from(at).unwrap(),
            ];
            if best.is_none_or(|(old, _)| merit > old) {
                best = Some((merit, at));
            }
        }
        best
    }

    /// Whether the receiver is one that the rule speaks of, with what was sent, and of how many points it speaks.
    fn receives(&self, rule: &Statement, packet: &Packet) -> Option<(Is, i64)> {
        let names = matches!(&rule.what, What::Ports(_, _, names) if !names.is_empty());
        let to = self.is(&rule.to, packet.dst, packet.dst_addr);
        let with = |tier: &Tier| {
            let what = resolved(&rule.what, tier);
            covers(&what, packet).then(|| points(&what))
        };
        let nothing = Tier::default();
        match packet.dst {
            Party::Endpoint(app, Role::Known(role)) if names && !matches!(rule.to, Who::Net(..)) => {
                Some((to, with(&self.apps[app].roles[role])?))
            }
            Party::Endpoint(app, Role::Unknown) if names && !matches!(rule.to, Who::Net(..)) => {
                // It may be of any role that the rule means and that has such a port.
                let roles = self.apps[app].roles.iter().enumerate().map(|(at, tier)| (Role::Known(at), tier));
                let all = roles.chain([(Role::None, &nothing)]);
                let meant =
                    all.filter(|(role, _)| self.is(&rule.to, Party::Endpoint(app, *role), packet.dst_addr) == Is::Sure);
                Some((Is::Maybe, meant.filter_map(|(_, tier)| with(tier)).min()?))
            }
            Party::Endpoint(..) | Party::Host | Party::Outside => Some((to, with(&nothing)?)),
        }
    }

    /// Whether a side of a rule speaks of a party at an address.
    fn is(&self, who: &Who, party: Party, addr: IpAddr) -> Is {
        let sure = |yes: bool| if yes { Is::Sure } else { Is::Not };
        match (who, party) {
            (Who::Net(net, holes), _) => sure(within(net, addr) && !holes.iter().any(|hole| within(hole, addr))),
            (Who::Everyone, _) | (Who::Any, Party::Endpoint(..)) => Is::Sure,
            (Who::Host, other) => sure(other == Party::Host),
            (Who::Outside, other) => sure(other == Party::Outside),
            (Who::App(app), Party::Endpoint(of, _)) => sure(*app == of),
            (Who::Role(app, role), Party::Endpoint(of, has)) if *app == of => match has {
                Role::Known(has) => sure(has == *role),
                Role::None => Is::Not,
                Role::Unknown => Is::Maybe,
            },
            (Who::Labelled(apps, demands), Party::Endpoint(of, has)) => {
                let realm = &self.apps[of];
                let in_app = match apps {
                    Ok(app) => *app == of,
                    Err(apps) => apps.iter().all(|demand| holds(demand, &realm.labels)),
                };
                let selects = |labels: &Tags| demands.iter().all(|demand| holds(demand, labels));
                match has {
                    _ if !in_app => Is::Not,
                    _ if demands.is_empty() => Is::Sure,
                    Role::Known(role) => sure(selects(&realm.roles[role].labels)),
                    Role::None => sure(selects(&Tags::new())),
                    Role::Unknown => {
                        let some = selects(&Tags::new()) || realm.roles.iter().any(|role| selects(&role.labels));
                        if some { Is::Maybe } else { Is::Not }
                    }
                }
            }
            _ => Is::Not,
        }
    }

    fn default(&self, packet: &Packet, direction: Direction) -> Gate {
        match (direction, packet.src, packet.dst) {
            (Direction::Egress, Party::Endpoint(app, _), Party::Host | Party::Outside) => {
                self.apps[app].defaults.to_outside
            }
            (Direction::Egress, ..) | (Direction::Ingress, _, Party::Host | Party::Outside) => Gate::Open,
            (Direction::Ingress, Party::Endpoint(from, _), Party::Endpoint(to, _)) if from == to => {
                self.apps[to].defaults.inside
            }
            (Direction::Ingress, Party::Endpoint(..), Party::Endpoint(to, _)) => self.apps[to].defaults.from_apps,
            (Direction::Ingress, Party::Host, Party::Endpoint(to, _)) => self.apps[to].defaults.from_host,
            (Direction::Ingress, Party::Outside, Party::Endpoint(..)) => Gate::Closed,
        }
    }
}

/// Whether a rule speaks of somebody.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Sure,
    /// It has a role that is not known, and the rule speaks of some role.
    Maybe,
    Not,
}

fn holds(demand: &Demand, labels: &Tags) -> bool {
    let value = |key: &str| labels.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
    match demand {
        Demand::In(key, values) => value(key).is_some_and(|value| values.contains(&value)),
        Demand::NotIn(key, values) => !value(key).is_some_and(|value| values.contains(&value)),
        Demand::Exists(key) => value(key).is_some(),
        Demand::Absent(key) => value(key).is_none(),
    }
}

/// With numbers for the names that a role has.
fn resolved(what: &What, tier: &Tier) -> What {
    let What::Ports(protocol, ranges, names) = what else { return what.clone() };
    let mut ranges = ranges.clone();
    let mut some = !ranges.is_empty();
    for name in names {
        some = true;
        let known = tier.ports.iter().find(|(own, of, _)| own == name && of == protocol);
        ranges.extend(known.map(|(_, _, port)| (*port, *port)));
    }
    // No range would be all ports; a range that is none is none.
    if some && ranges.is_empty() {
        ranges.push((1, 0));
    }
    What::Ports(*protocol, ranges, Vec::new())
}

pub(super) fn within(net: &Net, addr: IpAddr) -> bool {
    match (net.addr, addr) {
        (IpAddr::V4(net_addr), IpAddr::V4(addr)) => {
            (0..net.len).all(|bit| (u32::from(net_addr) ^ u32::from(addr)) >> (31 - bit) & 1 == 0)
        }
        (IpAddr::V6(net_addr), IpAddr::V6(addr)) => {
            (0..net.len).all(|bit| (u128::from(net_addr) ^ u128::from(addr)) >> (127 - bit) & 1 == 0)
        }
        _ => false,
    }
}

fn covers(what: &What, packet: &Packet) -> bool {
    match what {
        What::Any => true,
        What::Ports(protocol, ranges, _) => {
            packet.protocol == *protocol
                && (ranges.is_empty() || ranges.iter().any(|(from, to)| (*from..=*to).contains(&packet.port)))
        }
        What::Icmp(protocol, kind, code) => {
            let [has_kind, has_code] = packet.port.to_be_bytes();
            let same_protocol = packet.protocol == *protocol;
            let echo_of_v6 = *protocol == 1 && packet.protocol == 58;
            let right_kind = match kind {
                None => same_protocol || echo_of_v6,
                Some(kind) if same_protocol => *kind == has_kind,
                Some(8) if echo_of_v6 => has_kind == 128,
                Some(0) if echo_of_v6 => has_kind == 129,
                Some(_) => false,
            };
            right_kind && code.is_none_or(|code| code == has_code)
        }
    }
}

/// How many protocols and ports it speaks of.
fn points(what: &What) -> i64 {
    match what {
        What::Any => i64::MAX,
        What::Ports(_, ranges, _) if ranges.is_empty() => 65536,
        What::Ports(_, ranges, _) => {
            let mut sorted = ranges.clone();
            sorted.sort_unstable();
            // The ports below `next` are counted.
            let (mut count, mut next) = (0, 0_i64);
            for (from, to) in sorted {
                let (from, end) = (next.max(from.into()), i64::from(to) + 1);
                count += (end - from).max(0);
                next = next.max(end);
            }
            count
        }
        What::Icmp(protocol, kind, code) => {
            let twice = *protocol == 1 && matches!(kind, None | Some(0 | 8));
            let one = match (kind, code) {
                (None, _) => 65536,
                (Some(_), None) => 256,
                (Some(_), Some(_)) => 1,
            };
            if twice { 2 * one } else { one }
        }
    }
}

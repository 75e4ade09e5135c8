//! Traffic put together: one part for each protocol.

use std::{collections::BTreeSet, mem};

use crate::model::traffic::{Ports, Ranges, Traffic};

/// The same traffic in as few parts as it has protocols, in the order in which they come first.
pub(super) fn joined(parts: impl IntoIterator<Item = Traffic>) -> Vec<Traffic> {
    let mut seen = BTreeSet::new();
    let mut groups: Vec<Vec<Traffic>> = Vec::new();
    // Of TCP, UDP and SCTP: the first port of each and where its group is.
    let mut with_ports: Vec<(Traffic, usize)> = Vec::new();
    for part in parts {
        if part == Traffic::Any {
            return vec![part];
        }
        if !seen.insert(part.clone()) {
            continue;
        }
        let known = with_ports.iter().find(|(first, _)| mem::discriminant(first) == mem::discriminant(&part));
        if let Some((_, at)) = known {
            groups[*at].push(part);
            continue;
        }
        if ports(&part).is_some() {
            with_ports.push((part.clone(), groups.len()));
        }
        groups.push(vec![part]);
    }
    groups.into_iter().filter_map(|group| whole(&group)).collect()
}

/// Parts of one protocol as one part.
fn whole(parts: &[Traffic]) -> Option<Traffic> {
    let transport = match parts.first()? {
        Traffic::Tcp(_) => Traffic::Tcp,
        Traffic::Udp(_) => Traffic::Udp,
        Traffic::Sctp(_) => Traffic::Sctp,
        other @ (Traffic::Any | Traffic::Icmp(_) | Traffic::Icmpv6(_)) => return Some(other.clone()),
    };
    let (mut ranges, mut names) = (Vec::new(), BTreeSet::new());
    for part in parts.iter().filter_map(ports) {
        let Ports::Only(some_ranges, some_names) = part else { return Some(transport(Ports::All)) };
        ranges.extend(some_ranges.iter().map(|range| (*range.start(), *range.end())));
        names.extend(some_names.iter().cloned());
    }
    // All of them were ranges already, so together they are.
    Some(transport(Ports::Only(Ranges::new(ranges).unwrap_or_default(), names)))
}

fn ports(traffic: &Traffic) -> Option<&Ports> {
    match traffic {
        Traffic::Tcp(ports) | Traffic::Udp(ports) | Traffic::Sctp(ports) => Some(ports),
        Traffic::Any | Traffic::Icmp(_) | Traffic::Icmpv6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_protocol_are_one_part() {
        let check = |texts: &[&str], expect: &[&str]| {
            let parts = joined(texts.iter().map(|text| text.parse().unwrap()));
            let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
            assert_eq!(parts, expect);
        };
        check(&["tcp/80", "udp/53", "tcp/81,http"], &["tcp/80-81,http", "udp/53"]);
        check(&["tcp/80", "tcp"], &["tcp"]);
        check(&["sctp/9,x", "icmp/8", "sctp/8,y", "tcp/1"], &["sctp/8-9,x,y", "icmp/8", "tcp/1"]);
        check(&["tcp/80", "any"], &["any"]);
        check(&["icmp/8", "icmp/0", "icmp/8"], &["icmp/8", "icmp/0"]);
    }
}

//! Traffic put together: one part for each protocol.

use std::collections::BTreeSet;

use crate::model::traffic::{Ports, Ranges, Traffic};

/// The same traffic in as few parts as it has protocols, in the order in which they come first.
pub(super) fn joined(parts: impl IntoIterator<Item = Traffic>) -> Vec<Traffic> {
    let mut joined: Vec<Traffic> = Vec::new();
    for part in parts {
        if part == Traffic::Any {
            return vec![part];
        }
        let known = joined.iter_mut().find_map(|known| Some((both(known, &part)?, known)));
        match known {
            Some((whole, known)) => *known = whole,
            None => joined.push(part),
        }
    }
    joined
}

/// Two of one protocol as one.
fn both(a: &Traffic, b: &Traffic) -> Option<Traffic> {
    match (a, b) {
        (Traffic::Tcp(a), Traffic::Tcp(b)) => Some(Traffic::Tcp(ports(a, b))),
        (Traffic::Udp(a), Traffic::Udp(b)) => Some(Traffic::Udp(ports(a, b))),
        (Traffic::Sctp(a), Traffic::Sctp(b)) => Some(Traffic::Sctp(ports(a, b))),
        _ => (a == b).then(|| a.clone()),
    }
}

fn ports(a: &Ports, b: &Ports) -> Ports {
    let (Ports::Only(a, a_names), Ports::Only(b, b_names)) = (a, b) else { return Ports::All };
    let ranges = a.iter().chain(b.iter()).map(|range| (*range.start(), *range.end()));
    let names: BTreeSet<_> = a_names.union(b_names).cloned().collect();
    // Both were ranges already, so together they are.
    Ports::Only(Ranges::new(ranges).unwrap_or_default(), names)
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
        check(&["tcp/80", "any"], &["any"]);
        check(&["icmp/8", "icmp/0", "icmp/8"], &["icmp/8", "icmp/0"]);
    }
}

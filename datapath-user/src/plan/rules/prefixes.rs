//! Rules about prefixes. The longest prefix that holds an address has to carry every rule about it, so each
//! prefix that any rule of the set names, also as an exception, gets a list of all rules that cover it.
//!
//! Why that is enough: prefixes are nested or disjoint. If a rule names a prefix with an address in it, that
//! prefix covers the longest one in the table that holds the address; the same is true of its exceptions.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{prefix::Prefix, selector::Net};

/// For every prefix that `rules` name, which of them cover it. Rules go by what the caller calls them.
pub(super) fn cover<T: Copy>(rules: &[(&Net, T)]) -> Vec<(Prefix, Vec<T>)> {
    let mut starting: BTreeMap<Prefix, Vec<(&Net, T)>> = BTreeMap::new();
    let mut prefixes = BTreeSet::new();
    for &(net, rule) in rules {
        starting.entry(net.prefix()).or_default().push((net, rule));
        prefixes.insert(net.prefix());
        prefixes.extend(net.except());
    }
    // In the one 128-bit form the longest match of an IPv4 address can be an IPv6 prefix, ::/0 for one.
    if prefixes.iter().any(holds_v4) {
        prefixes.insert(Prefix::ALL_V4);
    }
    let mut around: Vec<Prefix> = Vec::new();
    let mut found = Vec::with_capacity(prefixes.len());
    // In order a prefix comes after all that cover it.
    for prefix in prefixes {
        while around.last().is_some_and(|outer| !outer.covers(&prefix)) {
            around.pop();
        }
        around.push(prefix);
        let named = around.iter().filter_map(|outer| starting.get(outer)).flatten();
        let covering = named.filter(|(net, _)| net.covers(&prefix)).map(|(_, rule)| *rule);
        found.push((prefix, covering.collect()));
    }
    found
}

/// Whether an IPv6 prefix holds `::ffff:0:0/96`, where IPv4 addresses are.
fn holds_v4(prefix: &Prefix) -> bool {
    prefix.contains(std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::selector::Selector;

    fn check(rules: &[&str], expect: &[(&str, &[usize])]) {
        let nets: Vec<Net> = rules
            .iter()
            .map(|text| {
                let Selector::Net(net) = text.parse().unwrap() else { panic!("{text} is no prefix") };
                net
            })
            .collect();
        let numbered: Vec<_> = nets.iter().zip(1..).collect();
        let found = cover(&numbered);
        let found: Vec<_> = found.iter().map(|(prefix, rules)| (prefix.to_string(), rules.as_slice())).collect();
        let expect: Vec<_> = expect.iter().map(|(prefix, rules)| ((*prefix).to_owned(), *rules)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn the_longest_prefix_has_the_rules_of_all_that_hold_it() {
        check(
            &["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"],
            &[("10.0.0.0/8", &[1]), ("10.1.0.0/16", &[1, 2]), ("11.0.0.0/8", &[3])],
        );
        check(&["10.0.0.0/8", "10.0.0.0/8"], &[("10.0.0.0/8", &[1, 2])]);
    }

    #[test]
    fn a_hole_has_the_rules_that_do_not_cut_it_out() {
        check(&["10.0.0.0/8 except 10.1.0.0/16"], &[("10.0.0.0/8", &[1]), ("10.1.0.0/16", &[])]);
        check(
            &["10.0.0.0/8 except 10.1.0.0/16", "10.0.0.0/7", "10.1.2.0/24"],
            &[("10.0.0.0/7", &[2]), ("10.0.0.0/8", &[2, 1]), ("10.1.0.0/16", &[2]), ("10.1.2.0/24", &[2, 3])],
        );
    }

    #[test]
    fn all_of_ipv6_is_nothing_of_ipv4() {
        check(&["::/0"], &[("0.0.0.0/0", &[]), ("::/0", &[1])]);
        check(&["::/0", "10.0.0.0/8"], &[("0.0.0.0/0", &[]), ("10.0.0.0/8", &[2]), ("::/0", &[1])]);
        check(&["fd00::/8"], &[("fd00::/8", &[1])]);
    }
}

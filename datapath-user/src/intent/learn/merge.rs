//! The fewest rules that say what a table says.

use std::collections::BTreeSet;

use crate::model::selector::Selector;

use super::table::{Key, Kind, Table};

/// A selector that means just what its parts mean together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) selector: Selector,
    pub(super) parts: Vec<Selector>,
}

/// The side of rows that is merged.
#[derive(Clone, Copy, Debug)]
enum Side {
    From,
    To,
}

/// Types of ICMP that a rule about it means in ICMPv6, too, under another number.
const BOTH: [(u16, u16); 2] = [(8, 128), (0, 129)];

/// Merges what groups say in one rule, and takes away what is said twice. Nothing is widened.
pub(super) fn fewest(table: Table, groups: &[Group]) -> Table {
    let mut table = table;
    absorb(&mut table, groups);
    let in_order = |sides: [Side; 2]| {
        let mut table = table.clone();
        for side in sides {
            for group in groups {
                merge(&mut table, group, side);
            }
        }
        absorb(&mut table, groups);
        table
    };
    let (one, other) = (in_order([Side::From, Side::To]), in_order([Side::To, Side::From]));
    if other.rules_needed() < one.rules_needed() { other } else { one }
}

/// Says once for a group what all of its parts have in common, where that is a row less.
fn merge(table: &mut Table, group: &Group, side: Side) {
    let far = |key: &Key| match side {
        Side::From => (key.1.clone(), key.2),
        Side::To => (key.0.clone(), key.2),
    };
    let key = |own: &Selector, (other, kind): &(Selector, Kind)| match side {
        Side::From => (own.clone(), other.clone(), *kind),
        Side::To => (other.clone(), own.clone(), *kind),
    };
    let others: BTreeSet<_> = table.0.keys().map(far).collect();
    for other in &others {
        let rows: Option<Vec<_>> = group.parts.iter().map(|part| table.0.get(&key(part, other))).collect();
        let Some(rows) = rows else { continue };
        let common = rows.iter().skip(1).fold(rows[0].clone(), |common, row| &common & *row);
        let vanish = rows.iter().filter(|row| ***row == common).count();
        if common.is_empty() || vanish < 2 {
            continue;
        }
        for part in &group.parts {
            take(table, &key(part, other), &common);
        }
        table.0.entry(key(&group.selector, other)).or_default().extend(common);
    }
}

/// Takes away what a wider row says, too.
fn absorb(table: &mut Table, groups: &[Group]) {
    let wider = |own: &Selector| -> Vec<Selector> {
        let of_groups = groups.iter().filter(|group| group.parts.contains(own)).map(|group| group.selector.clone());
        let outside = matches!(own, Selector::Net(_)).then_some(Selector::Outside);
        std::iter::once(own.clone()).chain(of_groups).chain(outside).collect()
    };
    for key in table.0.keys().cloned().collect::<Vec<_>>() {
        let (from, to, kind) = &key;
        for (wide_from, wide_to) in pairs(&wider(from), &wider(to)) {
            let row = |kind| table.0.get(&(wide_from.clone(), wide_to.clone(), kind)).cloned().unwrap_or_default();
            if *kind != Kind::Any && !row(Kind::Any).is_empty() {
                table.0.remove(&key);
                break;
            }
            if (&wide_from, &wide_to) != (from, to) {
                let said = row(*kind);
                take(table, &key, &said);
            } else if *kind == Kind::Icmpv6 {
                let said = row(Kind::Icmp);
                let both = BOTH.into_iter().filter(|(v4, _)| said.contains(v4)).map(|(_, v6)| v6).collect();
                take(table, &key, &both);
            }
        }
    }
}

fn pairs(a: &[Selector], b: &[Selector]) -> Vec<(Selector, Selector)> {
    a.iter().flat_map(|a| b.iter().map(move |b| (a.clone(), b.clone()))).collect()
}

/// Takes ports from a row, and the row if none are left.
fn take(table: &mut Table, key: &Key, ports: &BTreeSet<u16>) {
    if let Some(row) = table.0.get_mut(key) {
        row.retain(|port| !ports.contains(port));
        if row.is_empty() {
            table.0.remove(key);
        }
    }
}

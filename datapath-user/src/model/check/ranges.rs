//! Prefixes of apps and blocks of hosts: who has which addresses. Nobody shares any.

use super::{
    super::{cluster::Cluster, prefix::Prefix},
    Faults, Place, is_for_endpoints, list,
};

/// A prefix, who has it, and where that is said.
struct Range {
    prefix: Prefix,
    owner: String,
    place: Place,
}

pub(super) fn check(cluster: &Cluster, faults: &mut Faults) {
    let prefixes = app_prefixes(cluster, faults);
    overlaps(prefixes, faults);
    let blocks = blocks(cluster, faults);
    overlaps(blocks, faults);
}

fn app_prefixes(cluster: &Cluster, faults: &mut Faults) -> Vec<Range> {
    let mut ranges = Vec::new();
    for app in cluster.apps.values() {
        let name = &app.name;
        if app.prefixes.is_empty() {
            faults.push(Place::App(name.clone()), format!("app {name} has no prefixes: give it one, as 10.1.0.0/16"));
        }
        for (at, prefix) in app.prefixes.iter().enumerate() {
            let place = Place::AppPrefix(name.clone(), at);
            if !is_for_endpoints(prefix) {
                faults.push(place.clone(), format!("app {name}: endpoints can not have all addresses of {prefix}"));
            }
            ranges.push(Range { prefix: *prefix, owner: format!("app {name}"), place });
        }
    }
    ranges
}

fn blocks(cluster: &Cluster, faults: &mut Faults) -> Vec<Range> {
    let mut ranges = Vec::new();
    for host in cluster.hosts.values() {
        for (name, blocks) in &host.blocks {
            let Some(app) = cluster.apps.get(name) else {
                let place = Place::Blocks(host.name.clone(), name.clone());
                let what =
                    format!("host {}: there is no app {name}: the apps are {}", host.name, list(cluster.apps.keys()));
                faults.push(place, what);
                continue;
            };
            for (at, block) in blocks.iter().enumerate() {
                let place = Place::Block(host.name.clone(), name.clone(), at);
                if app.prefix_over(block).is_none() {
                    let what = format!(
                        "host {}: {block} is not inside app {name}, which has {}",
                        host.name,
                        list(app.prefixes.iter())
                    );
                    faults.push(place.clone(), what);
                }
                ranges.push(Range { prefix: *block, owner: format!("host {} for app {name}", host.name), place });
            }
        }
    }
    ranges
}

/// Prefixes are nested or disjoint: in order of address and length, one that is inside another comes after it
/// and before the other ends.
fn overlaps(mut ranges: Vec<Range>, faults: &mut Faults) {
    ranges.sort_by(|a, b| (a.prefix, &a.place).cmp(&(b.prefix, &b.place)));
    let mut around: Option<&Range> = None;
    for range in &ranges {
        match around {
            Some(outer) if outer.prefix.covers(&range.prefix) => {
                let what = format!("{} of {} overlaps {} of {}", range.prefix, range.owner, outer.prefix, outer.owner);
                faults.push(range.place.clone().max(outer.place.clone()), what);
            }
            _ => around = Some(range),
        }
    }
}

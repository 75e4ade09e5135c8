//! The matrix as the API answers it.

use std::sync::Arc;

use crate::front::api::{
    dto::{
        naming::Probe,
        policies::{Cell, Matrix, Reach, ShowMatrix},
    },
    refusal::Refusal,
};
use crate::model::{cluster::Cluster, prefix::Family, traffic::Region};
use crate::plan::{
    ask::Asker,
    matrix::{Passes, between},
    parties::Party,
    rules::Policy,
};

/// The most parties of one matrix: a million pairs are answered in seconds, and more than that nobody reads.
const PARTIES: usize = 1000;

/// Who reaches whom. The tables are compiled where none are given.
pub fn matrix(cluster: &Cluster, policy: Option<Arc<Policy>>, request: &ShowMatrix) -> Result<Matrix, Refusal> {
    let ShowMatrix { ports, apps } = request;
    if let Some(app) = apps.iter().find(|app| !cluster.apps.contains_key(*app)) {
        return Err(Refusal::no_app(app));
    }
    let asker = match policy {
        Some(policy) => Asker::over(cluster, policy),
        None => Asker::new(cluster),
    };
    let is_meant = |party: &&Party<'_>| apps.is_empty() || party.app().is_none_or(|app| apps.contains(app));
    let parties: Vec<&Party<'_>> = asker.parties().iter().filter(is_meant).collect();
    if parties.len() > PARTIES {
        let count = parties.len();
        let why = format!("there are {count} parties, and a matrix shows {PARTIES} at most: name apps with --app");
        return Err(Refusal::invalid(why));
    }
    let table = |with: String, regions: Option<Vec<Region>>| {
        let cell = |from: &Party<'_>, to: &Party<'_>| match between(&asker, from, to, regions.as_deref()) {
            Passes::All => Cell::All,
            Passes::Nothing => Cell::Nothing,
            Passes::Some(what) => Cell::Some(what),
            Passes::Itself => Cell::Itself,
        };
        let rows = parties.iter().map(|from| parties.iter().map(|to| cell(from, to)).collect());
        Reach { with, rows: rows.collect() }
    };
    let tables = if ports.is_empty() {
        vec![table("any".to_owned(), None)]
    } else {
        ports.iter().map(|probe| table(probe.to_string(), Some(regions(*probe)))).collect()
    };
    Ok(Matrix { parties: parties.iter().map(|party| party.name.clone()).collect(), tables })
}

/// What is asked of both families.
fn regions(probe: Probe) -> Vec<Region> {
    let mut regions: Vec<Region> = Family::ALL
        .into_iter()
        .map(|family| probe.of(family))
        .map(|(protocol, port)| Region { protocol, ports: port..=port })
        .collect();
    regions.dedup();
    regions
}

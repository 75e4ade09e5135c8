//! What does not fit into the tables, as a refusal.

use std::time::Duration;

use crate::front::api::refusal::{Kind, Refusal};
use crate::model::cluster::Cluster;
use crate::plan::{
    NodePlan, foresee,
    sizes::{Size, TooLarge},
};

/// Refuses a change after which `fits` says no, unless it said the same before or worse: whoever repairs a cluster in steps
/// is not to be stopped by the step that is still to come.
pub fn admit(before: &Cluster, next: &Cluster, fits: impl Fn(&Cluster) -> Result<(), TooLarge>) -> Result<(), Refusal> {
    let Err(over) = fits(next) else { return Ok(()) };
    match fits(before) {
        Err(was) if over.is_no_worse_than(&was) => Ok(()),
        Ok(()) | Err(_) => Err(refused(&over).because("nothing was changed, it does not fit into the tables")),
    }
}

/// Refuses a cluster whose policy does not fit into tables with nothing else in them. `utc` is the time since 1970.
pub fn admit_alone(cluster: &Cluster, utc: Duration) -> Result<(), Refusal> {
    let clock = foresee::clock(&NodePlan::default(), utc, 0);
    let fits = foresee::policy_fits(cluster, clock, &NodePlan::default());
    fits.map_err(|over| refused(&over).because("it does not fit into the tables of a host"))
}

/// A sentence for each table.
fn refused(over: &TooLarge) -> Refusal {
    let one = |size: &Size| format!("{size}, rejected: {}", size.help());
    let mut sentences = over.0.iter().map(one);
    let first = sentences.next().unwrap_or_default();
    Refusal { more: sentences.collect(), ..Refusal::new(Kind::Exhausted, first) }
}

//! Whether what policies expect holds: of everybody whom an expectation names, at every address and port it names.

use std::ops::ControlFlow;

use weft_common::{addr::Ip, policy::Decision};

use crate::model::{cluster::Cluster, expect::Expectation, name::PolicyName, rule};

use super::{
    NodePlan,
    ask::{Asker, Part, Spot},
    parties::{Addresses, Party},
};

/// What came of an expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whose it is.
    pub policy: PolicyName,
    /// What was expected.
    pub expected: Expectation,
    /// How often it was asked.
    pub asked: u64,
    /// Why it does not hold; none: it holds.
    pub fault: Option<Fault>,
}

/// Why an expectation does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A side selects nobody: mostly a mistake, and what says nothing can not be relied on.
    Nobody(&'static str),
    /// Both sides select somebody, and nothing that is named can pass between them: a named port that none has.
    Nothing,
    /// It is otherwise between these: the first, and how many pairs there are.
    Broken(Box<Breach>, u64),
}

/// Something that is not as it was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Who sends.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// What.
    pub what: String,
    /// Which rule decided, or which default.
    pub by: Result<rule::Rule, String>,
    /// Whether it passes.
    pub passes: bool,
}

/// All expectations of a cluster, in order. Its tables are made of what is other than in those of `running`.
pub fn check(cluster: &Cluster, running: &NodePlan) -> Vec<Checked> {
    let all =
        cluster.policies.iter().flat_map(|(name, policy)| policy.expect.iter().map(move |expected| (name, expected)));
    let mut all = all.peekable();
    // Most clusters expect nothing, and their rules need not be compiled for that.
    if all.peek().is_none() {
        return Vec::new();
    }
    let asker = Asker::after(cluster, running);
    all.map(|(policy, expected)| {
        let (asked, fault) = one(&asker, expected);
        Checked { policy: policy.clone(), expected: expected.clone(), asked, fault }
    })
    .collect()
}

/// How often it was asked, and why it does not hold.
fn one(asker: &Asker<'_>, expected: &Expectation) -> (u64, Option<Fault>) {
    let meant = |selector| -> Vec<(&Party<'_>, Addresses)> {
        asker.parties().iter().filter_map(|party| Some((party, party.meant(selector)?))).collect()
    };
    let (from, to) = (meant(&expected.from), meant(&expected.to));
    if from.is_empty() || to.is_empty() {
        let side = if from.is_empty() { "the left side selects nobody" } else { "the right side selects nobody" };
        return (0, Some(Fault::Nobody(side)));
    }
    let (mut asked, mut pairs, mut first) = (0, 0, None);
    for (receiver, dst_at) in &to {
        let regions = expected.traffic.regions(&receiver.ports());
        for (sender, src_at) in &from {
            let spots = (Spot { party: sender, at: src_at }, Spot { party: receiver, at: dst_at });
            let broken = asker.ask(spots, regions.as_deref(), |part| {
                asked += 1;
                if part.decision.verdict.is_ok() == expected.passes {
                    return ControlFlow::Continue(());
                }
                ControlFlow::Break(part)
            });
            if let ControlFlow::Break(part) = broken {
                pairs += 1;
                first.get_or_insert_with(|| Box::new(breach(asker, spots, &part)));
            }
        }
    }
    let fault = match first {
        Some(breach) => Some(Fault::Broken(breach, pairs)),
        None => (asked == 0).then_some(Fault::Nothing),
    };
    (asked, fault)
}

fn breach(asker: &Asker<'_>, (from, to): (Spot<'_>, Spot<'_>), part: &Part) -> Breach {
    let Decision { verdict, rule: _, direction: _, until: _ } = part.decision;
    let (src, dst) = (from.party.identity, to.party.identity);
    // The address is said where it matters: another of the same party meets something else, or was not asked about.
    let who = |spot: Spot<'_>, addr: Ip, parted: bool| {
        let name = &spot.party.name;
        if parted || *spot.at != spot.party.at { format!("{name} at {}", addr.to_std()) } else { name.clone() }
    };
    Breach {
        from: who(from, part.addrs.0, part.parted.0),
        to: who(to, part.addrs.1, part.parted.1),
        what: part.what(),
        by: asker.decider(&part.decision, src, dst).cloned(),
        passes: verdict.is_ok(),
    }
}

#[cfg(test)]
mod tests;

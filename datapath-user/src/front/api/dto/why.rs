//! Why a packet may pass, or may not.

use serde::{Deserialize, Serialize};

use super::{
    naming::{Party, Probe},
    side::{Decision, Direction, Nearest, RuleMention, Side},
    text,
};
use crate::model::name::HostName;

/// May this pass?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// Who sends.
    #[serde(with = "text")]
    pub from: Party,
    /// Who receives.
    #[serde(with = "text")]
    pub to: Party,
    /// What, as `tcp/5432`.
    #[serde(with = "text")]
    pub what: Probe,
    /// Whether the loaded program is asked, too.
    #[serde(default)]
    pub live: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// Who sends, as the question was understood.
    pub from: Side,
    /// Who receives.
    pub to: Side,
    /// What.
    pub what: String,
    /// What the packet meets.
    pub decision: Decision,
    /// Whose rules decided: the sender's on what goes out, or the receiver's on what comes in.
    pub direction: Direction,
    /// The drop reason that is counted, if it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule or default that decided.
    pub rule: RuleMention,
    /// The allow rule that misses it by least, if a default denies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
    /// The revision in force on the host that answers, if rules decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The other rules that speak of it, those that would win first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Also>,
    /// How many more there are of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    /// Where it goes: `local`, `peer h2`, `host`, `outside`, `nowhere`.
    pub hop: String,
    /// The smallest rule that would let it pass, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_allow: Option<String>,
    /// The smallest rule that would stop it, if it passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_deny: Option<String>,
    /// What was looked at, in order.
    pub steps: Vec<Step>,
    /// What the loaded program says, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    /// The host that decides, too, if an end is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_half: Option<OtherHalf>,
}

/// What another host has to say. Between hosts each knows the roles of its own endpoints alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherHalf {
    /// Which host.
    #[serde(with = "text")]
    pub host: HostName,
    /// What it is to be asked.
    pub question: Why,
    /// Its answer, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Box<WhyAnswer>>,
}

impl WhyAnswer {
    /// This answer, and that of the other host if it was asked.
    pub fn halves(&self) -> impl Iterator<Item = &Self> {
        let other = self.other_half.as_ref().and_then(|half| half.answer.as_deref());
        [Some(self), other].into_iter().flatten()
    }

    /// What the packet meets on its whole way, as far as that was asked.
    pub fn met(&self) -> Decision {
        let mut refused = self.halves().map(|half| half.decision).filter(|decision| *decision != Decision::Allow);
        refused.next().unwrap_or(Decision::Allow)
    }
}

/// A rule that speaks of it, and did not decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Also {
    /// The rule.
    pub rule: RuleMention,
    /// On which side: the sender's on what goes out, or the receiver's on what comes in.
    pub direction: Direction,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What, as `egress of shop/web` or `route`.
    pub at: String,
    /// What came of it.
    pub found: String,
}

/// What the loaded program says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// What the packet met.
    pub decision: Decision,
    /// The drop reason that it counted, if it dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The program that was run.
    pub program: String,
    /// Whether both answers are the same.
    pub agrees: bool,
    /// What else is to say, as the code it returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

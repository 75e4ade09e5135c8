//! Whether what became of a datagram is what one of the states that were in force says.
//!
//! Hosts are not in lockstep: from the moment a change is asked for until both hosts have it in force, the sender's
//! side of a verdict may be of the state before or after it, and so may the receiver's, each for itself ([`State::mixed`]).
//! What all of these agree on has to happen all the same. Outside of such a time there is one state, and no excuse.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use weft_tests::traffic::mesh::{Probe, Way};
use weft_tests::underlay::Family;

use super::model::{Packet, Protocol, State, Verdict};

/// How long after it was sent a datagram may still be decided on: programs do that while it is sent, or a processor that
/// is behind does soon.
const UNDER_WAY: Duration = Duration::from_millis(250);

/// Remembers which states were in force when.
pub(super) struct Judge {
    ways: Vec<Way>,
    /// For each state its verdicts, one for each way.
    states: Vec<Vec<Verdict>>,
    /// What may be in force somewhere now, in order.
    unsettled: Vec<State>,
    /// In order of time; each lasts until the next.
    spans: Vec<Span>,
    pub(super) tally: Tally,
}

struct Span {
    from: Instant,
    /// By their places.
    states: Vec<usize>,
    /// Endpoints that come, go or are relabelled: what they send and get may be lost.
    busy: BTreeSet<usize>,
}

/// How many were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// That had to come, and came.
    pub(super) passed: u64,
    /// That had not to come, and did not.
    pub(super) kept_out: u64,
    /// Of which either would have been right.
    pub(super) either: u64,
    /// Lost where the machine itself lost packets, in a time when they had to come.
    pub(super) unjudged: u64,
}

/// What was wrong with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wrong {
    /// It came, and no state lets it pass.
    Came,
    /// It did not, and every state lets it pass.
    Lost,
    /// It came more than once.
    Again,
}

impl Judge {
    pub(super) fn new(ways: &[Way], state: &State) -> Self {
        let span = Span { from: Instant::now(), states: vec![0], busy: BTreeSet::new() };
        let (states, unsettled) = (vec![verdicts(ways, state)], vec![state.clone()]);
        Self { ways: ways.to_vec(), states, unsettled, spans: vec![span], tally: Tally::default() }
    }

    /// A change is about to be asked for. It may be in force from now on.
    pub(super) fn begins(&mut self, after: &State, busy: Option<usize>) {
        self.unsettled.push(after.clone());
        let first = self.states.len();
        self.states.extend(State::mixed(&self.unsettled).iter().map(|state| verdicts(&self.ways, state)));
        let states = (first..self.states.len()).collect();
        let last = self.spans.last().expect("there is always a span");
        let busy = last.busy.iter().copied().chain(busy).collect();
        self.spans.push(Span { from: Instant::now(), states, busy });
    }

    /// Everything that was asked for is in force everywhere. What these send and get may still be lost.
    pub(super) fn settled(&mut self, busy: BTreeSet<usize>) {
        self.unsettled.drain(..self.unsettled.len() - 1);
        let states = vec![self.states.len() - 1];
        self.spans.push(Span { from: Instant::now(), states, busy });
    }

    /// Whether the newest state lets anything pass.
    pub(super) fn lets_pass(&self) -> bool {
        self.states.last().is_some_and(|verdicts| verdicts.iter().any(|verdict| verdict.out && verdict.into))
    }

    /// Judges what was sent on the way at this place. `excused`: the machine lost packets of anybody's.
    pub(super) fn judge(&mut self, place: usize, probe: &Probe, excused: bool) -> Result<(), Wrong> {
        let end = probe.got.unwrap_or(probe.taken + UNDER_WAY);
        let (may, must) = self.said(place, (probe.sent, end));
        let to = match (probe.times, may, must) {
            (2.., ..) => return Err(Wrong::Again),
            (1, false, _) => return Err(Wrong::Came),
            (0, _, true) if !excused => return Err(Wrong::Lost),
            (0, _, true) => &mut self.tally.unjudged,
            (1, _, true) => &mut self.tally.passed,
            (0, false, _) => &mut self.tally.kept_out,
            _ => &mut self.tally.either,
        };
        *to += 1;
        Ok(())
    }

    /// Whether one that was decided on in this time may come, and whether it must.
    fn said(&self, place: usize, (from, to): (Instant, Instant)) -> (bool, bool) {
        // What was before the first is as in the first.
        let first = self.spans.partition_point(|span| span.from <= from).max(1) - 1;
        let end = self.spans.partition_point(|span| span.from <= to).max(1);
        let (mut may, mut must) = (Verdict { out: false, into: false }, Verdict { out: true, into: true });
        let Way { from, to, .. } = self.ways[place];
        for span in &self.spans[first..end] {
            for verdict in span.states.iter().map(|&state| self.states[state][place]) {
                may = Verdict { out: may.out || verdict.out, into: may.into || verdict.into };
                must = Verdict { out: must.out && verdict.out, into: must.into && verdict.into };
            }
            if span.busy.contains(&from) || span.busy.contains(&to) {
                must.out = false;
            }
        }
        (may.out && may.into, must.out && must.into)
    }
}

fn verdicts(ways: &[Way], state: &State) -> Vec<Verdict> {
    let packet = |way: &Way| {
        let Way { from, to, family, port } = *way;
        Packet { from, to, v6: family == Family::V6, protocol: Protocol::Udp, port }
    };
    ways.iter().map(|way| state.verdict(packet(way))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::churn::events;
    use crate::cluster::churn::model::Gate;

    const A1_TO_A2: Way = Way { from: 0, to: 1, family: Family::V4, port: 7000 };

    /// With no state but one in which the inside of shop is closed or not.
    fn judge(gate: Gate) -> Judge {
        Judge::new(&[A1_TO_A2], &inside(gate))
    }

    fn inside(gate: Gate) -> State {
        let mut state = events::first();
        state.apps[events::SHOP].inside = gate;
        state
    }

    /// One that is sent now and comes at once, or not.
    fn probe(times: u32) -> Probe {
        let now = Instant::now();
        Probe { number: 0, sent: now, taken: now, refused: None, got: (times > 0).then_some(now), times }
    }

    /// As [`probe`], sent before anything that happened in the last minute.
    fn early(times: u32) -> Probe {
        let before = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        Probe { sent: before, taken: before, got: (times > 0).then_some(before), ..probe(times) }
    }

    #[test]
    fn where_there_is_one_state_nothing_else_is_right() {
        let mut open = judge(Gate::Open);
        assert_eq!(
            [1, 0, 2].map(|times| open.judge(0, &probe(times), false)),
            [Ok(()), Err(Wrong::Lost), Err(Wrong::Again)]
        );
        assert_eq!(open.judge(0, &probe(0), true), Ok(()));
        assert_eq!(open.tally, Tally { passed: 1, unjudged: 1, ..Tally::default() });
        let mut closed = judge(Gate::Closed);
        assert_eq!([1, 0].map(|times| closed.judge(0, &probe(times), true)), [Err(Wrong::Came), Ok(())]);
        assert_eq!(closed.tally, Tally { kept_out: 1, ..Tally::default() });
    }

    #[test]
    fn while_a_change_is_under_way_both_are_right_and_afterwards_only_the_new_one() {
        let mut judge = judge(Gate::Open);
        judge.begins(&inside(Gate::Closed), None);
        assert_eq!([0, 1].map(|times| judge.judge(0, &probe(times), false)), [Ok(()); 2]);
        judge.settled(BTreeSet::new());
        assert_eq!([0, 1].map(|times| judge.judge(0, &probe(times), false)), [Ok(()), Err(Wrong::Came)]);
        // What was sent before the change was made and lost is none of the change.
        assert_eq!([0, 1].map(|times| judge.judge(0, &early(times), false)), [Err(Wrong::Lost), Ok(())]);
        assert_eq!(judge.tally, Tally { passed: 1, kept_out: 1, either: 2, unjudged: 0 });
    }

    #[test]
    fn what_is_said_before_and_after_a_change_holds_while_it_is_made() {
        let mut open = judge(Gate::Open);
        let mut other = inside(Gate::Open);
        other.apps[events::BLOG].inside = Gate::Closed;
        open.begins(&other, None);
        assert_eq!(open.judge(0, &probe(0), false), Err(Wrong::Lost));
        let mut closed = judge(Gate::Closed);
        other.apps[events::SHOP].inside = Gate::Closed;
        closed.begins(&other, Some(0));
        assert_eq!(closed.judge(0, &probe(1), false), Err(Wrong::Came));
    }

    #[test]
    fn one_that_comes_or_goes_may_lose_until_it_is_there() {
        let mut judge = judge(Gate::Open);
        let mut other = inside(Gate::Open);
        other.endpoints[1].labels.insert("env", "prod");
        judge.begins(&other, Some(1));
        assert_eq!([0, 1].map(|times| judge.judge(0, &probe(times), false)), [Ok(()); 2]);
        judge.settled(BTreeSet::new());
        assert_eq!(judge.judge(0, &probe(0), false), Err(Wrong::Lost));
    }

    #[test]
    fn who_somebody_is_now_may_be_decided_on_by_the_rules_before() {
        // The inside of shop is closed, and then the sender comes: the receiver's host may not have heard of the first.
        let [mut first, mut second] = [Gate::Open, Gate::Closed].map(inside);
        for state in [&mut first, &mut second] {
            state.endpoints[0].attached = false;
        }
        let third = inside(Gate::Closed);
        let mut judge = Judge::new(&[A1_TO_A2], &first);
        judge.begins(&second, None);
        assert_eq!(judge.judge(0, &probe(1), false), Err(Wrong::Came));
        judge.begins(&third, Some(0));
        assert_eq!([0, 1].map(|times| judge.judge(0, &probe(times), false)), [Ok(()); 2]);
        judge.settled(BTreeSet::new());
        assert_eq!(judge.judge(0, &probe(1), false), Err(Wrong::Came));
    }

    #[test]
    fn sides_of_a_verdict_may_be_of_different_states() {
        // Before, only the receiver refuses it; afterwards only the sender does.
        let (mut before, mut after) = (inside(Gate::Closed), inside(Gate::Open));
        before.endpoints[0].attached = true;
        after.endpoints[0].attached = false;
        let mut judge = Judge::new(&[A1_TO_A2], &before);
        judge.begins(&after, None);
        assert_eq!([0, 1].map(|times| judge.judge(0, &probe(times), false)), [Ok(()); 2]);
    }
}

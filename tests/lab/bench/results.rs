//! What was found, and the ratios in it. A ratio is taken within a round, where both sides had the same machine.

use std::collections::BTreeMap;

use super::cell::{Line, Quantity, Sample, Setting};
use super::statistics::Spread;

/// A line, and the samples of its settings in the order of rounds.
pub(super) struct Found {
    pub(super) line: Line,
    samples: BTreeMap<Setting, Vec<Option<Sample>>>,
}

impl Found {
    pub(super) fn new(line: Line) -> Self {
        Self { line, samples: BTreeMap::new() }
    }

    /// Adds a round; none if the measurement failed.
    pub(super) fn add(&mut self, setting: Setting, sample: Option<Sample>) {
        self.samples.entry(setting).or_default().push(sample);
    }

    /// A quantity of a setting over all rounds.
    pub(super) fn spread(&self, setting: Setting, quantity: Quantity) -> Option<Spread> {
        Spread::of(self.rounds(setting, quantity).flatten())
    }

    /// The same, divided by that of another setting in the same round.
    pub(super) fn ratio(&self, setting: Setting, to: Setting, quantity: Quantity) -> Option<Spread> {
        let pairs = self.rounds(setting, quantity).zip(self.rounds(to, quantity));
        // Processor time is counted in ticks and may be none.
        Spread::of(pairs.filter_map(|(of, to)| Some(of? / to.filter(|to| *to > 0.0)?)))
    }

    fn rounds(&self, setting: Setting, quantity: Quantity) -> impl Iterator<Item = Option<f64>> + '_ {
        let samples = self.samples.get(&setting).into_iter().flatten();
        samples.map(move |sample| {
            let numbers = sample.as_ref()?.iter();
            numbers.copied().find_map(|(name, number)| (name == quantity).then_some(number))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cell::{Metric, Segment, Surroundings};
    use weft_tests::underlay::{Family, Offloads};

    #[test]
    fn ratios_are_taken_within_a_round() {
        let surroundings = Surroundings { family: Family::V4, underlay: Segment { mtu: 1500, offloads: Offloads::On } };
        let settings = vec![Setting::Host, Setting::Vxlan];
        let mut found = Found::new(Line { surroundings, metric: Metric::Udp, settings });
        for (host, vxlan) in [(Some(10.0), Some(5.0)), (Some(100.0), Some(50.0)), (Some(1.0), None)] {
            let sample = |number: Option<f64>| number.map(|number| vec![(Quantity::Packets, number)]);
            found.add(Setting::Host, sample(host));
            found.add(Setting::Vxlan, sample(vxlan));
        }
        let same = |number| Some(Spread { median: number, low: number, high: number });
        assert_eq!(found.ratio(Setting::Vxlan, Setting::Host, Quantity::Packets), same(0.5));
        assert_eq!(found.spread(Setting::Host, Quantity::Packets).map(|spread| spread.median), Some(10.0));
        assert_eq!(found.ratio(Setting::Veth, Setting::Host, Quantity::Packets), None);
    }
}

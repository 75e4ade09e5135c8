//! Medians and quartiles. A round in which the machine did something else is one value among several.

use serde::Serialize;

/// What several rounds found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    /// Half of the rounds were below.
    pub(super) median: f64,
    /// A quarter was below.
    pub(super) low: f64,
    /// A quarter was above.
    pub(super) high: f64,
}

impl Spread {
    /// Of at least one value.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<_> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part| quantile(&sorted, part);
        (!sorted.is_empty()).then(|| Self { median: at(0.5), low: at(0.25), high: at(0.75) })
    }
}

/// The value that `part` of the sorted values are below; between two values on the line that joins them.
pub(super) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let place = super::number(last as u64) * part;
    let below = super::whole(place).min(last);
    let (low, high) = (sorted.get(below), sorted.get((below + 1).min(last)));
    let (Some(low), Some(high)) = (low, high) else { return f64::NAN };
    low + (high - low) * (place - place.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_values() {
        let check = |values: &[f64], expect: Option<(f64, f64, f64)>| {
            let found = Spread::of(values.iter().copied()).map(|Spread { median, low, high }| (low, median, high));
            assert_eq!(found, expect, "{values:?}");
        };
        check(&[], None);
        check(&[3.0], Some((3.0, 3.0, 3.0)));
        check(&[2.0, 1.0], Some((1.25, 1.5, 1.75)));
        check(&[5.0, 1.0, 2.0, 4.0, 3.0], Some((2.0, 3.0, 4.0)));
    }
}

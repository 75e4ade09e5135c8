//! The checked-in table of what the programs cost on each series of kernels, and what counts as growth.
//!
//! A line is a kernel, a program, its verified instructions, and its stack: `6.18 from_workload 5210 240`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result};

use super::cost::Cost;

/// A kernel's first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    major: u32,
    minor: u32,
}

/// What is known of a program on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) verified: u32,
    pub(super) stack: u32,
}

/// Every kernel that was blessed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(BTreeMap<(Series, String), Known>);

/// A quarter of what the verifier looks at before it gives up: kernels differ by more than twice.
pub(super) const MOST: u32 = 250_000;

/// Growth in percent that needs a blessing.
const GROWTH: u64 = 10;

const HEADER: &str = "\
# What the programs cost the verifier: kernel, program, verified instructions, bytes of stack.
# Written by `cargo xtask verify --bless`; a change of it is part of the change that caused it.
";

impl Table {
    /// Whether anything is known of a kernel.
    pub(super) fn knows(&self, series: Series) -> bool {
        self.0.keys().any(|(known, _)| *known == series)
    }

    pub(super) fn get(&self, series: Series, program: &str) -> Option<Known> {
        self.0.get(&(series, program.to_owned())).copied()
    }

    /// Puts what was found in the place of all that was known of this kernel.
    pub(super) fn bless(&mut self, series: Series, found: &[Cost]) {
        self.0.retain(|(known, _), _| *known != series);
        self.0.extend(found.iter().map(|cost| {
            let &Cost { ref program, verified, stack, instructions: _, jited: _, microseconds: _ } = cost;
            ((series, program.clone()), Known { verified, stack })
        }));
    }

    /// What is wrong with a program, in words.
    pub(super) fn complaints(&self, series: Series, cost: &Cost) -> Vec<String> {
        let &Cost { ref program, verified, stack, .. } = cost;
        let mut complaints = Vec::new();
        if verified > MOST {
            complaints.push(format!("{program}: {verified} verified instructions, of which {MOST} are allowed"));
        }
        match self.get(series, program) {
            Some(known) => {
                if u64::from(verified) * 100 > u64::from(known.verified) * (100 + GROWTH) {
                    let known = known.verified;
                    complaints
                        .push(format!("{program}: {verified} verified instructions, more than {known} + {GROWTH} %"));
                }
                if stack > known.stack {
                    complaints.push(format!("{program}: {stack} bytes of stack, more than {}", known.stack));
                }
            }
            None if self.knows(series) => complaints.push(format!("{program} is new: bless it")),
            None => {}
        }
        complaints
    }
}

impl FromStr for Table {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
        let entries = lines.map(|(at, line)| entry(line).with_context(|| format!("line {}: {line:?}", at + 1)));
        entries.collect::<Result<_>>().map(Self)
    }
}

fn entry(line: &str) -> Result<((Series, String), Known)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [series, program, verified, stack] = words[..] else {
        anyhow::bail!("write kernel, program, instructions and stack");
    };
    let verified = verified.parse().context("read the number of instructions")?;
    let stack = stack.parse().context("read the bytes of stack")?;
    Ok(((series.parse()?, program.to_owned()), Known { verified, stack }))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        for ((series, program), Known { verified, stack }) in &self.0 {
            writeln!(f, "{series} {program} {verified} {stack}")?;
        }
        Ok(())
    }
}

/// Reads a release, as `6.12.57+deb12-cloud-amd64`, or the series alone.
impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(release: &str) -> Result<Self> {
        let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        let (Some(major), Some(minor)) = (next(), next()) else {
            anyhow::bail!("{release:?} is no release of a kernel");
        };
        Ok(Self { major, minor })
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Series = Series { major: 6, minor: 18 };

    fn cost(program: &str, verified: u32, stack: u32) -> Cost {
        Cost { program: program.into(), instructions: 1, verified, stack, jited: 1, microseconds: 1 }
    }

    #[test]
    fn a_table_round_trips_and_a_blessing_replaces_one_kernel() {
        let mut table: Table = "# a comment\n6.1 guard 100 8\n6.18 gone 7 0\n".parse().unwrap();
        table.bless(HERE, &[cost("guard", 110, 24)]);
        let text = table.to_string();
        assert_eq!(text.strip_prefix(HEADER), Some("6.1 guard 100 8\n6.18 guard 110 24\n"));
        assert_eq!(text.parse::<Table>().unwrap(), table);
        assert!("6.18 guard many 8".parse::<Table>().unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn growth_is_complained_about() {
        let mut table = Table::default();
        let check = |table: &Table, found: Cost, words: &[&str]| {
            let complaints = table.complaints(HERE, &found);
            assert_eq!(complaints.len(), words.len(), "{complaints:?}");
            assert!(complaints.iter().zip(words).all(|(complaint, word)| complaint.contains(word)), "{complaints:?}");
        };
        check(&table, cost("guard", 1000, 64), &[]);
        check(&table, cost("guard", MOST + 1, 64), &["are allowed"]);
        table.bless(HERE, &[cost("guard", 1000, 64)]);
        check(&table, cost("guard", 1100, 64), &[]);
        check(&table, cost("guard", 1101, 72), &["verified instructions", "72 bytes of stack"]);
        check(&table, cost("other", 1, 0), &["new"]);
    }

    #[test]
    fn a_series_is_the_start_of_a_release() {
        assert_eq!("6.18.44-fc-v595\n".parse::<Series>().unwrap(), HERE);
        assert!("six".parse::<Series>().is_err());
    }
}

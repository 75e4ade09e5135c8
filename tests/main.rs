//! Scenarios: what weft promises, seen on real namespaces, real kernels and real daemons.

#![expect(clippy::needless_for_each, reason = "an assertion about each of a few things reads well on one line")]
#![expect(clippy::wildcard_enum_match_arm, reason = "aya has kinds of programs that we have not")]
#![expect(clippy::unwrap_used, reason = "a scenario panics, with the line, where something is not as it has to be")]

mod cluster;
mod policy;
mod prog;

//! Packet stories: frames run through the programs by `BPF_PROG_TEST_RUN`, the output of one program into the next one
//! on the next host.
//!
//! Every story asserts the whole state: [`lab::Lab`] compares all counters of all hosts, and what a story did not
//! expect fails it.

mod accounts;
mod answer;
mod compiled;
mod differential;
mod ends;
mod flow;
mod fragment;
mod guard;
mod host;
mod icmp;
pub(super) mod lab;
mod local;
mod malformed;
mod neighbor;
mod overlay;
mod pcaps;
mod policy;
mod real;
mod replicate;
mod report;
mod segment_size;
mod shadow;
mod spoof;
mod start;
mod station;
mod tunnel;

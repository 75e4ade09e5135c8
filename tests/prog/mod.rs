//! Packet stories: frames run through the programs by `BPF_PROG_TEST_RUN`, the output of one program into the next one
//! on the next host.
//!
//! Every story asserts the whole state: [`lab::Lab`] compares all counters of all hosts, and what a story did not
//! expect fails it.

mod answer;
mod flow;
mod fragment;
mod guard;
mod host;
mod icmp;
mod lab;
mod local;
mod neighbor;
mod overlay;
mod policy;
mod spoof;
mod start;
mod tunnel;

//! What both sides of the kernel boundary must agree on.
//!
//! Records that live in maps, the tables that hold them, and every decision that can be a function of
//! values: reading a frame, the flow state machine, policy, the tunnel header. The eBPF programs, the
//! daemon, the CLI and the tests call the same code.
//!
//! Invariants: no I/O, no allocation, no panic; a record has no padding and any bits are a valid value;
//! the empty value is the safe one. Modules are in order of dependency.

#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod wire;

pub mod addr;
pub mod checksum;
pub mod id;
pub mod verdict;

pub mod header;
pub mod parse;

pub mod answer;
pub mod cut;
pub mod flow;
pub mod fragment;
pub mod group;
pub mod policy;
pub mod route;
pub mod tunnel;

pub mod event;
pub mod table;

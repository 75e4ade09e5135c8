//! What every scenario is made of: hosts, containers and the network between them as namespaces of this machine,
//! probes that answer within a deadline, and frames written and read byte by byte.
//!
//! Needs root. Nothing here sleeps: every wait is for a condition and has an end. Every guard takes away on drop what
//! it made; what a killed run left behind is swept by the next one. Tests panic, so these functions do too, at the
//! caller's line and with the command, the address or the bytes that were wrong.
//!
//! Knows nothing of how weft works inside: it starts the binaries and watches the wires.

#![deny(unsafe_code)]

pub mod command;
pub mod dice;
pub mod frame;
pub mod host;
pub mod netns;
mod socket_options;
pub mod sweep;
pub mod traffic;
pub mod underlay;
pub mod wait;
pub mod wire;
mod worker;

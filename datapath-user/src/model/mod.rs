//! Domain values: what an operator speaks of. Every value was checked once when it was made.
//!
//! Knows nothing of files, tables, tasks or clocks, and can not be serialised: formats belong to the edges.

pub mod invalid;
pub mod stable;
pub mod time;
mod words;

pub mod labels;
pub mod name;
pub mod prefix;
pub mod traffic;

pub mod selector;

pub mod rule;

pub mod expect;

pub mod app;
pub mod endpoint;
pub mod host;

pub mod cluster;

pub mod allocate;
pub mod check;

#[cfg(test)]
pub(crate) mod example;

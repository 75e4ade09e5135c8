//! The command `weft`: arguments in, one request to the daemon, an answer for people or for programs.
//!
//! Knows nothing of tables and of the cluster: it reads what [`crate::front::api`] answers, and what [`crate::intent`]
//! does of files without a daemon. Invariant: what comes
//! from outside reaches the terminal through [`page::escape`] alone.

pub mod args;
pub mod json;
pub mod page;
pub mod table;

mod app;
mod drops;
mod endpoint;
mod failure;
mod files;
mod flow;
mod hosts;
mod human;
mod junit;
mod learn;
mod maps;
mod matrix;
mod offline;
mod policy;
mod run;
mod state;
mod wait;
mod why;
mod words;

pub use run::run;

#[cfg(test)]
mod tests;

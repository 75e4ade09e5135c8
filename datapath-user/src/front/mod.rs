//! Where intent comes in: the edges that speak other people's formats.
//!
//! A front parses what it is told into domain values, asks a [`api::Handler`], and prints the answer in its format.
//! It touches no table, no link and no namespace.

pub mod api;

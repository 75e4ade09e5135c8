//! weft: a network for the containers of many hosts, with a firewall for each application.

pub mod cli;
pub mod front;
pub mod model;
pub mod plan;
pub mod store;
pub mod kernel;
pub mod reconcile;
pub mod status;
pub mod daemon;
pub mod observe;
pub mod order;
pub mod service;
pub mod slowpath;

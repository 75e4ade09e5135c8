//! weft: a network for the containers of many hosts, with a firewall for each application.

pub mod model;
pub mod plan;

//! weft: a network for the containers of many hosts, with a firewall for each application.
//!
//! Modules in layers; an edge that is not in `xtask tidy`'s table does not build in CI.

// The cluster as values: no I/O, no serialisation.
pub mod model;

// Where the cluster is kept, and how it is changed.
pub mod store;

// Pure: what operators write of policies and apps.
pub mod manifest;

// Pure: the difference of two tables, and tables that share what they have in common.
mod delta;
pub mod shared;

// Pure: what this host should have.
pub mod plan;

// The kernel's objects as values; the only module with `unsafe`.
pub mod kernel;

// How far this host is: written by the reconciler, awaited by the use cases.
pub mod status;

// What the use cases ask of the reconciler.
pub mod order;

// Brings the host into accord with the plan.
pub mod reconcile;

// What the programs reported.
pub mod observe;

// Packets that the tables could not place.
pub mod slowpath;

// Who wants which multicast group.
pub mod groups;

// How the outside reaches the use cases: the API.
pub mod front;

// What manifests come to, whether what they expect holds, who reaches whom. Pure.
pub mod intent;

// The use cases.
pub mod service;

// The commands of `weft`.
pub mod cli;

// Wires the tasks of `weftd`.
pub mod daemon;

//! How far this host has come: what the reconciler reached, what it could not do, what it had to repair.
//!
//! A leaf: the reconciler writes the board, a synchronous caller waits on it. Knows nothing of either.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use crate::model::endpoint::EndpointKey;

/// What the last pass of the reconciler came to.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The store's revision that this host is in accord with. Everything older is in force too.
    pub revision: u64,
    /// The programs' epoch.
    pub epoch: u32,
    /// Passes so far.
    pub passes: u64,
    /// When the last one ended.
    pub when: Option<SystemTime>,
    /// How long it took.
    pub took: Duration,
    /// The endpoints of this host.
    pub endpoints: BTreeMap<EndpointKey, EndpointState>,
    /// What could not be done, as a human reads it. Tried again in every pass.
    pub failures: Vec<String>,
    /// Programs that the kernel refused: an earlier version goes on, or nothing does.
    pub refused: Vec<String>,
    /// Things found otherwise than they were left, and put right: by kind.
    pub repaired: BTreeMap<&'static str, u64>,
    /// How many entries have no room, by table. While a plan does not fit, the one before stays in force.
    pub without_room: BTreeMap<&'static str, u64>,
    /// Flows that a change of policy ended.
    pub revoked: u64,
}

impl Status {
    /// The revision in force; none before the first pass.
    pub fn in_force(&self) -> Option<u64> {
        (self.passes > 0).then_some(self.revision)
    }
}

/// How it is with an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// Its packets pass as policy says.
    Ready,
    /// Something is missing; nothing of it passes.
    Failed(String),
}

/// Where the status is posted.
#[derive(Clone, Debug)]
pub struct Board(Arc<watch::Sender<Arc<Status>>>);

impl Board {
    /// Nothing is posted yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(Status::default()))))
    }

    /// What was posted last.
    pub fn read(&self) -> Arc<Status> {
        Arc::clone(&self.0.borrow())
    }

    /// Posts.
    pub fn post(&self, status: Status) {
        self.0.send_replace(Arc::new(status));
    }

    /// Waits until what is posted is as `wanted`, and gives it. None: not within this time.
    pub async fn wait(&self, within: Duration, wanted: impl Fn(&Status) -> bool) -> Option<Arc<Status>> {
        let mut board = self.0.subscribe();
        let found = tokio::time::timeout(within, board.wait_for(|status| wanted(status))).await;
        found.ok()?.ok().map(|status| Arc::clone(&status))
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

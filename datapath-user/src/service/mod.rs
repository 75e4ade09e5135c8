//! The use cases. Frontends call these and nothing else; they write intent to the store, wait until the board says
//! that this host has reached it, and read what the programs keep.

mod accounts;
mod attach;
mod changes;
mod contacts;
mod doctor;
mod handler;
mod live;
mod look;
mod maps;
mod naming;
mod policies;
mod probe;
mod why;
mod words;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::{Mutex, mpsc, watch};
use weft_common::table;

use crate::front::api::refusal::{Kind, Refusal};
use crate::kernel::pins::Pins;
use crate::model::{cluster::Revision, name::HostName};
use crate::observe::Observer;
use crate::order::Order;
use crate::plan::NodePlan;
use crate::status::Board;
use crate::store::{Snapshot, Store};

/// How long a caller waits for this host to reach what it asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the use cases need.
pub struct Service {
    host: HostName,
    store: Arc<dyn Store>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    board: Board,
    observer: Arc<Observer>,
    plan: watch::Receiver<Arc<NodePlan>>,
    orders: mpsc::Sender<Order>,
    pins: Pins,
    started: SystemTime,
    /// Choosing an address and keeping it is one step.
    attaching: Mutex<()>,
    /// Looking at what a change of policy comes to and making it is one step. Taken after `attaching`.
    changing: Mutex<()>,
    digests: policies::Digests,
    /// How long a caller waits.
    patience: Duration,
}

/// Where the rest of the daemon is found.
pub struct Parts {
    /// The state of the cluster.
    pub store: Arc<dyn Store>,
    /// How far this host is.
    pub board: Board,
    /// What the programs reported.
    pub observer: Arc<Observer>,
    /// What is in force.
    pub plan: watch::Receiver<Arc<NodePlan>>,
    /// Where orders for the reconciler go.
    pub orders: mpsc::Sender<Order>,
    /// Where the tables are.
    pub pins: Pins,
}

impl Service {
    /// The use cases of `host`.
    pub fn new(host: HostName, parts: Parts) -> Self {
        let Parts { store, board, observer, plan, orders, pins } = parts;
        let snapshots = store.watch();
        Self {
            host,
            store,
            snapshots,
            board,
            observer,
            plan,
            orders,
            pins,
            started: SystemTime::now(),
            attaching: Mutex::new(()),
            changing: Mutex::new(()),
            digests: policies::Digests::default(),
            patience: PATIENCE,
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    fn plan(&self) -> Arc<NodePlan> {
        Arc::clone(&self.plan.borrow())
    }

    /// The revision that is in force here, once one is.
    fn revision(&self) -> Option<u64> {
        self.board.read().in_force()
    }

    /// Waits until there is a plan: a daemon that has just started has not looked at its host yet.
    async fn planned(&self) -> Result<(), Refusal> {
        let mut plan = self.plan.clone();
        let made = plan.wait_for(|plan| plan.config != table::Config::default());
        match tokio::time::timeout(self.patience, made).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Refusal::new(Kind::Unavailable, "the daemon is ending")),
            Err(_) => Err(Refusal::new(Kind::Unavailable, "the first pass did not succeed yet: see weft status")),
        }
    }

    /// Waits until a revision is in force here. Says whether it is.
    async fn reached(&self, revision: Revision) -> bool {
        self.board.wait(self.patience, |status| status.revision >= revision.0).await.is_some()
    }
}

#[cfg(test)]
mod tests;

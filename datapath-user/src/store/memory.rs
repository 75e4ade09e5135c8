//! A cluster in memory: for tests, and for a host that needs no other.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::model::{
    check::{self, Fault},
    cluster::{Cluster, Revision},
    name::HostName,
};

use super::{
    ChangeError, Snapshot, Store,
    change::{Change, apply},
};

/// The engine.
#[derive(Debug)]
pub struct MemoryStore {
    host: HostName,
    state: watch::Sender<Arc<Snapshot>>,
}

impl MemoryStore {
    /// A store of `host` that starts with `cluster`.
    pub fn new(host: HostName, cluster: Cluster) -> Result<Self, Vec<Fault>> {
        check::check(&cluster)?;
        let snapshot = Snapshot { revision: Revision(1), cluster: Arc::new(cluster), problem: None, unwritten: None };
        Ok(Self { host, state: watch::Sender::new(Arc::new(snapshot)) })
    }
}

impl Store for MemoryStore {
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.state.subscribe()
    }

    fn change_of(&self, change: Change, seen: Option<Arc<Snapshot>>) -> BoxFuture<'_, Result<Revision, ChangeError>> {
        let mut outcome = Ok(Revision::default());
        self.state.send_if_modified(|state| {
            if seen.is_some_and(|seen| !seen.cluster.shares_with(&state.cluster)) {
                outcome = Err(ChangeError::Overtaken);
                return false;
            }
            let next = apply(&state.cluster, &change, &self.host, state.revision);
            let changed = next.as_ref().is_ok_and(|next| *next != *state.cluster);
            outcome = next.map(|next| {
                if changed {
                    let revision = state.revision.next();
                    *state = Arc::new(Snapshot { revision, cluster: Arc::new(next), problem: None, unwritten: None });
                }
                state.revision
            });
            changed
        });
        Box::pin(std::future::ready(outcome))
    }
}

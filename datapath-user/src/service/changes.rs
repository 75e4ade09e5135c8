//! How a change is made: decided by what is there, admitted, written, and anew where another host was faster.

use std::{sync::Arc, time::SystemTime};

use crate::front::api::refusal::{Kind, Refusal};
use crate::intent;
use crate::kernel::config;
use crate::model::{
    cluster::{Cluster, Revision},
    name::HostName,
};
use crate::plan::{NodePlan, foresee};
use crate::store::{
    ChangeError, Snapshot,
    change::{self, Change},
};

use super::Service;

/// How often other hosts may be faster.
const ATTEMPTS: usize = 20;

impl Service {
    /// Makes a change, if it fits into the tables and what is expected holds afterwards.
    pub(super) async fn change(&self, change: Change) -> Result<Revision, Refusal> {
        match Concern::of(&change) {
            Concern::Nothing => Ok(self.store.change(change).await?),
            Concern::Endpoint if foresee::has_room(&self.plan()) => Ok(self.store.change(change).await?),
            Concern::Endpoint | Concern::Policy => {
                let (revision, ()) = self.change_by(move |_| Ok((change.clone(), ()))).await?;
                Ok(revision)
            }
        }
    }

    /// As `change`, for one that depends on what is there.
    pub(super) async fn change_by<T: Send + 'static>(
        &self,
        make: impl Fn(&Cluster) -> Result<(Change, T), Refusal> + Send + Sync + 'static,
    ) -> Result<(Revision, T), Refusal> {
        let host = self.host.clone();
        let decide = move |seen: &Snapshot, admission: &Admission| {
            let before = &seen.cluster;
            let (change, told) = make(before)?;
            // What the store refuses it refuses in its own words.
            let Ok(next) = change::apply(before, &change, &host, seen.revision) else { return Ok((change, told)) };
            if Concern::of(&change) == Concern::Policy {
                intent::kept(before, &next, |_| false, &admission.running)?;
                admission.of_policy(before, &next)?;
            }
            admission.of_placement(before, &next)?;
            Ok((change, told))
        };
        self.decided(decide).await
    }

    /// Makes the change that is decided by what is there: anew where another host was faster with its own.
    pub(super) async fn decided<T: Send + 'static>(
        &self,
        decide: impl Fn(&Snapshot, &Admission) -> Result<(Change, T), Refusal> + Send + Sync + 'static,
    ) -> Result<(Revision, T), Refusal> {
        let decide = Arc::new(decide);
        let _turn = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let seen = self.store.latest().await?;
            let (decide, of, admission) = (Arc::clone(&decide), Arc::clone(&seen), self.admission());
            let (change, told) = blocking(move || decide(&of, &admission)).await?;
            match self.store.change_of(change, Some(seen)).await {
                Err(ChangeError::Overtaken) => tracing::debug!("decide a change anew: another host was faster"),
                done => return Ok((done?, told)),
            }
        }
        Err(ChangeError::Overtaken.into())
    }

    pub(super) fn admission(&self) -> Admission {
        Admission { host: self.host.clone(), running: self.plan() }
    }
}

/// What a change has to do with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Concern {
    /// What expectations speak of, and what tables hold of it.
    Policy,
    /// One endpoint more, or another.
    Endpoint,
    /// What takes nothing, and is never refused.
    Nothing,
}

impl Concern {
    fn of(change: &Change) -> Self {
        match change {
            Change::AddRule(_)
            | Change::RemoveRule(_)
            | Change::AddApp(..)
            | Change::SetApp(..)
            | Change::AddRole(..)
            | Change::RemoveApp(_)
            | Change::SetPolicies(_)
            | Change::Promote(_) => Self::Policy,
            Change::PutEndpoint(_) => Self::Endpoint,
            Change::RemoveEndpoint(_) | Change::EndpointGone(..) | Change::Reserve(..) | Change::Release(_) => {
                Self::Nothing
            }
        }
    }
}

/// Asks, before the store has a change, whether this host's tables could have what it comes to.
pub(super) struct Admission {
    host: HostName,
    pub(super) running: Arc<NodePlan>,
}

impl Admission {
    pub(super) fn of_policy(&self, before: &Cluster, next: &Cluster) -> Result<(), Refusal> {
        let utc = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = foresee::clock(&self.running, utc, config::since_boot());
        intent::admit(before, next, |cluster| foresee::policy_fits(cluster, clock, &self.running))
    }

    pub(super) fn of_placement(&self, before: &Cluster, next: &Cluster) -> Result<(), Refusal> {
        intent::admit(before, next, |cluster| foresee::placement_fits(cluster, &self.host, &self.running))
    }
}

/// Does what may take a second where nobody waits for the thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |_| Refusal::new(Kind::Internal, "the daemon failed at this request: see its log");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

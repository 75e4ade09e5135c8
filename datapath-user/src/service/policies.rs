//! Policies as manifests, and which of them this host enforces.

use std::{collections::BTreeSet, sync::Arc};

use weft_common::{id::Epoch, policy::SetKey, table};

use crate::front::api::{
    dto::{
        learning::{LearnPolicy, Learned},
        policies::{
            ApplyPolicy, DeletePolicy, DiffPolicy, ExportPolicy, Exported, Matrix, PolicyChange, PolicyDiff,
            PolicyDigest, ShowMatrix,
        },
    },
    refusal::Refusal,
};
use crate::intent::{self, Wanted};
use crate::kernel::{
    config::ConfigCell,
    pins::Pins,
    tables::{Keyed as _, Map, Trie},
};
use crate::model::cluster::Cluster;
use crate::plan::{
    digest::Digest,
    rules::{Policy, Read},
};
use crate::store::{Snapshot, change::Change};

use super::{
    Service,
    changes::{Admission, blocking},
};

/// The digest of what was asked for last: it is asked for more often than it changes.
#[derive(Debug, Default)]
pub(super) struct Digests(std::sync::Mutex<Option<(Arc<Policy>, Digest)>>);

impl Digests {
    fn of(&self, policy: &Arc<Policy>) -> Digest {
        // What is kept is whole at any time.
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*last {
            Some((known, digest)) if Arc::ptr_eq(known, policy) => *digest,
            _ => last.insert((Arc::clone(policy), Digest::of(policy))).1,
        }
    }
}

impl Service {
    pub(super) async fn do_apply(&self, ApplyPolicy { files }: ApplyPolicy) -> Result<PolicyChange, Refusal> {
        let manifest = blocking(move || intent::read(files)).await?;
        // What a manifest leaves out stays as it is: also as another host has just made it.
        self.set_policies(move |cluster| intent::wanted(cluster, manifest.clone())).await
    }

    pub(super) async fn do_delete(&self, DeletePolicy { names, files }: DeletePolicy) -> Result<PolicyChange, Refusal> {
        let mut remove: BTreeSet<_> = names.into_iter().collect();
        if !files.is_empty() {
            remove.extend(blocking(move || intent::read(files)).await?.policies.into_keys());
        }
        self.set_policies(move |_| Wanted::without(remove.clone())).await
    }

    pub(super) async fn do_diff(&self, DiffPolicy { files }: DiffPolicy) -> Result<PolicyDiff, Refusal> {
        let (cluster, admission) = (Arc::clone(&self.snapshot().cluster), self.admission());
        blocking(move || {
            let wanted = intent::wanted(&cluster, intent::read(files)?);
            let (next, breaks) = intent::outcome(&cluster, &wanted, &admission.running)?;
            admission.of_policy(&cluster, &next)?;
            Ok(PolicyDiff { parts: intent::difference(&cluster, &next, &wanted.change), breaks })
        })
        .await
    }

    pub(super) fn do_export(&self, ExportPolicy { names, all }: &ExportPolicy) -> Result<Exported, Refusal> {
        intent::export(&self.snapshot().cluster, names, *all)
    }

    pub(super) async fn matrix(&self, request: ShowMatrix) -> Result<Matrix, Refusal> {
        let cluster = Arc::clone(&self.snapshot().cluster);
        let policy = Arc::clone(&self.plan().policy);
        // What is in force may be of an earlier cluster for a moment: then its tables are made.
        blocking(move || {
            let policy = Some(policy).filter(|policy| policy.is_of(&cluster));
            intent::matrix(&cluster, policy, &request)
        })
        .await
    }

    pub(super) async fn do_learn(&self, request: LearnPolicy) -> Result<Learned, Refusal> {
        let cluster = Arc::clone(&self.snapshot().cluster);
        blocking(move || intent::learn(&cluster, &request)).await
    }

    pub(super) async fn do_digest(&self) -> Result<PolicyDigest, Refusal> {
        let (snapshot, plan, board) = (self.snapshot(), self.plan(), self.board.read());
        let policy = Arc::clone(&plan.policy);
        let digest = self.digests.of(&policy);
        let is_current = board.passes > 0 && board.revision >= snapshot.revision.0 && policy.is_of(&snapshot.cluster);
        let pins = self.pins.clone();
        let enforced = is_current
            && blocking(move || {
                let read = in_kernel(&pins)?;
                Ok(Digest::of(&policy.with_tables_of(read)) == digest)
            })
            .await?;
        Ok(PolicyDigest {
            host: self.host.to_string(),
            digest: digest.to_string(),
            revision: snapshot.revision.0,
            enforced,
        })
    }

    /// Of the policy of the plan in force, if there is one.
    pub(super) fn digest_in_force(&self) -> Option<String> {
        let plan = self.plan();
        plan.policy.made_of.is_some().then(|| self.digests.of(&plan.policy).to_string())
    }

    async fn set_policies(
        &self,
        make: impl Fn(&Cluster) -> Wanted + Send + Sync + 'static,
    ) -> Result<PolicyChange, Refusal> {
        let decide = move |seen: &Snapshot, admission: &Admission| {
            let (before, asked) = (&seen.cluster, make(&seen.cluster));
            let (next, expectations) = intent::preview(before, &asked, &admission.running)?;
            admission.of_policy(before, &next)?;
            admission.of_placement(before, &next)?;
            let parts = intent::difference(before, &next, &asked.change);
            Ok((Change::SetPolicies(asked.change), (parts, expectations)))
        };
        let (revision, (parts, expectations)) = self.decided(decide).await?;
        let in_force = self.reached(revision).await;
        Ok(PolicyChange { parts, expectations, revision: revision.0, in_force, hosts: Vec::new() })
    }
}

/// The policy that the kernel's tables hold, as the slot in force has it.
fn in_kernel(pins: &Pins) -> anyhow::Result<Read> {
    let epoch: Epoch = ConfigCell::open(pins)?.load().epoch;
    let sets = Map::<table::Sets>::open(pins)?.entries()?.into_iter();
    let in_force = sets.filter(|(key, _)| key.slot & !SetKey::SHADOW == epoch.slot());
    Ok(Read {
        sets: in_force.map(|(key, set)| (SetKey { slot: key.slot & SetKey::SHADOW, ..key }, set)).collect(),
        peer_lists: Map::<table::PeerLists>::open(pins)?.entries()?,
        prefix_lists: Trie::<table::PrefixLists>::open(pins)?.entries()?,
        rules: Trie::<table::RuleLists>::open(pins)?.entries()?,
    })
}

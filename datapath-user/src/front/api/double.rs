//! A handler for tests of the server, the client and the CLI: it gives the answers of [`example`].

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, mpsc};

use super::{
    Handler,
    dto::{
        apps::{AddApp, AppDetail, AppList, Changed, ListApps, RemoveApp, SetApp, ShowApp},
        drops::{DropList, Dropped, FollowDrops, ListDrops},
        endpoints::{Attach, Attached, Detach, Detached, EndpointList, ListEndpoints, Relabel, Relabelled},
        flows::{FlowList, ListFlows, ListTraffic, TrafficList},
        learning::{ContactList, LearnPolicy, Learned, ListContacts},
        maps::{MapList, ShowMaps},
        policies::{
            ApplyPolicy, DeletePolicy, DiffPolicy, ExportPolicy, Exported, GetDigest, Matrix, PolicyChange, PolicyDiff,
            PolicyDigest, ShowMatrix,
        },
        rules::{AddRule, ListRules, Policy, Promote, RemoveRule, RuleChange, RuleList, ShowPolicy},
        state::{Diagnose, Diagnosis, GetStatus, ListPeers, PeerList, Reset, ResetDone, Status},
        why::{Why, WhyAnswer},
    },
    example,
    refusal::Refusal,
};

/// A handler whose every answer is known.
#[derive(Default)]
pub(crate) struct Double {
    /// What was attached.
    pub(crate) attached: Mutex<Vec<Attach>>,
    /// It never says which policy it has.
    pub(crate) is_mute: AtomicBool,
    /// What was applied.
    pub(crate) applied: Mutex<Vec<ApplyPolicy>>,
    /// A removal has begun, and waits for this.
    pub(crate) go: Notify,
    pub(crate) removing: AtomicUsize,
    pub(crate) removed: AtomicUsize,
    pub(crate) followers: Mutex<Vec<mpsc::Sender<Dropped>>>,
}

impl Handler for Double {
    async fn list_apps(&self, ListApps {}: ListApps) -> Result<AppList, Refusal> {
        Ok(example::app_list())
    }
    async fn show_app(&self, ShowApp { name }: ShowApp) -> Result<AppDetail, Refusal> {
        Err(Refusal::no_app(&name))
    }
    async fn add_app(&self, _: AddApp) -> Result<Changed, Refusal> {
        Ok(example::changed())
    }
    async fn set_app(&self, _: SetApp) -> Result<Changed, Refusal> {
        Ok(example::changed())
    }
    async fn remove_app(&self, _: RemoveApp) -> Result<Changed, Refusal> {
        self.removing.fetch_add(1, Ordering::SeqCst);
        self.go.notified().await;
        self.removed.fetch_add(1, Ordering::SeqCst);
        Ok(example::changed())
    }
    async fn list_endpoints(&self, _: ListEndpoints) -> Result<EndpointList, Refusal> {
        Ok(example::endpoint_list())
    }
    async fn relabel(&self, _: Relabel) -> Result<Relabelled, Refusal> {
        Ok(example::relabelled())
    }
    async fn attach(&self, request: Attach) -> Result<Attached, Refusal> {
        self.attached.lock().unwrap().push(request);
        Ok(example::attached())
    }
    async fn detach(&self, _: Detach) -> Result<Detached, Refusal> {
        Ok(example::detached())
    }
    async fn list_rules(&self, _: ListRules) -> Result<RuleList, Refusal> {
        Ok(example::rule_list())
    }
    async fn add_rule(&self, _: AddRule) -> Result<RuleChange, Refusal> {
        Ok(example::rule_change())
    }
    async fn remove_rule(&self, _: RemoveRule) -> Result<RuleChange, Refusal> {
        Ok(example::rule_change())
    }
    async fn promote(&self, _: Promote) -> Result<Changed, Refusal> {
        Ok(example::changed())
    }
    async fn show_policy(&self, ShowPolicy { app }: ShowPolicy) -> Result<Policy, Refusal> {
        assert_ne!(app.as_str(), "panic", "a handler that fails");
        Ok(example::policy())
    }
    async fn apply_policy(&self, request: ApplyPolicy) -> Result<PolicyChange, Refusal> {
        self.applied.lock().unwrap().push(request);
        Ok(example::policy_change())
    }
    async fn delete_policy(&self, _: DeletePolicy) -> Result<PolicyChange, Refusal> {
        Ok(example::policy_change())
    }
    async fn diff_policy(&self, _: DiffPolicy) -> Result<PolicyDiff, Refusal> {
        Ok(example::policy_diff())
    }
    async fn export_policy(&self, _: ExportPolicy) -> Result<Exported, Refusal> {
        Ok(example::exported())
    }
    async fn show_matrix(&self, _: ShowMatrix) -> Result<Matrix, Refusal> {
        Ok(example::matrix())
    }
    async fn learn_policy(&self, request: LearnPolicy) -> Result<Learned, Refusal> {
        let LearnPolicy { app, policy: _, contacts, asked: _ } = request;
        let learned = Learned { contacts: contacts.len() as u64, unseen: Vec::new(), ..example::learned() };
        (app.as_str() == "shop").then_some(learned).ok_or_else(|| Refusal::no_app(&app))
    }
    async fn digest(&self, _: GetDigest) -> Result<PolicyDigest, Refusal> {
        if self.is_mute.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(example::policy_digest())
    }
    async fn why(&self, _: Why) -> Result<WhyAnswer, Refusal> {
        Ok(example::why())
    }
    async fn list_flows(&self, _: ListFlows) -> Result<FlowList, Refusal> {
        Ok(example::flow_list())
    }
    async fn list_contacts(&self, request: ListContacts) -> Result<ContactList, Refusal> {
        Ok(example::contact_list(request.after))
    }
    async fn list_traffic(&self, _: ListTraffic) -> Result<TrafficList, Refusal> {
        Ok(example::traffic_list())
    }
    async fn list_drops(&self, _: ListDrops) -> Result<DropList, Refusal> {
        Ok(example::drop_list())
    }
    async fn follow_drops(&self, _: FollowDrops) -> Result<mpsc::Receiver<Dropped>, Refusal> {
        let (sender, receiver) = mpsc::channel(4);
        sender.send(example::dropped()).await.unwrap();
        self.followers.lock().unwrap().push(sender);
        Ok(receiver)
    }
    async fn list_peers(&self, _: ListPeers) -> Result<PeerList, Refusal> {
        Ok(example::peer_list())
    }
    async fn status(&self, _: GetStatus) -> Result<Status, Refusal> {
        Ok(example::status())
    }
    async fn show_maps(&self, _: ShowMaps) -> Result<MapList, Refusal> {
        Ok(example::map_list())
    }
    async fn diagnose(&self, _: Diagnose) -> Result<Diagnosis, Refusal> {
        Ok(example::diagnosis())
    }
    async fn reset(&self, _: Reset) -> Result<ResetDone, Refusal> {
        Ok(example::reset_done())
    }
}

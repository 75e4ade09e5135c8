//! The daemon's API: JSON over HTTP/1.1 on a Unix socket. What can be asked, and who answers.
//!
//! Every use case is a request type of [`dto`] with a path and an answer ([`Call`]), and a method of [`Handler`].

pub mod access;
pub mod client;
#[cfg(test)]
pub(crate) mod double;
pub mod dto;
#[cfg(test)]
pub(crate) mod example;
pub mod refusal;
pub mod server;

use std::future::Future;

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use self::{
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
    refusal::Refusal,
};

/// Where the daemon listens, unless it is told otherwise.
pub const SOCKET: &str = "/run/weft/weft.sock";
/// Members of this group may use the socket, as root may.
pub const GROUP: &str = "weft";
/// The longest body of a request: manifests with 50 000 rules have to fit. In Kubernetes' form, some 500 bytes a rule,
/// they are 25 MB, and JSON escapes their lines.
pub const BODY_MAX: usize = 1 << 25;

/// A request, and what belongs to it.
pub trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// Where it is posted.
    const PATH: &'static str;
    /// Whether it changes something.
    const EFFECT: Effect;
    /// What comes back.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
}

/// What a request does to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it may be asked with GET, too.
    Reads,
    /// It changes intent.
    Changes,
}

macro_rules! calls {
    ($( $path:literal $effect:ident $request:ty => $answer:ty; )*) => {
        $( impl Call for $request {
            const PATH: &'static str = $path;
            const EFFECT: Effect = Effect::$effect;
            type Answer = $answer;
        } )*

        /// Every path that takes one request and gives one answer.
        pub const PATHS: &[&str] = &[ $($path),* ];
    };
}

calls! {
    "/v1/app/list" Reads ListApps => AppList;
    "/v1/app/show" Reads ShowApp => AppDetail;
    "/v1/app/add" Changes AddApp => Changed;
    "/v1/app/set" Changes SetApp => Changed;
    "/v1/app/remove" Changes RemoveApp => Changed;
    "/v1/endpoint/list" Reads ListEndpoints => EndpointList;
    "/v1/endpoint/attach" Changes Attach => Attached;
    "/v1/endpoint/detach" Changes Detach => Detached;
    "/v1/endpoint/label" Changes Relabel => Relabelled;
    "/v1/rule/list" Reads ListRules => RuleList;
    "/v1/rule/add" Changes AddRule => RuleChange;
    "/v1/rule/remove" Changes RemoveRule => RuleChange;
    "/v1/policy/promote" Changes Promote => Changed;
    "/v1/policy/show" Reads ShowPolicy => Policy;
    "/v1/policy/apply" Changes ApplyPolicy => PolicyChange;
    "/v1/policy/delete" Changes DeletePolicy => PolicyChange;
    "/v1/policy/diff" Reads DiffPolicy => PolicyDiff;
    "/v1/policy/export" Reads ExportPolicy => Exported;
    "/v1/policy/matrix" Reads ShowMatrix => Matrix;
    "/v1/policy/learn" Reads LearnPolicy => Learned;
    "/v1/policy/digest" Reads GetDigest => PolicyDigest;
    "/v1/why" Reads Why => WhyAnswer;
    "/v1/flow/list" Reads ListFlows => FlowList;
    "/v1/flow/contacts" Reads ListContacts => ContactList;
    "/v1/traffic/list" Reads ListTraffic => TrafficList;
    "/v1/drop/list" Reads ListDrops => DropList;
    "/v1/peer/list" Reads ListPeers => PeerList;
    "/v1/status" Reads GetStatus => Status;
    "/v1/map/show" Reads ShowMaps => MapList;
    "/v1/doctor" Reads Diagnose => Diagnosis;
    "/v1/reset" Changes Reset => ResetDone;
}

/// Where [`FollowDrops`] is posted: the answer does not end.
pub const FOLLOW_DROPS: &str = "/v1/drop/follow";

/// Who answers. One method a use case; the server has checked who asks, and the request is well-formed.
pub trait Handler: Send + Sync + 'static {
    /// All apps.
    fn list_apps(&self, request: ListApps) -> impl Future<Output = Result<AppList, Refusal>> + Send;
    /// One app, with its endpoints on this host and the rules that name it.
    fn show_app(&self, request: ShowApp) -> impl Future<Output = Result<AppDetail, Refusal>> + Send;
    /// Adds an app.
    fn add_app(&self, request: AddApp) -> impl Future<Output = Result<Changed, Refusal>> + Send;
    /// Changes an app.
    fn set_app(&self, request: SetApp) -> impl Future<Output = Result<Changed, Refusal>> + Send;
    /// Removes an app that has no endpoints.
    fn remove_app(&self, request: RemoveApp) -> impl Future<Output = Result<Changed, Refusal>> + Send;
    /// The endpoints of this host.
    fn list_endpoints(&self, request: ListEndpoints) -> impl Future<Output = Result<EndpointList, Refusal>> + Send;
    /// Puts an interface into a namespace. Returns when it can be used.
    fn attach(&self, request: Attach) -> impl Future<Output = Result<Attached, Refusal>> + Send;
    /// Takes endpoints away. Nothing to take is no error.
    fn detach(&self, request: Detach) -> impl Future<Output = Result<Detached, Refusal>> + Send;
    /// Changes the labels of an endpoint of this host.
    fn relabel(&self, request: Relabel) -> impl Future<Output = Result<Relabelled, Refusal>> + Send;
    /// All rules, in the order in which they were written.
    fn list_rules(&self, request: ListRules) -> impl Future<Output = Result<RuleList, Refusal>> + Send;
    /// Adds a rule. One that is there already is no error.
    fn add_rule(&self, request: AddRule) -> impl Future<Output = Result<RuleChange, Refusal>> + Send;
    /// Removes a rule.
    fn remove_rule(&self, request: RemoveRule) -> impl Future<Output = Result<RuleChange, Refusal>> + Send;
    /// Puts in force what is only tried.
    fn promote(&self, request: Promote) -> impl Future<Output = Result<Changed, Refusal>> + Send;
    /// What holds for an app.
    fn show_policy(&self, request: ShowPolicy) -> impl Future<Output = Result<Policy, Refusal>> + Send;
    /// Puts manifests in force, all or nothing. Doing it again changes nothing.
    fn apply_policy(&self, request: ApplyPolicy) -> impl Future<Output = Result<PolicyChange, Refusal>> + Send;
    /// Takes policies away. One that is not there is no error.
    fn delete_policy(&self, request: DeletePolicy) -> impl Future<Output = Result<PolicyChange, Refusal>> + Send;
    /// What applying manifests would change.
    fn diff_policy(&self, request: DiffPolicy) -> impl Future<Output = Result<PolicyDiff, Refusal>> + Send;
    /// Policies as a manifest.
    fn export_policy(&self, request: ExportPolicy) -> impl Future<Output = Result<Exported, Refusal>> + Send;
    /// Who reaches whom.
    fn show_matrix(&self, request: ShowMatrix) -> impl Future<Output = Result<Matrix, Refusal>> + Send;
    /// The smallest manifest that allows what was seen.
    fn learn_policy(&self, request: LearnPolicy) -> impl Future<Output = Result<Learned, Refusal>> + Send;
    /// Which policy this host enforces.
    fn digest(&self, request: GetDigest) -> impl Future<Output = Result<PolicyDigest, Refusal>> + Send;
    /// Whether a packet may pass, and why.
    fn why(&self, request: Why) -> impl Future<Output = Result<WhyAnswer, Refusal>> + Send;
    /// Connections that were allowed.
    fn list_flows(&self, request: ListFlows) -> impl Future<Output = Result<FlowList, Refusal>> + Send;
    /// Who opened what to whom, of an app.
    fn list_contacts(&self, request: ListContacts) -> impl Future<Output = Result<ContactList, Refusal>> + Send;
    /// What each pair of apps exchanged.
    fn list_traffic(&self, request: ListTraffic) -> impl Future<Output = Result<TrafficList, Refusal>> + Send;
    /// Drops by reason, and the last that were reported.
    fn list_drops(&self, request: ListDrops) -> impl Future<Output = Result<DropList, Refusal>> + Send;
    /// Drops from now on, until the receiver is dropped. A sender that finds the channel full skips and counts.
    fn follow_drops(
        &self,
        request: FollowDrops,
    ) -> impl Future<Output = Result<mpsc::Receiver<Dropped>, Refusal>> + Send;
    /// The other hosts.
    fn list_peers(&self, request: ListPeers) -> impl Future<Output = Result<PeerList, Refusal>> + Send;
    /// How this host is.
    fn status(&self, request: GetStatus) -> impl Future<Output = Result<Status, Refusal>> + Send;
    /// What the tables hold, and how that differs from what they should.
    fn show_maps(&self, request: ShowMaps) -> impl Future<Output = Result<MapList, Refusal>> + Send;
    /// Checks of this host.
    fn diagnose(&self, request: Diagnose) -> impl Future<Output = Result<Diagnosis, Refusal>> + Send;
    /// Leaves the host as it was before weft.
    fn reset(&self, request: Reset) -> impl Future<Output = Result<ResetDone, Refusal>> + Send;
}

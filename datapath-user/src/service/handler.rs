//! The use cases as the API asks for them.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::SystemTime};

use tokio::sync::{broadcast::error::RecvError, mpsc, oneshot};
use weft_common::policy::Direction;

use crate::front::api::{
    Handler,
    dto::{
        apps::{AddApp, App, AppDetail, AppList, Block, Changed, Defaults, ListApps, RemoveApp, SetApp, ShowApp},
        drops::{DropList, Dropped, FollowDrops, ListDrops},
        endpoints::{Attach, Attached, Detach, Detached, EndpointList, ListEndpoints, Relabel, Relabelled},
        flows::{FlowList, ListFlows, ListTraffic, TrafficList},
        learning::{ContactList, LearnPolicy, Learned, ListContacts},
        maps::{MapList, ShowMaps},
        naming::WhichRule,
        policies::{
            ApplyPolicy, DeletePolicy, DiffPolicy, ExportPolicy, Exported, GetDigest, Matrix, PolicyChange, PolicyDiff,
            PolicyDigest, ShowMatrix,
        },
        rules::{AddRule, ListRules, Policy, Promote, RemoveRule, Rule, RuleChange, RuleList, ShowPolicy},
        state::{Diagnose, Diagnosis, GetStatus, ListPeers, PeerList, Reset, ResetDone, Status},
        why::{Why, WhyAnswer},
    },
    refusal::{Kind, Refusal},
};
use crate::model::{
    app,
    cluster::{Cluster, Revision},
    name::HostName,
    prefix::Prefix,
    rule,
    selector::{Apps, Selector},
};
use crate::order::Order;
use crate::store::change::{Change, Promoted, RuleRef};

use super::{Service, naming::Names};

impl Handler for Service {
    async fn list_apps(&self, _: ListApps) -> Result<AppList, Refusal> {
        let cluster = self.snapshot().cluster.clone();
        Ok(AppList { apps: cluster.apps.values().map(|app| App::of(app, self.count(&cluster, app))).collect() })
    }

    async fn show_app(&self, request: ShowApp) -> Result<AppDetail, Refusal> {
        let cluster = self.snapshot().cluster.clone();
        let app = cluster.apps.get(&request.name).ok_or_else(|| Refusal::no_app(&request.name))?;
        let endpoints = self.endpoints().endpoints.into_iter().filter(|endpoint| endpoint.app == request.name.as_str());
        let rules = self.rules().await?.into_iter().filter(|(rule, _)| names(&rule.from, app) || names(&rule.to, app));
        Ok(AppDetail {
            app: App::of(app, self.count(&cluster, app)),
            endpoints: endpoints.collect(),
            rules: rules.map(|(_, shown)| shown).collect(),
        })
    }

    async fn add_app(&self, request: AddApp) -> Result<Changed, Refusal> {
        let AddApp { name, prefixes, roles, labels, defaults, blocks } = request;
        let mut app = app::App::new(name.clone(), prefixes, roles);
        app.defaults = defaults.over(app.defaults);
        app.labels = labels;
        let mut given = BTreeMap::new();
        give(&mut given, &blocks);
        let hint = if given.is_empty() { "; give hosts blocks of its prefixes: weft app set --block" } else { "" };
        let revision = self.change(Change::AddApp(app, given)).await?;
        Ok(self.changed(format!("app {name} is there{hint}"), revision).await)
    }

    async fn set_app(&self, request: SetApp) -> Result<Changed, Refusal> {
        let SetApp { name, prefixes, without, set, unset, defaults, shadow, blocks } = request;
        let done = format!("app {name} is as you said");
        let make = move |cluster: &Cluster| {
            let before = cluster.apps.get(&name).ok_or_else(|| Refusal::no_app(&name))?;
            let mut app = before.clone();
            let stays = |prefix: &Prefix| !without.iter().any(|gone| gone.covers(prefix));
            app.prefixes.retain(stays);
            app.prefixes.extend(prefixes.iter().copied().filter(|prefix| !before.prefixes.contains(prefix)));
            app.labels.change(&set, &unset);
            app.defaults = defaults.over(app.defaults);
            app.shadow = shadow.unwrap_or(app.shadow);
            let mut given = cluster.blocks_of(&name);
            for own in given.values_mut() {
                own.retain(stays);
            }
            give(&mut given, &blocks);
            Ok((Change::SetApp(app, given), ()))
        };
        let (revision, ()) = self.change_by(make).await?;
        Ok(self.changed(done, revision).await)
    }

    async fn remove_app(&self, request: RemoveApp) -> Result<Changed, Refusal> {
        let revision = self.change(Change::RemoveApp(request.name.clone())).await?;
        Ok(self.changed(format!("app {} is gone", request.name), revision).await)
    }

    async fn list_endpoints(&self, _: ListEndpoints) -> Result<EndpointList, Refusal> {
        Ok(self.endpoints())
    }

    async fn attach(&self, request: Attach) -> Result<Attached, Refusal> {
        self.do_attach(request).await
    }

    async fn relabel(&self, request: Relabel) -> Result<Relabelled, Refusal> {
        self.do_relabel(request).await
    }

    async fn detach(&self, request: Detach) -> Result<Detached, Refusal> {
        self.do_detach(request).await
    }

    async fn list_rules(&self, _: ListRules) -> Result<RuleList, Refusal> {
        let rules = self.rules().await?.into_iter().map(|(_, shown)| shown).collect();
        Ok(RuleList { rules, revision: self.snapshot().revision.0 })
    }

    async fn add_rule(&self, request: AddRule) -> Result<RuleChange, Refusal> {
        if let Some(until) = request.rule.until.filter(|until| until.time() <= SystemTime::now()) {
            return Err(Refusal::invalid(format!("the rule would have ended already, at {until}")));
        }
        let rule = request.rule.clone();
        let make = move |cluster: &Cluster| {
            // What a policy says goes with the policy.
            let was_there = cluster.rules.iter().any(|old| old.policy.is_none() && old.says_same(&rule));
            Ok((Change::AddRule(rule.clone()), was_there))
        };
        let (revision, was_there) = self.change_by(make).await?;
        let in_force = self.reached(revision).await;
        Ok(RuleChange {
            rule: self.shown(&request.rule),
            changed: !was_there,
            revision: revision.0,
            in_force,
            hosts: Vec::new(),
        })
    }

    async fn remove_rule(&self, request: RemoveRule) -> Result<RuleChange, Refusal> {
        let (rule, which) = self.which(request.rule).await?;
        let revision = self.change(Change::RemoveRule(which)).await?;
        let in_force = self.reached(revision).await;
        Ok(RuleChange { rule: Rule::of(None, &rule), changed: true, revision: revision.0, in_force, hosts: Vec::new() })
    }

    async fn promote(&self, request: Promote) -> Result<Changed, Refusal> {
        let (what, change) = match (request.rule, request.policy) {
            (Some(which), None) => {
                let (rule, which) = self.which(which).await?;
                (format!("rule {rule}"), Change::Promote(Promoted::Rule(which)))
            }
            (None, Some(name)) => (format!("policy {name}"), Change::Promote(Promoted::Policy(name))),
            (Some(_), Some(_)) | (None, None) => return Err(Refusal::invalid("name a rule or a policy")),
        };
        let revision = self.change(change).await?;
        Ok(self.changed(format!("{what} is promoted"), revision).await)
    }

    async fn show_policy(&self, request: ShowPolicy) -> Result<Policy, Refusal> {
        let snapshot = self.snapshot();
        let app = snapshot.cluster.apps.get(&request.app).ok_or_else(|| Refusal::no_app(&request.app))?;
        let (rules, plan) = (self.rules().await?, self.plan());
        let of = |direction: Direction| {
            let of_side = |rule: &rule::Rule| {
                let own = if direction == Direction::Egress { &rule.from } else { &rule.to };
                rule.on.is_none_or(|on| on == direction) && (names(own, app) || is_all(own))
            };
            let mut found: Vec<_> = rules.iter().filter(|(rule, _)| of_side(rule)).collect();
            found.sort_by_key(|(rule, _)| Reverse(rule.rank()));
            found.into_iter().map(|(_, shown)| shown.clone()).collect()
        };
        let (accounts, names_now) = (self.accounts()?, Names { cluster: &snapshot.cluster, plan: &plan });
        let by_default = accounts.by_default(app.number, &names_now);
        Ok(Policy {
            app: app.name.to_string(),
            defaults: Defaults::of(app.defaults),
            ingress: of(Direction::Ingress),
            egress: of(Direction::Egress),
            by_default,
            shadow: app.shadow,
            tried_by_default: accounts.tried_by_default(app.number),
            revision: snapshot.revision.0,
            digest: self.digest_in_force(),
            hosts: Vec::new(),
        })
    }

    async fn apply_policy(&self, request: ApplyPolicy) -> Result<PolicyChange, Refusal> {
        self.do_apply(request).await
    }

    async fn delete_policy(&self, request: DeletePolicy) -> Result<PolicyChange, Refusal> {
        self.do_delete(request).await
    }

    async fn diff_policy(&self, request: DiffPolicy) -> Result<PolicyDiff, Refusal> {
        self.do_diff(request).await
    }

    async fn export_policy(&self, request: ExportPolicy) -> Result<Exported, Refusal> {
        self.do_export(&request)
    }

    async fn show_matrix(&self, request: ShowMatrix) -> Result<Matrix, Refusal> {
        self.matrix(request).await
    }

    async fn learn_policy(&self, request: LearnPolicy) -> Result<Learned, Refusal> {
        self.do_learn(request).await
    }

    async fn digest(&self, _: GetDigest) -> Result<PolicyDigest, Refusal> {
        self.planned().await?;
        self.do_digest().await
    }

    async fn why(&self, request: Why) -> Result<WhyAnswer, Refusal> {
        self.planned().await?;
        self.do_why(request).await
    }

    async fn list_flows(&self, request: ListFlows) -> Result<FlowList, Refusal> {
        self.planned().await?;
        Ok(self.flows(&request)?)
    }

    async fn list_contacts(&self, request: ListContacts) -> Result<ContactList, Refusal> {
        self.planned().await?;
        self.contacts(&request)
    }

    async fn list_traffic(&self, _: ListTraffic) -> Result<TrafficList, Refusal> {
        Ok(self.traffic()?)
    }

    async fn list_drops(&self, _: ListDrops) -> Result<DropList, Refusal> {
        self.planned().await?;
        Ok(self.drops()?)
    }

    async fn follow_drops(&self, _: FollowDrops) -> Result<mpsc::Receiver<Dropped>, Refusal> {
        let (mut live, (sender, receiver)) = (self.observer.follow(), mpsc::channel(256));
        let names = self.follower();
        tokio::spawn(async move {
            let mut missed = 0;
            loop {
                match live.recv().await {
                    Ok(seen) => {
                        let mut dropped = names(&seen);
                        dropped.skipped += missed;
                        missed = 0;
                        if sender.send(dropped).await.is_err() {
                            return;
                        }
                    }
                    Err(RecvError::Lagged(count)) => missed += count,
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Ok(receiver)
    }

    async fn list_peers(&self, _: ListPeers) -> Result<PeerList, Refusal> {
        self.planned().await?;
        Ok(self.peers())
    }

    async fn status(&self, _: GetStatus) -> Result<Status, Refusal> {
        self.status_now()
    }

    async fn show_maps(&self, request: ShowMaps) -> Result<MapList, Refusal> {
        self.planned().await?;
        self.maps(&request)
    }

    async fn diagnose(&self, _: Diagnose) -> Result<Diagnosis, Refusal> {
        Ok(self.checks().await?)
    }

    async fn reset(&self, _: Reset) -> Result<ResetDone, Refusal> {
        let (answer, done) = oneshot::channel();
        let unavailable = |why: String| Refusal::new(Kind::Unavailable, why);
        self.orders.send(Order::Reset(answer)).await.map_err(|_| unavailable("the daemon is ending".to_owned()))?;
        let done = done.await.map_err(|_| unavailable("the daemon ended before it was done".to_owned()));
        let (removed, left) = done?;
        Ok(ResetDone { removed, left })
    }
}

impl Service {
    /// What was done, and whether it came to be in force here while somebody waits.
    async fn changed(&self, done: String, revision: Revision) -> Changed {
        let in_force = self.reached(revision).await;
        Changed { done, revision: revision.0, in_force }
    }

    /// Rules in their order, with how each is shown and what was counted under it.
    async fn rules(&self) -> Result<Vec<(rule::Rule, Rule)>, Refusal> {
        // The first pass numbers them. One that fails keeps nobody from seeing what was written.
        self.board.wait(self.patience, |status| status.passes > 0).await;
        let rules = self.snapshot().cluster.rules.clone();
        let accounts = self.accounts()?;
        let (mut hits, mut tried) = (accounts.by_rule(), accounts.by_tried());
        let mut counted = |shown: Rule| Rule {
            hits: shown.id.and_then(|id| hits.remove(&id)),
            tried: shown.id.and_then(|id| tried.remove(&id)),
            ..shown
        };
        Ok(rules.iter().map(|rule| (rule.as_ref().clone(), counted(self.shown(rule)))).collect())
    }

    /// The rule that is named, and how the store finds it.
    async fn which(&self, which: WhichRule) -> Result<(rule::Rule, RuleRef), Refusal> {
        match which {
            WhichRule::Id(id) => {
                let unknown = || Refusal::not_found(format!("there is no rule {id}: see weft policy ls"));
                let rule = self.plan().policy.names.get(&id).cloned().ok_or_else(unknown)?;
                let rule = Arc::unwrap_or_clone(rule);
                Ok((rule.clone(), RuleRef::Saying(Box::new(rule))))
            }
            WhichRule::Name(name) => {
                let unknown = || Refusal::not_found(format!("there is no rule with the name {name}"));
                let rules = self.store.latest().await?.cluster.rules.clone();
                let rule = rules.iter().find(|rule| rule.name.as_ref() == Some(&name)).cloned().ok_or_else(unknown)?;
                Ok((Arc::unwrap_or_clone(rule), RuleRef::Named(name)))
            }
            WhichRule::Says(rule) => Ok(((*rule).clone(), RuleRef::Saying(rule))),
        }
    }

    fn shown(&self, rule: &rule::Rule) -> Rule {
        Rule::of(self.plan().number_of(rule), rule)
    }

    fn count(&self, cluster: &Cluster, app: &app::App) -> u64 {
        cluster.endpoints_on(&self.host).filter(|endpoint| endpoint.key.app == app.name).count() as u64
    }
}

/// Adds blocks to those that hosts have, each once.
fn give(given: &mut BTreeMap<HostName, Vec<Prefix>>, blocks: &[Block]) {
    for Block { host, prefix } in blocks {
        let own = given.entry(host.clone()).or_default();
        if !own.contains(prefix) {
            own.push(*prefix);
        }
    }
}

/// Whether a selector speaks of an app, and not of every one.
fn names(selector: &Selector, app: &app::App) -> bool {
    match selector {
        Selector::App(name) | Selector::Role(name, _) => *name == app.name,
        Selector::Labelled(labelled) => labelled.apps != Apps::Every && labelled.apps.contain(app),
        Selector::Host | Selector::Outside | Selector::Any | Selector::Everyone | Selector::Net(..) => false,
    }
}

/// Whether a selector speaks of every app.
fn is_all(selector: &Selector) -> bool {
    match selector {
        Selector::Any | Selector::Everyone => true,
        Selector::Labelled(labelled) => labelled.apps == Apps::Every,
        Selector::App(_) | Selector::Role(..) | Selector::Host | Selector::Outside | Selector::Net(_) => false,
    }
}

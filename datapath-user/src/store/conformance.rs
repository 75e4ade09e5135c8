//! What every engine does, told once and run on each.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ChangeError, Snapshot, Store,
    change::{Change, RuleRef, SetPolicies},
    file::{FileStore, Paths},
    memory::MemoryStore,
};
use crate::model::{
    cluster::{Cluster, Policy, Revision},
    endpoint::{Addresses, Endpoint, EndpointKey},
    example,
    name::HostName,
    rule::Rule,
};

/// The example as a file, without its endpoints.
pub(super) const TEXT: &str = r#"# The example.
rules = [
    "allow shop/web -> blog/db tcp/5432", # the shop reads the blog
    "deny shop -> 203.0.113.0/24 any",
]

[host.h1]
address = "192.0.2.1"
[host.h1.prefixes]
shop = ["10.1.1.0/24", "fd00:1:1::/64"]
blog = ["10.2.1.0/24", "fd00:2:1::/64"]

[host.h2]
address = "192.0.2.2"
prefixes = { shop = ["10.1.2.0/24", "fd00:1:2::/64"], blog = ["10.2.2.0/24", "fd00:2:2::/64"] }

[host.h3]
address = ["192.0.2.3"]
prefixes.shop = ["10.1.3.0/24", "fd00:1:3::/64"]
prefixes.blog = ["10.2.3.0/24", "fd00:2:3::/64"]

[app.shop]
prefixes = ["10.1.0.0/16", "fd00:1::/32"]
roles = ["web", "db"]

[app.blog]
prefixes = ["10.2.0.0/16", "fd00:2::/32"]
roles = ["db"]
"#;

pub(super) fn h1() -> HostName {
    "h1".parse().unwrap()
}

/// The example without its endpoints.
pub(super) fn described() -> Cluster {
    Cluster { endpoints: BTreeMap::new(), ..example::cluster() }
}

/// A store of h1, and what has to live as long.
struct Lab {
    store: Arc<dyn Store>,
    _folder: Option<tempfile::TempDir>,
}

fn memory() -> Lab {
    Lab { store: Arc::new(MemoryStore::new(h1(), described()).unwrap()), _folder: None }
}

async fn file() -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths { file: folder.path().join("cluster.toml"), state: folder.path().join("state") };
    std::fs::write(&paths.file, TEXT).unwrap();
    Lab { store: Arc::new(FileStore::open(paths, h1()).await.unwrap()), _folder: Some(folder) }
}

macro_rules! conformance {
    ($($(#[doc = $doc:literal])* async fn $name:ident($lab:ident: Lab) $body:block)*) => {
        $($(#[doc = $doc])* async fn $name($lab: Lab) $body)*

        mod memory_engine {
            $(#[tokio::test] async fn $name() { super::$name(super::memory()).await; })*
        }
        mod file_engine {
            $(#[tokio::test] async fn $name() { super::$name(super::file().await).await; })*
        }
    };
}

impl Lab {
    fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.store.watch().borrow())
    }

    /// What is described, with rules as they are wherever they are written.
    fn cluster(&self) -> Cluster {
        let mut cluster = self.now().cluster.as_ref().clone();
        cluster.rules =
            Arc::new(cluster.rules.iter().map(|rule| Rule { source: None, ..rule.as_ref().clone() }.into()).collect());
        cluster
    }

    async fn change(&self, change: Change) -> Result<Revision, ChangeError> {
        let before = self.now();
        let changed = self.store.change(change).await;
        let after = self.now();
        match &changed {
            Ok(revision) => {
                assert_eq!(*revision, after.revision);
                let steps = u64::from(after.cluster != before.cluster);
                assert_eq!(
                    after.revision.0,
                    before.revision.0 + steps,
                    "a revision for every change, and none for no change"
                );
            }
            Err(_) => assert_eq!(after, before),
        }
        changed
    }

    fn rules(&self) -> Vec<String> {
        self.now().cluster.rules.iter().map(ToString::to_string).collect()
    }
}

fn rule(text: &str) -> Rule {
    text.parse().unwrap()
}

fn endpoint(key: &str, addr: &str) -> Endpoint {
    example::endpoint(key, "h1", [addr.parse().unwrap()].into_iter().collect())
}

fn key(text: &str) -> EndpointKey {
    text.parse().unwrap()
}

conformance! {
    async fn what_it_starts_with_is_in_force(lab: Lab) {
        assert_eq!(lab.cluster(), described());
        assert_eq!(lab.now().problem, None);
        assert_eq!(lab.now().revision, Revision(1));
    }

    async fn a_rule_is_added_once(lab: Lab) {
        let add = || Change::AddRule(rule("allow host -> blog tcp/80 precedence 7 as probe"));
        let first = lab.change(add()).await.unwrap();
        assert_eq!(lab.change(add()).await.unwrap(), first);
        assert_eq!(lab.rules()[2..], ["allow host -> blog tcp/80 precedence 7 as probe"]);
    }

    async fn a_rule_goes_by_its_name_and_by_what_it_says(lab: Lab) {
        lab.change(Change::AddRule(rule("allow host -> blog as probe"))).await.unwrap();
        lab.change(Change::RemoveRule(RuleRef::Named("probe".parse().unwrap()))).await.unwrap();
        lab.change(Change::RemoveRule(RuleRef::Saying(rule("deny shop -> 203.0.113.0/24").into()))).await.unwrap();
        assert_eq!(lab.rules(), ["allow shop/web -> blog/db tcp/5432"]);
        let gone = lab.change(Change::RemoveRule(RuleRef::Saying(rule("deny shop -> 203.0.113.0/24").into()))).await.unwrap_err();
        assert_eq!(gone, ChangeError::NotFound("there is no rule `deny shop -> 203.0.113.0/24 any`".to_owned()));
        let gone = lab.change(Change::RemoveRule(RuleRef::Named("probe".parse().unwrap()))).await.unwrap_err();
        assert_eq!(gone.to_string(), "there is no rule with the name probe");
    }

    async fn a_change_that_makes_a_fault_is_refused(lab: Lab) {
        let error = lab.change(Change::AddRule(rule("allow wiki -> shop"))).await.unwrap_err();
        assert_eq!(error.to_string(), "rule `allow wiki -> shop any`: there is no app wiki: the apps are blog, shop");
        let overlap = example::app("wiki", &["10.1.128.0/17"], &[]);
        let error = lab.change(Change::AddApp(overlap, BTreeMap::new())).await.unwrap_err();
        assert_eq!(error.to_string(), "10.1.128.0/17 of app wiki overlaps 10.1.0.0/16 of app shop");
        let error = lab.change(Change::PutEndpoint(endpoint("shop/a", "10.1.1.1"))).await.unwrap_err();
        assert!(matches!(error, ChangeError::Faults(_)), "{error}");
    }

    async fn an_app_comes_and_goes_with_its_blocks(lab: Lab) {
        let mut wiki = example::app("wiki", &["10.3.0.0/16"], &["web", "db"]);
        wiki.set_number(77);
        wiki.roles.get_mut(&"db".parse().unwrap()).unwrap().set_number(5);
        wiki.defaults.from_apps = crate::model::app::Gate::Open;
        wiki.defaults.to_outside = crate::model::app::Gate::Closed;
        let blocks: BTreeMap<_, _> = [1, 2].map(|n| (format!("h{n}").parse().unwrap(), vec![format!("10.3.{n}.0/24").parse().unwrap()])).into();
        let add = Change::AddApp(wiki.clone(), blocks.clone());
        let first = lab.change(add.clone()).await.unwrap();
        assert_eq!(lab.change(add).await.unwrap(), first);
        assert_eq!(lab.cluster().apps[&wiki.name], wiki);
        assert_eq!(lab.cluster().hosts[&h1()].blocks[&wiki.name], blocks[&h1()]);
        let other = example::app("wiki", &["10.3.0.0/16"], &[]);
        assert!(matches!(lab.change(Change::AddApp(other, BTreeMap::new())).await, Err(ChangeError::InUse(_))));

        lab.change(Change::AddRule(rule("allow wiki -> shop as x"))).await.unwrap();
        lab.change(Change::PutEndpoint(endpoint("wiki/a", "10.3.1.2"))).await.unwrap();
        let remove = || Change::RemoveApp("wiki".parse().unwrap());
        assert_eq!(lab.change(remove()).await.unwrap_err().to_string(), "app wiki has endpoint wiki/a: detach it first");
        lab.change(Change::RemoveEndpoint(key("wiki/a"))).await.unwrap();
        assert_eq!(lab.change(remove()).await.unwrap_err().to_string(), "app wiki is named by rule `allow wiki -> shop any as x`: remove it first");
        lab.change(Change::RemoveRule(RuleRef::Named("x".parse().unwrap()))).await.unwrap();
        lab.change(remove()).await.unwrap();
        assert_eq!(lab.cluster(), described());
        assert!(matches!(lab.change(remove()).await, Err(ChangeError::NotFound(_))));
    }

    async fn policies_come_and_go_as_one(lab: Lab) {
        let policy = |rules: &[&str]| (Policy::default(), rules.iter().map(|text| rule(text)).collect::<Vec<_>>());
        let set = |put: &[(&str, &[&str])], remove: &[&str]| {
            let put = put.iter().map(|(name, rules)| (name.parse().unwrap(), policy(rules))).collect();
            let remove = remove.iter().map(|name| name.parse().unwrap()).collect();
            Change::SetPolicies(SetPolicies { put, remove, ..SetPolicies::default() })
        };
        let texts = |lab: &Lab| {
            let rules = Arc::clone(&lab.cluster().rules);
            rules.iter().skip(2).map(|rule| format!("{}: {rule}", rule.policy.as_ref().unwrap())).collect::<Vec<_>>()
        };
        let first = lab.change(set(&[("b", &["allow blog -> shop", "deny host -> shop"]), ("a/x", &["allow blog -> shop"])], &[])).await.unwrap();
        assert_eq!(texts(&lab), ["a/x: allow blog -> shop any", "b: allow blog -> shop any", "b: deny host -> shop any"]);
        assert_eq!(lab.change(set(&[("a/x", &["allow blog -> shop"])], &["c"])).await.unwrap(), first);
        // A loose rule stays in front, and may say the same.
        lab.change(Change::AddRule(rule("allow blog -> shop"))).await.unwrap();
        assert_eq!(lab.cluster().rules[2].policy, None);
        lab.change(Change::RemoveRule(RuleRef::Saying(rule("allow blog -> shop").into()))).await.unwrap();
        let error = lab.change(Change::RemoveRule(RuleRef::Saying(rule("allow blog -> shop").into()))).await.unwrap_err();
        assert!(matches!(&error, ChangeError::InUse(why) if why.contains("of policy a/x")), "{error}");
        // Half of a change is none of it.
        let before = lab.cluster();
        let error = lab.change(set(&[("a/x", &["deny blog -> shop"]), ("z", &["allow wiki -> shop"])], &["b"])).await.unwrap_err();
        assert!(error.to_string().contains("there is no app wiki"), "{error}");
        assert_eq!(lab.cluster(), before);
        lab.change(set(&[("a/x", &["deny blog -> shop"])], &["b"])).await.unwrap();
        assert_eq!(texts(&lab), ["a/x: deny blog -> shop any"]);
        lab.change(set(&[], &["a/x"])).await.unwrap();
        assert_eq!(lab.cluster(), described());
        // An app comes with the rules that name it, and changes with them.
        let mut wiki = example::app("wiki", &["10.9.0.0/16"], &["web"]);
        let with = |app: &crate::model::app::App| {
            let put = [("w".parse().unwrap(), policy(&["allow shop -> wiki/web"]))].into();
            let blocks = [("h2".parse().unwrap(), vec!["10.9.2.0/24".parse().unwrap()])].into();
            let apps = [(app.name.clone(), (app.clone(), blocks))].into();
            Change::SetPolicies(SetPolicies { put, apps, ..SetPolicies::default() })
        };
        let first = lab.change(with(&wiki)).await.unwrap();
        assert_eq!(lab.change(with(&wiki)).await.unwrap(), first);
        assert_eq!(lab.cluster().hosts[&"h2".parse().unwrap()].blocks_of(&wiki.name).count(), 1);
        wiki.roles.insert("db".parse().unwrap(), crate::model::app::Role::plain(&"db".parse().unwrap()));
        wiki.roles.get_mut(&"web".parse().unwrap()).unwrap().ports = "http=tcp/80".parse().unwrap();
        wiki.defaults.inside = crate::model::app::Gate::Closed;
        lab.change(with(&wiki)).await.unwrap();
        assert_eq!(lab.cluster().apps[&wiki.name], wiki);
        // It goes when nobody's rule names it, and leaves nothing.
        let remove = || Change::RemoveApp(wiki.name.clone());
        let refused = "app wiki is named by rule `allow shop -> wiki/web any` of policy w: take it out there first";
        assert_eq!(lab.change(remove()).await.unwrap_err().to_string(), refused);
        lab.change(set(&[], &["w"])).await.unwrap();
        lab.change(remove()).await.unwrap();
        assert_eq!(lab.cluster(), described());
    }

    async fn an_app_is_changed_and_gets_roles(lab: Lab) {
        let blog = lab.cluster().apps[&"blog".parse().unwrap()].clone();
        let (name, role) = blog.make_role(&"tier=web".parse().unwrap(), &"http=tcp/80".parse().unwrap()).unwrap();
        let add = || Change::AddRole(blog.name.clone(), name.clone(), role.clone());
        let first = lab.change(add()).await.unwrap();
        assert_eq!(lab.change(add()).await.unwrap(), first);
        assert_eq!(lab.cluster().apps[&blog.name].roles[&name], role);
        let other = crate::model::app::Role::plain(&name);
        let error = lab.change(Change::AddRole(blog.name.clone(), name.clone(), other)).await.unwrap_err();
        assert!(matches!(error, ChangeError::InUse(_)), "{error}");
        let mut changed = lab.cluster().apps[&blog.name].clone();
        changed.defaults.inside = crate::model::app::Gate::Closed;
        changed.labels = "team=a,env=".parse().unwrap();
        let blocks: BTreeMap<_, _> = [("h2".parse().unwrap(), vec!["10.2.2.0/24".parse().unwrap()])].into();
        lab.change(Change::SetApp(changed.clone(), blocks)).await.unwrap();
        assert_eq!(lab.cluster().apps[&blog.name], changed);
        let has = |host: &str| lab.cluster().hosts[&host.parse().unwrap()].blocks_of(&blog.name).count();
        assert_eq!((has("h1"), has("h2")), (0, 1));
        let nobody = example::app("wiki", &["10.3.0.0/16"], &[]);
        assert!(matches!(lab.change(Change::SetApp(nobody, BTreeMap::new())).await, Err(ChangeError::NotFound(_))));
    }

    async fn an_endpoint_comes_changes_and_goes_and_its_address_stays_its_own(lab: Lab) {
        let mut web = endpoint("shop/web-1", "10.1.1.2");
        let first = lab.change(Change::PutEndpoint(web.clone())).await.unwrap();
        assert_eq!(lab.change(Change::PutEndpoint(web.clone())).await.unwrap(), first);
        web.role = Some("web".parse().unwrap());
        lab.change(Change::PutEndpoint(web.clone())).await.unwrap();
        assert_eq!(*lab.cluster().endpoints[&web.key], web);
        let same = lab.change(Change::PutEndpoint(endpoint("shop/web-2", "10.1.1.2"))).await.unwrap_err();
        assert_eq!(same.to_string(), "endpoint shop/web-2: address 10.1.1.2 is shop/web-1's already");
        let before = web.netns.clone();
        web.netns.cookie = Some(7);
        let moved = lab.change(Change::PutEndpoint(web.clone())).await.unwrap();
        assert_eq!(lab.change(Change::EndpointGone(web.key.clone(), before)).await.unwrap(), moved, "it is elsewhere");
        let gone = lab.change(Change::EndpointGone(web.key.clone(), web.netns.clone())).await.unwrap();
        assert!(gone > moved);
        assert_eq!(lab.change(Change::RemoveEndpoint(web.key.clone())).await.unwrap(), gone, "what is gone is gone");
        let cluster = lab.cluster();
        assert_eq!((cluster.endpoints.len(), cluster.reservations[&web.key].addresses), (0, web.addresses));
        // Who takes it by force has it.
        lab.change(Change::PutEndpoint(endpoint("shop/web-2", "10.1.1.2"))).await.unwrap();
        assert_eq!(lab.cluster().reservations.keys().map(ToString::to_string).collect::<Vec<_>>(), ["shop/web-2"]);
    }

    async fn only_its_own_endpoints_are_written(lab: Lab) {
        let mut other = endpoint("shop/a", "10.1.2.2");
        other.host = "h2".parse().unwrap();
        let error = lab.change(Change::PutEndpoint(other)).await.unwrap_err();
        assert_eq!(error.to_string(), "endpoint shop/a is on host h2: ask there");
    }

    async fn addresses_are_kept_and_given_up(lab: Lab) {
        let addresses: Addresses = ["10.1.1.9".parse().unwrap()].into_iter().collect();
        let reserve = |name: &str, addr: &str| Change::Reserve(key(name), [addr.parse().unwrap()].into_iter().collect());
        let first = lab.change(reserve("shop/a", "10.1.1.9")).await.unwrap();
        assert_eq!(lab.change(reserve("shop/a", "10.1.1.9")).await.unwrap(), first);
        assert_eq!(lab.cluster().reservations[&key("shop/a")].addresses, addresses);
        let kept = lab.change(reserve("shop/b", "10.1.1.9")).await.unwrap_err();
        assert_eq!(kept.to_string(), "10.1.1.9 is kept for shop/a: release it there or take another");
        lab.change(reserve("shop/b", "10.1.2.9")).await.unwrap_err();
        lab.change(Change::Release(key("shop/a"))).await.unwrap();
        lab.change(Change::Release(key("shop/a"))).await.unwrap();
        lab.change(reserve("shop/b", "10.1.1.9")).await.unwrap();
        lab.change(Change::PutEndpoint(endpoint("shop/b", "10.1.1.9"))).await.unwrap();
        assert!(matches!(lab.change(Change::Release(key("shop/b"))).await, Err(ChangeError::InUse(_))));
    }

    async fn what_was_decided_by_what_is_gone_is_not_made(lab: Lab) {
        let seen = lab.now();
        lab.change(Change::Reserve(key("shop/d"), ["10.1.1.9".parse().unwrap()].into_iter().collect())).await.unwrap();
        let decided = |port: u16| Change::AddRule(rule(&format!("allow host -> blog tcp/{port}")));
        // What only this host knows is none of it.
        lab.store.change_of(decided(80), Some(Arc::clone(&seen))).await.unwrap();
        let before = lab.now();
        let refused = lab.store.change_of(decided(81), Some(seen)).await;
        assert_eq!((refused, lab.now()), (Err(ChangeError::Overtaken), Arc::clone(&before)));
        lab.store.change_of(decided(81), Some(before)).await.unwrap();
        assert_eq!(lab.rules().len(), 4);
    }

    async fn who_watches_sees_the_change(lab: Lab) {
        let mut watch = lab.store.watch();
        watch.mark_unchanged();
        lab.change(Change::AddRule(rule("allow host -> blog"))).await.unwrap();
        assert!(watch.has_changed().unwrap());
        assert_eq!(watch.borrow_and_update().cluster.rules.len(), 3);
        lab.change(Change::AddRule(rule("allow host -> blog"))).await.unwrap();
        assert!(!watch.has_changed().unwrap(), "no change is no news");
    }

    async fn changes_at_the_same_time_are_all_made(lab: Lab) {
        let changes = (0..20).map(|n| {
            let store = Arc::clone(&lab.store);
            tokio::spawn(async move {
                let change = if n % 2 == 0 {
                    Change::AddRule(rule(&format!("allow host -> blog tcp/{}", n + 1)))
                } else {
                    Change::PutEndpoint(endpoint(&format!("shop/e{n}"), &format!("10.1.1.{}", n + 10)))
                };
                store.change(change).await.unwrap()
            })
        });
        let mut revisions = Vec::new();
        for change in changes.collect::<Vec<_>>() {
            revisions.push(change.await.unwrap());
        }
        assert_eq!((lab.rules().len(), lab.cluster().endpoints.len()), (12, 10));
        assert_eq!(lab.now().revision, Revision(21));
        assert!(revisions.iter().all(|revision| (2..=21).contains(&revision.0)));
    }
}

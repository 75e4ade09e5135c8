//! Namespaces, pods and policies, and the cluster that they are: a namespace is an app, the labels of pods are those of
//! endpoints.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use weft_common::id::{Identity, RoleId};

use weft::{
    manifest::{File, Policies, read},
    model::{
        app::{App, Defaults, Gate},
        check,
        cluster::Cluster,
        labels::Labels,
        name::AppName,
        prefix::Prefix,
        rule::Rule,
        traffic::NamedPorts,
    },
    plan::{NodePlan, facts::Facts, plan},
};

/// All that policy depends on.
#[derive(Default)]
pub(crate) struct World {
    /// By name, with their labels.
    pub(crate) namespaces: BTreeMap<String, Labels>,
    /// By `NAMESPACE/NAME`.
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) policies: Policies,
    /// Rules of no policy.
    pub(crate) rules: Vec<Rule>,
    /// Of all apps, if not those of Kubernetes.
    pub(crate) defaults: Option<Defaults>,
}

pub(crate) struct Pod {
    pub(crate) addrs: Vec<IpAddr>,
    pub(crate) labels: Labels,
    pub(crate) ports: NamedPorts,
}

impl World {
    /// Reads policies as `apply` does. How many there were.
    pub(crate) fn read(&mut self, text: &str) -> usize {
        let manifest = read(&[File { name: "case".into(), text: text.to_owned() }]);
        let manifest = manifest.unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
        let found = manifest.policies.len();
        self.policies.extend(manifest.policies);
        found
    }

    /// The cluster, and who each pod is.
    fn cluster(&self) -> (Cluster, BTreeMap<&str, Identity>) {
        let mut apps: BTreeMap<AppName, App> = BTreeMap::new();
        for (number, (name, labels)) in (0..).zip(&self.namespaces) {
            // An app has a prefix, also if it has no endpoint.
            let prefix = Prefix::host(Ipv4Addr::new(198, 18, 0, number).into()).unwrap();
            let mut app = App::new(name.parse().unwrap(), vec![prefix], []);
            app.labels = labels.clone();
            let of_kubernetes = Defaults { from_apps: Gate::Open, ..Defaults::default() };
            app.defaults = self.defaults.unwrap_or(of_kubernetes);
            apps.insert(app.name.clone(), app);
        }
        let mut identities = BTreeMap::new();
        for (name, Pod { addrs, labels, ports }) in &self.pods {
            let (namespace, _) = name.split_once('/').unwrap();
            let app = apps.get_mut(&namespace.parse().unwrap()).unwrap();
            app.prefixes.extend(addrs.iter().map(|addr| Prefix::host(*addr).unwrap()));
            let role = match app.role_of(labels, ports) {
                _ if labels.is_empty() && ports.is_empty() => RoleId::NONE,
                Some(role) => app.roles[role].number,
                None => {
                    let (role, made) = app.make_role(labels, ports).unwrap();
                    let number = made.number;
                    app.roles.insert(role, made);
                    number
                }
            };
            identities.insert(name.as_str(), Identity::new(app.number, role));
        }
        let of = |(name, (_, rules)): (_, &(_, Vec<Rule>))| {
            let policy = Some(Clone::clone(name));
            rules.iter().map(|rule| Rule { policy: policy.clone(), ..rule.clone() }).collect::<Vec<_>>()
        };
        let rules = self.policies.iter().flat_map(of).chain(self.rules.iter().cloned());
        let cluster = Cluster {
            apps: Arc::new(apps),
            rules: Arc::new(rules.map(Arc::new).collect()),
            policies: Arc::new(
                self.policies.iter().map(|(name, (policy, _))| (name.clone(), policy.clone())).collect(),
            ),
            ..Cluster::default()
        };
        (cluster, identities)
    }

    /// What a host is to hold of it, and who each pod is.
    pub(crate) fn plan(&self) -> (NodePlan, BTreeMap<&str, Identity>) {
        self.plan_after(&NodePlan::default())
    }

    /// As [`Self::plan`], where a plan was before.
    pub(crate) fn plan_after(&self, before: &NodePlan) -> (NodePlan, BTreeMap<&str, Identity>) {
        let (cluster, identities) = self.cluster();
        check::check(&cluster).unwrap();
        (plan(&cluster, &"h1".parse().unwrap(), &Facts::default(), before), identities)
    }
}

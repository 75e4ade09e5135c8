//! Random objects of Kubernetes, as text, through the reader, the compiler and `decide`, against a model of what their
//! API says that shares nothing with them.

use std::{collections::BTreeMap, fmt::Write as _};

use weft::{model::traffic::named_port, plan::NodePlan};
use weft_common::{
    addr::Ip,
    header::protocol,
    id::{Epoch, Identity, RoleId},
    policy::{Query, decide},
};
use weft_tests::dice::Dice;

mod chance;
pub(crate) mod model;
pub(crate) mod objects;

use super::world::{Pod, World};
use model::{Flow, Party, Why};
use objects::{Cluster, yaml};

const WORLDS: u64 = 1_000;
const FLOWS: usize = 1_000;

/// What makes the defaults of apps those of Kubernetes, as `docs/policy.md` says it, beside `from-apps`.
const FROM_OUTSIDE: &str = "allow outside -> any any precedence -2000000";

impl Cluster {
    /// The text of its policies, in one of the ways in which people have them.
    pub(crate) fn text(&self, dice: &mut Dice) -> String {
        let policies = self.policies(|| dice.chance(30));
        match dice.roll(3) {
            0 => serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": policies }).to_string(),
            1 => policies.iter().map(|policy| format!("{policy:#}\n")).collect::<Vec<_>>().join("---\n"),
            _ => policies.iter().map(yaml).collect::<Vec<_>>().join("---\n"),
        }
    }

    /// What weft makes of it.
    pub(crate) fn world(&self, text: &str) -> World {
        let labels = |labels: &objects::Labels| {
            labels.iter().map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let pod = |pod: &objects::Pod| {
            let mut ports = weft::model::traffic::NamedPorts::default();
            for (name, protocol, number) in &pod.ports {
                let protocol = protocol.to_ascii_lowercase();
                let (name, protocol, number) = named_port(&format!("{name}={protocol}/{number}")).unwrap();
                ports.set(name, protocol, number);
            }
            Pod { addrs: pod.addrs.to_vec(), labels: labels(&pod.labels), ports }
        };
        let namespaces = self.namespaces.iter().map(|of| (of.name.to_owned(), labels(&of.labels)));
        let mut world = World {
            namespaces: namespaces.collect(),
            pods: self.pods.iter().map(|of| (self.full_name(of), pod(of))).collect(),
            rules: vec![FROM_OUTSIDE.parse().unwrap()],
            ..World::default()
        };
        assert_eq!(world.read(text), self.network.len() + self.admin.len());
        world
    }

    pub(crate) fn full_name(&self, pod: &objects::Pod) -> String {
        format!("{}/{}", self.namespaces[pod.namespace].name, pod.name)
    }
}

/// How `decide` is asked about a flow.
pub(crate) fn query(flow: &Flow, who: impl Fn(Party) -> Identity, other: u8) -> Query {
    let protocol = match flow.protocol {
        Some("TCP") => protocol::TCP,
        Some("UDP") => protocol::UDP,
        Some("SCTP") => protocol::SCTP,
        Some(other) => panic!("{other}"),
        None => other,
    };
    Query {
        src: who(flow.from),
        dst: who(flow.to),
        src_addr: Ip::from(flow.from_addr),
        dst_addr: Ip::from(flow.to_addr),
        protocol,
        port: flow.port,
    }
}

#[test]
fn random_policies_of_kubernetes_are_decided_as_their_text_says() {
    let mut seen = BTreeMap::<(bool, [Why; 2]), usize>::new();
    let mut before = NodePlan::default();
    for seed in 0..WORLDS {
        let mut dice = Dice(seed);
        let cluster = Cluster::random(&mut dice);
        let text = cluster.text(&mut dice);
        let world = cluster.world(&text);
        // One plan follows the other, as on a host.
        let (plan, identities) = world.plan_after(&before);
        let identities: Vec<_> = cluster.pods.iter().map(|pod| identities[&*cluster.full_name(pod)]).collect();
        let who = |party| match party {
            Party::Pod(pod) => identities[pod],
            Party::Node => Identity::HOST,
            Party::Outside => Identity::OUTSIDE,
        };
        let policy = plan.policy.at(0);
        for _ in 0..FLOWS {
            let flow = cluster.flow(&mut dice);
            let other = dice.pick(&[protocol::ICMP, protocol::ICMPV6, 47]);
            let query = query(&flow, who, other);
            let decision = decide(&policy, Epoch(0), &query);
            let (allowed, why) = cluster.allows(&flow);
            let about = |what: &str| {
                let rule = plan.policy.names.get(&decision.rule).map(ToString::to_string);
                let mut said = format!("seed {seed}: {what}\n{flow:?}\n");
                writeln!(said, "weft: {decision:?}, by {rule:?}\nKubernetes: {allowed}, by {why:?}").unwrap();
                writeln!(said, "{:#?}\n{:#?}\n{text}", cluster.namespaces, cluster.pods).unwrap();
                said
            };
            assert_eq!(decision.verdict.is_ok(), allowed, "{}", about("not as Kubernetes has it"));
            // Where the role of the other is not known, nothing is stopped that its own host lets pass.
            if allowed
                && let Party::Pod(to) = flow.to
                && dice.chance(20)
            {
                let unknown = Query { dst: Identity::new(identities[to].app, RoleId::UNKNOWN), ..query };
                let decision = decide(&policy, Epoch(0), &unknown);
                assert!(decision.verdict.is_ok(), "{}", about("does not leave its host"));
            }
            *seen.entry((allowed, why)).or_default() += 1;
        }
        before = plan;
    }
    // Each tier decides on many, either way.
    let by = |way: usize, why, passes| {
        let of = |((allowed, by), count): (&(bool, [Why; 2]), &usize)| {
            (*allowed == passes && by[way] == why).then_some(*count)
        };
        seen.iter().filter_map(of).sum::<usize>()
    };
    for why in [Why::Admin, Why::NetworkPolicy, Why::Baseline, Why::Default] {
        for (way, passes) in [(0, false), (0, true), (1, false), (1, true)] {
            assert!(by(way, why, passes) > 10_000, "{why:?}: {seen:?}");
        }
    }
}

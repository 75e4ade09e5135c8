//! Other people's policies: every case of `tests/policy-cases`, as IPv4 and as IPv6, read, compiled and decided.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
};

use serde_json::Value;
use weft_common::{
    addr::Ip,
    header::protocol,
    id::{Epoch, Identity, RoleId},
    policy::{Query, decide},
};

use weft::model::{
    labels::Labels,
    prefix::Family,
    traffic::{NamedPorts, named_port},
};

use super::world::{Pod, World};

/// As many as the file has: fewer would mean that it is not what it was.
const CASES: usize = 235;

/// The cases, as the file has them.
pub(super) fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy-cases/cases.json.gz");
    let unpacked = Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
    assert!(unpacked.status.success(), "unpack {}", path.display());
    let mut file: Value = serde_json::from_slice(&unpacked.stdout).unwrap();
    assert_eq!(file["format"], "netpol-cases/1");
    let Value::Array(cases) = file["cases"].take() else { panic!("no cases in {}", path.display()) };
    assert_eq!(cases.len(), CASES);
    cases
}

/// The state of a case: what its steps change.
pub(super) struct State {
    family: Family,
    pub(super) world: World,
}

impl State {
    fn of(case: &Value, family: Family) -> Self {
        let namespaces = object(&case["namespaces"]).map(|(name, labels)| (name.to_owned(), labels_of(labels)));
        let world = World { namespaces: namespaces.collect(), ..World::default() };
        let mut state = Self { family, world };
        for (name, pod) in object(&case["pods"]) {
            state.add_pod(name, pod);
        }
        state
    }

    fn add_pod(&mut self, name: &str, pod: &Value) {
        let addr = text(&pod["ip"]).parse::<Ipv4Addr>().unwrap();
        let addr = match self.family {
            Family::V4 => addr.into(),
            Family::V6 => embedded(addr).into(),
        };
        let mut ports = NamedPorts::default();
        for port in list(&pod["ports"]) {
            // A port without a name is one that rules can only mean by its number.
            let Some(name) = port["name"].as_str() else { continue };
            let protocol = text(&port["protocol"]).to_ascii_lowercase();
            let (name, protocol, number) = named_port(&format!("{name}={protocol}/{}", port["port"])).unwrap();
            ports.set(name, protocol, number);
        }
        self.world.pods.insert(name.to_owned(), Pod { addrs: vec![addr], labels: labels_of(&pod["labels"]), ports });
    }

    pub(super) fn addr_of(&self, pod: &str) -> IpAddr {
        self.world.pods[pod].addrs[0]
    }

    fn act(&mut self, action: &Value) {
        let namespace = || text(&action["namespace"]);
        let pod = || format!("{}/{}", namespace(), text(&action["pod"]));
        let World { namespaces, pods, policies, .. } = &mut self.world;
        match text(&action["op"]) {
            "create_policy" | "update_policy" => {
                let mut policy = action["policy"].clone();
                if self.family == Family::V6 {
                    embed(&mut policy);
                }
                assert_eq!(self.world.read(&serde_json::to_string_pretty(&policy).unwrap()), 1);
            }
            "delete_policy" => {
                let kind = action["kind"].as_str().unwrap_or("NetworkPolicy").to_ascii_lowercase();
                let between = action["namespace"].as_str().map_or(String::new(), |name| format!("{name}/"));
                let name = format!("{kind}/{between}{}", text(&action["name"])).parse().unwrap();
                assert!(policies.remove(&name).is_some(), "{name}");
            }
            "create_namespace" | "set_namespace_labels" => {
                namespaces.insert(namespace().to_owned(), labels_of(&action["labels"]));
            }
            "delete_namespace" => {
                namespaces.remove(namespace());
                let inside = format!("{}/", namespace());
                pods.retain(|name, _| !name.starts_with(&inside));
                let inside = format!("networkpolicy/{inside}");
                policies.retain(|name, _| !name.as_str().starts_with(&inside));
            }
            "create_pod" => self.add_pod(&pod(), action),
            "set_pod_labels" => pods.get_mut(&pod()).unwrap().labels = labels_of(&action["labels"]),
            "delete_pod" => assert!(pods.remove(&pod()).is_some()),
            op => panic!("{op}"),
        }
    }

    /// What is not as the step says: one line each.
    fn probe(&self, step: &Value) -> Vec<String> {
        let (plan, identities) = self.world.plan();
        let passes = |src: Identity, dst: Identity, cell: &Cell<'_>| {
            let [src_addr, dst_addr] = [cell.from, cell.to].map(|name| Ip::from(self.addr_of(name)));
            let query = Query { src, dst, src_addr, dst_addr, protocol: cell.protocol, port: cell.port };
            decide(&plan.policy.at(0), Epoch(0), &query).verdict.is_ok()
        };
        let mut wrong = Vec::new();
        for cell in cells(step) {
            let [src, dst] = [identities[cell.from], identities[cell.to]];
            if passes(src, dst, &cell) != cell.allowed {
                wrong.push(format!("not {cell:?}"));
            }
            // Where the role of the other is not known, nothing is stopped that its own host lets pass.
            let unknown = Identity::new(dst.app, RoleId::UNKNOWN);
            if cell.allowed && !passes(src, unknown, &cell) {
                wrong.push(format!("does not leave its host: {cell:?}"));
            }
        }
        wrong
    }
}

/// What a step says of one pod that speaks to another.
#[derive(Debug)]
pub(super) struct Cell<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) allowed: bool,
}

/// All that a step says.
pub(super) fn cells(step: &Value) -> Vec<Cell<'_>> {
    let cell = |from, to, probe: &Value, allowed| {
        let protocol = match text(&probe["protocol"]) {
            "TCP" => protocol::TCP,
            "UDP" => protocol::UDP,
            _ => protocol::SCTP,
        };
        let port = u16::try_from(probe["port"].as_u64().unwrap()).unwrap();
        Cell { from, to, protocol, port, allowed }
    };
    let mut cells = Vec::new();
    let order: Vec<_> = list(&step["order"]).iter().map(text).collect();
    for probe in list(&step["probes"]) {
        for (from, row) in order.iter().zip(list(&probe["matrix"])) {
            for (to, said) in order.iter().zip(text(row).chars()) {
                match said {
                    '.' => assert_eq!(from, to),
                    said => cells.push(cell(from, to, probe, said == '1')),
                }
            }
        }
    }
    for poke in step["pokes"].as_array().into_iter().flatten() {
        cells.push(cell(text(&poke["from"]), text(&poke["to"]), poke, poke["allowed"].as_bool().unwrap()));
    }
    cells
}

/// Every step of every case in both families: its name, the world after it, and what it says.
pub(super) fn each_step(mut body: impl FnMut(&str, &State, &Value)) {
    for case in cases() {
        for family in Family::ALL {
            let mut state = State::of(&case, family);
            for (at, step) in list(&case["steps"]).iter().enumerate() {
                for action in list(&step["actions"]) {
                    state.act(action);
                }
                body(&format!("{} step {at} {family}", text(&case["id"])), &state, step);
            }
        }
    }
}

#[test]
fn every_case_from_outside_is_decided_as_it_says() {
    let mut wrong = Vec::new();
    each_step(|name, state, step| wrong.extend(state.probe(step).iter().map(|wrong| format!("{name}: {wrong}"))));
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong[..wrong.len().min(50)].join("\n"));
}

/// An IPv4 address as an IPv6 one.
fn embedded(addr: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = addr.octets();
    Ipv6Addr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, a, b, c, d])
}

/// Prefixes of IPv4 as prefixes of IPv6, wherever they are.
fn embed(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((addr, len)) = text.split_once('/')
                && let (Ok(addr), Ok(len)) = (addr.parse(), len.parse::<u8>())
            {
                *text = format!("{}/{}", embedded(addr), len + 96);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(embed),
        Value::Object(fields) => fields.values_mut().for_each(embed),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn labels_of(value: &Value) -> Labels {
    object(value).map(|(key, value)| (key.parse().unwrap(), text(value).parse().unwrap())).collect()
}

fn object(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().unwrap().iter().map(|(key, value)| (key.as_str(), value))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

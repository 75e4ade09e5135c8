//! Checks of this host: what would keep it from working, and what to do about it.
//!
//! Looks and changes nothing. What the daemon repairs by itself is told if it happened.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use weft_common::{
    flow::Flow,
    id::PeerId,
    route::HopKind,
    table::{self, Table as _},
};

use crate::front::api::dto::state::{Check, CheckResult, Diagnosis, Table};
use crate::kernel::{
    attach::{Attached, Attacher, Held, programs_at, tcx_is_available},
    link::{self, GATEWAY, Link, LinkKind, Links},
    sysctl,
    tables::{Keyed as _, Map},
};
use crate::model::{cluster::Cluster, prefix::Prefix};
use crate::plan::NodePlan;
use crate::status::{EndpointState, Status};
use crate::store::Snapshot;

use super::{Service, naming::Names};

/// The oldest kernel that the programs are tested on.
const FLOOR: (u32, u32) = (6, 1);
/// What IPv6 asks of every link (RFC 8200 §5).
const LEAST_MTU: u32 = 1280;
/// A clock that says an earlier time was never set: 2025-01-01.
const EARLIEST: Duration = Duration::from_hours(482_136);
/// How much a clock may go back when it is set.
const STEP: Duration = Duration::from_mins(1);

impl Service {
    pub(super) async fn checks(&self) -> Result<Diagnosis> {
        let (snapshot, plan, status) = (self.snapshot(), self.plan(), self.board.read());
        let cluster = &*snapshot.cluster;
        let netlink = Links::new()?;
        let links = netlink.list().await?;
        let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
        let mut checks = vec![kernel(&release, tcx_is_available())];
        checks.push(if self.pins.are_on_bpffs() {
            ok("bpffs", format!("{} is on one", self.pins))
        } else {
            let advice =
                "mount -t bpf bpf /sys/fs/bpf, and start weftd again: without pins its end would end the network";
            fail("bpffs", format!("{} is not on one any more", self.pins), advice)
        });
        checks.extend(self.settings(&snapshot));
        checks.extend(reconciled(&status));
        checks.extend(hooks(&Attacher::new(self.pins.clone()).list()?));
        checks.push(tables(&self.fills()?));
        checks.extend(self.ways(cluster, &plan));
        let names = Names { cluster, plan: &plan };
        checks.extend(answers(&names, Map::<table::Flows>::open(&self.pins)?.entries()?.values()));
        checks.extend(devices(&links, cluster.settings.port));
        checks.extend(switches(plan.peers.values().filter_map(|peer| link::name_of(peer.uplink)).collect()));
        checks.push(overlaps(&netlink, &links, cluster).await?);
        let attached = cluster.endpoints_on(&self.host).filter_map(|endpoint| endpoint.attached).max();
        checks.push(clock(SystemTime::now(), attached));
        let memory = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = memory.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
        checks.push(ok("memory", format!("weftd holds {} MiB", pages * 4 / 1024)));
        Ok(Diagnosis { checks })
    }

    /// What the operator described, and what was written down of it.
    fn settings(&self, snapshot: &Snapshot) -> [Check; 3] {
        let file = match &snapshot.problem {
            None => ok("cluster file", "is in force".to_owned()),
            Some(problem) => {
                fail("cluster file", problem.to_string(), "mend the line; until then the last good state is in force")
            }
        };
        let host = match snapshot.cluster.hosts.get(&self.host) {
            Some(_) => ok("host", format!("{} is in the cluster", self.host)),
            None => fail(
                "host",
                format!("{} is not in the cluster", self.host),
                "add it to the cluster file, or start weftd with another --host",
            ),
        };
        let state = match &snapshot.unwritten {
            None => ok("state", "is written down".to_owned()),
            Some(why) => fail("state", why.to_string(), "make room where weftd keeps its state: it is tried again"),
        };
        [file, host, state]
    }

    /// Whether there is a way to every peer, and one that the peer will know this host by.
    fn ways(&self, cluster: &Cluster, plan: &NodePlan) -> Vec<Check> {
        let mut checks = Vec::new();
        let own = cluster.hosts.get(&self.host).map(|host| host.addresses.as_slice()).unwrap_or_default();
        for peer in cluster.hosts.values().filter(|peer| peer.name != self.host) {
            let name = &peer.name;
            let Some(record) = plan.ids.peer(name).and_then(|id| plan.peers.get(&id.0)) else {
                checks.push(fail("peers", format!("there is no way to {name}"), "give this host a route to it"));
                continue;
            };
            let (from, inner) = (record.local.to_std(), record.inner_mtu());
            if !own.contains(&from) {
                let detail = format!("packets to {name} leave from {from}, which is no address of {}", self.host);
                let advice = "add it to this host's addresses in the cluster file: the peer drops them as unknown-peer";
                checks.push(fail("peers", detail, advice));
            }
            if inner < LEAST_MTU {
                let detail = format!("the way to {name} takes packets of {} bytes, {inner} inside", record.path_mtu);
                checks.push(warn("mtu", detail, "IPv6 needs 1280 inside: raise the underlay's MTU"));
            }
        }
        if checks.is_empty() {
            checks.push(ok("peers", "there is a way to every one of them, with room for 1280 bytes".to_owned()));
        }
        checks
    }
}

fn kernel(release: &str, has_tcx: bool) -> Check {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = numbers.next().and_then(Result::ok).zip(numbers.next().and_then(Result::ok));
    match version {
        Some(version) if version < FLOOR => {
            fail("kernel", format!("{release} is older than 6.1"), "run Linux 6.1 or later, better 6.6")
        }
        Some(_) | None if has_tcx => ok("kernel", format!("{release} has TCX")),
        Some(_) | None => warn(
            "kernel",
            format!("{release} has no TCX: programs are filters of a clsact qdisc"),
            "nothing has to be done; Linux 6.6 and later attach programs without a qdisc",
        ),
    }
}

fn reconciled(status: &Status) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(if status.refused.is_empty() {
        ok("programs", "all are loaded".to_owned())
    } else {
        fail(
            "programs",
            format!("the kernel refused {}", status.refused.join(", ")),
            "see the daemon's log for the verifier's words, and report them",
        )
    });
    checks.push(if status.failures.is_empty() {
        ok("reconcile", format!("revision {} is in force", status.revision))
    } else {
        fail("reconcile", status.failures.join("; "), "see weft status; it is tried again every few seconds")
    });
    for (endpoint, state) in &status.endpoints {
        if let EndpointState::Failed(why) = state {
            checks.push(fail("endpoints", format!("{endpoint}: {why}"), "detach it and attach it again"));
        }
    }
    let repaired: Vec<_> = status.repaired.iter().filter(|(_, times)| **times > 0).collect();
    checks.push(if repaired.is_empty() {
        ok("drift", "nothing was changed behind our back".to_owned())
    } else {
        let what: Vec<_> = repaired.iter().map(|(what, times)| format!("{what} {times} times")).collect();
        let advice = "find out what else changes routes, devices or tables of this host";
        warn("drift", format!("put right: {}", what.join(", ")), advice)
    });
    checks
}

/// Whether somebody else's programs are where ours are.
fn hooks(attached: &[Attached]) -> Vec<Check> {
    let mut checks = Vec::new();
    for held in attached {
        let Some(programs) = held.index.and_then(|index| programs_at(index, held.place)) else { continue };
        let at = format!("{} {}", held.interface, held.place);
        checks.extend(order(&at, &held.program, &programs));
    }
    if checks.is_empty() {
        checks.push(ok("hooks", format!("{} programs of ours, and none of others beside them", attached.len())));
    }
    checks
}

/// What there is to say of the programs at one place, of which one is ours.
fn order(at: &str, ours: &Held, programs: &[Held]) -> Vec<Check> {
    let place = programs.iter().position(|held| held.id == ours.id);
    let list = |others: &[Held]| others.iter().map(|held| format!("{} (#{})", held.name, held.id)).collect::<Vec<_>>();
    let Some(place) = place else {
        let detail = format!("{} is not at {at}", ours.name);
        return vec![fail("hooks", detail, "it is attached again in the next pass; see weft status")];
    };
    let (before, after) = (list(&programs[..place]), list(&programs[place + 1..]));
    let mut checks = Vec::new();
    if !before.is_empty() {
        let detail = format!("at {at} packets meet {} before weft", before.join(", "));
        checks.push(fail("hooks", detail, "attach them behind weft's: what they let pass, no rule has seen"));
    }
    if !after.is_empty() {
        let detail = format!("at {at} there are {} behind weft's", after.join(", "));
        checks.push(warn("hooks", detail, "nothing has to be done, unless they need packets that weft took or ended"));
    }
    checks
}

fn tables(fills: &[Table]) -> Check {
    // The oldest flow gives way: a full table of them is no failure.
    let full = |fill: &&Table| fill.refused > 0 || (fill.name != table::Flows::NAME && fill.used * 10 >= fill.max * 9);
    let full: Vec<_> = fills.iter().filter(full).collect();
    let text = |fill: &&Table| match fill.refused {
        0 => format!("{} has {} of {} entries", fill.name, fill.used, fill.max),
        refused => format!("{} has no room for {refused} more than {} entries", fill.name, fill.max),
    };
    let texts: Vec<_> = full.iter().map(text).collect();
    match full.iter().any(|fill| fill.refused > 0) {
        _ if full.is_empty() => ok("tables", "all have room".to_owned()),
        true => fail("tables", texts.join(", "), "the state before stays in force: make the cluster smaller"),
        false => warn("tables", texts.join(", "), "what does not fit will be refused"),
    }
}

/// Whether peers answer. Nothing is sent: what containers have sent tells.
fn answers<'a>(names: &Names<'_>, flows: impl Iterator<Item = &'a Flow>) -> Vec<Check> {
    let mut heard: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for flow in flows {
        for (peer, other) in [(0, 1), (1, 0)] {
            if flow.side[peer].hop.kind() == HopKind::Peer {
                let (sent, received) = heard.entry(flow.side[peer].hop.index).or_default();
                *sent += flow.side[other].packets;
                *received += flow.side[peer].packets;
            }
        }
    }
    let check = |(peer, (sent, received)): (u32, (u64, u64))| {
        let name = names.peer(PeerId(peer));
        if received > 0 || sent == 0 {
            return ok("answers", format!("packets come from {name}"));
        }
        let port = names.cluster.settings.port;
        let advice = format!(
            "look at weft drops there; if it counts nothing, let UDP port {port} through both ways between the hosts"
        );
        warn("answers", format!("{sent} packets were sent to {name} and none came back"), &advice)
    };
    heard.into_iter().map(check).collect()
}

fn devices(links: &[Link], port: u16) -> Vec<Check> {
    let mut checks = Vec::new();
    let gateway = links.iter().find(|link| link.name == GATEWAY);
    checks.push(match gateway {
        Some(link) if link.is_up => ok("gateway", format!("{GATEWAY} is up")),
        Some(_) => fail("gateway", format!("{GATEWAY} is down"), "it is switched on in the next pass; see weft status"),
        None => fail("gateway", format!("there is no device {GATEWAY}"), "see weft status"),
    });
    let others = links.iter().filter(|link| link.name != GATEWAY);
    let mut others = others.filter(|link| matches!(&link.kind, LinkKind::Vxlan(vxlan) if vxlan.port == port));
    checks.push(match others.next() {
        Some(other) => {
            let detail = format!("{} takes UDP port {port}, too", other.name);
            fail("port", detail, "give the other device or the cluster another port: weft's packets may end there")
        }
        None => ok("port", format!("UDP port {port} is no other tunnel's")),
    });
    checks
}

/// Kernel switches without which packets to and from the outside get lost.
fn switches(uplinks: std::collections::BTreeSet<String>) -> Vec<Check> {
    let is = |key: &str, value: &str| sysctl::get(key).is_ok_and(|have| have == value);
    let forwards = |name: &String| is(&format!("ipv4/conf/{name}/forwarding"), "1");
    let all = std::iter::once(GATEWAY.to_owned()).chain(uplinks);
    let off: Vec<_> = all.filter(|name| !forwards(name)).collect();
    let forwarding = if off.is_empty() {
        ok("forwarding", "the gateway device and the uplinks forward".to_owned())
    } else {
        let advice = "something switches it off again: containers do not reach the outside; look at sysctl.d";
        fail("forwarding", format!("{} does not forward IPv4", off.join(", ")), advice)
    };
    // The stricter of both counts, but 2 takes the place of 1.
    let own = format!("ipv4/conf/{GATEWAY}/rp_filter");
    let strict = !is(&own, "2") && (is(&own, "1") || is("ipv4/conf/all/rp_filter", "1"));
    let source = if strict {
        let advice = "something sets it again: answers from the outside are lost; look at sysctl.d";
        fail("rp_filter", format!("{GATEWAY} checks sources strictly"), advice)
    } else {
        ok("rp_filter", format!("{GATEWAY} does not check sources strictly"))
    };
    vec![forwarding, source]
}

/// Whether an interface of somebody else has an address inside of an app's prefix.
async fn overlaps(netlink: &Links, links: &[Link], cluster: &Cluster) -> Result<Check> {
    let name = |index| links.iter().find(|link| link.index == index).map_or("?", |link| link.name.as_str());
    let prefixes = || cluster.apps.values().flat_map(|app| &app.prefixes);
    for address in netlink.addresses().await?.into_iter().filter(|address| name(address.link) != GATEWAY) {
        let own = Prefix::new(address.net.network(), address.net.prefix_len());
        let hit = own.ok().and_then(|own| prefixes().find(|prefix| prefix.overlaps(&own)));
        if let Some(prefix) = hit {
            let detail = format!("{} of {} lies in the app prefix {prefix}", address.net, name(address.link));
            return Ok(fail("addresses", detail, "give the app another prefix, or the interface another address"));
        }
    }
    Ok(ok("addresses", "no interface of this host has addresses of an app".to_owned()))
}

/// Whether the time can be right. `attached` is when an endpoint was attached last.
fn clock(now: SystemTime, attached: Option<SystemTime>) -> Check {
    let advice = "set the clock: times that are shown are wrong; nothing else depends on it";
    if now.duration_since(UNIX_EPOCH).unwrap_or_default() < EARLIEST {
        return warn("clock", "it was never set".to_owned(), advice);
    }
    if attached.is_some_and(|attached| attached > now + STEP) {
        return warn("clock", "an endpoint was attached in the future: it has gone back".to_owned(), advice);
    }
    ok("clock", "goes on from when endpoints were attached".to_owned())
}

fn ok(name: &str, detail: String) -> Check {
    Check { name: name.to_owned(), result: CheckResult::Ok, detail, advice: None }
}

fn warn(name: &str, detail: String, advice: &str) -> Check {
    Check { name: name.to_owned(), result: CheckResult::Warn, detail, advice: Some(advice.to_owned()) }
}

fn fail(name: &str, detail: String, advice: &str) -> Check {
    Check { name: name.to_owned(), result: CheckResult::Fail, detail, advice: Some(advice.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::example;
    use weft_common::{flow::Side, route::Hop};

    #[test]
    fn kernels_are_told_apart() {
        let check = |release: &str, has_tcx, expect| assert_eq!(kernel(release, has_tcx).result, expect, "{release}");
        check("5.10.0-30-amd64", false, CheckResult::Fail);
        check("6.0.9", false, CheckResult::Fail);
        check("6.1.0-21-cloud-amd64", false, CheckResult::Warn);
        check("6.18.3", true, CheckResult::Ok);
        check("strange", true, CheckResult::Ok);
    }

    #[test]
    fn a_program_in_front_of_ours_is_worse_than_one_behind() {
        let held = |id| Held { id, tag: [0; 8], name: format!("p{id}") };
        let check = |ids: &[u32], expect: &[CheckResult]| {
            let found = order("eth0 ingress", &held(7), &ids.iter().copied().map(held).collect::<Vec<_>>());
            assert_eq!(found.iter().map(|check| check.result).collect::<Vec<_>>(), expect, "{ids:?}");
        };
        check(&[7], &[]);
        check(&[7, 8], &[CheckResult::Warn]);
        check(&[6, 7], &[CheckResult::Fail]);
        check(&[6, 7, 8], &[CheckResult::Fail, CheckResult::Warn]);
        check(&[6], &[CheckResult::Fail]);
    }

    #[test]
    fn full_tables_are_named() {
        let fill = |name: &str, used, refused| Table { name: name.to_owned(), used, max: 100, refused };
        let check = |fill: Table, expect| assert_eq!(tables(&[fill]).result, expect);
        check(fill("ROUTES", 89, 0), CheckResult::Ok);
        check(fill("ROUTES", 90, 0), CheckResult::Warn);
        check(fill("FLOWS", 100, 0), CheckResult::Ok);
        check(fill("ROUTES", 10, 3), CheckResult::Fail);
        assert_eq!(tables(&[fill("ROUTES", 10, 3)]).detail, "ROUTES has no room for 3 more than 100 entries");
    }

    #[test]
    fn a_peer_that_never_answers_is_named() {
        let (cluster, plan) = (example::cluster(), NodePlan::default());
        let names = Names { cluster: &cluster, plan: &plan };
        let side = |hop, packets| Side { hop, packets, ..Side::default() };
        let flow = |sent, received| Flow {
            side: [side(Hop::local(3), sent), side(Hop::peer(PeerId(5)), received)],
            ..Flow::default()
        };
        let check = |flows: &[Flow], expect: &[CheckResult]| {
            let found = answers(&names, flows.iter());
            assert_eq!(found.iter().map(|check| check.result).collect::<Vec<_>>(), expect);
        };
        check(&[], &[]);
        check(&[flow(3, 0)], &[CheckResult::Warn]);
        check(&[flow(3, 0), flow(2, 1)], &[CheckResult::Ok]);
    }

    #[test]
    fn a_clock_that_was_never_set_or_went_back_is_told() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let now = at(1_795_266_660);
        assert_eq!(clock(at(100), None).result, CheckResult::Warn);
        assert_eq!(clock(now, Some(now + STEP * 2)).result, CheckResult::Warn);
        assert_eq!(clock(now, Some(now - STEP)).result, CheckResult::Ok);
        assert_eq!(clock(now, None).result, CheckResult::Ok);
    }
}

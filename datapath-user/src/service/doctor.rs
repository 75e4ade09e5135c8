//! Checks of this host: what would keep it from working, and what to do about it.

use std::fs;

use anyhow::Result;

use crate::front::api::dto::state::{Check, CheckResult, Diagnosis};
use crate::kernel::{attach::tcx_is_available, link::Links, sysctl};
use crate::model::prefix::Prefix;

use super::Service;

impl Service {
    pub(super) async fn checks(&self) -> Result<Diagnosis> {
        let (snapshot, plan, status) = (self.snapshot(), self.plan(), self.board.read());
        let mut checks = Vec::new();
        let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
        checks.push(if tcx_is_available() {
            ok("kernel", format!("{release} has TCX"))
        } else {
            let advice = "nothing has to be done; Linux 6.6 and later attach programs without a qdisc";
            warn("kernel", format!("{release} has no TCX: programs are filters of a clsact qdisc"), advice)
        });
        checks.push(match snapshot.problem.as_ref() {
            None => ok("cluster file", "is in force".to_owned()),
            Some(problem) => {
                fail("cluster file", problem.to_string(), "mend the line; until then the last good state is in force")
            }
        });
        checks.push(match snapshot.cluster.hosts.get(&self.host) {
            Some(_) => ok("host", format!("{} is in the cluster", self.host)),
            None => fail(
                "host",
                format!("{} is not in the cluster", self.host),
                "add it to the cluster file, or start weftd with another --host",
            ),
        });
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
            fail("reconcile", status.failures.join("; "), "see weft status")
        });
        let repaired: u64 = status.repaired.values().sum();
        checks.push(if repaired == 0 {
            ok("drift", "nothing was changed behind our back".to_owned())
        } else {
            warn(
                "drift",
                format!("{repaired} things were put right"),
                "find out what else changes routes, devices or tables of this host",
            )
        });
        for peer in
            self.peers().peers.iter().filter(|peer| !matches!(peer.state, crate::front::api::dto::side::State::Ready))
        {
            checks.push(fail("peers", format!("there is no way to {}", peer.name), "give this host a route to it"));
        }
        for peer in plan.peers.values().filter(|peer| peer.inner_mtu() < 1280) {
            let detail = format!(
                "the path to {} takes packets of {} bytes, inside the tunnel {}",
                peer.addr,
                peer.path_mtu,
                peer.inner_mtu()
            );
            checks.push(warn("mtu", detail, "IPv6 needs 1280: raise the underlay's MTU"));
        }
        checks.push(match sysctl::get("ipv4/conf/weft0/forwarding") {
            Ok(value) if value == "1" => ok("forwarding", "weft0 forwards".to_owned()),
            Ok(_) => warn(
                "forwarding",
                "weft0 does not forward".to_owned(),
                "containers do not reach the outside; it is switched on in the next pass",
            ),
            Err(_) => warn("forwarding", "there is no device weft0".to_owned(), "see weft status"),
        });
        checks.push(
            overlaps(&snapshot.cluster.apps.values().flat_map(|app| app.prefixes.clone()).collect::<Vec<_>>()).await?,
        );
        let memory = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = memory.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
        checks.push(ok("memory", format!("weftd holds {} MiB", pages * 4 / 1024)));
        Ok(Diagnosis { checks })
    }
}

/// Whether a route of somebody else leads into an app's prefix.
async fn overlaps(prefixes: &[Prefix]) -> Result<Check> {
    let links = Links::new()?;
    let gateway = links.find(crate::kernel::link::GATEWAY).await?.map(|link| link.index);
    for address in links.addresses().await?.into_iter().filter(|address| Some(address.link) != gateway) {
        let own = Prefix::new(address.net.network(), address.net.prefix_len());
        let hit = own.ok().and_then(|own| prefixes.iter().find(|prefix| prefix.overlaps(&own)));
        if let Some(prefix) = hit {
            let detail = format!("{} of interface #{} lies in the app prefix {prefix}", address.net, address.link);
            return Ok(fail("addresses", detail, "give the app another prefix, or the interface another address"));
        }
    }
    Ok(ok("addresses", "no interface of this host has addresses of an app".to_owned()))
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

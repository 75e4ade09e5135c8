//! What the daemon may do, and nothing else of what root may.
//!
//! Invariant: the unit `weftd.service` says the same.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};

/// Each capability that the daemon keeps, and what it fails at without it (capabilities(7)).
pub const NEEDED: [(Capability, &str); 9] = [
    (Capability::CAP_BPF, "load programs and make tables"),
    (Capability::CAP_CHOWN, "give its socket to the group weft, and leave the cluster file to its owner"),
    (Capability::CAP_DAC_OVERRIDE, "read and replace a cluster file that belongs to whoever deploys it"),
    (Capability::CAP_FOWNER, "leave the cluster file the mode that it has"),
    (Capability::CAP_NET_ADMIN, "make devices, routes and nftables, and attach programs"),
    (Capability::CAP_NET_RAW, "hand on the first packet of a flow that the tables did not know"),
    (Capability::CAP_PERFMON, "have programs verified that hold pointers on their stack"),
    (Capability::CAP_SYS_ADMIN, "enter the namespaces of containers, mount the BPF file system and list programs"),
    (Capability::CAP_SYS_PTRACE, "open the namespace of a process of another user"),
];

/// Gives up every other privilege, for this thread and those it starts, for ever. Gives back what is missing of
/// [`NEEDED`]: what needs it will fail.
///
/// To be called before the first thread is started: the kernel keeps capabilities by thread.
pub fn drop_others() -> Result<Vec<(Capability, &'static str)>> {
    let had = caps::read(None, CapSet::Permitted).context("read the own capabilities")?;
    let (kept, missing): (Vec<_>, Vec<_>) = NEEDED.into_iter().partition(|(capability, _)| had.contains(capability));
    let kept: HashSet<_> = kept.into_iter().map(|(capability, _)| capability).collect();
    let change = || {
        // From the bounding set first: it takes a capability that is about to go.
        if had.contains(&Capability::CAP_SETPCAP) {
            for other in caps::runtime::thread_all_supported().difference(&kept) {
                caps::drop(None, CapSet::Bounding, *other)?;
            }
        }
        for set in [CapSet::Ambient, CapSet::Inheritable] {
            caps::clear(None, set)?;
        }
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)
    };
    change().context("give up capabilities")?;
    nix::sys::prctl::set_no_new_privs().context("forbid to gain privileges")?;
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_grants_what_is_needed_and_nothing_else() {
        let unit = include_str!("../../weftd.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let granted: Vec<_> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(granted, NEEDED.map(|(capability, _)| capability.to_string()));
    }
}

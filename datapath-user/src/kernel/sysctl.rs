//! Kernel switches below /proc/sys/net, of the namespace of the calling thread.
//!
//! Every change gives back what was there before, so that `weft reset` leaves the host as it was.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};

/// What a switch was before it was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Which, as a path below /proc/sys/net.
    pub key: String,
    /// What it was.
    pub value: String,
}

/// The kernel sends on what comes in by this interface. For IPv6 see [`forward_ipv6`].
pub fn forward_ipv4(interface: &str) -> Result<Vec<Earlier>> {
    Ok(set(&format!("ipv4/conf/{interface}/forwarding"), "1")?.into_iter().collect())
}

/// The kernel sends on IPv6 packets. There is no switch per interface before Linux 6.17, and a host that forwards no
/// longer listens to routers unless each interface is told to: without that it would lose its own default route.
pub fn forward_ipv6() -> Result<Vec<Earlier>> {
    const ALL: &str = "ipv6/conf/all/forwarding";
    let mut earlier = Vec::new();
    if !Path::new("/proc/sys/net/ipv6").exists() || get(ALL)? == "1" {
        return Ok(earlier);
    }
    let interfaces = fs::read_dir("/proc/sys/net/ipv6/conf").context("list /proc/sys/net/ipv6/conf")?;
    for interface in interfaces.flatten() {
        let key = format!("ipv6/conf/{}/accept_ra", interface.file_name().to_string_lossy());
        match get(&key) {
            Ok(value) if value == "1" => earlier.extend(set(&key, "2")?),
            // The interface may be gone.
            Ok(_) | Err(_) => {}
        }
    }
    earlier.extend(set(ALL, "1")?);
    Ok(earlier)
}

/// Packets may come in by this interface from addresses that routes do not lead back to by it: the programs check
/// sources, and better. The stricter of this and the switch for all interfaces counts, so 0 would not do.
pub fn loosen_source_check(interface: &str) -> Result<Vec<Earlier>> {
    Ok(set(&format!("ipv4/conf/{interface}/rp_filter"), "2")?.into_iter().collect())
}

/// Puts switches back. Those of interfaces that are gone are gone too. All are tried; the first failure is told.
pub fn restore(earlier: &[Earlier]) -> Result<()> {
    let mut result = Ok(());
    for Earlier { key, value } in earlier.iter().rev() {
        if path(key).exists()
            && let Err(error) = set(key, value)
        {
            result = result.and(Err(error));
        }
    }
    result
}

/// Reads a switch, as a path below /proc/sys/net.
pub fn get(key: &str) -> Result<String> {
    let value = fs::read_to_string(path(key)).with_context(|| format!("read sysctl net/{key}"))?;
    Ok(value.trim().to_owned())
}

/// Sets a switch, and gives what it was if that was something else.
pub fn set(key: &str, value: &str) -> Result<Option<Earlier>> {
    let before = get(key)?;
    if before == value {
        return Ok(None);
    }
    fs::write(path(key), value).with_context(|| format!("set sysctl net/{key} to {value}"))?;
    Ok(Some(Earlier { key: key.to_owned(), value: before }))
}

/// As [`set`], for switches that a kernel may be built without.
pub(super) fn set_if_there(key: &str, value: &str) -> Result<()> {
    match fs::write(path(key), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("set sysctl net/{key} to {value}")),
    }
}

fn path(key: &str) -> std::path::PathBuf {
    Path::new("/proc/sys/net").join(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::within;

    #[test]
    fn what_was_changed_is_put_back() {
        within(|| {
            let mut earlier = forward_ipv4("lo").unwrap();
            earlier.extend(loosen_source_check("lo").unwrap());
            earlier.extend(forward_ipv6().unwrap());
            assert_eq!(get("ipv4/conf/lo/forwarding").unwrap(), "1");
            assert_eq!(get("ipv4/conf/lo/rp_filter").unwrap(), "2");
            assert_eq!(get("ipv6/conf/all/forwarding").unwrap(), "1");
            assert_eq!(get("ipv6/conf/default/accept_ra").unwrap(), "2");
            assert_eq!(forward_ipv4("lo").unwrap(), []);
            assert_eq!(forward_ipv6().unwrap(), []);

            earlier.push(Earlier { key: "ipv4/conf/gone/forwarding".to_owned(), value: "0".to_owned() });
            restore(&earlier).unwrap();
            assert_eq!(get("ipv4/conf/lo/forwarding").unwrap(), "0");
            assert_eq!(get("ipv6/conf/all/forwarding").unwrap(), "0");
            assert_eq!(get("ipv6/conf/default/accept_ra").unwrap(), "1");
        });
    }

    #[test]
    fn a_switch_that_is_not_there_is_named() {
        let error = format!("{:#}", forward_ipv4("weft-none").unwrap_err());
        assert!(error.starts_with("read sysctl net/ipv4/conf/weft-none/forwarding: No such file"), "{error}");
    }
}

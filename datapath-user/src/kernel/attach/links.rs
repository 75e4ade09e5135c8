//! Attachments that are BPF links: TCX and XDP. A link holds its program for as long as it is pinned.
//!
//! A pin outlives its interface: then the link holds nothing any more, and its pin is in the way of a new one.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{Attached, Change, Held, Order, Place, Spot};
use crate::kernel::{
    bpf::{self, AttachType, LinkInfo},
    load::Code,
    pins::Pins,
};

/// `BPF_F_BEFORE` and `BPF_F_AFTER`: before or after all others, for no other is named.
const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`.
const GENERIC: u32 = 1 << 1;
const DRIVER: u32 = 1 << 2;

/// Puts the program into the link that is there, of this layout or an earlier one, or makes a link.
pub(super) fn attach(pins: &Pins, code: &Code, spot: &Spot<'_>, order: Order) -> Result<Change> {
    let name = pin_name(spot.interface, spot.place);
    let pin = pins.links().join(&name);
    let earlier = pins.others()?.into_iter().map(|other| other.links().join(&name));
    for found in std::iter::once(pin.clone()).chain(earlier) {
        let Some((link, info)) = live(&found, spot.index)? else { continue };
        let change = replace(&link, info, code)?;
        if found != pin {
            // The order matters if we die in between: a link without a pin would be gone.
            bpf::pin(link.as_fd(), &pin).with_context(|| format!("pin link {}", pin.display()))?;
            unpin(&found)?;
        }
        return Ok(change);
    }
    let link = make(code, spot, order)?;
    bpf::pin(link.as_fd(), &pin).with_context(|| format!("pin link {}", pin.display()))?;
    Ok(Change::Added)
}

/// Detaches before it removes the pin: a link whose last pin is gone is only released some time later.
pub(super) fn detach(pins: &Pins, interface: &str, place: Place) -> Result<()> {
    let pin = pins.links().join(pin_name(interface, place));
    if let Some((link, _)) = open(&pin)? {
        bpf::link_detach(link.as_fd()).context("detach the link")?;
    }
    unpin(&pin)
}

/// Every pinned link.
pub(super) fn list(pins: &Pins) -> Result<Vec<Attached>> {
    let directory = pins.links();
    let mut attached = Vec::new();
    // Most links hold the same few programs.
    let mut programs = BTreeMap::new();
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(attached),
        entries => entries.with_context(|| format!("read directory {}", directory.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("read directory {}", directory.display()))?;
        let Some((interface, place)) = entry.file_name().to_str().and_then(parse) else { continue };
        let Some((_, info)) = open(&entry.path())? else { continue };
        let index = (info.ifindex != 0).then_some(info.ifindex);
        let program = match programs.entry(info.program) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(Held::of(info.program)?),
        };
        attached.push(Attached { interface, place, index, program: program.clone() });
    }
    Ok(attached)
}

/// The pinned link, if it is at the interface with this number. One that is not is in the way, and goes.
fn live(pin: &Path, index: u32) -> Result<Option<(OwnedFd, LinkInfo)>> {
    let Some((link, info)) = open(pin)? else { return Ok(None) };
    if info.ifindex == index {
        return Ok(Some((link, info)));
    }
    unpin(pin)?;
    Ok(None)
}

fn replace(link: &OwnedFd, info: LinkInfo, code: &Code) -> Result<Change> {
    if info.program == code.id() {
        return Ok(Change::Kept);
    }
    bpf::link_update(link.as_fd(), code.as_fd()).context("replace the program that is there")?;
    Ok(Change::Replaced)
}

fn make(code: &Code, spot: &Spot<'_>, order: Order) -> Result<OwnedFd> {
    let create = |at, flags| bpf::link_create(code.as_fd(), spot.index, at, flags);
    let order = match order {
        Order::First => BEFORE,
        Order::Last => AFTER,
    };
    match spot.place {
        Place::Ingress => create(AttachType::TcxIngress, order).context("make a TCX link"),
        Place::Egress => create(AttachType::TcxEgress, order).context("make a TCX link"),
        Place::Xdp => match create(AttachType::Xdp, DRIVER) {
            Ok(link) => Ok(link),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                bail!("another XDP program is there");
            }
            // A driver has many ways to say that it can not: no support, the MTU, offloads, queues.
            Err(driver) => create(AttachType::Xdp, GENERIC)
                .with_context(|| format!("make an XDP link (the driver refused: {driver})")),
        },
    }
}

fn open(pin: &Path) -> Result<Option<(OwnedFd, LinkInfo)>> {
    let link = match bpf::open(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        link => link.with_context(|| format!("open pin {}", pin.display()))?,
    };
    let info = bpf::info(link.as_fd()).with_context(|| format!("read what {} is", pin.display()))?;
    Ok(Some((link, info)))
}

fn unpin(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("remove pin {}", pin.display())),
    }
}

/// A bpffs takes no dots, which VLAN interfaces have in their names; the kernel takes no colons in interfaces' names.
fn pin_name(interface: &str, place: Place) -> PathBuf {
    format!("{}-{place}", interface.replace('.', ":")).into()
}

fn parse(name: &str) -> Option<(String, Place)> {
    let (interface, place) = name.rsplit_once('-')?;
    let place = Place::ALL.into_iter().find(|known| known.name() == place)?;
    Some((interface.replace(':', "."), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_name_interfaces_with_dots_and_dashes() {
        for (interface, place, name) in [
            ("eth0", Place::Ingress, "eth0-ingress"),
            ("bond0.100", Place::Xdp, "bond0:100-xdp"),
            ("w-a-b", Place::Egress, "w-a-b-egress"),
        ] {
            assert_eq!(pin_name(interface, place), Path::new(name));
            assert_eq!(parse(name), Some((interface.to_owned(), place)));
        }
        assert_eq!(parse("eth0"), None);
        assert_eq!(parse("eth0-up"), None);
    }
}

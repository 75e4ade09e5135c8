//! Takes everything of ours off a host, whether a daemon runs there or not, and whichever version made it.
//!
//! What can not be removed does not keep the rest from being removed.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;

use crate::kernel::{
    attach::{Attacher, Way, remove_empty_clsact},
    link,
    masquerade::Masquerade,
    pins::Pins,
};

use super::{devices::Devices, switches::Switches};

/// What a reset came to.
#[derive(Debug, Default)]
pub struct Cleared {
    /// What was removed.
    pub removed: Vec<String>,
    /// What could not be, and why.
    pub left: Vec<String>,
}

/// Clears the host of the calling thread's namespace. No daemon may run: it would put things back.
pub async fn without_daemon(pins: &Pins, state: &Path) -> Result<Cleared> {
    Ok(reset(pins, &mut Devices::new()?, &mut Switches::open(state)).await)
}

pub(super) async fn reset(pins: &Pins, devices: &mut Devices, switches: &mut Switches) -> Cleared {
    let mut cleared = Cleared::default();
    cleared.note(devices.look().await, |()| None);
    // Containers are cut off before their programs go.
    let links = devices.remove_others(&BTreeMap::new()).await;
    cleared.note(links, |links| (links > 0).then(|| format!("{links} links of endpoints")));
    let all = match pins.others() {
        Ok(others) => others.into_iter().chain([pins.clone()]).collect(),
        Err(error) => {
            cleared.left.push(format!("{error:#}"));
            vec![pins.clone()]
        }
    };
    for pins in &all {
        cleared.detach_all(&Attacher::new(pins.clone()));
    }
    let gateway = devices.remove_gateway().await;
    cleared.note(gateway, |was| was.then(|| format!("gateway device {} with its addresses and routes", link::GATEWAY)));
    cleared.note(Masquerade::remove(), |was| was.then(|| "nftables table weft".to_owned()));
    match switches.restore() {
        Ok(keys) => cleared.removed.extend(keys.into_iter().map(|key| format!("our value of sysctl net/{key}"))),
        Err(error) => cleared.left.push(format!("{error:#}")),
    }
    for pins in &all {
        cleared.note(pins.remove(), |was| was.then(|| format!("pins at {pins}")));
    }
    cleared
}

impl Cleared {
    fn detach_all(&mut self, attacher: &Attacher) {
        let attached = match attacher.list() {
            Ok(attached) => attached,
            Err(error) => return self.left.push(format!("{error:#}")),
        };
        for held in attached {
            let what = format!("program {} at {} {}", held.program.name, held.interface, held.place);
            // Of an interface that is gone only the pin was left.
            self.note(attacher.detach(&held.interface, held.place), |()| held.index.map(|_| what));
            if attacher.way() == Way::Clsact && held.index.is_some() {
                self.note(remove_empty_clsact(&held.interface), |()| None);
            }
        }
    }

    /// Takes in what became of a thing; `said` says what it was, if there was one.
    fn note<T>(&mut self, result: Result<T>, said: impl FnOnce(T) -> Option<String>) {
        match result {
            Ok(was) => self.removed.extend(said(was)),
            Err(error) => self.left.push(format!("{error:#}")),
        }
    }
}

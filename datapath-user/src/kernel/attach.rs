//! Programs at interfaces: putting them there, replacing them without a gap, finding them again, taking them away.
//!
//! Three ways, one interface: TCX links and XDP links, which are pinned (`attach/links.rs`), and filters of a clsact
//! qdisc on kernels before 6.6 (`attach/clsact.rs`). Does not know which program belongs where. Invariants: a program
//! that is not ours is never touched; what was attached stays until its successor is.

mod clsact;
mod links;
#[cfg(test)]
mod tests;

use std::fmt;

use anyhow::{Context as _, Result, bail};
use nix::net::if_::if_nametoindex;

use super::{
    bpf::{self, AttachType},
    load::{Code, Kind},
    pins::Pins,
};

/// Where at an interface a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Traffic control, packets that come in.
    Ingress,
    /// Traffic control, packets that go out.
    Egress,
    /// The driver, or what stands in for it.
    Xdp,
}

/// Where among other programs of the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Before those that are there now.
    First,
    /// After those that are there now.
    #[default]
    Last,
}

/// How programs get to the places of traffic control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By links that can be pinned: Linux 6.6 and later.
    Tcx,
    /// By filters of a qdisc.
    Clsact,
}

/// One of our programs at an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attached {
    /// The interface, as it was called when the program was attached.
    pub interface: String,
    /// Where.
    pub place: Place,
    /// The interface's number. None: it is gone, and only the pin is left to be removed by [`Attacher::detach`].
    pub index: Option<u32>,
    /// Which program.
    pub program: Held,
}

/// What the kernel says of a program that is attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Its number.
    pub id: u32,
    /// Hash of its instructions.
    pub tag: [u8; 8],
    /// Its name.
    pub name: String,
}

/// What attaching did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The very program was there.
    Kept,
    /// It took the place of an earlier one of ours.
    Replaced,
    /// Nothing of ours was there.
    Added,
}

/// Attaches programs in the namespace of the calling thread.
#[derive(Clone, Debug)]
pub struct Attacher {
    pins: Pins,
    way: Way,
    order: Order,
}

/// A place at an interface that is there.
#[derive(Clone, Copy, Debug)]
struct Spot<'a> {
    interface: &'a str,
    index: u32,
    place: Place,
}

impl Attacher {
    /// By the best way that the kernel has, after other programs.
    pub fn new(pins: Pins) -> Self {
        let way = if tcx_is_available() { Way::Tcx } else { Way::Clsact };
        Self { pins, way, order: Order::default() }
    }

    /// By another way than the best.
    #[must_use]
    pub fn with_way(self, way: Way) -> Self {
        Self { way, ..self }
    }

    /// At another place among other programs. What is attached stays where it is.
    #[must_use]
    pub fn with_order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// How programs get to the places of traffic control.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Sees to it that the program is there. Takes over what an earlier daemon attached, also one with another layout
    /// of the tables: no packet passes without a program, or with two.
    pub fn attach(&self, code: &Code, interface: &str, place: Place) -> Result<Change> {
        let program = code.program();
        let attach = || {
            let spot = Spot { interface, index: if_nametoindex(interface)?, place };
            match (place, program.kind, self.way) {
                (Place::Ingress | Place::Egress, Kind::Classifier, Way::Clsact) => {
                    clsact::attach(code, &spot, self.order)
                }
                (Place::Ingress | Place::Egress, Kind::Classifier, Way::Tcx) | (Place::Xdp, Kind::Xdp, _) => {
                    links::attach(&self.pins, code, &spot, self.order)
                }
                (Place::Ingress | Place::Egress, Kind::Xdp, _) | (Place::Xdp, Kind::Classifier, _) => {
                    bail!("it is of kind {:?}", program.kind)
                }
            }
        };
        attach().with_context(|| format!("attach {program} to {interface} at {place}"))
    }

    /// Takes our program away. That there is none, and that the interface is gone, is success.
    pub fn detach(&self, interface: &str, place: Place) -> Result<()> {
        let detach = || match (place, self.way) {
            (Place::Ingress | Place::Egress, Way::Clsact) => match if_nametoindex(interface) {
                Ok(index) => clsact::detach(index, place),
                Err(_) => Ok(()),
            },
            (Place::Ingress | Place::Egress | Place::Xdp, Way::Tcx | Way::Clsact) => {
                links::detach(&self.pins, interface, place)
            }
        };
        detach().with_context(|| format!("detach our program from {interface} at {place}"))
    }

    /// All our programs of this layout, sorted.
    pub fn list(&self) -> Result<Vec<Attached>> {
        let mut attached = links::list(&self.pins).context("list attached programs")?;
        if self.way == Way::Clsact {
            attached.extend(clsact::list().context("list attached programs")?);
        }
        attached.sort();
        Ok(attached)
    }
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ingress, Self::Egress, Self::Xdp];

    /// The word in pins and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Xdp => "xdp",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Held {
    fn of(id: u32) -> Result<Self> {
        let info = bpf::program_info(id).with_context(|| format!("read what program {id} is"))?;
        Ok(Self { id, tag: info.tag, name: info.name() })
    }
}

/// Whether the kernel has TCX: asked, for version numbers lie. The loopback is number 1 in every namespace.
pub fn tcx_is_available() -> bool {
    bpf::programs(1, AttachType::TcxIngress).is_ok()
}

/// The programs of traffic control at an interface, by links, in the order in which they see a packet. None where the
/// kernel has no such links.
pub fn programs_at(index: u32, place: Place) -> Option<Vec<Held>> {
    let at = match place {
        Place::Ingress => AttachType::TcxIngress,
        Place::Egress => AttachType::TcxEgress,
        Place::Xdp => return None,
    };
    let ids = bpf::programs(index, at).ok()?;
    // One that goes away meanwhile is not there.
    Some(ids.into_iter().filter_map(|id| Held::of(id).ok()).collect())
}

/// Removes an interface's clsact qdisc if no filter is left in it. For `weft reset`: whether the qdisc was ours is not
/// recorded, an empty one does nothing.
pub fn remove_empty_clsact(interface: &str) -> Result<()> {
    let remove = || clsact::remove_if_empty(if_nametoindex(interface)?);
    remove().with_context(|| format!("remove the empty clsact qdisc of {interface}"))
}

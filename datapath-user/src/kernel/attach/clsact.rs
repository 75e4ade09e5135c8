//! Attachments that are filters of a clsact qdisc, for kernels without TCX. They stay until they are removed, and
//! nothing can be pinned: ours are told by their name, priority and handle.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, bail};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use nix::net::if_::if_nameindex;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NetlinkMessage},
    sys::protocols::NETLINK_ROUTE,
};

use super::{Attached, Change, Held, Order, Place, Spot};
use crate::kernel::{load::Code, netlink};

/// Starts the names of our filters.
const NAME: &str = "weft:";

/// The lower number comes first. 49152 is what the kernel gives to the first filter without one.
const PRIORITY_FIRST: u16 = 1;
const PRIORITY_LAST: u16 = 65_000;

/// One filter a priority.
const HANDLE: u32 = 1;

/// A filter that holds a program.
#[derive(Debug)]
pub(super) struct Filter {
    priority: u16,
    handle: u32,
    name: String,
    program: u32,
}

/// Makes the filter, or puts the program into the one that is there.
pub(super) fn attach(code: &Code, spot: &Spot<'_>, order: Order) -> Result<Change> {
    add_qdisc(spot.index)?;
    let filters = filters(spot.index, spot.place)?;
    let ours = filters.iter().find(|filter| filter.is_ours());
    if ours.is_some_and(|filter| filter.program == code.id()) {
        return Ok(Change::Kept);
    }
    let priority = ours.map_or_else(
        || match order {
            Order::First => PRIORITY_FIRST,
            Order::Last => PRIORITY_LAST,
        },
        |filter| filter.priority,
    );
    if ours.is_none()
        && let Some(other) = filters.iter().find(|filter| filter.priority == priority)
    {
        bail!("another filter, {}, has priority {priority}", other.name);
    }
    let mut filter = message(spot.index, spot.place, priority);
    filter.attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(code.as_fd().as_raw_fd().cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(format!("{NAME}{}", code.program()))),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]),
    ];
    // Without NLM_F_EXCL the kernel swaps the program of the filter with this handle, under RCU.
    let (flags, change) = match ours {
        Some(_) => (NLM_F_CREATE, Change::Replaced),
        None => (NLM_F_CREATE | NLM_F_EXCL, Change::Added),
    };
    let order = NetlinkMessage::from(RouteNetlinkMessage::NewTrafficFilter(filter));
    netlink::change(NETLINK_ROUTE, order, flags).context("make a filter")?;
    Ok(change)
}

/// Removes our filters.
pub(super) fn detach(index: u32, place: Place) -> Result<()> {
    for filter in filters(index, place)?.iter().filter(|filter| filter.is_ours()) {
        let order = RouteNetlinkMessage::DelTrafficFilter(message(index, place, filter.priority));
        match netlink::change(NETLINK_ROUTE, order.into(), 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.context("remove a filter")?,
        }
    }
    Ok(())
}

/// Our filters of every interface.
pub(super) fn list() -> Result<Vec<Attached>> {
    let mut attached = Vec::new();
    for interface in &if_nameindex().context("list interfaces")? {
        let name = interface.name().to_string_lossy();
        for place in [Place::Ingress, Place::Egress] {
            for filter in filters(interface.index(), place)?.iter().filter(|filter| filter.is_ours()) {
                let index = Some(interface.index());
                let program = Held::of(filter.program)?;
                attached.push(Attached { interface: name.clone().into_owned(), place, index, program });
            }
        }
    }
    Ok(attached)
}

/// Removes the qdisc if it is there and has no filters.
pub(super) fn remove_if_empty(index: u32) -> Result<()> {
    for place in [Place::Ingress, Place::Egress] {
        if count(index, place)? != 0 {
            return Ok(());
        }
    }
    match netlink::change(NETLINK_ROUTE, RouteNetlinkMessage::DelQueueDiscipline(qdisc(index)).into(), 0) {
        // There is none, or it is the ingress qdisc that has the same number: not ours.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
        result => result.context("remove the qdisc"),
    }
}

impl Filter {
    fn is_ours(&self) -> bool {
        self.name.starts_with(NAME) && self.handle == HANDLE && [PRIORITY_FIRST, PRIORITY_LAST].contains(&self.priority)
    }

    fn of(message: &TcMessage) -> Option<Self> {
        let mut filter = Self {
            priority: u16::try_from(message.header.info >> 16).ok()?,
            handle: message.header.handle.into(),
            name: String::new(),
            program: 0,
        };
        let options = message
            .attributes
            .iter()
            .filter_map(|attribute| if let TcAttribute::Options(options) = attribute { Some(options) } else { None });
        for option in options.flatten() {
            if let TcOption::Bpf(TcFilterBpfOption::ProgName(name)) = option {
                filter.name.clone_from(name);
            } else if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option {
                filter.program = *id;
            }
        }
        (filter.handle != 0).then_some(filter)
    }
}

/// The kernel also lists each priority without its filters.
pub(super) fn filters(index: u32, place: Place) -> Result<Vec<Filter>> {
    Ok(messages(index, place)?.iter().filter_map(Filter::of).collect())
}

fn count(index: u32, place: Place) -> Result<usize> {
    Ok(messages(index, place)?.len())
}

fn messages(index: u32, place: Place) -> Result<Vec<TcMessage>> {
    let mut question = TcMessage::default();
    question.header.index = index.cast_signed();
    question.header.parent = parent(place);
    let question = RouteNetlinkMessage::GetTrafficFilter(question);
    let answers = netlink::dump(NETLINK_ROUTE, question.into()).context("list filters")?;
    let filter = |answer| if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer { Some(filter) } else { None };
    Ok(answers.into_iter().filter_map(filter).collect())
}

fn add_qdisc(index: u32) -> Result<()> {
    let order = RouteNetlinkMessage::NewQueueDiscipline(qdisc(index));
    match netlink::change(NETLINK_ROUTE, order.into(), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.context("make a clsact qdisc"),
    }
}

fn qdisc(index: u32) -> TcMessage {
    let mut qdisc = TcMessage::default();
    qdisc.header.index = index.cast_signed();
    qdisc.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    qdisc.header.parent = TcHandle::CLSACT;
    qdisc.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    qdisc
}

fn message(index: u32, place: Place, priority: u16) -> TcMessage {
    // ETH_P_ALL, in network order.
    const ALL_PROTOCOLS: u16 = 3_u16.to_be();
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = parent(place);
    message.header.handle = HANDLE.into();
    message.header.info = (u32::from(priority) << 16) | u32::from(ALL_PROTOCOLS);
    message
}

fn parent(place: Place) -> TcHandle {
    let minor = match place {
        Place::Ingress | Place::Xdp => TcHandle::MIN_INGRESS,
        Place::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: TcHandle::CLSACT.major, minor }
}

//! All that a host counts, at one moment, and what changed between two.

use super::cast::app_name;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use weft_common::flow::{Flow, FlowKey, State as FlowState};
use weft_common::policy::BY_DEFAULT;
use weft_common::route::{Hop, HopKind};
use weft_common::table::{Account, Counts};
use weft_common::verdict::DropReason;

/// Everything a host counts. Flows are there whole, so that a story can look into one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// By [`DropReason`].
    pub(crate) drops: Vec<u64>,
    pub(crate) traffic: BTreeMap<Account, Counts>,
    /// What had no room in `traffic`.
    pub(crate) uncounted: Counts,
    pub(crate) flows: BTreeMap<FlowKey, Flow>,
    /// Datagrams that came in pieces.
    pub(crate) datagrams: u64,
    /// Wishes for groups.
    pub(crate) groups: u64,
    /// Packets that were handed to the daemon.
    pub(crate) misses: u64,
}

/// Counters by name, and by how much each has changed; none is zero.
pub(crate) type Changes = BTreeMap<String, i128>;

impl State {
    /// Every counter that a story has to account for. Bytes are left out: [`super::ran`] checks them at each step.
    fn counters(&self, host: &str) -> Changes {
        let mut counters = Changes::new();
        let mut add =
            |name: String, number: u64| *counters.entry(format!("{host}.{name}")).or_default() += i128::from(number);
        for (reason, count) in DropReason::ALL.iter().zip(&self.drops) {
            add(format!("drops.{}", reason.name()), *count);
        }
        let mut counts = |name: &str, counts: &Counts| {
            let Counts { packets, bytes: _, flows, drops, last: _ } = *counts;
            add(format!("{name}.packets"), packets);
            add(format!("{name}.flows"), flows);
            add(format!("{name}.drops"), drops);
        };
        for (Account { src, dst, rule, shadow: _ }, counted) in &self.traffic {
            counts(&format!("{}>{}", app_name(*src), app_name(*dst)), counted);
            match *rule {
                // It goes without saying.
                0 => {}
                Account::NO_RULE => counts("no-rule", counted),
                number => counts(&format!("rule-{number}"), counted),
            }
        }
        counts("uncounted", &self.uncounted);
        for (Account { shadow, .. }, Counts { packets, flows, drops, .. }) in &self.traffic {
            let by = match *shadow {
                0 => continue,
                BY_DEFAULT => "default".into(),
                number => number.to_string(),
            };
            // In the words of `weft policy ls`.
            add(format!("tried-{by}.would-drop"), *packets);
            add(format!("tried-{by}.would-drop-flows"), *flows);
            add(format!("tried-{by}.would-pass"), *drops);
        }
        add("flows".into(), self.flows.len() as u64);
        add("datagrams".into(), self.datagrams);
        add("groups".into(), self.groups);
        add("misses".into(), self.misses);
        counters
    }

    /// What has changed since `before`.
    pub(crate) fn since(&self, before: &Self, host: &str) -> Changes {
        let mut changes = self.counters(host);
        for (name, number) in before.counters(host) {
            *changes.entry(name).or_default() -= number;
        }
        changes.retain(|_, by| *by != 0);
        changes
    }

    /// The one reason by which `self` has more drops than `before`, when there is one and one more.
    pub(crate) fn dropped_since(&self, before: &Self) -> Option<DropReason> {
        let more = self.drops.iter().zip(&before.drops).enumerate().filter(|(_, (now, then))| now != then);
        match more.collect::<Vec<_>>()[..] {
            [] => None,
            [(index, (now, then))] if *now == then + 1 => DropReason::from_index(index),
            ref several => panic!("one packet is one drop: {several:?}"),
        }
    }

    /// Packets and bytes handed on, of all accounts.
    pub(crate) fn passed(&self) -> (u64, u64) {
        let all = self.traffic.values().chain([&self.uncounted]);
        all.fold((0, 0), |(packets, bytes), counts| (packets + counts.packets, bytes + counts.bytes))
    }
}

/// As an operator would see it.
impl Display for State {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (reason, count) in DropReason::ALL.iter().zip(&self.drops).filter(|(_, count)| **count > 0) {
            writeln!(f, "  dropped {count} {}: {}", reason.name(), reason.explain())?;
        }
        for (Account { src, dst, rule, shadow }, Counts { packets, bytes, flows, drops, last: _ }) in &self.traffic {
            let (src, dst) = (app_name(*src), app_name(*dst));
            let counted = format!("{packets} packets, {bytes} bytes, {flows} flows, {drops} drops");
            writeln!(f, "  {src} to {dst} by rule {rule}, tried {shadow}: {counted}")?;
        }
        for (key, flow) in &self.flows {
            let [a, b] = [0, 1].map(|side| {
                let Hop { kind: _, index } = flow.side[side].hop;
                let place = match flow.side[side].hop.kind() {
                    HopKind::Nowhere => "nowhere".into(),
                    HopKind::Local => format!("link {index}"),
                    HopKind::Peer => format!("peer {index}"),
                    HopKind::Host => "host".into(),
                };
                let app = app_name(flow.side[side].identity.app);
                format!("{}:{} {app}/{} at {place}", key.addr[side], key.port[side], flow.side[side].identity.role.0)
            });
            let state = FlowState::from_raw(flow.state).name();
            let (epoch, rule, opener) = (flow.epoch.0, flow.rule, ["first", "second"][flow.opener().index()]);
            writeln!(
                f,
                "  flow {} {a} - {b}, {state}, opened by the {opener}, epoch {epoch}, rule {rule}",
                key.protocol
            )?;
        }
        writeln!(
            f,
            "  {} datagrams in pieces, {} wishes for groups, {} misses",
            self.datagrams, self.groups, self.misses
        )
    }
}

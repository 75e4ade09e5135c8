//! Who opened what to whom, of an app: the flows that the kernel remembers, by what rules tell apart, beside how many it
//! has counted.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use weft_common::{
    flow::{Flow, FlowKey, Leg},
    header::protocol,
    id::{AppId, Identity, RoleId},
    table::{self, Counts},
};

use crate::front::api::{
    dto::{
        learning::{Contact, ContactList, Counted, ListContacts, Membership, Who},
        seen::Seen,
    },
    refusal::Refusal,
};
use crate::kernel::{
    config,
    tables::{Keyed as _, Map, PerCpu},
};

use crate::model::{app::App, cluster::Cluster};

use super::{Service, look::has_ports, naming::Names};

/// Longer than a program runs, and than its clock may be behind: what it has opened before is in the table.
const SETTLED: u64 = 50_000_000;

/// Pairs of apps, with flows that were found and are settled, and that are not.
type Found = BTreeMap<(AppId, AppId), (u64, u64)>;

impl Service {
    pub(super) fn contacts(&self, request: &ListContacts) -> Result<ContactList, Refusal> {
        let snapshot = self.snapshot();
        let app = snapshot.cluster.apps.get(&request.app).ok_or_else(|| Refusal::no_app(&request.app))?;
        Ok(self.remembered(&snapshot.cluster, app, request.after)?)
    }

    fn remembered(&self, cluster: &Cluster, App { name, number: app, .. }: &App, after: u64) -> Result<ContactList> {
        let (app, plan) = (*app, self.plan());
        let names = Names { cluster, plan: &plan };
        let is_of_app = |src: AppId, dst: AppId| src == app || dst == app;
        // Counters first: a flow that is counted is in the table by then.
        let counted = self.accounts()?.flows_by_pair();
        let uncounted = PerCpu::<table::Uncounted>::open(&self.pins)?.totals(Counts::plus)?;
        let now = config::now();
        let clock = now.saturating_sub(SETTLED);

        let (mut seen, mut found) = (Seen::default(), Found::new());
        for (key, flow) in Map::<table::Flows>::open(&self.pins)?.entries()? {
            let (from, to) = (flow.opener(), flow.opener().other());
            let pair = (flow.side[from.index()].identity.app, flow.side[to.index()].identity.app);
            let is_new = flow.created > after;
            // Of the first look: what ended long before is not what is seen.
            let is_over = after == 0 && flow.is_expired(key.protocol, now);
            if !is_of_app(pair.0, pair.1) || !is_new || is_over {
                continue;
            }
            let (settled, fresh) = found.entry(pair).or_default();
            *settled += u64::from(flow.created <= clock);
            *fresh += u64::from(flow.created > clock && flow.created <= now);
            seen.add(contact(&names, &key, &flow));
        }
        let pairs: BTreeSet<_> =
            counted.keys().chain(found.keys()).copied().filter(|(src, dst)| is_of_app(*src, *dst)).collect();
        let counted = pairs.into_iter().map(|pair| {
            let (settled, fresh) = found.get(&pair).copied().unwrap_or_default();
            Counted {
                from: names.app_name(pair.0),
                to: names.app_name(pair.1),
                flows: counted.get(&pair).copied().unwrap_or_default(),
                settled,
                fresh,
            }
        });
        Ok(ContactList {
            host: self.host.to_string(),
            members: cluster.blocks_of(name).keys().map(ToString::to_string).collect(),
            clock,
            contacts: seen.into_contacts(),
            counted: counted.collect(),
            uncounted: uncounted.values().map(|counts| counts.flows).sum(),
        })
    }
}

fn contact(names: &Names<'_>, key: &FlowKey, flow: &Flow) -> Contact {
    let (from, to) = (flow.opener(), flow.opener().other());
    let who = |leg: Leg| {
        let identity: Identity = flow.side[leg.index()].identity;
        let role = match identity.role {
            RoleId::UNKNOWN => Membership::Unknown,
            _ => names.role_name(identity).map_or(Membership::None, Membership::Role),
        };
        Who { app: names.app_name(identity.app), role, address: key.addr[leg.index()].to_std() }
    };
    let is_told = has_ports(key.protocol) || matches!(key.protocol, protocol::ICMP | protocol::ICMPV6);
    Contact {
        from: who(from),
        to: who(to),
        protocol: key.protocol,
        port: if is_told { key.port[to.index()] } else { 0 },
        scattered: false,
    }
}

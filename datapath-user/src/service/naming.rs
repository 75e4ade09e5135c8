//! Names for what the tables hold by number.

use std::net::IpAddr;

use weft_common::{
    addr::Ip,
    id::{AppId, Epoch, Identity, PeerId, RoleId},
    policy::{BY_DEFAULT, Direction, Query, tried},
    route::{Hop, HopKind},
};

use crate::front::api::dto::side::{self, Nearest, RuleMention, Side};
use crate::kernel::config;
use crate::model::{app::App, cluster::Cluster};
use crate::plan::{
    NodePlan, ask,
    matching::{Miss, Near},
};

/// Gives names under one state of the cluster.
pub(super) struct Names<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) plan: &'a NodePlan,
}

impl Names<'_> {
    pub(super) fn app(&self, number: AppId) -> Option<&App> {
        self.cluster.apps.values().find(|app| app.number == number)
    }

    /// The app's name, or what stands in its place.
    pub(super) fn app_name(&self, number: AppId) -> String {
        match number {
            AppId::ANY => "any".to_owned(),
            AppId::HOST => "host".to_owned(),
            AppId::OUTSIDE => "outside".to_owned(),
            _ => self.app(number).map_or_else(|| format!("#{}", number.0), |app| app.name.to_string()),
        }
    }

    pub(super) fn role_name(&self, identity: Identity) -> Option<String> {
        match identity.role {
            RoleId::NONE | RoleId::ANY | RoleId::UNKNOWN => None,
            role => {
                let named =
                    self.app(identity.app).and_then(|app| app.roles.iter().find(|(_, known)| known.number == role));
                Some(named.map_or_else(|| format!("#{}", role.0), |(name, _)| name.to_string()))
            }
        }
    }

    /// `shop/web`, `shop`, `host`.
    pub(super) fn identity(&self, identity: Identity) -> String {
        let app = self.app_name(identity.app);
        self.role_name(identity).map_or_else(|| app.clone(), |role| format!("{app}/{role}"))
    }

    /// One end of a flow or a packet.
    pub(super) fn side(&self, identity: Identity, addr: Option<Ip>, port: Option<u16>) -> Side {
        let address = addr.filter(|addr| *addr != Ip::NONE).map(Ip::to_std);
        let endpoint = address.and_then(|addr| self.cluster.holder(addr));
        Side {
            app: (identity.app != AppId::ANY).then(|| self.app_name(identity.app)),
            role: self.role_name(identity),
            name: endpoint.map(|endpoint| endpoint.key.name.to_string()),
            address: address.map(|addr: IpAddr| addr.to_string()),
            port,
        }
    }

    /// The rule with this number; none for a default.
    pub(super) fn rule(&self, number: u32) -> Option<RuleMention> {
        let rule = self.plan.policy.names.get(&number)?;
        Some(RuleMention::of(Some(number), rule))
    }

    /// What is tried under this number and would decide otherwise on `query`: a rule, or the default of an app whose
    /// policy is.
    pub(super) fn tried(&self, number: u32, query: &Query) -> RuleMention {
        let unknown = || RuleMention { text: format!("rule #{number}"), id: Some(number), source: None };
        if number != BY_DEFAULT {
            return self.rule(number).unwrap_or_else(unknown);
        }
        let direction = tried(&self.plan.policy.at(config::since_boot()), Epoch(0), query).direction;
        let text = ask::tried_default_of(self.cluster, direction, query.src, query.dst);
        RuleMention { text, id: None, source: None }
    }

    /// The default that holds from `src` to `dst` where no rule speaks: the one of whose set `direction` is.
    pub(super) fn default_of(&self, direction: Direction, src: Identity, dst: Identity) -> RuleMention {
        let text = ask::default_of(self.cluster, direction, src, dst);
        RuleMention { text, id: None, source: None }
    }

    /// The rule that misses a packet by least.
    pub(super) fn nearest(&self, near: &Near<'_>) -> Nearest {
        let miss = match near.miss {
            Miss::Traffic => side::Miss::Traffic,
            Miss::Sender => side::Miss::Sender,
            Miss::Receiver => side::Miss::Receiver,
        };
        Nearest { rule: RuleMention::of(self.plan.number_of(near.rule), near.rule), miss, only: near.only() }
    }

    pub(super) fn peer(&self, id: PeerId) -> String {
        self.plan.peer_names.get(&id).map_or_else(|| format!("peer #{}", id.0), ToString::to_string)
    }

    pub(super) fn hop(&self, hop: Hop) -> String {
        match hop.kind() {
            HopKind::Local => "local".to_owned(),
            HopKind::Peer => format!("peer {}", self.peer(PeerId(hop.index))),
            HopKind::Host => "host".to_owned(),
            HopKind::Nowhere => "nowhere".to_owned(),
        }
    }
}

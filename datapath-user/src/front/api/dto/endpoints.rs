//! Endpoints: attach, detach, ps.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use weft_common::addr::Mac;

use super::{
    naming::{Detachable, Gateway, Target},
    side::State,
    text,
    time::Timestamp,
};
use crate::model::{
    endpoint::{self, Addresses, EndpointKey},
    invalid::Invalid,
    labels::{LabelKey, Labels},
    name::{AppName, EndpointName, LinkName, RoleName},
    prefix::Family,
    traffic::NamedPorts,
};

/// An interface for a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Which namespace.
    #[serde(with = "text")]
    pub target: Target,
    /// The app it joins.
    #[serde(with = "text")]
    pub app: AppName,
    /// Its tier.
    #[serde(default, with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// What it is labelled with; with the role, if it is there too, as the label `role`.
    #[serde(default, with = "text", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The ports that it has names for.
    #[serde(default, with = "text", skip_serializing_if = "NamedPorts::is_empty")]
    pub ports: NamedPorts,
    /// What it is called; without it, a name that follows from the target.
    #[serde(default, with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub name: Option<EndpointName>,
    /// Addresses it wants; it gets one of each family that the app has.
    #[serde(default, with = "addresses")]
    pub ips: Addresses,
    /// The interface inside; without it the first of eth0, eth1, ... that is free.
    #[serde(default, with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub ifname: Option<LinkName>,
    /// Its hardware address; without it one that follows from app and name.
    #[serde(default, with = "mac", skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The namespace's default route.
    #[serde(default, with = "text")]
    pub gateway: Gateway,
}

/// Labels of an endpoint that are to be others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relabel {
    /// Which.
    #[serde(with = "text")]
    pub endpoint: EndpointKey,
    /// What is to be there.
    #[serde(default, with = "text")]
    pub set: Labels,
    /// What is to go.
    #[serde(default, with = "text::list")]
    pub unset: Vec<LabelKey>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relabelled {
    /// The endpoint.
    pub name: String,
    /// Its app.
    pub app: String,
    /// Its tier now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// All its labels now, as `env=prod,tier=db`.
    pub labels: String,
    /// Whether anything changed.
    pub changed: bool,
    /// The revision of the cluster that has it.
    pub revision: u64,
    /// Whether this host enforces that revision.
    pub in_force: bool,
}

/// Endpoints that are to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// Which.
    #[serde(with = "text")]
    pub what: Detachable,
    /// Only those in this app.
    #[serde(default, with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// Whether their addresses are given up, too, so that others can have them.
    #[serde(default)]
    pub release: bool,
}

/// The endpoints of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListEndpoints {}

/// What attach gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The endpoint.
    pub name: String,
    /// Its app.
    pub app: String,
    /// Its tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its addresses with the length of the app's prefix, as `10.1.0.7/16`.
    pub addresses: Vec<String>,
    /// Its hardware address.
    pub mac: String,
    /// The interface inside.
    pub ifname: String,
    /// The gateways that the namespace's default routes lead to; none if they were left as they were.
    pub gateways: Vec<String>,
    /// The host's side.
    pub link: String,
    /// Whether it was there already.
    pub was_there: bool,
}

/// What detach took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// The endpoints that are gone; none if there were none.
    pub endpoints: Vec<Gone>,
}

/// An endpoint that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The endpoint.
    pub name: String,
    /// Its app.
    pub app: String,
    /// The addresses it had.
    pub addresses: Vec<String>,
    /// Whether they are kept for its name.
    pub kept: bool,
}

/// The endpoints of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointList {
    /// This host.
    pub host: String,
    /// By app and name.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What it is called.
    pub name: String,
    /// Its app.
    pub app: String,
    /// Its tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its addresses, without a length.
    pub addresses: Vec<String>,
    /// Its hardware address.
    pub mac: String,
    /// The interface inside.
    pub ifname: String,
    /// Its number inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// The host's side.
    pub link: String,
    /// The namespace.
    pub netns: String,
    /// How far it is.
    pub state: State,
    /// When it was attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl Endpoint {
    /// An endpoint of the cluster, as far as the cluster knows it.
    pub fn of(endpoint: &endpoint::Endpoint, state: State) -> Self {
        Self {
            name: endpoint.key.name.to_string(),
            app: endpoint.key.app.to_string(),
            role: endpoint.role.as_ref().map(ToString::to_string),
            addresses: endpoint.addresses.iter().map(|address| address.to_string()).collect(),
            mac: endpoint.mac.to_string(),
            ifname: endpoint.ifname.to_string(),
            ifindex: None,
            link: endpoint.link.to_string(),
            netns: endpoint.netns.path.as_str().to_owned(),
            state,
            since: endpoint.attached.map(Timestamp::from),
        }
    }
}

/// One address of each family, at most.
pub fn wanted(addresses: impl IntoIterator<Item = IpAddr>) -> Result<Addresses, Invalid> {
    let mut wanted = Addresses::default();
    for address in addresses {
        if let Some(other) = wanted.of(Family::of(address)).filter(|other| *other != address) {
            let help = format!("an endpoint has one address of each family, and {other} is wanted too");
            return Err(Invalid::new("second address", &address.to_string(), help));
        }
        wanted = wanted.with(address);
    }
    Ok(wanted)
}

mod addresses {
    use super::{Addresses, Deserialize, Deserializer, Error, Serializer, text, wanted};

    pub(super) fn serialize<S: Serializer>(addresses: &Addresses, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(addresses.iter())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Addresses, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let read = texts.iter().map(|text| text::address(text)).collect::<Result<Vec<_>, _>>();
        read.and_then(wanted).map_err(D::Error::custom)
    }
}

mod mac {
    use super::{Deserialize, Deserializer, Error, Mac, Serializer, endpoint, text};

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
    pub(super) fn serialize<S: Serializer>(mac: &Option<Mac>, serializer: S) -> Result<S::Ok, S::Error> {
        text::maybe::serialize(mac, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| endpoint::mac(&text).map_err(D::Error::custom)).transpose()
    }
}

//! What an app was seen to exchange, and the manifest that allows just that.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::text;
use crate::model::name::{AppName, HostName, PolicyName};

/// Who opened what to whom, of the flows that a host remembers of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListContacts {
    /// One side is in the app.
    #[serde(with = "text")]
    pub app: AppName,
    /// Those of flows that were opened after [`ContactList::clock`] of an earlier answer; 0: of all flows.
    #[serde(default)]
    pub after: u64,
}

/// The smallest manifest that allows what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnPolicy {
    /// Of which app.
    #[serde(with = "text")]
    pub app: AppName,
    /// What the policy is to be called; without it, `learned-` and the app.
    #[serde(default, with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyName>,
    /// What was seen.
    pub contacts: Vec<Contact>,
    /// Which hosts told it: of their endpoints they know the roles, and what was let in.
    #[serde(default, with = "text::list")]
    pub asked: Vec<HostName>,
}

/// What a host remembers of an app's flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactList {
    /// The host.
    pub host: String,
    /// The hosts of the cluster that may have endpoints of the app: every flow of it is on one.
    pub members: Vec<String>,
    /// A time of the host: flows that were opened before are in [`Counted::settled`] of this answer or of an earlier one.
    pub clock: u64,
    /// Each once, in order.
    pub contacts: Vec<Contact>,
    /// Every pair of apps with this one on a side.
    pub counted: Vec<Counted>,
    /// Flows of all apps that are in no count, since the tables were made.
    pub uncounted: u64,
}

/// That somebody opened something to somebody, once or often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contact {
    /// Who opened it.
    pub from: Who,
    /// The other side.
    pub to: Who,
    /// Number of the transport protocol.
    pub protocol: u8,
    /// The other side's port, or the type of ICMP; 0 where the protocol has neither.
    pub port: u16,
    /// There are more addresses outside than are told of one by one: it stands for all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scattered: bool,
}

/// One side of a contact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Who {
    /// The app, `host` or `outside`.
    pub app: String,
    /// The role in the app.
    pub role: Membership,
    /// Its address; of an endpoint whose role is known, and of hosts, one of several.
    pub address: IpAddr,
}

/// Which role an endpoint has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "is", content = "name", rename_all = "kebab-case")]
pub enum Membership {
    /// None, and so it is of hosts and the outside.
    None,
    /// This one.
    Role(String),
    /// The host that tells it does not know.
    Unknown,
}

/// Flows between two apps, counted exactly and found one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The opener's app, `host` or `outside`.
    pub from: String,
    /// The other side's.
    pub to: String,
    /// That were allowed since the tables were made.
    pub flows: u64,
    /// Found among them: opened after [`ListContacts::after`] and not after [`ContactList::clock`].
    pub settled: u64,
    /// Found among them: opened later than that.
    pub fresh: u64,
}

/// What was learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// What the policy is called.
    pub policy: String,
    /// The manifest, with the notes as comments.
    pub manifest: String,
    /// How many rules it has.
    pub rules: u64,
    /// How many expectations.
    pub expectations: u64,
    /// How many contacts it was made of.
    pub contacts: u64,
    /// Where it allows more than was seen, and why.
    pub notes: Vec<String>,
    /// What was seen and would not pass all the same, with who denies it; and why it can not be applied.
    pub against: Vec<String>,
    /// What was not seen in detail.
    #[serde(default)]
    pub unseen: Vec<String>,
}

impl Contact {
    /// This, as all contacts that mean the same to rules have it.
    #[must_use]
    pub fn class(&self) -> Self {
        Self { from: self.from.class(), to: self.to.class(), ..self.clone() }
    }

    /// This, wherever outside it was.
    #[must_use]
    pub fn anywhere(&self) -> Self {
        let class = self.class();
        Self { from: class.from.anywhere(), to: class.to.anywhere(), scattered: true, ..class }
    }
}

impl Who {
    /// What the outside is called.
    pub const OUTSIDE: &str = "outside";
    /// What hosts are called.
    pub const HOST: &str = "host";

    fn class(&self) -> Self {
        let is_told = self.app == Self::OUTSIDE || self.role == Membership::Unknown;
        if is_told { self.clone() } else { Self { address: nowhere(self.address), ..self.clone() } }
    }

    fn anywhere(self) -> Self {
        if self.app == Self::OUTSIDE { Self { address: nowhere(self.address), ..self } } else { self }
    }
}

/// No address of the same family.
fn nowhere(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

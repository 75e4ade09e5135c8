//! The daemons of a cluster that can be asked: the one here, and those of other hosts whose sockets are named.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{args::Others, failure::Failure};
use crate::front::api::{
    client::{Client, ClientError},
    dto::state::{ListPeers, PeerList},
    refusal::Refusal,
};
use crate::model::{invalid::Invalid, name::HostName};

/// Daemons, each of which has said that it is who it was named.
pub(super) struct Hosts {
    /// Of this host.
    pub(super) here: Client,
    /// Of others.
    pub(super) others: BTreeMap<HostName, Client>,
}

impl Hosts {
    /// Asks each socket whose it is.
    pub(super) async fn new(here: &Client, Others { host_socket }: &Others) -> Result<Self, Failure> {
        let mut others = BTreeMap::new();
        if !host_socket.is_empty() {
            let (own, _) = names(here, host_socket).await?;
            for (host, path) in host_socket.iter().filter(|(host, _)| host.as_str() != own) {
                let client = Client::new(path);
                let failed = |error| Failure::Host(host.clone(), error);
                let found = client.call(&ListPeers {}).await.map_err(failed)?.host;
                if found != host.as_str() {
                    let why = format!("at {} is host {found}", path.display());
                    return Err(failed(ClientError::Refused(Refusal::invalid(why))));
                }
                others.insert(host.clone(), client);
            }
        }
        Ok(Self { here: here.clone(), others })
    }
}

/// The host of a daemon, and all of its cluster. Refuses a socket of a host that is not there.
pub(super) async fn names(
    client: &Client,
    sockets: &[(HostName, PathBuf)],
) -> Result<(String, BTreeSet<String>), Failure> {
    let PeerList { host, peers } = client.call(&ListPeers {}).await.map_err(Failure::Daemon)?;
    let all: BTreeSet<_> = peers.into_iter().map(|peer| peer.name).chain([host.clone()]).collect();
    if let Some((unknown, _)) = sockets.iter().find(|(name, _)| !all.contains(name.as_str())) {
        let known = all.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let help = format!("the hosts of the cluster are {known}");
        return Err(Failure::Usage(Invalid::new("host of the cluster", unknown.as_str(), help)));
    }
    Ok((host, all))
}

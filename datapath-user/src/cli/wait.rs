//! Waits until hosts enforce the policy that this one does.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{args::Wait, failure::Failure};
use crate::front::api::{
    client::{Client, ClientError},
    dto::policies::{Enforced, Enforcing, GetDigest, PolicyDigest},
};
use crate::model::{invalid::Invalid, name::HostName};

/// Between two looks at hosts that do not enforce it yet.
const AGAIN: Duration = Duration::from_millis(200);

/// Which hosts enforce the policy of the daemon that was asked; nothing if that is not to be waited for.
pub(super) async fn wait(client: &Client, wait: &Wait) -> Result<Vec<Enforcing>, Failure> {
    let Wait { wait: Some(seconds), host_socket } = wait else { return Ok(Vec::new()) };
    let deadline = Instant::now() + Duration::from_secs((*seconds).into());
    loop {
        let own = client.call(&GetDigest {}).await.map_err(Failure::Daemon)?;
        known(&own.hosts, host_socket)?;
        let hosts = look(&own, host_socket).await;
        let may_yet = |host: &Enforcing| host.state != Enforced::Yes && is_asked(&own, host_socket, &host.host);
        if !hosts.iter().any(may_yet) || Instant::now() >= deadline {
            return Ok(hosts);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Refuses a socket of a host that the cluster does not have.
pub(super) fn known(hosts: &[String], sockets: &[(HostName, PathBuf)]) -> Result<(), Failure> {
    let Some((host, _)) = sockets.iter().find(|(host, _)| !hosts.iter().any(|known| known == host.as_str())) else {
        return Ok(());
    };
    let help = format!("the hosts of the cluster are {}", hosts.join(", "));
    Err(Failure::Usage(Invalid::new("host of the cluster", host.as_str(), help)))
}

/// Whether all hosts do.
pub(super) fn all(hosts: &[Enforcing]) -> bool {
    hosts.iter().all(|host| host.state == Enforced::Yes)
}

async fn look(own: &PolicyDigest, sockets: &[(HostName, PathBuf)]) -> Vec<Enforcing> {
    let mut found = Vec::new();
    for host in &own.hosts {
        let socket = sockets.iter().find(|(named, _)| named.as_str() == host);
        let (state, why) = match socket {
            _ if *host == own.host => judge(own, own),
            Some((_, path)) => match Client::new(path).call(&GetDigest {}).await {
                Ok(other) if other.host != *host => {
                    (Enforced::NotKnown, format!("at {} is host {}", path.display(), other.host))
                }
                Ok(other) => judge(own, &other),
                Err(error) => (Enforced::NotKnown, unasked(&error)),
            },
            None => {
                let why = "hosts of a cluster from a file do not tell each other: ask there, or use --host-socket";
                (Enforced::NotKnown, why.to_owned())
            }
        };
        found.push(Enforcing { host: host.clone(), state, why });
    }
    found
}

fn is_asked(own: &PolicyDigest, sockets: &[(HostName, PathBuf)], host: &str) -> bool {
    own.host == host || sockets.iter().any(|(named, _)| named.as_str() == host)
}

/// What a host's answer says of it.
fn judge(wanted: &PolicyDigest, answer: &PolicyDigest) -> (Enforced, String) {
    let PolicyDigest { host: _, digest, revision, enforced, hosts: _ } = answer;
    if *digest != wanted.digest {
        return (Enforced::No, format!("it has another policy, {digest}"));
    }
    if !enforced {
        return (Enforced::No, format!("its tables are not those of {digest} yet"));
    }
    (Enforced::Yes, format!("its tables have {digest}, revision {revision} there"))
}

fn unasked(error: &ClientError) -> String {
    format!("it can not be asked: {error}")
}

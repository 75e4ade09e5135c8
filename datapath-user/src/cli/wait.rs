//! Waits until hosts enforce the policy that this one does.
//!
//! All are asked at the same time, each as often as it answers: one that does not answer keeps nobody from being heard,
//! and the waiting ends on time.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    args::{Others, Wait},
    failure::Failure,
};
use crate::front::api::{
    client::{Client, ClientError},
    dto::policies::{Enforced, Enforcing, GetDigest, PolicyDigest},
};
use crate::model::{invalid::Invalid, name::HostName};

/// Between two looks at a host.
const AGAIN: Duration = Duration::from_millis(200);
/// What a host has at least to answer once, also where nothing is to be waited for. One that is well needs far less.
const ONCE: Duration = Duration::from_secs(1);

/// What hosts answered last.
type Answers = BTreeMap<String, Result<PolicyDigest, ClientError>>;

/// Which hosts enforce the policy of the daemon that was asked, by now.
pub(super) async fn look(client: &Client, Others { host_socket }: &Others) -> Result<Vec<Enforcing>, Failure> {
    wait(client, &Wait { wait: Some(0), host_socket: host_socket.clone() }).await
}

/// Which hosts enforce the policy of the daemon that was asked; nothing if that is not to be waited for.
pub(super) async fn wait(client: &Client, wait: &Wait) -> Result<Vec<Enforcing>, Failure> {
    let Wait { wait: Some(seconds), host_socket } = wait else { return Ok(Vec::new()) };
    let start = Instant::now();
    let deadline = start + Duration::from_secs((*seconds).into());
    let once = deadline.max(start + ONCE);
    let within = once - start;
    let own = timeout_at(once, client.call(&GetDigest {})).await.unwrap_or(Err(ClientError::Late(within)));
    let own = own.map_err(Failure::Daemon)?;
    known(&own.hosts, host_socket)?;

    let others = host_socket.iter().map(|(host, path)| (host.to_string(), Client::new(path)));
    let asked: BTreeMap<String, Client> = others.chain([(own.host.clone(), client.clone())]).collect();
    let (heard, mut answers) = mpsc::channel(asked.len());
    let mut asking = JoinSet::new();
    for (host, client) in asked.clone() {
        let first = if host == own.host { AGAIN } else { Duration::ZERO };
        asking.spawn(ask((host, client), first, heard.clone()));
    }
    let mut last = Answers::from([(own.host.clone(), Ok(own.clone()))]);
    loop {
        let found = tell(&own, &asked, &last, within);
        if found.iter().all(|host| host.state == Enforced::Yes || !asked.contains_key(&host.host)) {
            return Ok(found);
        }
        let until = if last.len() == asked.len() { deadline } else { once };
        let Ok(Some((host, answer))) = timeout_at(until, answers.recv()).await else { return Ok(found) };
        last.insert(host, answer);
    }
}

/// Asks a host again and again, from then on, until nobody listens any more.
async fn ask(
    (host, client): (String, Client),
    mut pause: Duration,
    heard: mpsc::Sender<(String, Result<PolicyDigest, ClientError>)>,
) {
    loop {
        tokio::time::sleep(pause).await;
        let answer = client.call(&GetDigest {}).await;
        if heard.send((host.clone(), answer)).await.is_err() {
            return;
        }
        pause = AGAIN;
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

/// How it is with each host of the cluster.
fn tell(own: &PolicyDigest, asked: &BTreeMap<String, Client>, last: &Answers, within: Duration) -> Vec<Enforcing> {
    // Somebody may have changed it again.
    let wanted = last.get(&own.host).and_then(|answer| answer.as_ref().ok()).unwrap_or(own);
    let one = |host: &String| match (last.get(host), asked.get(host)) {
        (Some(Ok(other)), Some(client)) if other.host != *host => {
            (Enforced::NotKnown, format!("at {} is host {}", client.socket().display(), other.host))
        }
        (Some(Ok(other)), _) => judge(wanted, other),
        (Some(Err(error)), _) => (Enforced::NotKnown, unasked(error)),
        (None, Some(_)) => (Enforced::NotKnown, unasked(&ClientError::Late(within))),
        (None, None) => {
            let why = "hosts of a cluster from a file do not tell each other: ask there, or use --host-socket";
            (Enforced::NotKnown, why.to_owned())
        }
    };
    let told = own.hosts.iter().map(|host| (host, one(host)));
    told.map(|(host, (state, why))| Enforcing { host: host.clone(), state, why }).collect()
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

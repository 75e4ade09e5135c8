//! Waits until hosts enforce the policy that this one does.
//!
//! What can be refused is refused before anything is changed: from then on there is an answer about each host. All are
//! asked at the same time, each as often as it answers: one that does not answer keeps nobody from being heard, and the
//! waiting ends on time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    args::{Others, Wait},
    failure::Failure,
    hosts,
};
use crate::front::api::{
    client::{Client, ClientError},
    dto::policies::{Enforced, Enforcing, GetDigest, PolicyDigest},
};
use crate::model::name::HostName;

/// Between two looks at a host.
const AGAIN: Duration = Duration::from_millis(200);
/// What a host has at least to answer once, also where nothing is to be waited for. One that is well needs far less.
const ONCE: Duration = Duration::from_secs(1);

/// What hosts answered last.
type Answers = BTreeMap<String, Result<PolicyDigest, ClientError>>;

/// The hosts of the cluster.
struct Everyone {
    /// The one whose policy is the measure.
    own: String,
    all: BTreeSet<String>,
    /// Those whose daemon can be asked, with it.
    asked: BTreeMap<String, Client>,
    patience: Duration,
}

/// Whom to wait for after a change, if anybody is to be.
pub(super) struct Waiting(Option<Everyone>);

/// Which hosts enforce the policy of the daemon that is asked, by now.
pub(super) async fn look(client: &Client, Others { host_socket }: &Others) -> Result<Vec<Enforcing>, Failure> {
    Ok(Everyone::new(client, host_socket, Duration::ZERO).await?.enforcing().await)
}

/// Before a change: whether there are such hosts.
pub(super) async fn before(client: &Client, wait: &Wait) -> Result<Waiting, Failure> {
    let Wait { wait: Some(seconds), host_socket } = wait else { return Ok(Waiting(None)) };
    Ok(Waiting(Some(Everyone::new(client, host_socket, Duration::from_secs((*seconds).into())).await?)))
}

impl Waiting {
    /// After the change: which hosts enforce what that daemon does; nothing if that is not to be waited for.
    pub(super) async fn after(self) -> Vec<Enforcing> {
        match self.0 {
            Some(hosts) => hosts.enforcing().await,
            None => Vec::new(),
        }
    }
}

impl Everyone {
    /// Refuses a socket of a host that the cluster does not have.
    async fn new(client: &Client, sockets: &[(HostName, PathBuf)], patience: Duration) -> Result<Self, Failure> {
        let (own, all) = hosts::names(client, sockets).await?;
        let others = sockets.iter().map(|(host, path)| (host.to_string(), Client::new(path)));
        let asked = others.chain([(own.clone(), client.clone())]).collect();
        Ok(Self { own, all, asked, patience })
    }

    async fn enforcing(self) -> Vec<Enforcing> {
        let start = Instant::now();
        let deadline = start + self.patience;
        let once = deadline.max(start + ONCE);
        let (heard, mut answers) = mpsc::channel(self.asked.len());
        let mut asking = JoinSet::new();
        for (host, client) in self.asked.clone() {
            asking.spawn(ask((host, client), heard.clone()));
        }
        let mut last = Answers::new();
        loop {
            let found = self.tell(&last, once - start);
            if found.iter().all(|host| host.state == Enforced::Yes || !self.asked.contains_key(&host.host)) {
                return found;
            }
            let until = if last.len() == self.asked.len() { deadline } else { once };
            let Ok(Some((host, answer))) = timeout_at(until, answers.recv()).await else { return found };
            last.insert(host, answer);
        }
    }

    /// How it is with each host of the cluster; those that have not answered had so long.
    fn tell(&self, last: &Answers, within: Duration) -> Vec<Enforcing> {
        let late = || ClientError::Late(within);
        let wanted = last.get(&self.own).and_then(|answer| answer.as_ref().ok());
        let one = |host: &String| match (last.get(host), self.asked.get(host)) {
            (Some(Ok(other)), Some(client)) if other.host != *host => {
                (Enforced::NotKnown, format!("at {} is host {}", client.socket().display(), other.host))
            }
            (Some(Ok(other)), _) => wanted.map_or_else(
                || (Enforced::NotKnown, format!("it has {}, and {} does not say what it has", other.digest, self.own)),
                |wanted| judge(wanted, other),
            ),
            (Some(Err(error)), _) => (Enforced::NotKnown, unasked(error)),
            (None, Some(_)) => (Enforced::NotKnown, unasked(&late())),
            (None, None) => {
                let why = "hosts of a cluster from a file do not tell each other: ask there, or use --host-socket";
                (Enforced::NotKnown, why.to_owned())
            }
        };
        let told = self.all.iter().map(|host| (host, one(host)));
        told.map(|(host, (state, why))| Enforcing { host: host.clone(), state, why }).collect()
    }
}

/// Asks a host again and again, until nobody listens any more.
async fn ask((host, client): (String, Client), heard: mpsc::Sender<(String, Result<PolicyDigest, ClientError>)>) {
    loop {
        let answer = client.call(&GetDigest {}).await;
        if heard.send((host.clone(), answer)).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether all hosts do.
pub(super) fn all(hosts: &[Enforcing]) -> bool {
    hosts.iter().all(|host| host.state == Enforced::Yes)
}

/// What a host's answer says of it.
fn judge(wanted: &PolicyDigest, answer: &PolicyDigest) -> (Enforced, String) {
    let PolicyDigest { host: _, digest, revision, enforced } = answer;
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

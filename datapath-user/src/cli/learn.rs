//! Looks at what an app exchanges, on every host that can be asked, and has the manifest made that allows it.
//!
//! Invariant: what was seen is not lost by what happens later, and what was not seen is said, by the counters of the
//! kernel, which are exact.

use std::{collections::BTreeMap, future::Future, io::Write as _, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use super::{args::Learn, failure::Failure, hosts::Hosts, page::escape};
use crate::front::api::{
    client::{Client, ClientError},
    dto::{
        learning::{Contact, ContactList, Counted, LearnPolicy, Learned, ListContacts},
        seen::Seen,
    },
    refusal::Kind,
};
use crate::intent;
use crate::model::name::AppName;

/// Between two looks. What was opened and closed between them is in the kernel's table for a minute at least, if that
/// does not fill up.
const EVERY: Duration = Duration::from_secs(2);
/// How long the daemon may be away when all that is left is to ask it for the manifest.
const PATIENCE: Duration = Duration::from_mins(1);

/// A host that is looked at.
struct Watched {
    host: String,
    client: Client,
    /// Up to when flows were found.
    after: u64,
    /// By pair of apps.
    tallies: BTreeMap<(String, String), Tally>,
    /// Flows that the host could not count: at first, and now.
    uncounted: (u64, u64),
    /// Why it was not asked last time.
    away: Option<String>,
    /// Its counters began anew.
    anew: bool,
}

/// Flows between two apps.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// Counted before it was looked at.
    before: u64,
    /// Counted now.
    flows: u64,
    /// Of those that were opened since, found one by one.
    found: u64,
    /// Found last, of those that will be found again.
    fresh: u64,
}

/// Ends when somebody at the terminal, or a service manager, wants that. From the call on no such signal is fatal.
pub(super) fn interrupted() -> impl Future<Output = ()> {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async {
        let [Ok(mut interrupted), Ok(mut terminated)] = kinds else { return std::future::pending().await };
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    }
}

/// What was seen, and in sentences what was not.
pub(super) struct Watch {
    pub(super) request: LearnPolicy,
    unseen: Vec<String>,
}

/// Looks until the time is over or `stop` is.
pub(super) async fn watch(own: &Client, args: &Learn, stop: impl Future<Output = ()>) -> Result<Watch, Failure> {
    let Learn { app, length, policy, output: _, others } = args;
    let end = Instant::now() + *length;
    let mut seen = Seen::default();
    let (mut hosts, members) = first(&Hosts::new(own, others).await?, app, &mut seen).await?;
    told_begun(&hosts, app)?;
    tokio::pin!(stop);
    let mut next = Instant::now() + EVERY;
    loop {
        let is_last = tokio::select! {
            () = sleep_until(next.min(end)) => Instant::now() >= end,
            () = &mut stop => true,
        };
        for host in &mut hosts {
            host.look(app, &mut seen).await;
        }
        if is_last {
            break;
        }
        next = Instant::now() + EVERY;
    }
    let asked = hosts.iter().filter(|host| host.away.is_none()).filter_map(|host| host.host.parse().ok()).collect();
    let request = LearnPolicy { app: app.clone(), policy: policy.clone(), contacts: seen.into_contacts(), asked };
    let unseen = not_asked(&hosts, &members).chain(hosts.iter().flat_map(Watched::unseen)).collect();
    Ok(Watch { request, unseen })
}

/// Says that it has begun.
fn told_begun(hosts: &[Watched], app: &AppName) -> Result<(), Failure> {
    let hosts = hosts.iter().map(|host| host.host.as_str()).collect::<Vec<_>>().join(", ");
    let text = format!("weft: looking at {app} on {}; Ctrl-C ends it and keeps what was seen\n", escape(&hosts));
    std::io::stderr().write_all(text.as_bytes()).map_err(Failure::Output)
}

/// What is to be read beside the manifest, on standard error.
pub(super) fn warnings(learned: &Learned) -> String {
    let Learned { notes, against, unseen, .. } = learned;
    let lines = [unseen, against, notes].into_iter().flatten();
    lines.flat_map(|line| ["weft: ".to_owned(), escape(line), "\n".to_owned()]).collect()
}

/// The first look, which has to succeed everywhere: nothing is lost yet. And which hosts may have endpoints.
async fn first(
    Hosts { here, others }: &Hosts,
    app: &AppName,
    seen: &mut Seen,
) -> Result<(Vec<Watched>, Vec<String>), Failure> {
    let request = ListContacts { app: app.clone(), after: 0 };
    let answer = here.call(&request).await.map_err(Failure::Daemon)?;
    let members = answer.members.clone();
    let mut hosts = vec![Watched::new(here.clone(), answer, seen)];
    for (host, client) in others {
        let answer = client.call(&request).await.map_err(|error| Failure::Host(host.clone(), error))?;
        hosts.push(Watched::new(client.clone(), answer, seen));
    }
    Ok((hosts, members))
}

/// Asks for the manifest. A daemon that is started again has some time for that: all that was seen is kept here alone.
pub(super) async fn manifest(own: &Client, Watch { request, unseen }: &Watch) -> Result<Learned, ClientError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let is_away = |error: &ClientError| match error {
            ClientError::NotRunning(..) | ClientError::Broken(_) => true,
            ClientError::Refused(refusal) => refusal.kind == Kind::Unavailable,
            ClientError::Denied(_) | ClientError::Schema(_) | ClientError::Late(_) => false,
        };
        match own.call(request).await {
            Err(error) if is_away(&error) && Instant::now() < deadline => sleep_until(Instant::now() + EVERY).await,
            Err(error) => return Err(error),
            Ok(learned) => {
                let head: String = unseen.iter().map(|line| intent::comment(line)).collect();
                return Ok(Learned { manifest: head + &learned.manifest, unseen: unseen.clone(), ..learned });
            }
        }
    }
}

/// Hosts with endpoints of the app whose daemons nobody named.
fn not_asked<'a>(hosts: &'a [Watched], members: &'a [String]) -> impl Iterator<Item = String> + 'a {
    let others = members.iter().filter(|name| !hosts.iter().any(|host| host.host == **name));
    others.map(|name| format!("host {name} was not asked: name its daemon with --host-socket {name}=PATH"))
}

impl Watched {
    /// A host after the first look at it.
    fn new(client: Client, answer: ContactList, seen: &mut Seen) -> Self {
        let ContactList { host, members: _, clock, contacts, counted, uncounted } = answer;
        seen.extend(contacts);
        // What is not settled is found again.
        let tally = |counted: Counted| {
            let Counted { from, to, flows, settled: _, fresh } = counted;
            ((from, to), Tally { before: flows.saturating_sub(fresh), flows, found: 0, fresh: 0 })
        };
        let tallies = counted.into_iter().map(tally).collect();
        Self { host, client, after: clock, tallies, uncounted: (uncounted, uncounted), away: None, anew: false }
    }

    /// Looks again. What goes wrong is kept to be told, and tried again.
    async fn look(&mut self, app: &AppName, seen: &mut Seen) {
        match self.client.call(&ListContacts { app: app.clone(), after: self.after }).await {
            Ok(answer) => {
                self.away = None;
                seen.extend(self.take(answer));
            }
            Err(error) => self.away = Some(error.to_string()),
        }
    }

    fn take(&mut self, answer: ContactList) -> Vec<Contact> {
        let ContactList { host: _, members: _, clock, contacts, counted, uncounted } = answer;
        self.anew |= clock < self.after || uncounted < self.uncounted.0;
        self.after = clock;
        self.uncounted.1 = uncounted;
        for Counted { from, to, flows, settled, fresh } in counted {
            let tally = self.tallies.entry((from, to)).or_default();
            self.anew |= flows < tally.flows;
            (tally.flows, tally.fresh) = (flows, fresh);
            tally.found += settled;
        }
        contacts
    }

    /// What it does not know in detail.
    fn unseen(&self) -> impl Iterator<Item = String> + '_ {
        let host = &self.host;
        let away = self.away.as_ref().map(|why| format!("host {host} could not be asked at the end: {why}"));
        let anew = self.anew.then(|| format!("host {host} began to count anew: what it saw before may not be all"));
        let uncounted = self.uncounted.1.saturating_sub(self.uncounted.0);
        let uncounted =
            (uncounted > 0).then(|| format!("host {host} had no room to count {uncounted} new connections of any app"));
        let pairs = self.tallies.iter().filter_map(move |((from, to), tally)| {
            let new = tally.flows.saturating_sub(tally.before);
            let missed = new.saturating_sub(tally.found + tally.fresh);
            let what = format!("{missed} of {new} new connections from {from} to {to} were gone before they were seen");
            (missed > 0).then(|| format!("host {host}: {what}"))
        });
        away.into_iter().chain(anew).chain(uncounted).chain(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::api::example;

    /// What a host is asked and answers: connections that it counted, that are settled, that are fresh.
    fn answer(clock: u64, (flows, settled, fresh): (u64, u64, u64)) -> ContactList {
        let mut list = example::contact_list(0);
        list.clock = clock;
        list.counted[0] = Counted { flows, settled, fresh, ..list.counted[0].clone() };
        list
    }

    #[test]
    fn what_is_counted_and_not_found_was_not_seen() {
        let check = |first: (u64, u64, u64), then: &[(u64, u64, u64)], expect: &[&str]| {
            let mut seen = Seen::default();
            let mut host = Watched::new(Client::new("/none"), answer(1, first), &mut seen);
            for (at, counts) in then.iter().enumerate() {
                host.take(answer(2 + at as u64, *counts));
            }
            assert_eq!(host.unseen().collect::<Vec<_>>(), expect, "{first:?} {then:?}");
        };
        check((7, 5, 0), &[], &[]);
        check((7, 5, 0), &[(7, 0, 0)], &[]);
        check((7, 5, 0), &[(9, 1, 1)], &[]);
        // What was fresh is settled at the next look, and counts once.
        check((7, 5, 2), &[(7, 2, 0)], &[]);
        check((7, 5, 2), &[(10, 3, 2), (12, 3, 1)], &[]);
        let gone = "host h1: 1 of 3 new connections from shop to blog were gone before they were seen";
        check((7, 5, 0), &[(9, 1, 1), (10, 1, 0)], &[gone]);
        // Fresh ones that were there at first do not hide one that is not found.
        let gone = "host h1: 1 of 5 new connections from shop to blog were gone before they were seen";
        check((7, 5, 2), &[(10, 4, 0)], &[gone]);
        check((7, 5, 0), &[(2, 2, 0)], &["host h1 began to count anew: what it saw before may not be all"]);
    }

    #[tokio::test]
    async fn a_host_that_is_away_is_named_and_keeps_what_it_said() {
        let mut seen = Seen::default();
        let mut host = Watched::new(Client::new("/none/weft.sock"), answer(1, (7, 5, 0)), &mut seen);
        host.look(&"shop".parse().unwrap(), &mut seen).await;
        let told: Vec<_> = host.unseen().collect();
        assert!(told[0].starts_with("host h1 could not be asked at the end: "), "{told:?}");
        assert_eq!(told.len(), 1);
        assert_eq!(seen.into_contacts().len(), 1);
    }
}

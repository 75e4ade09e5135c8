//! A cluster that is described in a file, for people who like it static.
//!
//! The file says which hosts, apps and rules there are, and is followed: an edit without a fault is in force
//! within a second, one with a fault is refused with its place, and what was in force stays, also over a restart.
//! Changes of rules and apps are written into the file. What only this host knows is in `store::local`.

mod disk;
mod edit;
mod read;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use tokio::{sync::watch, task::spawn_blocking, time};

use crate::model::{
    cluster::{Cluster, Revision},
    name::HostName,
};

use super::{
    ChangeError, Problem, Snapshot, Store,
    change::{Change, apply},
    local::Local,
};
use disk::{Looked, Watched, Written};
use read::Description;

/// How often the file is looked at. It is read when it was the same twice.
const LOOK: Duration = Duration::from_millis(250);
/// How often a file that is being written is looked at by somebody who waits for it.
const SETTLE: Duration = Duration::from_millis(50);

/// When to write again what could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// How long somebody waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The description of the cluster.
    pub file: PathBuf,
    /// The folder of what this host alone knows.
    pub state: PathBuf,
}

/// The engine.
#[derive(Debug)]
pub struct FileStore {
    inner: Arc<Mutex<Inner>>,
    state: watch::Sender<Arc<Snapshot>>,
}

#[derive(Debug)]
struct Inner {
    host: HostName,
    file: Watched,
    local: Local,
    /// The text that is in force.
    text: String,
    /// Why the text in the file is not in force, if it is another.
    refused: Option<Problem>,
    unwritten: Option<Unwritten>,
    state: watch::Sender<Arc<Snapshot>>,
}

/// What could not be written down. A full disk is the usual cause, and nobody tells when it is not any more.
#[derive(Debug)]
struct Unwritten {
    why: Arc<str>,
    /// Whether a restart would not know the text in force.
    description: bool,
    /// When it is tried again.
    retry_at: time::Instant,
}

/// The cluster that the text of a file describes: of no host, and without endpoints.
pub fn describe(file: &Arc<str>, text: &str) -> Result<Cluster, Problem> {
    read::read_for_any(text, file, &Cluster::default())
}

impl FileStore {
    /// Opens what `host` has. When the file has a fault, it starts with the last text that had none.
    pub async fn open(paths: Paths, host: HostName) -> Result<Self> {
        let Paths { file, state } = paths;
        let mut watched = Watched::new(file);
        let started = time::Instant::now();
        // Somebody may be writing the file: half of it can look like a cluster too.
        let (watched, read) = loop {
            let patient = started.elapsed() < PATIENCE;
            let look = move || {
                let read = if patient { watched.look() } else { watched.read().map(Some) };
                (watched, read)
            };
            let looked;
            (watched, looked) = spawn_blocking(look).await.context("look at the cluster file")?;
            if let Some(read) = looked.transpose() {
                break (watched, read);
            }
            time::sleep(SETTLE).await;
        };
        let inner =
            spawn_blocking(move || Inner::open(watched, read, &state, host)).await.context("open the store")??;
        let state = inner.state.clone();
        Ok(Self { inner: Arc::new(Mutex::new(inner)), state })
    }

    /// Follows the file, until it is dropped.
    pub async fn follow(&self) {
        let mut ticks = time::interval(LOOK);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.with(Inner::look).await {
                tracing::error!("follow the cluster file: {error}");
            }
        }
    }

    /// Works on what the file says when nobody is writing it: his edit comes first. It is done again while it says None.
    async fn settled<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Inner) -> Result<Option<T>, ChangeError> + Send + Sync + 'static,
    ) -> Result<T, ChangeError> {
        let work = Arc::new(work);
        let started = time::Instant::now();
        loop {
            if self.with(Inner::look).await? != Looked::Unsettled {
                let work = Arc::clone(&work);
                if let Some(done) = self.with(move |inner| work(inner)).await?? {
                    return Ok(done);
                }
            }
            if started.elapsed() > PATIENCE {
                return Err(ChangeError::Storage("the cluster file changes all the time: try again".to_owned()));
            }
            time::sleep(SETTLE).await;
        }
    }

    /// Works on the inner state where it may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> T + Send + 'static,
    ) -> Result<T, ChangeError> {
        let inner = Arc::clone(&self.inner);
        // Every work leaves the state whole, so one that panicked did too.
        let work = move || work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner));
        spawn_blocking(work).await.map_err(|error| ChangeError::Storage(format!("change the store: {error}")))
    }
}

impl Store for FileStore {
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.state.subscribe()
    }

    fn latest(&self) -> BoxFuture<'_, Result<Arc<Snapshot>, ChangeError>> {
        Box::pin(self.settled(|inner| Ok(Some(inner.now()))))
    }

    fn change_of(&self, change: Change, seen: Option<Arc<Snapshot>>) -> BoxFuture<'_, Result<Revision, ChangeError>> {
        Box::pin(self.settled(move |inner| inner.change(&change, seen.as_deref())))
    }
}

impl Inner {
    fn open(file: Watched, read: Result<String, Problem>, state: &Path, host: HostName) -> Result<Self> {
        let mut local = Local::open(state)?;
        let known = local.load()?;
        let base = Cluster { endpoints: known.endpoints, reservations: known.reservations, ..Cluster::default() };
        let understand = |text: String| Ok((read::read(&text, &file.name(), &host, &base)?, text));
        let (text, cluster, problem) = match (read.and_then(understand), &known.description) {
            (Ok((cluster, text)), _) => (text, cluster, None),
            (Err(problem), None) => return Err(problem.into()),
            (Err(problem), Some(last)) => {
                let refuse = || format!("start from the last description without a fault, because of {problem}");
                let (cluster, text) = understand(last.clone()).with_context(refuse)?;
                (text, cluster, Some(problem))
            }
        };
        let mut inner = Self {
            host,
            file,
            local,
            text: known.description.unwrap_or_default(),
            refused: None,
            unwritten: None,
            state: watch::Sender::new(Arc::new(Snapshot { revision: known.revision, ..Snapshot::default() })),
        };
        inner.start(text, cluster, problem);
        Ok(inner)
    }

    /// Begins with a text that may be the one in force since before the restart.
    fn start(&mut self, text: String, cluster: Cluster, problem: Option<Problem>) {
        let revision = self.now().revision;
        if text == self.text {
            self.refused = problem;
            self.publish(revision, Arc::new(cluster));
        } else {
            self.accept(text, cluster);
        }
    }

    /// Writes down the text in force.
    fn keep(&mut self, revision: Revision) {
        let done = self.local.save_description(&self.text, revision);
        let failed = done.err().map(|error| format!("the description in force is not kept for a restart: {error:#}"));
        self.note(failed.map(|why| (why, true)));
    }

    /// Writes down what this host alone knows. After an error nothing has changed.
    fn save(&mut self, old: &Cluster, new: &Cluster, revision: Revision) -> Result<()> {
        let done = self.local.save(old, new, revision);
        let description = self.unwritten.as_ref().is_some_and(|unwritten| unwritten.description);
        match &done {
            Ok(()) if description => {}
            Ok(()) => self.note(None),
            Err(error) => self.note(Some((format!("endpoints can not be written down: {error:#}"), description))),
        }
        done
    }

    fn note(&mut self, failed: Option<(String, bool)>) {
        let retry_at = time::Instant::now() + RETRY;
        self.unwritten = failed.map(|(why, description)| Unwritten { why: why.into(), description, retry_at });
    }

    /// Tries again what could not be written down.
    fn retry(&mut self) {
        let Some(Unwritten { description, retry_at, .. }) = self.unwritten else { return };
        if time::Instant::now() < retry_at {
            return;
        }
        let now = self.now();
        if description {
            self.keep(now.revision);
        } else if let Err(error) = self.save(&now.cluster, &now.cluster, now.revision) {
            tracing::debug!("try again to write the state: {error:#}");
        }
        self.publish(now.revision, Arc::clone(&now.cluster));
    }

    /// Looks whether the file is another, and takes it over if it has no fault.
    fn look(&mut self) -> Looked {
        self.retry();
        let text = match self.file.look() {
            Ok(Some(text)) => text,
            Ok(None) => return if self.file.is_settled() { Looked::Same } else { Looked::Unsettled },
            Err(problem) => {
                self.refuse(problem);
                return Looked::Read;
            }
        };
        let now = self.now();
        match read::read(&text, &self.file.name(), &self.host, &now.cluster) {
            Ok(cluster) => self.accept(text, cluster),
            Err(problem) => self.refuse(problem),
        }
        Looked::Read
    }

    fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.borrow())
    }

    /// Puts a text in force.
    fn accept(&mut self, text: String, cluster: Cluster) {
        let now = self.now();
        let revision = if cluster == *now.cluster { now.revision } else { now.revision.next() };
        self.refused = None;
        if text != self.text {
            self.text = text;
            self.keep(revision);
        }
        self.publish(revision, Arc::new(cluster));
    }

    fn refuse(&mut self, problem: Problem) {
        self.refused = Some(problem);
        let now = self.now();
        self.publish(now.revision, Arc::clone(&now.cluster));
    }

    fn publish(&self, revision: Revision, cluster: Arc<Cluster>) {
        let unwritten = self.unwritten.as_ref().map(|unwritten| Arc::clone(&unwritten.why));
        let snapshot = Snapshot { revision, cluster, problem: self.refused.clone(), unwritten };
        self.state.send_if_modified(|state| {
            let changed = **state != snapshot;
            if changed {
                if let Some(problem) =
                    snapshot.problem.as_ref().filter(|problem| state.problem.as_ref() != Some(problem))
                {
                    tracing::warn!("{problem}");
                }
                if let Some(why) = snapshot.unwritten.as_ref().filter(|why| state.unwritten.as_ref() != Some(why)) {
                    tracing::warn!("{why}");
                }
                *state = Arc::new(snapshot);
            }
            changed
        });
    }

    /// Makes a change. None: somebody else has changed the file meanwhile.
    fn change(&mut self, change: &Change, seen: Option<&Snapshot>) -> Result<Option<Revision>, ChangeError> {
        let now = self.now();
        if seen.is_some_and(|seen| !seen.cluster.shares_with(&now.cluster)) {
            return Err(ChangeError::Overtaken);
        }
        let next = apply(&now.cluster, change, &self.host, now.revision)?;
        if next == *now.cluster {
            return Ok(Some(now.revision));
        }
        if next.shares_with(&now.cluster) {
            let revision = now.revision.next();
            if let Err(error) = self.save(&now.cluster, &next, revision) {
                self.publish(now.revision, Arc::clone(&now.cluster));
                return Err(ChangeError::Storage(format!("nothing was changed: {error:#}")));
            }
            self.publish(revision, Arc::new(next));
            if self.refused.is_some() {
                // It may have been refused because of what is gone by this change.
                self.file.forget();
            }
        } else if self.change_file(change, &next)? == Written::Overtaken {
            return Ok(None);
        }
        Ok(Some(self.now().revision))
    }

    /// Writes a change of what the file describes. `next` is what it is to come to.
    fn change_file(&mut self, change: &Change, next: &Cluster) -> Result<Written, ChangeError> {
        let now = self.now();
        if let Some(problem) = &self.refused {
            return Err(ChangeError::Broken(problem.clone()));
        }
        let storage = |error: anyhow::Error| ChangeError::Storage(format!("{error:#}"));
        let text = edit::edit(&self.text, &now.cluster, change).map_err(storage)?;
        // The edit is read as anybody's would be, and has to mean what was asked for.
        let read = read::read(&text, &self.file.name(), &self.host, next).map_err(ChangeError::Broken)?;
        if Description::of(&read) != Description::of(next) {
            let what = format!(
                "{} is written in a way that weft can not change: change it by hand",
                self.file.name().escape_debug()
            );
            return Err(ChangeError::Storage(what));
        }
        if self.file.write(&self.text, &text).map_err(storage)? == Written::Overtaken {
            return Ok(Written::Overtaken);
        }
        self.accept(text, read);
        if next.reservations != now.cluster.reservations
            && let Err(error) = self.save(&now.cluster, next, self.now().revision)
        {
            // What is kept for an app that is gone does no harm.
            tracing::warn!("give up the addresses of what is gone: {error:#}");
        }
        Ok(Written::Done)
    }
}

#[cfg(test)]
mod tests;

//! The socket's daemon side: accepts, checks who asks and what, and passes it to a [`Handler`].
//!
//! Knows nothing of what the use cases do. Invariant: a change that was begun is carried out even if the caller
//! hangs up; a question is given up with its caller.

mod routes;
mod socket;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{Handler, access::Access};

/// Connections at a time: what `weft` and a monitor need, and far below the daemon's file descriptors.
const CONNECTIONS: usize = 256;
/// How long a caller may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long requests that were begun have when the daemon stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept: what it lacks, as file descriptors, comes back with time.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A socket that listens.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    access: Access,
}

/// What every request shares.
struct Shared<H> {
    handler: Arc<H>,
    /// Changes under way.
    changes: TaskTracker,
    stop: CancellationToken,
}

impl<H> Clone for Shared<H> {
    fn clone(&self) -> Self {
        let Self { handler, changes, stop } = self;
        Self { handler: Arc::clone(handler), changes: changes.clone(), stop: stop.clone() }
    }
}

impl Server {
    /// Listens at `path`. A socket that a dead daemon left there is replaced; one that a living daemon has is not.
    pub fn bind(path: &Path, access: Access) -> anyhow::Result<Self> {
        let listener = socket::listen(path, access).with_context(|| format!("listen at {}", path.display()))?;
        Ok(Self { listener, access })
    }

    /// Serves until `stop`, then lets requests that were begun end.
    pub async fn run<H: Handler>(self, handler: Arc<H>, stop: CancellationToken) {
        let Self { listener, access } = self;
        let shared = Shared { handler, changes: TaskTracker::new(), stop: stop.clone() };
        let router = routes::router(shared.clone());
        let connections = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        while let Some((stream, slot)) = next(&listener, &slots, &stop).await {
            let router = match admit(&stream, access) {
                Ok(()) => router.clone(),
                Err(refusal) => routes::refuse_all(refusal),
            };
            connections.spawn(serve(stream, router, stop.clone(), slot));
        }
        connections.close();
        shared.changes.close();
        let ended = async { tokio::join!(connections.wait(), shared.changes.wait()) };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            warn!(connections = connections.len(), changes = shared.changes.len(), "API requests are given up");
        }
    }
}

/// The next connection; none when it is time to stop.
async fn next(
    listener: &UnixListener,
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(UnixStream, OwnedSemaphorePermit)> {
    let accept = async {
        // Closed by nobody.
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, slot)),
                Err(error) => {
                    warn!(%error, "API socket: accept failed, trying again");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await.flatten()
}

fn admit(stream: &UnixStream, access: Access) -> Result<(), super::refusal::Refusal> {
    let caller = stream.peer_cred().context("ask the kernel who calls")?;
    let admitted = access.check(&caller);
    debug!(uid = caller.uid(), pid = caller.pid(), admitted = admitted.is_ok(), "API connection");
    admitted
}

async fn serve(stream: UnixStream, router: Router, stop: CancellationToken, slot: OwnedSemaphorePermit) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "API connection broke");
    }
    drop(slot);
}

#[cfg(test)]
mod tests;

//! Ctrl-C, SIGTERM and SIGHUP end a lab in order, so that everything it made is taken away again.
//!
//! Owns the three signals. Also the only way the lab lets time pass: every wait can be interrupted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears the signals.
pub(crate) struct Interrupt {
    heard: Receiver<()>,
}

/// Somebody asked the lab to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupted;

/// For those who cannot hold the [`Interrupt`]: the panic hook.
static HEARD: AtomicBool = AtomicBool::new(false);

impl Interrupt {
    /// Takes over the signals, for as long as the process lives.
    pub(crate) fn listen() -> Result<Self> {
        let (tell, heard) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return ready.send(Err(error)).ok(),
                };
                runtime.block_on(async {
                    let mut signals = match Signals::open() {
                        Ok(signals) => signals,
                        Err(error) => return ready.send(Err(error)).ok(),
                    };
                    ready.send(Ok(())).ok();
                    loop {
                        signals.next().await;
                        HEARD.store(true, Ordering::Relaxed);
                        // The lab may have ended meanwhile.
                        tell.send(()).ok();
                    }
                })
            })
            .context("start a thread for signals")?;
        started.recv().context("start to listen for signals")?.context("listen for signals")?;
        Ok(Self { heard })
    }

    /// Lets time pass; fails as soon as the lab is asked to end.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        match self.heard.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => bail!(Interrupted),
        }
    }

    /// Waits until the lab is asked to end.
    pub(crate) fn wait(&self) {
        // Without the other end there is nobody to wait for.
        self.heard.recv().ok();
    }
}

/// Whether the lab was asked to end.
pub(crate) fn heard() -> bool {
    HEARD.load(Ordering::Relaxed)
}

struct Signals([Signal; 3]);

impl Signals {
    fn open() -> std::io::Result<Self> {
        let [int, term, hup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self([signal(int)?, signal(term)?, signal(hup)?]))
    }

    async fn next(&mut self) {
        let Self([int, term, hup]) = self;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

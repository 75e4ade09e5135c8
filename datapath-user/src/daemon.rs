//! The daemon: builds the graph of tasks, owns them, and ends them in order.
//!
//! Everything else is told what it needs; nothing points back here. When it ends, by whatever cause, the programs and
//! their tables stay as they are and packets go on.

use std::{
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weft_common::{addr::Ip, table};

use crate::front::api::{access::Access, dto::state::ResetDone, server::Server};
use crate::groups::{Action, Groups};
use crate::kernel::{
    config,
    events::{Event, Events},
    inject::Injector,
    pins::Pins,
    tables::{Keyed as _, Map},
    watch::{Changed, Watch},
};
use crate::model::name::HostName;
use crate::observe::Observer;
use crate::order::Order;
use crate::plan::NodePlan;
use crate::reconcile::{
    Cause, Gone, Reconciler, TICK, Told,
    reset::{Cleared, without_daemon},
};
use crate::service::{Parts, Service};
use crate::slowpath::{self, Command};
use crate::status::Board;
use crate::store::{
    Snapshot, Store,
    change::Change,
    file::{FileStore, Paths},
    local::is_in_use,
};

/// How the daemon is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that describes the cluster.
    pub cluster: PathBuf,
    /// Which of its hosts this one is.
    pub host: HostName,
    /// Where state outlives a restart.
    pub state: PathBuf,
    /// Where the socket is.
    pub run: PathBuf,
    /// Where maps and links are pinned.
    pub bpffs: PathBuf,
    /// How often containers are asked which groups they want.
    pub ask_groups_every: Duration,
}

/// Changes of the kernel come in bursts: a pass waits this long for the rest.
const SETTLE: Duration = Duration::from_millis(50);

/// And so many times as long as the last one took, in order that looking at changes does not take all of the time.
const HINT_SHARE: u32 = 20;

/// But no longer: a way to a peer may have changed.
const LONGEST_SETTLE: Duration = Duration::from_secs(1);

/// Runs until a signal says to end, or a reset has left nothing to do.
pub async fn run(config: Config) -> Result<()> {
    let paths = Paths { file: config.cluster.clone(), state: config.state.clone() };
    let files = Arc::new(FileStore::open(paths, config.host.clone()).await?);
    let store: Arc<dyn Store> = Arc::clone(&files) as _;
    let pins = Pins::new(&config.bpffs);
    let board = Board::new();
    let observer = Arc::new(Observer::new());
    let snapshots = store.watch();
    let first = Arc::clone(&snapshots.borrow());
    let (orders, inbox) = mpsc::channel(16);
    let (plans, plan) = watch::channel(Arc::new(NodePlan::default()));
    let told = Told { plans, board: board.clone() };
    let reconciler = Reconciler::new(config.host.clone(), pins.clone(), &config.state, &first.cluster, told)?;

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (events, groups) = (Events::open(&pins)?, Map::open(&pins)?);
    let following = stop.clone();
    tasks.spawn(async move { following.run_until_cancelled(files.follow()).await });
    let loop_ = Loop { reconciler, store: Arc::clone(&store), snapshots, inbox };
    let reconciling = tasks.spawn(loop_.run(stop.clone()));
    tasks.spawn(watch_events(events, Arc::clone(&observer), plan.clone(), orders.clone(), stop.clone()));
    tasks.spawn(watch_groups(groups, config.ask_groups_every, plan.clone(), orders.clone(), stop.clone()));
    let parts = Parts { store, board: board.clone(), observer, plan, orders, pins };
    let service = Arc::new(Service::new(config.host.clone(), parts));
    std::fs::create_dir_all(&config.run).with_context(|| format!("make directory {}", config.run.display()))?;
    let server = Server::bind(&config.run.join("weft.sock"), Access::system())?;
    let serving = tasks.spawn(server.run(service, stop.clone()));

    board.wait(Duration::from_mins(1), |status| status.passes > 0).await.context("the first pass takes too long")?;
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("ready");
    wait_for_end(&stop, reconciling, serving).await?;
    notify(&[sd_notify::NotifyState::Stopping]);
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await.is_err() {
        tracing::warn!("tasks did not end in time");
    }
    Ok(())
}

/// Takes everything off this host where no daemon runs to do it. What it remembers in the folder `state` stays.
pub async fn reset(state: &Path, bpffs: &Path) -> Result<ResetDone> {
    if !state.exists() && !bpffs.exists() {
        let (state, bpffs) = (state.display(), bpffs.display());
        bail!("there is neither {state} nor {bpffs}: name the daemon's folders with --state-dir and --bpffs");
    }
    if is_in_use(state)? {
        bail!("a weftd uses {}, and listens at another socket: name it with --socket", state.display());
    }
    let Cleared { removed, left } = without_daemon(&Pins::new(bpffs), state).await?;
    Ok(ResetDone { removed, left })
}

async fn wait_for_end(
    stop: &CancellationToken,
    reconciling: tokio::task::JoinHandle<()>,
    serving: tokio::task::JoinHandle<()>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = stop.cancelled() => Ok(()),
        ended = reconciling => ended.context("reconcile"),
        ended = serving => ended.context("serve the API"),
    }
}

struct Loop {
    reconciler: Reconciler,
    store: Arc<dyn Store>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    inbox: mpsc::Receiver<Order>,
}

impl Loop {
    async fn run(mut self, stop: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hints = Hints::new();
        loop {
            let settle = (self.reconciler.took() * HINT_SHARE).clamp(SETTLE, LONGEST_SETTLE);
            let cause = tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {
                    notify(&[sd_notify::NotifyState::Watchdog]);
                    if !self.reconciler.is_due() {
                        continue;
                    }
                    Cause::Doubt
                }
                changed = self.snapshots.changed() => match changed {
                    Ok(()) if hints.watch.is_some() => Cause::Change,
                    Ok(()) => Cause::Hint,
                    Err(_) => return,
                },
                changed = hints.settled(settle) => {
                    if !self.reconciler.is_news(&changed) {
                        continue;
                    }
                    Cause::Hint
                }
                // Nobody waits for it, but flows are to be told.
                () = self.reconciler.next_end() => Cause::Change,
                order = self.inbox.recv() => match order {
                    Some(Order::Reset(answer)) => {
                        let Cleared { removed, left } = self.reconciler.reset().await;
                        for what in &left {
                            tracing::error!("{what}");
                        }
                        if answer.send((removed, left)).is_err() {
                            tracing::warn!("whoever asked for the reset is gone");
                        }
                        // Also when something is left: a pass would put everything back.
                        stop.cancel();
                        return;
                    }
                    Some(Order::Repair) => Cause::Doubt,
                    None => return,
                },
            };
            self.pass(cause).await;
        }
    }

    async fn pass(&mut self, cause: Cause) {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let gone = self.reconciler.pass(&snapshot.cluster, snapshot.revision.0, cause).await;
        for Gone { endpoint, netns, why } in gone {
            tracing::info!("endpoint {endpoint} is gone: {why}");
            if let Err(error) = self.store.change(Change::EndpointGone(endpoint.clone(), netns)).await {
                tracing::warn!("remove endpoint {endpoint}: {error}");
            }
        }
    }
}

/// What the kernel says of changes, which come in bursts.
struct Hints {
    watch: Option<Watch>,
    /// The burst that has begun.
    changed: Changed,
    /// When it is looked at.
    due: Option<Instant>,
}

impl Hints {
    fn new() -> Self {
        let watch = Watch::new()
            .inspect_err(|error| tracing::warn!("{error:#}: changes of the host are noticed every {TICK:?} only"));
        Self { watch: watch.ok(), changed: Changed::default(), due: None }
    }

    /// Waits for a change, and then so long for the rest. A wait that is given up is gone on with by the next.
    async fn settled(&mut self, within: Duration) -> Changed {
        let Some(watch) = &mut self.watch else { return std::future::pending().await };
        loop {
            let due = self.due;
            tokio::select! {
                changed = watch.changed() => match changed {
                    Some(changed) => self.changed.extend(changed),
                    None => break,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => break,
            }
            self.due = due.or_else(|| Some(Instant::now() + within));
        }
        if self.due.take().is_none() {
            tracing::warn!("the kernel tells no more: changes of the host are noticed every {TICK:?} only");
            self.watch = None;
        }
        mem::take(&mut self.changed)
    }
}

/// Asks who wants which group, and forgets who does not answer.
async fn watch_groups(
    table: Map<table::Groups>,
    every: Duration,
    plan: watch::Receiver<Arc<NodePlan>>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
) {
    let injector = match Injector::new() {
        Ok(injector) => injector,
        Err(error) => return tracing::error!("nobody is asked about groups: {error:#}"),
    };
    let mut groups = Groups::new(every);
    let mut tick = interval((every / 10).min(TICK));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Before the first pass nobody is known.
        if plan.borrow().config.gateway == 0 {
            continue;
        }
        let actions = match table.entries() {
            Ok(wishes) => groups.look(&plan.borrow(), &wishes, config::now()),
            Err(error) => {
                tracing::warn!("{error}");
                continue;
            }
        };
        for action in actions {
            match action {
                Action::Send(command) => perform(command, &injector, &orders),
                Action::Forget { key, said } => {
                    let is_same = table.get(&key).is_ok_and(|now| now == Some(said));
                    if let Some(Err(error)) = is_same.then(|| table.delete(&key)) {
                        tracing::warn!("{error}");
                    }
                }
            }
        }
    }
}

/// Takes in what the programs tell.
async fn watch_events(
    mut events: Events,
    observer: Arc<Observer>,
    plan: watch::Receiver<Arc<NodePlan>>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
) {
    let injector = match Injector::new() {
        Ok(injector) => injector,
        Err(error) => return tracing::error!("missed packets are lost: {error:#}"),
    };
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Ok(Event::Drop(drop)) => observer.saw(drop, config::now()),
            Ok(Event::Miss(miss, frame)) => {
                let commands = slowpath::handle(&plan.borrow(), config::since_boot(), miss.link, &frame);
                for command in commands {
                    perform(command, &injector, &orders);
                }
            }
            Err(error) => return tracing::error!("read what the programs tell: {error}"),
        }
    }
}

fn perform(command: Command, injector: &Injector, orders: &mpsc::Sender<Order>) {
    let done = match command {
        Command::Repair => {
            // When the inbox is full a pass is due anyway.
            if orders.try_send(Order::Repair).is_err() {
                tracing::trace!("a pass is due already");
            }
            return;
        }
        Command::Deliver { link, frame } => injector.send(link, &frame),
        Command::Tunnel { to, packet } => injector.send_packet(Ip::to_std(to), &packet),
    };
    if let Err(error) = done {
        tracing::debug!("send what the slow path made: {error}");
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("tell the service manager: {error}");
    }
}

//! Brings this host into accord with what the cluster says: reads what is there, compares it whole with what
//! should be there, applies the difference in order, and says on the board how far it came.
//!
//! The only module that changes the kernel. Events are hints; a tick looks at everything anyway. The order is such
//! that nothing passes which should not: a device is off until its program is there, a program is attached when its
//! tables are filled, and what goes is cut off before its entries are taken away. What fails does not keep the rest
//! from being done, and is tried again in the next pass.

mod accounts;
mod devices;
mod flows;
pub mod reset;
mod switches;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use weft_common::{flow::Flow, table};

use crate::kernel::{
    attach::{Attacher, Change, Order, Place},
    config,
    inject::Injector,
    link::{self, Link, LinkKind},
    load::{Loaded, Object, Program},
    masquerade::Masquerade,
    pins::Pins,
    sysctl,
    tables::{Keyed as _, Map, TableError},
    watch::Changed,
};
use crate::model::{
    cluster::Cluster,
    endpoint::{EndpointKey, Netns},
    name::HostName,
};
use crate::plan::{
    NodePlan,
    facts::{Clock, Facts},
    ids::Ids,
    links::Links,
    plan,
};
use crate::status::{Board, EndpointState, Status};

use accounts::Accounts;
use devices::{Devices, Made, net};
use flows::{Fate, Frame};
use reset::Cleared;
use switches::Switches;
use tables::{Applied, Look, Tables};

/// The number of an interface, 0 if it is gone, and that of the program at it.
type Held = (u32, u32);

/// Reconciles one host.
pub struct Reconciler {
    host: HostName,
    pins: Pins,
    loaded: Loaded,
    attacher: Attacher,
    tables: Tables,
    flows: Map<table::Flows>,
    accounts: Accounts,
    devices: Devices,
    injector: Injector,
    switches: Switches,
    /// Names of the interfaces that lead to peers.
    uplinks: BTreeSet<String>,
    /// Where the last pass left a program.
    attached: BTreeMap<(String, Place), Held>,
    /// The plan of the last pass: what the kernel has, but for drift.
    running: Arc<NodePlan>,
    /// Whether the tables took all of it.
    is_known: bool,
    /// Whether a pass has ended: from then on what differs without a change of plan is drift.
    settled: bool,
    /// When everything is looked at again.
    everything_at: Instant,
    /// When the large tables are compared again.
    whole_at: Instant,
    /// When flows are looked at again, though nothing has changed: for those that have expired.
    sweep_at: Instant,
    /// [`Clock::zero`] of the last pass.
    clock_zero: u64,
    status: Status,
    told: Told,
}

/// Where a pass says what came of it.
#[derive(Debug)]
pub struct Told {
    /// The plan in force: told before the board says that it is.
    pub plans: watch::Sender<Arc<NodePlan>>,
    /// How far it is.
    pub board: Board,
}

/// An endpoint whose namespace is gone, for whoever keeps the cluster's state to remove.
#[derive(Debug)]
pub struct Gone {
    /// Which endpoint.
    pub endpoint: EndpointKey,
    /// The namespace it was put into. It may have been put into another since.
    pub netns: Netns,
    /// How it shows.
    pub why: String,
}

/// Why a pass is made, and so what of that which was right before is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The cluster has changed, and somebody waits for it: nothing, as there would be a hint.
    Change,
    /// The kernel said that devices, addresses or routes have: only those.
    Hint,
    /// Time has passed, or something is missing: everything.
    Doubt,
}

/// How often everything but the large tables is looked at.
pub const TICK: Duration = Duration::from_secs(5);

/// The same where it takes long.
const SELDOM: Duration = Duration::from_secs(10);

/// How often expired flows are taken out of the table; programs take no notice of them before that.
const SWEEP: Duration = Duration::from_mins(1);

/// Looking at the large tables takes at most this part of the time, and so does looking at all else unless it would be seldom.
const WHOLE_SHARE: u32 = 200;

impl Reconciler {
    /// Loads the programs, takes over what an earlier daemon left, and finds out which numbers are in use.
    /// What was changed on the host is noted in the folder `state`, to be changed back by a reset.
    pub fn new(host: HostName, pins: Pins, state: &Path, cluster: &Cluster, told: Told) -> Result<Self> {
        let loaded = Object::embedded().load(&pins).context("load the programs")?;
        let tables = Tables::open(&pins)?;
        let before = tables.read().context("read the tables of an earlier daemon")?;
        let ids = Ids::recover(cluster, &before.peers, &before.policy);
        Ok(Self {
            host,
            // Before others: a program in front of ours that says OK would let packets past it.
            attacher: Attacher::new(pins.clone()).with_order(Order::First),
            flows: Map::open(&pins)?,
            accounts: Accounts::open(&pins)?,
            pins,
            loaded,
            tables,
            devices: Devices::new()?,
            injector: Injector::new()?,
            switches: Switches::open(state),
            uplinks: BTreeSet::new(),
            attached: BTreeMap::new(),
            running: Arc::new(NodePlan { ids, ..NodePlan::default() }),
            is_known: false,
            settled: false,
            everything_at: Instant::now(),
            whole_at: Instant::now(),
            sweep_at: Instant::now() + SWEEP,
            clock_zero: 0,
            status: Status::default(),
            told,
        })
    }

    /// Looks at what may be different, and puts it right. `revision` is the store's for `cluster`. Gives the endpoints that
    /// are to be removed.
    pub async fn pass(&mut self, cluster: &Cluster, revision: u64, cause: Cause) -> Vec<Gone> {
        let began = Instant::now();
        // Until a pass has brought everything about nothing was right before.
        let looks_at_everything = !self.settled || cause == Cause::Doubt;
        let looks_at_devices = looks_at_everything || cause == Cause::Hint;
        let mut pass = Pass { looks_at_devices, looks_at_everything, ..Pass::default() };
        let mut sweeps = false;
        match self.try_pass(cluster, &mut pass).await {
            Ok(changed) => {
                self.status.revision = revision;
                sweeps = changed || Instant::now() >= self.sweep_at;
            }
            Err(error) => pass.fail(&error),
        }
        self.status.endpoints = mem::take(&mut pass.endpoints);
        self.status.refused = self.loaded.refused.iter().map(|refused| refused.program.to_string()).collect();
        self.status.epoch = self.tables.epoch().0;
        self.status.passes += 1;
        self.status.when = Some(SystemTime::now());
        self.status.took = began.elapsed();
        if pass.looks_at_everything {
            self.everything_at = began + (self.status.took * WHOLE_SHARE).min(SELDOM);
        }
        self.told.plans.send_replace(Arc::clone(&self.running));
        self.post(&pass);
        // Whoever waits for the change has it by now, and is told before this thread waits for the kernel.
        tokio::task::yield_now().await;
        match self.tables.finish() {
            Ok(failures) => {
                // What could not be taken away is still there, whatever the plan says.
                self.is_known &= failures.is_empty();
                pass.failures.extend(failures.iter().map(ToString::to_string));
            }
            Err(error) => pass.fail(&error),
        }
        if sweeps {
            let looked = Instant::now();
            self.sweep(&mut pass);
            let failures = self.accounts.close(&self.running.policy);
            pass.failures.extend(failures.iter().map(ToString::to_string));
            self.sweep_at = Instant::now() + SWEEP.max(looked.elapsed() * WHOLE_SHARE);
        }
        if sweeps || pass.failures != self.status.failures {
            self.post(&pass);
        }
        pass.gone
    }

    /// Whether what the kernel tells was not known.
    pub fn is_news(&self, changed: &Changed) -> bool {
        changed.ways || self.devices.are_news(&changed.links, &self.uplinks)
    }

    /// How long the last pass took.
    pub fn took(&self) -> Duration {
        self.status.took
    }

    /// Whether a tick is one to look at everything. What has failed is tried again at each.
    pub fn is_due(&self) -> bool {
        // The tick that is nearest will do.
        let about = Instant::now() + TICK / 2;
        about >= self.everything_at.min(self.sweep_at) || !self.status.failures.is_empty()
    }

    /// Says on the board how far it is.
    fn post(&mut self, pass: &Pass) {
        for failure in &pass.failures {
            if !self.status.failures.contains(failure) {
                tracing::warn!("{failure}");
            }
        }
        self.status.failures.clone_from(&pass.failures);
        self.told.board.post(self.status.clone());
    }

    /// Says whether the tables were changed.
    async fn try_pass(&mut self, cluster: &Cluster, pass: &mut Pass) -> Result<bool> {
        if pass.looks_at_devices {
            self.devices.look().await?;
        }
        let facts = Facts { clock: self.clock(), ..self.devices.facts(cluster, &self.host).await? };
        let mut next = plan(cluster, &self.host, &facts, &self.running);
        self.status.without_room.clear();
        if let Err(too_large) = next.admit(&self.running) {
            let over = too_large.0.iter().map(|size| (size.table, (size.needed - size.max) as u64));
            self.status.without_room = over.collect();
            return Err(too_large).context("the tables stay as they are");
        }
        if self.make_devices(&next, cluster.settings.port, pass).await {
            let facts = Facts { underlay: facts.underlay, clock: facts.clock, ..self.devices.numbers() };
            next = plan(cluster, &self.host, &facts, &self.running);
        }
        // What is gone is cut off before its entries go.
        let removed = self.devices.remove_others(&next.links.veths).await;
        pass.tried(removed);

        let same_policy = Arc::ptr_eq(&next.policy, &self.running.policy);
        let whole_is_due = pass.looks_at_everything && Instant::now() >= self.whole_at;
        let whole = !self.settled || !same_policy || whole_is_due;
        let is_drift = self.settled && next == *self.running;
        // Somebody waits for what has changed; the pass after it, if none else, looks at the rest.
        let concerns_host = !self.settled || is_drift || !has_same_host(&next, &self.running);
        let looked = Instant::now();
        let look = match (whole, is_drift, pass.looks_at_everything) {
            (true, _, _) => Some(Look::All),
            (false, true, true) => Some(Look::SmallFirst),
            (false, true, false) => None,
            (false, false, _) => Some(Look::Small),
        };
        // What was put there is there, until it is looked at again.
        let is_known = mem::take(&mut self.is_known) && !pass.looks_at_everything;
        let applied = match look {
            Some(look) => self.tables.apply(&next, look, is_known.then_some(&self.running))?,
            None => Applied::default(),
        };
        self.is_known = applied.failures.is_empty() && (look.is_some() || is_known);
        if whole {
            self.whole_at = Instant::now() + TICK.max(looked.elapsed() * WHOLE_SHARE).min(Duration::from_mins(10));
        }
        pass.failures.extend(applied.failures.iter().map(ToString::to_string));
        for failure in &applied.failures {
            if let TableError::Full { table, .. } = failure {
                *self.status.without_room.entry(table).or_default() += 1;
            }
        }
        if is_drift {
            for (table, count) in &applied.differences {
                tracing::warn!("put right {count} entries of {table} that somebody changed");
                self.repaired(table, *count);
            }
        }
        self.running = Arc::new(next);
        if applied.failures.is_empty() {
            self.settled = true;
        }

        self.attach(pass, is_drift)?;
        if concerns_host {
            self.open_gateway(pass, is_drift).await;
            self.masquerade(pass, is_drift);
        }
        self.open_veths(pass, is_drift).await;
        Ok(applied.changed)
    }

    /// What time it is.
    fn clock(&mut self) -> Clock {
        let utc = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = Clock::read(self.clock_zero, utc, config::since_boot());
        self.clock_zero = clock.zero;
        clock
    }

    /// Waits until a rule ends. A pass is due then: those whose flows only it allowed are to be told.
    pub async fn next_end(&self) {
        let now = config::since_boot();
        match self.running.policy.next_end(now) {
            Some(end) => tokio::time::sleep(Duration::from_nanos(end - now)).await,
            None => std::future::pending().await,
        }
    }

    /// Makes the devices that are missing, all of them off. Says whether a number may be known now that was not.
    async fn make_devices(&mut self, plan: &NodePlan, port: u16, pass: &mut Pass) -> bool {
        let Links { gateway, veths } = &plan.links;
        let mut made = false;
        if let Some(gateway) = gateway {
            match self.devices.make_gateway(gateway, port).await {
                Ok(new) => {
                    made |= new;
                    if new && self.settled {
                        self.repaired("devices", 1);
                    }
                }
                Err(error) => pass.fail(&error),
            }
        }
        for (name, veth) in veths {
            match self.devices.make_veth(name, veth, pass.looks_at_everything).await {
                Ok(Made::Was) => {}
                Ok(Made::New) => made = true,
                Ok(Made::Again) => {
                    made = true;
                    self.repaired("devices", 1);
                }
                Ok(Made::Gone(why)) => {
                    let (endpoint, netns) = (veth.endpoint.clone(), veth.netns.clone());
                    pass.gone.push(Gone { endpoint, netns, why });
                }
                Err(error) => pass.fail_endpoint(&veth.endpoint, &error),
            }
        }
        made
    }

    /// Attaches what is missing and detaches what should not be there.
    fn attach(&mut self, pass: &mut Pass, is_drift: bool) -> Result<()> {
        let present = self.devices.present();
        let uplinks: BTreeSet<u32> = self.running.peers.values().map(|peer| peer.uplink).collect();
        let mut want: BTreeMap<(String, Place), Program> = BTreeMap::new();
        let uplinks: Vec<&Link> = present.values().filter(|link| uplinks.contains(&link.index)).collect();
        self.uplinks = uplinks.iter().map(|uplink| uplink.name.clone()).collect();
        for uplink in uplinks {
            want.insert((uplink.name.clone(), Place::Ingress), Program::FROM_UNDERLAY);
            if can_be_guarded(uplink) {
                want.insert((uplink.name.clone(), Place::Xdp), Program::GUARD);
            }
        }
        if self.running.links.gateway.is_some() && present.contains_key(link::GATEWAY) {
            want.insert((link::GATEWAY.to_owned(), Place::Egress), Program::FROM_HOST);
            want.insert((link::GATEWAY.to_owned(), Place::Ingress), Program::TO_HOST);
        }
        let mut endpoints = BTreeMap::new();
        for (name, veth) in &self.running.links.veths {
            if present.contains_key(name.as_str()) {
                want.insert((name.to_string(), Place::Ingress), Program::FROM_WORKLOAD);
                endpoints.insert(name.to_string(), veth.endpoint.clone());
            }
        }
        let have = if pass.looks_at_everything { self.attached()? } else { self.attached.clone() };
        let (mut attached, mut put_back) = (BTreeMap::new(), 0);
        for (at, program) in &want {
            let Some(code) = self.loaded.code(*program) else { continue };
            let (interface, place) = at;
            let Some(index) = present.get(interface).map(|link| link.index) else { continue };
            if have.get(at) == Some(&(index, code.id())) {
                attached.insert(at.clone(), (index, code.id()));
                continue;
            }
            match self.attacher.attach(code, interface, *place) {
                Ok(change) => {
                    if change != Change::Kept && is_drift && self.attached.contains_key(at) {
                        tracing::warn!("put {program} back to {interface} at {place}, where somebody took it away");
                        put_back += 1;
                    }
                    attached.insert(at.clone(), (index, code.id()));
                }
                Err(error) => match endpoints.get(interface) {
                    Some(endpoint) => pass.fail_endpoint(endpoint, &error),
                    // Without the guard the program behind it does the same, later.
                    None if *program == Program::GUARD => pass.fail(&error.context("goes on without the guard")),
                    None => pass.fail(&error),
                },
            }
        }
        for (interface, place) in have.keys().filter(|at| !want.contains_key(*at)) {
            pass.tried(self.attacher.detach(interface, *place));
        }
        self.attached = attached;
        if put_back > 0 {
            self.repaired("programs", put_back);
        }
        Ok(())
    }

    /// Our programs as the kernel has them.
    fn attached(&self) -> Result<BTreeMap<(String, Place), Held>> {
        let held = self.attacher.list()?.into_iter();
        Ok(held.map(|held| ((held.interface, held.place), (held.index.unwrap_or(0), held.program.id))).collect())
    }

    /// Switches on the gateway device, which has its programs now, and lets the host forward.
    async fn open_gateway(&mut self, pass: &mut Pass, is_drift: bool) {
        let plan = Arc::clone(&self.running);
        let Some(gateway) = &plan.links.gateway else { return };
        match self.devices.open_gateway(gateway).await {
            Ok(changes) if changes > 0 && is_drift => self.repaired("gateway addresses and routes", changes),
            Ok(_) => {}
            Err(error) => pass.fail(&error),
        }
        let mut switches = vec![sysctl::loosen_source_check(link::GATEWAY), sysctl::forward_ipv4(link::GATEWAY)];
        if gateway.addresses.iter().any(std::net::IpAddr::is_ipv6) {
            switches.push(sysctl::forward_ipv6());
        }
        // What comes back from outside comes in where the host's own way there leads, or by an uplink.
        let mut ways = self.uplinks.clone();
        ways.extend(pass.tried(self.devices.ways_out().await).unwrap_or_default());
        switches.extend(ways.iter().map(|way| sysctl::forward_ipv4(way)));
        let changes = switches.into_iter().filter_map(|changed| pass.tried(self.switches.set(changed))).sum();
        if changes > 0 && is_drift {
            self.repaired("kernel switches", changes);
        }
    }

    /// Switches on the endpoints' links that have their programs now.
    async fn open_veths(&mut self, pass: &mut Pass, is_drift: bool) {
        let plan = Arc::clone(&self.running);
        for (name, veth) in &plan.links.veths {
            if pass.endpoints.contains_key(&veth.endpoint) {
                continue;
            }
            match self.devices.open_veth(name, veth).await {
                Ok(changes) => {
                    if changes > 0 && is_drift {
                        self.repaired("devices", changes);
                    }
                    pass.endpoints.insert(veth.endpoint.clone(), EndpointState::Ready);
                }
                Err(error) => pass.fail_endpoint(&veth.endpoint, &error),
            }
        }
    }

    fn masquerade(&mut self, pass: &mut Pass, is_drift: bool) {
        let prefixes: BTreeSet<_> = self.running.masquerade.iter().filter_map(net).collect();
        let want = Masquerade { prefixes, except: link::GATEWAY.to_owned() };
        if pass.tried(want.ensure()) == Some(true) && is_drift {
            self.repaired("masquerading", 1);
        }
    }

    /// Ends the flows that policy does not allow any more, and forgets those that have been idle for too long.
    fn sweep(&mut self, pass: &mut Pass) {
        let entries = match self.flows.entries() {
            Ok(entries) => entries,
            Err(error) => return pass.failures.push(error.to_string()),
        };
        let (epoch, now) = (self.tables.epoch(), config::now());
        let rules = self.running.policy.at(config::since_boot());
        let before = self.status.revoked;
        for (key, flow) in entries {
            let as_of_now = flows::as_of_now(&self.running.endpoints, &key, flow);
            let frames = match flows::fate(&rules, epoch, &key, &as_of_now, now) {
                Fate::Stays => Vec::from_iter(flows::tell(&key, &flow, &as_of_now)),
                Fate::Expired => {
                    pass.failures.extend(self.flows.delete(&key).err().map(|error| error.to_string()));
                    Vec::new()
                }
                Fate::Revoked { state, frames } => {
                    self.status.revoked += 1;
                    tracing::debug!("end a flow that policy denies now: {}", flows::told(&key));
                    let flow = Flow { state: state as u8, ..flow };
                    pass.failures.extend(self.flows.put(&key, &flow).err().map(|error| error.to_string()));
                    frames
                }
            };
            for Frame { link, bytes } in frames {
                if let Err(error) = self.injector.send(link, &bytes) {
                    tracing::debug!("speak to an end of a flow at link {link}: {error}");
                }
            }
        }
        let ended = self.status.revoked - before;
        if ended > 0 {
            tracing::info!("ended {ended} silent flows that policy denies now");
        }
    }

    /// Takes everything of ours off this host. No pass may follow.
    pub async fn reset(&mut self) -> Cleared {
        reset::reset(&self.pins, &mut self.devices, &mut self.switches).await
    }

    fn repaired(&mut self, what: &'static str, count: usize) {
        *self.status.repaired.entry(what).or_default() += count as u64;
    }
}

/// Whether two plans differ at most in what containers have.
fn has_same_host(one: &NodePlan, other: &NodePlan) -> bool {
    one.config == other.config
        && one.links.gateway == other.links.gateway
        && one.masquerade == other.masquerade
        && one.peers == other.peers
}

/// Whether an XDP program in front of an uplink saves more than it costs. A veth with one makes its other end cut
/// every merged packet (torvalds/linux drivers/net/veth.c, `veth_xdp_set`); devices that are no hardware have no
/// receive path of their own to save. `from_underlay` refuses what the guard would.
fn can_be_guarded(uplink: &Link) -> bool {
    uplink.kind == LinkKind::Device
}

/// What has gone wrong in a pass so far, and what has come of the endpoints.
#[derive(Default)]
struct Pass {
    looks_at_devices: bool,
    looks_at_everything: bool,
    failures: Vec<String>,
    endpoints: BTreeMap<EndpointKey, EndpointState>,
    gone: Vec<Gone>,
}

impl Pass {
    fn fail(&mut self, error: &anyhow::Error) {
        self.failures.push(format!("{error:#}"));
    }

    fn fail_endpoint(&mut self, endpoint: &EndpointKey, error: &anyhow::Error) {
        self.fail(error);
        self.endpoints.insert(endpoint.clone(), EndpointState::Failed(format!("{error:#}")));
    }

    fn tried<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.fail(&error)).ok()
    }
}

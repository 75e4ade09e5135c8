//! Brings this host into accord with what the cluster says: reads what is there, compares it whole with what
//! should be there, applies the difference in order, and says on the board how far it came.
//!
//! The only module that changes the kernel. Events are hints; a tick looks at everything anyway. The order is such
//! that nothing passes which should not: a device is off until its program is there, a program is attached when its
//! tables are filled, and what goes is cut off before its entries are taken away. What fails does not keep the rest
//! from being done, and is tried again in the next pass.

mod delta;
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
use weft_common::table;

use crate::kernel::{
    attach::{Attached, Attacher, Change, Order, Place},
    inject::Injector,
    link::{self, Link, LinkKind},
    load::{Loaded, Object, Program},
    masquerade::Masquerade,
    pins::Pins,
    sysctl,
    tables::{Keyed as _, Map, TableError},
};
use crate::model::{
    cluster::Cluster,
    endpoint::{EndpointKey, Netns},
    name::HostName,
};
use crate::plan::{NodePlan, ids::Ids, links::Links, plan};
use crate::status::{Board, EndpointState, Status};

use devices::{Devices, Made, net};
use flows::Fate;
use reset::Cleared;
use switches::Switches;
use tables::{Look, Tables};

/// Reconciles one host.
pub struct Reconciler {
    host: HostName,
    pins: Pins,
    loaded: Loaded,
    attacher: Attacher,
    tables: Tables,
    flows: Map<table::Flows>,
    devices: Devices,
    injector: Injector,
    switches: Switches,
    /// Names of the interfaces that lead to peers.
    uplinks: BTreeSet<String>,
    /// Where the last pass left a program.
    attached: BTreeSet<(String, Place)>,
    /// The plan of the last pass: what the kernel has, but for drift.
    running: Arc<NodePlan>,
    /// Whether a pass has ended: from then on what differs without a change of plan is drift.
    settled: bool,
    /// When the large tables are compared again.
    whole_at: Instant,
    /// When flows are looked at again, though nothing has changed: for those that have expired.
    sweep_at: Instant,
    status: Status,
    board: Board,
}

/// What a pass tells whoever keeps the cluster's state.
#[derive(Debug, Default)]
pub struct Outcome {
    /// They are to be removed.
    pub gone: Vec<Gone>,
    /// The plan that is in force.
    pub plan: Arc<NodePlan>,
}

/// An endpoint whose namespace is gone.
#[derive(Debug)]
pub struct Gone {
    /// Which endpoint.
    pub endpoint: EndpointKey,
    /// The namespace it was put into. It may have been put into another since.
    pub netns: Netns,
    /// How it shows.
    pub why: String,
}

/// How often the small tables, devices and programs are looked at.
pub const TICK: Duration = Duration::from_secs(5);

/// How often expired flows are taken out of the table; programs take no notice of them before that.
const SWEEP: Duration = Duration::from_mins(1);

/// Looking at the large tables takes at most this part of the time.
const WHOLE_SHARE: u32 = 200;

impl Reconciler {
    /// Loads the programs, takes over what an earlier daemon left, and finds out which numbers are in use.
    /// What was changed on the host is noted in the folder `state`, to be changed back by a reset.
    pub fn new(host: HostName, pins: Pins, state: &Path, cluster: &Cluster, board: Board) -> Result<Self> {
        let loaded = Object::embedded().load(&pins).context("load the programs")?;
        let tables = Tables::open(&pins)?;
        let before = tables.read().context("read the tables of an earlier daemon")?;
        let ids = Ids::recover(cluster, &before.peers, &before.policy);
        Ok(Self {
            host,
            // Before others: a program in front of ours that says OK would let packets past it.
            attacher: Attacher::new(pins.clone()).with_order(Order::First),
            flows: Map::open(&pins)?,
            pins,
            loaded,
            tables,
            devices: Devices::new()?,
            injector: Injector::new()?,
            switches: Switches::open(state),
            uplinks: BTreeSet::new(),
            attached: BTreeSet::new(),
            running: Arc::new(NodePlan { ids, ..NodePlan::default() }),
            settled: false,
            whole_at: Instant::now(),
            sweep_at: Instant::now() + SWEEP,
            status: Status::default(),
            board,
        })
    }

    /// Looks at everything and puts it right. `revision` is the store's for `cluster`.
    pub async fn pass(&mut self, cluster: &Cluster, revision: u64) -> Outcome {
        let began = Instant::now();
        let mut pass = Pass::default();
        let mut outcome = Outcome::default();
        let mut sweeps = false;
        match self.try_pass(cluster, &mut pass, &mut outcome).await {
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
        outcome.plan = Arc::clone(&self.running);
        self.post(&pass);
        // Whoever waits for the change has it by now; its programs decide anew on what is being sent.
        if sweeps {
            let looked = Instant::now();
            self.sweep(&mut pass);
            self.sweep_at = Instant::now() + SWEEP.max(looked.elapsed() * WHOLE_SHARE);
            self.post(&pass);
        }
        outcome
    }

    /// Says on the board how far it is.
    fn post(&mut self, pass: &Pass) {
        for failure in &pass.failures {
            if !self.status.failures.contains(failure) {
                tracing::warn!("{failure}");
            }
        }
        self.status.failures.clone_from(&pass.failures);
        self.board.post(self.status.clone());
    }

    /// Says whether the tables were changed.
    async fn try_pass(&mut self, cluster: &Cluster, pass: &mut Pass, outcome: &mut Outcome) -> Result<bool> {
        let facts = self.devices.facts(cluster, &self.host).await?;
        let mut next = plan(cluster, &self.host, &facts, &self.running);
        self.status.without_room.clear();
        if let Err(too_large) = next.admit(&self.running) {
            let over = too_large.0.iter().map(|size| (size.table, (size.needed - size.max) as u64));
            self.status.without_room = over.collect();
            return Err(too_large).context("the tables stay as they are");
        }
        if self.make_devices(&next, cluster.settings.port, pass, outcome).await {
            let facts = self.devices.facts(cluster, &self.host).await?;
            next = plan(cluster, &self.host, &facts, &self.running);
        }
        // What is gone is cut off before its entries go.
        let removed = self.devices.remove_others(&next.links.veths).await;
        pass.tried(removed);

        let same_policy = Arc::ptr_eq(&next.policy, &self.running.policy);
        let whole = !self.settled || !same_policy || Instant::now() >= self.whole_at;
        let is_drift = self.settled && next == *self.running;
        // Somebody waits for what has changed; the pass after it, if none else, looks at the rest.
        let concerns_host = !self.settled || is_drift || !has_same_host(&next, &self.running);
        let looked = Instant::now();
        let look = match (whole, is_drift) {
            (true, _) => Look::All,
            (false, true) => Look::SmallFirst,
            (false, false) => Look::Small,
        };
        let applied = self.tables.apply(&next, look);
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

        self.attach(pass, is_drift).await?;
        if concerns_host {
            self.open_gateway(pass, is_drift).await;
            self.masquerade(pass, is_drift);
        }
        self.open_veths(pass, is_drift).await;
        Ok(applied.changed)
    }

    /// Makes the devices that are missing, all of them off. Says whether a number may be known now that was not.
    async fn make_devices(&mut self, plan: &NodePlan, port: u16, pass: &mut Pass, outcome: &mut Outcome) -> bool {
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
            match self.devices.make_veth(name, veth).await {
                Ok(Made::Was) => {}
                Ok(Made::New) => made = true,
                Ok(Made::Again) => {
                    made = true;
                    self.repaired("devices", 1);
                }
                Ok(Made::Gone(why)) => {
                    let (endpoint, netns) = (veth.endpoint.clone(), veth.netns.clone());
                    outcome.gone.push(Gone { endpoint, netns, why });
                }
                Err(error) => pass.fail_endpoint(&veth.endpoint, &error),
            }
        }
        made
    }

    /// Attaches what is missing and detaches what should not be there.
    async fn attach(&mut self, pass: &mut Pass, is_drift: bool) -> Result<()> {
        let links = self.devices.list().await?;
        let present: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let uplinks: BTreeSet<u32> = self.running.peers.values().map(|peer| peer.uplink).collect();
        let mut want: BTreeMap<(String, Place), Program> = BTreeMap::new();
        let uplinks: Vec<&Link> = links.iter().filter(|link| uplinks.contains(&link.index)).collect();
        self.uplinks = uplinks.iter().map(|uplink| uplink.name.clone()).collect();
        for uplink in uplinks {
            want.insert((uplink.name.clone(), Place::Ingress), Program::FROM_UNDERLAY);
            if can_be_guarded(uplink) {
                want.insert((uplink.name.clone(), Place::Xdp), Program::GUARD);
            }
        }
        if self.running.links.gateway.is_some() && present.contains(link::GATEWAY) {
            want.insert((link::GATEWAY.to_owned(), Place::Egress), Program::FROM_HOST);
            want.insert((link::GATEWAY.to_owned(), Place::Ingress), Program::TO_HOST);
        }
        let mut endpoints = BTreeMap::new();
        for (name, veth) in &self.running.links.veths {
            if present.contains(name.as_str()) {
                want.insert((name.to_string(), Place::Ingress), Program::FROM_WORKLOAD);
                endpoints.insert(name.to_string(), veth.endpoint.clone());
            }
        }
        let have: BTreeMap<(String, Place), Attached> =
            self.attacher.list()?.into_iter().map(|held| ((held.interface.clone(), held.place), held)).collect();
        let mut attached = BTreeSet::new();
        for (at, program) in &want {
            let Some(code) = self.loaded.code(*program) else { continue };
            let (interface, place) = at;
            if have.get(at).is_some_and(|held| held.index.is_some() && held.program.id == code.id()) {
                attached.insert(at.clone());
                continue;
            }
            match self.attacher.attach(code, interface, *place) {
                Ok(change) => {
                    if change != Change::Kept && is_drift && self.attached.contains(at) {
                        tracing::warn!("put {program} back to {interface} at {place}, where somebody took it away");
                        self.repaired("programs", 1);
                    }
                    attached.insert(at.clone());
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
        Ok(())
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
        let (epoch, now) = (self.tables.epoch(), crate::kernel::config::now());
        for (key, flow) in entries {
            match flows::fate(&*self.running.policy, epoch, &key, &flow, now) {
                Fate::Stays => {}
                Fate::Expired => pass.failures.extend(self.flows.delete(&key).err().map(|error| error.to_string())),
                Fate::Revoked(resets) => {
                    self.status.revoked += 1;
                    for reset in resets {
                        if let Err(error) = self.injector.send(reset.link, &reset.frame) {
                            tracing::debug!("reset a flow at link {}: {error}", reset.link);
                        }
                    }
                    let closing = weft_common::flow::Flow { state: weft_common::flow::State::Closing as u8, ..flow };
                    pass.failures.extend(self.flows.put(&key, &closing).err().map(|error| error.to_string()));
                }
            }
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
    failures: Vec<String>,
    endpoints: BTreeMap<EndpointKey, EndpointState>,
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

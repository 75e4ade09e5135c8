//! The story harness: hosts whose tables say who is who, and the books that are kept of them.
//!
//! Invariant: a story accounts for everything that was counted. [`Lab::assert_only_changed`] compares all counters of
//! all hosts with those at its last call, and a lab that is dropped with an open account panics.

pub(crate) mod cast;
pub(crate) mod event;
pub(crate) mod machine;
pub(crate) mod ran;
mod rig;
pub(crate) mod rules;
pub(crate) mod state;

use aya::maps::{MapError, PerCpuValues};
use cast::{APPS, At, MEMBERS, Member, Net, address, octet};
use event::Event;
use machine::{Context, Machine, Program, Run, Tables};
use ran::{Action, Ran};
use rig::{Rig, Space};
use rules::{Compiled, Rules};
use state::{Changes, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;
use std::time::Duration;
use weft_common::addr::{Ip, Mac};
use weft_common::flow::Flow;
use weft_common::group::{self, MemberKey};
use weft_common::id::{AppId, Epoch, Identity, PeerId, RoleId};
use weft_common::route::{Endpoint, Hop, Route};
use weft_common::table::{Account, Config, Counts};
use weft_common::tunnel::{PORT, Peer};
use weft_common::verdict::DropReason;
use weft_tests::frame::Frame;
use weft_tests::underlay::Family;
use weft_tests::wait::some_within;
use weft_tests::wire::Capture;

/// Two hosts with programs, and a third one that only the tables know.
pub(crate) struct Lab {
    /// There until the lab is dropped.
    rig: Option<Rig>,
    rules: Rules,
    epoch: Epoch,
    outer: Family,
    /// What the story has accounted for.
    accounted: [State; 2],
}

const SOON: Duration = Duration::from_secs(5);

/// Largest packet on the underlay.
pub(crate) const UNDERLAY_MTU: u32 = 1500;

impl Lab {
    /// Under the defaults: inside an app everything, between apps nothing.
    pub(crate) fn two_hosts() -> Self {
        Self::with_rules(&[])
    }

    /// Under rules as `allow shop/web -> blog/db tcp/5432`, `shadow deny shop -> blog` and defaults as
    /// `shop: from-host closed`.
    #[track_caller]
    pub(crate) fn with_rules(lines: &[&str]) -> Self {
        let mut lab = Self::empty();
        lab.place();
        lab.enforce(lines);
        lab
    }

    /// With nothing in the tables: as programs are before the daemon has written anything.
    pub(crate) fn empty() -> Self {
        let rig = Rig::take();
        let accounted = rig.machines.each_ref().map(Machine::state);
        Self { rig: Some(rig), rules: Rules::default(), epoch: Epoch(0), outer: Family::V4, accounted }
    }

    /// Begins anew: no flows, and the underlay of this family.
    pub(crate) fn over(&mut self, net: Net) {
        self.assert_only_changed(&[]);
        self.outer = net.outer;
        self.write_peers();
        self.forget();
        self.accounted = self.states();
    }

    /// Forgets what programs remember of packets.
    pub(crate) fn forget(&mut self) {
        self.machines().iter_mut().for_each(Machine::forget);
    }

    /// Puts these rules in force, in place of all others, at the next epoch.
    #[track_caller]
    pub(crate) fn enforce(&mut self, lines: &[&str]) {
        self.rules = Rules::new(lines);
        self.bump();
    }

    /// As [`Lab::enforce`] on one host only: the others have not heard of it.
    #[track_caller]
    pub(crate) fn enforce_on(&mut self, at: At, lines: &[&str]) {
        let compiled = Rules::new(lines).compile(self.epoch.next());
        self.enforce_compiled(at, &compiled, self.epoch.next());
    }

    /// The next epoch, with the same rules: as when only placement changes.
    pub(crate) fn bump(&mut self) {
        self.epoch = self.epoch.next();
        let compiled = self.rules.compile(self.epoch);
        [At::A, At::B].into_iter().for_each(|at| self.enforce_compiled(at, &compiled, self.epoch));
    }

    /// The end of the rules that end. No table changes by it: the time at which they do is put into the past.
    pub(crate) fn end_comes(&mut self) {
        self.machines().iter_mut().for_each(Machine::end_comes);
    }

    /// The epoch in force.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The number of a device: `a-uplink`, `a-gateway`, `a-web`.
    #[track_caller]
    pub(crate) fn link(&self, at: At, name: &str) -> u32 {
        self.rig().space.link(at, name)
    }

    /// Sees what is sent out of a device, or handed to the stack from it, while a program runs.
    #[track_caller]
    pub(crate) fn watch(&self, at: At, name: &str) -> Capture {
        let name = format!("{}-{name}", at.name());
        self.rig().space.run(|| Capture::here(&name))
    }

    pub(crate) fn tables(&mut self, at: At) -> &mut Tables {
        self.machine(at).0.tables()
    }

    /// A host and where it runs.
    pub(crate) fn machine(&mut self, at: At) -> (&mut Machine, &Space) {
        let Rig { machines, space } = self.rig.as_mut().expect("the lab lives");
        let [a, b] = machines;
        match at {
            At::A => (a, space),
            At::B => (b, space),
            At::C => panic!("host c runs no programs"),
        }
    }

    fn rig(&self) -> &Rig {
        self.rig.as_ref().expect("the lab lives")
    }

    fn machines(&mut self) -> &mut [Machine; 2] {
        &mut self.rig.as_mut().expect("the lab lives").machines
    }

    /// A container sends.
    #[track_caller]
    pub(crate) fn sends(&mut self, member: Member, frame: &Frame) -> Ran {
        self.sends_merged(member, frame, 0)
    }

    /// A container sends what is to be cut into segments of this size.
    #[track_caller]
    pub(crate) fn sends_merged(&mut self, member: Member, frame: &Frame, segment: u32) -> Ran {
        let link = self.link(member.at, member.name);
        self.run(member.at, Program::FromWorkload, Context { link, segment, ..Context::default() }, frame)
    }

    /// A container sends the same again and again, faster than anybody looks at it.
    pub(crate) fn floods(&mut self, member: Member, frame: &Frame, times: usize) {
        self.floods_each(member, std::iter::repeat_n(frame, times));
    }

    /// A container sends these, faster than anybody looks at them.
    pub(crate) fn floods_each<'a>(&mut self, member: Member, frames: impl IntoIterator<Item = &'a Frame>) {
        let link = self.link(member.at, member.name);
        let (machine, space) = self.machine(member.at);
        let (code, _) = machine.program(Program::FromWorkload);
        space.run(|| {
            for frame in frames {
                let ran = code.run(Context { link, ..Context::default() }, frame.bytes());
                ran.unwrap_or_else(|error| panic!("run with {frame:?}: {error}"));
            }
        });
    }

    /// What the programs of a host have told since the last time.
    pub(crate) fn told(&mut self, at: At) -> Vec<Event> {
        self.machine(at).0.events()
    }

    /// How many events of a bucket a host has not told since the last that it did.
    pub(crate) fn untold(&mut self, at: At, bucket: u32) -> u64 {
        self.machine(at).0.untold(bucket)
    }

    /// How often a host has dropped for this reason.
    pub(crate) fn drops(&self, at: At, reason: DropReason) -> u64 {
        self.states()[at as usize].drops[reason as usize]
    }

    /// A frame comes in on the uplink.
    #[track_caller]
    pub(crate) fn receives(&mut self, at: At, frame: &Frame) -> Ran {
        let link = self.link(at, "uplink");
        self.run(at, Program::FromUnderlay, Context { link, arrived_on: link, segment: 0 }, frame)
    }

    /// The host's own stack sends to the apps.
    #[track_caller]
    pub(crate) fn host_sends(&mut self, at: At, frame: &Frame) -> Ran {
        self.host_routes(at, 0, frame)
    }

    /// The host's stack routes what came in on an interface to the apps.
    #[track_caller]
    pub(crate) fn host_routes(&mut self, at: At, arrived_on: u32, frame: &Frame) -> Ran {
        let link = self.link(at, "gateway");
        self.run(at, Program::FromHost, Context { link, arrived_on, segment: 0 }, frame)
    }

    /// Runs a program.
    #[track_caller]
    pub(crate) fn run(&mut self, at: At, program: Program, context: Context, frame: &Frame) -> Ran {
        let outer = self.outer;
        let (machine, space) = self.machine(at);
        let Run { code, output, events, before, after } = machine.run(program, |code| {
            let ran = space.run(|| code.run(context, frame.bytes()));
            ran.unwrap_or_else(|error| panic!("run {} with {frame:?}: {error}", program.name()))
        });
        let action = Action::of(program, code);
        let (input, output) = (frame.clone(), Frame::from_bytes(output));
        let ran = Ran { at, program, context, action, input, output, events, before, after, outer };
        ran.check();
        ran
    }

    /// A packet from one endpoint to another, all the way: what the receiver's container gets.
    #[track_caller]
    pub(crate) fn delivers(&mut self, [from, to]: [Member; 2], frame: &Frame) -> Frame {
        let link = self.link(to.at, to.name);
        let ran = self.sends(from, frame);
        if from.at == to.at {
            return ran.enters(to, link);
        }
        let wire = ran.leaves_for(to.at);
        self.receives(to.at, &wire).enters(to, link)
    }

    /// Panics unless these counters of all hosts have changed by so much since the last call, and no others:
    /// `a.flows +1`.
    #[track_caller]
    pub(crate) fn assert_only_changed(&mut self, expect: &[&str]) {
        let expect: Changes = expect
            .iter()
            .map(|line| {
                let (name, by) = line.split_once(' ').unwrap_or_else(|| panic!("not a change: {line}"));
                (name.into(), by.parse().unwrap_or_else(|error| panic!("{line}: {error}")))
            })
            .collect();
        let now = self.states();
        let found = self.changes(&now);
        let told: Vec<_> = found.iter().map(|(name, by)| format!("{name} {by:+}")).collect();
        assert_eq!(found, expect, "changed: {told:?}\nhost a:\n{}host b:\n{}", now[0], now[1]);
        self.accounted = now;
    }

    /// Closes the books without looking: for steps that are another story's.
    pub(crate) fn settle(&mut self) {
        self.accounted = self.states();
    }

    fn changes(&self, now: &[State; 2]) -> Changes {
        let both = now.iter().zip(&self.accounted).zip(At::ALL);
        both.flat_map(|((now, before), at)| now.since(before, at.name())).collect()
    }

    fn states(&self) -> [State; 2] {
        self.rig().machines.each_ref().map(Machine::state)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !thread::panicking() {
            let changes = self.changes(&self.states());
            assert!(changes.is_empty(), "the story does not account for {changes:?}");
            self.rig.take().into_iter().for_each(Rig::give_back);
        }
    }
}

/// Tables.
impl Lab {
    /// Everybody where [`cast`] says.
    fn place(&mut self) {
        for at in [At::A, At::B] {
            for (key, route) in self.routes(at) {
                self.tables(at).route(key, route);
            }
            for member in MEMBERS.iter().filter(|member| member.at == at) {
                self.write_endpoint(*member, &Family::BOTH);
            }
            self.write_members(at);
            let peers: Vec<_> = At::ALL.into_iter().filter(|peer| *peer != at).collect();
            let addresses = &mut self.tables(at).peer_addresses;
            for (peer, family) in peers.into_iter().flat_map(|peer| Family::BOTH.map(|family| (peer, family))) {
                let addr = Ip::from(peer.station(family).ip);
                addresses.insert(addr, PeerId(peer.number().into()), 0).expect("write a peer's address");
            }
        }
        self.write_peers();
    }

    fn routes(&self, at: At) -> Vec<((u32, Ip), Route)> {
        let hop_to = |to: At| if to == at { Hop::NOWHERE } else { Hop::peer(PeerId(to.number().into())) };
        let mut routes = Vec::new();
        for (app, family) in APPS.into_iter().flat_map(|app| Family::BOTH.map(|family| (app, family))) {
            let unknown = Identity::new(app, RoleId::UNKNOWN);
            routes
                .push((prefix(app, None, family), Route { hop: Hop::NOWHERE, identity: unknown, ..Route::default() }));
            for to in At::ALL {
                let block = Route { hop: hop_to(to), identity: unknown, ..Route::default() };
                routes.push((prefix(app, Some(to), family), block));
                let hop = if to == at { Hop::HOST } else { hop_to(to) };
                let gateway = Route { hop, identity: Identity::HOST, mac: Mac::GATEWAY, reserved: 0 };
                routes.push(((128, to.gateway(app, family).ip.into()), gateway));
            }
        }
        for (member, family) in MEMBERS.iter().flat_map(|member| Family::BOTH.map(|family| (member, family))) {
            let hop = if member.at == at { Hop::local(self.link(at, member.name)) } else { hop_to(member.at) };
            let route = Route { hop, identity: member.identity(), mac: Mac::new(member.mac()), reserved: 0 };
            routes.push(((128, member.ip(family).into()), route));
        }
        routes
    }

    /// Makes an endpoint with addresses of these families.
    pub(crate) fn write_endpoint(&mut self, member: Member, families: &[Family]) {
        let link = self.link(member.at, member.name);
        let addr = |family| if families.contains(&family) { Ip::from(member.ip(family)) } else { Ip::NONE };
        let endpoint = Endpoint {
            v4: addr(Family::V4),
            v6: addr(Family::V6),
            identity: member.identity(),
            mac: Mac::new(member.mac()),
            reserved: 0,
        };
        self.tables(member.at).endpoints.insert(link, endpoint, 0).expect("write an endpoint");
    }

    /// Host `at` knows of an endpoint elsewhere where it is and which app it is of, and its role by its packets alone.
    pub(crate) fn forget_role(&mut self, at: At, member: Member, family: Family) {
        let hop = Hop::peer(PeerId(member.at.number().into()));
        let route = Route { hop, identity: Identity::new(member.app, RoleId::UNKNOWN), ..Route::default() };
        self.tables(at).route((128, member.ip(family).into()), route);
    }

    /// Who gets copies: the app's endpoints here, and the hosts that have some.
    fn write_members(&mut self, at: At) {
        for app in APPS {
            let own = MEMBERS.iter().filter(|member| member.app == app);
            let (here, there): (Vec<_>, Vec<_>) = own.partition(|member| member.at == at);
            let here = here.iter().map(|member: &&Member| (Hop::local(self.link(at, member.name)), member.identity()));
            let hosts: BTreeSet<_> = there.iter().map(|member| member.at).collect();
            let unknown = Identity::new(app, RoleId::UNKNOWN);
            let there = hosts.into_iter().map(|peer| (Hop::peer(PeerId(peer.number().into())), unknown));
            let all: Vec<_> = here.chain(there).map(|(hop, identity)| group::Member { hop, identity }).collect();
            let table = &mut self.tables(at).members;
            for (index, member) in (0..).zip(all) {
                table.insert(MemberKey { app, index }, member, 0).expect("write a member");
            }
        }
    }

    fn write_peers(&mut self) {
        for (at, peer) in [At::A, At::B].into_iter().flat_map(|at| At::ALL.map(|peer| (at, peer))) {
            if at != peer {
                self.write_peer(at, peer, |_| {});
            }
        }
    }

    /// How `at` reaches `peer`, with a change.
    pub(crate) fn write_peer(&mut self, at: At, peer: At, change: impl FnOnce(&mut Peer)) {
        let [local, addr] = [at, peer].map(|at| Ip::from(at.station(self.outer).ip));
        let uplink = self.link(at, "uplink");
        let mut record = Peer { addr, local, next_hop: addr, uplink, path_mtu: UNDERLAY_MTU, flags: 0, reserved: 0 };
        change(&mut record);
        self.tables(at).peers.set(peer.number().into(), record, 0).expect("write a peer");
    }

    fn enforce_compiled(&mut self, at: At, compiled: &Compiled, epoch: Epoch) {
        self.machine(at).0.enforce(compiled);
        let config = Config { epoch, gateway: self.link(at, "gateway"), port: PORT.into(), shadow: compiled.shadow };
        self.tables(at).config.set(0, config, 0).expect("write the configuration");
    }
}

/// Accounts.
impl Lab {
    /// What a host has counted under an account.
    pub(crate) fn account(&self, at: At, account: Account) -> Counts {
        self.states()[at as usize].traffic.get(&account).copied().unwrap_or_default()
    }

    /// What a host has counted of rules that are tried, by their numbers.
    pub(crate) fn tried(&self, at: At) -> BTreeMap<u32, Counts> {
        let mut sums = BTreeMap::<_, Counts>::new();
        for (account, counts) in self.states()[at as usize].traffic.iter().filter(|(account, _)| account.shadow != 0) {
            sums.entry(account.shadow).or_default().add(*counts);
        }
        sums
    }

    /// How many accounts a host has.
    pub(crate) fn accounts(&self, at: At) -> usize {
        self.states()[at as usize].traffic.len()
    }

    /// Opens accounts in which nothing was counted.
    pub(crate) fn open_accounts(&mut self, at: At, accounts: impl IntoIterator<Item = Account>) {
        let table = &mut self.tables(at).traffic;
        let cpus = aya::util::nr_cpus().expect("count the CPUs");
        for account in accounts {
            // The kernel makes elements ahead, behind our back: for a moment there may be none.
            let opened = some_within(SOON, || {
                let nothing = PerCpuValues::try_from(vec![Counts::default(); cpus]).expect("a value per CPU");
                match table.insert(account, nothing, 0) {
                    Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOMEM) => None,
                    done => Some(done),
                }
            });
            opened.expect("the kernel has no memory").expect("open an account");
        }
    }

    /// Takes an account away.
    pub(crate) fn close_account(&mut self, at: At, account: Account) {
        self.tables(at).traffic.remove(&account).expect("close an account");
    }
}

/// Flows.
impl Lab {
    /// All flows of a host, in the order of their keys.
    pub(crate) fn flows(&self, at: At) -> Vec<Flow> {
        self.states()[at as usize].flows.values().copied().collect()
    }

    /// Changes the only flow of a host.
    #[track_caller]
    pub(crate) fn change_flow(&mut self, at: At, change: impl FnOnce(&mut Flow)) {
        let mut flows = self.states()[at as usize].flows.clone();
        let (key, mut flow) = flows.pop_first().expect("a flow");
        assert!(flows.is_empty(), "more than one flow on host {}", at.name());
        change(&mut flow);
        self.tables(at).flows.insert(key, flow, 0).expect("write a flow");
    }

    /// Makes all datagrams of a host older by so many nanoseconds.
    pub(crate) fn age_datagrams(&mut self, at: At, by: u64) {
        let table = &mut self.tables(at).datagrams;
        let all: Vec<_> = table.iter().collect::<Result<_, _>>().expect("read the datagrams");
        for (key, mut datagram) in all {
            // Wraps on a machine that was started since.
            datagram.seen = datagram.seen.wrapping_sub(by);
            table.insert(key, datagram, 0).expect("write a datagram");
        }
    }
}

/// An app's prefix, or its block of a host.
fn prefix(app: AppId, at: Option<At>, family: Family) -> (u32, Ip) {
    let len = match (family, at) {
        (Family::V4, None) => 96 + 16,
        (Family::V4, Some(_)) => 96 + 24,
        (Family::V6, None) => 32,
        (Family::V6, Some(_)) => 48,
    };
    let mut ip = address(app, at.unwrap_or(At::A), 0, family);
    if at.is_none() {
        ip = match ip {
            IpAddr::V4(_) => [10, octet(app), 0, 0].into(),
            IpAddr::V6(_) => [0xfd00, octet(app).into(), 0, 0, 0, 0, 0, 0].into(),
        };
    }
    (len, ip.into())
}

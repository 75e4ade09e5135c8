//! Other people's policies in the loaded programs: every case, as frames inside one host and between two.

use std::collections::BTreeMap;

use weft_common::{
    addr::{Ip, Mac},
    header::protocol as number,
    id::{Epoch, Identity, PeerId, RoleId},
    route::{Endpoint, Hop, Route},
};
use weft_tests::frame::{Frame, Station, icmp::echo_request, protocol, tcp, udp};

use super::cases::{cells, each_step};
use crate::prog::lab::{
    Lab,
    cast::At,
    machine::{Context, Program, Tables},
    ran::Action,
    rules::Compiled,
};

/// Names the half of the tables that plans are made for.
const EPOCH: Epoch = Epoch(2);

/// So many cells of a step are asked at least, or all of them: of each step others. All of all would take a minute.
const SAMPLE: usize = 60;

/// Where the pods are.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Inside,
    Between,
}

/// A pod as its host has it.
struct Party {
    station: Station,
    identity: Identity,
}

impl Party {
    fn addr(&self) -> Ip {
        self.station.ip.into()
    }

    fn mac(&self) -> Mac {
        Mac::new(self.station.mac)
    }

    fn endpoint(&self) -> Endpoint {
        let (addr, identity, mac) = (self.addr(), self.identity, self.mac());
        let [v4, v6] = if self.station.ip.is_ipv4() { [addr, Ip::NONE] } else { [Ip::NONE, addr] };
        Endpoint { v4, v6, identity, mac, reserved: 0 }
    }

    /// Puts it on the map of the host that has it.
    fn is_here(&self, tables: &mut Tables, link: u32) {
        let route = Route { hop: Hop::local(link), identity: self.identity, mac: self.mac(), reserved: 0 };
        tables.route((128, self.addr()), route);
    }

    /// Puts it on the map of a host that knows its app only: of a sender the tunnel tells the role.
    fn is_there(&self, tables: &mut Tables, peer: At) {
        let identity = Identity::new(self.identity.app, RoleId::UNKNOWN);
        let hop = Hop::peer(PeerId(peer.number().into()));
        tables.route((128, self.addr()), Route { hop, identity, mac: self.mac(), reserved: 0 });
    }
}

/// The first packet of a connection.
pub(crate) fn frame([from, to]: [Station; 2], transport: u8, [src_port, dst_port]: [u16; 2]) -> Frame {
    match transport {
        number::TCP => tcp(from, to).ports(src_port, dst_port).syn(),
        number::UDP => udp(from, to).ports(src_port, dst_port).frame(),
        number::SCTP => {
            let head = [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &[0; 8]].concat();
            protocol(from, to, transport).payload(&head).frame()
        }
        number::ICMP | number::ICMPV6 => echo_request(from, to, [src_port, 1]).frame(),
        other => protocol(from, to, other).payload(&[0; 8]).frame(),
    }
}

/// Runs a program with a frame. What goes on, or nothing if policy dropped it; a drop of another kind panics.
fn run(lab: &mut Lab, at: At, program: Program, device: &str, frame: &[u8]) -> Option<Vec<u8>> {
    let link = lab.link(at, device);
    let (machine, space) = lab.machine(at);
    let (code, tables) = machine.program(program);
    let drops = || tables.policy_drops().values().sum::<u64>();
    let before = drops();
    let (code, output) = space.run(|| code.run(Context { link, ..Context::default() }, frame)).unwrap();
    match (Action::of(program, code), drops() - before) {
        (Action::Redirect, 0) => Some(output),
        (Action::Drop, 1) => None,
        other => panic!("{} on host {}: {other:?} for {:?}", program.name(), at.name(), Frame::from_bytes(frame)),
    }
}

/// Asks every case. Whoever sends is [`At::A`]'s one endpoint for as long as it does.
fn ask(way: Way) {
    let mut lab = Lab::two_hosts();
    let [web, cache, db] = [(At::A, "web"), (At::A, "cache"), (At::B, "db")].map(|(at, name)| lab.link(at, name));
    let mut asked = BTreeMap::<_, u64>::new();
    // Of each step another, so no packet belongs to a flow of the steps before.
    let mut ports = 20_000..;
    each_step(|name, state, step| {
        let (plan, identities) = state.world.plan();
        let src_port = ports.next().unwrap();
        for at in [At::A, At::B] {
            lab.tables(at).clear_policy();
            lab.tables(at).write_epoch(EPOCH, 0);
            lab.machine(at).0.enforce(&Compiled::from(&*plan.policy));
        }
        let party = |((pod, identity), at)| {
            (pod, Party { station: Station::new([2, 0, 0, 0, 1, at], state.addr_of(pod)), identity })
        };
        let parties: BTreeMap<_, _> = identities.into_iter().zip(0..).map(party).collect();
        for party in parties.values() {
            match way {
                Way::Inside => party.is_here(lab.tables(At::A), cache),
                Way::Between => party.is_there(lab.tables(At::A), At::B),
            }
            party.is_here(lab.tables(At::B), db);
        }
        let all = cells(step);
        let every = (all.len() / SAMPLE).max(1);
        let mut cells: Vec<_> = all.into_iter().skip(usize::from(src_port) % every).step_by(every).collect();
        cells.sort_by_key(|cell| cell.from);
        for cells in cells.chunk_by(|a, b| a.from == b.from) {
            let sender = &parties[cells[0].from];
            lab.tables(At::A).endpoints.insert(web, sender.endpoint(), 0).unwrap();
            sender.is_there(lab.tables(At::B), At::A);
            for cell in cells {
                let receiver = &parties[cell.to];
                let frame = frame([sender.station, receiver.station], cell.protocol, [src_port, cell.port]);
                let mut out = run(&mut lab, At::A, Program::FromWorkload, "web", frame.bytes());
                if way == Way::Between {
                    out = out.and_then(|wire| run(&mut lab, At::B, Program::FromUnderlay, "uplink", &wire));
                }
                let got = out.map(|out| Frame::from_bytes(out).decode().dst_mac);
                assert_eq!(got, cell.allowed.then_some(receiver.station.mac), "{name}: {cell:?}");
                *asked.entry(cell.allowed).or_default() += 1;
            }
            sender.is_here(lab.tables(At::B), db);
        }
    });
    lab.settle();
    assert!(asked.len() == 2 && asked.values().all(|count| *count > 4_000), "{asked:?}");
}

#[test]
fn the_program_does_inside_a_host_what_every_case_from_outside_says() {
    ask(Way::Inside);
}

#[test]
fn the_programs_do_between_two_hosts_what_every_case_from_outside_says() {
    ask(Way::Between);
}

//! What a test run can not show, on devices: the kernel keeps a VLAN tag beside the frame, and a tunnel's key too.

use super::lab::cast::{At, DB, SHOP, WEB};
use super::lab::machine::{Machine, Program};
use std::time::Duration;
use weft::kernel::attach::tcx_is_available;
use weft_common::addr::{Ip, Mac};
use weft_common::id::Epoch;
use weft_common::route::Endpoint;
use weft_common::table::Config;
use weft_common::verdict::DropReason;
use weft_tests::frame::tunnel::Vxlan;
use weft_tests::frame::udp;
use weft_tests::netns::Netns;
use weft_tests::underlay::{Family, Offloads, UPLINK, Underlay};
use weft_tests::wait::eventually;
use weft_tests::wire::Injector;

const SOON: Duration = Duration::from_secs(5);

fn drops(machine: &Machine, reason: DropReason) -> u64 {
    machine.state().drops[reason as usize]
}

fn number(namespace: &Netns, device: &str) -> u32 {
    let line = namespace.ip(&format!("-o link show {device}"));
    line.split(':').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn configure(machine: &mut Machine) {
    let config = Config { epoch: Epoch(1), gateway: 0, port: 6784, shadow: 0 };
    machine.tables().config.set(0, config, 0).expect("write the configuration");
}

#[test]
fn a_tag_that_the_kernel_has_taken_off_is_still_seen() {
    let (host, container) = (Netns::new("host"), Netns::new("container"));
    host.ip(&format!("link add veth type veth peer name eth0 netns {}", container.name()));
    [(&host, "veth"), (&container, "eth0")]
        .iter()
        .for_each(|(at, device)| drop(at.ip(&format!("link set {device} up"))));
    let mut machine = Machine::new();
    let endpoint = Endpoint {
        v4: Ip::from(WEB.ip(Family::V4)),
        v6: Ip::NONE,
        identity: WEB.identity(),
        mac: Mac::new(WEB.mac()),
        reserved: 0,
    };
    machine.tables().endpoints.insert(number(&host, "veth"), endpoint, 0).expect("write the endpoint");
    host.run(|| machine.attach(Program::FromWorkload, "veth"));
    let injector = Injector::on(&container, "eth0");
    let frame = udp(WEB.station(Family::V4), DB.station(Family::V4)).frame();
    injector.send(frame.vlan(5));
    eventually(SOON, || drops(&machine, DropReason::UnknownStation) == 1);
    injector.send(frame.vlan(0));
    eventually(SOON, || drops(&machine, DropReason::UnknownStation) == 2);
    // Without a tag it is judged by what it is: nobody has written rules here.
    assert_eq!(drops(&machine, DropReason::PolicyAbsent), 0);
    injector.send(&frame);
    eventually(SOON, || drops(&machine, DropReason::PolicyAbsent) == 1);
}

#[test]
fn a_tagged_tunnel_packet_is_of_another_interface() {
    let underlay = Underlay::bridged(2);
    underlay.set_offloads(Offloads::Off);
    let host = underlay.host(1);
    let mut machine = Machine::new();
    configure(&mut machine);
    host.run(|| machine.attach(Program::FromUnderlay, UPLINK));
    let injector = Injector::on(underlay.host(0), UPLINK);
    for (count, family) in (1..).zip(Family::BOTH) {
        let [from, to] = [0, 1].map(|host| underlay.station(host, family));
        let inner = udp(WEB.station(Family::V4), DB.station(Family::V4)).frame();
        let wire = Vxlan::new(from, to, SHOP.0).group(1).wrap(&inner);
        // In this order they come in: when the last one was counted, the first was not.
        injector.send(wire.vlan(7));
        injector.send(&wire);
        eventually(SOON, || drops(&machine, DropReason::UnknownPeer) == count);
    }
    let all: u64 = machine.state().drops.iter().sum();
    assert_eq!(all, 2);
}

#[test]
fn what_is_not_ours_is_left_to_the_programs_behind() {
    let underlay = Underlay::bridged(2);
    // Every frame counts here, also what kernels tell of their groups by themselves, up to a second late.
    for host in underlay.hosts() {
        host.set_sysctl("ipv6/conf/all/disable_ipv6", "1");
    }
    let host = underlay.host(1);
    let mut ours = Machine::new();
    configure(&mut ours);
    // As somebody else's it knows nobody, and drops what it sees.
    let mut others = Machine::new();
    host.run(|| {
        // Of filters without a priority the last one comes first, of links the first.
        if !tcx_is_available() {
            others.attach(Program::FromWorkload, UPLINK);
        }
        ours.attach(Program::FromUnderlay, UPLINK);
        if tcx_is_available() {
            others.attach(Program::FromWorkload, UPLINK);
        }
    });
    let [from, to] = [0, 1].map(|host| underlay.station(host, Family::V4));
    let inner = udp(WEB.station(Family::V4), DB.station(Family::V4)).frame();
    let injector = Injector::on(underlay.host(0), UPLINK);
    injector.send(Vxlan::new(from, to, SHOP.0).group(1).wrap(&inner));
    eventually(SOON, || drops(&ours, DropReason::UnknownPeer) == 1);
    assert_eq!(drops(&others, DropReason::UnknownInterface), 0);
    injector.send(udp(from, to).frame());
    eventually(SOON, || drops(&others, DropReason::UnknownInterface) == 1);
}

#[test]
fn what_the_tunnels_socket_takes_elsewhere_is_refused_at_the_gateway() {
    let underlay = Underlay::bridged(2);
    let host = underlay.host(1);
    host.ip("link add weft0 type vxlan external dstport 6784 gbp");
    host.ip("link set weft0 up");
    let mut machine = Machine::new();
    host.run(|| machine.attach(Program::ToHost, "weft0"));
    let injector = Injector::on(underlay.host(0), UPLINK);
    let mut count = 0;
    for family in Family::BOTH {
        let [from, to] = [0, 1].map(|host| underlay.station(host, family));
        // As from a peer, to the host's own gateway: no program stands at this uplink.
        let gateway = At::B.gateway(SHOP, Family::V4);
        let inner = udp(WEB.station(Family::V4), gateway).ports(1, 53).frame();
        let wire = Vxlan::new(from, to, SHOP.0).group(1).wrap(&inner);
        // Whole, and in pieces that the kernel puts together.
        for frames in [vec![wire.clone()], wire.fragments(32)] {
            frames.iter().for_each(|frame| injector.send(frame));
            count += 1;
            eventually(SOON, || drops(&machine, DropReason::TunnelOffUplink) == count);
        }
    }
}

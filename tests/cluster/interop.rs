//! A host that runs no weft takes part with a VXLAN device of its kernel: it is in the cluster's file like any other.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use weft_tests::command::exec;
use weft_tests::frame::{BROADCAST, Station, neighbour, raw};
use weft_tests::netns::Netns;
use weft_tests::traffic::{
    Outcome,
    ping::{Ping, ping},
    tcp::{TcpEcho, tcp_connect, tcp_echo},
    udp::{UdpEcho, udp_echo},
};
use weft_tests::underlay::{Family, Offloads, UPLINK, set_offloads};
use weft_tests::wait::eventually;
use weft_tests::wire::{Capture, Injector};

use super::{Cluster, Container, SILENCE, SOON, app_number};

/// The third host, which is no host of ours, and its address in shop.
struct Foreign {
    netns: Netns,
    v4: IpAddr,
    v6: IpAddr,
}

const DEVICE: &str = "vx0";

impl Foreign {
    /// As docs/encapsulation.md says.
    fn join(cluster: &Cluster, family: Family) -> Self {
        let netns = cluster.underlay.host(2).clone();
        let vni = app_number(cluster, "shop");
        let local = cluster.underlay.ip(2, family);
        let checksums = if family == Family::V6 { "udp6zerocsumrx" } else { "" };
        netns.ip_batch(&format!(
            "link add {DEVICE} address 02:00:77:65:66:74 type vxlan id {vni} dev {UPLINK} local {local} dstport 6784 gbp {checksums}\n\
             addr add 10.1.3.2/16 dev {DEVICE}\naddr add fd00:1:3::2/32 dev {DEVICE} nodad\nlink set {DEVICE} up\n"
        ));
        for host in 0..2 {
            let to = cluster.underlay.ip(host, family).to_string();
            let entry = ["fdb", "append", "00:00:00:00:00:00", "dev", DEVICE, "dst", &to];
            exec(netns.command("bridge").args(entry));
        }
        let (v4, v6) = (Ipv4Addr::new(10, 1, 3, 2), Ipv6Addr::new(0xfd00, 1, 3, 0, 0, 0, 0, 2));
        Self { netns, v4: v4.into(), v6: v6.into() }
    }

    fn both(&self) -> [IpAddr; 2] {
        [self.v4, self.v6]
    }

    /// What it sends from here on is of the endpoint's role with this number.
    fn speak_as(&self, role: u64) {
        self.netns.nft(&format!(
            "table inet role {{\n}}\ndelete table inet role\ntable inet role {{\nchain out {{\n\
             type filter hook output priority 0\nmeta mark set {role}\n}}\n}}\n"
        ));
    }
}

fn role_number(cluster: &Cluster, role: &str) -> u64 {
    let apps = cluster.weft(0, &["app", "ls"]);
    let app = apps["apps"].as_array().unwrap().iter().find(|app| app["name"] == "shop").unwrap();
    let role = app["roles"].as_array().unwrap().iter().find(|known| known["name"] == role).unwrap();
    role["number"].as_u64().unwrap()
}

#[test]
fn a_vxlan_device_of_a_kernel_is_a_peer_over_ipv4() {
    is_a_peer(Family::V4, 1450);
}

#[test]
fn a_vxlan_device_of_a_kernel_is_a_peer_over_ipv6() {
    is_a_peer(Family::V6, 1430);
}

fn is_a_peer(family: Family, mtu: u32) {
    let cluster = Cluster::beside(2, 1, family);
    let foreign = Foreign::join(&cluster, family);
    let containers = [cluster.container(0, "a1", "shop/web"), cluster.container(1, "a2", "shop/db")];
    for (theirs, ours) in [(Offloads::On, Offloads::On), (Offloads::Off, Offloads::Off), (Offloads::On, Offloads::Off)]
    {
        cluster.underlay.set_offloads(theirs);
        // What the foreign host leaves to the others' devices they have to do, and not to leave again.
        for host in 0..2 {
            set_offloads(cluster.underlay.host(host), UPLINK, ours);
        }
        // Whoever speaks first has to find the other.
        foreign.netns.ip(&format!("neigh flush dev {DEVICE}"));
        for container in &containers {
            let there = foreign.both().map(|addr| (&container.netns, &foreign.netns, addr));
            let back = container.both().map(|addr| (&foreign.netns, &container.netns, addr));
            for (from, to, addr) in there.into_iter().chain(back) {
                talks(from, to, addr, mtu);
            }
        }
    }
    for host in 0..2 {
        for reason in ["unknown-station", "forged-neighbor", "peer-not-owner", "identity-mismatch", "malformed"] {
            assert_eq!(cluster.drops(host, reason), 0, "{reason} on host {host}");
        }
    }
}

/// Every kind of traffic from one to the other.
fn talks(from: &Netns, to: &Netns, addr: IpAddr, mtu: u32) {
    assert_eq!(ping(from, addr, SOON), Outcome::Reached, "ping {addr}");
    let headers = if addr.is_ipv4() { 28 } else { 48 };
    let of_size =
        |size: u32| Ping::to(addr).payload(size as usize - headers).dont_fragment().within(SOON).send_from(from);
    assert_eq!(of_size(mtu), Outcome::Reached, "ping {addr} with {mtu} bytes");
    assert_eq!(of_size(mtu + 1), Outcome::TooBig(mtu), "ping {addr} with a byte more");
    let large = Ping::to(addr).payload(5000).within(SOON);
    assert_eq!(large.send_from(from), Outcome::Reached, "ping {addr} in pieces");
    let tcp = TcpEcho::start(to, SocketAddr::new(addr, 80));
    let udp = UdpEcho::start(to, SocketAddr::new(addr, 53));
    assert_eq!(tcp_echo(from, tcp.address(), SOON), Outcome::Reached, "tcp {addr}");
    assert_eq!(udp_echo(from, udp.address(), SOON), Outcome::Reached, "udp {addr}");
    carries(from, to, SocketAddr::new(addr, 81));
}

/// Four megabytes, which arrive as they were sent: in segments as large as the offloads make them.
fn carries(from: &Netns, to: &Netns, at: SocketAddr) {
    let sent: Vec<u8> = (0..4_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
    let listener = to.run(|| TcpListener::bind(at).unwrap());
    let mut client = from.run(|| TcpStream::connect_timeout(&at, SOON).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    client.set_write_timeout(Some(SOON)).unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    let received = thread::scope(|scope| {
        let received = scope.spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).map(|_| all)
        });
        client.write_all(&sent).unwrap();
        drop(client);
        received.join().unwrap()
    });
    assert!(received.is_ok_and(|received| received == sent), "{at}");
}

#[test]
fn the_group_of_the_device_is_the_role() {
    let cluster = Cluster::beside(2, 1, Family::V4);
    let foreign = Foreign::join(&cluster, Family::V4);
    let container = cluster.container(0, "a1", "shop/web");
    let [open, denied, rejected] = [80, 81, 82].map(|port| TcpEcho::start(&container.netns, container.at(port)));
    let rejected6 = TcpEcho::start(&container.netns, container.at6(82));
    cluster.weft(0, &["deny", "shop/db", "shop/web", "tcp/81"]);
    cluster.weft(0, &["reject", "shop/db", "shop/web", "tcp/82"]);
    let connects = |to: &TcpEcho, within| tcp_connect(&foreign.netns, to.address(), within);
    foreign.speak_as(role_number(&cluster, "db"));
    eventually(SOON, || connects(&rejected, SOON) == Outcome::Refused);
    for offloads in [Offloads::Off, Offloads::On] {
        cluster.underlay.set_offloads(offloads);
        for server in [&rejected, &rejected6] {
            assert_eq!(connects(server, SOON), Outcome::Refused, "{} with offloads {offloads:?}", server.address());
        }
    }
    assert_eq!(connects(&denied, SILENCE), Outcome::TimedOut);
    assert_eq!(connects(&open, SOON), Outcome::Reached);
    foreign.speak_as(role_number(&cluster, "web"));
    for server in [&open, &denied, &rejected, &rejected6] {
        assert_eq!(connects(server, SOON), Outcome::Reached, "{}", server.address());
    }
}

#[test]
fn what_it_forges_changes_nothing() {
    let cluster = Cluster::beside(2, 1, Family::V4);
    let foreign = Foreign::join(&cluster, Family::V4);
    let [here, there] = [cluster.container(0, "a1", "shop/web"), cluster.container(1, "a2", "shop/db")];
    let stranger = cluster.container(0, "b1", "blog/db");
    assert_eq!(ping(&here.netns, there.v4, SOON), Outcome::Reached);
    let wire = Injector::on(&foreign.netns, DEVICE);
    let neighbours = |container: &Container| container.netns.ip("neigh show dev eth0");
    let before = neighbours(&here);
    let mac = |last| [2, 0, 0, 0, 9, last];
    let lies = [
        (neighbour::gratuitous_arp(Station::new(mac(1), there.v4)), "peer-not-owner"),
        (neighbour::arp_reply(Station::new(mac(1), there.v4), Station::new(here.mac, here.v4)), "peer-not-owner"),
        (neighbour::gratuitous_arp(Station::new(mac(2), Ipv4Addr::new(10, 1, 1, 1).into())), "peer-not-owner"),
        (neighbour::unsolicited_advertisement(Station::new(mac(3), there.v6)), "peer-not-owner"),
    ];
    for (lie, reason) in lies {
        let count = cluster.drops(0, reason);
        wire.send(lie.between(lie.decode().src_mac, BROADCAST).bytes());
        eventually(SOON, || cluster.drops(0, reason) == count + 1);
    }
    // Of the own address, behind another MAC.
    wire.send(neighbour::gratuitous_arp(Station::new(mac(4), foreign.v4)).bytes());
    assert_eq!(neighbours(&here), before);
    for (from, addr) in [(&here.netns, there.v4), (&foreign.netns, there.v4), (&here.netns, foreign.v4)] {
        assert_eq!(ping(from, addr, SOON), Outcome::Reached, "{addr}");
    }
    // An address of another application is told to nobody.
    foreign.netns.ip(&format!("route add 10.2.0.0/16 dev {DEVICE}"));
    assert_eq!(ping(&foreign.netns, stranger.v4, SILENCE), Outcome::TimedOut);
    assert!(!foreign.netns.ip(&format!("neigh show {}", stranger.v4)).contains("lladdr"));
}

#[test]
fn frames_that_are_not_ip_cross_both_ways() {
    let cluster = Cluster::beside(2, 1, Family::V4);
    let foreign = Foreign::join(&cluster, Family::V4);
    let container = cluster.container(0, "a1", "shop/web");
    let me = Station::new(container.mac, container.v4);
    let them = Station::new([2, 0, 0, 0, 9, 1], foreign.v4);
    let is = |frame: &weft_tests::frame::Frame, text: &[u8]| frame.l3().starts_with(text);
    let [at_container, at_foreign] =
        [(&container.netns, "eth0"), (&foreign.netns, DEVICE)].map(|(netns, device)| Capture::start(netns, device));
    let [from_container, from_foreign] =
        [(&container.netns, "eth0"), (&foreign.netns, DEVICE)].map(|(netns, device)| Injector::on(netns, device));
    for (to, text) in [(me, b"to one....".as_slice()), (me.behind(BROADCAST), b"to all....")] {
        from_foreign.send(raw(them, to, 0x88b5, &[text, &[0; 40]].concat()).bytes());
        assert!(at_container.wait_for(SOON, |got| !got.was_sent() && is(&got.frame, text)).is_some());
    }
    for to in [them, me.behind(BROADCAST)] {
        let text = [b"back to ".as_slice(), &to.mac].concat();
        from_container.send(raw(me, to, 0x88b5, &[text.as_slice(), &[0; 40]].concat()).bytes());
        assert!(at_foreign.wait_for(SOON, |got| !got.was_sent() && is(&got.frame, &text)).is_some(), "{to:?}");
    }
}

//! Broadcast and multicast stay inside an application, and go to those who want them.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use weft_tests::frame::Frame;
use weft_tests::netns::Netns;
use weft_tests::underlay::{Family, UPLINK};
use weft_tests::wait::{holds_within, throughout};
use weft_tests::wire::Capture;

use super::{Cluster, READY, SILENCE, SOON};

#[test]
fn a_group_reaches_its_members_of_the_same_application_on_every_host() {
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
    let cluster = Cluster::of(2, Family::V4);
    let sender = cluster.container(0, "a1", "shop/web");
    let near = cluster.container(0, "a3", "shop/db");
    let far = cluster.container(1, "a2", "shop/db");
    let no_member = cluster.container(1, "a4", "shop/db");
    let stranger = cluster.container(1, "b2", "blog/db");
    let join = |netns: &Netns| {
        let socket = listen(netns, 7000);
        netns.run(|| socket.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED).unwrap());
        socket
    };
    let (near, far, stranger) = (join(&near.netns), join(&far.netns), join(&stranger.netns));
    let no_member = listen(&no_member.netns, 7000);
    let send = sender.netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let arrives = |socket: &UdpSocket| {
        holds_within(SOON, || {
            send.send_to(b"to the group", (GROUP, 7000)).unwrap();
            received(socket, Duration::from_millis(50))
        })
    };
    assert!(arrives(&near), "a member on the same host");
    assert!(arrives(&far), "a member on the other host");
    assert!(!received(&no_member, SILENCE), "who did not join");
    assert!(!received(&stranger, SILENCE), "a member of another application");
}

#[test]
fn a_broadcast_reaches_the_application_and_nobody_else() {
    let cluster = Cluster::of(2, Family::V4);
    let sender = cluster.container(0, "a1", "shop/web");
    let far = cluster.container(1, "a2", "shop/db");
    let stranger = cluster.container(0, "b1", "blog/db");
    let (far, stranger) = (listen(&far.netns, 7001), listen(&stranger.netns, 7001));
    let send = sender.netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    send.set_broadcast(true).unwrap();
    for to in [Ipv4Addr::new(10, 1, 255, 255), Ipv4Addr::BROADCAST] {
        let arrives = holds_within(SOON, || {
            send.send_to(b"to all", (to, 7001)).unwrap();
            received(&far, Duration::from_millis(50))
        });
        assert!(arrives, "{to}");
    }
    assert!(!received(&stranger, SILENCE));
    assert_eq!(cluster.drops(0, "policy-absent"), 0);
}

/// A container whose kernel says nothing any more, neither that it leaves nor that it stays: crashed, frozen, cut off.
#[test]
fn who_does_not_answer_is_in_no_group_any_more_and_who_answers_stays() {
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
    const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x77);
    let mut cluster = Cluster::started(2, 0, Family::V4, &["--ask-groups-every", "1"]);
    let sender = cluster.container(0, "a1", "shop/web");
    let [crashing, staying] = ["a2", "a4"].map(|name| cluster.container(1, name, "shop/db"));
    let join = |netns: &Netns| {
        let (socket, socket6) = (listen(netns, 7000), netns.run(|| UdpSocket::bind(("::", 7006)).unwrap()));
        netns.run(|| socket.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED).unwrap());
        netns.run(|| socket6.join_multicast_v6(&GROUP6, 0).unwrap());
        [socket, socket6]
    };
    let send = sender.netns.run(|| [UdpSocket::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("[::]:0").unwrap()]);
    let send = || {
        send[0].send_to(b"to the group", (GROUP, 7000)).unwrap();
        send[1].send_to(b"to the group", (GROUP6, 7006)).unwrap();
    };
    let arrives = |socket: &UdpSocket| {
        holds_within(SOON, || {
            send();
            received(socket, Duration::from_millis(50))
        })
    };
    let crashed = join(&crashing.netns);
    let stays = join(&staying.netns);
    assert!(crashed.iter().chain(&stays).all(arrives));
    let silence = "table inet silence {\nchain out {\ntype filter hook output priority 0\nip protocol igmp drop\n\
                   icmpv6 type { 131, 132, 143 } drop\n}\n}\n";
    crashing.netns.nft(silence);
    let [at_crashed, at_staying, wire] =
        [(&crashing.netns, "eth0"), (&staying.netns, "eth0"), (cluster.hosts[1].namespace(), UPLINK)]
            .map(|(netns, device)| Capture::start(netns, device));
    let is_ours = |frame: &Frame| frame.bytes().windows(12).any(|bytes| bytes == b"to the group");
    // Nothing comes for as long as several things are sent: those who stay have them all.
    let is_left_out = |ear: &Capture, others: &[&Capture]| {
        holds_within(SOON * 4, || {
            ear.clear();
            send();
            others.iter().all(|other| {
                other.clear();
                send();
                other.wait_for(SOON, |got| is_ours(&got.frame)).is_some()
            }) && !ear.frames().iter().any(|got| is_ours(&got.frame))
        })
    };
    assert!(is_left_out(&at_crashed, &[&at_staying]), "who said nothing still gets the group");
    assert!(stays.iter().all(arrives), "who answered still does");
    // Without a daemon nobody is asked, and nobody is forgotten.
    cluster.hosts[1].kill9();
    staying.netns.nft(silence);
    throughout(Duration::from_secs(4), || stays.iter().all(arrives));
    cluster.start(1);
    cluster.hosts[1].wait_ready(READY);
    // It asks, and has no answer; then the other host is told.
    let ends = holds_within(SOON * 4, || {
        wire.clear();
        send();
        wire.wait_for(SILENCE, |got| is_ours(&got.frame)).is_none()
    });
    assert!(ends, "the other host still sends to where nobody wants it");
}

fn listen(netns: &Netns, port: u16) -> UdpSocket {
    netns.run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap())
}

fn received(socket: &UdpSocket, within: Duration) -> bool {
    socket.set_read_timeout(Some(within)).unwrap();
    socket.recv(&mut [0; 64]).is_ok()
}

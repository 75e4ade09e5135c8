//! Broadcast and multicast stay inside an application, and go to those who want them.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use weft_tests::netns::Netns;
use weft_tests::underlay::Family;
use weft_tests::wait::holds_within;

use super::{Cluster, SILENCE, SOON};

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

fn listen(netns: &Netns, port: u16) -> UdpSocket {
    netns.run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap())
}

fn received(socket: &UdpSocket, within: Duration) -> bool {
    socket.set_read_timeout(Some(within)).unwrap();
    socket.recv(&mut [0; 64]).is_ok()
}

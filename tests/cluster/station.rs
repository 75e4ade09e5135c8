//! Frames that are neither IP nor ARP, by hardware address, inside an application.

use weft_tests::frame::{BROADCAST, Frame, Station, raw};
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;
use weft_tests::wire::{Capture, Injector};

use super::{Cluster, Container, SOON};

const ETHERTYPE: u16 = 0x88b5;

fn frame(from: &Container, to: [u8; 6], text: &str) -> Frame {
    let src = Station::new(from.mac, from.v4);
    let mut payload = text.as_bytes().to_vec();
    payload.resize(60, 0);
    raw(src, src.behind(to), ETHERTYPE, &payload)
}

/// The texts of what a container was sent, in order.
fn heard(ear: &Capture) -> Vec<String> {
    let frames = ear.frames();
    let theirs =
        frames.iter().filter(|captured| !captured.was_sent() && captured.frame.decode().ethertype == ETHERTYPE);
    let text = |frame: &Frame| frame.l3().iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    theirs.map(|captured| text(&captured.frame)).collect()
}

fn reaches_by_mac(underlay: Family) {
    let cluster = Cluster::of(2, underlay);
    let here = cluster.container(0, "a1", "shop/web");
    let near = cluster.container(0, "a3", "shop/db");
    let far = cluster.container(1, "a2", "shop/db");
    let strangers = [cluster.container(0, "b1", "blog/db"), cluster.container(1, "b2", "blog/db")];
    let [at_near, at_far] = [&near, &far].map(|container| Capture::start(&container.netns, "eth0"));
    let at_strangers = strangers.each_ref().map(|container| Capture::start(&container.netns, "eth0"));
    let wire = Injector::on(&here.netns, "eth0");
    let before = cluster.drops(1, "unknown-station");
    for (to, text) in [
        (strangers[0].mac, "to a stranger here"),
        (strangers[1].mac, "to a stranger there"),
        (near.mac, "to the near one"),
        (far.mac, "to the far one"),
        (BROADCAST, "to all"),
    ] {
        wire.send(frame(&here, to, text).bytes());
    }
    eventually(SOON, || heard(&at_near) == ["to the near one", "to all"]);
    eventually(SOON, || heard(&at_far) == ["to the far one", "to all"]);
    // Nobody there has the strangers' addresses in this application.
    eventually(SOON, || cluster.drops(1, "unknown-station") == before + 2);
    assert!(at_strangers.iter().all(|ear| heard(ear).is_empty()));

    // A rule about the inside speaks of IP: nothing else passes any more, on both sides.
    for host in 0..2 {
        cluster.weft(host, &["deny", "shop/web", "shop/db", "tcp/81"]);
    }
    let closed = |host, sender: &Container| {
        let wire = Injector::on(&sender.netns, "eth0");
        let before = cluster.drops(host, "not-ip");
        eventually(SOON, || {
            wire.send(frame(sender, near.mac, "too late").bytes());
            cluster.drops(host, "not-ip") > before
        });
    };
    closed(0, &here);
    closed(1, &far);
    // The first of these may still have come before the rule.
    at_near.clear();
    wire.send(frame(&here, near.mac, "not at all").bytes());
    wire.send(frame(&here, BROADCAST, "not at all").bytes());
    let before = cluster.drops(0, "spoofed-mac");
    wire.send(frame(&near, here.mac, "forged").bytes());
    eventually(SOON, || cluster.drops(0, "spoofed-mac") == before + 1);
    assert!(heard(&at_near).is_empty());
}

#[test]
fn other_frames_go_by_address_inside_an_application_over_ipv4() {
    reaches_by_mac(Family::V4);
}

#[test]
fn other_frames_go_by_address_inside_an_application_over_ipv6() {
    reaches_by_mac(Family::V6);
}

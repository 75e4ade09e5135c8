//! Attaching, in namespaces with a pair of interfaces.

use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{NlOptions, TcAttachOptions},
};

use super::*;
use crate::kernel::{
    bpf::tests::program,
    link::{Links, Setting, Veth},
    load::Program,
    netns::tests::{fresh, within_async},
    pins::tests::TestPins,
    route::Address,
};
use weft_common::addr::Mac;

/// The ways of this kernel. What only links can do is not tested on kernels that have none, for there is nothing.
fn ways() -> Vec<Way> {
    if tcx_is_available() { vec![Way::Tcx, Way::Clsact] } else { vec![Way::Clsact] }
}

/// Answers of classifiers, good for both ways: TC_ACT_OK and TC_ACT_SHOT.
const PASS: i32 = 0;
const SHOT: i32 = 2;

fn classifier(answer: i32) -> Code {
    Code::new(Program::FROM_WORKLOAD, program(3, answer)).unwrap()
}

fn xdp() -> Code {
    Code::new(Program::GUARD, program(6, 2)).unwrap()
}

fn found(interface: &str, place: Place, code: &Code) -> (String, Place, u32) {
    (interface.to_owned(), place, code.id())
}

fn list(attacher: &Attacher) -> Vec<(String, Place, u32)> {
    let attached = attacher.list().unwrap();
    attached.into_iter().map(|found| (found.interface, found.place, found.program.id)).collect()
}

async fn pair(links: &Links, name: &str) -> u32 {
    let peer = format!("{name}p");
    let veth =
        Veth { name, alias: None, mac: None, mtu: 1500, peer: &peer, peer_mac: Mac::new([2; 6]), peer_netns: None };
    links.create_veth(&veth).await.unwrap()
}

#[test]
fn a_program_is_added_kept_replaced_and_taken_away() {
    for way in ways() {
        let pins = TestPins::new();
        within_async(async || {
            let links = Links::new().unwrap();
            pair(&links, "a.1").await;
            let attacher = Attacher::new(pins.clone()).with_way(way);
            assert_eq!(list(&attacher), []);
            let (first, second) = (classifier(PASS), classifier(PASS));
            for place in [Place::Ingress, Place::Egress] {
                assert_eq!(attacher.attach(&first, "a.1", place).unwrap(), Change::Added, "{way:?}");
                assert_eq!(attacher.attach(&first, "a.1", place).unwrap(), Change::Kept);
                assert_eq!(attacher.attach(&second, "a.1", place).unwrap(), Change::Replaced);
            }
            drop(attacher);

            let attacher = Attacher::new(pins.clone()).with_way(way);
            let both = [Place::Ingress, Place::Egress].map(|place| found("a.1", place, &second));
            assert_eq!(list(&attacher), both);
            assert_eq!(attacher.list().unwrap()[0].program.name, "weft_test");
            for _ in 0..2 {
                attacher.detach("a.1", Place::Egress).unwrap();
                assert_eq!(list(&attacher), both[..1]);
            }
            attacher.detach("a.1", Place::Ingress).unwrap();
            attacher.detach("gone", Place::Ingress).unwrap();
            assert_eq!(list(&attacher), []);
        });
    }
}

#[test]
fn no_packet_passes_without_a_program_while_it_is_replaced() {
    for way in ways() {
        let pins = TestPins::new();
        let inside = fresh();
        within_async(async || {
            let links = Links::new().unwrap();
            let veth = Veth {
                name: "a",
                alias: None,
                mac: None,
                mtu: 1500,
                peer: "b",
                peer_mac: Mac::new([2; 6]),
                peer_netns: Some(&inside),
            };
            let link = links.create_veth(&veth).await.unwrap();
            links.set(link, &[Setting::Up]).await.unwrap();
            links.add_address(Address { link, net: "10.0.0.1/24".parse().unwrap() }).await.unwrap();
            let receiver = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap();
            let sender = crate::kernel::netns::run_in(&inside, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let links = Links::new().unwrap();
                    let link = links.find("b").await.unwrap().unwrap().index;
                    links.set(link, &[Setting::Up]).await.unwrap();
                    links.add_address(Address { link, net: "10.0.0.2/24".parse().unwrap() }).await.unwrap();
                });
                Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
            })
            .unwrap();
            sender.connect((Ipv4Addr::new(10, 0, 0, 1), 9000)).unwrap();

            let attacher = Attacher::new(pins.clone()).with_way(way);
            attacher.attach(&classifier(PASS), "a", Place::Ingress).unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            for round in 0..50_u32 {
                sender.send(&round.to_ne_bytes()).unwrap();
                attacher.attach(&classifier(PASS), "a", Place::Ingress).unwrap();
                let mut bytes = [0; 4];
                receiver.recv(&mut bytes).unwrap();
                assert_eq!(u32::from_ne_bytes(bytes), round, "{way:?}");
            }
            // Two that drop, one after the other: nothing gets in between.
            attacher.attach(&classifier(SHOT), "a", Place::Ingress).unwrap();
            receiver.set_nonblocking(true).unwrap();
            for _ in 0..50 {
                sender.send(b"lost").unwrap();
                attacher.attach(&classifier(SHOT), "a", Place::Ingress).unwrap();
                sender.send(b"lost").unwrap();
            }
            attacher.attach(&classifier(PASS), "a", Place::Ingress).unwrap();
            sender.send(b"last").unwrap();
            receiver.set_nonblocking(false).unwrap();
            let mut bytes = [0; 4];
            receiver.recv(&mut bytes).unwrap();
            assert_eq!(&bytes, b"last", "{way:?}");
        });
    }
}

#[test]
fn another_layout_takes_over_the_filter() {
    let pins = TestPins::new();
    within_async(async || {
        let links = Links::new().unwrap();
        pair(&links, "a").await;
        let old = Attacher::new(pins.of_digest(7)).with_way(Way::Clsact);
        old.attach(&classifier(PASS), "a", Place::Egress).unwrap();
        let new = Attacher::new(pins.clone()).with_way(Way::Clsact);
        let code = classifier(PASS);
        assert_eq!(new.attach(&code, "a", Place::Egress).unwrap(), Change::Replaced);
        assert_eq!(list(&new), [found("a", Place::Egress, &code)]);
    });
}

#[test]
fn another_layout_takes_over_the_link() {
    if !ways().contains(&Way::Tcx) {
        return;
    }
    let pins = TestPins::new();
    let earlier = pins.of_digest(7);
    within_async(async || {
        let links = Links::new().unwrap();
        let index = pair(&links, "a").await;
        let old = Attacher::new(earlier.clone());
        old.attach(&classifier(PASS), "a", Place::Ingress).unwrap();
        old.attach(&xdp(), "a", Place::Xdp).unwrap();
        let stays = classifier(PASS);
        old.attach(&stays, "a", Place::Egress).unwrap();

        let new = Attacher::new(pins.clone());
        let (code, guard) = (classifier(PASS), xdp());
        assert_eq!(new.attach(&code, "a", Place::Ingress).unwrap(), Change::Replaced);
        assert_eq!(new.attach(&guard, "a", Place::Xdp).unwrap(), Change::Replaced);
        assert_eq!(bpf::programs(index, AttachType::TcxIngress).unwrap().len(), 1);
        assert_eq!(list(&new), [found("a", Place::Ingress, &code), found("a", Place::Xdp, &guard)]);
        assert_eq!(list(&old), [found("a", Place::Egress, &stays)]);

        assert_eq!(new.pins.others().unwrap(), std::slice::from_ref(&earlier));
        earlier.remove().unwrap();
        // The kernel releases what nobody holds some time later.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !bpf::programs(index, AttachType::TcxEgress).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "the earlier layout's program is still there");
            tokio::task::yield_now().await;
        }
        assert_eq!(bpf::programs(index, AttachType::TcxIngress).unwrap().len(), 1);
    });
}

#[test]
fn a_pin_whose_interface_is_gone_gives_way_to_a_new_one() {
    if !ways().contains(&Way::Tcx) {
        return;
    }
    let pins = TestPins::new();
    within_async(async || {
        let links = Links::new().unwrap();
        let index = pair(&links, "a").await;
        let attacher = Attacher::new(pins.clone());
        let (code, guard) = (classifier(PASS), xdp());
        attacher.attach(&code, "a", Place::Ingress).unwrap();
        attacher.attach(&guard, "a", Place::Xdp).unwrap();
        assert_eq!(attacher.list().unwrap()[0].index, Some(index));
        links.delete(index).await.unwrap();
        assert_eq!(attacher.list().unwrap().iter().map(|found| found.index).collect::<Vec<_>>(), [None, None]);
        let error = format!("{:#}", attacher.attach(&code, "a", Place::Ingress).unwrap_err());
        assert!(error.starts_with("attach from_workload to a at ingress: "), "{error}");

        let index = pair(&links, "a").await;
        assert_eq!(attacher.attach(&code, "a", Place::Ingress).unwrap(), Change::Added);
        assert_eq!(attacher.attach(&guard, "a", Place::Xdp).unwrap(), Change::Added);
        assert_eq!(attacher.list().unwrap()[0].index, Some(index));
    });
}

#[test]
fn programs_of_others_stay_and_are_not_listed() {
    if !ways().contains(&Way::Tcx) {
        return;
    }
    let (pins, others) = (TestPins::new(), TestPins::new());
    within_async(async || {
        let links = Links::new().unwrap();
        let index = pair(&links, "a").await;
        let other = Attacher::new(others.clone());
        other.attach(&classifier(PASS), "a", Place::Ingress).unwrap();
        other.attach(&xdp(), "a", Place::Xdp).unwrap();
        let attacher = Attacher::new(pins.clone());
        assert_eq!(list(&attacher), []);
        assert_eq!(attacher.attach(&classifier(PASS), "a", Place::Ingress).unwrap(), Change::Added);
        assert_eq!(bpf::programs(index, AttachType::TcxIngress).unwrap().len(), 2);
        let error = format!("{:#}", attacher.attach(&xdp(), "a", Place::Xdp).unwrap_err());
        assert_eq!(error, "attach guard to a at xdp: another XDP program is there");
        attacher.detach("a", Place::Ingress).unwrap();
        attacher.detach("a", Place::Xdp).unwrap();
        assert_eq!(bpf::programs(index, AttachType::TcxIngress).unwrap().len(), 1, "ours is gone at once");
        assert_eq!(list(&other).len(), 2);
    });
}

#[test]
fn a_filter_of_another_stays_and_the_qdisc_with_it() {
    let pins = TestPins::new();
    within_async(async || {
        let links = Links::new().unwrap();
        let index = pair(&links, "a").await;
        let attacher = Attacher::new(pins.clone()).with_way(Way::Clsact);
        attacher.attach(&classifier(PASS), "a", Place::Ingress).unwrap();
        let other = aya_filter("a");
        assert_eq!(list(&attacher).len(), 1);
        attacher.detach("a", Place::Ingress).unwrap();
        remove_empty_clsact("a").unwrap();
        assert_eq!(clsact_filters(index), 1, "the other's filter");
        drop(other);
        remove_empty_clsact("a").unwrap();
        remove_empty_clsact("a").unwrap();
        assert_eq!(attacher.attach(&classifier(PASS), "a", Place::Egress).unwrap(), Change::Added);
    });
}

#[test]
fn a_program_of_the_wrong_kind_is_refused() {
    let pins = TestPins::new();
    within_async(async || {
        let attacher = Attacher::new(pins.clone());
        let error = format!("{:#}", attacher.attach(&xdp(), "lo", Place::Ingress).unwrap_err());
        assert_eq!(error, "attach guard to lo at ingress: it is of kind Xdp");
        assert!(attacher.attach(&classifier(PASS), "lo", Place::Xdp).is_err());
    });
}

/// A filter as another tool makes it. The program removes it when it is dropped.
fn aya_filter(interface: &str) -> SchedClassifier {
    let pins = TestPins::new();
    let pin = pins.links().join("program");
    bpf::pin(classifier(PASS).as_fd(), &pin).unwrap();
    let mut program = SchedClassifier::from_pin(&pin).unwrap();
    let options = TcAttachOptions::Netlink(NlOptions::default());
    program.attach_with_options(interface, TcAttachType::Ingress, options).unwrap();
    program
}

fn clsact_filters(index: u32) -> usize {
    clsact::filters(index, Place::Ingress).unwrap().len()
}

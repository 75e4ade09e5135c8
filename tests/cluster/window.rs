//! The moments in which something is not there yet, or not any more: a daemon that starts for the first time, one that
//! starts again, an endpoint that is being attached. Traffic is sent all the time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_tests::netns::Netns;
use weft_tests::traffic::flood::Flood;
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;
use weft_tests::wire::{Capture, Captured};

use super::{Cluster, READY, SOON};

const PAUSE: Duration = Duration::from_millis(10);

const SHOP: &[u8] = b"sent by shop";
const BLOG: &[u8] = b"sent by blog";

#[test]
fn what_is_sent_while_daemons_start_and_endpoints_are_attached_reaches_no_other_app() {
    let mut cluster = Cluster::without_daemons(2, Family::V4);
    cluster.start(0);
    cluster.hosts[0].wait_ready(READY);
    // Everybody who may ever have an address of the other app, on both hosts; and one of the own app, who hears it.
    let (shops, blogs) = (addresses("10.1", "fd00:1"), addresses("10.2", "fd00:2"));
    let sender = cluster.container(0, "a1", "shop/web");
    let floods = [Flood::start(&sender.netns, &blogs, SHOP, PAUSE), Flood::start(&sender.netns, &shops, SHOP, PAUSE)];
    let mut ears = vec![(Capture::everywhere(&sender.netns), BLOG)];
    let newcomer = |cluster: &Cluster, host: usize, name: &str, floods: &mut Vec<Flood>| {
        let netns = cluster.hosts[host].container(name);
        let ear = Capture::everywhere(&netns);
        floods.push(Flood::start(&netns, &shops, BLOG, PAUSE));
        cluster.attach(host, netns.clone(), (name, "blog/db"));
        (netns, (ear, SHOP))
    };

    // The first start, with an endpoint as soon as it can be had.
    let mut from_blog = Vec::new();
    cluster.start(1);
    cluster.hosts[1].wait_ready(READY);
    let (far, ear) = newcomer(&cluster, 1, "b2", &mut from_blog);
    ears.push(ear);
    let friend = cluster.hosts[1].container("a2");
    let friendly = Capture::everywhere(&friend);
    let _friend = cluster.attach(1, friend, ("a2", "shop/db"));
    friendly.wait_for(SOON, |seen| has(seen, SHOP)).expect("the own app is reached: there was something to leak");
    let mut kept: Vec<Netns> = vec![far];

    for round in 0..4 {
        for host in 0..2 {
            let (netns, ear) = newcomer(&cluster, host, &format!("c{round}"), &mut from_blog);
            kept.push(netns);
            ears.push(ear);
            match round {
                0 => cluster.hosts[host].kill9(),
                _ => drop(cluster.hosts[host].stop()),
            }
            cluster.start(host);
            cluster.hosts[host].wait_ready(READY);
        }
        cluster.weft(0, &["detach", &format!("blog/c{round}")]);
    }
    // The same name and addresses for somebody else: what is under way to the one does not reach the other.
    let again = floods[0].sent();
    eventually(SOON, || floods[0].sent() > again + 20 && from_blog[0].sent() > 100);
    drop((floods, from_blog));
    for (ear, foreign) in &ears {
        let leaked = ear.frames().into_iter().find(|seen| !seen.was_sent() && has(seen, foreign));
        assert!(leaked.is_none(), "{}", leaked.unwrap());
    }
    for host in 0..2 {
        assert!(cluster.drops(host, "policy-default") > 100, "host {host} had something to refuse");
    }
}

fn has(seen: &Captured, mark: &[u8]) -> bool {
    seen.frame.bytes().ends_with(mark)
}

/// The first addresses that each of the two hosts gives.
fn addresses(v4: &str, v6: &str) -> Vec<SocketAddr> {
    let both = |host: u8, last: u8| [format!("{v4}.{host}.{last}"), format!("{v6}:{host}::{last:x}")];
    let all = (1..=2).flat_map(|host| (2..=4).flat_map(move |last| both(host, last)));
    all.map(|addr| SocketAddr::new(addr.parse::<IpAddr>().unwrap(), 9)).collect()
}

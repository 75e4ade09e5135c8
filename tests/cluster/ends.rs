//! Rules that end do so on time, whoever else is alive by then; and what only an old role allowed ends with it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime};

use weft_tests::traffic::{Outcome, prober::Prober, stream::Cause, stream::Stream, tcp::tcp_connect, udp::UdpEcho};
use weft_tests::underlay::Family;
use weft_tests::wait::{Deadline, eventually};

use super::{Cluster, Container, READY, SILENCE, SOON, segment::wait_for_rule};

/// Long enough to set everything up, also on a busy machine.
const LENGTH: &str = "8s";
/// How far from its time an end may be.
const ON_TIME: Duration = Duration::from_secs(1);
/// What stays allowed.
const STAYS: &str = "shop/web -> blog/db udp/9000";

/// Hosts h1 with a client and h2 with a server, and rules: one that stays, and one that ends. Says when it does.
fn opened() -> (Cluster, Container, Container, SystemTime) {
    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let db = cluster.container(1, "b2", "blog/db");
    cluster.weft(0, &["allow", STAYS]);
    let asked = SystemTime::now();
    let answer = cluster.weft(0, &["allow", "--for", LENGTH, "shop/web -> blog/db tcp"]);
    let left = end(&answer["rule"]).duration_since(asked).unwrap();
    assert!(left.abs_diff(Duration::from_secs(8)) < ON_TIME, "{left:?}");
    for (wrong, why) in [
        (&["allow", "shop -> blog until 2020-01-01T00:00:00Z"][..], "would have ended already"),
        (&["deny", "shop -> blog until 2130-01-01T00:00:00Z"], "only allow can end"),
        (&["deny", "--for", "10m", "shop", "blog"], "unexpected argument '--for'"),
        (&["allow", "--for", "31d", "shop", "blog"], "at most 30d"),
    ] {
        let (status, _, stderr) = cluster.hosts[0].weft_text(wrong);
        assert!(!status.success() && stderr.contains(why), "{wrong:?}: {stderr}");
    }
    wait_for_rule(&cluster, 2);
    (cluster, web, db, end(&answer["rule"]))
}

/// When a rule ends.
fn end(rule: &serde_json::Value) -> SystemTime {
    let text = rule["until"].as_str().unwrap_or_else(|| panic!("it does not end: {rule:#}"));
    let time = text.strip_suffix(".000Z").unwrap_or_else(|| panic!("{text} is no whole second"));
    format!("{time}Z").parse::<weft::model::time::Until>().unwrap().time()
}

fn left(end: SystemTime) -> Duration {
    end.duration_since(SystemTime::now()).expect("there is time left: the machine is too slow")
}

#[test]
fn a_rule_ends_on_time_for_flows_that_speak_and_for_those_that_are_silent() {
    let (cluster, web, db, end) = opened();
    let echo = UdpEcho::start(&db.netns, db.at(9000));
    let prober = Prober::start(&web.netns, echo.address(), Duration::from_millis(5));
    let stream = Stream::listen(&db.netns, db.at(9001)).connect_from(&web.netns, SOON);
    let (mut client, mut server) = silent(&web, &db, db.at(9002));
    assert!(stream.flows_within(SOON));
    let within = left(end) + ON_TIME;
    let (client_death, server_death) = stream.deaths_within(within);
    assert_eq!((client_death.cause, server_death.cause), (Cause::Reset, Cause::Reset));
    assert_reset([&mut client, &mut server], Deadline::after(ON_TIME));
    let off = SystemTime::now().duration_since(end).expect("it does not end before its time");
    assert!(off < ON_TIME, "told {off:?} after the end");
    assert_eq!(tcp_connect(&web.netns, db.at(9002), SILENCE), Outcome::TimedOut);
    assert_eq!(prober.stop().lost, [0; 0], "what else is allowed goes on");
    let (_, text, _) = cluster.hosts[0].weft_text(&["policy", "ls"]);
    assert!(text.lines().any(|line| line.contains("tcp (over)")), "{text}");
}

#[test]
fn a_rule_ends_on_time_where_every_daemon_is_dead() {
    let (mut cluster, web, db, end) = opened();
    let echo = UdpEcho::start(&db.netns, db.at(9000));
    let prober = Prober::start(&web.netns, echo.address(), Duration::from_millis(5));
    let stream = Stream::listen(&db.netns, db.at(9001)).connect_from(&web.netns, SOON);
    for host in 0..2 {
        cluster.hosts[host].kill9();
    }
    assert!(stream.flows_within(left(end)));
    // Both ends are told by the programs, on the first packet of whoever speaks.
    let (client_death, server_death) = stream.deaths_within(left(end) + ON_TIME);
    assert_eq!((client_death.cause, server_death.cause), (Cause::Reset, Cause::Reset));
    let off = SystemTime::now().duration_since(end).expect("it does not end before its time");
    assert!(off < ON_TIME, "dead {off:?} after the end");
    assert_eq!(tcp_connect(&web.netns, db.at(9001), SILENCE), Outcome::TimedOut);
    prober.wait_answers(20, SOON);
    // A daemon that starts after the end opens nothing.
    for host in 0..2 {
        cluster.start(host);
        cluster.hosts[host].wait_ready(READY);
    }
    assert_eq!(tcp_connect(&web.netns, db.at(9001), SILENCE), Outcome::TimedOut);
    assert_eq!(prober.stop().lost, [0; 0], "what else is allowed goes on");
    let revoked = [0, 1].map(|host| cluster.drops(host, "policy-revoked"));
    assert!(revoked.iter().any(|packets| *packets > 0), "{revoked:?}");
}

/// Only the host of whoever is relabelled knows it. Wherever the other end is, and whoever speaks or does not, both ends
/// are told.
#[test]
fn connections_that_only_an_old_role_allowed_end_at_both_ends() {
    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let servers = [cluster.container(0, "b1", "blog/db"), cluster.container(1, "b2", "blog/db")];
    cluster.weft(0, &["allow", "shop/web -> blog/db tcp"]);
    wait_for_rule(&cluster, 1);
    let streams = servers.each_ref().map(|to| Stream::listen(&to.netns, to.at(9001)).connect_from(&web.netns, SOON));
    let mut silent = servers.each_ref().map(|server| silent(&web, server, server.at(9002)));
    assert!(streams.iter().all(|stream| stream.flows_within(SOON)));
    // A role that nobody had before.
    cluster.weft(0, &["label", "shop/a1", "role=other"]);
    for stream in &streams {
        let (client, server) = stream.deaths_within(ON_TIME);
        assert_eq!((client.cause, server.cause), (Cause::Reset, Cause::Reset));
    }
    assert_reset(silent.iter_mut().flat_map(|(client, server)| [client, server]), Deadline::after(SOON));
    // Who speaks is told by the programs. The daemon says how many of the others it has told.
    assert!(cluster.weft(0, &["status"])["revoked"].as_u64() >= Some(2));
}

/// Nobody has to send for it: from when a change is in force on every host, both ends are told within a second.
#[test]
fn what_a_change_of_rules_denies_ends_at_both_ends_within_a_second() {
    const ALLOWED: &str = "shop/web -> blog/db tcp/9001-9002";
    const OTHER: &str = "shop/web -> blog/db tcp/9003";

    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let db = cluster.container(1, "b2", "blog/db");
    for stays in [STAYS, OTHER] {
        cluster.weft_everywhere(0, &["allow", stays]);
    }
    let echo = UdpEcho::start(&db.netns, db.at(9000));
    let prober = Prober::start(&web.netns, echo.address(), Duration::from_millis(5));
    let (mut client, mut server) = silent(&web, &db, db.at(9003));
    // On the client's host and on the server's.
    for (host, change) in [
        (0, &["policy", "rm", &format!("allow {ALLOWED}")][..]),
        (1, &["allow", ALLOWED, "--remove"]),
        (1, &["deny", ALLOWED]),
    ] {
        cluster.weft_everywhere(0, &["allow", ALLOWED]);
        let listening = [db.at(9001), db.at6(9001)].map(|at| Stream::listen(&db.netns, at));
        let streams = listening.map(|listening| listening.connect_from(&web.netns, SOON));
        let mut silent = [db.at(9002), db.at6(9002)].map(|at| silent(&web, &db, at));
        assert!(streams.iter().all(|stream| stream.flows_within(SOON)));
        cluster.weft_everywhere(host, change);
        let deadline = Deadline::after(ON_TIME);
        assert_reset(silent.iter_mut().flat_map(|(client, server)| [client, server]), deadline);
        for stream in &streams {
            let (client, server) = stream.deaths_within(deadline.left());
            assert_eq!((client.cause, server.cause), (Cause::Reset, Cause::Reset), "{change:?}");
        }
        client.write_all(b"still here").unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        server.read_exact(&mut [0; 10]).unwrap();
    }
    assert_eq!(prober.stop().lost, [0; 0], "what else is allowed goes on");
}

/// The server's host hears of the client's new role though nothing is sent, and does not end for the old one what is allowed.
#[test]
fn a_silent_connection_is_that_of_the_new_role_on_both_hosts() {
    let cluster = Cluster::of(2, Family::V4);
    let web = cluster.container(0, "a1", "shop/web");
    let db = cluster.container(1, "b2", "blog/db");
    cluster.weft(0, &["allow", "shop -> blog/db tcp"]);
    wait_for_rule(&cluster, 1);
    let (mut client, mut server) = silent(&web, &db, db.at(9002));
    cluster.weft(0, &["label", "shop/a1", "role=db"]);
    let is_told = |host: usize| {
        let flows = cluster.weft(host, &["flows"]);
        let of_it = |flow: &&serde_json::Value| flow["other"]["port"] == 9002;
        flows["flows"].as_array().unwrap().iter().find(of_it).is_some_and(|flow| flow["opener"]["role"] == "db")
    };
    eventually(SOON, || is_told(0) && is_told(1));
    cluster.weft(0, &["deny", "shop/web -> blog/db precedence 2000"]);
    wait_for_rule(&cluster, 2);
    client.write_all(b"still here").unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    server.read_exact(&mut [0; 10]).unwrap();
}

/// A connection on which nothing is sent.
fn silent(client: &Container, server: &Container, at: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = server.netns.run(|| TcpListener::bind(at)).expect("listen");
    let here = client.netns.run(|| TcpStream::connect_timeout(&at, SOON)).expect("connect");
    let (there, _) = listener.accept().expect("take the connection");
    (here, there)
}

/// Nothing was sent, and each is told of the end by a reset.
fn assert_reset<'a>(ends: impl IntoIterator<Item = &'a mut TcpStream>, deadline: Deadline) {
    for end in ends {
        // No time at all would be without end.
        end.set_read_timeout(Some(deadline.left().max(Duration::from_millis(1)))).unwrap();
        let error = end.read(&mut [0]).expect_err("nobody has closed it");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{end:?}: {error}");
    }
}

//! Somebody on the host damages what the daemon made: it is put right, counted, and nothing gets through meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft::kernel::attach::Attacher;
use weft::kernel::pins::Pins;
use weft::kernel::tables::{Keyed, Map, Trie};
use weft_common::{id::Epoch, table};
use weft_tests::command::run;
use weft_tests::traffic::{
    Outcome,
    ping::ping,
    prober::Prober,
    stream::Stream,
    tcp::{TcpEcho, tcp_connect},
    udp::UdpEcho,
};
use weft_tests::underlay::Family;
use weft_tests::wait::{eventually, holds_within, throughout};
use weft_tests::wire::Capture;

use super::{Cluster, Container, REPAIRED, SOON};

/// The same damage in every run.
const SEED: u64 = 0x00c0_ffee;

/// How many rounds of damage, each to one host.
const ROUNDS: usize = 3;

/// What has to be counted: how many, by kind.
type Damage = BTreeMap<String, u64>;

#[test]
fn what_others_damage_is_repaired_and_counted_and_nothing_leaks_meanwhile() {
    let cluster = Cluster::of(2, Family::V4);
    cluster.weft(0, &["allow", "shop/web", "blog/db", "tcp/5432"]);
    let here = cluster.container(0, "a1", "shop/web");
    let near = cluster.container(0, "a3", "shop/db");
    let far = cluster.container(1, "a2", "shop/db");
    let strangers = [cluster.container(0, "b1", "blog/db"), cluster.container(1, "b2", "blog/db")];
    let shop = cluster.container(1, "b4", "blog/db");
    let open = TcpEcho::start(&shop.netns, shop.at(5432));
    let stream = Stream::listen(&far.netns, far.at(9001)).connect_from(&here.netns, Duration::from_mins(1));
    let ears = strangers.each_ref().map(|stranger| Capture::start(&stranger.netns, "eth0"));
    let echoes = strangers.each_ref().map(|stranger| UdpEcho::start(&stranger.netns, stranger.at(9000)));
    let denied = echoes.each_ref().map(|echo| Prober::start(&here.netns, echo.address(), Duration::from_millis(5)));

    let mut dice = Dice(SEED);
    let whole = || {
        for (host, to) in [(0, &near), (0, &far), (1, &far)] {
            for addr in to.both() {
                eventually(SOON, || ping(&here.netns, addr, SOON) == Outcome::Reached);
            }
            eventually(SOON, || differences(&cluster, host).is_empty());
        }
        assert_eq!(tcp_connect(&here.netns, open.address(), SOON), Outcome::Reached);
        // A sender that heard nothing for as long as a repair may take waits for as long before it tries again.
        let flows = stream.flows_within(2 * REPAIRED);
        assert!(flows, "client: {:?}, server: {:?}", stream.client_death(), stream.server_death());
    };
    let mut loud = loud(&here);
    for round in 0..ROUNDS {
        let host = dice.below(2);
        eventually(SOON, || settled(&cluster, host));
        let before = cluster.repaired(host);
        let damage = quiet(&cluster, host, &mut dice);
        eventually_counted(&cluster, host, (&before, &damage), &format!("round {round}"));
        whole();
        for _ in 0..loud.len().div_ceil(ROUNDS - round) {
            let (what, line) = loud.swap_remove(dice.below(loud.len()));
            let before = cluster.repaired(0);
            run(&line.replace("HOST", cluster.hosts[0].namespace().name()));
            let damage = what.map(|what| (what.to_owned(), 1)).into_iter().collect();
            eventually_counted(&cluster, 0, (&before, &damage), &line);
            whole();
        }
    }
    for probes in denied {
        let report = probes.stop();
        assert!(report.sent > 100 && report.lost.len() as u64 == report.sent, "{report:?}");
    }
    // Answers that the ear's own pings get are not among these.
    let from_here =
        |frame: &[u8]| here.both().iter().any(|addr| frame.windows(16).any(|bytes| is_source(bytes, *addr)));
    for ear in &ears {
        let leaked = ear.frames().into_iter().find(|seen| !seen.was_sent() && from_here(seen.frame.bytes()));
        assert!(leaked.is_none(), "{}", leaked.unwrap());
    }
}

/// Whether these are the bytes of an address where a packet has it: four of them are rare enough by chance.
fn is_source(bytes: &[u8], addr: std::net::IpAddr) -> bool {
    match addr {
        std::net::IpAddr::V4(addr) => bytes.starts_with(&addr.octets()),
        std::net::IpAddr::V6(addr) => bytes.starts_with(&addr.octets()),
    }
}

#[test]
fn the_daemon_does_not_look_at_its_own_doings() {
    /// So many endpoints, and so often a tick in seconds.
    const ENDPOINTS: u64 = 4;
    const TICK: u64 = 5;
    let cluster = Cluster::of(1, Family::V4);
    // With it the host gets what all its endpoints share.
    let _first = cluster.container(0, "first", "shop/web");
    let passes = || cluster.weft(0, &["status"])["reconcile"]["passes"].as_u64().unwrap();
    let (before, began) = (passes(), Instant::now());
    let mut attached = Vec::new();
    for number in 1..=ENDPOINTS {
        attached.push(cluster.container(0, &format!("a{number}"), "shop/web"));
        // One for each, and one at each tick; what the kernel tells of them is nothing new, then and a while later.
        let expected = || number + began.elapsed().as_secs() / TICK + 1;
        throughout(Duration::from_secs(2), || passes() - before <= expected());
    }
    assert!(passes() - before >= ENDPOINTS);
}

/// Damage that the kernel tells nobody of: only looking finds it. All of it at once.
fn quiet(cluster: &Cluster, host: usize, dice: &mut Dice) -> Damage {
    let namespace = cluster.hosts[host].namespace();
    let pins = Pins::new(cluster.hosts[host].bpffs());
    let mut damage = Damage::new();
    let mut take = |name: &str, count: usize| *damage.entry(name.to_owned()).or_default() += count as u64;
    // First: any repair puts the other slot in force.
    let epoch = u32::try_from(cluster.weft(host, &["status"])["epoch"].as_u64().unwrap()).unwrap();
    let sets = Map::<table::Sets>::open(&pins).unwrap();
    let in_force = sets.entries().unwrap().into_keys().filter(|key| key.slot == Epoch(epoch).slot()).collect();
    take(sets.name(), lose(&sets, in_force, dice));
    macro_rules! lose {
        ($($handle:ident $table:ident),*) => {
            $(
                let table = $handle::<table::$table>::open(&pins).unwrap();
                let keys = table.entries().unwrap().into_keys().collect();
                take(table.name(), lose(&table, keys, dice));
            )*
        };
    }
    lose!(Map Endpoints, Trie Routes, Map Peers, Map PeerAddresses, Map Members, Map PeerLists, Trie PrefixLists);
    lose!(Trie RuleLists);

    let attacher = Attacher::new(pins);
    let mut attached = attacher.list().unwrap();
    for _ in 0..2 {
        let lost = attached.swap_remove(dice.below(attached.len()));
        namespace.run(|| attacher.detach(&lost.interface, lost.place).unwrap());
        take("programs", 1);
    }
    namespace.nft("delete table inet weft");
    take("masquerading", 1);
    namespace.set_sysctl("ipv4/conf/weft0/forwarding", "0");
    take("kernel switches", 1);
    damage.retain(|_, count| *count > 0);
    damage
}

/// Takes up to three elements away.
fn lose<T: Keyed>(table: &T, mut keys: Vec<T::Key>, dice: &mut Dice) -> usize {
    let count = keys.len().min(1 + dice.below(3));
    for _ in 0..count {
        table.delete(&keys.swap_remove(dice.below(keys.len()))).unwrap();
    }
    count
}

/// Damage to the first host that shows on netlink: what is counted, and how it is done.
fn loud(here: &Container) -> Vec<(Option<&'static str>, String)> {
    let gateway = Some("gateway addresses and routes");
    let devices = Some("devices");
    let link = here.netns.ip("-o link show eth0");
    assert!(link.contains("eth0@if"), "{link}");
    [
        (gateway, "ip -n HOST route del 10.1.0.0/16 dev weft0"),
        (gateway, "ip -n HOST route del fd00:2::/32 dev weft0"),
        (gateway, "ip -n HOST addr del 10.1.1.1/32 dev weft0"),
        (gateway, "ip -n HOST addr del fd00:2:1::1/128 dev weft0"),
        (gateway, "ip -n HOST link set weft0 down"),
        (gateway, "ip -n HOST link set weft0 mtu 1300"),
        (devices, "ip -n HOST link del weft0"),
        (devices, "ip -n HERE link del eth0"),
        (None, "ip -n HOST neigh flush dev eth0"),
        (None, "ip -n HERE neigh flush dev eth0"),
    ]
    .map(|(what, line)| (what, line.replace("HERE", here.netns.name())))
    .into()
}

fn eventually_counted(cluster: &Cluster, host: usize, (before, damage): (&Damage, &Damage), what: &str) {
    let of = |counts: &Damage, kind| counts.get(kind).copied().unwrap_or_default();
    let mut now = Damage::new();
    let counted = holds_within(REPAIRED, || {
        now = cluster.repaired(host);
        damage.iter().all(|(kind, count)| of(&now, kind) >= of(before, kind) + count)
    });
    assert!(counted, "{what}: from {before:?} to {now:?}, for damage of {damage:?}");
}

/// Whether the plan and the tables agree, and what is in force is what the daemon knows.
fn settled(cluster: &Cluster, host: usize) -> bool {
    let status = cluster.weft(host, &["status"]);
    status["in_force"] == status["revision"] && differences(cluster, host).is_empty()
}

/// Elements that are not as they should be.
fn differences(cluster: &Cluster, host: usize) -> Vec<String> {
    let maps = cluster.weft(host, &["maps"]);
    let maps = maps["maps"].as_array().unwrap().iter();
    let entries = maps.flat_map(|map| map["entries"].as_array().unwrap().iter().map(|entry| (&map["name"], entry)));
    let differ = entries.filter(|(_, entry)| !["same", "unplanned"].contains(&entry["compared"].as_str().unwrap()));
    differ.map(|(name, entry)| format!("{name} {entry}")).collect()
}

/// The same numbers in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

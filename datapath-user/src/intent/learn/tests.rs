//! What is learned, from contacts to rules.

use std::{net::IpAddr, sync::Arc};

use proptest::prelude::*;
use weft_common::{
    header::protocol,
    id::{Identity, RoleId},
    policy::Query,
};

use super::*;
use crate::front::api::dto::{
    learning::{Membership, Who},
    policies::Document,
};
use crate::intent;
use crate::model::{
    app::{App, Role},
    example,
    name::RoleName,
};
use crate::plan::{NodePlan, ask::Asker};

/// `shop/web`, `shop`, `blog/?` for a role that is not known, `host`, an address outside, each with ` at ADDRESS` if it
/// counts.
fn who(text: &str) -> Who {
    let (name, at) = text.split_once(" at ").unwrap_or((text, "10.9.9.9"));
    if let Ok(address) = name.parse::<IpAddr>() {
        return Who { app: Who::OUTSIDE.to_owned(), role: Membership::None, address };
    }
    let (app, role) = match name.split_once('/') {
        None => (name, Membership::None),
        Some((app, "?")) => (app, Membership::Unknown),
        Some((app, role)) => (app, Membership::Role(role.to_owned())),
    };
    Who { app: app.to_owned(), role, address: at.parse().unwrap() }
}

/// `shop/web -> blog/db tcp/80`.
fn contact(text: &str) -> Contact {
    let (from, rest) = text.split_once(" -> ").unwrap();
    let (to, what) = rest.rsplit_once(' ').unwrap();
    let (name, port) = what.split_once('/').unwrap();
    let protocol = match name {
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        "icmp" => protocol::ICMP,
        "icmpv6" => protocol::ICMPV6,
        other => other.parse().unwrap(),
    };
    Contact { from: who(from), to: who(to), protocol, port: port.parse().unwrap(), scattered: false }
}

/// Without rules of its own.
fn base() -> Cluster {
    Cluster { rules: Arc::default(), ..example::cluster() }
}

fn app<'a>(cluster: &'a mut Cluster, name: &str) -> &'a mut App {
    Arc::make_mut(&mut cluster.apps).get_mut(&name.parse().unwrap()).unwrap()
}

fn request(contacts: Vec<Contact>, asked: &[&str]) -> LearnPolicy {
    let asked = asked.iter().map(|host| host.parse().unwrap()).collect();
    LearnPolicy { app: "shop".parse().unwrap(), policy: None, contacts, asked }
}

fn learned(cluster: &Cluster, contacts: Vec<Contact>) -> Learned {
    learn(cluster, &request(contacts, &["h1", "h2"])).unwrap()
}

fn document(text: &str) -> Vec<Document> {
    vec![Document { name: "m.yaml".to_owned(), text: text.to_owned() }]
}

/// What applying a text makes of a cluster, and how many expectations hold.
fn applied(cluster: &Cluster, text: &str) -> (Cluster, u64) {
    let change = intent::wanted(cluster, intent::read(document(text)).unwrap());
    intent::preview(cluster, &change, &NodePlan::default()).unwrap()
}

/// The items of a list of the manifest.
fn listed(manifest: &str, key: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.split(':').next() != Some(key)).skip(1);
    lines.map_while(|line| line.strip_prefix("  - ")).map(str::to_owned).collect()
}

fn rules(learned: &Learned) -> Vec<String> {
    let mut rules: Vec<_> = listed(&learned.manifest, "rules").iter().map(|rule| rule.replace("allow ", "")).collect();
    rules.sort();
    rules
}

fn sorted<'a>(texts: &[&'a str]) -> Vec<&'a str> {
    let mut sorted = texts.to_vec();
    sorted.sort_unstable();
    sorted
}

#[test]
fn what_was_seen_is_allowed_by_the_fewest_rules() {
    let check = |contacts: &[&str], expect: &[&str]| {
        let learned = learned(&base(), contacts.iter().map(|text| contact(text)).collect());
        assert_eq!(rules(&learned), sorted(expect), "{contacts:?}");
        assert_eq!((&learned.against, &learned.notes), (&vec![], &vec![]), "{contacts:?}");
    };
    check(&[], &[]);
    check(&["shop/web -> blog/db tcp/5432"], &["shop/web -> blog/db tcp/5432"]);
    // Ports are one list; what touches is a range; each protocol is a rule.
    check(
        &["shop/web -> shop/db tcp/81", "shop/web -> shop/db tcp/80", "shop/web -> shop/db tcp/443"],
        &["shop/web -> shop/db tcp/80-81,443"],
    );
    check(
        &["shop/web -> shop/db tcp/53", "shop/web -> shop/db udp/53"],
        &["shop/web -> shop/db tcp/53", "shop/web -> shop/db udp/53"],
    );
    check(
        &["host -> shop/web tcp/80", "shop/web -> host udp/53"],
        &["shop/web -> host udp/53", "host -> shop/web tcp/80"],
    );
    // All that there can be in an app is the app.
    check(
        &["shop/web -> host udp/53", "shop/db -> host udp/53"],
        &["shop/web -> host udp/53", "shop/db -> host udp/53"],
    );
    check(&["shop/web -> host udp/53", "shop/db -> host udp/53", "shop -> host udp/53"], &["shop -> host udp/53"]);
    check(
        &["shop/web -> host udp/53", "shop/db -> host udp/53", "shop -> host udp/53", "shop/db -> host udp/123"],
        &["shop -> host udp/53", "shop/db -> host udp/123"],
    );
    // Where each of two has something of its own, one rule for both would be one more.
    check(
        &["blog/db -> shop tcp/1", "blog/db -> shop tcp/2", "blog -> shop tcp/1", "blog -> shop tcp/3"],
        &["blog{!role} -> shop{!role} tcp/1,3", "blog/db -> shop{!role} tcp/1-2"],
    );
    check(&["shop -> blog/db tcp/1"], &["shop{!role} -> blog/db tcp/1"]);
    // The type of ICMP, in both families where a rule means both.
    check(&["shop/web -> shop/db icmp/8"], &["shop/web -> shop/db icmp/8"]);
    check(&["shop/web -> shop/db icmpv6/128"], &["shop/web -> shop/db icmpv6/128"]);
    check(
        &["shop/web -> shop/db icmp/8", "shop/web -> shop/db icmpv6/128", "shop/web -> shop/db icmp/13"],
        &["shop/web -> shop/db icmp/8", "shop/web -> shop/db icmp/13"],
    );
    // Addresses outside: those that fill a prefix are one.
    check(&["shop/web -> 192.0.2.7 tcp/443"], &["shop/web -> 192.0.2.7/32 tcp/443"]);
    check(
        &["shop/web -> 192.0.2.6 tcp/443", "shop/web -> 192.0.2.7 tcp/443", "shop/web -> 192.0.2.7 tcp/25"],
        &["shop/web -> 192.0.2.6/31 tcp/443", "shop/web -> 192.0.2.7/32 tcp/25"],
    );
    check(&["2001:db8::7 -> shop/web tcp/443"], &["2001:db8::7/128 -> shop/web tcp/443"]);
    // What others exchange is not asked.
    check(&["blog/db -> blog/db tcp/1", "blog -> host tcp/1"], &[]);
}

#[test]
fn what_rules_can_say_only_at_length_is_wider_and_noted() {
    let check = |contacts: Vec<String>, expect: &[&str], note: &str| {
        let learned = learned(&base(), contacts.iter().map(|text| contact(text)).collect());
        assert_eq!(rules(&learned), sorted(expect));
        assert!(learned.notes.iter().any(|told| told.contains(note)), "{:?}", learned.notes);
        assert!(learned.manifest.contains(&format!("# {}\n", learned.notes[0])), "{}", learned.manifest);
        assert_eq!(learned.against, [""; 0]);
    };
    let outside = |n: u32| format!("shop/web -> 192.0.2.{} tcp/443", n * 2);
    check((1..10).map(outside).collect(), &["shop/web -> outside tcp/443"], "outside tcp: 9 addresses were seen");
    let mixed = (1..10).map(outside).chain(["shop/web -> 192.0.2.2 tcp/25".to_owned()]).collect();
    check(mixed, &["shop/web -> 192.0.2.2/32 tcp/25", "shop/web -> outside tcp/443"], "9 addresses");
    let scattered = (0..40).map(|n| format!("shop/web -> shop/db tcp/{}", 32_768 + 10 * n));
    let scattered = scattered.chain(["shop/web -> shop/db tcp/80".to_owned()]).collect();
    check(scattered, &["shop/web -> shop/db tcp/80,32768-33158"], "40 ports were seen");
    check(vec!["shop/web -> shop/db 47/0".to_owned()], &["shop/web -> shop/db any"], "no name for");
    let covered = ["shop/web -> shop/db 47/0", "shop/web -> shop/db tcp/80"].map(str::to_owned);
    check(covered.into(), &["shop/web -> shop/db any"], "no name for");
    // Of an endpoint of a host that was not asked nobody knows the role.
    check(
        vec!["shop/web -> blog/? at 10.2.3.4 tcp/80".to_owned()],
        &["shop/web -> blog tcp/80"],
        "host h3 was not asked",
    );
    let known = ["shop/web -> blog/? at 10.2.3.4 tcp/80", "shop/web -> blog/db tcp/80"].map(str::to_owned);
    check(known.into(), &["shop/web -> blog tcp/80"], "host h3 was not asked");
}

#[test]
fn the_host_of_the_receiver_has_the_say() {
    let here = contact("shop/web -> blog/? at 10.2.2.4 tcp/80");
    // It let nothing in: that was not seen to pass.
    assert_eq!(rules(&learned(&base(), vec![here.clone()])), [""; 0]);
    let there = contact("shop/web -> blog/db at 10.2.2.4 tcp/80");
    assert_eq!(rules(&learned(&base(), vec![here.clone(), there])), ["shop/web -> blog/db tcp/80"]);
    // An app without roles has none to be known.
    let mut plain = base();
    app(&mut plain, "blog").roles.clear();
    plain.endpoints.clear();
    assert_eq!(rules(&learned(&plain, vec![here])), ["shop/web -> blog tcp/80"]);
}

#[test]
fn what_is_gone_or_has_no_name_is_left_out_and_noted() {
    let contacts = ["shop/web -> wiki tcp/1", "shop/old -> blog/db tcp/1", "shop/web -> blog/db tcp/0"];
    let contacts = contacts.iter().map(|text| contact(text)).chain([Contact {
        from: Who { app: "x\u{1b}[2J\n- allow any -> any".to_owned(), ..who("shop") },
        ..contact("shop -> shop tcp/1")
    }]);
    let learned = learned(&base(), contacts.collect());
    assert_eq!(rules(&learned), [""; 0]);
    assert_eq!(learned.notes.len(), 2, "{:?}", learned.notes);
    assert!(learned.notes[0].contains("3 contacts with apps or roles that are no more"), "{:?}", learned.notes);
    assert!(learned.manifest.is_ascii() && !learned.manifest.contains('\u{1b}'), "{}", learned.manifest);
}

#[test]
fn roles_that_labels_tell_apart_are_told_apart() {
    let mut cluster = base();
    let shop = app(&mut cluster, "shop");
    for (name, labels, ports) in [("web-prod", "role=web,env=prod", ""), ("named", "role=db", "pg=tcp/5432")] {
        let role: RoleName = name.parse().unwrap();
        let mut made = Role::plain(&role);
        (made.labels, made.ports) = (labels.parse().unwrap(), ports.parse().unwrap());
        shop.roles.insert(role, made);
    }
    let check = |contacts: &[&str], expect: &[&str], notes: usize| {
        let learned = learned(&cluster, contacts.iter().map(|text| contact(text)).collect());
        assert_eq!(rules(&learned), expect, "{contacts:?}");
        assert_eq!(learned.notes.len(), notes, "{:?}", learned.notes);
        assert_eq!(learned.against, [""; 0]);
    };
    check(&["shop/web-prod -> blog/db tcp/1"], &["shop/web-prod -> blog/db tcp/1"], 0);
    check(&["shop/web -> blog/db tcp/1"], &["shop{role=web,!env} -> blog/db tcp/1"], 0);
    check(&["shop/web -> blog/db tcp/1", "shop/web-prod -> blog/db tcp/1"], &["shop/web -> blog/db tcp/1"], 0);
    check(&["shop/named -> blog/db tcp/1"], &["shop/named -> blog/db tcp/1"], 0);
    // They differ in their ports alone, and no selector sees those.
    check(&["shop/db -> blog/db tcp/1"], &["shop{role=db,!env} -> blog/db tcp/1"], 1);
}

#[test]
fn another_policy_that_denies_what_was_seen_is_named() {
    let ssh = "weft: v1\npolicy: ssh\nrules:\n  - deny shop -> blog tcp/22 precedence 2000\nexpect:\n  - shop -> outside deny\n";
    let mut cluster = base();
    app(&mut cluster, "shop").defaults.to_outside = Gate::Closed;
    let (cluster, _) = applied(&cluster, ssh);
    let contacts = ["shop/web -> blog/db tcp/22", "shop/web -> blog/db tcp/80", "shop/web -> 192.0.2.7 tcp/443"];
    let learned = learned(&cluster, contacts.iter().map(|text| contact(text)).collect());
    let denied = "shop/web -> blog/db tcp/22 was seen and does not pass, by \
                  `deny shop -> blog tcp/22 precedence 2000` of policy ssh";
    assert_eq!(learned.against[0], denied);
    assert!(
        learned.against.iter().any(|line| line.contains("policy ssh expects `shop -> outside any deny`")),
        "{learned:?}"
    );
    assert!(learned.manifest.contains(&format!("# {denied}\n")), "{}", learned.manifest);
    let expected = listed(&learned.manifest, "expect");
    assert_eq!(expected[0], "shop/web -> 192.0.2.7/32 tcp/443 allow", "{expected:?}");
}

#[test]
fn a_learned_manifest_is_accepted_and_expects_what_it_says() {
    let check = |shadow: bool, expect: &[&str], later: &[&str]| {
        let mut cluster = base();
        app(&mut cluster, "shop").shadow = shadow;
        let learned = learned(&cluster, vec![contact("shop/web -> shop/db tcp/5432")]);
        assert_eq!(listed(&learned.manifest, "expect"), expect);
        for line in later {
            assert!(learned.manifest.ends_with(&format!("#   - {line}\n")), "{}", learned.manifest);
        }
        let validated = intent::validate(intent::read(document(&learned.manifest)).unwrap()).unwrap();
        assert_eq!((validated.rules, validated.expectations), (1, learned.expectations));
        let (next, held) = applied(&cluster, &learned.manifest);
        assert_eq!(held, learned.expectations);
        assert_eq!(next.apps[&"shop".parse().unwrap()].defaults, CLOSED);
        assert_eq!(learned.contacts, 1);
    };
    let denied = ["outside -> shop any deny", "blog -> shop any deny"];
    check(false, &["shop/web -> shop/db tcp/5432 allow", denied[0], denied[1]], &[]);
    check(true, &["shop/web -> shop/db tcp/5432 allow"], &denied[1..]);
}

/// Everybody that there is, and addresses outside.
const PARTIES: [&str; 10] =
    ["shop/web", "shop/db", "shop", "blog/db", "blog", "host", "192.0.2.4", "192.0.2.5", "192.0.2.8", "198.51.100.9"];
const PORTS: [&str; 6] = ["tcp/80", "tcp/81", "tcp/443", "udp/81", "icmp/8", "icmp/13"];

fn identity(cluster: &Cluster, who: &Who) -> Identity {
    match who.app.as_str() {
        "host" => Identity::HOST,
        "outside" => Identity::OUTSIDE,
        name => {
            let app = &cluster.apps[&name.parse().unwrap()];
            let role = match &who.role {
                Membership::Role(role) => app.roles[&role.parse().unwrap()].number,
                Membership::None | Membership::Unknown => RoleId::NONE,
            };
            Identity::new(app.number, role)
        }
    }
}

/// Whether the tables of a cluster let the first packet pass.
fn passes(cluster: &Cluster, asker: &Asker<'_>, contact: &Contact) -> bool {
    let is_icmp = contact.protocol == protocol::ICMP;
    let query = Query {
        src: identity(cluster, &contact.from),
        dst: identity(cluster, &contact.to),
        src_addr: contact.from.address.into(),
        dst_addr: contact.to.address.into(),
        protocol: contact.protocol,
        port: if is_icmp { contact.port << 8 } else { contact.port },
    };
    asker.decide(&query).verdict.is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The oracle is the list of what was seen: it knows nothing of rules.
    #[test]
    fn just_what_was_seen_passes(
        picked in prop::collection::vec((0..PARTIES.len(), 0..PARTIES.len(), 0..PORTS.len()), 0..60),
        all_of_shop in prop::collection::vec((3..PARTIES.len(), any::<bool>(), 0..PORTS.len()), 0..4),
    ) {
        let one = |from: usize, to: usize, what: usize| {
            contact(&format!("{} -> {} {}", PARTIES[from], PARTIES[to], PORTS[what]))
        };
        let is_of_shop = |from: usize, to: usize| from < 3 || to < 3;
        let mut seen: Vec<_> = picked
            .into_iter()
            .filter(|(from, to, _)| is_of_shop(*from, *to))
            .map(|(from, to, what)| one(from, to, what))
            .collect();
        // What all roles do is where rules are merged.
        for (other, is_from, what) in all_of_shop {
            seen.extend((0..3).map(|own| if is_from { one(other, own, what) } else { one(own, other, what) }));
        }
        let cluster = base();
        let learned = learned(&cluster, seen.clone());
        prop_assert_eq!((&learned.notes, &learned.against), (&vec![], &vec![]));
        let (next, _) = applied(&cluster, &learned.manifest);
        let asker = Asker::new(&next);
        for (from, to) in (0..PARTIES.len()).flat_map(|from| (0..PARTIES.len()).map(move |to| (from, to))) {
            for what in (0..PORTS.len()).filter(|_| is_of_shop(from, to)) {
                let asked = one(from, to, what);
                let expect = seen.contains(&asked);
                prop_assert_eq!(passes(&next, &asker, &asked), expect, "{:?}\n{}", asked, learned.manifest);
                let other = Contact { port: asked.port + 1000, ..asked };
                prop_assert!(asked_types(&other) || !passes(&next, &asker, &other), "{:?}", other);
            }
        }
        prop_assert!(learned.rules <= seen.len() as u64);
    }
}

/// Whether it is of ICMP, which has no such port.
fn asked_types(contact: &Contact) -> bool {
    contact.protocol == protocol::ICMP
}

#[test]
fn the_order_of_what_was_seen_does_not_matter() {
    let texts =
        ["shop/web -> blog/db tcp/80", "shop/db -> blog/db tcp/80", "shop -> blog/db tcp/80", "host -> shop udp/9"];
    let mut contacts: Vec<_> = texts.iter().map(|text| contact(text)).collect();
    let before = learned(&base(), contacts.clone());
    contacts.reverse();
    assert_eq!(learned(&base(), contacts), before);
    let unknown = LearnPolicy { app: "wiki".parse().unwrap(), ..request(Vec::new(), &[]) };
    assert_eq!(learn(&base(), &unknown).unwrap_err().message, "there is no app wiki: see weft app ls");
}

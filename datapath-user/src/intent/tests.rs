//! What manifests come to, from their text to the answer.

use super::*;
use crate::front::api::dto::policies::{Cell, Kind as How, ShowMatrix, Sign};
use crate::model::example;

const BLOG: &str = "\
weft: v1
policy: blog
rules:
  - allow shop/web -> blog/db tcp/5432
  - deny shop -> blog/db tcp/22 precedence 2000 as ssh
expect:
  - shop/web -> blog/db tcp/5432 allow
  - shop -> blog tcp/22 deny
";

fn document(text: &str) -> Vec<Document> {
    vec![Document { name: "m.yaml".to_owned(), text: text.to_owned() }]
}

fn base() -> Cluster {
    Cluster { rules: Arc::default(), ..example::cluster() }
}

/// As the functions of these names, where nothing runs.
fn preview(cluster: &Cluster, wanted: &Wanted) -> Result<(Cluster, u64), Refusal> {
    super::preview(cluster, wanted, &NodePlan::default())
}

fn kept(before: &Cluster, next: &Cluster, put: impl Fn(&PolicyName) -> bool) -> Result<u64, Refusal> {
    super::kept(before, next, put, &NodePlan::default())
}

/// What applying a text makes of a cluster.
fn apply(cluster: &Cluster, text: &str) -> Result<Cluster, Refusal> {
    preview(cluster, &wanted(cluster, read(document(text))?)).map(|(next, _)| next)
}

fn diff(cluster: &Cluster, text: &str) -> Vec<String> {
    let wanted = wanted(cluster, read(document(text)).unwrap());
    let (next, _) = preview(cluster, &wanted).unwrap();
    let lines = difference(cluster, &next, &wanted.change).into_iter().flat_map(|part| {
        let how = match part.change {
            How::New => "new",
            How::Changed => "changed",
            How::Gone => "gone",
        };
        let sign = |sign| if sign == Sign::Added { '+' } else { '-' };
        let lines: Vec<_> = part.lines.iter().map(|line| format!("{} {}", sign(line.is), line.text)).collect();
        std::iter::once(format!("{}: {how}", part.what)).chain(lines)
    });
    lines.collect()
}

#[test]
fn texts_without_a_document_are_no_manifest() {
    for text in ["", " \n", "# later\n", "---\n# one\n---\n...\n"] {
        let why = "there is no manifest in m.yaml: it is empty, or has only comments";
        assert_eq!(read(document(text)).unwrap_err().message, why, "{text:?}");
        // Beside one that has one it is left out.
        let both = [document(text), document(BLOG)].concat();
        assert_eq!(read(both).unwrap().policies.len(), 1);
    }
    // Nobody has a policy: that was said.
    assert_eq!(read(document("{apiVersion: v1, kind: List, items: []}")).unwrap().policies.len(), 0);
}

#[test]
fn applying_twice_changes_nothing_and_differs_in_nothing() {
    let once = apply(&base(), BLOG).unwrap();
    assert_eq!(once.rules.len(), 2);
    assert!(once.rules.iter().all(|rule| rule.source.as_ref().is_some_and(|source| &*source.file == "m.yaml")));
    assert_eq!(apply(&once, BLOG).unwrap(), once);
    assert_eq!(diff(&once, BLOG), [""; 0]);
    // Where a rule is written is no difference.
    assert_eq!(diff(&once, &BLOG.replace("rules:", "# why\nrules:")), [""; 0]);
}

#[test]
fn a_difference_names_what_comes_and_goes() {
    let once = apply(&base(), BLOG).unwrap();
    assert_eq!(
        diff(&base(), BLOG),
        [
            "policy blog: new",
            "+ allow shop/web -> blog/db tcp/5432",
            "+ deny shop -> blog/db tcp/22 precedence 2000 as ssh",
            "+ expect shop/web -> blog/db tcp/5432 allow",
            "+ expect shop -> blog tcp/22 deny",
        ]
    );
    let other =
        BLOG.replace("  - allow shop/web -> blog/db tcp/5432\n", "  - allow shop/web -> blog/db tcp/5432,5433\n");
    assert_eq!(
        diff(&once, &other),
        ["policy blog: changed", "- allow shop/web -> blog/db tcp/5432", "+ allow shop/web -> blog/db tcp/5432-5433"]
    );
    let gone = Wanted::without(["blog".parse().unwrap()].into());
    let (next, _) = preview(&once, &gone).unwrap();
    assert_eq!(difference(&once, &next, &gone.change)[0].change, How::Gone);
}

#[test]
fn what_is_exported_is_applied_as_the_same() {
    let once = apply(&base(), BLOG).unwrap();
    let exported = export(&once, &[], false).unwrap();
    assert_eq!(exported.policies, ["blog"]);
    let again = apply(&base(), &exported.manifest).unwrap();
    let bare = |cluster: &Cluster| cluster.rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(bare(&again), bare(&once));
    assert_eq!(diff(&once, &exported.manifest), [""; 0]);
    let mut loose = once.clone();
    Arc::make_mut(&mut loose.rules).insert(0, Arc::new("deny shop -> outside".parse().unwrap()));
    assert_eq!(export(&loose, &[], false).unwrap().policies, ["blog"]);
    let all = export(&loose, &[], true).unwrap();
    assert_eq!(all.policies, ["blog", "rules"]);
    assert!(all.manifest.contains("deny shop -> outside any"), "{}", all.manifest);
    assert!(export(&once, &["no".parse().unwrap()], false).unwrap_err().message.contains("there is no policy no"));
}

#[test]
fn a_mistake_is_told_with_its_place_and_all_others() {
    let refused =
        apply(&base(), &BLOG.replace("tcp/5432\n", "tcp/99999\n").replace("policy: blog", "policy: blog\ncolour: red"))
            .unwrap_err();
    assert_eq!(refused.more.len(), 1, "{refused:?}");
    assert!(refused.message.starts_with("m.yaml:3:1: "), "{refused:?}");
    assert!(refused.more[0].starts_with("m.yaml:5:"), "{refused:?}");
    // What only the cluster knows to be wrong has the place of its rule.
    let refused = apply(&base(), &BLOG.replace("shop/web -> blog/db", "wiki -> blog/db")).unwrap_err();
    assert!(
        refused.message.starts_with("m.yaml:4:5: rule `allow wiki -> blog/db tcp/5432`: there is no app wiki"),
        "{refused:?}"
    );
}

#[test]
fn what_a_cluster_shows_to_be_wrong_with_an_object_is_told_once_and_in_its_words() {
    let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
    let peers = "[{from: [{podSelector: {}}]}]";
    let policy = |metadata: &str| format!("{head}metadata: {metadata}\nspec: {{ingress: {peers}}}\n");
    let told = |text: &str, expect: &[&str]| {
        let refused = apply(&base(), text).unwrap_err();
        let all: Vec<_> = std::iter::once(&refused.message).chain(&refused.more).collect();
        assert_eq!(all, expect, "{text}");
    };
    let apps = "there is no app APP: the apps are blog, shop";
    let wiki = format!("m.yaml:3:32: NetworkPolicy p: metadata.namespace: {}", apps.replace("APP", "wiki"));
    told(&policy("{name: p, namespace: wiki}"), &[&wiki]);
    let none = "m.yaml:8:18: NetworkPolicy q: metadata has no namespace, so it is default";
    let none = format!("{none}: {}", apps.replace("APP", "default"));
    told(&format!("{}---\n{}", policy("{name: p, namespace: wiki}"), policy("{name: q}")), &[&none, &wiki]);
    // An app of a manifest has a place, too.
    let overlapping = "weft: v1\napps:\n  wiki: {prefixes: [10.1.0.0/16]}\n";
    let refused = apply(&base(), overlapping).unwrap_err();
    assert!(refused.message.starts_with("m.yaml:3:3: 10.1.0.0/16 of app wiki overlaps"), "{refused:?}");
}

#[test]
fn what_breaks_an_expectation_is_refused_with_who_breaks_it() {
    let broken = BLOG.replace("precedence 2000", "precedence 999");
    let broken = broken.replace("  - deny", "  - allow shop -> blog tcp/22\n  - deny");
    let refused = apply(&base(), &broken).unwrap_err();
    assert_eq!(refused.message, "nothing was changed, it would break what is expected");
    assert_eq!(refused.more.len(), 1, "{refused:?}");
    let said = "m.yaml:9: policy blog expects `shop -> blog tcp/22 deny`: shop -> blog tcp/22 passes, by \
                `allow shop -> blog tcp/22` (m.yaml:5), and so for 5 more pairs";
    assert_eq!(refused.more[0], said);
    // Whoever only asks hears the same, and what would change.
    let change = wanted(&base(), read(document(&broken)).unwrap());
    let (next, breaks) = outcome(&base(), &change, &NodePlan::default()).unwrap();
    assert_eq!((difference(&base(), &next, &change.change).len(), breaks), (1, refused.more));

    // Another change that breaks it is refused too, and one that has nothing to do with it is not.
    let once = apply(&base(), BLOG).unwrap();
    let with = |rule: &str| {
        let mut next = once.clone();
        Arc::make_mut(&mut next.rules).insert(0, Arc::new(rule.parse().unwrap()));
        next
    };
    let hole = with("allow shop -> blog tcp/22 precedence 9999");
    assert!(kept(&once, &hole, |_| false).unwrap_err().more[0].contains("shop -> blog tcp/22 passes"));
    assert_eq!(kept(&once, &with("allow shop -> blog tcp/23"), |_| false).unwrap(), 2);
    // What was broken before, by a hand in the file, stops nobody who repairs something else.
    let mut later = hole.clone();
    Arc::make_mut(&mut later.rules).insert(0, Arc::new("deny shop -> outside".parse().unwrap()));
    assert_eq!(kept(&hole, &later, |_| false).unwrap(), 1);
    kept(&hole, &later, |_| true).unwrap_err();
}

#[test]
fn apps_of_a_manifest_come_with_its_policies_and_what_it_does_not_say_stays() {
    let text = "\
weft: v1
policy: wiki
apps:
  wiki: {prefixes: [10.3.0.0/16], roles: [web], from-apps: open, blocks: {h1: [10.3.1.0/24]}}
  shop: {labels: {team: a}}
rules: [allow shop -> wiki/web tcp/80]
expect: ['shop -> wiki/web tcp/81 allow', '[team=a] -> wiki udp/9 allow']
";
    let next = apply(&base(), text).unwrap();
    let wiki = &next.apps[&"wiki".parse().unwrap()];
    assert_eq!(wiki.defaults.from_apps, crate::model::app::Gate::Open);
    assert_eq!(next.hosts[&"h1".parse().unwrap()].blocks_of(&wiki.name).count(), 1);
    let shop = &next.apps[&"shop".parse().unwrap()];
    assert_eq!((shop.labels.to_string().as_str(), shop.roles.len(), shop.prefixes.len()), ("team=a", 2, 2));
    assert_eq!(next.hosts, {
        let mut hosts = base().hosts;
        let block = "10.3.1.0/24".parse().unwrap();
        Arc::make_mut(&mut hosts)
            .get_mut(&"h1".parse().unwrap())
            .unwrap()
            .blocks
            .insert(wiki.name.clone(), vec![block]);
        hosts
    });
    assert_eq!(diff(&next, text), [""; 0]);
}

#[test]
fn without_a_daemon_manifests_are_enough() {
    let apps =
        "apps:\n  shop: {prefixes: [10.1.0.0/16], roles: [web, db]}\n  blog: {prefixes: [10.2.0.0/16], roles: [db]}\n";
    let text = BLOG.replace("rules:", &format!("{apps}rules:"));
    let cluster = describe(read(document(&text)).unwrap(), None).unwrap();
    assert_eq!(test(&cluster).failed, 0);
    let unknown = describe(read(document(BLOG)).unwrap(), None).unwrap_err();
    assert!(unknown.message.contains("there is no app"), "{unknown:?}");
    let validated = validate(read(document(BLOG)).unwrap()).unwrap();
    assert_eq!((validated.rules, validated.expectations, validated.policies.len()), (2, 2, 1));
    let file = "[host.h1]\naddress = \"192.0.2.1\"\n[app.shop]\nprefixes = [\"10.1.0.0/16\"]\nroles = [\"web\"]\n\
                [app.blog]\nprefixes = [\"10.2.0.0/16\"]\nroles = [\"db\"]\n";
    let base = Document { name: "cluster.toml".to_owned(), text: file.to_owned() };
    let cluster = describe(read(document(BLOG)).unwrap(), Some(base.clone())).unwrap();
    assert_eq!(test(&cluster).failed, 0);
    let request = ShowMatrix { ports: vec!["tcp/5432".parse().unwrap()], apps: vec!["blog".parse().unwrap()] };
    let shown = matrix(&cluster, None, &request).unwrap();
    assert_eq!(shown.parties, ["blog", "blog/db", "host", "outside"]);
    assert_eq!(shown.tables[0].rows[3][1], Cell::Nothing);
    let torn = Document { text: file.replace("/16", "/33"), ..base };
    assert!(describe(nothing(), Some(torn)).unwrap_err().message.starts_with("cluster.toml:"));
}

#[test]
fn what_does_not_fit_is_refused_and_what_repairs_it_is_not() {
    use crate::plan::sizes::{Size, TooLarge};

    // A table of so many rules.
    let room = |max: usize| {
        move |cluster: &Cluster| {
            let needed = cluster.rules.len();
            if needed <= max { Ok(()) } else { Err(TooLarge(vec![Size { table: "RULES", needed, max }])) }
        }
    };
    let (none, two) = (base(), apply(&base(), BLOG).unwrap());
    admit(&none, &two, room(2)).unwrap();
    let refused = admit(&none, &two, room(1)).unwrap_err();
    assert_eq!((refused.kind, refused.more.len()), (Kind::Exhausted, 1));
    assert_eq!(refused.message, "nothing was changed, it does not fit into the tables");
    let said = "RULES needs 2 of 1 entries, rejected: use wider ranges of ports, or the same ports in many rules";
    assert_eq!(refused.more[0], said);
    // A hand in the file made it too large: one step back is taken though it is not enough.
    let one = Cluster { rules: Arc::new(two.rules[..1].to_vec()), ..two.clone() };
    admit(&two, &one, room(0)).unwrap();
    admit(&one, &two, room(0)).unwrap_err();
}

#[test]
fn a_cluster_that_no_host_could_enforce_is_refused_without_a_daemon() {
    let mut cluster = base();
    let rule = |hour| format!("allow shop -> shop until 1970-01-01T0{hour}:00:00Z");
    cluster.rules = example::rules((1..4).map(rule));
    let shop = Arc::make_mut(&mut cluster.apps).get_mut(&"shop".parse().unwrap()).unwrap();
    shop.roles.extend((1..9_000).map(|number| {
        let name: RoleName = format!("r{number}").parse().unwrap();
        (name.clone(), Role { number: RoleId(number), ..Role::plain(&name) })
    }));
    let at = |hours: u64| std::time::Duration::from_hours(hours);
    let refused = admit_alone(&cluster, at(0)).unwrap_err();
    assert_eq!(refused.message, "it does not fit into the tables of a host");
    assert!(refused.more[0].starts_with("SETS needs 144 0"), "{refused:?}");
    admit_alone(&cluster, at(2)).unwrap();
}

mod exported {
    use proptest::prelude::*;
    use weft_common::id::AppId;

    use super::*;
    use crate::model::app::Gate;
    use crate::plan::{NodePlan, digest::Digest, facts::Facts, plan};

    fn digest(cluster: &Cluster) -> Digest {
        let plan = plan(cluster, &"h1".parse().unwrap(), &Facts::default(), &NodePlan::default());
        Digest::of(&plan.policy)
    }

    fn gate() -> impl Strategy<Value = Gate> {
        prop::sample::select(vec![Gate::Open, Gate::Closed])
    }

    /// An app with roles as operators and `attach --label` make them.
    fn app(name: &'static str) -> impl Strategy<Value = App> {
        let labels = "([a-z]=[a-z]{0,2}(,[A-Z]=1)?)?";
        let ports = "(pg=tcp/[1-9]|dns=udp/53,dns=tcp/53)?";
        let role = ("[a-z]{1,3}|null|1e3", prop::option::of((labels, ports, prop::option::of(1..60_000_u16))));
        let gates = (gate(), gate(), gate(), gate());
        let number = prop::option::of(AppId::FIRST.0..=AppId::LAST.0);
        let said = (labels, prop::collection::vec(role, 0..4), gates, any::<bool>(), number);
        said.prop_map(move |(labels, roles, (inside, from_apps, from_host, to_outside), shadow, number)| {
            let prefix = if name == "shop" { "10.1.0.0/16" } else { "fd00:2::/32" };
            let mut app = example::app(name, &[prefix], &[]);
            app.labels = labels.parse().unwrap();
            app.defaults = Defaults { inside, from_apps, from_host, to_outside };
            app.shadow = shadow;
            app.number = number.map_or(app.number, AppId);
            app.roles.extend(roles.into_iter().map(|(name, more)| {
                let name: RoleName = name.parse().unwrap();
                let plain = Role::plain(&name);
                let role = more.map(|(labels, ports, number)| Role {
                    number: number.map_or(plain.number, RoleId),
                    labels: labels.parse().unwrap(),
                    ports: ports.parse().unwrap(),
                });
                (name, role.unwrap_or(plain))
            }));
            app
        })
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let side = || prop::sample::select(vec!["shop", "blog", "any{a=b}", "[a=b]", "host", "everyone", "10.0.0.0/8"]);
        let rest = "(shadow )?\\?(allow|deny|reject)\\?(any|tcp/[1-9]|udp/pg)( on ingress)?( precedence [1-9])?( until 2099-0[1-9]-01T00:00:00Z)?";
        (side(), side(), rest).prop_filter_map("taken", |(from, to, rest)| {
            let [shadow, action, rest] = rest.split('?').collect::<Vec<_>>()[..] else { return None };
            format!("{shadow}{action} {from} -> {to} {rest}").parse().ok()
        })
    }

    proptest! {
        #[test]
        fn all_makes_a_fresh_cluster_the_same(
            apps in (app("shop"), app("blog")),
            loose in prop::collection::vec(rule(), 0..4),
            of_policy in prop::collection::vec(rule(), 0..4),
        ) {
            let apps = [apps.0, apps.1].map(|app| (app.name.clone(), app));
            let is_mixed = !loose.is_empty() && !of_policy.is_empty();
            let own = of_policy.into_iter().map(|rule| Rule { policy: Some("own".parse().unwrap()), ..rule });
            let cluster = Cluster {
                apps: Arc::new(apps.into()),
                rules: Arc::new(loose.into_iter().chain(own).map(Arc::new).collect()),
                policies: Arc::new([("own".parse().unwrap(), Policy::default())].into()),
                ..Cluster::default()
            };
            prop_assume!(check::check(&cluster).is_ok());
            let text = export(&cluster, &[], true).unwrap().manifest;
            let fresh = apply(&Cluster::default(), &text).unwrap();
            prop_assert_eq!(&fresh.apps, &cluster.apps, "{}", text);
            let said = |cluster: &Cluster| cluster.rules.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
            prop_assert_eq!(said(&fresh), said(&cluster), "{}", text);
            // Rules of none come to be of a policy, behind others: of equal rules another may be the first then.
            if !is_mixed {
                prop_assert_eq!(digest(&fresh), digest(&cluster), "{}", text);
            }
            prop_assert_eq!(diff(&cluster, &export(&cluster, &["own".parse().unwrap()], false).unwrap().manifest), [""; 0]);
        }
    }

    #[test]
    fn what_is_tried_and_what_ends_is_written() {
        let text = "weft: v1\napps: {shop: {shadow: true}}\n---\nweft: v1\npolicy: p\nrules:\n\
                    - allow: {from: shop, to: blog, shadow: true, until: 1999-12-31T23:59:59Z}\n";
        let next = apply(&base(), text).unwrap();
        let exported = export(&next, &[], true).unwrap().manifest;
        assert!(exported.contains("    shadow: true\n"), "{exported}");
        assert!(exported.contains("  - shadow allow shop -> blog any until 1999-12-31T23:59:59Z\n"), "{exported}");
        assert!(!export(&next, &[], false).unwrap().manifest.contains("apps:"));
        let again = apply(&next, "weft: v1\napps: {shop: {shadow: false}}\n").unwrap();
        assert_eq!(again.apps, base().apps);
        assert_eq!(again.rules.len(), 1, "what is not said stays");
    }
}

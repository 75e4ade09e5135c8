use std::{collections::BTreeMap, fs, path::Path};

use super::*;
use crate::model::{endpoint::EndpointKey, example};
use crate::store::{
    change::{RuleRef, SetPolicies},
    conformance::{TEXT, described, h1},
};

/// Nothing here takes longer unless it is broken.
const LONG: Duration = Duration::from_secs(20);

/// A file and a state folder.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        lab.write(TEXT);
        lab
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("cluster.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    async fn open(&self) -> Result<Arc<FileStore>> {
        self.open_as("h1").await
    }

    async fn open_as(&self, host: &str) -> Result<Arc<FileStore>> {
        let paths = Paths { file: self.file(), state: self.0.path().join(host) };
        let store = Arc::new(FileStore::open(paths, host.parse()?).await?);
        let follower = Arc::downgrade(&store);
        tokio::spawn(async move {
            while let Some(store) = follower.upgrade() {
                // So that a store that nobody has any longer ends.
                time::timeout(LOOK * 2, store.follow()).await.ok();
            }
        });
        Ok(store)
    }
}

/// Waits for a state that is as it should be.
async fn wait(store: &FileStore, what: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut watch = store.watch();
    let found = time::timeout(LONG, watch.wait_for(|snapshot| what(snapshot))).await;
    let Ok(snapshot) = found else { panic!("it stayed {:?}", store.watch().borrow()) };
    Arc::clone(&snapshot.unwrap())
}

fn now(store: &FileStore) -> Arc<Snapshot> {
    Arc::clone(&store.watch().borrow())
}

fn problem(snapshot: &Snapshot) -> String {
    let problem = snapshot.problem.as_ref().map(ToString::to_string).unwrap_or_default();
    problem.rsplit_once('/').map_or(problem.clone(), |_| problem[problem.find("cluster.toml").unwrap()..].to_owned())
}

fn rule(text: &str) -> Change {
    Change::AddRule(text.parse().unwrap())
}

fn put(key: &str, addr: &str) -> Change {
    Change::PutEndpoint(example::endpoint(key, "h1", [addr.parse().unwrap()].into_iter().collect()))
}

#[test]
fn the_text_is_the_example() {
    let cluster = read::read(TEXT, &"f".into(), &h1(), &Cluster::default()).unwrap();
    assert_eq!(Description::of(&cluster), Description::of(&described()));
    let sources: Vec<_> = cluster.rules.iter().map(|rule| rule.source.as_ref().unwrap().to_string()).collect();
    assert_eq!(sources, ["f:3", "f:4"]);
}

#[test]
fn numbers_and_defaults_can_be_given() {
    let text = "port = 4790\n[host.h1]\naddress = '192.0.2.1'\n[app.a]\nprefixes = ['10.1.0.0/16']\nnumber = 77\n\
        roles = ['web', { name = 'db', number = 5 }]\ninside = 'closed'\nfrom_apps = 'open'\nfrom_host = 'closed'\nto_outside = 'closed'\n";
    let cluster = read::read(text, &"f".into(), &h1(), &Cluster::default()).unwrap();
    let app = &cluster.apps[&"a".parse().unwrap()];
    assert_eq!((cluster.settings.port, app.number.0, app.roles[&"db".parse().unwrap()].number.0), (4790, 77, 5));
    let crate::model::app::Defaults { inside, from_apps, from_host, to_outside } = app.defaults;
    assert_eq!(
        [inside, from_apps, from_host, to_outside].map(crate::model::app::Gate::name),
        ["closed", "open", "closed", "closed"]
    );
}

/// Every fault is named with its place. The text is put in the place of a part of the example.
#[test]
fn a_fault_has_its_line_and_column() {
    let check = |from: &str, to: &str, expect: &str| {
        assert!(TEXT.contains(from), "{from}");
        let problem = read::read(&TEXT.replacen(from, to, 1), &"f".into(), &h1(), &Cluster::default()).unwrap_err();
        // Of the reader of TOML only the place is ours.
        assert!(problem.to_string().starts_with(expect), "{problem}\n{expect}");
    };
    check(
        "prefixes = [\"10.1.0",
        "prefixs = [\"10.1.0",
        "f:23:1: unknown field `prefixs`, expected one of `number`, `prefixes`, `labels`, `roles`, `inside`, `from_apps`, `from_host`, `to_outside`, `shadow`",
    );
    check("[app.blog]", "[apps.blog]", "f:26:2: unknown field `apps`, expected one of `port`, `rules`, `host`, `app`");
    check("\"192.0.2.2\"", "192.0.2.2", "f:14:16: ");
    check(
        "tcp/5432",
        "tcp/54320000",
        "f:3:5: \"54320000\" is no port: use a number from 1 to 65535, a range as 8000-8100, or a list with ','",
    );
    check(
        "shop/web ->",
        "wiki ->",
        "f:3:5: rule `allow wiki -> blog/db tcp/5432`: there is no app wiki: the apps are blog, shop",
    );
    check(
        "\"10.1.1.0/24\"",
        "\"10.1.1.1/24\"",
        "f:10:9: \"10.1.1.1/24\" is no prefix: host bits are set, use 10.1.1.0/24",
    );
    check(
        "\"fd00:1:1::/64\"",
        "\"fd00:1:2::/64\"",
        "f:15:37: fd00:1:2::/64 of host h2 for app shop overlaps fd00:1:2::/64 of host h1 for app shop",
    );
    check(
        "\"10.1.1.0/24\"",
        "\"10.9.1.0/24\"",
        "f:10:9: host h1: 10.9.1.0/24 is not inside app shop, which has 10.1.0.0/16, fd00:1::/32",
    );
    check("\"192.0.2.2\"", "\"192.0.2.1\"", "f:14:11: hosts h1 and h2 have the same address 192.0.2.1");
    check(
        "[\"192.0.2.3\"]",
        "[\"192.0.2.3\", \"x\"]",
        "f:18:25: \"x\" is no address: write it as 192.0.2.1 or 2001:db8::1",
    );
    check("address = \"192.0.2.2\"\n", "", "f:13:1: missing field `address`");
    check(
        "roles = [\"web\", \"db\"]",
        "roles = [\"web\", \"Db\"]",
        "f:24:17: \"Db\" is no role name: use a-z, 0-9, '-' and '.', first and last a letter or a digit, at most 63 characters",
    );
    check("roles = [\"web\", \"db\"]", "roles = [\"web\", \"web\"]", "f:24:17: app shop has this role twice");
    check(
        "roles = [\"web\", \"db\"]",
        "roles = [\"web\", { nam = 1 }]",
        "f:24:19: unknown field `nam`, expected one of `name`, `number`, `labels`, `ports`",
    );
    check(
        "roles = [\"web\", \"db\"]",
        "roles = [7]",
        "f:24:10: invalid type: integer `7`, expected a role's name, or { name = \"web\", number = 7 }",
    );
    check("roles = [\"db\"]", "inside = \"shut\"", "f:28:10: \"shut\" is no default: use open or closed");
    check(
        "[app.blog]",
        "[app.\"h\\u001b1\"]",
        "f:26:6: \"h\\u{1b}1\" is no app name: use a-z, 0-9, '-' and '.', first and last a letter or a digit, at most 63 characters",
    );
    check(
        "[app.blog]",
        "[app.blog]\n\"\\u001b[2J\" = 1",
        "f:27:1: unknown field `\\u{1b}[2J`, expected one of `number`, `prefixes`, `labels`, `roles`, `inside`, `from_apps`, `from_host`, `to_outside`",
    );
    check("# The example.", "port = 0", "f:1:8: port 0 is no port: use 1 to 65535");
    check("# The example.", "port = 65536", "f:1:8: invalid value: integer `65536`, expected u16");
    check("[app.blog]", "[app.shop]", "f:26:6: duplicate key");
    check("[host.h1", "[host.h9", "f:9:7: missing field `address`");
}

#[test]
fn several_faults_are_counted_and_the_first_is_told() {
    let text = TEXT.replace("blog/db tcp", "blog/x tcp").replace("deny shop", "deny wiki");
    let problem = read::read(&text, &"f".into(), &h1(), &Cluster::default()).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "f:3:5: rule `allow shop/web -> blog/x tcp/5432`: app blog has no role x: its roles are db (and 1 more)"
    );
    let stranger = read::read(TEXT, &"f".into(), &"h9".parse().unwrap(), &Cluster::default()).unwrap_err();
    assert_eq!(stranger.to_string(), "f: there is no [host.h9], and that is this host");
}

#[tokio::test]
async fn an_edit_is_picked_up() {
    let lab = Lab::new();
    let store = lab.open().await.unwrap();
    assert_eq!(now(&store).revision, Revision(1));
    lab.write(&TEXT.replace("tcp/5432", "tcp/5433"));
    let next = wait(&store, |snapshot| snapshot.revision == Revision(2)).await;
    assert_eq!(next.cluster.rules[0].to_string(), "allow shop/web -> blog/db tcp/5433");
    // As editors do it: another file takes the name.
    fs::write(lab.0.path().join("new"), TEXT).unwrap();
    fs::rename(lab.0.path().join("new"), lab.file()).unwrap();
    wait(&store, |snapshot| snapshot.revision == Revision(3)).await;
    // As configuration tools do it: a link to another file.
    fs::write(lab.0.path().join("target"), TEXT.replace("tcp/5432", "tcp/1")).unwrap();
    fs::remove_file(lab.file()).unwrap();
    std::os::unix::fs::symlink(lab.0.path().join("target"), lab.file()).unwrap();
    wait(&store, |snapshot| snapshot.cluster.rules[0].to_string().ends_with("tcp/1")).await;
}

#[tokio::test]
async fn a_bad_edit_is_refused_and_the_last_good_state_stays() {
    let lab = Lab::new();
    let store = lab.open().await.unwrap();
    let good = now(&store);
    lab.write(&TEXT.replace("allow shop", "alow shop"));
    let bad = wait(&store, |snapshot| snapshot.problem.is_some()).await;
    assert_eq!(
        problem(&bad),
        "cluster.toml:3:5: \"alow\" is no action: a rule starts with allow, deny, reject or pass"
    );
    assert_eq!((bad.revision, &bad.cluster), (good.revision, &good.cluster));

    // What only this host knows can be changed all the same; what is in the file can not.
    store.change(put("shop/a", "10.1.1.2")).await.unwrap();
    let error = store.change(rule("allow host -> blog")).await.unwrap_err();
    assert!(matches!(error, ChangeError::Broken(_)), "{error}");
    assert!(lab.text().contains("alow"), "the edit is still there to be repaired");
    drop(store);

    // A restart starts from the last good state.
    let store = reopen(&lab).await;
    let again = now(&store);
    assert_eq!(problem(&again), problem(&bad));
    assert_eq!((again.cluster.rules.len(), again.cluster.endpoints.len()), (2, 1));
    fs::remove_file(lab.file()).unwrap();
    let gone = wait(&store, |snapshot| snapshot.problem != bad.problem).await;
    assert_eq!(problem(&gone), "cluster.toml: read it: No such file or directory (os error 2)");

    lab.write(&TEXT.replace("tcp/5432", "tcp/1"));
    let repaired = wait(&store, |snapshot| snapshot.problem.is_none()).await;
    assert!(repaired.revision > again.revision);
    assert_eq!(repaired.cluster.rules[0].to_string(), "allow shop/web -> blog/db tcp/1");
}

/// The database is free when the last task that uses it has ended.
async fn reopen(lab: &Lab) -> Arc<FileStore> {
    let open = async {
        loop {
            match lab.open().await {
                Ok(store) => return store,
                Err(error) if format!("{error:#}").contains("another weftd") => tokio::task::yield_now().await,
                Err(error) => panic!("{error:#}"),
            }
        }
    };
    time::timeout(LONG, open).await.unwrap()
}

#[tokio::test]
async fn a_first_start_needs_a_file_without_fault() {
    let lab = Lab::new();
    lab.write("rules = 7\n");
    let error = lab.open().await.unwrap_err().to_string();
    assert!(error.ends_with("cluster.toml:1:9: invalid type: integer `7`, expected a sequence"), "{error}");
    fs::write(lab.file(), b"# \xc3\xa9\n# \xff").unwrap();
    let error = lab.open().await.unwrap_err().to_string();
    assert!(error.ends_with("cluster.toml:2:3: this is not UTF-8"), "{error}");
    fs::remove_file(lab.file()).unwrap();
    fs::create_dir(lab.file()).unwrap();
    let error = lab.open().await.unwrap_err().to_string();
    assert!(error.ends_with("cluster.toml: read it: it is no file of up to 64 MiB"), "{error}");
}

#[tokio::test]
async fn what_is_in_use_can_not_be_edited_away() {
    let lab = Lab::new();
    let store = lab.open().await.unwrap();
    store.change(put("blog/a", "10.2.1.2")).await.unwrap();
    let without = "rules = []\n[host.h1]\naddress = \"192.0.2.1\"\nprefixes.shop = [\"10.1.1.0/24\"]\n[app.shop]\nprefixes = [\"10.1.0.0/16\"]\n";
    lab.write(without);
    let refused = wait(&store, |snapshot| snapshot.problem.is_some()).await;
    assert_eq!(
        problem(&refused),
        "cluster.toml: endpoint blog/a: there is no app blog: the apps are shop; detach it first"
    );
    store.change(Change::RemoveEndpoint("blog/a".parse().unwrap())).await.unwrap();
    // The file is as it was, but now it has no fault.
    wait(&store, |snapshot| snapshot.problem.is_none() && snapshot.cluster.apps.len() == 1).await;
}

#[tokio::test]
async fn a_change_is_written_into_the_file_and_nothing_else_is_touched() {
    use std::os::unix::fs::PermissionsExt as _;

    let lab = Lab::new();
    fs::set_permissions(lab.file(), fs::Permissions::from_mode(0o640)).unwrap();
    fs::rename(lab.file(), lab.0.path().join("target")).unwrap();
    std::os::unix::fs::symlink("target", lab.file()).unwrap();
    let store = lab.open().await.unwrap();
    store.change(rule("allow host -> blog tcp/80")).await.unwrap();
    let expect = TEXT.replace("24 any\",\n]", "24 any\",\n    \"allow host -> blog tcp/80\",\n]");
    assert_eq!(lab.text(), expect);
    assert_eq!(now(&store).cluster.rules[2].source.as_ref().unwrap().line, 5);
    assert!(fs::symlink_metadata(lab.file()).unwrap().is_symlink());
    assert_eq!(fs::metadata(lab.file()).unwrap().permissions().mode() & 0o777, 0o640);
    let rule = "allow host -> blog tcp/80".parse().unwrap();
    store.change(Change::RemoveRule(RuleRef::Saying(Box::new(rule)))).await.unwrap();
    assert_eq!(lab.text(), TEXT);
    let wiki = example::app("wiki", &["10.3.0.0/16"], &["web"]);
    let blocks = ["h1", "h2", "h3"]
        .map(|host| (host.parse().unwrap(), vec![format!("10.3.{}.0/24", &host[1..]).parse().unwrap()]));
    store.change(Change::AddApp(wiki, blocks.into())).await.unwrap();
    let text = lab.text();
    assert!(
        text.ends_with("roles = [\"db\"]\n\n[app.wiki]\nprefixes = [\"10.3.0.0/16\"]\nroles = [\"web\"]\n"),
        "{text}"
    );
    store.change(Change::RemoveApp("wiki".parse().unwrap())).await.unwrap();
    assert_eq!(lab.text(), TEXT);
    let left: Vec<_> = fs::read_dir(lab.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[tokio::test]
async fn what_is_written_of_apps_and_policies_is_what_somebody_would_write() {
    let lab = Lab::new();
    let store = lab.open().await.unwrap();
    let mut blog = now(&store).cluster.apps[&"blog".parse().unwrap()].clone();
    let (labels, ports) = ("tier=db".parse().unwrap(), "pg=tcp/5432,pg=udp/5433".parse().unwrap());
    let (name, role) = blog.make_role(&labels, &ports).unwrap();
    store.change(Change::AddRole(blog.name.clone(), name.clone(), role.clone())).await.unwrap();
    blog.roles.insert(name, role);
    blog.labels = "team=a".parse().unwrap();
    blog.defaults.from_apps = crate::model::app::Gate::Open;
    blog.prefixes.push("10.9.0.0/24".parse().unwrap());
    let mut blocks: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for host in now(&store).cluster.hosts.values() {
        blocks.insert(host.name.clone(), host.blocks_of(&blog.name).copied().collect());
    }
    blocks.get_mut(&h1()).unwrap().push("10.9.0.0/28".parse().unwrap());
    store.change(Change::SetApp(blog, blocks)).await.unwrap();
    let rule = |text: &str, line| crate::model::rule::Rule {
        source: Some(crate::model::rule::Source { file: "blog.yaml".into(), line }),
        ..text.parse().unwrap()
    };
    let policy = crate::model::cluster::Policy { expect: vec!["shop -> blog tcp/80 allow".parse().unwrap()] };
    let rules = vec![rule("allow shop -> blog{tier=db} tcp/pg on ingress", 3), "deny outside -> blog".parse().unwrap()];
    let put = [("networkpolicy/blog/db".parse().unwrap(), (policy, rules))].into();
    store.change(Change::SetPolicies(SetPolicies { put, ..SetPolicies::default() })).await.unwrap();
    let text = lab.text();
    for part in [
        "roles = [\"db\", { name = \"tier-db\", labels = { tier = \"db\" }, ports = { pg = \"tcp/5432,udp/5433\" } }]\n",
        "labels = { team = \"a\" }\nfrom_apps = \"open\"\n",
        "\"10.9.0.0/24\"]",
        "\"10.9.0.0/28\"]",
        "[policy.\"networkpolicy/blog/db\"]\nrules = [\n    { rule = \"allow shop -> blog{tier=db} tcp/pg on ingress\", \
         source = \"blog.yaml:3\" },\n    \"deny outside -> blog any\",\n]\n",
        "expect = [\n    \"shop -> blog tcp/80 allow\",\n]\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let rules = &now(&store).cluster.rules;
    let sources: Vec<_> = rules.iter().rev().take(2).map(|rule| rule.source.as_ref().unwrap().to_string()).collect();
    assert_eq!(sources[1], "blog.yaml:3");
    assert!(sources[0].contains("cluster.toml:"), "{}", sources[0]);
    let before = now(&store);
    drop(store);
    assert_eq!(now(&*reopen(&lab).await).cluster, before.cluster);
}

#[tokio::test]
async fn an_edit_that_is_not_seen_yet_is_not_lost_by_a_change() {
    let lab = Lab::new();
    let store = lab.open().await.unwrap();
    lab.write(&TEXT.replace("tcp/5432", "tcp/5433"));
    store.change(rule("allow host -> blog tcp/80")).await.unwrap();
    assert!(lab.text().contains("tcp/5433") && lab.text().contains("tcp/80"));
    assert_eq!(now(&store).cluster.rules.len(), 3);
}

#[tokio::test]
async fn endpoints_and_kept_addresses_survive_a_restart() {
    let lab = Lab::new();
    let store = lab.open().await.unwrap();
    store.change(put("shop/a", "10.1.1.2")).await.unwrap();
    store.change(put("shop/b", "10.1.1.3")).await.unwrap();
    store.change(Change::RemoveEndpoint("shop/b".parse().unwrap())).await.unwrap();
    let before = now(&store);
    drop(store);
    assert_eq!(*now(&*reopen(&lab).await), *before);
    let kept: Vec<EndpointKey> = before.cluster.reservations.keys().cloned().collect();
    assert_eq!(kept.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shop/a", "shop/b"]);
}

#[tokio::test]
async fn hosts_that_share_the_file_see_each_others_rules() {
    let lab = Lab::new();
    let (one, two) = (lab.open_as("h1").await.unwrap(), lab.open_as("h2").await.unwrap());
    for n in 0..5 {
        let add = |store: Arc<FileStore>, port: u16| async move {
            // Both at once: one of them waits for the other.
            store.change(rule(&format!("allow host -> blog tcp/{port}"))).await.unwrap();
        };
        let both = async { tokio::join!(add(Arc::clone(&one), 100 + n), add(Arc::clone(&two), 200 + n)) };
        time::timeout(LONG, both).await.unwrap();
    }
    for store in [&one, &two] {
        wait(store, |snapshot| snapshot.cluster.rules.len() == 12).await;
    }
    assert_eq!(now(&one).cluster.rules, now(&two).cluster.rules);
}

#[tokio::test]
async fn what_another_host_has_written_overtakes_what_was_decided_before() {
    let lab = Lab::new();
    let (one, two) = (lab.open_as("h1").await.unwrap(), lab.open_as("h2").await.unwrap());
    let seen = now(&one);
    two.change(rule("allow host -> blog tcp/80")).await.unwrap();
    let decided = || rule("allow host -> blog tcp/81");
    let change = one.change_of(decided(), Some(seen));
    assert_eq!(time::timeout(LONG, change).await.unwrap(), Err(ChangeError::Overtaken));
    let again = one.change_of(decided(), Some(one.latest().await.unwrap()));
    time::timeout(LONG, again).await.unwrap().unwrap();
    assert_eq!(now(&one).cluster.rules.len(), 4);
}

#[tokio::test]
async fn a_file_that_can_not_be_written_is_an_error_and_changes_nothing() {
    let lab = Lab::new();
    let store = lab.open().await.unwrap();
    let before = now(&store);
    // A folder with the name of the temporary file: nobody can write there, not even root.
    let blocked: &Path = &lab.0.path().join(format!(".weft-{}.tmp", std::process::id()));
    fs::create_dir(blocked).unwrap();
    let error = store.change(rule("allow host -> blog")).await.unwrap_err();
    assert!(error.to_string().contains("cluster.toml: ") && matches!(error, ChangeError::Storage(_)), "{error}");
    assert_eq!((now(&store), lab.text()), (before, TEXT.to_owned()));
    fs::remove_dir(blocked).unwrap();
    store.change(rule("allow host -> blog")).await.unwrap();
}

//! What holds for an application is shown as it holds: also by rules about everybody, and while it is only tried.

use serde_json::Value;
use weft_tests::underlay::Family;
use weft_tests::wait::eventually;

use super::{Cluster, SOON, manifest::write, segment::wait_for_rule};

const BLOG: &str = "\
weft: v1
policy: blog
rules:
  - allow shop/web -> blog/db tcp/5432
  - deny any -> any tcp/23 precedence 3000
  - deny everyone -> blog tcp/22 precedence 2000 on ingress
  - allow any{role=db} -> shop udp/53
";

/// The rules of one direction in the order they are shown, with the policy each is of.
fn shown(policy: &Value, direction: &str) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let rules = policy[direction].as_array().unwrap().iter();
    rules.map(|rule| (text(&rule["text"]).unwrap(), text(&rule["policy"]))).collect()
}

#[test]
fn all_that_holds_for_an_app_is_shown_the_first_to_be_asked_first() {
    let cluster = Cluster::of(1, Family::V4);
    let of = |policy: Option<&str>, text: &str| (text.to_owned(), policy.map(str::to_owned));
    cluster.weft(0, &["policy", "apply", "-f", &write(&cluster, "blog.yaml", BLOG)]);
    let policy = cluster.weft(0, &["policy", "show", "blog"]);
    let everybody = of(Some("blog"), "deny any -> any tcp/23 precedence 3000");
    let allowed = |policy| of(policy, "allow shop/web -> blog/db tcp/5432");
    let closed = of(Some("blog"), "deny everyone -> blog tcp/22 on ingress precedence 2000");
    let to_shop = of(Some("blog"), "allow any{role=db} -> shop udp/53");
    assert_eq!(shown(&policy, "ingress"), [everybody.clone(), closed.clone(), allowed(Some("blog"))], "{policy:#}");
    assert_eq!(shown(&policy, "egress"), [everybody.clone(), to_shop], "{policy:#}");

    // A rule that a policy has too is one of its own, and stays when the policy goes.
    let rule = ["allow", "shop/web", "blog/db", "tcp/5432"];
    assert_eq!(cluster.weft(0, &rule)["changed"], true);
    assert_eq!(cluster.weft(0, &rule)["changed"], false);
    let both = [everybody, closed, allowed(None), allowed(Some("blog"))];
    assert_eq!(shown(&cluster.weft(0, &["policy", "show", "blog"]), "ingress"), both);
    cluster.weft(0, &["policy", "delete", "blog"]);
    assert_eq!(shown(&cluster.weft(0, &["policy", "show", "blog"]), "ingress"), [allowed(None)]);
}

/// Nothing that an app in shadow says is in force, so no rule of it changes what passes.
#[test]
fn why_something_passes_an_app_in_shadow_says_so() {
    let cluster = Cluster::of(1, Family::V4);
    cluster.container(0, "a1", "shop/web");
    cluster.container(0, "b1", "blog/db");
    cluster.weft(0, &["deny", "shop", "blog", "udp"]);
    wait_for_rule(&cluster, 1);
    let why = |what: &str| {
        let (_, stdout, stderr) = cluster.hosts[0].weft_text(&["why", "a1", "b1", what, "--json"]);
        serde_json::from_str::<Value>(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
    };
    let in_shadow = |app: &str| {
        cluster.weft(0, &["app", "set", app, "--shadow", "on"]);
        eventually(SOON, || cluster.weft(0, &["app", "show", app])["app"]["shadow"] == true);
    };
    in_shadow("blog");
    let answer = why("tcp/5432");
    assert_eq!(answer["decision"], "allow", "{answer:#}");
    assert_eq!(answer["rule"]["text"], "default of blog: open while it is in shadow", "{answer:#}");
    let tried = answer["steps"].as_array().unwrap().iter().find(|step| step["at"] == "shadow");
    assert_eq!(
        tried.unwrap()["found"],
        "default of blog: closed to other apps, which is only tried, would drop it",
        "{answer:#}"
    );
    // The sender's side is in force, and can still be closed. There the deny holds.
    assert_eq!(answer["would_deny"], "deny shop/web -> blog/db tcp/5432", "{answer:#}");
    assert_eq!(why("udp/53")["decision"], "deny");
    in_shadow("shop");
    let answer = why("udp/53");
    assert_eq!((&answer["decision"], &answer["would_deny"]), (&"allow".into(), &Value::Null), "{answer:#}");
}

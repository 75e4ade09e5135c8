//! What happens to the cluster, by chance: each change as the command that makes it, and the state that it leads to.

use std::fmt::Write as _;
use std::net::IpAddr;

use weft_tests::dice::Dice;

use super::model::{
    Action, App, Apps, Demand, Direction, Endpoint, Gate, Labels, NamedPort, Net, Port, Protocol, Role, Rule, State,
    UPPER, What, Who,
};

/// Where each endpoint is: on which host.
pub(super) const CAST: [(&str, usize, usize); 8] = [
    ("a1", SHOP, 0),
    ("a2", SHOP, 0),
    ("b1", BLOG, 0),
    ("w1", WIKI, 0),
    ("a3", SHOP, 1),
    ("b2", BLOG, 1),
    ("b3", BLOG, 1),
    ("w2", WIKI, 1),
];
/// Those of the endpoints whose places come after: the hosts themselves.
pub(super) const HOSTS: [&str; 2] = ["h1", "h2"];
/// Those who come and go.
pub(super) const COMES_AND_GOES: [usize; 3] = [1, 3, 6];
/// To which datagrams are sent.
pub(super) const PORTS: [u16; 3] = [7000, 7001, 7002];

pub(super) const SHOP: usize = 0;
pub(super) const BLOG: usize = 1;
pub(super) const WIKI: usize = 2;
const NAMES: [&str; 3] = ["shop", "blog", "wiki"];
const POLICIES: [&str; 3] = ["p0", "p1", "p2"];
/// What endpoints can be labelled with.
const VALUES: [(&str, [&str; 2]); 3] = [("role", ["web", "db"]), ("env", ["prod", "test"]), ("tier", ["db", "ui"])];
const DNS: NamedPort = ("dns", Protocol::Udp, 7001);
/// Most rules have the usual one: there the actions beat each other.
const PRECEDENCES: [i32; 7] = [1000, 1000, 1000, 10, 2000, -5, UPPER + 5];

/// A command on a host, and what it comes to.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) host: usize,
    pub(super) arguments: Vec<String>,
    /// What is on its standard input: in a file that it is given by `-f`.
    pub(super) manifest: Option<String>,
    pub(super) after: State,
    /// An endpoint that comes, goes, or is another from here on.
    pub(super) busy: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Some changes in a row, each as soon as the command before has answered.
    Changes(Vec<Change>),
    /// A daemon is killed and started again.
    Restart(usize),
    /// A daemon is killed, and learns when it is started again.
    ChangeWhileDead(usize, Change),
    /// A daemon is killed while it takes over what was changed on the other host.
    ChangeWhileDying(usize, Change),
}

/// Draws what happens next.
#[derive(Debug)]
pub(super) struct Events {
    dice: Dice,
    /// How many names were given.
    names: u32,
}

impl Events {
    pub(super) fn of(seed: u64) -> Self {
        Self { dice: Dice(seed), names: 0 }
    }

    pub(super) fn next(&mut self, state: &State) -> Event {
        let host = self.host();
        match self.dice.below(100) {
            0..7 => Event::Restart(host),
            7..12 => Event::ChangeWhileDead(host, self.change(state, Some(1 - host))),
            12..17 => Event::ChangeWhileDying(host, self.change(state, Some(1 - host))),
            17..40 => {
                let mut changes = vec![self.change(state, None)];
                for _ in 0..=self.dice.below(2) {
                    let last = changes.last().map_or(state, |change| &change.after).clone();
                    changes.push(self.change(&last, None));
                }
                Event::Changes(changes)
            }
            _ => Event::Changes(vec![self.change(state, None)]),
        }
    }

    fn host(&mut self) -> usize {
        usize::from(self.dice.chance(50))
    }

    /// A change by a command on a host.
    fn change(&mut self, state: &State, on: Option<usize>) -> Change {
        loop {
            let host = on.unwrap_or_else(|| self.host());
            let made = match self.dice.below(100) {
                0..30 => Some(self.apply(state)),
                30..38 => self.delete(state),
                38..52 => Some(self.add(state)),
                52..60 => self.remove(state),
                60..75 => self.relabel(state, host),
                75..90 => self.come_or_go(state, host),
                _ => Some(self.set(state)),
            };
            if let Some(Draft { arguments, manifest, after, busy }) = made
                && after != *state
            {
                return Change { host, arguments, manifest, after, busy };
            }
        }
    }

    /// A manifest takes the place of a policy, and may change the defaults of an app.
    fn apply(&mut self, state: &State) -> Draft {
        let mut after = state.clone();
        let policy = self.dice.pick(&POLICIES);
        after.rules.retain(|rule| rule.owner != policy);
        let mut text = format!("weft: v1\npolicy: {policy}\n");
        if self.dice.chance(25) {
            let app = &mut after.apps[usize::try_from(self.dice.below(3)).unwrap()];
            app.inside = self.gate();
            app.from_apps = self.gate();
            app.from_host = self.gate();
            let (inside, from_apps, from_host) = (app.inside.word(), app.from_apps.word(), app.from_host.word());
            let gates = format!("inside: {inside}, from-apps: {from_apps}, from-host: {from_host}");
            writeln!(text, "apps: {{{}: {{{gates}}}}}", app.name).unwrap();
        }
        text.push_str("rules:\n");
        for _ in 0..=self.dice.below(5) {
            let rule = Rule { owner: policy.to_owned(), ..self.rule() };
            if !after.rules.contains(&rule) {
                writeln!(text, "  - \"{rule}\"").unwrap();
                after.rules.push(rule);
            }
        }
        Draft { manifest: Some(text), ..Draft::of("policy apply", after) }
    }

    fn delete(&mut self, state: &State) -> Option<Draft> {
        let policy = self.dice.pick(&POLICIES);
        let mut after = state.clone();
        after.rules.retain(|rule| rule.owner != policy);
        (after != *state).then(|| Draft::of(&format!("policy delete {policy}"), after))
    }

    /// A rule of no policy.
    fn add(&mut self, state: &State) -> Draft {
        self.names += 1;
        let mut rule = Rule { owner: format!("r{}", self.names), ..self.rule() };
        if rule.action == Action::Pass {
            rule.action = Action::Allow;
        }
        let text = rule.to_string();
        let (text, shadow) = text.strip_prefix("shadow ").map_or((&*text, false), |text| (text, true));
        let (action, said) = text.split_once(' ').expect("a rule has words");
        let mut arguments = vec![action.to_owned(), format!("{said} as {}", rule.owner)];
        arguments.extend(shadow.then(|| "--shadow".to_owned()));
        let mut after = state.clone();
        // The same once more is no change.
        let same = |old: &Rule| !is_policy(&old.owner) && Rule { owner: rule.owner.clone(), ..old.clone() } == rule;
        if !after.rules.iter().any(same) {
            after.rules.push(rule);
        }
        Draft { arguments, ..Draft::of("", after) }
    }

    fn remove(&mut self, state: &State) -> Option<Draft> {
        let own: Vec<&str> = state.rules.iter().map(|rule| &*rule.owner).filter(|owner| !is_policy(owner)).collect();
        let name = (!own.is_empty()).then(|| self.dice.pick(&own))?;
        let mut after = state.clone();
        after.rules.retain(|rule| rule.owner != name);
        Some(Draft::of(&format!("policy rm {name}"), after))
    }

    fn relabel(&mut self, state: &State, host: usize) -> Option<Draft> {
        let at = self.endpoint_of(host, |at| state.endpoints[at].attached)?;
        let mut after = state.clone();
        let endpoint = &mut after.endpoints[at];
        let mut line = format!("label {}/{}", NAMES[CAST[at].1], endpoint.name);
        for (key, values) in VALUES {
            match self.dice.below(4) {
                0 => {
                    let value = self.dice.pick(&values);
                    endpoint.labels.insert(key, value);
                    write!(line, " {key}={value}").unwrap();
                }
                1 if endpoint.labels.remove(key).is_some() => write!(line, " {key}-").unwrap(),
                _ => {}
            }
        }
        Some(Draft { busy: Some(at), ..Draft::of(&line, after) })
    }

    /// Who is there goes, and who is not comes, labelled anew.
    fn come_or_go(&mut self, state: &State, host: usize) -> Option<Draft> {
        let at = self.endpoint_of(host, |at| COMES_AND_GOES.contains(&at))?;
        let mut after = state.clone();
        let endpoint = &mut after.endpoints[at];
        let (app, name) = (NAMES[CAST[at].1], endpoint.name);
        endpoint.attached = !endpoint.attached;
        let line = if endpoint.attached {
            endpoint.labels = self.labels();
            endpoint.ports = if self.dice.chance(50) { vec![DNS] } else { Vec::new() };
            attach(endpoint, CAST[at].1)
        } else {
            format!("detach {app}/{name}")
        };
        Some(Draft { busy: Some(at), ..Draft::of(&line, after) })
    }

    /// Defaults, labels of apps, and whether their policy is only tried.
    fn set(&mut self, state: &State) -> Draft {
        let mut after = state.clone();
        let app = &mut after.apps[usize::try_from(self.dice.below(3)).unwrap()];
        let mut line = format!("app set {}", app.name);
        match self.dice.below(7) {
            0 | 1 => {
                app.inside = self.gate();
                write!(line, " --inside {}", app.inside.word()).unwrap();
            }
            2 => {
                app.from_apps = self.gate();
                write!(line, " --from-apps {}", app.from_apps.word()).unwrap();
            }
            3 => {
                app.from_host = self.gate();
                write!(line, " --from-host {}", app.from_host.word()).unwrap();
            }
            4 => {
                app.to_outside = self.gate();
                write!(line, " --to-outside {}", app.to_outside.word()).unwrap();
            }
            5 => {
                let team = self.dice.pick(&["a", "b"]);
                app.labels.insert("team", team);
                write!(line, " --label team={team}").unwrap();
            }
            _ => {
                // Not for long: everything passes.
                app.shadow = !app.shadow && self.dice.chance(50);
                write!(line, " --shadow {}", if app.shadow { "on" } else { "off" }).unwrap();
            }
        }
        Draft::of(&line, after)
    }

    fn rule(&mut self) -> Rule {
        let action = match self.dice.below(10) {
            0..4 => Action::Allow,
            4..7 => Action::Deny,
            7..9 => Action::Reject,
            _ => Action::Pass,
        };
        let precedence = match action {
            Action::Pass => self.dice.pick(&[UPPER + 5, UPPER + 9, -5, -1]),
            Action::Allow | Action::Deny | Action::Reject => self.dice.pick(&PRECEDENCES),
        };
        let (mut from, to) = (self.who(), self.who());
        if let (Who::Net(..), Who::Net(..)) = (&from, &to) {
            from = Who::Any;
        }
        let sides = [(&from, Direction::Egress), (&to, Direction::Ingress)];
        let keepers: Vec<_> = sides.into_iter().filter(|(who, _)| !matches!(who, Who::Net(..))).collect();
        let on = self.dice.chance(30).then(|| self.dice.pick(&keepers).1);
        let shadow = self.dice.chance(6);
        let mut what = self.what();
        if let (What::Ports(_, ports), Who::Net(..) | Who::Host | Who::Outside) = (&mut what, &to) {
            // Only endpoints have ports with names.
            for named in ports.iter_mut().filter(|port| matches!(port, Port::Named(_))) {
                *named = Port::Range(DNS.2, DNS.2);
            }
        }
        Rule { owner: String::new(), shadow, action, what, on, precedence, from, to }
    }

    fn who(&mut self) -> Who {
        let app = self.dice.pick(&NAMES);
        match self.dice.below(21) {
            0..4 => Who::App(app),
            4..8 => Who::Role(app, self.dice.pick(&["web", "db", "store"])).existing(),
            8..11 => Who::Labelled(Apps::Named(app), self.demands()),
            11..13 => Who::Labelled(Apps::Every, self.demands()),
            13..15 => {
                let team = Demand::In("team", vec![self.dice.pick(&["a", "b"])]);
                let demands = if self.dice.chance(50) { self.demands() } else { Vec::new() };
                Who::Labelled(Apps::With(vec![team]), demands)
            }
            15 => Who::Any,
            16 => Who::Everyone,
            17 => Who::Host,
            18 if self.dice.chance(20) => Who::Outside,
            _ => self.net(),
        }
    }

    /// All of an app, what one host has of it, or all but that.
    fn net(&mut self) -> Who {
        let (app, host) = (self.dice.below(3) + 1, self.dice.below(2) + 1);
        let [whole, part] = if self.dice.chance(50) {
            [format!("10.{app}.0.0"), format!("10.{app}.{host}.0")]
        } else {
            [format!("fd00:{app}::"), format!("fd00:{app}:{host}::")]
        };
        let [whole, part] = [whole, part].map(|text| text.parse::<IpAddr>().expect("an address"));
        let (whole, part) = if whole.is_ipv4() {
            (Net { addr: whole, len: 16 }, Net { addr: part, len: 24 })
        } else {
            (Net { addr: whole, len: 32 }, Net { addr: part, len: 64 })
        };
        match self.dice.below(3) {
            0 => Who::Net(whole, Vec::new()),
            1 => Who::Net(part, Vec::new()),
            _ => Who::Net(whole, vec![part]),
        }
    }

    fn demands(&mut self) -> Vec<Demand> {
        let (key, values) = self.dice.pick(&VALUES);
        let one = self.dice.pick(&values);
        vec![match self.dice.below(5) {
            0 | 1 => Demand::In(key, vec![one]),
            2 => Demand::NotIn(key, vec![one]),
            3 => Demand::Exists(key),
            _ => Demand::Absent(key),
        }]
    }

    fn what(&mut self) -> What {
        let port = self.dice.pick(&PORTS);
        match self.dice.below(12) {
            0..3 => What::Any,
            3 | 4 => What::Ports(Protocol::Udp, Vec::new()),
            5 | 6 => What::Ports(Protocol::Udp, vec![Port::Range(port, port)]),
            7 => What::Ports(Protocol::Udp, vec![Port::Range(1, 9), Port::Range(port, 7002)]),
            8 => What::Ports(Protocol::Udp, vec![Port::Named("dns")]),
            9 => What::Ports(Protocol::Udp, vec![Port::Range(7000, 7000), Port::Named("dns")]),
            10 => What::Ports(Protocol::Tcp, Vec::new()),
            _ => What::Ports(Protocol::Tcp, vec![Port::Range(8000, 8002)]),
        }
    }

    fn labels(&mut self) -> Labels {
        let mut labels = Labels::new();
        for (key, values) in VALUES {
            if self.dice.chance(50) {
                labels.insert(key, self.dice.pick(&values));
            }
        }
        labels
    }

    fn gate(&mut self) -> Gate {
        if self.dice.chance(60) { Gate::Open } else { Gate::Closed }
    }

    fn endpoint_of(&mut self, host: usize, is: impl Fn(usize) -> bool) -> Option<usize> {
        let all: Vec<_> = (0..CAST.len()).filter(|&at| CAST[at].2 == host && is(at)).collect();
        (!all.is_empty()).then(|| self.dice.pick(&all))
    }
}

struct Draft {
    arguments: Vec<String>,
    manifest: Option<String>,
    after: State,
    busy: Option<usize>,
}

impl Draft {
    fn of(line: &str, after: State) -> Self {
        let arguments = line.split_whitespace().map(str::to_owned).collect();
        Self { arguments, manifest: None, after, busy: None }
    }
}

impl Who {
    /// A rule can only name roles that are there.
    fn existing(self) -> Self {
        let there = |app: &str, role: &str| match app {
            "shop" | "wiki" => role != "store",
            _ => role != "web",
        };
        match self {
            Self::Role(app, role) if !there(app, role) => Self::App(app),
            who => who,
        }
    }
}

/// The command that attaches an endpoint of an app, without where it is.
pub(super) fn attach(endpoint: &Endpoint, app: usize) -> String {
    let mut line = format!("attach --app {} --name {}", NAMES[app], endpoint.name);
    for (key, value) in &endpoint.labels {
        write!(line, " --label {key}={value}").unwrap();
    }
    for (name, protocol, port) in &endpoint.ports {
        let protocol = if *protocol == Protocol::Tcp { "tcp" } else { "udp" };
        write!(line, " --port {name}={protocol}/{port}").unwrap();
    }
    line
}

/// What is there before anything happens: who has which addresses is put in when they are given.
pub(super) fn first() -> State {
    let app = |at: usize, team, roles| App {
        name: NAMES[at],
        labels: Labels::from([("team", team)]),
        roles,
        inside: Gate::Open,
        from_apps: Gate::Closed,
        from_host: Gate::Open,
        to_outside: Gate::Open,
        shadow: false,
    };
    let store = Role { name: "store", labels: Labels::from([("tier", "db")]), ports: vec![DNS] };
    let endpoint = |(name, app, _): (&'static str, usize, usize)| {
        let (labels, ports) = match name {
            "a1" => (Labels::from([("role", "web")]), Vec::new()),
            "a2" => (Labels::from([("role", "db"), ("env", "prod")]), vec![DNS]),
            "a3" => (Labels::from([("role", "web"), ("env", "test")]), Vec::new()),
            "b2" => (Labels::from([("tier", "db")]), vec![DNS]),
            "w2" => (Labels::from([("role", "db")]), Vec::new()),
            _ => (Labels::new(), Vec::new()),
        };
        let (app, none) = (Some(app), IpAddr::from([0; 4]));
        Endpoint { name, app, labels, ports, v4: none, v6: none, gateways: Vec::new(), attached: true }
    };
    let host = |(number, name): (u16, &'static str)| {
        let gateways: Vec<_> = (1..=3).map(|app| gateway(app, number)).collect();
        let ([v4, v6], labels, ports) = (gateways[0], Labels::new(), Vec::new());
        Endpoint { name, app: None, labels, ports, v4, v6, gateways, attached: true }
    };
    State {
        apps: vec![app(SHOP, "a", Vec::new()), app(BLOG, "b", vec![store]), app(WIKI, "a", Vec::new())],
        endpoints: CAST.map(endpoint).into_iter().chain((1..).zip(HOSTS).map(host)).collect(),
        rules: Vec::new(),
    }
}

/// The rest of the cluster's file that [`first`] is of: beside hosts, shop and blog.
pub(super) const MANIFEST: &str = "\
weft: v1
apps:
  shop: {labels: {team: a}}
  blog: {labels: {team: b}, roles: [db, {name: store, labels: {tier: db}, ports: {dns: udp/7001}}]}
  wiki:
    prefixes: [10.3.0.0/16, \"fd00:3::/32\"]
    labels: {team: a}
    roles: [web, db]
    blocks: {h1: [10.3.1.0/24, \"fd00:3:1::/64\"], h2: [10.3.2.0/24, \"fd00:3:2::/64\"]}
";

/// A host's own addresses in an app: the first of what it has of it.
fn gateway(app: u16, host: u16) -> [IpAddr; 2] {
    let [four, six] = [format!("10.{app}.{host}.1"), format!("fd00:{app}:{host}::1")];
    [four, six].map(|text| text.parse().expect("an address"))
}

fn is_policy(owner: &str) -> bool {
    owner.starts_with('p')
}

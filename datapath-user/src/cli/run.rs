//! From arguments to an exit status.

use std::{
    env,
    ffi::OsString,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    time::SystemTime,
};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use serde::Serialize;
use weft_common::policy::Action;

use super::{
    app,
    args::{self, Cli, Command, When},
    drops, endpoint,
    failure::Failure,
    files, flow,
    hosts::Hosts,
    json, junit, learn,
    maps::{self, Shown},
    matrix, offline,
    page::{Colour, Page, escape},
    policy, state, wait, why, words,
};
use crate::front::api::{
    Call,
    client::{Client, ClientError},
    dto::{
        apps::{AddApp, DefaultsChange, ListApps, RemoveApp, SetApp, ShowApp},
        drops::{FollowDrops, ListDrops},
        endpoints::{Attach, Detach, ListEndpoints, Relabel, wanted},
        flows::{ListFlows, ListTraffic},
        maps::ShowMaps,
        naming::{Gateway, LabelChange, WhichRule},
        policies::{ApplyPolicy, DeletePolicy, DiffPolicy, Enforcing, ExportPolicy, PolicyChange, ShowMatrix},
        rules::{AddRule, ListRules, Policy, Promote, RemoveRule, RuleChange, ShowPolicy},
        side::Decision,
        state::{CheckResult, Diagnose, GetStatus, ListPeers, Reset, ResetDone},
        time::Timestamp,
    },
};
use crate::model::{
    self,
    labels::{LabelKey, Labels},
    time::Until,
    traffic::NamedPorts,
};

/// How it ended. The numbers are the exit status that the help promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done = 0,
    NotDone = 1,
    Usage = 2,
    No = 3,
    Contradiction = 4,
}

/// Where the answer goes, and in which form.
struct Screen {
    json: bool,
    colour: Colour,
    now: Timestamp,
}

/// Does what the arguments say. `reset` takes everything off this host, with the daemon's folders of state and of pins,
/// where no daemon runs to be asked.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    reset: &impl AsyncFn(&Path, &Path) -> anyhow::Result<ResetDone>,
) -> ExitCode {
    let cli = match Cli::try_parse_from(words::without_arrows(args)) {
        Ok(cli) => cli,
        Err(error) => return explain(&error).into(),
    };
    let failed = match perform(&cli, reset) {
        Ok(outcome) => return outcome.into(),
        Err(failed) => failed,
    };
    if failed.is_broken_pipe() {
        // Whoever reads has seen enough.
        return Outcome::Done.into();
    }
    // Nobody is left to be told if this fails.
    let _told = io::stderr().write_all(failed.lines().as_bytes());
    failed.outcome().into()
}

/// Help and version are asked for and go to standard output; the rest is an error.
fn explain(error: &clap::Error) -> Outcome {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::NotDone,
        };
    }
    let text = error.render().to_string();
    let told = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        text
    } else {
        format!("weft: {} (see --help)\n", usage(&text))
    };
    let _told = io::stderr().write_all(told.as_bytes());
    Outcome::Usage
}

/// What clap says is wrong, as one line. It repeats arguments, which may come from anywhere.
fn usage(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let line = lines.collect::<Vec<_>>().join(" ");
    escape(line.strip_prefix("error: ").unwrap_or(&line))
}

fn perform(cli: &Cli, reset: &impl AsyncFn(&Path, &Path) -> anyhow::Result<ResetDone>) -> Result<Outcome, Failure> {
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "weft", &mut script);
        io::stdout().write_all(&script).map_err(Failure::Output)?;
        return Ok(Outcome::Done);
    }
    if let Command::Reset(args::Reset { yes: false, .. }) = cli.command {
        confirm()?;
    }
    let screen = Screen { json: cli.json, colour: colour(cli.color), now: SystemTime::now().into() };
    let client = Client::new(cli.socket(env::var_os("WEFT_SOCKET")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Output)?;
    let mut out = io::stdout();
    let mut asking = Asking { client: &client, screen: &screen, out: &mut out };
    runtime.block_on(async {
        match (ask(&cli.command, &mut asking).await, &cli.command) {
            (Err(Failure::Daemon(ClientError::NotRunning(..))), Command::Reset(args)) => {
                let done = reset(&args.state_dir, &args.bpffs).await.map_err(Failure::Reset)?;
                asking.print(&done, state::reset)?;
                Ok(cleared(&done))
            }
            (outcome, _) => outcome,
        }
    })
}

async fn ask(command: &Command, asking: &mut Asking<'_>) -> Result<Outcome, Failure> {
    let now = asking.screen.now;
    match command {
        Command::App(command) => app(command, asking).await,
        Command::Attach(args) => asking.show(&attach(args)?, endpoint::attached).await,
        Command::Detach(args::Detach { what, app, release }) => {
            let request = Detach { what: what.clone(), app: app.clone(), release: *release };
            asking.show(&request, endpoint::detached).await
        }
        Command::Label(args::Label { endpoint, labels }) => {
            let (set, unset) = label_changes(labels.clone());
            asking.show(&Relabel { endpoint: endpoint.clone(), set, unset }, endpoint::relabelled).await
        }
        Command::Ps => asking.show(&ListEndpoints {}, |page, answer| endpoint::list(page, answer, now)).await,
        Command::Allow(args::Allow { rule: args, length }) => {
            let until = length.map(|length| Until::after(SystemTime::now(), length));
            rule((Action::Allow, until), args, asking).await
        }
        Command::Deny(args) => rule((Action::Deny, None), args, asking).await,
        Command::Reject(args) => rule((Action::Reject, None), args, asking).await,
        Command::Policy(command) => policy(command, asking).await,
        Command::Why(args) => why(args, asking).await,
        Command::Flows(args) => asking.show(&flows(args), flow::list).await,
        Command::Drops(args::Drops { follow: true }) => follow(asking).await,
        Command::Drops(args::Drops { follow: false }) => {
            asking.show(&ListDrops {}, |page, answer| drops::list(page, answer, now)).await
        }
        Command::Traffic => asking.show(&ListTraffic {}, flow::traffic).await,
        Command::Peers => asking.show(&ListPeers {}, state::peers).await,
        Command::Status => asking.show(&GetStatus {}, |page, answer| state::status(page, answer, now)).await,
        Command::Maps(args::Maps { name, limit }) => {
            let shown = if name.is_some() { Shown::All } else { Shown::Differing };
            let request = ShowMaps { name: name.clone(), limit: *limit };
            asking.show(&request, |page, answer| maps::list(page, answer, shown)).await
        }
        Command::Doctor => {
            let answer = asking.answer(&Diagnose {}, state::diagnosis).await?;
            Ok(match state::worst(&answer) {
                CheckResult::Ok | CheckResult::Warn => Outcome::Done,
                CheckResult::Fail => Outcome::No,
            })
        }
        Command::Reset(_) => {
            let done = asking.answer(&Reset {}, state::reset).await?;
            Ok(cleared(&done))
        }
        // Needs no daemon and was done before.
        Command::Completions { .. } => Ok(Outcome::Done),
    }
}

/// Whom to ask, and where to show what comes.
struct Asking<'a> {
    client: &'a Client,
    screen: &'a Screen,
    out: &'a mut dyn io::Write,
}

impl Asking<'_> {
    /// Asks and shows.
    async fn show<R: Call>(
        &mut self,
        request: &R,
        print: impl FnOnce(&mut Page, &R::Answer),
    ) -> Result<Outcome, Failure> {
        self.answer(request, print).await?;
        Ok(Outcome::Done)
    }

    /// Asks and shows, for a status that depends on the answer.
    async fn answer<R: Call>(
        &mut self,
        request: &R,
        print: impl FnOnce(&mut Page, &R::Answer),
    ) -> Result<R::Answer, Failure> {
        let answer = self.client.call(request).await.map_err(Failure::Daemon)?;
        self.print(&answer, print)?;
        Ok(answer)
    }

    fn print<A: Serialize>(&mut self, answer: &A, print: impl FnOnce(&mut Page, &A)) -> Result<(), Failure> {
        let text = self.screen.text(answer, print)?;
        self.out.write_all(text.as_bytes()).map_err(Failure::Output)
    }
}

impl Screen {
    fn text<A: Serialize>(&self, answer: &A, print: impl FnOnce(&mut Page, &A)) -> Result<String, Failure> {
        if self.json {
            return json::document(answer).map_err(|error| Failure::Output(error.into()));
        }
        let mut page = Page::new(self.colour);
        print(&mut page, answer);
        Ok(page.into_text())
    }
}

async fn app(command: &args::App, asking: &mut Asking<'_>) -> Result<Outcome, Failure> {
    let now = asking.screen.now;
    match command {
        args::App::Ls => asking.show(&ListApps {}, app::list).await,
        args::App::Show { name } => {
            let request = ShowApp { name: name.clone() };
            asking.show(&request, |page, answer| app::detail(page, answer, now)).await
        }
        args::App::Rm { name } => asking.show(&RemoveApp { name: name.clone() }, app::changed).await,
        args::App::Add(args) => {
            let args::AddApp { name, prefix, block, role, label, defaults } = args.clone();
            let (labels, defaults) = (label.into_iter().collect(), defaults_of(defaults));
            let request = AddApp { name, prefixes: prefix, roles: role, labels, defaults, blocks: block };
            asking.show(&request, app::changed).await
        }
        args::App::Set(args) => {
            let args::SetApp { name, prefix, without, block, shadow, label, defaults } = args.clone();
            let shadow = shadow.map(|shadow| shadow == args::Switch::On);
            let ((set, unset), defaults) = (label_changes(label), defaults_of(defaults));
            let request = SetApp { name, prefixes: prefix, without, set, unset, defaults, shadow, blocks: block };
            asking.show(&request, app::changed).await
        }
    }
}

fn defaults_of(defaults: args::Defaults) -> DefaultsChange {
    let args::Defaults { inside, from_apps, from_host, to_outside } = defaults;
    DefaultsChange { inside, from_apps, from_host, to_outside }
}

/// What is to be there, and what is to go.
fn label_changes(changes: Vec<LabelChange>) -> (Labels, Vec<LabelKey>) {
    let (mut set, mut unset) = (Labels::default(), Vec::new());
    for change in changes {
        match change {
            LabelChange::Set(key, value) => {
                set.set(key, value);
            }
            LabelChange::Unset(key) => unset.push(key),
        }
    }
    (set, unset)
}

fn attach(args: &args::Attach) -> Result<Attach, Failure> {
    let args::Attach { target, app, role, label, port, name, ip, ifname, mac, gateway, no_default_route } =
        args.clone();
    let mut ports = NamedPorts::default();
    for (name, protocol, port) in port {
        ports.set(name, protocol, port);
    }
    Ok(Attach {
        target,
        app,
        role,
        labels: label.into_iter().collect(),
        ports,
        name,
        ips: wanted(ip).map_err(Failure::Usage)?,
        ifname,
        mac,
        gateway: if no_default_route { Gateway::None } else { gateway },
    })
}

/// Adds a rule that holds until then, or takes it away.
async fn rule(
    (action, until): (Action, Option<Until>),
    args: &args::Rule,
    asking: &mut Asking<'_>,
) -> Result<Outcome, Failure> {
    let args::Rule { words, precedence, name, shadow, remove, wait } = args;
    let rule = words::rule(action, words, *precedence, until, name.as_ref()).map_err(Failure::Usage)?;
    let rule = model::rule::Rule { shadow: *shadow, ..rule };
    if *remove {
        return self::remove(WhichRule::Says(Box::new(rule)), wait, asking).await;
    }
    changed(&AddRule { rule }, "added", wait, asking).await
}

async fn remove(rule: WhichRule, wait: &args::Wait, asking: &mut Asking<'_>) -> Result<Outcome, Failure> {
    changed(&RemoveRule { rule }, "removed", wait, asking).await
}

/// Changes a rule, and waits for hosts if that is wanted.
async fn changed<R: Call<Answer = RuleChange>>(
    request: &R,
    done: &str,
    wait: &args::Wait,
    asking: &mut Asking<'_>,
) -> Result<Outcome, Failure> {
    let (answer, hosts) = made(request, wait, asking.client).await?;
    let answer = RuleChange { hosts, ..answer };
    asking.print(&answer, |page, answer| policy::change(page, answer, done))?;
    Ok(enforced(&answer.hosts))
}

/// Makes a change, and says which hosts enforce it if that is to be waited for.
async fn made<R: Call>(
    request: &R,
    wait: &args::Wait,
    client: &Client,
) -> Result<(R::Answer, Vec<Enforcing>), Failure> {
    let waiting = wait::before(client, wait).await?;
    let answer = client.call(request).await.map_err(Failure::Daemon)?;
    Ok((answer, waiting.after().await))
}

fn enforced(hosts: &[Enforcing]) -> Outcome {
    if wait::all(hosts) { Outcome::Done } else { Outcome::NotDone }
}

async fn policy(command: &args::Policy, asking: &mut Asking<'_>) -> Result<Outcome, Failure> {
    let now = asking.screen.now;
    match command {
        args::Policy::Ls => asking.show(&ListRules {}, |page, answer| policy::list(page, answer, now)).await,
        args::Policy::Show { app, others } => {
            let answer = asking.client.call(&ShowPolicy { app: app.clone() }).await.map_err(Failure::Daemon)?;
            let answer = Policy { hosts: wait::look(asking.client, others).await?, ..answer };
            asking.print(&answer, |page, answer| policy::show(page, answer, now))?;
            Ok(Outcome::Done)
        }
        args::Policy::Promote { rule, policy } => {
            let request = Promote { rule: rule.clone(), policy: policy.clone() };
            asking.show(&request, app::changed).await
        }
        args::Policy::Rm(args::RemoveRule { rule, wait }) => remove(rule.clone(), wait, asking).await,
        args::Policy::Apply(args::ApplyPolicy { files, wait }) => {
            put(&ApplyPolicy { files: files::read(&files.file)? }, wait, asking).await
        }
        args::Policy::Delete(args::DeletePolicy { names, file, wait }) => {
            put(&DeletePolicy { names: names.clone(), files: files::read(file)? }, wait, asking).await
        }
        args::Policy::Diff(args::Files { file }) => {
            let answer = asking.answer(&DiffPolicy { files: files::read(file)? }, policy::diff).await?;
            Ok(if answer.parts.is_empty() && answer.breaks.is_empty() { Outcome::Done } else { Outcome::No })
        }
        args::Policy::Export { names, all } => {
            let request = ExportPolicy { names: names.clone(), all: *all };
            asking.show(&request, policy::exported).await
        }
        args::Policy::Validate(args::Described { files, cluster }) => {
            asking.print(&offline::validate(&files.file, cluster.as_deref())?, policy::validated)?;
            Ok(Outcome::Done)
        }
        args::Policy::Test(args::TestPolicy { described: args::Described { files, cluster }, junit }) => {
            let report = offline::test(&files.file, cluster.as_deref());
            if let Some(path) = junit {
                files::write(path, &report.as_ref().map_or_else(junit::unread, junit::report))?;
            }
            let report = report?;
            asking.print(&report, policy::tested)?;
            Ok(if report.failed == 0 { Outcome::Done } else { Outcome::No })
        }
        args::Policy::Matrix(args::Matrix { port, app, file, cluster, svg }) => {
            let request = ShowMatrix { ports: port.clone(), apps: app.clone() };
            let answer = if file.is_empty() && cluster.is_none() {
                asking.client.call(&request).await.map_err(Failure::Daemon)?
            } else {
                offline::matrix(file, cluster.as_deref(), &request)?
            };
            if let Some(path) = svg {
                files::write(path, &matrix::svg(&answer))?;
            }
            asking.print(&answer, matrix::show)?;
            Ok(Outcome::Done)
        }
        args::Policy::Learn(args) => {
            let watch = learn::watch(asking.client, args, learn::interrupted()).await?;
            learned(&watch, args.output.as_deref(), asking).await
        }
        args::Policy::Schema => {
            let text = format!("{:#}\n", offline::schema());
            asking.out.write_all(text.as_bytes()).map_err(Failure::Output)?;
            Ok(Outcome::Done)
        }
    }
}

/// Shows what was learned, or what was seen where nothing can be made of it.
async fn learned(watch: &learn::Watch, to: Option<&Path>, asking: &mut Asking<'_>) -> Result<Outcome, Failure> {
    let learned = match learn::manifest(asking.client, watch).await {
        Ok(learned) => learned,
        Err(error) => {
            let seen = json::document(&watch.request).map_err(|error| Failure::Output(error.into()))?;
            asking.out.write_all(seen.as_bytes()).map_err(Failure::Output)?;
            return Err(Failure::Unlearned(error));
        }
    };
    if let Some(path) = to {
        files::write(path, &learned.manifest)?;
    }
    io::stderr().write_all(learn::warnings(&learned).as_bytes()).map_err(Failure::Output)?;
    asking.print(&learned, |page, learned| policy::learned(page, learned, to))?;
    let is_whole = learned.unseen.is_empty() && learned.against.is_empty();
    Ok(if is_whole { Outcome::Done } else { Outcome::No })
}

/// Changes policies, and waits for hosts if that is wanted.
async fn put<R: Call<Answer = PolicyChange>>(
    request: &R,
    wait: &args::Wait,
    asking: &mut Asking<'_>,
) -> Result<Outcome, Failure> {
    let (answer, hosts) = made(request, wait, asking.client).await?;
    let answer = PolicyChange { hosts, ..answer };
    asking.print(&answer, policy::put)?;
    Ok(enforced(&answer.hosts))
}

async fn why(args: &args::Why, asking: &mut Asking<'_>) -> Result<Outcome, Failure> {
    let hosts = Hosts::new(asking.client, &args.others).await?;
    if args.words == ["-"] {
        return whys(&hosts, args.live, asking).await;
    }
    let answer = why::ask(&hosts, words::question(&args.words, args.live).map_err(Failure::Usage)?).await?;
    asking.print(&answer, why::answer)?;
    let is_contradiction = answer.halves().filter_map(|half| half.live.as_ref()).any(|live| !live.agrees);
    Ok(match answer.met() {
        _ if is_contradiction => Outcome::Contradiction,
        Decision::Allow => Outcome::Done,
        Decision::Deny | Decision::Reject => Outcome::No,
    })
}

/// Answers a question in each line of standard input with a word in a line, or a document with `--json`. The status
/// says that all were answered, whatever the answers.
async fn whys(hosts: &Hosts, live: bool, asking: &mut Asking<'_>) -> Result<Outcome, Failure> {
    for line in io::stdin().lines() {
        let line = line.map_err(Failure::Input)?;
        let words: Vec<_> = line.split_ascii_whitespace().map(ToOwned::to_owned).collect();
        if words.is_empty() {
            continue;
        }
        let answer = why::ask(hosts, words::question(&words, live).map_err(Failure::Usage)?).await?;
        let text = if asking.screen.json {
            json::line(&answer).map_err(|error| Failure::Output(error.into()))?
        } else {
            format!("{}\n", answer.met().name())
        };
        asking.out.write_all(text.as_bytes()).map_err(Failure::Output)?;
    }
    Ok(Outcome::Done)
}

fn flows(args: &args::Flows) -> ListFlows {
    let args::Flows { app, endpoint, address, port, protocol, limit } = args.clone();
    ListFlows { app, endpoint, address, port, protocol, limit }
}

async fn follow(Asking { client, screen, out }: &mut Asking<'_>) -> Result<Outcome, Failure> {
    let mut following = client.follow_drops(&FollowDrops {}).await.map_err(Failure::Daemon)?;
    while let Some(dropped) = following.next().await.map_err(Failure::Daemon)? {
        let line = if screen.json {
            json::line(&dropped).map_err(|error| Failure::Output(error.into()))?
        } else {
            let mut page = Page::new(screen.colour);
            drops::one(&mut page, &dropped, None);
            page.into_text()
        };
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)?;
    }
    Err(Failure::Sentence("weftd has ended, and with it the drops"))
}

fn cleared(ResetDone { removed: _, left }: &ResetDone) -> Outcome {
    if left.is_empty() { Outcome::Done } else { Outcome::NotDone }
}

/// Asks somebody at the terminal whether it is meant.
fn confirm() -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Sentence("reset removes all of weft from this host: say --yes if that is meant"));
    }
    let mut err = io::stderr();
    let question = "This removes all of weft from this host; its containers lose their network. Type yes to go on: ";
    err.write_all(question.as_bytes()).and_then(|()| err.flush()).map_err(Failure::Output)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Failure::Output)?;
    if line.trim() == "yes" { Ok(()) } else { Err(Failure::Sentence("nothing was removed")) }
}

fn colour(when: When) -> Colour {
    let unwanted = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    match when {
        When::Always => Colour::On,
        When::Auto if io::stdout().is_terminal() && !unwanted("NO_COLOR") => Colour::On,
        When::Auto | When::Never => Colour::Off,
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

impl Failure {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Usage(_) => Outcome::Usage,
            Self::Daemon(_)
            | Self::Host(..)
            | Self::Unlearned(_)
            | Self::Refused(_)
            | Self::Input(_)
            | Self::Output(_)
            | Self::File(..)
            | Self::Reset(_)
            | Self::Sentence(_) => Outcome::NotDone,
        }
    }
}

#[cfg(test)]
mod tests;

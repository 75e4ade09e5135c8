//! The command line. Arguments are domain values: what is none is refused before the daemon is asked.

mod policy;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use weft_common::addr::Mac;

use super::words;
use crate::front::api::{
    SOCKET,
    dto::{
        apps::Block,
        naming::{Detachable, Gateway, LabelChange, Protocol, Target},
        text::address,
    },
};
use crate::model::{
    app::Gate,
    endpoint::{EndpointKey, mac},
    invalid::Invalid,
    labels::{LabelKey, LabelValue, label},
    name::{AppName, EndpointName, HostName, LinkName, PortName, RoleName, RuleName},
    prefix::Prefix,
    rule::Precedence,
    traffic::named_port,
};

pub use policy::{ApplyPolicy, DeletePolicy, Described, Files, Learn, Matrix, Others, Policy, RemoveRule, TestPolicy};

/// Under this heading are the options that every command has.
const EVERYWHERE: &str = "Options of every command";

/// A network for the containers of many hosts, with a firewall for each application.
///
/// Asks the daemon weftd of this host. Exit status: 0 done, 1 not done (the reason is on standard error),
/// 2 the command line is wrong, 3 done and the answer is no (`why`: it is denied; `doctor`: a check failed;
/// `policy diff`: there is a difference, or it would break what is expected; `policy test`: an expectation does not hold; `policy learn`: not all was seen, or it is denied),
/// 4 `why --live`: the program and the tables contradict each other.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft", version, arg_required_else_help = true, infer_subcommands = false)]
pub struct Cli {
    /// Print what the daemon answers as JSON, for programs: fields stay, new ones may come
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// Ask the daemon that listens at this socket [default: $WEFT_SOCKET, else /run/weft/weft.sock]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Use colours; auto means: on a terminal, unless $NO_COLOR is set
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "WHEN", default_value = "auto")]
    pub color: When,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal.
    Auto,
    /// Into a pipe, too.
    Always,
    /// Nowhere.
    Never,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// The applications: what may talk inside of each, and where its addresses are
    #[command(subcommand)]
    App(App),
    /// Give a container an interface in an application
    ///
    /// Returns when packets can flow. What the application's rules and defaults allow, the container can reach
    /// from then on, and nothing else through this interface. Doing it again changes nothing.
    Attach(Attach),
    /// Take a container's interface away
    ///
    /// Its connections are cut at once. Its address stays reserved for its name. Taking away what is not there
    /// is no error.
    Detach(Detach),
    /// Change the labels of an endpoint: what rules select it by
    ///
    /// `weft label shop/web-1 env=prod canary-` sets one label and takes another away. What the rules make of the new
    /// labels holds at once, for connections that are there, too.
    Label(Label),
    /// The interfaces that this host gave to containers, and how they are
    Ps,
    /// Let packets pass that the defaults would stop
    ///
    /// `weft allow shop/web blog/db tcp/5432`, or with the arrow in quotes: `weft allow 'shop/web -> blog/db
    /// tcp/5432'`. Answers to what is allowed pass, too. Without a protocol it allows everything.
    Allow(Allow),
    /// Drop packets in silence that would pass otherwise
    ///
    /// Connections that it forbids are cut within a second. Beats an allow of the same precedence.
    Deny(Rule),
    /// As deny, and tell the sender
    ///
    /// The sender gets a reset or an ICMP error and fails at once instead of waiting. Beats deny and allow of the
    /// same precedence.
    Reject(Rule),
    /// The rules that are in force
    #[command(subcommand)]
    Policy(Policy),
    /// Ask whether a packet may pass, and why
    ///
    /// Asks the same code and the same tables that decide on real packets, names the rule and where it was
    /// written, and says what would allow what is denied. Sends nothing. Exit status 0: allowed; 3: denied.
    Why(Why),
    /// Connections that were allowed and are not yet forgotten
    Flows(Flows),
    /// Packets that were dropped, why, and what would let them pass
    ///
    /// Counters are exact. Single packets are a sample that says how many it skipped.
    Drops(Drops),
    /// What each pair of applications exchanged
    Traffic,
    /// The other hosts, and whether packets reach them
    Peers,
    /// How this host is: what is in force, what is degraded, what is full
    Status,
    /// What the kernel's tables hold, and where that differs from what they should hold
    Maps(Maps),
    /// Look for what keeps weft from working, and say what to do
    ///
    /// Changes nothing. Exit status 3 if a check fails.
    Doctor,
    /// Remove everything that weft put on this host
    ///
    /// Containers lose their interfaces and their connections. Programs, tables, links, routes, masquerading and
    /// changed kernel switches go; what others made stays, and so does what the daemon remembers of endpoints and
    /// addresses. The daemon ends; where none runs, this command does it.
    Reset(Reset),
    /// Print a script that makes a shell complete weft's arguments
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Applications.
#[derive(Clone, Debug, Subcommand)]
pub enum App {
    /// List them
    Ls,
    /// Make one
    ///
    /// A host can have endpoints of it as soon as it was given a part of its prefixes. Where a file describes the
    /// cluster, the app is written there, and so is what hosts are given.
    Add(AddApp),
    /// Change its defaults or labels, or give it and hosts more addresses
    Set(SetApp),
    /// Show one, with its endpoints on this host and the rules that name it
    Show {
        /// Which
        name: AppName,
    },
    /// Remove one that has no endpoints and that no rule names: nothing of it is left then
    ///
    /// Such rules are of others, too, and go first. Blocks that hosts have of it, and addresses kept for it, go with it.
    Rm {
        /// Which
        name: AppName,
    },
}

/// A new application.
#[derive(Clone, Debug, Args)]
pub struct AddApp {
    /// What it is called, everywhere and for good: its number on the wire follows from it
    pub name: AppName,
    /// Where its endpoints get their addresses from; once for each family, more if need be
    #[arg(long, required = true, value_name = "PREFIX")]
    pub prefix: Vec<Prefix>,
    /// What a host gives out of them; as often as there are hosts and families
    #[arg(long, value_name = "HOST=PREFIX")]
    pub block: Vec<Block>,
    /// A tier inside it, for rules to speak of; as often as there are tiers
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<RoleName>,
    /// A label of it, for rules that select apps by labels; as often as there are labels
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(LabelKey, LabelValue)>,
    /// Its defaults.
    #[command(flatten)]
    pub defaults: Defaults,
}

/// An application that is to be other than it is.
#[derive(Clone, Debug, Args)]
pub struct SetApp {
    /// Which
    pub name: AppName,
    /// A prefix that it is to have beside its own
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Vec<Prefix>,
    /// A prefix that it is to have no longer, with what hosts were given of it
    #[arg(long, value_name = "PREFIX")]
    pub without: Vec<Prefix>,
    /// What a host is to give out of them, beside what it has
    #[arg(long, value_name = "HOST=PREFIX")]
    pub block: Vec<Block>,
    /// Only try its policy: let everything pass, and count and sample what its rules and defaults would drop
    #[arg(long, value_name = "on|off")]
    pub shadow: Option<Switch>,
    /// A label that is to be there as KEY=VALUE, or is to go as KEY-
    #[arg(long, value_name = "KEY=VALUE|KEY-")]
    pub label: Vec<LabelChange>,
    /// Its defaults.
    #[command(flatten)]
    pub defaults: Defaults,
}

/// What holds for an application where no rule speaks.
#[derive(Clone, Copy, Debug, Args)]
pub struct Defaults {
    /// Whether its endpoints may talk to each other without a rule [default: open]
    #[arg(long, value_name = "open|closed")]
    pub inside: Option<Gate>,
    /// Whether other applications may reach it without a rule [default: closed]
    #[arg(long, value_name = "open|closed")]
    pub from_apps: Option<Gate>,
    /// Whether hosts may reach it without a rule [default: open]
    #[arg(long, value_name = "open|closed")]
    pub from_host: Option<Gate>,
    /// Whether it may reach the outside without a rule [default: open]
    #[arg(long, value_name = "open|closed")]
    pub to_outside: Option<Gate>,
}

/// New labels of an endpoint.
#[derive(Clone, Debug, Args)]
pub struct Label {
    /// The endpoint, as shop/web-1
    pub endpoint: EndpointKey,
    /// Labels that are to be there as KEY=VALUE, and that are to go as KEY-
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    pub labels: Vec<LabelChange>,
}

/// An interface for a container.
#[derive(Clone, Debug, Args)]
pub struct Attach {
    /// A process id, the path of a network namespace, or the name of a namespace or container
    pub target: Target,
    /// The application that it joins: decides what it can reach
    #[arg(long)]
    pub app: AppName,
    /// Its tier in the application: decides which rules speak of it
    #[arg(long)]
    pub role: Option<RoleName>,
    /// A label, for rules to select by; as often as there are labels
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(LabelKey, LabelValue)>,
    /// A port that it has a name for, for rules to speak of; as often as there are names
    #[arg(long, value_name = "NAME=PROTOCOL/PORT", value_parser = named_port)]
    pub port: Vec<(PortName, u8, u16)>,
    /// Its name in the application: brings the same addresses back next time [default: the target's]
    #[arg(long)]
    pub name: Option<EndpointName>,
    /// An address that it has to get, one for each family; refused if somebody has it
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub ip: Vec<IpAddr>,
    /// What the interface is called inside [default: the first of eth0, eth1, ... that is free]
    #[arg(long)]
    pub ifname: Option<LinkName>,
    /// Its hardware address [default: one that follows from application and name]
    #[arg(long, value_parser = mac)]
    pub mac: Option<Mac>,
    /// The container's default route: auto sets one if it has none, replace takes the place of any other and gives
    /// it back at detach, none leaves it alone, an address replaces and leads there
    #[arg(long, value_name = "auto|replace|none|ADDRESS", default_value = "auto")]
    pub gateway: Gateway,
    /// The same as --gateway none
    #[arg(long, conflicts_with = "gateway")]
    pub no_default_route: bool,
}

/// Interfaces that are to go.
#[derive(Clone, Debug, Args)]
pub struct Detach {
    /// An endpoint as shop/web-1 or web-1, or a target as attach takes it
    pub what: Detachable,
    /// Take only the interface in this application
    #[arg(long)]
    pub app: Option<AppName>,
    /// Give its addresses up, too: another name may get them
    #[arg(long)]
    pub release: bool,
}

/// A rule that lets pass, which alone can end by itself: a denial that ended would open what nobody looks at.
#[derive(Clone, Debug, Args)]
pub struct Allow {
    /// The rule.
    #[command(flatten)]
    pub rule: Rule,
    /// Let it end after this time, also where the daemon is dead by then, and all that only it allowed with it: 90s,
    /// 10m, 8h or 2d, at most 30d
    #[arg(long = "for", value_name = "TIME", value_parser = words::length, conflicts_with = "remove")]
    pub length: Option<Duration>,
}

/// A rule.
#[derive(Clone, Debug, Args)]
pub struct Rule {
    /// FROM (to) TO (WHAT): app, app/role, host, outside, any, or a prefix; tcp/PORTS, udp/PORTS, icmp, any
    #[arg(required = true, value_name = "WORDS")]
    pub words: Vec<String>,
    /// Beat rules of lower precedence, whatever they do [default: 1000]
    #[arg(long, value_name = "N")]
    pub precedence: Option<Precedence>,
    /// A name to remove it by and to see in `drops` and `why`
    #[arg(long)]
    pub name: Option<RuleName>,
    /// Only try it: what it would change is counted and sampled (policy ls, drops), and nothing is changed
    #[arg(long)]
    pub shadow: bool,
    /// Take the rule back instead: what only it allowed is cut within a second
    #[arg(long)]
    pub remove: bool,
    /// Whether to wait for all hosts.
    #[command(flatten)]
    pub wait: Wait,
}

/// Whether to wait until hosts enforce a change.
#[derive(Clone, Debug, Default, Args)]
pub struct Wait {
    /// Return when every host enforces it, and name those that do not within so many seconds [default: 30]
    ///
    /// Each host is asked for the digest of the policy in its kernel's tables. Hosts of a cluster from a file do not
    /// tell each other: those without --host-socket are named as not known, and the exit status is 1.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "30")]
    pub wait: Option<u32>,
    /// Where the daemon of another host can be asked; as often as there are hosts
    #[arg(long, value_name = "HOST=PATH", requires = "wait", value_parser = host_socket)]
    pub host_socket: Vec<(HostName, PathBuf)>,
}

fn host_socket(text: &str) -> Result<(HostName, PathBuf), Invalid> {
    let refuse = || Invalid::new("socket of a host", text, "write HOST=PATH, as h2=/run/h2/weft.sock");
    let (host, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or_else(refuse)?;
    Ok((host.parse()?, path.into()))
}

/// A question.
#[derive(Clone, Debug, Args)]
pub struct Why {
    /// FROM (to) TO WHAT: endpoints as shop/web-1, roles, apps, addresses, host, outside; tcp/5432, udp/53, icmp. Or
    /// only '-': a question in each line of standard input, and a word in each line of the answer
    #[arg(required = true, value_name = "WORDS")]
    pub words: Vec<String>,
    /// Ask the loaded program, too, and fail with 4 if it says otherwise
    #[arg(long)]
    pub live: bool,
    /// Who else is asked, for the half that it decides.
    #[command(flatten)]
    pub others: Others,
}

/// Which connections.
#[derive(Clone, Debug, Args)]
pub struct Flows {
    /// Only those with one side in the application
    #[arg(long)]
    pub app: Option<AppName>,
    /// Only those with an endpoint of this name
    #[arg(long)]
    pub endpoint: Option<EndpointName>,
    /// Only those with the address on one side
    #[arg(long, value_parser = address)]
    pub address: Option<IpAddr>,
    /// Only those with the port on one side
    #[arg(long)]
    pub port: Option<u16>,
    /// Only those of the protocol
    #[arg(long)]
    pub protocol: Option<Protocol>,
    /// Not more than so many, the busiest first [default: 1000]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
}

/// Which drops.
#[derive(Clone, Debug, Args)]
pub struct Drops {
    /// Go on printing drops as they happen, until interrupted
    #[arg(short, long)]
    pub follow: bool,
}

/// Which tables.
#[derive(Clone, Debug, Args)]
pub struct Maps {
    /// All entries of this one; without it, all tables and only the entries that differ
    pub name: Option<String>,
    /// Not more entries of a table than so many [default: 200]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
}

/// How to reset.
#[derive(Clone, Debug, Args)]
pub struct Reset {
    /// Do not ask whether it is meant
    #[arg(long, action = ArgAction::SetTrue)]
    pub yes: bool,
    /// Where the daemon kept its state, if none runs
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft")]
    pub state_dir: PathBuf,
    /// Where the daemon pinned programs and tables, if none runs
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/weft")]
    pub bpffs: PathBuf,
}

impl Cli {
    /// The socket to ask: as an argument says, or else the environment.
    pub fn socket(&self, environment: Option<std::ffi::OsString>) -> PathBuf {
        let named = environment.filter(|path| !path.is_empty()).map(PathBuf::from);
        self.socket.clone().or(named).unwrap_or_else(|| PathBuf::from(SOCKET))
    }
}

#[cfg(test)]
mod tests;

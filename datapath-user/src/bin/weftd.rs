//! The daemon: one on every host, privileged.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use weft::{
    daemon,
    kernel::{pins, privilege},
    model::name::HostName,
};

/// Joins the containers of this host to those of the others, and keeps applications apart.
///
/// Loads the programs that carry and police the traffic, and keeps their tables in accord with what the cluster
/// says. It may be stopped or killed at any time: packets go on as they did. `weft reset` takes everything off the
/// host.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The file that describes the cluster: hosts, apps and rules. Edits take effect; one with a mistake is refused
    /// and what was in force stays.
    #[arg(long, value_name = "FILE")]
    cluster: PathBuf,
    /// Which host of the cluster this one is.
    #[arg(long, value_name = "NAME")]
    host: HostName,
    /// Where attachments and address reservations outlive a restart.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft")]
    state_dir: PathBuf,
    /// Where the socket `weft.sock` for the CLI is.
    #[arg(long, value_name = "DIR", default_value = "/run/weft")]
    run_dir: PathBuf,
    /// Where the programs and tables are pinned, on a bpffs.
    #[arg(long, value_name = "DIR", default_value = pins::ROOT)]
    bpffs: PathBuf,
    /// How often containers that want multicast groups are asked whether they still do, in seconds. For tests.
    #[arg(long, value_name = "SECONDS", hide = true, value_parser = seconds, default_value = "125")]
    ask_groups_every: Duration,
    /// How much is logged: error, warn, info, debug or trace, also by module.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "WEFT_LOG")]
    log: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&args.log))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let config = daemon::Config {
        cluster: args.cluster,
        host: args.host,
        state: args.state_dir,
        run: args.run_dir,
        bpffs: args.bpffs,
        ask_groups_every: args.ask_groups_every,
    };
    match privilege::drop_others() {
        Ok(missing) => {
            for (capability, purpose) in missing {
                tracing::warn!("without {capability} it can not {purpose}: run weftd as root, or grant it");
            }
        }
        Err(error) => {
            tracing::error!("{error:#}");
            return ExitCode::FAILURE;
        }
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(daemon::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0).ok_or("a number of seconds, at least 1")?;
    Ok(Duration::from_secs(seconds))
}

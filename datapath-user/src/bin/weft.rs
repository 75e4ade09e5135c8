//! The command `weft`.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    weft::cli::run(env::args_os(), &weft::daemon::reset)
}

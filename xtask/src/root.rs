//! Who we are. Owns the one rule about privilege: ask for root before anything is changed, or fail before it.
//!
//! A developer who is not root gets root by sudo; what cargo writes then still belongs to the developer ([`caller`]).

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// Carries `uid:gid` of the developer through sudo.
const CALLER: &str = "WEFT_XTASK_CALLER";

/// What cargo, rustup and apt need to know and sudo would drop.
const KEPT: [&str; 14] = [
    "PATH",
    "HOME",
    "TERM",
    "CARGO",
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "DEBIAN_MIRROR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A user, by numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Returns as root, or starts the same task again by sudo, or says what to do.
pub(crate) fn require(purpose: &str) -> Result<()> {
    let me = identity()?;
    if me.uid == 0 {
        return Ok(());
    }
    if cmd::find("sudo").is_none() {
        bail!("{purpose}: this needs root, and there is no sudo here: run it as root");
    }
    eprintln!("xtask: {purpose}: this needs root, starting again by sudo (nothing was changed so far)");
    let program = env::current_exe().context("find the running xtask")?;
    let mut sudo = Command::new("sudo");
    sudo.arg("env").arg(format!("{CALLER}={}:{}", me.uid, me.gid));
    for name in KEPT {
        if let Some(value) = env::var_os(name) {
            let mut pair = OsString::from(name);
            pair.push("=");
            pair.push(value);
            sudo.arg(pair);
        }
    }
    sudo.arg(program).args(env::args_os().skip(1));
    cmd::replace(sudo)
}

/// The developer who called us by sudo, if one did.
pub(crate) fn caller() -> Option<Identity> {
    parse(&env::var(CALLER).ok()?)
}

fn identity() -> Result<Identity> {
    // /proc/<pid> belongs to the effective user of the process.
    let me = fs::metadata(format!("/proc/{}", process::id())).context("read our own user from /proc")?;
    Ok(Identity { uid: me.uid(), gid: me.gid() })
}

fn parse(pair: &str) -> Option<Identity> {
    let (uid, gid) = pair.split_once(':')?;
    Some(Identity { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_two_numbers() {
        assert_eq!(parse("1000:100"), Some(Identity { uid: 1000, gid: 100 }));
        assert_eq!(parse("1000"), None);
        assert_eq!(parse("root:root"), None);
    }
}

//! The socket's file.
//!
//! Invariant: whoever finds the file finds it with its final owner and mode.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tokio::net::UnixListener;

use crate::front::api::access::Access;

/// Listens at `path`, in the place of a socket that nobody listens at.
pub(super) fn listen(path: &Path, access: Access) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.with_context(|| format!("make folder {}", folder.display()))?;
    }
    refuse_to_replace(path)?;
    // Made under another name and renamed: there is no moment in which the mode is not yet right, and none in
    // which the file is missing.
    let new = beside(path)?;
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", new.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&new).with_context(|| format!("make socket {}", new.display()))?;
    let put = || {
        if let Some(group) = access.gid() {
            nix::unistd::chown(&new, None, Some(group)).context("give the socket to its group")?;
        }
        fs::set_permissions(&new, fs::Permissions::from_mode(0o660)).context("set the socket's mode")?;
        fs::rename(&new, path).context("put the socket in its place")
    };
    match put() {
        Ok(()) => Ok(listener),
        Err(error) => {
            // The error that counts is the one before.
            drop(fs::remove_file(&new));
            Err(error)
        }
    }
}

fn refuse_to_replace(path: &Path) -> anyhow::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there.with_context(|| format!("look at {}", path.display()))?,
    };
    if !there.file_type().is_socket() {
        bail!("something else has that name, and it is not replaced: move it, or name another socket");
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error).context("see whether a daemon has the socket"),
        Ok(_) => bail!("another weftd listens there: stop it, or name another socket"),
    }
}

/// A name for this process beside `path`.
fn beside(path: &Path) -> anyhow::Result<PathBuf> {
    let name = path.file_name().context("a socket's path ends in a file name")?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(new))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[tokio::test]
    async fn the_file_has_its_mode_and_a_dead_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/weft.sock");
        let group = nix::unistd::getgid().as_raw();
        let access = Access { owner: 0, group: Some(group) };
        let first = listen(&path, access).unwrap();
        let there = fs::metadata(&path).unwrap();
        assert_eq!((there.mode() & 0o777, there.gid()), (0o660, group));
        let error = format!("{:#}", listen(&path, access).unwrap_err());
        assert!(error.starts_with("another weftd listens there"), "{error}");
        drop(first);
        let _second = listen(&path, access).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weft.sock");
        fs::write(&path, "mine").unwrap();
        let error = format!("{:#}", listen(&path, Access { owner: 0, group: None }).unwrap_err());
        assert!(error.contains("it is not replaced"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}

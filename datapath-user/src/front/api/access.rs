//! Who may use the socket: root, and the members of one group.
//!
//! The socket's mode says the same to the kernel. This is asked once more, because a mode can be changed, and a
//! socket can be mounted into a container.

use std::fs;

use nix::unistd::{Gid, Group};
use tokio::net::unix::UCred;

use super::{
    GROUP,
    refusal::{Kind, Refusal},
};

/// Who may use the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The user who always may.
    pub owner: u32,
    /// The group whose members may.
    pub group: Option<u32>,
}

impl Access {
    /// Root, and the group [`GROUP`] if the system has it.
    pub fn system() -> Self {
        let group = Group::from_name(GROUP).ok().flatten();
        Self { owner: 0, group: group.map(|group| group.gid.as_raw()) }
    }

    /// The group as the file of the socket has it.
    pub(super) fn gid(self) -> Option<Gid> {
        self.group.map(Gid::from_raw)
    }

    /// Whether the process at the other end may ask.
    pub fn check(self, caller: &UCred) -> Result<(), Refusal> {
        let Self { owner, group } = self;
        if caller.uid() == owner {
            return Ok(());
        }
        let in_group = |group| caller.gid() == group || caller.pid().is_some_and(|pid| groups_of(pid).contains(&group));
        if group.is_some_and(in_group) {
            return Ok(());
        }
        let uid = caller.uid();
        let help = match group {
            Some(_) => format!("use sudo, or add the user to the group: usermod -aG {GROUP} USER, and log in again"),
            None => format!("use sudo, or make the group and restart weftd: groupadd {GROUP}"),
        };
        Err(Refusal::new(
            Kind::Forbidden,
            format!("user {uid} may not use weft: only root and members of group {GROUP} may; {help}"),
        ))
    }
}

/// The supplementary groups of a process; none if they can not be read.
fn groups_of(pid: i32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn the_owner_and_the_group_may_and_others_are_told() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let me = stream.peer_cred().unwrap();
        let nobody = me.uid() + 1;
        Access { owner: me.uid(), group: None }.check(&me).unwrap();
        Access { owner: nobody, group: Some(me.gid()) }.check(&me).unwrap();
        let refusal = Access { owner: nobody, group: None }.check(&me).unwrap_err();
        assert_eq!(refusal.kind, Kind::Forbidden);
        assert!(refusal.message.contains("groupadd weft"), "{refusal}");
        let refusal = Access { owner: nobody, group: Some(u32::MAX - 7) }.check(&me).unwrap_err();
        assert!(refusal.message.contains("usermod -aG weft"), "{refusal}");
    }

    #[test]
    fn supplementary_groups_are_read() {
        let own: Vec<_> = nix::unistd::getgroups().unwrap().into_iter().map(Gid::as_raw).collect();
        assert_eq!(groups_of(nix::unistd::getpid().as_raw()), own);
        assert!(groups_of(-1).is_empty());
    }
}

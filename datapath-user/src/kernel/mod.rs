//! The kernel: the only module that names aya, netlink, libc and `unsafe`.
//!
//! Each module below owns one kind of kernel object and offers it as values: what is there, and how to change it. None
//! decides what should be there; `reconcile` does. Invariant: only what carries our name, our route protocol or our
//! pin is ever changed or removed.
//!
//! Calls that wait for the kernel are short and block; what may wait long is `async`.

pub mod attach;
mod bpf;
pub mod config;
pub mod events;
pub mod inject;
pub mod inside;
pub mod link;
pub mod load;
pub mod masquerade;
mod netlink;
pub mod netns;
pub mod pins;
pub mod privilege;
pub mod route;
pub mod sysctl;
pub mod tables;
pub mod trial;
pub mod watch;

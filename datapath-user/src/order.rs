//! What a use case wants of the reconciler beside a pass. A leaf, as the board is: one writes, the other reads.

use tokio::sync::oneshot;

/// An order.
#[derive(Debug)]
pub enum Order {
    /// Look at everything now.
    Repair,
    /// Take everything of ours off the host, and end. Answered with what was removed, and what could not be.
    Reset(oneshot::Sender<(Vec<String>, Vec<String>)>),
}

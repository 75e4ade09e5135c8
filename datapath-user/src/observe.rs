//! What the programs reported lately, for whoever asks or follows.
//!
//! Counters are read from the tables when asked for; this keeps the samples. Knows nothing of who asks.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::broadcast;
use weft_common::event::Drop;

/// How many drops are kept.
const KEPT: usize = 1024;

/// A drop, and when it was by the clock on the wall.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What the program said.
    pub drop: Drop,
    /// When it happened.
    pub when: SystemTime,
}

/// Keeps the last drops and passes them on.
#[derive(Debug)]
pub struct Observer {
    recent: Mutex<VecDeque<Seen>>,
    live: broadcast::Sender<Seen>,
}

impl Observer {
    /// Nothing was seen yet.
    pub fn new() -> Self {
        Self { recent: Mutex::new(VecDeque::with_capacity(KEPT)), live: broadcast::Sender::new(KEPT) }
    }

    /// Takes in a drop. `now` is the programs' clock, in nanoseconds.
    pub fn saw(&self, drop: Drop, now: u64) {
        let age = Duration::from_nanos(now.saturating_sub(drop.time));
        let seen = Seen { drop, when: SystemTime::now() - age };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(seen);
        // Nobody may be following.
        if self.live.receiver_count() > 0 && self.live.send(seen).is_err() {
            tracing::trace!("the last follower left");
        }
    }

    /// The last drops, the oldest first.
    pub fn recent(&self) -> Vec<Seen> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Drops from now on. Whoever is too slow is told how many it missed.
    pub fn follow(&self) -> broadcast::Receiver<Seen> {
        self.live.subscribe()
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

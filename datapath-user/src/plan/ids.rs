//! Numbers of things that tables refer to: rules, lists, sets, peers.
//!
//! A number starts from a hash of the content, the same on every host and after every restart, and goes up by
//! one while it is taken. What was taken before the change stays taken during it, so a number in use never
//! changes its meaning between two plans: what had a number keeps it, and what is new gets one that nothing
//! had. After a restart the numbers in use are read back from the tables: [`Ids::recover`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use weft_common::{addr::Ip, id::PeerId, tunnel::Peer};

use crate::{
    model::{cluster::Cluster, name::HostName, stable},
    shared::{Shared, Spread},
};

use super::rules::{
    Policy,
    list::{self, List},
    set::Set,
};

/// All numbers that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Of the other hosts.
    pub peers: Numbers<HostName>,
    /// Of rules, lists and sets.
    pub policy: Arc<PolicyIds>,
}

/// The numbers that the policy's tables have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyIds {
    /// [`weft_common::policy::Winner::id`], by what the rule says.
    pub rules: Numbers<String>,
    /// [`weft_common::policy::RuleKey::list`].
    pub lists: Numbers<List>,
    /// [`weft_common::policy::RuleSet::id`].
    pub sets: Numbers<Arc<Set>>,
}

/// The numbers of one kind of thing. 0 is never one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers<C: Ord> {
    of: Shared<C, u32>,
    /// Those of `of`, and those that are taken by what is not known, or twice.
    taken: Shared<u32, ()>,
}

/// What has a number, which starts from the hash: that depends on every part of the content, and on nothing else.
pub trait Content: Spread {
    /// The greatest number there is.
    const LAST: u32 = u32::MAX;
}

impl<C: Ord> Default for Numbers<C> {
    fn default() -> Self {
        Self { of: Shared::default(), taken: Shared::default() }
    }
}

impl<C: Content> Numbers<C> {
    /// The number of `content`, if it has one.
    pub fn of(&self, content: &C) -> Option<u32> {
        self.of.get(content).copied()
    }

    /// What has a number, and which.
    pub fn iter(&self) -> impl Iterator<Item = (&C, u32)> {
        self.of.iter().map(|(content, number)| (content, *number))
    }

    /// Numbers for `contents` beside these. When all are taken, the last ones get none.
    #[must_use]
    pub fn next(&self, contents: impl IntoIterator<Item = C>) -> Self {
        let contents: BTreeSet<C> = contents.into_iter().collect();
        let mut next = self.clone();
        next.take(contents.iter().cloned());
        let stay: BTreeSet<u32> = contents.iter().filter_map(|content| next.of(content)).collect();
        next.keep(|number| stay.contains(&number));
        next
    }

    /// Gives numbers to what has none. What is to be given up has to be given up after this, so that no number
    /// changes its meaning.
    pub(super) fn take(&mut self, contents: impl IntoIterator<Item = C>) {
        let new = contents.into_iter().filter(|content| !self.of.contains_key(content));
        // In order: which of two gets the number that both start from depends on nothing else.
        for content in new.collect::<BTreeSet<C>>() {
            if let Some(number) = self.free(&content) {
                self.taken.insert(number, ());
                self.of.insert(content, number);
            }
        }
    }

    /// Gives a number up.
    pub(super) fn give_up(&mut self, content: &C) {
        if let Some(number) = self.of.remove(content) {
            self.taken.remove(&number);
        }
    }

    /// Gives all numbers up but these, also those of what is not known.
    pub(super) fn keep(&mut self, stays: impl Fn(u32) -> bool) {
        self.of.retain(|_, number| stays(*number));
        let of = &self.of;
        self.taken = of.values().map(|number| (*number, ())).collect();
    }

    /// The first number from where `content` starts, around the end, that is not taken.
    fn free(&self, content: &C) -> Option<u32> {
        let [a, b, c, d, ..] = content.hash().to_be_bytes();
        let start = 1 + u32::from_be_bytes([a, b, c, d]) % C::LAST;
        (start..=C::LAST).chain(1..start).find(|number| !self.taken.contains_key(number))
    }

    /// Notes what has which number already; of two numbers for the same the lower one.
    fn found(entries: impl IntoIterator<Item = (C, u32)>) -> Self {
        let mut numbers = Self::default();
        for (content, number) in entries {
            numbers.taken.insert(number, ());
            let of = numbers.of.entry_or(content, || number);
            *of = number.min(*of);
        }
        numbers
    }

    /// Notes that these are taken too.
    fn beside(mut self, numbers: impl Iterator<Item = u32>) -> Self {
        self.taken.extend(numbers.filter(|number| *number != 0).map(|number| (number, ())));
        self
    }
}

impl Ids {
    /// The peers of `host`: every other one of the cluster.
    #[must_use]
    pub(super) fn next_peers(&self, cluster: &Cluster, host: &HostName) -> Numbers<HostName> {
        self.peers.next(cluster.hosts.keys().filter(|name| *name != host).cloned())
    }

    /// The number of a peer.
    pub fn peer(&self, host: &HostName) -> Option<PeerId> {
        self.peers.of(host).map(PeerId)
    }

    /// The numbers that tables in use have. Of rules they hold no text: these are numbered anew, which gives
    /// the same unless two texts have the same hash.
    pub fn recover(cluster: &Cluster, peers: &BTreeMap<u32, Peer>, policy: &Policy) -> Self {
        let host_at = |addr: Ip| {
            let addr: IpAddr = addr.to_std();
            cluster.hosts.values().find(|host| host.addresses.contains(&addr)).map(|host| host.name.clone())
        };
        let found = peers.iter().filter_map(|(id, peer)| Some((host_at(peer.addr)?, *id)));
        let policy_ids = PolicyIds {
            rules: Numbers::default(),
            // What is empty has no entry to be read from. Its number is 0, or drift has left it.
            lists: Numbers::found(list::read(&policy.rules))
                .beside(policy.peer_lists.values().chain(policy.prefix_lists.values()).copied()),
            sets: Numbers::found(Set::read(policy)).beside(policy.sets.values().map(|set| set.id)),
        };
        Self { peers: Numbers::found(found).beside(peers.keys().copied()), policy: Arc::new(policy_ids) }
    }
}

impl Spread for HostName {
    fn hash(&self) -> u64 {
        stable::hash("peer", &[self.as_str()])
    }
}

impl Content for HostName {
    // A peer's number is an index into an array of 4096.
    const LAST: u32 = <weft_common::table::Peers as weft_common::table::Table>::MAX - 1;
}

impl Spread for String {
    fn hash(&self) -> u64 {
        stable::hash("rule", &[self])
    }
}

impl Content for String {
    // The others say what was counted under no rule.
    const LAST: u32 = weft_common::table::Account::LAST_RULE;
}

/// Of numbers that start from hashes.
impl Spread for u32 {
    fn hash(&self) -> u64 {
        (*self).into()
    }
}

/// A hash of words, for content that is not text.
pub(super) fn hash_words(words: impl IntoIterator<Item = u32>) -> u64 {
    let folded = words.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
        (hash ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    (folded ^ (folded >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything starts from the same number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Same(char);

    impl Spread for Same {
        fn hash(&self) -> u64 {
            2 << 32
        }
    }

    impl Content for Same {
        const LAST: u32 = 4;
    }

    fn shown(numbers: &Numbers<Same>) -> Vec<(char, u32)> {
        numbers.iter().map(|(content, number)| (content.0, number)).collect()
    }

    #[test]
    fn what_has_a_number_keeps_it_and_what_is_new_takes_none_of_them() {
        let first = Numbers::default().next([Same('b'), Same('d')]);
        assert_eq!(shown(&first), [('b', 3), ('d', 4)]);
        // 'b' is gone, and its number is not given away in the same change.
        let second = first.next([Same('a'), Same('d')]);
        assert_eq!(shown(&second), [('a', 1), ('d', 4)]);
        assert_eq!(shown(&second.next([Same('a'), Same('c'), Same('d')])), [('a', 1), ('c', 3), ('d', 4)]);
        assert_eq!(second.next([Same('a'), Same('d')]), second);
    }

    #[test]
    fn when_all_are_taken_there_is_none() {
        let full = Numbers::default().next(['a', 'b', 'c', 'd', 'e'].map(Same));
        assert_eq!(shown(&full), [('a', 3), ('b', 4), ('c', 1), ('d', 2)]);
        assert_eq!(shown(&full.next([Same('e')])), []);
    }

    #[test]
    fn what_is_found_twice_leaves_both_numbers_taken() {
        let found = Numbers::found([(Same('a'), 4), (Same('a'), 3)]);
        assert_eq!(shown(&found), [('a', 3)]);
        assert_eq!(shown(&found.next([Same('a'), Same('b')])), [('a', 3), ('b', 1)]);
    }
}

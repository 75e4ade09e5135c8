//! Typed handles of the tables that `weft_common::table` declares.
//!
//! Owns the way from records to the bytes of an element and back. Does not know where tables are pinned or what is in
//! them. Invariant: a handle's key and value sizes are those of the kernel's map, for they were compared when it was
//! made.

use std::{
    collections::BTreeMap,
    error,
    fmt::{self, Debug},
    io,
    marker::PhantomData,
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result};
use weft_common::{
    table::{Shape, Table},
    wire::Plain,
};

use super::{
    bpf::{self, RawMap},
    pins::Pins,
};

/// What a reconciler does with a table, whatever its shape.
pub trait Keyed {
    /// Finds an element.
    type Key: Copy + Ord + Debug;
    /// What an element holds.
    type Value: Copy + PartialEq + Debug;

    /// The table's name.
    fn name(&self) -> &'static str;
    /// Makes an element or puts a new value into it.
    fn put(&self, key: &Self::Key, value: &Self::Value) -> Result<(), TableError>;
    /// Takes an element away. That there is none is success.
    fn delete(&self, key: &Self::Key) -> Result<(), TableError>;
    /// Everything that is in the table.
    fn entries(&self) -> Result<BTreeMap<Self::Key, Self::Value>, TableError>;
}

/// A hash or an array. An array's element of zeros counts as absent: `delete` makes one, `entries` leaves it out.
#[derive(Debug)]
pub struct Map<T>(Handle<T>);

/// A trie. Its keys are a prefix length, in bits of the whole key, and the key.
#[derive(Debug)]
pub struct Trie<T>(Handle<T>);

/// A table with a value per CPU, which only programs write.
#[derive(Debug)]
pub struct PerCpu<T>(Handle<T>);

/// What can go wrong with an element.
#[derive(Debug)]
pub enum TableError {
    /// There is no room for one more.
    Full {
        /// The table.
        table: &'static str,
        /// How many it has room for.
        max: u32,
        /// The element that did not fit.
        key: String,
    },
    /// The kernel refused.
    Failed {
        /// The table.
        table: &'static str,
        /// What was tried: "put", "read".
        what: &'static str,
        /// The element, if it was one.
        key: Option<String>,
        /// Why.
        source: io::Error,
    },
}

#[derive(Debug)]
struct Handle<T> {
    map: RawMap,
    table: PhantomData<fn() -> T>,
}

impl<T: Table> Map<T> {
    /// The pinned table.
    pub fn open(pins: &Pins) -> Result<Self> {
        const { assert!(matches!(T::SHAPE, Shape::Hash | Shape::LruHash | Shape::Array), "not a plain map") };
        Handle::open(pins).map(Self)
    }
}

impl<T: Table<Key: Debug>> Map<T> {
    /// An element's value; none if there is no such element.
    pub fn get(&self, key: &T::Key) -> Result<Option<T::Value>, TableError> {
        let value = self.0.lookup(bpf::bytes(key), key)?;
        Ok(value.filter(|value| is_present::<T>(value)).and_then(|value| bpf::record(&value)))
    }
}

impl<T: Table<Key: Ord + Debug, Value: PartialEq + Debug>> Keyed for Map<T> {
    type Key = T::Key;
    type Value = T::Value;

    fn name(&self) -> &'static str {
        T::NAME
    }

    fn put(&self, key: &T::Key, value: &T::Value) -> Result<(), TableError> {
        self.0.update((bpf::bytes(key), bpf::bytes(value)), key)
    }

    fn delete(&self, key: &T::Key) -> Result<(), TableError> {
        if is_array::<T>() {
            return self.0.update((bpf::bytes(key), &vec![0; size_of::<T::Value>()]), key);
        }
        self.0.delete(bpf::bytes(key), key)
    }

    fn entries(&self) -> Result<BTreeMap<T::Key, T::Value>, TableError> {
        let mut entries = BTreeMap::new();
        self.0.each(|key, value| {
            if is_present::<T>(value) {
                entries.extend(bpf::record::<T::Key>(key).zip(bpf::record::<T::Value>(value)));
            }
        })?;
        Ok(entries)
    }
}

impl<T: Table> Trie<T> {
    /// The pinned table.
    pub fn open(pins: &Pins) -> Result<Self> {
        const { assert!(matches!(T::SHAPE, Shape::LpmTrie), "not a trie") };
        Handle::open(pins).map(Self)
    }
}

impl<T: Table<Key: Debug>> Trie<T> {
    /// What the longest prefix of `key` holds.
    pub fn longest(&self, key: &T::Key) -> Result<Option<T::Value>, TableError> {
        let whole = (u32::try_from(size_of::<T::Key>() * 8).unwrap_or(u32::MAX), *key);
        Ok(self.0.lookup(&with_length(&whole), &whole)?.and_then(|value| bpf::record(&value)))
    }
}

impl<T: Table<Key: Ord + Debug, Value: PartialEq + Debug>> Keyed for Trie<T> {
    type Key = (u32, T::Key);
    type Value = T::Value;

    fn name(&self) -> &'static str {
        T::NAME
    }

    fn put(&self, key: &(u32, T::Key), value: &T::Value) -> Result<(), TableError> {
        self.0.update((&with_length(key), bpf::bytes(value)), key)
    }

    fn delete(&self, key: &(u32, T::Key)) -> Result<(), TableError> {
        self.0.delete(&with_length(key), key)
    }

    fn entries(&self) -> Result<BTreeMap<(u32, T::Key), T::Value>, TableError> {
        let mut entries = BTreeMap::new();
        self.0.each(|key, value| {
            let parts = bpf::record::<u32>(key).zip(key.get(size_of::<u32>()..).and_then(bpf::record));
            entries.extend(parts.zip(bpf::record(value)));
        })?;
        Ok(entries)
    }
}

impl<T: Table> PerCpu<T> {
    /// The pinned table.
    pub fn open(pins: &Pins) -> Result<Self> {
        const { assert!(matches!(T::SHAPE, Shape::PerCpuHash | Shape::PerCpuArray), "not a per-CPU table") };
        Handle::open(pins).map(Self)
    }
}

impl<T: Table<Key: Ord + Debug>> PerCpu<T> {
    /// An element's values, one per possible CPU; none if there is no such element.
    pub fn get(&self, key: &T::Key) -> Result<Option<Vec<T::Value>>, TableError> {
        Ok(self.0.lookup(bpf::bytes(key), key)?.map(|values| per_cpu(&values)))
    }

    /// Makes an element or puts new values into it, one per possible CPU.
    pub fn put(&self, key: &T::Key, values: &[T::Value]) -> Result<(), TableError> {
        let bytes = |value| {
            let mut bytes = bpf::bytes(value).to_vec();
            bytes.resize(size_of::<T::Value>().next_multiple_of(8), 0);
            bytes
        };
        let values: Vec<u8> = values.iter().flat_map(bytes).collect();
        self.0.update((bpf::bytes(key), &values), key)
    }

    /// Takes an element away. That there is none is success.
    pub fn delete(&self, key: &T::Key) -> Result<(), TableError> {
        self.0.delete(bpf::bytes(key), key)
    }

    /// Every element's values, one per possible CPU.
    pub fn entries(&self) -> Result<BTreeMap<T::Key, Vec<T::Value>>, TableError> {
        let mut entries = BTreeMap::new();
        self.0.each(|key, values| entries.extend(bpf::record(key).map(|key| (key, per_cpu(values)))))?;
        Ok(entries)
    }

    /// Every element with the values of all CPUs added up.
    pub fn totals(
        &self,
        add: impl Fn(T::Value, T::Value) -> T::Value,
    ) -> Result<BTreeMap<T::Key, T::Value>, TableError> {
        let entries = self.entries()?.into_iter();
        Ok(entries.filter_map(|(key, values)| Some((key, values.into_iter().reduce(&add)?))).collect())
    }
}

impl<T: Table> Handle<T> {
    fn open(pins: &Pins) -> Result<Self> {
        let path = pins.map(T::NAME);
        let map = bpf::open(&path).and_then(Self::new);
        map.with_context(|| format!("open table {}", path.display()))
    }

    fn new(map: OwnedFd) -> io::Result<Self> {
        let per_cpu = matches!(T::SHAPE, Shape::PerCpuHash | Shape::PerCpuArray);
        let cpus = per_cpu.then(|| aya::util::nr_cpus().map_err(|(_, error)| error)).transpose()?;
        let map = RawMap::new(map, cpus)?;
        let length = if matches!(T::SHAPE, Shape::LpmTrie) { size_of::<u32>() } else { 0 };
        let sizes = (size_of::<T::Key>() + length, size_of::<T::Value>());
        let (have_key, have_value) = (map.info().key_size as usize, map.info().value_size as usize);
        if map.info().kind != T::SHAPE as u32 || (have_key, have_value) != sizes {
            return Err(io::Error::other(format!("it is not table {}: {:?}", T::NAME, map.info())));
        }
        Ok(Self { map, table: PhantomData })
    }

    fn lookup(&self, key: &[u8], shown: &dyn Debug) -> Result<Option<Vec<u8>>, TableError> {
        self.map.lookup(key).map_err(|source| failed::<T>("read", Some(shown), source))
    }

    fn update(&self, (key, value): (&[u8], &[u8]), shown: &dyn Debug) -> Result<(), TableError> {
        self.map.update(key, value).map_err(|source| match source.raw_os_error() {
            // A hash says E2BIG and a trie ENOSPC; an array says E2BIG of an index beyond its end.
            Some(libc::E2BIG | libc::ENOSPC) if !is_array::<T>() => {
                TableError::Full { table: T::NAME, max: self.map.info().max_entries, key: format!("{shown:?}") }
            }
            _ => failed::<T>("put", Some(shown), source),
        })
    }

    fn delete(&self, key: &[u8], shown: &dyn Debug) -> Result<(), TableError> {
        self.map.delete(key).map(drop).map_err(|source| failed::<T>("delete", Some(shown), source))
    }

    fn each(&self, take: impl FnMut(&[u8], &[u8])) -> Result<(), TableError> {
        self.map.each(take).map_err(|source| failed::<T>("read", None, source))
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { table, max, key } => write!(f, "put {key} into {table}: it is full with {max} elements"),
            Self::Failed { table, what, key: Some(key), source: _ } => write!(f, "{what} {key} in {table}"),
            Self::Failed { table, what, key: None, source: _ } => write!(f, "{what} {table}"),
        }
    }
}

impl error::Error for TableError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Full { .. } => None,
            Self::Failed { source, .. } => Some(source),
        }
    }
}

fn failed<T: Table>(what: &'static str, key: Option<&dyn Debug>, source: io::Error) -> TableError {
    TableError::Failed { table: T::NAME, what, key: key.map(|key| format!("{key:?}")), source }
}

fn is_array<T: Table>() -> bool {
    matches!(T::SHAPE, Shape::Array)
}

fn is_present<T: Table>(value: &[u8]) -> bool {
    !is_array::<T>() || value.iter().any(|byte| *byte != 0)
}

fn with_length<K: Plain>((length, key): &(u32, K)) -> Vec<u8> {
    [bpf::bytes(length), bpf::bytes(key)].concat()
}

/// The kernel gives each CPU's value in as many bytes as are a multiple of 8.
fn per_cpu<V: Plain>(values: &[u8]) -> Vec<V> {
    values.chunks_exact(size_of::<V>().next_multiple_of(8)).filter_map(bpf::record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::bpf::MapInfo;
    use weft_common::{
        addr::Ip,
        id::AppId,
        table::{Account, Counts, NO_PREALLOC},
    };

    macro_rules! table {
        ($name:ident, $shape:ident[$max:expr] $flags:expr, $key:ty => $value:ty) => {
            #[derive(Debug)]
            struct $name;
            impl Table for $name {
                const NAME: &'static str = stringify!($name);
                const SHAPE: Shape = Shape::$shape;
                const MAX: u32 = $max;
                const FLAGS: u32 = $flags;
                type Key = $key;
                type Value = $value;
            }
        };
    }
    table!(Hash, Hash[3] NO_PREALLOC, Account => Counts);
    table!(Big, Hash[20_000] NO_PREALLOC, u32 => u64);
    table!(Array, Array[3] 0, u32 => u64);
    table!(Prefixes, LpmTrie[3] NO_PREALLOC, Ip => u32);
    table!(Traffic, PerCpuHash[3] 0, Account => Counts);
    table!(Odd, PerCpuArray[3] 0, u32 => [u8; 3]);

    fn made<T: Table>() -> Handle<T> {
        let length = if matches!(T::SHAPE, Shape::LpmTrie) { 4 } else { 0 };
        let size = |bytes: usize| u32::try_from(bytes).unwrap();
        let info = MapInfo {
            kind: T::SHAPE as u32,
            key_size: size(size_of::<T::Key>() + length),
            value_size: size(size_of::<T::Value>()),
            max_entries: T::MAX,
            flags: T::FLAGS,
            ..MapInfo::default()
        };
        Handle::new(bpf::map_create(&info, None).unwrap()).unwrap()
    }

    fn account(src: u32) -> Account {
        Account::new(AppId(src), AppId(0), 0)
    }

    fn counts(packets: u64) -> Counts {
        Counts { packets, ..Counts::default() }
    }

    #[test]
    fn a_hash_holds_what_was_put_until_it_is_full() {
        let map = Map(made::<Hash>());
        for n in 1..=3 {
            map.put(&account(n), &counts(u64::from(n))).unwrap();
        }
        map.put(&account(1), &counts(9)).unwrap();
        map.delete(&account(2)).unwrap();
        map.delete(&account(2)).unwrap();
        assert_eq!(map.entries().unwrap(), BTreeMap::from([(account(1), counts(9)), (account(3), counts(3))]));
        assert_eq!((map.get(&account(3)).unwrap(), map.get(&account(2)).unwrap()), (Some(counts(3)), None));

        map.put(&account(4), &counts(4)).unwrap();
        let error = map.put(&account(5), &counts(5)).unwrap_err();
        assert!(matches!(&error, TableError::Full { table: "Hash", max: 3, .. }), "{error:?}");
        assert!(error.to_string().ends_with("into Hash: it is full with 3 elements"), "{error}");
    }

    #[test]
    fn a_big_table_is_read_whole_by_both_ways() {
        let map = Map(made::<Big>());
        let want: BTreeMap<u32, u64> = (0..20_000).map(|n| (n, u64::from(n) * 3)).collect();
        for (key, value) in &want {
            map.put(key, value).unwrap();
        }
        assert_eq!(map.entries().unwrap(), want);
        let mut slowly = BTreeMap::new();
        let take = |key: &[u8], value: &[u8]| {
            slowly.insert(bpf::record(key).unwrap(), bpf::record(value).unwrap());
        };
        map.0.map.each_by_key(take).unwrap();
        assert_eq!(slowly, want);
    }

    #[test]
    fn an_element_of_zeros_is_not_in_an_array() {
        let map = Map(made::<Array>());
        map.put(&0, &5).unwrap();
        map.put(&2, &6).unwrap();
        map.delete(&0).unwrap();
        assert_eq!(map.entries().unwrap(), BTreeMap::from([(2, 6)]));
        assert_eq!((map.get(&0).unwrap(), map.get(&2).unwrap()), (None, Some(6)));
        let error = map.put(&3, &7).unwrap_err();
        assert!(matches!(error, TableError::Failed { table: "Array", what: "put", .. }), "{error:?}");
        assert_eq!(error.to_string(), "put 3 in Array");
    }

    #[test]
    fn a_trie_tells_prefixes_of_all_lengths_apart() {
        let ip = |last| Ip::from_v4([10, 0, 0, last]);
        let trie = Trie(made::<Prefixes>());
        let want = BTreeMap::from([((120, ip(0)), 24), ((128, ip(0)), 32), ((128, ip(7)), 7)]);
        for (key, value) in &want {
            trie.put(key, value).unwrap();
        }
        assert_eq!(trie.entries().unwrap(), want);
        assert_eq!((trie.longest(&ip(7)).unwrap(), trie.longest(&ip(8)).unwrap()), (Some(7), Some(24)));
        assert_eq!(trie.longest(&Ip::from_v4([10, 0, 1, 0])).unwrap(), None);
        assert!(matches!(trie.put(&(128, ip(9)), &9), Err(TableError::Full { .. })));
        trie.delete(&(120, ip(0))).unwrap();
        trie.delete(&(120, ip(0))).unwrap();
        assert_eq!(trie.entries().unwrap().len(), 2);
    }

    #[test]
    fn the_values_of_all_cpus_are_listed_and_added_up() {
        let cpus = aya::util::nr_cpus().unwrap();
        let traffic = PerCpu(made::<Traffic>());
        let want: Vec<_> = (0..cpus as u64).map(|cpu| counts(cpu + 1)).collect();
        traffic.put(&account(1), &want).unwrap();
        assert_eq!(traffic.entries().unwrap(), BTreeMap::from([(account(1), want.clone())]));
        let totals = traffic.totals(|a, b| counts(a.packets + b.packets)).unwrap();
        assert_eq!(totals[&account(1)], counts(want.iter().map(|count| count.packets).sum()));

        let odd = PerCpu(made::<Odd>());
        assert_eq!(odd.get(&2).unwrap(), Some(vec![[0; 3]; cpus]));
        assert_eq!(odd.entries().unwrap().len(), 3);
        odd.put(&2, &vec![[1, 2, 3]; cpus]).unwrap();
        assert_eq!(odd.get(&2).unwrap(), Some(vec![[1, 2, 3]; cpus]));
    }

    #[test]
    fn a_handle_of_another_map_is_refused() {
        let other = made::<Array>().map;
        let error = Handle::<Big>::new(std::os::fd::AsFd::as_fd(&other).try_clone_to_owned().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("it is not table Big"), "{error}");
    }
}

//! What this host alone knows, in a crash-safe database: its endpoints, the addresses it keeps, the revision,
//! and the last description of the cluster that had no fault.
//!
//! A change is one transaction. After an error the database is opened anew before it is used again: what was
//! committed is there, what was not is not.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition, TableError,
};

use crate::model::{
    cluster::{Cluster, Reservation, Revision},
    endpoint::{Endpoint, EndpointKey},
};

use super::codec;
use crate::delta::{Delta, delta};

const ENDPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("endpoints");
const RESERVATIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("reservations");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const FILE: &str = "weft.redb";

/// Which tables there are and what is in them. Records have versions of their own.
const FORMAT: &[u8] = b"1";

const DAMAGED: &str = "it is damaged; move it away to start without endpoints and kept addresses";

/// The database of a host.
pub(super) struct Local {
    open: Box<dyn Fn() -> Result<Database> + Send>,
    database: Option<Database>,
}

/// All that is in it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) endpoints: BTreeMap<EndpointKey, Arc<Endpoint>>,
    pub(super) reservations: BTreeMap<EndpointKey, Reservation>,
    pub(super) revision: Revision,
    /// The text of the last description without a fault.
    pub(super) description: Option<String>,
}

impl Local {
    /// The database in a folder, which is made if it is not there.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        make().with_context(|| format!("make the state folder {}", folder.display()))?;
        let file = folder.join(FILE);
        Self::opened_by(Box::new(move || {
            // It holds a few megabytes at most; redb would take a gigabyte.
            let database = Database::builder().set_cache_size(1 << 20).create(&file);
            database.map_err(|error| explain(error, &file.display()))
        }))
    }

    fn opened_by(open: Box<dyn Fn() -> Result<Database> + Send>) -> Result<Self> {
        let mut local = Self { open, database: None };
        local.prepare()?;
        Ok(local)
    }

    /// Makes the tables of a new database, and refuses one that another version made. Writes nothing into one that
    /// has them: a full disk is no reason not to start.
    fn prepare(&mut self) -> Result<()> {
        self.with(|database| {
            let format = match database.begin_read()?.open_table(META) {
                Ok(meta) => meta.get("format")?.map(|format| format.value().to_vec()),
                Err(TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(error.into()),
            };
            match format {
                Some(format) if format == FORMAT => return Ok(()),
                Some(_) => bail!("it was written by another version of weft"),
                None => {}
            }
            let write = database.begin_write()?;
            write.open_table(ENDPOINTS)?;
            write.open_table(RESERVATIONS)?;
            write.open_table(META)?.insert("format", FORMAT)?;
            write.commit()?;
            Ok(())
        })
    }

    /// Reads all of it.
    pub(super) fn load(&mut self) -> Result<Known> {
        self.with(|database| {
            let read = database.begin_read()?;
            let mut known = Known::default();
            for entry in read.open_table(ENDPOINTS)?.iter()? {
                let (key, value) = entry?;
                let endpoint = codec::decode_endpoint(key.value(), value.value())?;
                known.endpoints.insert(endpoint.key.clone(), Arc::new(endpoint));
            }
            for entry in read.open_table(RESERVATIONS)?.iter()? {
                let (key, value) = entry?;
                known.reservations.extend([codec::decode_reservation(key.value(), value.value())?]);
            }
            let meta = read.open_table(META)?;
            if let Some(revision) = meta.get("revision")? {
                let bytes = revision.value().try_into().context("decode the revision")?;
                known.revision = Revision(u64::from_be_bytes(bytes));
            }
            if let Some(description) = meta.get("description")? {
                known.description =
                    Some(String::from_utf8(description.value().to_vec()).context("decode the description")?);
            }
            Ok(known)
        })
    }

    /// Writes what is different between two clusters, and the revision, as one.
    pub(super) fn save(&mut self, old: &Cluster, new: &Cluster, revision: Revision) -> Result<()> {
        self.with(|database| {
            let write = database.begin_write()?;
            {
                let mut endpoints = write.open_table(ENDPOINTS)?;
                let Delta { put, del } = delta(&new.endpoints, &old.endpoints);
                for key in del {
                    endpoints.remove(key.to_string().as_str())?;
                }
                for (key, endpoint) in put {
                    endpoints.insert(key.to_string().as_str(), codec::encode_endpoint(endpoint)?.as_slice())?;
                }
                let mut reservations = write.open_table(RESERVATIONS)?;
                let Delta { put, del } = delta(&new.reservations, &old.reservations);
                for key in del {
                    reservations.remove(key.to_string().as_str())?;
                }
                for (key, kept) in put {
                    reservations.insert(key.to_string().as_str(), codec::encode_reservation(key, kept)?.as_slice())?;
                }
                write.open_table(META)?.insert("revision", revision.0.to_be_bytes().as_slice())?;
            }
            write.commit()?;
            Ok(())
        })
    }

    /// Writes the description that is in force from `revision` on.
    pub(super) fn save_description(&mut self, text: &str, revision: Revision) -> Result<()> {
        self.with(|database| {
            let write = database.begin_write()?;
            {
                let mut meta = write.open_table(META)?;
                meta.insert("description", text.as_bytes())?;
                meta.insert("revision", revision.0.to_be_bytes().as_slice())?;
            }
            write.commit()?;
            Ok(())
        })
    }

    fn with<T>(&mut self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let kept = self.database.take();
        // Some damage makes redb panic. Nothing of the database is kept then.
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            let database = match kept {
                Some(database) => database,
                None => checked((self.open)()?)?,
            };
            let done = work(&database).context("use the state database")?;
            anyhow::Ok((database, done))
        }));
        let (database, done) = done.map_err(|_| anyhow!("use the state database: {DAMAGED}"))??;
        // Not reached after an error: redb refuses a database that one happened to.
        self.database = Some(database);
        Ok(done)
    }
}

/// Whether a daemon has the database in this folder open. It holds a lock on the file.
pub fn is_in_use(folder: &Path) -> Result<bool> {
    let file = folder.join(FILE);
    let opened = match fs::File::open(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.with_context(|| format!("open {}", file.display()))?,
    };
    match opened.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", file.display())),
    }
}

/// A database of which every page is what was written.
fn checked(mut database: Database) -> Result<Database> {
    if !database.check_integrity().with_context(|| format!("check the state database: {DAMAGED}"))? {
        tracing::warn!("the state database was damaged and could be repaired");
    }
    Ok(database)
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("database", &self.database).finish_non_exhaustive()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "redb's errors are not ours to name, and more may come")]
fn explain(error: DatabaseError, file: &dyn fmt::Display) -> anyhow::Error {
    let damaged = match &error {
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::RepairAborted => true,
        DatabaseError::Storage(StorageError::Io(io)) => io.kind() == io::ErrorKind::InvalidData,
        _ => false,
    };
    let context = if damaged {
        format!("open {file}: {DAMAGED}")
    } else if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
        format!("open {file}: another weftd uses it")
    } else {
        format!("open {file}")
    };
    anyhow::Error::new(error).context(context)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{
            Mutex,
            atomic::{AtomicI64, Ordering},
        },
    };

    use redb::StorageBackend;

    use super::*;
    use crate::model::example;

    /// A disk in memory that takes so many writes and then is full. What was written stays.
    #[derive(Clone, Debug, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        left: Arc<AtomicI64>,
    }

    impl Disk {
        fn take(&self) -> io::Result<()> {
            if self.left.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn fill_after(&self, writes: i64) {
            self.left.store(writes, Ordering::Relaxed);
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().unwrap().len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let at = usize::try_from(offset).unwrap();
            out.copy_from_slice(&self.bytes.lock().unwrap()[at..at + out.len()]);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.take()?;
            self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            self.take()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.take()?;
            let at = usize::try_from(offset).unwrap();
            self.bytes.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    fn on(disk: &Disk) -> Result<Local> {
        let disk = disk.clone();
        Local::opened_by(Box::new(move || Ok(Database::builder().create_with_backend(disk.clone())?)))
    }

    fn known(cluster: &Cluster, revision: u64) -> Known {
        let Cluster { endpoints, reservations, .. } = cluster.clone();
        Known { endpoints, reservations, revision: Revision(revision), description: None }
    }

    fn clusters() -> (Cluster, Cluster) {
        let first = example::cluster();
        let mut second = first.clone();
        let key: EndpointKey = "shop/web-1".parse().unwrap();
        let gone = second.endpoints.remove(&key).unwrap();
        second.reservations.insert(key, Reservation { addresses: gone.addresses, used: Revision(2) });
        (first, second)
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = clusters();
        let mut local = Local::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(local.load().unwrap(), Known::default());
        local.save(&Cluster::default(), &first, Revision(1)).unwrap();
        assert_eq!(local.load().unwrap(), known(&first, 1));
        local.save(&first, &second, Revision(2)).unwrap();
        local.save_description("text", Revision(3)).unwrap();
        drop(local);
        let mut local = Local::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(local.load().unwrap(), Known { description: Some("text".to_owned()), ..known(&second, 3) });
    }

    #[test]
    fn two_daemons_do_not_share_a_database() {
        let folder = tempfile::tempdir().unwrap();
        let first = Local::open(folder.path()).unwrap();
        let error = format!("{:#}", Local::open(folder.path()).unwrap_err());
        assert!(error.contains("another weftd uses it"), "{error}");
        assert!(is_in_use(folder.path()).unwrap());
        drop(first);
        assert!(!is_in_use(folder.path()).unwrap());
        assert!(!is_in_use(&folder.path().join("none")).unwrap());
    }

    #[test]
    fn a_damaged_database_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("weft.redb"), vec![0x5a; 8192]).unwrap();
        let error = format!("{:#}", Local::open(folder.path()).unwrap_err());
        assert!(error.contains("weft.redb: it is damaged; move it away"), "{error}");
    }

    /// Whatever byte is wrong, there is an error or all that was written.
    #[test]
    fn a_damaged_byte_is_found_or_does_no_harm() {
        let (first, _) = clusters();
        let disk = Disk::default();
        disk.fill_after(i64::MAX);
        let mut local = on(&disk).unwrap();
        local.save(&Cluster::default(), &first, Revision(1)).unwrap();
        drop(local);
        let good = disk.bytes.lock().unwrap().clone();
        let written: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
        let mut found = 0;
        for at in written.iter().step_by(written.len() / 400 + 1) {
            let mut bad = good.clone();
            bad[*at] ^= 0x41;
            *disk.bytes.lock().unwrap() = bad;
            match on(&disk).and_then(|mut local| local.load()) {
                Ok(loaded) => assert_eq!(loaded, known(&first, 1), "byte {at}"),
                Err(_) => found += 1,
            }
        }
        assert!(found > 10, "{found}");
    }

    /// Wherever the disk becomes full during a change, the change is refused, what was there is there, and the
    /// change can be made when there is room again.
    #[test]
    fn a_full_disk_changes_nothing() {
        let (first, second) = clusters();
        let mut refused = 0;
        for writes in 0..1_000 {
            let disk = Disk::default();
            disk.fill_after(i64::MAX);
            let mut local = on(&disk).unwrap();
            local.save(&Cluster::default(), &first, Revision(1)).unwrap();
            disk.fill_after(writes);
            let saved = local.save(&first, &second, Revision(2));
            let loaded_then = local.load();
            disk.fill_after(i64::MAX);
            let loaded = local.load().unwrap();
            if saved.is_ok() {
                assert_eq!(loaded, known(&second, 2));
                break;
            }
            refused += 1;
            assert!(loaded_then.is_err() || loaded_then.unwrap() == loaded);
            // The last write can be what makes the change durable, and its error comes after.
            assert!(loaded == known(&first, 1) || loaded == known(&second, 2), "after {writes} writes");
            local.save(&first, &second, Revision(2)).unwrap();
            assert_eq!(local.load().unwrap(), known(&second, 2));
        }
        assert!(refused > 3, "{refused}");
    }
}

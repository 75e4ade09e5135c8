//! The file on the disk: when it is another, and how it is replaced.
//!
//! It is looked at, not waited for: an editor that writes a new file and renames it, a bind mount, a symlink that
//! is changed, a network file system all look the same. A file that is being written is not read until it was the
//! same from one look to the next.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};

use super::super::{Position, Problem};

/// Larger than any cluster: a mistake is not read into memory.
const LARGEST: u64 = 64 << 20;

/// A file that is followed.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    /// What the file was when it was read last.
    read: Option<Stamp>,
    /// What it was when it was looked at last.
    seen: Option<Stamp>,
}

/// What a look at the file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// It is the one that was read.
    Same,
    /// It is another, and may be written at this moment.
    Unsettled,
    /// It was read.
    Read,
}

/// What writing the file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It has the new text.
    Done,
    /// Somebody else has changed it: nothing was written.
    Overtaken,
}

/// Changes whenever the content does: a change of the content sets ctime, which nobody else can set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Missing,
    There { device: u64, inode: u64, size: u64, changed: (i64, i64) },
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self::There { device: metadata.dev(), inode: metadata.ino(), size: metadata.len(), changed }
    }
}

impl Watched {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: None, seen: None }
    }

    /// The file as the operator named it.
    pub(super) fn name(&self) -> Arc<str> {
        self.path.to_string_lossy().into()
    }

    /// Whether the file was the one that was read, when it was looked at last.
    pub(super) fn is_settled(&self) -> bool {
        self.seen == self.read
    }

    /// Reads the file at the next look, whatever it is.
    pub(super) fn forget(&mut self) {
        self.read = None;
    }

    /// The text of the file, if it is another than the one that was read and is not being written.
    pub(super) fn look(&mut self) -> Result<Option<String>, Problem> {
        let stamp = fs::metadata(&self.path).map_or(Stamp::Missing, |metadata| Stamp::of(&metadata));
        let before = self.seen.replace(stamp);
        if self.read == Some(stamp) || before != Some(stamp) {
            return Ok(None);
        }
        self.read().map(Some)
    }

    /// The text of the file as it is.
    pub(super) fn read(&mut self) -> Result<String, Problem> {
        let problem = |position, text| Problem { file: self.path.to_string_lossy().into(), position, text };
        let (stamp, bytes) = match contents(&self.path) {
            Ok(contents) => contents,
            Err(error) => {
                let stamp = if error.kind() == io::ErrorKind::NotFound {
                    Stamp::Missing
                } else {
                    self.seen.unwrap_or(Stamp::Missing)
                };
                (self.read, self.seen) = (Some(stamp), Some(stamp));
                return Err(problem(None, format!("read it: {error}")));
            }
        };
        (self.read, self.seen) = (Some(stamp), Some(stamp));
        String::from_utf8(bytes).map_err(|error| {
            let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            problem(Some(Lines::of(&valid).position(valid.len())), "this is not UTF-8".to_owned())
        })
    }

    /// Replaces `old` by `new`, as one step: whoever reads gets one or the other, also after a crash.
    pub(super) fn write(&mut self, old: &str, new: &str) -> Result<Written> {
        let name = self.name();
        // A symlink stays; what it points to is replaced.
        let path = fs::canonicalize(&self.path).with_context(|| format!("find {name}"))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let locked = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
        // Other daemons may share the file. The lock ends with `locked`.
        locked.lock().with_context(|| format!("lock {}", folder.display()))?;
        let (_, there) = contents(&path).with_context(|| format!("read {name}"))?;
        if there != old.as_bytes() {
            return Ok(Written::Overtaken);
        }
        let temporary = folder.join(format!(".weft-{}.tmp", std::process::id()));
        let written = replace(&path, &temporary, new).with_context(|| format!("write {name}"));
        if written.is_err() {
            // It may not have been made at all.
            fs::remove_file(&temporary).ok();
        }
        written?;
        locked.sync_all().with_context(|| format!("sync {}", folder.display()))?;
        let stamp = fs::metadata(&path).map_or(Stamp::Missing, |metadata| Stamp::of(&metadata));
        (self.read, self.seen) = (Some(stamp), Some(stamp));
        Ok(Written::Done)
    }
}

/// What a file is and what is in it, at the same moment.
fn contents(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(io::Error::other("it is no file of up to 64 MiB"));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, LARGEST), &mut bytes)?;
    Ok((Stamp::of(&metadata), bytes))
}

fn replace(path: &Path, temporary: &Path, text: &str) -> io::Result<()> {
    let old = fs::metadata(path)?;
    // One that a crash left behind is ours.
    if let Err(error) = fs::remove_file(temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(old.permissions())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

/// A text whose lines are known, so that the place of a byte is found without reading all that is before it.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each line starts.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(end, _)| end + 1)).collect();
        Self { text, starts }
    }

    /// In which line a byte is, counted from 1.
    pub(super) fn line(&self, at: usize) -> u32 {
        u32::try_from(self.before(at)).unwrap_or(u32::MAX)
    }

    /// The line and column of a byte.
    pub(super) fn position(&self, at: usize) -> Position {
        let start = self.starts[self.before(at) - 1];
        let column = self.text[start..self.text.floor_char_boundary(at)].chars().count();
        Position { line: self.line(at), column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1) }
    }

    /// How many lines start up to there: at least the first.
    fn before(&self, at: usize) -> usize {
        self.starts.partition_point(|&start| start <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_counting_from_the_start_finds() {
        for text in ["", "a", "\n", "one\ntwo\n", "\n\nzw\u{f6}lf\r\n\u{6c34}\n\nlast"] {
            let lines = Lines::of(text);
            for (at, _) in text.char_indices().chain([(text.len(), ' ')]) {
                let (before, line) = (&text[..at], text[..at].rsplit('\n').next().unwrap_or_default());
                let position = lines.position(at);
                assert_eq!(position.line as usize, before.matches('\n').count() + 1, "{text:?} at {at}");
                assert_eq!(position.column as usize, line.chars().count() + 1, "{text:?} at {at}");
                assert_eq!(lines.line(at), position.line);
            }
            // Beyond the end it is the end, and within a character its start.
            assert_eq!(lines.position(text.len() + 9), lines.position(text.len()));
        }
        assert_eq!(Lines::of("\u{fc}").position(1), Position { line: 1, column: 1 });
    }
}

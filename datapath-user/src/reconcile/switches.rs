//! Kernel switches that were changed, and what they were before, so that a reset leaves the host as it was.
//!
//! Noted in a file, a line each: a daemon that was killed does not remember.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::kernel::sysctl::{Earlier, restore};

/// What was changed, the earliest first.
pub(super) struct Switches {
    file: PathBuf,
    earlier: Vec<Earlier>,
}

impl Switches {
    /// As an earlier daemon noted them.
    pub(super) fn open(state: &Path) -> Self {
        let file = state.join("sysctl");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let line = |line: &str| {
            let (key, value) = line.split_once('=')?;
            Some(Earlier { key: key.to_owned(), value: value.to_owned() })
        };
        Self { earlier: text.lines().filter_map(line).collect(), file }
    }

    /// Notes what a change has changed, and says how many switches that were. Of one that was changed more than once
    /// the first value counts.
    pub(super) fn set(&mut self, changed: Result<Vec<Earlier>>) -> Result<usize> {
        let changed = changed?;
        let changes = changed.len();
        let new: Vec<Earlier> =
            changed.into_iter().filter(|new| !self.earlier.iter().any(|old| old.key == new.key)).collect();
        if new.is_empty() {
            return Ok(changes);
        }
        self.earlier.extend(new);
        let lines: Vec<String> = self.earlier.iter().map(|Earlier { key, value }| format!("{key}={value}\n")).collect();
        fs::write(&self.file, lines.concat())
            .with_context(|| format!("note changed sysctls in {}", self.file.display()))?;
        Ok(changes)
    }

    /// Puts everything back, and says what that was.
    pub(super) fn restore(&mut self) -> Result<Vec<String>> {
        restore(&self.earlier)?;
        if self.file.exists() {
            fs::remove_file(&self.file).with_context(|| format!("remove {}", self.file.display()))?;
        }
        Ok(self.earlier.drain(..).map(|earlier| earlier.key).collect())
    }
}

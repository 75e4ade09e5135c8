//! Files that an operator names: manifests that are read, and pictures and reports that are written.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::failure::Failure;
use crate::front::api::dto::policies::Document;

/// What a manifest in a folder is called like. Anything else there is something else.
const KINDS: [&str; 3] = ["yaml", "yml", "json"];

/// The texts of files, of all manifests of folders in order, and of standard input for `-`.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(Failure::Input)?;
            if text.trim_ascii().is_empty() {
                return Err(Failure::Sentence("nothing came on standard input: did the command before it fail?"));
            }
            found.push(Document { name: "-".to_owned(), text });
        } else if path.is_dir() {
            let in_folder = manifests(path).map_err(|error| Failure::File("read", path.clone(), error))?;
            if in_folder.is_empty() {
                let nothing = io::Error::new(io::ErrorKind::NotFound, "it has no *.yaml, *.yml or *.json");
                return Err(Failure::File("read", path.clone(), nothing));
            }
            found.extend(in_folder.iter().map(|path| document(path)).collect::<Result<Vec<_>, _>>()?);
        } else {
            found.push(document(path)?);
        }
    }
    Ok(found)
}

/// A file's text.
pub(super) fn document(path: &Path) -> Result<Document, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::File("read", path.to_owned(), error))?;
    Ok(Document { name: path.display().to_string(), text })
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::File("write", path.to_owned(), error))
}

/// The manifests of a folder, in order.
fn manifests(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let is_manifest = |path: &PathBuf| {
        path.extension().and_then(OsStr::to_str).is_some_and(|kind| KINDS.contains(&kind)) && path.is_file()
    };
    let mut found: Vec<_> = entries.into_iter().filter(is_manifest).collect();
    found.sort();
    Ok(found)
}

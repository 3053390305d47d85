//! Small JSON files with a format version: `tidelog.meta` and `topics/<topic>.json`.
//!
//! # Format
//! One JSON object with a number `format_version` in it. A greater version than this crate's is refused before anything
//! else of the file is looked at. Files are replaced whole, never changed in place.
//!
//! # Thread safety
//! Plain functions; whoever writes a file sees to it that nobody else does.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    error::{Error, Repr, Result},
    storage::{EntryKind, Storage},
};

/// The version that this crate writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// What the names of temporary files end with.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// The most that such a file can have, in bytes; a longer one isn't ours.
const MAX_BYTES: u64 = 64 << 10;

/// Reads a file; `None` if it isn't there. Kind `UnsupportedFormat` if it is of a newer version, `Corruption` if it
/// isn't what [`write()`] writes.
pub(crate) fn read<T: DeserializeOwned>(storage: &dyn Storage, path: &Path) -> Result<Option<T>> {
    let bytes = match storage.read(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            return Err(Error::corruption(path, 0, source.to_string()));
        }
        Err(source) => return Err(Error::io("read", path, source)),
    };
    let damaged = |detail: String| Error::corruption(path, 0, detail);
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| damaged(format!("not JSON: {error}")))?;
    let version = value.get("format_version").and_then(Value::as_u64);
    let version = version.ok_or_else(|| damaged("the number `format_version` is missing".into()))?;
    if version == 0 {
        return Err(damaged("there is no `format_version` 0".into()));
    }
    if version > FORMAT_VERSION.into() {
        let found = u32::try_from(version).unwrap_or(u32::MAX);
        return Err(Repr::UnsupportedFormat { path: path.into(), found, supported: FORMAT_VERSION }.into());
    }
    serde_json::from_value(value).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Writes `<dir>/<name>` in one step, by way of `<dir>/<temporary>.tmp`; durable when this returns.
pub(crate) fn write<T: Serialize>(
    storage: &dyn Storage,
    dir: &Path,
    temporary: &str,
    name: &str,
    content: &T,
) -> Result<()> {
    let path = dir.join(name);
    let failed = |source| Error::io("write", &path, source);
    let mut bytes = serde_json::to_vec_pretty(content).map_err(|error| failed(error.into()))?;
    bytes.push(b'\n');
    storage.replace(dir, &format!("{temporary}{TEMPORARY_SUFFIX}"), name, &bytes).map_err(failed)
}

/// Removes what a crash left of [`write()`] in `dir`, of the temporary names that are `ours`.
pub(crate) fn remove_temporaries(storage: &dyn Storage, dir: &Path, ours: impl Fn(&str) -> bool) -> Result<()> {
    for entry in storage.list(dir).map_err(|source| Error::io("list", dir, source))? {
        let is_temporary = entry.name.strip_suffix(TEMPORARY_SUFFIX).is_some_and(&ours);
        if entry.kind == EntryKind::File && is_temporary {
            let path = dir.join(entry.name);
            storage.remove_if_there(&path).map_err(|source| Error::io("remove", &path, source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{
        error::ErrorKind,
        storage::{OpenMode, sim::SimStorage},
    };

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Content {
        format_version: u32,
        name: String,
    }

    fn put(storage: &SimStorage, text: &str) {
        let file = storage.open(Path::new("/log/content.json"), OpenMode::Truncate).unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
    }

    fn storage() -> SimStorage {
        let storage = SimStorage::default();
        storage.create_dir_all(Path::new("/log")).unwrap();
        storage
    }

    fn content(storage: &SimStorage) -> Result<Option<Content>> {
        read(storage, Path::new("/log/content.json"))
    }

    #[test]
    fn what_was_written_is_read() {
        let storage = storage();
        assert_eq!(content(&storage).unwrap(), None);
        let written = Content { format_version: 1, name: "orders".into() };
        write(&storage, Path::new("/log"), "new", "content.json", &written).unwrap();
        assert_eq!(content(&storage).unwrap(), Some(written));
    }

    #[test]
    fn damage_is_told_with_the_name_of_the_file() {
        let storage = storage();
        for text in [
            "",
            "\0\0\0",
            "{",
            "[]",
            "{}",
            r#"{"format_version": "1", "name": "x"}"#,
            r#"{"format_version": 0, "name": "x"}"#,
            r#"{"format_version": 1}"#,
            r#"{"format_version": 1, "name": 7}"#,
            &format!(r#"{{"format_version": 1, "name": "{}"}}"#, "x".repeat(MAX_BYTES as usize)),
        ] {
            put(&storage, text);
            let error = content(&storage).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{text:.80}");
            assert_eq!(error.path(), Some(Path::new("/log/content.json")));
        }
    }

    #[test]
    fn a_newer_version_is_refused_whatever_else_it_holds() {
        let storage = storage();
        for text in [r#"{"format_version": 2}"#, r#"{"format_version": 99999999999, "name": "x"}"#] {
            put(&storage, text);
            assert_eq!(content(&storage).unwrap_err().kind(), ErrorKind::UnsupportedFormat, "{text}");
        }
    }

    #[test]
    fn leftovers_of_a_crash_are_removed_and_nothing_else() {
        let storage = storage();
        put(&storage, "{}");
        for name in ["new-17.tmp", "new-17.json", "users.tmp"] {
            storage.open(&Path::new("/log").join(name), OpenMode::CreateNew).unwrap();
        }
        remove_temporaries(&storage, Path::new("/log"), |name| name.starts_with("new-")).unwrap();
        let names: Vec<_> = storage.list(Path::new("/log")).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["content.json", "new-17.json", "users.tmp"]);
    }
}

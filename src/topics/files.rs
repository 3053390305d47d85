//! The files of topics, and the names of their folders.
//!
//! # Format
//! `topics/<topic>.json` holds format version, topic id (128 random bits as 32 hexadecimal digits) and configuration;
//! each partition is a folder `<topic>-<number>` beside `topics`. A temporary name is made of the id, so that a leftover
//! says nothing of a topic.
//!
//! A deletion renames `<topic>.json` to `<topic>.gone`, the *marker*, which so tells name, id and number of partitions
//! of a topic that is no more. Folders are renamed to `<id>-<number>.gone` before they are emptied.
//!
//! # Invariants
//! - The renaming of a file into place is what creates, changes or deletes a topic; it is durable before anything is
//!   built on it.
//! - A name is checked before it becomes part of a path.
//!
//! # Thread safety
//! Whoever writes holds the lock of the topics' life.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Topics, deletion::Deletion};
use crate::{
    config::TopicConfig,
    error::{Error, ErrorKind, Result},
    json_file,
    name::{RESERVED_PREFIX, is_well_formed},
    report::{Finding, RecoveryReport},
};

/// The folder of the topics' files, in the log's.
pub(crate) const TOPICS_DIR: &str = "topics";

/// What the name of a topic's file has behind the topic's.
pub(super) const FILE_SUFFIX: &str = ".json";

/// What the names of markers, and of folders that are about to go, have at their end. Not longer than [`FILE_SUFFIX`]:
/// with the longest name before it, it is still a file name.
pub(super) const GONE_SUFFIX: &str = ".gone";
const _: () = assert!(GONE_SUFFIX.len() <= FILE_SUFFIX.len());

/// What the temporary name of a topic's file has before the topic's id.
const TEMPORARY_PREFIX: &str = "topic-";

/// The content of a topic's file.
#[derive(Serialize, Deserialize)]
struct Content {
    format_version: u32,
    topic_id: String,
    config: TopicConfig,
}

/// What a topic's file, or a marker, tells.
#[derive(Debug, Clone)]
pub(super) struct TopicFile {
    pub(super) name: String,
    pub(super) id: u128,
    pub(super) config: TopicConfig,
}

impl Topics {
    /// Makes the folder of the topics' files; removes what interrupted writes left there.
    pub(super) fn make_topics_dir(&self) -> Result<()> {
        let dir = self.topics_dir();
        if self.entry_kind(&dir)?.is_none() {
            self.unsettle()?;
        }
        self.env.storage.create_own_dir(&dir).map_err(|source| Error::io("create the folder", &dir, source))?;
        json_file::remove_temporaries(&*self.env.storage, &dir, |name| name.starts_with(TEMPORARY_PREFIX))
    }

    /// Reads the files of all topics, in the order of names; those of the log's own too.
    pub(super) fn read_files(&self) -> Result<Vec<TopicFile>> {
        let mut files: Vec<TopicFile> = Vec::new();
        let mut names_by_id = BTreeMap::new();
        for name in self.names_with(FILE_SUFFIX)? {
            if !is_well_formed(&name) {
                return Err(Error::corruption(self.file_path(&name), 0, "its name isn't a topic's"));
            }
            let file = self.read_file(&name)?;
            // What groups have committed, they have for an id.
            if let Some(other) = names_by_id.insert(file.id, name) {
                let detail = format!("it is a copy: its topic id is that of {other:?}");
                return Err(Error::corruption(self.file_path(&file.name), 0, detail));
            }
            files.push(file);
        }
        Ok(files)
    }

    /// Reads a topic's file.
    pub(super) fn read_file(&self, name: &str) -> Result<TopicFile> {
        self.read_content(name, &self.file_path(name))
    }

    /// Reads what deletions that didn't come to their end have left. What can't be one is reported and left alone.
    pub(super) fn read_markers(
        &self,
        files: &[TopicFile],
        report: &mut RecoveryReport,
    ) -> Result<BTreeMap<String, Deletion>> {
        let mut deletions = BTreeMap::new();
        for name in self.names_with(GONE_SUFFIX)? {
            match self.read_marker(&name, files) {
                Ok(deletion) => drop(deletions.insert(name, deletion)),
                Err(error) if error.kind() == ErrorKind::Corruption => {
                    report.add(Finding::DamagedDeletion { path: self.marker_path(&name), detail: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(deletions)
    }

    /// Reads the marker of a topic's deletion. Kind `Corruption` if it isn't one that a deletion leaves.
    pub(super) fn read_marker(&self, name: &str, files: &[TopicFile]) -> Result<Deletion> {
        let path = self.marker_path(name);
        if !is_well_formed(name) || name.starts_with(RESERVED_PREFIX) {
            return Err(Error::corruption(path, 0, "its name isn't that of a topic that can be deleted"));
        }
        let TopicFile { id, config, .. } = self.read_content(name, &path)?;
        if let Some(file) = files.iter().find(|file| file.id == id) {
            let detail = format!("it says that a topic was deleted that is there, as {:?}", file.name);
            return Err(Error::corruption(path, 0, detail));
        }
        Ok(Deletion { id, partitions: config.partitions, opened: false })
    }

    fn read_content(&self, name: &str, path: &Path) -> Result<TopicFile> {
        let content: Content = json_file::read(&*self.env.storage, path)?
            .ok_or_else(|| Error::io("read", path, std::io::ErrorKind::NotFound.into()))?;
        let damaged = |detail: String| Error::corruption(path, 0, detail);
        let id = parse_id(&content.topic_id).ok_or_else(|| damaged("`topic_id` isn't 32 hexadecimal digits".into()))?;
        content.config.validate().map_err(|error| damaged(error.to_string()))?;
        Ok(TopicFile { name: name.into(), id, config: content.config })
    }

    /// Writes a topic's file, durably: from then on the topic is there, as the file says.
    pub(super) fn write_file(&self, name: &str, id: u128, config: &TopicConfig) -> Result<()> {
        self.unsettle()?;
        let topic_id = format!("{id:032x}");
        let temporary = format!("{TEMPORARY_PREFIX}{topic_id}");
        let content = Content { format_version: json_file::FORMAT_VERSION, topic_id, config: config.clone() };
        json_file::write(&*self.env.storage, &self.topics_dir(), &temporary, &file_name(name), &content)
            .inspect_err(|_| self.doubt())
    }

    /// What stands before `suffix` in the names of files in the topics' folder, in order.
    pub(super) fn names_with(&self, suffix: &str) -> Result<Vec<String>> {
        let dir = self.topics_dir();
        let entries = self.env.storage.list(&dir).map_err(|source| Error::io("list", &dir, source))?;
        // Whatever they stand for: what isn't a file is refused when it is to be read.
        Ok(entries.into_iter().filter_map(|entry| entry.name.strip_suffix(suffix).map(str::to_owned)).collect())
    }

    pub(super) fn topics_dir(&self) -> PathBuf {
        self.dir.join(TOPICS_DIR)
    }

    pub(super) fn file_path(&self, topic: &str) -> PathBuf {
        self.topics_dir().join(file_name(topic))
    }

    pub(super) fn marker_path(&self, topic: &str) -> PathBuf {
        self.topics_dir().join(format!("{topic}{GONE_SUFFIX}"))
    }
}

fn file_name(topic: &str) -> String {
    format!("{topic}{FILE_SUFFIX}")
}

/// Topic and number of a partition, of the name of its folder.
pub(super) fn split_folder_name(name: &str) -> Option<(&str, u32)> {
    let (topic, digits) = name.rsplit_once('-')?;
    Some((topic, parse_number(digits)?)).filter(|_| is_well_formed(topic))
}

/// The name that a partition's folder gets before it is emptied.
pub(super) fn doomed_name(topic_id: u128, number: u32) -> String {
    format!("{topic_id:032x}-{number}{GONE_SUFFIX}")
}

/// The topic id in a name that [`doomed_name`] makes.
pub(super) fn doomed_id(name: &str) -> Option<u128> {
    let (id, digits) = name.strip_suffix(GONE_SUFFIX)?.split_once('-')?;
    let number = parse_number(digits)?;
    parse_id(id).filter(|&id| doomed_name(id, number) == name)
}

/// A partition's number as it stands in names. Other ways to write it, like `+1` or `01`, aren't ours.
fn parse_number(digits: &str) -> Option<u32> {
    digits.parse().ok().filter(|number: &u32| number.to_string() == digits)
}

fn parse_id(text: &str) -> Option<u128> {
    let is_hexadecimal = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_are_split_at_the_last_hyphen() {
        assert_eq!(split_folder_name("orders-0"), Some(("orders", 0)));
        assert_eq!(split_folder_name("a-1-17"), Some(("a-1", 17)));
        assert_eq!(split_folder_name("__offsets-0"), Some(("__offsets", 0)));
        for other in ["orders", "orders-", "-0", "orders-01", "orders-+1", "orders-x", "or ders-1", "orders-4294967296"]
        {
            assert_eq!(split_folder_name(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_folders_that_go_are_no_partitions() {
        let name = doomed_name(0xab, 17);
        assert_eq!(name, "000000000000000000000000000000ab-17.gone");
        assert_eq!((doomed_id(&name), split_folder_name(&name)), (Some(0xab), None));
        for other in [
            "000000000000000000000000000000AB-17.gone",
            "000000000000000000000000000000ab-17",
            "000000000000000000000000000000ab-017.gone",
            "000000000000000000000000000000ab.gone",
            "ab-17.gone",
            "orders-0.gone",
        ] {
            assert_eq!(doomed_id(other), None, "{other}");
        }
    }
}

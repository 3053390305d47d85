//! The topics of a log: files, creation, opening.
//!
//! # Format
//! `topics/<topic>.json` holds format version, topic id (128 random bits as 32 hexadecimal digits) and configuration;
//! each partition is a folder `<topic>-<number>` beside it. Folders are made first; the renaming of the JSON file into
//! place is what creates the topic. Its temporary name is made of the id, so that a leftover says nothing of a topic.
//!
//! # Invariants
//! - A folder that holds a record is never removed here. Folders without a topic that hold none are what a crash amid
//!   a creation leaves; the next creation of the topic removes them.
//! - Names beginning with `__` are the log's own topics; users neither see nor name them.
//!
//! # Thread safety
//! Any thread may call anything. Creations take turns; looking a topic up waits for none of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::{
    config::{LogOptions, TopicConfig},
    error::{Error, Repr, Result},
    json_file,
    name::{RESERVED_PREFIX, check_name, is_well_formed},
    orphan,
    partition::{Environment, Opening, PartitionLog, PartitionSpec, Settings, SettingsValues},
    partition_list::PartitionList,
    partitioner::DefaultPartitioner,
    report::{Finding, RecoveryReport},
    storage::EntryKind,
    topic::{TopicState, for_all},
};

/// The folder of the topics' files, in the log's.
pub(crate) const TOPICS_DIR: &str = "topics";

/// What the name of a topic's file has behind the topic's.
const FILE_SUFFIX: &str = ".json";

/// What the temporary name of a topic's file has before the topic's id.
const TEMPORARY_PREFIX: &str = "topic-";

/// The content of a topic's file.
#[derive(Serialize, Deserialize)]
struct TopicFile {
    format_version: u32,
    topic_id: String,
    config: TopicConfig,
}

/// All topics of one log.
#[derive(Debug)]
pub(crate) struct Topics {
    env: Environment,
    dir: PathBuf,
    options: LogOptions,
    by_name: RwLock<BTreeMap<Arc<str>, Arc<TopicState>>>,
    /// Whoever creates or closes holds this; the value says whether the log was closed.
    closed: Mutex<bool>,
}

impl Topics {
    /// Opens the topics of the log in the folder `dir`, all partitions included. What isn't as a clean close leaves it
    /// goes into `report`.
    pub(crate) fn open(
        env: Environment,
        dir: &Path,
        options: &LogOptions,
        report: &mut RecoveryReport,
    ) -> Result<Self> {
        let topics = Self {
            env,
            dir: dir.to_owned(),
            options: options.clone(),
            by_name: RwLock::default(),
            closed: Mutex::new(false),
        };
        match topics.open_all(report) {
            Ok(()) => Ok(topics),
            Err(error) => {
                // The first error is the one to tell.
                let _ = topics.close();
                Err(error)
            }
        }
    }

    fn open_all(&self, report: &mut RecoveryReport) -> Result<()> {
        let dir = self.topics_dir();
        self.env.storage.create_dir_all(&dir).map_err(|source| Error::io("create the folder", &dir, source))?;
        json_file::remove_temporaries(&*self.env.storage, &dir, |name| name.starts_with(TEMPORARY_PREFIX))?;
        let names = self.names_of_files()?;
        // All are looked at before the first is opened, which changes files: a newer version's are to stay as they are.
        for name in &names {
            self.read_file(name)?;
        }
        for name in names.iter().filter(|name| !name.starts_with(RESERVED_PREFIX)) {
            self.open_topic(name, report)?;
        }
        self.report_orphans(&names, report)
    }

    /// Names of the topics that have a file, in order; those of the log's own too.
    fn names_of_files(&self) -> Result<Vec<String>> {
        let dir = self.topics_dir();
        let entries = self.env.storage.list(&dir).map_err(|source| Error::io("list", &dir, source))?;
        let mut names = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            if let Some(name) = entry.name.strip_suffix(FILE_SUFFIX) {
                if !is_well_formed(name) {
                    return Err(Error::corruption(dir.join(&entry.name), 0, "its name isn't a topic's"));
                }
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Opens a topic that has a file.
    fn open_topic(&self, name: &str, report: &mut RecoveryReport) -> Result<Arc<TopicState>> {
        let (id, config) = self.read_file(name)?;
        Ok(self.enter(self.open_partitions(name, id, config, report)?))
    }

    /// Id and configuration, of the topic's file.
    fn read_file(&self, name: &str) -> Result<(u128, TopicConfig)> {
        let path = self.topics_dir().join(file_name(name));
        let file: TopicFile = json_file::read(&*self.env.storage, &path)?
            .ok_or_else(|| Error::io("read", &path, std::io::ErrorKind::NotFound.into()))?;
        let damaged = |detail: String| Error::corruption(&path, 0, detail);
        let id = parse_id(&file.topic_id).ok_or_else(|| damaged("`topic_id` isn't 32 hexadecimal digits".into()))?;
        file.config.validate().map_err(|error| damaged(error.to_string()))?;
        Ok((id, file.config))
    }

    /// Lets users find the topic.
    fn enter(&self, state: TopicState) -> Arc<TopicState> {
        let state = Arc::new(state);
        self.by_name.write().insert(state.name.clone(), state.clone());
        state
    }

    /// Opens all partitions of a topic. Those that are made are reported as missing: who creates the topic, and expects
    /// them to be, doesn't look at the report.
    fn open_partitions(
        &self,
        name: &str,
        id: u128,
        config: TopicConfig,
        report: &mut RecoveryReport,
    ) -> Result<TopicState> {
        let name: Arc<str> = name.into();
        let settings = Arc::new(Settings::new(self.settings(&config)));
        let mut partitions: Vec<Arc<PartitionLog>> = Vec::new();
        for number in 0..config.partitions {
            let spec = PartitionSpec { topic: name.clone(), topic_id: id, number, settings: settings.clone() };
            let folder = self.partition_dir(&name, number);
            match PartitionLog::open(&self.env, &folder, spec) {
                Ok((partition, recovery)) => {
                    if recovery.opening() == Opening::Created {
                        report.add(Finding::MissingPartition { path: folder });
                    }
                    report.add_partition(recovery);
                    partitions.push(partition);
                }
                Err(error) => {
                    let _ = for_all(&partitions, PartitionLog::close);
                    return Err(error);
                }
            }
        }
        Ok(TopicState {
            name,
            id,
            config: Mutex::new(config),
            settings,
            partitions: PartitionList::new(partitions),
            partitioner: DefaultPartitioner::new(),
        })
    }

    /// The topic's options, the log's where it has none.
    fn settings(&self, config: &TopicConfig) -> SettingsValues {
        SettingsValues {
            durability: config.durability.unwrap_or(self.options.durability),
            segment_bytes: config.segment_bytes.unwrap_or(self.options.segment_bytes),
            segment_ms: config.segment_ms.or(self.options.segment_ms),
            max_record_bytes: config.max_record_bytes.unwrap_or(self.options.max_record_bytes),
            retention_ms: config.retention_ms.or(self.options.retention_ms),
            retention_bytes: config.retention_bytes.or(self.options.retention_bytes),
        }
    }

    /// Creates a topic; kind `TopicExists`.
    pub(crate) fn create(&self, name: &str, config: TopicConfig) -> Result<Arc<TopicState>> {
        check_name("topic", name)?;
        let closed = self.closed.lock();
        if !*closed && self.by_name.read().contains_key(name) {
            return Err(Repr::TopicExists { topic: name.into() }.into());
        }
        self.create_new(name, config, *closed)
    }

    /// The topic of that name, created if it isn't there; kind `PartitionCountMismatch`.
    pub(crate) fn ensure(&self, name: &str, config: TopicConfig) -> Result<Arc<TopicState>> {
        check_name("topic", name)?;
        config.validate()?;
        let closed = self.closed.lock();
        let found = self.by_name.read().get(name).cloned();
        match found {
            Some(_) if *closed => Err(Repr::Closed.into()),
            Some(topic) if topic.partitions.len() == config.partitions => Ok(topic),
            Some(topic) => Err(Repr::PartitionCountMismatch {
                topic: name.into(),
                existing: topic.partitions.len(),
                requested: config.partitions,
            }
            .into()),
            None => self.create_new(name, config, *closed),
        }
    }

    /// Opens one of the log's own topics, whose name is reserved; creates it if it isn't there.
    pub(crate) fn open_internal(
        &self,
        name: &str,
        config: TopicConfig,
        report: &mut RecoveryReport,
    ) -> Result<Arc<TopicState>> {
        let closed = self.closed.lock();
        // What this version needs, whatever the file of the version says that made the topic; and nothing of it is for
        // retention to take.
        let settings = SettingsValues { retention_ms: None, retention_bytes: None, ..self.settings(&config) };
        let topic = match self.entry_kind(&self.topics_dir().join(file_name(name)))? {
            Some(_) => self.open_topic(name, report)?,
            None => self.create_new(name, config, *closed)?,
        };
        topic.settings.set(settings);
        Ok(topic)
    }

    /// The topic of that name; kind `UnknownTopic`.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<TopicState>> {
        check_name("topic", name)?;
        let found = self.by_name.read().get(name).cloned();
        found.ok_or_else(|| Repr::UnknownTopic { topic: name.into() }.into())
    }

    /// Names of the users' topics, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let by_name = self.by_name.read();
        by_name.keys().filter(|name| !name.starts_with(RESERVED_PREFIX)).map(|name| name.to_string()).collect()
    }

    /// All topics of users, in the order of names.
    pub(crate) fn of_users(&self) -> Vec<Arc<TopicState>> {
        let by_name = self.by_name.read();
        by_name.values().filter(|topic| !topic.name.starts_with(RESERVED_PREFIX)).cloned().collect()
    }

    /// Flushes everything; answers the first error.
    pub(crate) fn flush(&self) -> Result<()> {
        self.for_all_topics(PartitionLog::flush)
    }

    /// Closes all partitions; answers the first error. Nothing is created from now on.
    pub(crate) fn close(&self) -> Result<()> {
        let mut closed = self.closed.lock();
        *closed = true;
        self.for_all_topics(PartitionLog::close)
    }

    fn for_all_topics(&self, each: impl Fn(&PartitionLog) -> Result<()>) -> Result<()> {
        let topics: Vec<_> = self.by_name.read().values().cloned().collect();
        topics.iter().map(|topic| for_all(topic.partitions.iter(), &each)).fold(Ok(()), Result::and)
    }

    /// Creates a topic that isn't there. The caller holds `closed`.
    fn create_new(&self, name: &str, config: TopicConfig, closed: bool) -> Result<Arc<TopicState>> {
        if closed {
            return Err(Repr::Closed.into());
        }
        config.validate()?;
        // Of another topic, where the file system ignores case; it isn't ours to replace or to remove.
        let path = self.topics_dir().join(file_name(name));
        if self.entry_kind(&path)?.is_some() {
            return Err(Repr::TopicFileExists { topic: name.into(), path }.into());
        }
        let leftovers = self.partition_folders(|topic, _| topic == name)?;
        orphan::remove_if_empty(&*self.env.storage, &self.dir, &leftovers)?;

        let id = self.new_id(name)?;
        // New partitions have nothing to tell.
        let made = self.open_partitions(name, id, config, &mut RecoveryReport::default()).and_then(|state| match self
            .write_file(&state)
        {
            Ok(()) => Ok(state),
            Err(error) => {
                let _ = for_all(state.partitions.iter(), PartitionLog::close);
                Err(error)
            }
        });
        match made {
            Ok(state) => Ok(self.enter(state)),
            Err(error) => {
                self.undo_creation(name);
                Err(error)
            }
        }
    }

    fn new_id(&self, name: &str) -> Result<u128> {
        let mut random = [0; size_of::<u128>()];
        match getrandom::fill(&mut random) {
            Ok(()) => Ok(u128::from_le_bytes(random)),
            Err(error) => {
                let path = self.topics_dir().join(file_name(name));
                Err(Error::io("draw a random id for", path, std::io::Error::other(error.to_string())))
            }
        }
    }

    /// Writes the topic's file: from then on the topic is there.
    fn write_file(&self, topic: &TopicState) -> Result<()> {
        let topic_id = format!("{:032x}", topic.id);
        let temporary = format!("{TEMPORARY_PREFIX}{topic_id}");
        let file =
            TopicFile { format_version: json_file::FORMAT_VERSION, topic_id, config: topic.config.lock().clone() };
        json_file::write(&*self.env.storage, &self.topics_dir(), &temporary, &file_name(&topic.name), &file)
    }

    /// Takes the files of a failed creation back, as far as that is possible; the rest is a leftover.
    fn undo_creation(&self, name: &str) {
        // The topic's file can be there: renamed into place, but the folder couldn't be synced. It goes first.
        let path = self.topics_dir().join(file_name(name));
        if !matches!(self.entry_kind(&path), Ok(None)) && self.env.storage.remove_file(&path).is_err() {
            return;
        }
        if let Ok(leftovers) = self.partition_folders(|topic, _| topic == name) {
            let _ = orphan::remove_if_empty(&*self.env.storage, &self.dir, &leftovers);
        }
    }

    /// Reports the folders of partitions that no topic has.
    fn report_orphans(&self, files: &[String], report: &mut RecoveryReport) -> Result<()> {
        let by_name = self.by_name.read();
        let orphans = self.partition_folders(|topic, number| match by_name.get(topic) {
            Some(known) => number >= known.partitions.len(),
            // Topics that are the log's own are opened, and looked after, by others.
            None => !(topic.starts_with(RESERVED_PREFIX) && files.iter().any(|file| file == topic)),
        })?;
        for path in orphans {
            report.add(Finding::OrphanedFolder { path: self.dir.join(path) });
        }
        Ok(())
    }

    /// Names of the folders that are named like a partition's, of the topics and numbers that are `wanted`.
    fn partition_folders(&self, wanted: impl Fn(&str, u32) -> bool) -> Result<Vec<String>> {
        let entries = self.env.storage.list(&self.dir).map_err(|source| Error::io("list", &self.dir, source))?;
        let is_wanted = |name: &str| split_folder_name(name).is_some_and(|(topic, number)| wanted(topic, number));
        let folders = entries.into_iter().filter(|entry| entry.kind == EntryKind::Dir && is_wanted(&entry.name));
        Ok(folders.map(|entry| entry.name).collect())
    }

    fn entry_kind(&self, path: &Path) -> Result<Option<EntryKind>> {
        self.env.storage.entry_kind(path).map_err(|source| Error::io("look at", path, source))
    }

    fn topics_dir(&self) -> PathBuf {
        self.dir.join(TOPICS_DIR)
    }

    fn partition_dir(&self, topic: &str, number: u32) -> PathBuf {
        self.dir.join(format!("{topic}-{number}"))
    }
}

impl std::fmt::Debug for TopicState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicState").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

fn file_name(topic: &str) -> String {
    format!("{topic}{FILE_SUFFIX}")
}

/// Topic and number of a partition, of the name of its folder.
fn split_folder_name(name: &str) -> Option<(&str, u32)> {
    let (topic, digits) = name.rsplit_once('-')?;
    let number: u32 = digits.parse().ok()?;
    // Other ways to write the number, like `+1` or `01`, aren't ours.
    (is_well_formed(topic) && number.to_string() == digits).then_some((topic, number))
}

fn parse_id(text: &str) -> Option<u128> {
    let is_hexadecimal = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests;

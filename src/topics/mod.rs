//! The topics of a log: finding, opening, closing. How they come, change and go is in the files beside this one.
//!
//! # Invariants
//! - A topic is there as long as its file is: [`files`] says what each file means.
//! - What is durable of a change comes before what handles see of it.
//! - Names beginning with `__` are the log's own topics; users neither see nor name them.
//!
//! # Thread safety
//! Any thread may call anything. Creations, changes and deletions take turns; looking a topic up waits for none of
//! them.

mod creation;
mod deletion;
mod files;
mod retention;
mod settled;
mod verify;

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard, RwLock};

use self::{deletion::Deletion, files::split_folder_name};
use crate::{
    changes::Changes,
    config::{LogOptions, TopicConfig},
    error::{Error, ErrorKind, Repr, Result},
    name::{RESERVED_PREFIX, check_name},
    partition::{Environment, Opening, PartitionLog, PartitionSpec, Settings, SettingsValues},
    partition_list::PartitionList,
    partitioner::DefaultPartitioner,
    report::{Finding, RecoveryReport},
    storage::EntryKind,
    topic::{TopicState, for_all},
};

pub(crate) use files::TOPICS_DIR;
pub(crate) use retention::Retention;
pub use retention::RetentionStatus;
pub(crate) use settled::Settled;
pub(crate) use verify::{ClosedPartition, file_finding, unless_deleted};

/// Has others forget what they keep of a deleted topic, by its id. May be called again for the same one.
pub(crate) type Forget<'a> = &'a dyn Fn(u128) -> Result<()>;

/// All topics of one log.
#[derive(Debug)]
pub(crate) struct Topics {
    env: Environment,
    dir: PathBuf,
    options: LogOptions,
    by_name: RwLock<BTreeMap<Arc<str>, Arc<TopicState>>>,
    life: Mutex<Life>,
    changes: Changes,
    /// `None` where nothing is changed.
    settled: Option<Settled>,
}

/// Whoever creates, changes, deletes or closes holds this.
#[derive(Debug, Default)]
struct Life {
    closed: bool,
    /// By name: topics that are gone, with files that aren't yet.
    deletions: BTreeMap<String, Deletion>,
}

impl Topics {
    /// Opens the topics of the log in the folder `dir`, all partitions included. What isn't as a clean close leaves it goes into `report`. [`finish_opening`](Topics::finish_opening) is to
    /// follow.
    pub(crate) fn open(
        env: Environment,
        dir: &Path,
        settled: Settled,
        options: &LogOptions,
        report: &mut RecoveryReport,
    ) -> Result<Self> {
        let topics = Self {
            env,
            dir: dir.to_owned(),
            options: options.clone(),
            by_name: RwLock::default(),
            life: Mutex::default(),
            changes: Changes::default(),
            settled: Some(settled),
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
        self.make_topics_dir()?;
        // All are looked at before the first is opened, which changes files: a newer version's are to stay as they are.
        let files = self.read_files()?;
        self.life.lock().deletions = self.read_markers(&files, report)?;
        // What a process that was killed has renamed into place may be in the page cache alone, and is about to be built on.
        self.settle()?;
        for file in files.into_iter().filter(|file| !file.name.starts_with(RESERVED_PREFIX)) {
            self.enter(self.open_topic(&file.name, file.id, file.config, report)?);
        }
        Ok(())
    }

    /// What is to be done once those that keep something of topics are open too: finishes deletions that were
    /// interrupted, and looks for folders of no topic.
    pub(crate) fn finish_opening(&self, forget: Forget<'_>, report: &mut RecoveryReport) -> Result<()> {
        let mut life = self.life.lock();
        self.finish_deletions(&mut life, forget, report);
        self.report_orphans(&life, report)
    }

    /// Lets users find the topic.
    fn enter(&self, state: TopicState) -> Arc<TopicState> {
        let state = Arc::new(state);
        self.by_name.write().insert(state.name.clone(), state.clone());
        state
    }

    /// Opens all partitions of a topic. Those that are made are reported as missing: who creates the topic, and expects
    /// them to be, doesn't look at the report.
    fn open_topic(&self, name: &str, id: u128, config: TopicConfig, report: &mut RecoveryReport) -> Result<TopicState> {
        let name: Arc<str> = name.into();
        let settings = Arc::new(Settings::new(self.settings(&config)));
        let partitions = self.open_partitions(&name, id, &settings, 0..config.partitions, report)?;
        Ok(TopicState::new(name, id, config, settings, partitions))
    }

    /// Opens partitions, all or none; see [`open_topic`](Topics::open_topic).
    fn open_partitions(
        &self,
        name: &Arc<str>,
        id: u128,
        settings: &Arc<Settings>,
        numbers: Range<u32>,
        report: &mut RecoveryReport,
    ) -> Result<Vec<Arc<PartitionLog>>> {
        let mut partitions: Vec<Arc<PartitionLog>> = Vec::new();
        for number in numbers {
            let spec = PartitionSpec { topic: name.clone(), topic_id: id, number, settings: settings.clone() };
            let folder = self.partition_dir(name, number);
            if self.is_settled() && self.entry_kind(&folder)?.is_none() {
                self.unsettle()?;
            }
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
        Ok(partitions)
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

    /// The topic of that name; kind `UnknownTopic`.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<TopicState>> {
        check_name("topic", name)?;
        self.find(name).ok_or_else(|| Repr::UnknownTopic { topic: name.into() }.into())
    }

    /// The users' topics whose names are `wanted`, in order of these.
    pub(crate) fn select(&self, wanted: impl Fn(&str) -> bool) -> Vec<Arc<TopicState>> {
        let by_name = self.by_name.read();
        let found = by_name.iter().filter(|(name, _)| !name.starts_with(RESERVED_PREFIX) && wanted(name));
        found.map(|(_, topic)| topic.clone()).collect()
    }

    /// All topics, the log's own too.
    #[cfg(feature = "metrics")]
    pub(crate) fn all(&self) -> Vec<Arc<TopicState>> {
        self.by_name.read().values().cloned().collect()
    }

    /// What the partitions share.
    pub(crate) fn environment(&self) -> &Environment {
        &self.env
    }

    /// That topics and partitions came or went. To be told of every such change, with no lock of the topics held.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    fn find(&self, name: &str) -> Option<Arc<TopicState>> {
        self.by_name.read().get(name).cloned()
    }

    /// Names of the users' topics, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let by_name = self.by_name.read();
        by_name.keys().filter(|name| !name.starts_with(RESERVED_PREFIX)).map(|name| name.to_string()).collect()
    }

    /// Flushes everything; answers the first error.
    pub(crate) fn flush(&self) -> Result<()> {
        self.for_all_topics(|partition| match partition.flush() {
            // Deleted just now: there is nothing to flush.
            Err(error) if error.kind() == ErrorKind::UnknownTopic => Ok(()),
            outcome => outcome,
        })
    }

    /// Closes all partitions; answers the first error. Nothing is created, changed or deleted from now on.
    pub(crate) fn close(&self) -> Result<()> {
        self.changes.close();
        let mut life = self.life.lock();
        life.closed = true;
        self.for_all_topics(PartitionLog::close)
    }

    fn is_settled(&self) -> bool {
        self.settled.as_ref().is_some_and(Settled::is_settled)
    }

    /// To be called before a name changes in the folder of the log or in that of the topics.
    fn unsettle(&self) -> Result<()> {
        self.settled.as_ref().map_or(Ok(()), Settled::unsettle)
    }

    /// Sees to it that all names in the folder of the log and in that of the topics are on the device, unless they are
    /// known to be; for the next open too.
    pub(crate) fn settle(&self) -> Result<()> {
        let Some(settled) = self.settled.as_ref().filter(|settled| !settled.is_settled()) else { return Ok(()) };
        self.sync_dir(&self.dir)?;
        self.sync_dir(&self.topics_dir())?;
        settled.settle();
        Ok(())
    }

    /// To be called when a name may have changed and isn't known to be on the device.
    fn doubt(&self) {
        if let Some(settled) = &self.settled {
            settled.doubt();
        }
    }

    fn for_all_topics(&self, each: impl Fn(&PartitionLog) -> Result<()>) -> Result<()> {
        let topics: Vec<_> = self.by_name.read().values().cloned().collect();
        topics.iter().map(|topic| for_all(topic.partitions.iter(), &each)).fold(Ok(()), Result::and)
    }

    /// Waits for one's turn to create, change or delete; kind `Closed`.
    fn open_life(&self) -> Result<MutexGuard<'_, Life>> {
        let life = self.life.lock();
        if life.closed { Err(Repr::Closed.into()) } else { Ok(life) }
    }

    /// Names of the folders that are named like a partition's, of the topics and numbers that are `wanted`.
    fn partition_folders(&self, wanted: impl Fn(&str, u32) -> bool) -> Result<Vec<String>> {
        let is_wanted = |name: &str| split_folder_name(name).is_some_and(|(topic, number)| wanted(topic, number));
        Ok(self.folders()?.into_iter().filter(|name| is_wanted(name)).collect())
    }

    /// Names of all folders in the log's.
    fn folders(&self) -> Result<Vec<String>> {
        let entries = self.env.storage.list(&self.dir).map_err(|source| Error::io("list", &self.dir, source))?;
        Ok(entries.into_iter().filter(|entry| entry.kind == EntryKind::Dir).map(|entry| entry.name).collect())
    }

    fn entry_kind(&self, path: &Path) -> Result<Option<EntryKind>> {
        self.env.storage.entry_kind(path).map_err(|source| Error::io("look at", path, source))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.env.storage.sync_dir(path).map_err(|source| {
            self.doubt();
            Error::io("sync the folder", path, source)
        })
    }

    fn partition_dir(&self, topic: &str, number: u32) -> PathBuf {
        self.dir.join(format!("{topic}-{number}"))
    }
}

impl TopicState {
    fn new(
        name: Arc<str>,
        id: u128,
        config: TopicConfig,
        settings: Arc<Settings>,
        partitions: Vec<Arc<PartitionLog>>,
    ) -> Self {
        let (config, partitions) = (Mutex::new(config), PartitionList::new(partitions));
        Self { name, id, config, settings, partitions, partitioner: DefaultPartitioner::new() }
    }
}

impl std::fmt::Debug for TopicState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicState").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

//! How topics come and change: creation, more partitions, other options.
//!
//! # Invariants
//! - The folders of partitions are made, durably, before a file names them; handles see a partition only when the file
//!   does.
//! - A folder that holds a record is never removed here. Folders that no file names and that hold none are what a crash
//!   amid a creation leaves; the next creation of the topic, or of more partitions, removes them.
//!
//! # Thread safety
//! One at a time, by the lock of the topics' life.

use std::{ops::Range, sync::Arc};

use super::{Forget, Life, Topics};
use crate::{
    config::TopicConfig,
    error::{Error, Repr, Result},
    name::check_name,
    orphan,
    partition::{PartitionLog, Settings, SettingsValues, topic_id_of},
    random,
    report::{Finding, RecoveryReport},
    topic::{TopicState, for_all},
};

impl Topics {
    /// Creates a topic; kind `TopicExists`.
    pub(crate) fn create(&self, name: &str, config: TopicConfig, forget: Forget<'_>) -> Result<Arc<TopicState>> {
        check_name("topic", name)?;
        let mut life = self.open_life()?;
        if self.find(name).is_some() {
            return Err(Repr::TopicExists { topic: name.into() }.into());
        }
        let created = self.create_new(&mut life, name, config, forget)?;
        drop(life);
        self.changes.tell();
        Ok(created)
    }

    /// The topic of that name, created if it isn't there; kind `PartitionCountMismatch`.
    pub(crate) fn ensure(&self, name: &str, config: TopicConfig, forget: Forget<'_>) -> Result<Arc<TopicState>> {
        check_name("topic", name)?;
        config.validate()?;
        let mut life = self.open_life()?;
        match self.find(name) {
            Some(topic) if topic.partitions.len() == config.partitions => Ok(topic),
            Some(topic) => Err(count_mismatch(&topic, config.partitions)),
            None => {
                let created = self.create_new(&mut life, name, config, forget)?;
                drop(life);
                self.changes.tell();
                Ok(created)
            }
        }
    }

    /// Opens one of the log's own topics, whose name is reserved; creates it if it isn't there.
    pub(crate) fn open_internal(
        &self,
        name: &str,
        config: TopicConfig,
        report: &mut RecoveryReport,
    ) -> Result<Arc<TopicState>> {
        let mut life = self.open_life()?;
        // What this version needs, whatever the file of the version says that made the topic; and nothing of it is for
        // retention to take.
        let settings = SettingsValues { retention_ms: None, retention_bytes: None, ..self.settings(&config) };
        let topic = match self.entry_kind(&self.file_path(name))? {
            Some(_) => {
                let file = self.read_file(name)?;
                self.enter(self.open_topic(name, file.id, file.config, report)?)
            }
            None => match self.lost_internal(name, &config, report)? {
                Some(topic) => self.enter(topic),
                None => self.create_new(&mut life, name, config, &|_| Ok(()))?,
            },
        };
        topic.settings.set(settings);
        Ok(topic)
    }

    /// Opens one of the log's own topics whose file is gone. It can be made anew: there is one such topic of that name,
    /// and its partition's files tell its id. `None` where there is nothing to open.
    fn lost_internal(
        &self,
        name: &str,
        config: &TopicConfig,
        report: &mut RecoveryReport,
    ) -> Result<Option<TopicState>> {
        let (storage, folder) = (&*self.env.storage, self.partition_dir(name, 0));
        let is_lost = match self.entry_kind(&folder)? {
            Some(_) => !orphan::is_empty(storage, &folder)?,
            None => false,
        };
        if !is_lost && !self.by_name.read().is_empty() {
            // It was made before the first topic was.
            report.add(Finding::MissingPartition { path: folder.clone() });
        }
        // Of several topics, or of one that is there by another name: not to be guessed.
        let id = if is_lost { topic_id_of(storage, &folder)? } else { None };
        let Some(id) = id.filter(|&id| self.by_name.read().values().all(|topic| topic.id != id)) else {
            return Ok(None);
        };
        self.write_file(name, id, config)?;
        report.add(Finding::MissingTopicFile { path: self.file_path(name) });
        self.open_topic(name, id, config.clone(), report).map(Some)
    }

    /// Creates a topic that isn't there.
    fn create_new(
        &self,
        life: &mut Life,
        name: &str,
        config: TopicConfig,
        forget: Forget<'_>,
    ) -> Result<Arc<TopicState>> {
        config.validate()?;
        self.finish_deletion_before(life, name, forget)?;
        // Of another topic, where the file system ignores case; it isn't ours to replace or to remove.
        let path = self.file_path(name);
        if self.entry_kind(&path)?.is_some() {
            return Err(Repr::TopicFileExists { topic: name.into(), path }.into());
        }
        let leftovers = self.partition_folders(|topic, _| topic == name)?;
        self.remove_orphans(&leftovers)?;

        let id = self.new_id(name)?;
        let name: Arc<str> = name.into();
        let settings = Arc::new(Settings::new(self.settings(&config)));
        match self.make_partitions(&name, id, &settings, 0..config.partitions, &config) {
            Ok(partitions) => Ok(self.enter(TopicState::new(name, id, config, settings, partitions))),
            Err(error) => {
                self.undo_creation(&name);
                Err(error)
            }
        }
    }

    /// Removes folders that no topic has, if they hold nothing; kind `Corruption`.
    fn remove_orphans(&self, folders: &[String]) -> Result<()> {
        if folders.is_empty() {
            return Ok(());
        }
        self.unsettle()?;
        orphan::remove_if_empty(&*self.env.storage, &self.dir, folders).inspect_err(|_| self.doubt())
    }

    /// Makes partitions, and writes the topic's file that names them: from then on they are there.
    fn make_partitions(
        &self,
        name: &Arc<str>,
        id: u128,
        settings: &Arc<Settings>,
        numbers: Range<u32>,
        config: &TopicConfig,
    ) -> Result<Vec<Arc<PartitionLog>>> {
        let folders: Vec<_> = numbers.clone().map(|number| format!("{name}-{number}")).collect();
        self.unsettle()?;
        let created = self.env.storage.create_dirs(&self.dir, &folders);
        created.map_err(|source| {
            self.doubt();
            Error::io("create folders in", &self.dir, source)
        })?;
        // New ones have nothing to tell.
        let partitions = self.open_partitions(name, id, settings, numbers, &mut RecoveryReport::default())?;
        match self.write_file(name, id, config) {
            Ok(()) => Ok(partitions),
            Err(error) => {
                let _ = for_all(&partitions, PartitionLog::close);
                Err(error)
            }
        }
    }

    fn new_id(&self, name: &str) -> Result<u128> {
        random::u128().map_err(|source| Error::io("draw a random id for", self.file_path(name), source))
    }

    /// Takes the files of a failed creation back, as far as that is possible; the rest is a leftover.
    fn undo_creation(&self, name: &str) {
        // The topic's file can be there: renamed into place, but the folder couldn't be synced. It goes first.
        let path = self.file_path(name);
        if !matches!(self.entry_kind(&path), Ok(None)) && self.env.storage.remove_file(&path).is_err() {
            return;
        }
        // Or else a topic could be there again whose folders are gone.
        if self.sync_dir(&self.topics_dir()).is_err() {
            return;
        }
        if let Ok(leftovers) = self.partition_folders(|topic, _| topic == name) {
            let _ = self.remove_orphans(&leftovers);
        }
    }

    /// Adds partitions, so that there are `count`. Nothing to do if there are; kind `PartitionCountMismatch` if there
    /// are more.
    pub(crate) fn increase_partitions(&self, name: &str, count: u32) -> Result<Arc<TopicState>> {
        check_name("topic", name)?;
        let life = self.open_life()?;
        let topic = self.get(name)?;
        let existing = topic.partitions.len();
        let config = TopicConfig { partitions: count, ..topic.config.lock().clone() };
        config.validate()?;
        if count == existing {
            return Ok(topic);
        }
        if count < existing {
            return Err(count_mismatch(&topic, count));
        }
        let is_new = |topic: &str, number: u32| topic == name && (existing..count).contains(&number);
        let leftovers = self.partition_folders(is_new)?;
        self.remove_orphans(&leftovers)?;

        match self.make_partitions(&topic.name, topic.id, &topic.settings, existing..count, &config) {
            Ok(partitions) => {
                *topic.config.lock() = config;
                topic.partitions.add(partitions);
                drop(life);
                self.changes.tell();
                Ok(topic)
            }
            Err(error) => {
                // The file may name them all the same: renamed into place, but the folder couldn't be synced.
                let unnamed = self.read_file(name).is_ok_and(|file| file.config.partitions == existing);
                if let (true, Ok(leftovers)) = (unnamed, self.partition_folders(is_new)) {
                    let _ = self.remove_orphans(&leftovers);
                }
                Err(error)
            }
        }
    }

    /// Gives the topic other options; answers them. `change` is called again if somebody else changed them meanwhile.
    pub(crate) fn alter(&self, name: &str, change: impl Fn(TopicConfig) -> TopicConfig) -> Result<TopicConfig> {
        loop {
            let topic = self.get(name)?;
            let before = topic.config.lock().clone();
            // Without the lock: it is the user's code.
            let config = change(before.clone());
            config.validate()?;
            if config.partitions != before.partitions {
                return Err(count_mismatch(&topic, config.partitions));
            }
            let _life = self.open_life()?;
            let current = self.find(name).is_some_and(|found| Arc::ptr_eq(&found, &topic));
            if !current || *topic.config.lock() != before {
                continue;
            }
            if config != before {
                self.write_file(name, topic.id, &config)?;
                *topic.config.lock() = config.clone();
                topic.settings.set(self.settings(&config));
            }
            return Ok(config);
        }
    }
}

/// The topic has another number of partitions than was asked for.
fn count_mismatch(topic: &TopicState, requested: u32) -> Error {
    let (name, existing) = (topic.name.to_string(), topic.partitions.len());
    Repr::PartitionCountMismatch { topic: name, existing, requested }.into()
}

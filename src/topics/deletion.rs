//! How topics go.
//!
//! # Steps
//! 1. The topic's file is renamed to a marker, and `topics` is synced: from then on the topic is gone, whatever happens.
//! 2. Handles are told, and those who keep something of the topic.
//! 3. The partitions' folders get names made of the topic's id, durably, and are emptied and removed.
//! 4. The marker goes.
//!
//! What couldn't be done is done by the next open, the next creation of a topic of that name, or the next deletion.
//!
//! # Invariants
//! - Nothing of a topic is missing before it is durable that the topic is gone.
//! - Only folders of the marker's topic go: those that this process had open as its partitions, or whose files tell its
//!   id, or that hold nothing. A marker names no path.
//! - As long as there is a marker, no topic of its name is created.
//!
//! # Thread safety
//! One at a time, by the lock of the topics' life.

use super::{
    Forget, Life, Topics,
    files::{doomed_id, doomed_name, split_folder_name},
};
use crate::{
    error::{Error, Repr, Result},
    name::{RESERVED_PREFIX, check_name},
    orphan,
    partition::topic_id_of,
    report::{Finding, RecoveryReport},
};

/// A topic that is gone, with files that aren't yet.
#[derive(Debug, Clone)]
pub(super) struct Deletion {
    pub(super) id: u128,
    /// How many partitions it had.
    pub(super) partitions: u32,
    /// Whether this process had them open, and so knows their folders.
    pub(super) opened: bool,
}

impl Topics {
    /// Deletes a topic; goes on with the deletion of one that is gone already. Kind `UnknownTopic`.
    pub(crate) fn delete(&self, name: &str, forget: Forget<'_>) -> Result<()> {
        check_name("topic", name)?;
        self.end(name)?;
        // At once, not behind what removing the files takes.
        self.changes.tell();
        self.finish_deletion(&mut *self.open_life()?, name, forget)
    }

    /// Lets the topic go, for everybody; it may be gone already. Kind `UnknownTopic`.
    fn end(&self, name: &str) -> Result<()> {
        let mut life = self.open_life()?;
        if let Some(topic) = self.find(name) {
            let (file, marker) = (self.file_path(name), self.marker_path(name));
            self.unsettle()?;
            self.env.storage.rename(&file, &marker).map_err(|source| Error::io("delete", &file, source))?;
            self.by_name.write().remove(name);
            topic.partitions.iter().for_each(|partition| partition.delete());
            let deletion = Deletion { id: topic.id, partitions: topic.partitions.len(), opened: true };
            life.deletions.insert(name.into(), deletion);
        } else if !life.deletions.contains_key(name) {
            return Err(Repr::UnknownTopic { topic: name.into() }.into());
        }
        Ok(())
    }

    /// Finishes what earlier processes began, and tells of it.
    pub(super) fn finish_deletions(&self, life: &mut Life, forget: Forget<'_>, report: &mut RecoveryReport) {
        let names: Vec<String> = life.deletions.keys().cloned().collect();
        for topic in names {
            let outcome = self.finish_deletion(life, &topic, forget);
            report.add(match outcome {
                Ok(()) => Finding::DeletionFinished { topic },
                Err(error) => Finding::DeletionUnfinished { topic, detail: error.to_string() },
            });
        }
    }

    /// Sees to it that a topic can be created as if there had never been one of that name, also where the file system
    /// ignores case.
    pub(super) fn finish_deletion_before(&self, life: &mut Life, name: &str, forget: Forget<'_>) -> Result<()> {
        let same = |other: &&String| other.eq_ignore_ascii_case(name);
        for name in life.deletions.keys().filter(same).cloned().collect::<Vec<_>>() {
            self.finish_deletion(life, &name, forget)?;
        }
        // One that couldn't be read when the log was opened: it may have been mended since.
        if self.entry_kind(&self.marker_path(name))?.is_some() {
            let deletion = self.read_marker(name, &self.read_files()?)?;
            life.deletions.insert(name.into(), deletion);
            self.finish_deletion(life, name, forget)?;
        }
        Ok(())
    }

    fn finish_deletion(&self, life: &mut Life, name: &str, forget: Forget<'_>) -> Result<()> {
        let Some(deletion) = life.deletions.get(name) else { return Ok(()) };
        self.unsettle()?;
        // The renaming may not be on the device yet, and what follows mustn't get there first.
        self.sync_dir(&self.topics_dir())?;
        let forgotten = forget(deletion.id);
        self.remove_folders(name, deletion)?;
        forgotten?;
        let marker = self.marker_path(name);
        if self.entry_kind(&marker)?.is_some() {
            let removed = self.env.storage.remove_file(&marker);
            removed.map_err(|source| Error::io("remove", &marker, source))?;
        }
        self.sync_dir(&self.topics_dir())?;
        life.deletions.remove(name);
        Ok(())
    }

    /// Removes the folders of a deleted topic, as many as can be; answers the first error.
    fn remove_folders(&self, name: &str, deletion: &Deletion) -> Result<()> {
        let mut outcome = Ok(());
        let mut doomed = Vec::new();
        let mut renamed = false;
        for folder in self.folders()? {
            if doomed_id(&folder) == Some(deletion.id) {
                doomed.push(folder);
                continue;
            }
            let Some((_, number)) = split_folder_name(&folder).filter(|&(topic, _)| topic == name) else { continue };
            match self.rename_folder(&folder, number, deletion) {
                Ok(None) => {}
                Ok(Some(folder)) => {
                    renamed = true;
                    doomed.push(folder);
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        if renamed {
            // Or else a half-emptied folder could be there again under its own name.
            self.sync_dir(&self.dir)?;
        }
        for folder in &doomed {
            let path = self.dir.join(folder);
            let removed = self.env.storage.remove_dir_all(&path);
            outcome = outcome.and(removed.map_err(|source| Error::io("remove", path, source)));
        }
        if !doomed.is_empty() {
            outcome = outcome.and(self.sync_dir(&self.dir));
        }
        outcome
    }

    /// Gives a folder its last name, if it is of the deleted topic; answers that.
    fn rename_folder(&self, folder: &str, number: u32, deletion: &Deletion) -> Result<Option<String>> {
        let path = self.dir.join(folder);
        let known = deletion.opened && number < deletion.partitions;
        if !known && !self.is_of(&path, number, deletion)? {
            return Ok(None);
        }
        let doomed = doomed_name(deletion.id, number);
        let renamed = self.env.storage.rename(&path, &self.dir.join(&doomed));
        renamed.map_err(|source| Error::io("remove", path, source))?;
        Ok(Some(doomed))
    }

    /// Whether what is in the folder is the deleted topic's. What can't be told isn't.
    fn is_of(&self, path: &std::path::Path, number: u32, deletion: &Deletion) -> Result<bool> {
        let storage = &*self.env.storage;
        match topic_id_of(storage, path)? {
            Some(id) => Ok(id == deletion.id),
            None if number < deletion.partitions => orphan::is_empty(storage, path),
            None => Ok(false),
        }
    }

    /// Reports the folders of partitions that no topic has, and nobody will remove.
    pub(super) fn report_orphans(&self, life: &Life, report: &mut RecoveryReport) -> Result<()> {
        let by_name = self.by_name.read();
        for folder in self.folders()? {
            let orphaned = match (split_folder_name(&folder), doomed_id(&folder)) {
                (Some((topic, number)), _) => match (by_name.get(topic), life.deletions.get(topic)) {
                    (Some(known), _) => number >= known.partitions.len(),
                    // Told as a deletion.
                    (None, Some(deletion)) => number >= deletion.partitions,
                    // A newer version's own topics: whether they are looked after isn't known here.
                    (None, None) if topic.starts_with(RESERVED_PREFIX) => {
                        self.entry_kind(&self.file_path(topic))?.is_none()
                    }
                    (None, None) => true,
                },
                (None, Some(id)) => !life.deletions.values().any(|deletion| deletion.id == id),
                (None, None) => false,
            };
            if orphaned {
                report.add(Finding::OrphanedFolder { path: self.dir.join(folder) });
            }
        }
        Ok(())
    }
}

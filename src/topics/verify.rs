//! Verifying the files of topics, and planning to verify their partitions.
//!
//! # Invariants
//! - Files are read with the lock of the topics' life: nobody creates, changes or deletes a topic meanwhile.
//! - Nothing is created, removed or changed, also where the topics aren't open.
//!
//! # Thread safety
//! Any thread may call anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

use super::{
    Topics,
    files::{FILE_SUFFIX, GONE_SUFFIX, TopicFile, doomed_id, split_folder_name},
};
use crate::{
    changes::Changes,
    config::LogOptions,
    error::{Error, ErrorKind, Result},
    name::{RESERVED_PREFIX, is_well_formed},
    partition::{ClosedPlan, Environment, OpenPlan, PartitionSpec, Settings},
    report::{Finding, RecoveryReport},
    storage::EntryKind,
    verification::{Verification, VerifyFinding},
};

/// What the files of the topics tell.
#[derive(Default)]
pub(crate) struct TopicFiles {
    /// Those that can be read.
    files: Vec<TopicFile>,
    /// Names of those that are there, and of topics that are being deleted.
    names: BTreeSet<String>,
    /// Of topics that are being deleted.
    doomed: BTreeSet<u128>,
}

impl Topics {
    /// Topics that aren't opened: what there is to know of their files.
    pub(crate) fn closed(env: Environment, dir: &Path, options: &LogOptions) -> Self {
        Self {
            env,
            dir: dir.to_owned(),
            options: options.clone(),
            by_name: RwLock::default(),
            life: Mutex::default(),
            changes: Changes::default(),
            settled: None,
        }
    }

    /// Verifies the files of topics that are open; kind `Closed`.
    pub(crate) fn verify_files(&self, verification: &mut Verification<'_>) -> Result<()> {
        let _life = self.open_life()?;
        let found = self.check_files(verification)?;
        let topics: Vec<_> = self.by_name.read().values().cloned().collect();
        for topic in topics {
            let file = self.file_path(&topic.name);
            match found.files.iter().find(|file| *file.name == *topic.name) {
                Some(found) if found.id == topic.id => {}
                Some(_) => {
                    let detail = "it has another topic's id".into();
                    verification.find(VerifyFinding::File { file, detail });
                }
                None if found.names.contains(&*topic.name) => {} // It can't be read, which was told.
                None => verification.find(VerifyFinding::File { file, detail: "it is missing".into() }),
            }
        }
        Ok(())
    }

    /// Reads the files, and tells what is wrong with them and with the folders.
    pub(crate) fn check_files(&self, verification: &mut Verification<'_>) -> Result<TopicFiles> {
        let mut found = TopicFiles::default();
        if self.entry_kind(&self.topics_dir())? != Some(EntryKind::Dir) {
            let detail = "the folder is missing".into();
            verification.find(VerifyFinding::File { file: self.topics_dir(), detail });
        } else {
            self.check_topic_files(&mut found, verification)?;
            self.check_markers(&mut found, verification)?;
        }
        self.check_folders(&found, verification)?;
        Ok(found)
    }

    fn check_topic_files(&self, found: &mut TopicFiles, verification: &mut Verification<'_>) -> Result<()> {
        let mut names_by_id = BTreeMap::new();
        for name in self.names_with(FILE_SUFFIX)? {
            let path = self.file_path(&name);
            let mut damaged = |detail: String| verification.find(VerifyFinding::File { file: path.clone(), detail });
            if !is_well_formed(&name) {
                damaged("its name isn't a topic's".into());
                continue;
            }
            found.names.insert(name.clone());
            match self.read_file(&name) {
                Ok(file) => {
                    if let Some(other) = names_by_id.insert(file.id, name) {
                        damaged(format!("it is a copy: its topic id is that of {other:?}"));
                    }
                    found.files.push(file);
                }
                Err(error) => verification.find(file_finding(path, error)?),
            }
        }
        Ok(())
    }

    fn check_markers(&self, found: &mut TopicFiles, verification: &mut Verification<'_>) -> Result<()> {
        found.names.extend(self.names_with(GONE_SUFFIX)?);
        let mut report = RecoveryReport::default();
        match self.read_markers(&found.files, &mut report) {
            Ok(deletions) => found.doomed.extend(deletions.values().map(|deletion| deletion.id)),
            Err(error) => verification.find(file_finding(self.topics_dir(), error)?),
        }
        for finding in report.findings() {
            if let Finding::DamagedDeletion { path, detail } = finding {
                verification.find(VerifyFinding::File { file: path.clone(), detail: detail.clone() });
            }
        }
        Ok(())
    }

    /// Tells of folders of partitions that no topic has.
    fn check_folders(&self, found: &TopicFiles, verification: &mut Verification<'_>) -> Result<()> {
        for folder in self.folders()? {
            let orphaned = match (split_folder_name(&folder), doomed_id(&folder)) {
                (Some((topic, number)), _) => match found.files.iter().find(|file| file.name == topic) {
                    Some(file) => number >= file.config.partitions,
                    None => !found.names.contains(topic),
                },
                (None, Some(id)) => !found.doomed.contains(&id),
                (None, None) => false,
            };
            if orphaned {
                verification.find(VerifyFinding::OrphanedFolder { folder: self.dir.join(folder) });
            }
        }
        Ok(())
    }

    /// Plans to verify all partitions of the users' topics, as they are now; those that are deleted are left out.
    pub(crate) fn plan_verification(&self, verification: &mut Verification<'_>) -> Result<Vec<OpenPlan>> {
        let mut plans = Vec::new();
        for topic in self.select(|_| true) {
            for partition in topic.partitions.iter() {
                plans.extend(unless_deleted(partition.plan_verification(verification))?);
            }
        }
        Ok(plans)
    }

    /// Plans to verify the partitions of topics that nobody has open: with the log's own last.
    pub(crate) fn plan_closed(
        &self,
        files: &TopicFiles,
        verification: &mut Verification<'_>,
    ) -> Result<Vec<ClosedPartition>> {
        let mut plans = Vec::new();
        let (internal, users): (Vec<_>, Vec<_>) =
            files.files.iter().partition(|file| file.name.starts_with(RESERVED_PREFIX));
        for file in users.into_iter().chain(internal) {
            let topic: Arc<str> = (*file.name).into();
            let settings = Arc::new(Settings::new(self.settings(&file.config)));
            for number in 0..file.config.partitions {
                let (topic, settings) = (topic.clone(), settings.clone());
                let spec = PartitionSpec { topic, topic_id: file.id, number, settings };
                let dir = self.partition_dir(&file.name, number);
                let plan = ClosedPlan::new(&self.env, &dir, &spec, verification)?;
                plans.extend(plan.map(|plan| ClosedPartition { spec, dir, plan }));
            }
        }
        Ok(plans)
    }
}

/// A partition that nobody has open.
pub(crate) struct ClosedPartition {
    pub(crate) spec: PartitionSpec,
    pub(crate) dir: PathBuf,
    pub(crate) plan: ClosedPlan,
}

/// `None` instead of kind `UnknownTopic`.
pub(crate) fn unless_deleted<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::UnknownTopic => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// What is wrong with a file that can't be used; kind `LimitReached` if that is for lack of a descriptor.
pub(crate) fn file_finding(file: PathBuf, error: Error) -> Result<VerifyFinding> {
    let detail = error.to_string();
    Ok(match error.kind() {
        ErrorKind::LimitReached => return Err(error),
        ErrorKind::UnsupportedFormat => VerifyFinding::NewerFormat { file, position: 0, detail },
        ErrorKind::Corruption => VerifyFinding::File { file, detail },
        _ => VerifyFinding::Unreadable { file, range: 0..0, detail },
    })
}

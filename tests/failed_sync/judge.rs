//! What was acknowledged, over all processes that worked in one folder, and whether it is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use tidelog::{Durability, Log, Opening, PartitionRecovery, Record, RecoveryEvent};

use crate::{
    child::{PARTITIONS, Said, VALUE_BYTES, consumer, options, topic},
    common::{POSITIONAL, process::child, value_of},
};

/// Longer than any child takes.
const CHILD_LIFE: Duration = Duration::from_secs(120);

/// Over all runs.
pub(crate) static FIGURES: Mutex<Figures> =
    Mutex::new(Figures { failures: 0, killed: 0, poisoned: 0, rewritten: 0, lost: 0 });

#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Syncs that failed.
    pub(crate) failures: u64,
    /// Of those, in how many the process didn't come out of the call.
    pub(crate) killed: u64,
    /// Partitions that took no more appends.
    pub(crate) poisoned: u64,
    /// Partitions of which something was written anew.
    pub(crate) rewritten: u64,
    /// Records and commits that were acknowledged and aren't there.
    pub(crate) lost: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failures, killed, poisoned, rewritten, lost } = self;
        write!(
            f,
            "sync_failures={failures} killed_inside={killed} poisoned={poisoned} rewritten={rewritten} lost={lost}"
        )
    }
}

/// What recovery may tell of beside that it wrote anew what was poisoned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Undue<'a> {
    None,
    /// That it wrote anew something of a partition with this folder: nobody was told that a sync of it had failed.
    Rewritten(&'a str),
    /// That of any partition, and that tails were torn: pages were lost.
    Any,
}

/// What one folder's processes have said.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// Number by partition and offset.
    appended: BTreeMap<(u32, u64), u64>,
    /// Below these everything is on the device.
    flushed: BTreeMap<u32, u64>,
    committed: BTreeMap<u32, u64>,
    made: BTreeSet<String>,
    /// Folders of partitions that are poisoned.
    pub(crate) poisoned: BTreeSet<String>,
}

impl Judge {
    /// Runs a child, which is killed or comes to its end, and takes note of what it says.
    pub(crate) fn run(
        &mut self,
        task: &str,
        folder: &Path,
        environment: &[(&str, String)],
    ) -> Result<ExitStatus, String> {
        let mut command = child(task, folder);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(environment.iter().map(|(name, value)| (*name, value.clone())));
        let running = command.spawn().map_err(|error| error.to_string())?;
        let (id, start) = (running.id(), Instant::now());
        let output = running.wait_with_output().map_err(|error| error.to_string())?;
        if start.elapsed() > CHILD_LIFE {
            return Err(format!("child {id} with {task:?} took {:?}", start.elapsed()));
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            self.hear(Said::parse(line).ok_or_else(|| format!("{task:?} said {line:?}"))?);
        }
        if output.status.code().is_some_and(|code| code != 0) {
            return Err(format!("{task:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        Ok(output.status)
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Appended(partition, number, offset) => drop(self.appended.insert((partition, offset), number)),
            Said::Flushed(partition, offset) => drop(self.flushed.insert(partition, offset)),
            Said::Committed(partition, offset) => drop(self.committed.insert(partition, offset)),
            Said::Made(topic) => drop(self.made.insert(topic)),
            Said::Poisoned(folder) => drop(self.poisoned.insert(folder)),
        }
    }

    /// What isn't on the device may be lost from now on: the page cache is.
    pub(crate) fn forget_unflushed(&mut self) {
        let flushed = self.flushed.clone();
        self.appended.retain(|(partition, offset), _| flushed.get(partition).is_some_and(|end| offset < end));
    }

    /// Opens the folder, with all it takes to mend what is to be mended, looks that all is there, and that all goes on.
    pub(crate) fn judge(&mut self, folder: &Path, undue: Undue<'_>) -> Result<(), String> {
        let failed = |error: tidelog::Error| error.to_string();
        let log = options().open(folder).map_err(failed)?;
        let mut rewritten = BTreeSet::new();
        for found in log.recovery().partitions() {
            let name = format!("{}-{}", found.topic(), found.partition());
            for event in found.events() {
                match event {
                    RecoveryEvent::Rewritten { .. } => drop(rewritten.insert(name.clone())),
                    // A frame that was being written when its process was killed, where appends use `pwrite`.
                    RecoveryEvent::TornTail(_) if found.opening() == Opening::Scanned && POSITIONAL => {}
                    RecoveryEvent::TornTail(_) | RecoveryEvent::ReorderedTail(_) if matches!(undue, Undue::Any) => {}
                    event => return Err(format!("{name}: {event}")),
                }
            }
        }
        let missing: Vec<_> = self.poisoned.difference(&rewritten).collect();
        if !missing.is_empty() {
            return Err(format!("{missing:?} were poisoned, and not written anew"));
        }
        let is_undue = |name: &&String| match undue {
            Undue::None => true,
            Undue::Rewritten(folder) => *name != folder,
            Undue::Any => false,
        };
        let more: Vec<_> = rewritten.difference(&self.poisoned).filter(is_undue).collect();
        if !more.is_empty() {
            return Err(format!("{more:?} were written anew, and had not been poisoned"));
        }
        {
            let mut figures = FIGURES.lock().unwrap();
            figures.poisoned += self.poisoned.len() as u64;
            figures.rewritten += rewritten.len() as u64;
        }
        self.poisoned.clear();
        self.look(&log)?;
        let topic = topic(&log).map_err(failed)?;
        for number in 0..PARTITIONS {
            let partition = topic.partition(number).map_err(failed)?;
            let value = value_of(u64::MAX, VALUE_BYTES);
            partition.append_with(Record::new(value), Durability::Synced).map_err(failed)?;
        }
        let mut group = consumer(&log).map_err(failed)?;
        group.commit_offsets([("orders", 0, self.committed.get(&0).copied().unwrap_or(0) + 1)]).map_err(failed)?;
        drop(group);
        log.close().map_err(failed)?;
        let log = options().open(folder).map_err(failed)?;
        // A folder without a topic is what a creation leaves that didn't come to its end.
        if !log.recovery().partitions().iter().all(PartitionRecovery::is_clean) {
            return Err(format!("after a clean close: {:?}", log.recovery()));
        }
        self.look(&log)?;
        log.close().map_err(failed)
    }

    /// Whether all that was acknowledged is there, and nothing that nobody appended.
    fn look(&self, log: &Log) -> Result<(), String> {
        let mut lost = Vec::new();
        let topic = topic(log).map_err(|error| error.to_string())?;
        for number in 0..PARTITIONS {
            let partition = topic.partition(number).map_err(|error| error.to_string())?;
            let mut found = BTreeMap::new();
            for record in partition.read_from(partition.start_offset()).map_err(|error| error.to_string())? {
                let record = record.map_err(|error| error.to_string())?;
                let value = record.value().unwrap_or_default();
                let told = u64::from_le_bytes(value[..8].try_into().unwrap());
                if value != value_of(told, VALUE_BYTES) {
                    return Err(format!("partition {number}: offset {} was invented", record.offset()));
                }
                if found.insert(record.offset(), told).is_some() {
                    return Err(format!("partition {number}: offset {} was used twice", record.offset()));
                }
            }
            let ours = self.appended.iter().filter(|((partition, _), _)| *partition == number);
            for ((_, offset), told) in ours {
                match found.get(offset) {
                    Some(found) if found == told => {}
                    Some(found) => return Err(format!("partition {number}: {found} at offset {offset} of {told}")),
                    None => lost.push(format!("partition {number}: offset {offset}")),
                }
            }
        }
        let group = consumer(log).map_err(|error| error.to_string())?;
        for (partition, offset) in &self.committed {
            let committed = group.committed("orders", *partition).map_err(|error| error.to_string())?;
            if committed.unwrap_or(0) < *offset {
                lost.push(format!("partition {partition}: commit of {offset}, it is {committed:?}"));
            }
        }
        let topics = log.topics();
        lost.extend(self.made.iter().filter(|name| !topics.contains(name)).map(|name| format!("topic {name}")));
        FIGURES.lock().unwrap().lost += lost.len() as u64;
        if lost.is_empty() { Ok(()) } else { Err(format!("lost: {lost:?}")) }
    }
}

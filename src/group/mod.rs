//! Groups: their members, who of them owns what, and what they have committed.
//!
//! There is no coordinator. What happens to a group is a record in the internal topic `__offsets`, and the order of its
//! records decides ([`membership`]); who owns what is decided by a pure function ([`assignor`]) that whoever appends a
//! rebalance calls. What isn't recorded is who is *alive*: the members whose consumers are there, in this process, and
//! poll. Members of other processes are dead as long as one process at a time has the folder open.
//!
//! # Invariants
//! - What is decided is decided by all records that there are, and appended, under one lock.
//! - A partition moves in two steps: the next owner is recorded, and the owner releases it. Only one that is dead isn't
//!   asked.
//! - A dead member commits nothing any more, also where the record that it left couldn't be appended yet. Such records are
//!   made up for as soon as that is possible.
//! - A group can't skip what it hasn't seen: partitions that come to a group that is alive begin at their log start.
//!
//! # Thread safety
//! Any thread may call anything. The lock isn't held while somebody waits for the device.

mod administration;
mod assignor;
mod behind;
mod codec;
mod live;
mod member;
mod membership;
mod offsets;
mod rebalance;
mod subscription;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod verify;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use self::{
    live::{LiveGroup, Pulse},
    offsets::Offsets,
};
use crate::{
    config::TopicConfig,
    error::{Error, Repr, Result},
    housekeeper::Housekeeper,
    partition::{PartitionLog, RecoveryEvent},
    random,
    report::{Finding, RecoveryReport},
    topics::Topics,
};

pub(crate) use administration::GroupDescription;
pub(crate) use member::{Joining, Member, Owned, Polling, View};
#[cfg(fuzzing)]
pub use offsets::fuzzing::offsets_open;
pub(crate) use subscription::Subscription;
pub(crate) use verify::CommitsCheck;

/// The internal topic of groups.
pub(crate) const OFFSETS_TOPIC: &str = "__offsets";

/// Size of its segments in bytes. Opening folds at most two of them, some 10 ms; a snapshot should be small beside it,
/// and takes about 180 bytes for each group and partition.
const OFFSETS_SEGMENT_BYTES: u64 = 16 << 20;

/// The age in which they end all the same. It doesn't matter; that of the log's other segments could be a second.
const OFFSETS_SEGMENT_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A commit is a few hundred bytes, a member with the most and the longest names some 250 KiB, whatever the limit of the
/// log's other records is.
const OFFSETS_RECORD_BYTES: u64 = 256 << 10;

/// A partition of any topic. The topic is named by its id, so that one that is created again inherits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionId {
    pub(crate) topic_id: u128,
    pub(crate) partition: u32,
}

impl PartitionId {
    pub(crate) fn of(log: &PartitionLog) -> Self {
        Self { topic_id: log.spec().topic_id, partition: log.spec().number }
    }
}

/// The groups of a log.
pub(crate) struct Groups {
    topics: Arc<Topics>,
    housekeeper: Arc<Housekeeper>,
    /// That of `__offsets`.
    partition: Arc<PartitionLog>,
    /// The random number of this opening of the log.
    process: u64,
    state: Mutex<State>,
}

struct State {
    offsets: Offsets,
    /// Groups that have consumers in this process, or records to be made up for.
    live: BTreeMap<Arc<str>, LiveGroup>,
    /// Members that are to be woken once the lock is free: waking a task runs its executor's code, which may drop a
    /// consumer, and so leave.
    to_wake: Vec<Arc<Pulse>>,
    /// When the housekeeper looks next for members that don't poll.
    check_at: Option<Instant>,
    closed: bool,
}

impl Groups {
    /// Opens the internal topic, creates it if missing. Damage goes into `report`.
    ///
    /// This happens when the log is opened and not when the first group is used: so the report is complete from the
    /// start, and a log that can't keep commits says so at once.
    pub(crate) fn open(
        topics: &Arc<Topics>,
        housekeeper: &Arc<Housekeeper>,
        report: &mut RecoveryReport,
    ) -> Result<Self> {
        Self::open_with(topics, housekeeper, OFFSETS_SEGMENT_BYTES, report)
    }

    fn open_with(
        topics: &Arc<Topics>,
        housekeeper: &Arc<Housekeeper>,
        segment_bytes: u64,
        report: &mut RecoveryReport,
    ) -> Result<Self> {
        let config = TopicConfig::with_partitions(1)
            .segment_bytes(segment_bytes)
            .segment_age(OFFSETS_SEGMENT_AGE)
            .max_record_bytes(OFFSETS_RECORD_BYTES);
        let topic = topics.open_internal(OFFSETS_TOPIC, config, report)?;
        report_missing(report);
        let (offsets, damage) = Offsets::open(topic.partition(0)?.clone())?;
        for detail in damage.iter().map(Error::to_string) {
            report.add(Finding::DamagedCommits { detail });
        }
        Ok(Self {
            topics: topics.clone(),
            housekeeper: housekeeper.clone(),
            partition: offsets.partition().clone(),
            process: random_id()?,
            state: Mutex::new(State {
                offsets,
                live: BTreeMap::new(),
                to_wake: Vec::new(),
                check_at: None,
                closed: false,
            }),
        })
    }

    /// The partition of `__offsets`.
    pub(crate) fn partition(&self) -> &Arc<PartitionLog> {
        &self.partition
    }

    /// Sees to it that the next open finds a whole snapshot; answers whether there was none. For a repair, when nobody
    /// else has the log.
    pub(crate) fn mend(&self) -> Result<bool> {
        self.state.lock().offsets.mend()
    }

    /// Kind `Closed`.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.state.lock().closed { Err(Repr::Closed.into()) } else { Ok(()) }
    }

    /// Runs `body` under the lock; then wakes who is to be woken, and removes what is obsolete.
    fn change<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let answer = body(&mut state);
        let obsolete = state.offsets.take_obsolete();
        let to_wake = std::mem::take(&mut state.to_wake);
        drop(state);
        to_wake.iter().for_each(|pulse| pulse.wake());
        if let Some(obsolete) = obsolete {
            obsolete.remove();
        }
        answer
    }

    /// Lets nobody join any more and wakes all who sleep, for them to see that the log was closed.
    pub(crate) fn close(&self) {
        self.change(|state| {
            state.closed = true;
            let members = state.live.values().flat_map(|live| live.members.values());
            state.to_wake.extend(members.map(|member| member.pulse.clone()));
        });
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").finish_non_exhaustive()
    }
}

/// Tells if segments of commits are missing. (Damage inside of them is told by who folds them; where no segment is left,
/// there is none.)
fn report_missing(report: &mut RecoveryReport) {
    let own = report.partitions().iter().filter(|found| found.topic() == OFFSETS_TOPIC);
    let missing = own.flat_map(|found| found.events()).filter(|it| matches!(it, RecoveryEvent::SegmentsMissing { .. }));
    for detail in missing.map(ToString::to_string).collect::<Vec<_>>() {
        report.add(Finding::DamagedCommits { detail });
    }
}

/// A random number that isn't 0.
fn random_id() -> Result<u64> {
    let id = random::u64().map_err(|source| Error::io("draw a random id for", "a group", source))?;
    Ok(id.max(1))
}

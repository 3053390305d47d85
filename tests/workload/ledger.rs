//! What was acknowledged, and the judgement on what is there.
//!
//! # Eras
//! An era is the time from one power cut to the next; where processes are only killed there is but one. In each era a
//! partition's acknowledged records have greater offsets than in those before. What a cut takes are the last ones of
//! its era, none that was known to be on the device; what was read after a cut stays for ever.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tidelog::{Log, RecordRef, Start};

use super::{
    message::{How, Message},
    plan::{Call, Keeps, Place, RecordId, made_topic},
    scratch::Scratch,
};

/// What a record takes beside its key, value and headers, at most.
const RECORD_OVERHEAD_BYTES: u64 = 120;
/// What a segment takes beside its frames, at most.
const SEGMENT_OVERHEAD_BYTES: u64 = 8 << 10;

/// What cutting the work short could have cost, counted. From `lost_durable` on all have to stay zero.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) durable: u64,
    pub(crate) deleted: u64,
    pub(crate) commits: u64,
    pub(crate) resumed: u64,
    pub(crate) scanned: u64,
    pub(crate) lost_unsynced: u64,
    pub(crate) lost_durable: u64,
    pub(crate) invented: u64,
    pub(crate) reused: u64,
    pub(crate) holes: u64,
}

/// Everything that is known of one folder.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(super) places: BTreeMap<Place, PlaceLedger>,
    /// Every record that was read.
    known: HashSet<RecordId>,
    /// Killed processes leave a control page to believe. Where they don't, every opening is a scan, and offsets may jump.
    strict: bool,
    /// Power is cut: what isn't on the device may be lost.
    pub(super) powered: bool,
    /// Topics that were surely created.
    made: BTreeSet<u64>,
    scratch: Scratch,
    pub(crate) counts: Counts,
    /// What is wrong.
    pub(crate) faults: Vec<String>,
}

#[derive(Debug)]
pub(super) struct PlaceLedger {
    /// By offset, what was acknowledged since it was read: the record, or the first one of its call (see
    /// [`Call::is_atomic`]).
    acknowledged: BTreeMap<u64, RecordId>,
    /// By offset: what was read.
    present: BTreeMap<u64, RecordId>,
    /// Offsets of records that were lost.
    gone: BTreeSet<u64>,
    /// The eras since it was read; the last one goes on.
    eras: Vec<Era>,
    /// A cut came, and it wasn't opened since.
    cut: bool,
    /// What would be on the device if the flush that has begun were done: records, and commits.
    flushing: (u64, Option<u64>),
    /// The committed offset is at least this; at least that after a power cut; and at most that.
    committed: Option<u64>,
    committed_durably: Option<u64>,
    commit_begun: u64,
    /// The log start offset is at least, and at most, this.
    start: u64,
    delete_begun: u64,
}

/// A partition between two power cuts.
#[derive(Debug, Clone, Copy)]
struct Era {
    /// Where it was opened: offsets below are of earlier eras.
    first: u64,
    /// Its records below this are on the device.
    durable: u64,
}

impl Ledger {
    /// Of a folder where processes are killed.
    pub(crate) fn of_kills(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// Of a folder where the power is cut.
    pub(crate) fn of_power_cuts() -> Self {
        Self { powered: true, ..Self::default() }
    }

    /// The power was cut: what wasn't on the device may be gone.
    pub(crate) fn cut(&mut self) {
        for ledger in self.places.values_mut() {
            ledger.cut = true;
            ledger.committed = ledger.committed_durably;
        }
        self.scratch.cut();
    }

    /// Takes in what a child said before it was ended. `killed_at_work` says that the process before it was killed while
    /// it had the log open: then its control pages have to be believed.
    pub(crate) fn hear(&mut self, messages: &[Message], mut killed_at_work: bool) {
        for &message in messages {
            self.faults.extend(self.scratch.hear(message));
            match message {
                Message::Opened(place, how, end) => self.opened(place, how, end, killed_at_work),
                Message::Committed(place, found) => self.found_commit(place, found),
                Message::Appended(place, offset, id) => self.appended(place, offset, id),
                Message::Durable(place, below) => self.of(place).is_durable(below),
                Message::WillFlush => self.places.values_mut().for_each(|ledger| {
                    ledger.flushing = (ledger.end(), ledger.committed);
                }),
                Message::DidFlush => self.places.values_mut().for_each(|ledger| {
                    let (end, committed) = ledger.flushing;
                    ledger.is_durable(end);
                    ledger.committed_durably = ledger.committed_durably.max(committed);
                }),
                Message::WillCommit(place, offset) => {
                    let ledger = self.of(place);
                    ledger.commit_begun = ledger.commit_begun.max(offset);
                }
                Message::DidCommit(place, offset, durable) => {
                    self.counts.commits += 1;
                    let ledger = self.of(place);
                    ledger.committed = ledger.committed.max(Some(offset));
                    if durable {
                        ledger.committed_durably = ledger.committed_durably.max(Some(offset));
                    }
                }
                Message::WillDelete(place, before) => {
                    let ledger = self.of(place);
                    ledger.delete_begun = ledger.delete_begun.max(before);
                }
                Message::Starts(place, start) => self.starts(place, start),
                Message::MadeTopic(number) => drop(self.made.insert(number)),
                Message::DidClose => {
                    killed_at_work = false;
                    for ledger in self.places.values_mut() {
                        ledger.is_durable(ledger.end());
                        ledger.committed_durably = ledger.committed;
                    }
                }
                _ => {}
            }
        }
    }

    /// Takes in what came from a child after the power was cut: nobody hears that of a machine that is off, and what
    /// a call answers then is worth nothing. But what it says it was about to do may have been done before.
    pub(crate) fn hear_late(&mut self, messages: &[Message]) {
        let begun = |message: &&Message| {
            matches!(message, Message::Opened(..) | Message::WillCommit(..) | Message::WillDelete(..))
        };
        let begun: Vec<_> = messages.iter().filter(begun).copied().collect();
        self.hear(&begun, false);
        messages.iter().for_each(|&message| self.scratch.hear_late(message));
    }

    fn of(&mut self, place: Place) -> &mut PlaceLedger {
        self.places.entry(place).or_default()
    }

    fn appended(&mut self, place: Place, offset: u64, id: RecordId) {
        self.counts.acknowledged += 1;
        let ledger = self.of(place);
        let other = ledger.present.get(&offset).or(ledger.acknowledged.get(&offset)).copied();
        let used = other.is_some() || ledger.gone.contains(&offset);
        ledger.acknowledged.insert(offset, id);
        if used {
            self.counts.reused += 1;
            self.faults.push(format!("{place:?}: offset {offset} of {other:?} was given to {id:?} too"));
        }
    }

    /// Judges how a partition was opened.
    pub(crate) fn opened(&mut self, place: Place, how: How, end: u64, killed_at_work: bool) {
        let strict = self.strict;
        let ledger = self.of(place);
        let first_since_cut = std::mem::take(&mut ledger.cut);
        if first_since_cut {
            ledger.eras.push(Era { first: end, durable: 0 });
        }
        let mut faults = Vec::new();
        let used = ledger.acknowledged.last_key_value().into_iter().chain(ledger.present.last_key_value());
        let used = used.map(|(&offset, _)| offset).chain(ledger.gone.last().copied()).max();
        if used.is_some_and(|used| used >= end) {
            faults.push(format!("opened ({how:?}) with its end at {end}, though {used:?} is used"));
        }
        if ledger.commit_begun > end {
            let polled = ledger.commit_begun;
            faults.push(format!("opened with its end at {end}, though {polled} had been polled"));
        }
        if how == How::Scanned && killed_at_work && strict {
            faults.push("a process was killed at work, and its control page isn't believed".into());
        }
        if how == How::Resumed && first_since_cut {
            faults.push("the control page is believed, though the power was cut".into());
        }
        self.faults.extend(faults.into_iter().map(|fault| format!("{place:?}: {fault}")));
        match how {
            How::Resumed => self.counts.resumed += 1,
            How::Scanned => self.counts.scanned += 1,
            How::Created | How::Clean => {}
        }
    }

    /// Judges the committed offset that was found.
    pub(crate) fn found_commit(&mut self, place: Place, found: Option<u64>) {
        let ledger = self.of(place);
        let (least, most) = (ledger.committed, ledger.commit_begun);
        // Whoever opened the log has seen to it that what was found stays.
        ledger.committed = ledger.committed.max(found);
        ledger.committed_durably = ledger.committed;
        if found < least || found.is_some_and(|found| found > most) {
            self.faults.push(format!("{place:?}: {found:?} is committed, and not from {least:?} to {most}"));
        }
    }

    /// Judges the log start offset that was seen.
    fn starts(&mut self, place: Place, start: u64) {
        let ledger = self.of(place);
        let (least, most) = (ledger.start, ledger.delete_begun);
        ledger.start = ledger.start.max(start);
        let asked_for = match place.keeps() {
            Keeps::Everything => start == 0,
            Keeps::Bytes(_) => true,
            Keeps::Rest => start <= most,
        };
        if start < least {
            self.faults.push(format!("{place:?}: starts at {start}, though everything before {least} was deleted"));
        }
        if !asked_for {
            self.faults.push(format!("{place:?}: starts at {start}, and only what is before {most} was to be deleted"));
        }
    }

    /// Reads what is there: all of it, or what came since the last time.
    pub(crate) fn check(&mut self, log: &Log, everything: bool) {
        // Now, so that nothing goes while this reads.
        let _ = log.enforce_retention();
        let mut new = BTreeMap::new();
        for place in Place::all() {
            for (offset, id) in self.read(log, place, everything) {
                if !self.known.insert(id) {
                    self.counts.invented += 1;
                    self.faults.push(format!("{place:?}: {id:?} is there twice, at offset {offset} too"));
                }
                new.insert(id, (place, offset));
            }
        }
        self.check_writers(&new);
        for &number in &self.made {
            if log.topic(&made_topic(number)).is_err() {
                self.counts.lost_durable += 1;
                self.faults.push(format!("the topic {} is lost", made_topic(number)));
            }
        }
        self.scratch.check(log, self.powered, &mut self.counts, &mut self.faults);
    }

    /// Reads one partition; answers what wasn't known to be there.
    fn read(&mut self, log: &Log, place: Place, everything: bool) -> Vec<(u64, RecordId)> {
        let partition = log.topic(place.topic_name()).unwrap().partition(place.partition).unwrap();
        let start = partition.start_offset();
        self.starts(place, start);
        let ledger = self.of(place);
        self.counts.deleted += ledger.forget_before(start);
        let ledger = self.of(place);
        let last = ledger.present.last_key_value().map(|(&offset, _)| offset);
        let from = if everything { start } else { last.map_or(start, |last| last + 1) };
        let (mut due, mut bytes) = (from, 0);
        let mut reader = partition.reader(Start::Offset(from)).unwrap();
        let mut seen = BTreeMap::new();
        while let Some(batch) = reader.next_batch().unwrap_or_else(|error| panic!("{place:?} can't be read: {error}")) {
            for record in &batch {
                let offset = record.offset();
                if offset < due || (offset > due && self.strict) {
                    self.faults.push(format!("{place:?}: offset {offset} comes where {due} is due"));
                }
                due = offset + 1;
                bytes += size_of(&record);
                match identify(&record) {
                    Some((id, call)) => drop(seen.insert(offset, (id, call.first))),
                    None => {
                        self.counts.invented += 1;
                        self.faults.push(format!("{place:?}: nobody appended what is at offset {offset}"));
                    }
                }
            }
        }
        if let (Keeps::Bytes(limit), true, true, false) = (place.keeps(), everything, start > 0, self.powered) {
            let segments = bytes / (64 << 10) + 2;
            if bytes + segments * SEGMENT_OVERHEAD_BYTES < limit {
                self.faults.push(format!("{place:?}: {bytes} bytes are left, and {limit} were to be kept"));
            }
        }
        self.judge(place, from, &seen);
        let ledger = self.of(place);
        let new: Vec<_> = seen.into_iter().filter(|(offset, _)| Some(*offset) > last).collect();
        let new: Vec<_> = new.into_iter().map(|(offset, (id, _))| (offset, id)).collect();
        let unknown = new.iter().filter(|(offset, _)| !ledger.acknowledged.contains_key(offset)).count();
        ledger.settle(&new);
        self.counts.unacknowledged += unknown as u64;
        new
    }

    /// Compares what was seen, from an offset on, with what had to be there.
    fn judge(&mut self, place: Place, from: u64, seen: &BTreeMap<u64, (RecordId, RecordId)>) {
        let powered = self.powered;
        let Self { places, counts, faults, .. } = self;
        let ledger = places.entry(place).or_default();
        for (&offset, acknowledged) in &ledger.acknowledged {
            let era = ledger.era_of(offset);
            let durable = !powered || offset < era.durable;
            counts.durable += u64::from(durable);
            match seen.get(&offset) {
                Some((id, first)) if id == acknowledged || first == acknowledged => {}
                None if !durable => {
                    counts.lost_unsynced += 1;
                    let end_of_era = ledger.eras.iter().map(|era| era.first).find(|&first| first > offset);
                    let behind = seen.range(offset..end_of_era.unwrap_or(u64::MAX)).next();
                    if let Some((behind, (id, _))) = behind {
                        counts.holes += 1;
                        let lost = format!("{acknowledged:?} at {offset} is lost");
                        faults.push(format!("{place:?}: {lost}, and {id:?} at {behind} behind it isn't: {era:?}"));
                    }
                }
                other => {
                    counts.lost_durable += 1;
                    faults
                        .push(format!("{place:?}: {acknowledged:?} at {offset} is lost, there is {other:?}: {era:?}"));
                }
            }
        }
        for (&offset, before) in ledger.present.range(from..) {
            let now = seen.get(&offset).map(|(id, _)| id);
            if now != Some(before) {
                counts.lost_durable += 1;
                faults.push(format!("{place:?}: {before:?} was at {offset}, now there is {now:?}"));
            }
        }
    }
}

impl Default for PlaceLedger {
    fn default() -> Self {
        Self {
            acknowledged: BTreeMap::new(),
            present: BTreeMap::new(),
            gone: BTreeSet::new(),
            eras: vec![Era { first: 0, durable: 0 }],
            cut: false,
            flushing: (0, None),
            committed: None,
            committed_durably: None,
            commit_begun: 0,
            start: 0,
            delete_begun: 0,
        }
    }
}

impl PlaceLedger {
    /// Behind the last record that was acknowledged.
    fn end(&self) -> u64 {
        self.acknowledged.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }

    fn is_durable(&mut self, below: u64) {
        if let Some(era) = self.eras.last_mut() {
            era.durable = era.durable.max(below);
        }
    }

    /// Which era an offset was given in.
    fn era_of(&self, offset: u64) -> Era {
        let before = self.eras.iter().rev().find(|era| era.first <= offset);
        before.copied().unwrap_or(Era { first: 0, durable: 0 })
    }

    /// Takes out what was deleted; answers how much that is.
    fn forget_before(&mut self, start: u64) -> u64 {
        let records = self.acknowledged.len() + self.present.len();
        self.acknowledged = self.acknowledged.split_off(&start);
        self.present = self.present.split_off(&start);
        (records - self.acknowledged.len() - self.present.len()) as u64
    }

    /// What was read stays, what wasn't is gone for ever.
    fn settle(&mut self, new: &[(u64, RecordId)]) {
        self.present.extend(new.iter().copied());
        let acknowledged = std::mem::take(&mut self.acknowledged);
        self.gone.extend(acknowledged.into_keys().filter(|offset| !self.present.contains_key(offset)));
        self.eras.drain(..self.eras.len().saturating_sub(1));
    }
}

/// Bytes of a record on the disk, at most.
fn size_of(record: &RecordRef<'_>) -> u64 {
    let headers = record.headers().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + 16).sum::<usize>();
    let payload = record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len) + headers;
    payload as u64 + RECORD_OVERHEAD_BYTES
}

/// Id and call of a record, if it is what that call appends.
fn identify(found: &RecordRef<'_>) -> Option<(RecordId, Call)> {
    let (id, call) = Call::of_value(found.value()?)?;
    let expected = call.record(id);
    let same = found.value() == expected.value_bytes()
        && found.key() == expected.key_bytes()
        && found.headers().eq(expected.header_pairs())
        && found.client_timestamp_ms() == expected.explicit_timestamp_ms();
    same.then_some((id, call))
}

//! What was acknowledged, and the judgement on what is there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tidelog::{Log, RecordRef};

use crate::plan::{Call, How, Message, Place, RecordId, made_topic};

/// What a kill could have cost, counted. The last three have to stay zero.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) commits: u64,
    pub(crate) resumed: u64,
    pub(crate) scanned: u64,
    pub(crate) lost: u64,
    pub(crate) invented: u64,
    pub(crate) reused: u64,
}

/// Everything that is known of one folder.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    places: BTreeMap<Place, PlaceLedger>,
    /// Every record that was read.
    known: HashSet<RecordId>,
    /// Killed processes leave a control page to believe. Where they don't, every opening is a scan, and offsets may jump.
    pub(crate) strict: bool,
    /// Topics that were surely created.
    made: BTreeSet<u64>,
    pub(crate) counts: Counts,
    /// What is wrong.
    pub(crate) faults: Vec<String>,
}

#[derive(Debug, Default)]
struct PlaceLedger {
    /// By offset: the record, or the first one of its call (see [`Call::is_atomic`]).
    acknowledged: BTreeMap<u64, RecordId>,
    /// By offset: what was read.
    present: BTreeMap<u64, RecordId>,
    /// The committed offset is at least, and at most, this.
    committed: Option<u64>,
    commit_begun: u64,
}

impl Ledger {
    pub(crate) fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// Takes in what a child said before it died. `killed_at_work` says that the process before it was killed while it
    /// had the log open: then its control pages have to be believed.
    pub(crate) fn hear(&mut self, messages: &[Message], mut killed_at_work: bool) {
        for &message in messages {
            match message {
                Message::Ready => {}
                Message::Opened(place, how, end) => self.opened(place, how, end, killed_at_work),
                Message::Committed(place, found) => self.found_commit(place, found),
                Message::Appended(place, offset, id) => {
                    self.counts.acknowledged += 1;
                    let ledger = self.places.entry(place).or_default();
                    let used = ledger.present.get(&offset).or(ledger.acknowledged.get(&offset));
                    if let Some(other) = used {
                        self.counts.reused += 1;
                        self.faults.push(format!("{place:?}: offset {offset} of {other:?} was given to {id:?} too"));
                    }
                    ledger.acknowledged.insert(offset, id);
                }
                Message::WillCommit(place, offset) => {
                    let ledger = self.places.entry(place).or_default();
                    ledger.commit_begun = ledger.commit_begun.max(offset);
                }
                Message::DidCommit(place, offset) => {
                    self.counts.commits += 1;
                    let ledger = self.places.entry(place).or_default();
                    ledger.committed = ledger.committed.max(Some(offset));
                }
                Message::MadeTopic(number) => drop(self.made.insert(number)),
                Message::DidClose => killed_at_work = false,
            }
        }
    }

    /// Judges how a partition was opened.
    pub(crate) fn opened(&mut self, place: Place, how: How, end: u64, killed_at_work: bool) {
        let ledger = self.places.entry(place).or_default();
        match how {
            How::Resumed => self.counts.resumed += 1,
            How::Scanned => self.counts.scanned += 1,
            How::Created | How::Clean => {}
        }
        let used = ledger.acknowledged.keys().chain(ledger.present.keys()).max();
        if used.is_some_and(|&used| used >= end) {
            self.faults.push(format!("{place:?}: opened ({how:?}) with its end at {end}, though {used:?} is used"));
        }
        if ledger.commit_begun > end {
            let polled = ledger.commit_begun;
            self.faults.push(format!("{place:?}: opened with its end at {end}, though {polled} had been polled"));
        }
        if how == How::Scanned && killed_at_work && self.strict {
            self.faults.push(format!("{place:?}: a process was killed at work, and its control page isn't believed"));
        }
    }

    /// Judges the committed offset that was found.
    pub(crate) fn found_commit(&mut self, place: Place, found: Option<u64>) {
        let ledger = self.places.entry(place).or_default();
        if found < ledger.committed || found.is_some_and(|found| found > ledger.commit_begun) {
            let (least, most) = (ledger.committed, ledger.commit_begun);
            self.faults.push(format!("{place:?}: {found:?} is committed, and not from {least:?} to {most}"));
        }
        ledger.committed = ledger.committed.max(found);
    }

    /// Reads what is there: all of it, or what came since the last time.
    pub(crate) fn check(&mut self, log: &Log, everything: bool) {
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
                self.counts.lost += 1;
                self.faults.push(format!("the topic {} is lost", made_topic(number)));
            }
        }
    }

    /// Reads one partition; answers what wasn't known to be there.
    fn read(&mut self, log: &Log, place: Place, everything: bool) -> Vec<(u64, RecordId)> {
        let ledger = self.places.entry(place).or_default();
        let partition = log.topic(place.topic_name()).unwrap().partition(place.partition).unwrap();
        let last = ledger.present.last_key_value().map(|(&offset, _)| offset);
        let from = if everything { 0 } else { last.map_or(0, |last| last + 1) };
        let mut due = from;
        let mut reader = partition.reader(tidelog::Start::Offset(from)).unwrap();
        let mut seen = BTreeMap::new();
        while let Some(batch) = reader.next_batch().unwrap_or_else(|error| panic!("{place:?} can't be read: {error}")) {
            for record in &batch {
                let offset = record.offset();
                if offset < due || (offset > due && self.strict) {
                    self.faults.push(format!("{place:?}: offset {offset} comes where {due} is due"));
                }
                due = offset + 1;
                match identify(&record) {
                    Some((id, call)) => drop(seen.insert(offset, (id, call.first))),
                    None => {
                        self.counts.invented += 1;
                        self.faults.push(format!("{place:?}: nobody appended what is at offset {offset}"));
                    }
                }
            }
        }
        for (&offset, acknowledged) in ledger.acknowledged.range(from..) {
            match seen.get(&offset) {
                Some((id, first)) if id == acknowledged || first == acknowledged => {}
                other => {
                    self.counts.lost += 1;
                    self.faults.push(format!("{place:?}: {acknowledged:?} at {offset} is lost, there is {other:?}"));
                }
            }
        }
        for (&offset, before) in ledger.present.range(from..) {
            let now = seen.get(&offset).map(|(id, _)| id);
            if now != Some(before) {
                self.counts.lost += 1;
                self.faults.push(format!("{place:?}: {before:?} was at {offset}, now there is {now:?}"));
            }
        }
        let new: Vec<_> = seen.into_iter().filter(|(offset, _)| Some(*offset) > last).collect();
        let new: Vec<_> = new.into_iter().map(|(offset, (id, _))| (offset, id)).collect();
        let unknown = new.iter().filter(|(offset, _)| !ledger.acknowledged.contains_key(offset));
        self.counts.unacknowledged += unknown.count() as u64;
        ledger.present.extend(new.iter().copied());
        new
    }

    /// Each thread's calls: in the order in which it made them, and without a hole before its last one.
    fn check_writers(&mut self, new: &BTreeMap<RecordId, (Place, u64)>) {
        let writers: BTreeSet<u64> = new.keys().map(|id| id.writer).collect();
        for writer in writers {
            let mut last_offset: HashMap<Place, u64> = HashMap::new();
            let mut next = RecordId { writer, number: 0 };
            loop {
                let call = Call::new(next);
                let ids: Vec<RecordId> = call.ids().collect();
                let found: Vec<_> = new.range(ids[0]..=ids[ids.len() - 1]).collect();
                for &(id, &(place, offset)) in &found {
                    let before = last_offset.insert(place, offset);
                    // Calls to one partition are there as a whole or not at all, one record behind the other.
                    let adjacent = !call.is_atomic() || *id == call.first || before == offset.checked_sub(1);
                    if before >= Some(offset) || !adjacent {
                        self.faults.push(format!("{place:?}: {id:?} is at {offset}, one before it at {before:?}"));
                    }
                }
                if found.len() == ids.len() {
                    next.number += call.records;
                    continue;
                }
                let behind = new.range(RecordId { number: next.number + call.records, writer }..);
                let behind = behind.take_while(|(id, _)| id.writer == writer).count();
                if behind > 0 || (call.is_atomic() && !found.is_empty()) {
                    self.counts.lost += 1;
                    let there = found.len();
                    self.faults.push(format!("{there} records of {call:?} are there, and {behind} behind them"));
                }
                break;
            }
        }
    }
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

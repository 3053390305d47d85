//! The judgement on what each thread appended: in its order, calls as a whole, and nothing missing before something
//! that is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
};

use super::{
    ledger::Ledger,
    plan::{Call, Keeps, Place, RecordId, TOPICS},
};

/// One thread's records that are there: where, and at which offset.
type Found = BTreeMap<RecordId, (Place, u64)>;

impl Ledger {
    /// Each thread's calls: in the order in which it made them, and without a hole before its last one. What a power cut
    /// takes it takes from each partition for itself. What was deleted was the first of its partition.
    pub(super) fn check_writers(&mut self, new: &Found) {
        let writers: BTreeSet<u64> = new.keys().map(|id| id.writer).collect();
        for writer in writers {
            let first = RecordId { writer, number: 0 };
            let last = RecordId { writer, number: u64::from(u32::MAX) };
            self.check_writer(new, first..=last);
        }
    }

    fn check_writer(&mut self, new: &Found, ids: RangeInclusive<RecordId>) {
        let Some((&last, _)) = new.range(ids.clone()).next_back() else { return };
        let mut next = *ids.start();
        // Where its last record was.
        let mut reached: HashMap<Place, u64> = HashMap::new();
        // Where one is missing that a power cut has taken.
        let mut ended: HashMap<Place, RecordId> = HashMap::new();
        while next <= last {
            let call = Call::new(next);
            next.number += call.records;
            let ids: Vec<RecordId> = call.ids().collect();
            let found: Vec<_> = new.range(ids[0]..=ids[ids.len() - 1]).collect();
            let deletable = self.may_have_lost_its_start(&call, &reached);
            self.check_order(&call, &found, &mut reached);
            if found.len() == ids.len() {
                if let Some((place, before)) = call.place().and_then(|place| Some((place, ended.get(&place)?))) {
                    self.counts.holes += 1;
                    self.faults.push(format!("{place:?}: {before:?} is lost, and {call:?} behind it isn't"));
                }
                continue;
            }
            // Its first records were deleted, or all of them.
            let suffix = found.first().is_none_or(|(id, _)| id.number + found.len() as u64 == next.number);
            let deleted = deletable && (suffix || !call.is_atomic());
            // The thread's last call may have been cut short, and one to several partitions isn't atomic.
            let cut_short = (next > last || self.powered) && (!call.is_atomic() || found.is_empty());
            match call.place() {
                _ if deleted => {}
                Some(place) if self.powered && cut_short => drop(ended.entry(place).or_insert(call.first)),
                _ if cut_short => {}
                _ => {
                    self.counts.lost_durable += 1;
                    let there = found.len();
                    self.faults.push(format!("{there} records of {call:?} are there, and it isn't the last"));
                }
            }
        }
    }

    /// Whether records of this call may have been deleted: nothing of the thread was found before them there.
    fn may_have_lost_its_start(&self, call: &Call, reached: &HashMap<Place, u64>) -> bool {
        let plan = &TOPICS[call.topic];
        let mut places = (0..plan.partitions).map(|partition| Place { topic: call.topic, partition });
        plan.keeps != Keeps::Everything
            && places.any(|place| !reached.contains_key(&place) && call.place().is_none_or(|only| only == place))
    }

    /// Records that are there come one behind the other; those of an atomic call without a gap.
    fn check_order(&mut self, call: &Call, found: &[(&RecordId, &(Place, u64))], reached: &mut HashMap<Place, u64>) {
        for (at, &(id, &(place, offset))) in found.iter().enumerate() {
            let before = reached.insert(place, offset);
            let adjacent = !call.is_atomic() || at == 0 || before == offset.checked_sub(1);
            if before >= Some(offset) || !adjacent {
                self.faults.push(format!("{place:?}: {id:?} is at {offset}, one before it at {before:?}"));
            }
        }
    }
}

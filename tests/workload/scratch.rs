//! What is known of the topic that comes and goes, and the judgement on it.

use std::collections::BTreeMap;

use tidelog::{ErrorKind, Log, Start};

use super::{delete::read_scratch_value, ledger::Counts, message::Message, plan::SCRATCH};

/// What is known of the topic.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The only one that can be there,
    incarnation: Option<u64>,
    /// but for these: a child was about to create them when the power was cut.
    late: Vec<u64>,
    /// It must be there: it was created, and nobody has begun to delete it.
    stays: bool,
    /// By number: the offsets of its records that were acknowledged.
    acknowledged: BTreeMap<u64, u64>,
    /// Records with lower numbers are on the device.
    durable: u64,
    /// What would be on the device if the flush that has begun were done.
    flushing: u64,
    /// The power was cut, and nobody has looked since: what wasn't on the device may be gone, and no flush brings it back.
    cut: bool,
}

impl Scratch {
    /// Takes in what a child said; answers what is wrong with it.
    pub(super) fn hear(&mut self, message: Message) -> Option<String> {
        match message {
            Message::WillCreateScratch(incarnation) => {
                let wrong = self.stays.then(|| format!("topic {SCRATCH} {:?} was gone", self.incarnation));
                *self = Self { incarnation: Some(incarnation), ..Self::default() };
                return wrong;
            }
            Message::DidCreateScratch(incarnation) if self.incarnation == Some(incarnation) => self.stays = true,
            Message::AppendedScratch { incarnation, number, offset, durable }
                if self.incarnation == Some(incarnation) =>
            {
                let before = self.acknowledged.last_key_value().map(|(_, &offset)| offset);
                self.acknowledged.insert(number, offset);
                if durable {
                    self.durable = number + 1;
                }
                // Nobody has closed the log since it was created.
                if before.is_some_and(|before| before >= offset) || (number == 0 && offset != 0) {
                    return Some(format!("topic {SCRATCH}: record {number} got offset {offset}, behind {before:?}"));
                }
            }
            Message::DidCreateScratch(_) | Message::AppendedScratch { .. } => {
                return Some(format!("topic {SCRATCH}: {message:?}, though it is {:?}", self.incarnation));
            }
            Message::WillDeleteScratch => self.stays = false,
            Message::DidDeleteScratch => *self = Self::default(),
            Message::WillFlush => self.flushing = self.end(),
            // A topic whose deletion has begun is left out, and it may be back if the power is cut before that is durable.
            Message::DidFlush if self.stays && !self.cut => self.durable = self.durable.max(self.flushing),
            Message::DidClose if self.stays && !self.cut => self.durable = self.end(),
            _ => {}
        }
        None
    }

    /// The power was cut.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// Takes in what a child was about to do when the power was cut.
    pub(super) fn hear_late(&mut self, message: Message) {
        match message {
            Message::WillDeleteScratch => self.stays = false,
            Message::WillCreateScratch(incarnation) => self.late.push(incarnation),
            _ => {}
        }
    }

    /// Behind the last record that was acknowledged.
    fn end(&self) -> u64 {
        self.acknowledged.last_key_value().map_or(0, |(&number, _)| number + 1)
    }

    /// Judges what is there; with `powered` unset, all that was acknowledged has to be.
    pub(super) fn check(&mut self, log: &Log, powered: bool, counts: &mut Counts, faults: &mut Vec<String>) {
        let topic = match log.topic(SCRATCH) {
            Err(error) if error.kind() == ErrorKind::UnknownTopic => {
                if self.stays {
                    counts.lost_durable += 1;
                    faults.push(format!("topic {SCRATCH} {:?} is lost", self.incarnation));
                }
                *self = Self::default();
                return;
            }
            found => found.unwrap(),
        };
        if !self.late.is_empty() {
            // One of those, or the one before, of which nothing is known for sure then.
            let mut reader = topic.reader(Start::Earliest).unwrap();
            let batch = reader.next_batch().unwrap();
            let first = batch.and_then(|batch| batch.iter().next()?.value().and_then(read_scratch_value));
            let late = first.map_or(Some(self.late[0]), |(found, _)| self.late.iter().copied().find(|&it| it == found));
            match late {
                Some(late) => *self = Self { incarnation: Some(late), ..Self::default() },
                None => self.late.clear(),
            }
        }
        let Some(incarnation) = self.incarnation else {
            counts.invented += 1;
            return faults.push(format!("topic {SCRATCH} is back"));
        };
        // Whoever was about to delete it won't any more.
        (self.stays, self.cut) = (true, false);
        let mut next = 0;
        let mut reader = topic.reader(Start::Earliest).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            for record in &batch {
                let value = record.value().and_then(read_scratch_value);
                if value != Some((incarnation, next)) {
                    counts.invented += 1;
                    faults.push(format!("topic {SCRATCH} {incarnation}: {value:?} stands where {next} is due"));
                }
                let offset = record.offset();
                if self.acknowledged.get(&next).is_some_and(|&acknowledged| acknowledged != offset) {
                    faults.push(format!("topic {SCRATCH} {incarnation}: {next} is at {offset}, it had another one"));
                }
                // What is there stays there.
                self.acknowledged.insert(next, offset);
                next += 1;
            }
        }
        let due = if powered { self.durable } else { self.end() };
        if next < due {
            counts.lost_durable += due - next;
            faults.push(format!("topic {SCRATCH} {incarnation}: {next} records are there, and {due} are due"));
        }
        counts.lost_unsynced += self.end() - next.max(due).min(self.end());
        self.acknowledged.retain(|&number, _| number < next);
        self.durable = next;
    }
}

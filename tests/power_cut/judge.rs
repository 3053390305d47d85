//! The judge is judged: what it has to see as lost, and what it mustn't hold against the log.

use libtest_mimic::Failed;
use tidelog::{Durability, Log, Record, TopicConfig};

use crate::workload::{
    delete::scratch_value,
    ledger::Ledger,
    message::Message,
    plan::{SCRATCH, open},
};

const INCARNATION: u64 = 7;
/// Records of the topic that comes and goes: that were acknowledged, and that are there.
const ACKNOWLEDGED: u64 = 6;
const THERE: u64 = 2;

/// What a child said after it had appended, and whether the power was cut between that and the appends, too.
struct Case {
    what: &'static str,
    cut_before: bool,
    said: &'static [Message],
    is_lost: bool,
}

const CASES: [Case; 10] = [
    Case { what: "nothing", cut_before: false, said: &[], is_lost: false },
    Case { what: "a flush", cut_before: false, said: &[Message::WillFlush, Message::DidFlush], is_lost: true },
    Case { what: "a close", cut_before: false, said: &[Message::DidClose], is_lost: true },
    Case {
        what: "a flush before a deletion",
        cut_before: false,
        said: &[Message::WillFlush, Message::DidFlush, Message::WillDeleteScratch],
        is_lost: true,
    },
    Case {
        what: "a flush amid a deletion",
        cut_before: false,
        said: &[Message::WillDeleteScratch, Message::WillFlush, Message::DidFlush],
        is_lost: false,
    },
    Case {
        what: "a flush that a deletion overtakes",
        cut_before: false,
        said: &[Message::WillFlush, Message::WillDeleteScratch, Message::DidFlush],
        is_lost: false,
    },
    Case {
        what: "a close amid a deletion",
        cut_before: false,
        said: &[Message::WillDeleteScratch, Message::DidClose],
        is_lost: false,
    },
    // What is gone by then no flush brings back.
    Case {
        what: "a flush in a later life",
        cut_before: true,
        said: &[Message::WillFlush, Message::DidFlush],
        is_lost: false,
    },
    Case { what: "a close of a later life", cut_before: true, said: &[Message::DidClose], is_lost: false },
    Case { what: "a deletion in a later life", cut_before: true, said: &[Message::WillDeleteScratch], is_lost: false },
];

/// Has a folder in which the last records of a topic are missing, and tells stories of how that came.
pub(crate) fn judge() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let log = open(folder.path(), false)?;
    let topic = log.create_topic(SCRATCH, TopicConfig::with_partitions(1))?;
    for number in 0..THERE {
        topic.append_with(Record::new(scratch_value(INCARNATION, number)), Durability::Written)?;
    }
    for Case { what, cut_before, said, is_lost } in CASES {
        let found = faults(&log, cut_before, said, None);
        if found.is_empty() == is_lost {
            return Err(format!("after {what}: {found:?}").into());
        }
        // What was appended with a sync is due in any case.
        if faults(&log, cut_before, said, Some(THERE)).is_empty() {
            return Err(format!("after {what}: a record that was synced isn't missed").into());
        }
    }
    Ok(())
}

/// What is wrong after this story; the append of the record `synced` was a synced one.
fn faults(log: &Log, cut_before: bool, said: &[Message], synced: Option<u64>) -> Vec<String> {
    let mut ledger = Ledger::of_power_cuts();
    ledger.hear(&[Message::WillCreateScratch(INCARNATION), Message::DidCreateScratch(INCARNATION)], false);
    for number in 0..ACKNOWLEDGED {
        let (incarnation, durable) = (INCARNATION, Some(number) == synced);
        ledger.hear(&[Message::AppendedScratch { incarnation, number, offset: number, durable }], false);
    }
    if cut_before {
        ledger.cut();
    }
    ledger.hear(said, false);
    ledger.cut();
    ledger.check(log, true);
    ledger.faults
}

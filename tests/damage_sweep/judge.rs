//! Opens a damaged log, reads all of it, goes on behind what can't be read, and holds that against what was written.

use std::{ops::Range, path::Path};

use tidelog::{Error, ErrorKind, Finding, Log, Opening, OwnedRecord, Partition, Record, RecoveryEvent, TopicConfig};

use crate::{
    common::is_believable,
    ground::Ground,
    harm::{Commits, Harm, Payments},
    written::{COMMITS, Content, DURABLE_COMMIT, Ending, FOLDER, GROUP, OTHER_FOLDER, OTHER_TOPIC, TOPIC, options},
};

/// How a case ended, where all was as it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Opened(Opening),
    /// The log is open, its topic is told as lost.
    Orphaned,
    Refused,
}

/// What was wrong.
#[derive(Debug)]
pub(crate) enum Fault {
    Unsaid(String),
    Changed(String),
    Other(String),
}

type Judged<T> = Result<T, Fault>;

fn check(holds: bool, what: impl FnOnce() -> String) -> Judged<()> {
    if holds { Ok(()) } else { Err(Fault::Other(what())) }
}

fn failed(what: &'static str) -> impl Fn(Error) -> Fault {
    move |error| Fault::Other(format!("{what}: {error}"))
}

/// What reading told: records by their offsets, and errors.
struct Reading {
    records: Vec<(u64, Content)>,
    errors: Vec<Error>,
}

impl Reading {
    fn has(&self, offset: u64) -> bool {
        self.records.binary_search_by_key(&offset, |(at, _)| *at).is_ok()
    }

    fn gaps(&self) -> Vec<Range<u64>> {
        self.errors.iter().filter_map(Error::damaged_offsets).collect()
    }
}

/// Judges a damaged log; everything twice if `thoroughly`.
pub(crate) fn judge(ground: &Ground, harm: &Harm, thoroughly: bool) -> Judged<Outcome> {
    let folder = ground.log();
    let log = match options().open(&folder) {
        Ok(log) => log,
        Err(error) => return judge_refusal(harm, &folder, &error, thoroughly),
    };
    judge_payments(ground, harm, &log, Visit::First)?;
    if harm.expected.orphaned && !is_orphan(&log, &folder.join(&harm.path)) {
        return Err(Fault::Unsaid(format!("a folder of no topic: {:?}", log.recovery())));
    }
    let Ok(topic) = log.topic(TOPIC) else { return judge_orphan(&log, &folder) };
    let partition = topic.partition(0).map_err(failed("no partition"))?;
    let opening = opening_of(&log)?;
    check_opening(ground, harm, opening)?;
    let first = read(&partition, harm, &folder)?;
    let cut = cut_at(ground, harm, &log)?;
    judge_reading(ground, harm, &log, &first, cut)?;
    judge_commits(ground, &log, harm)?;
    let next = append(&partition, end_of(ground, harm))?;
    log.close().map_err(failed("close"))?;
    if thoroughly {
        judge_again(ground, harm, &first, next)?;
    }
    Ok(Outcome::Opened(opening))
}

/// Where the partition ended. Nobody can know of offsets that were assigned after a backup was made.
fn end_of(ground: &Ground, harm: &Harm) -> u64 {
    harm.expected.ended_at.unwrap_or(ground.written.end())
}

fn opening_of(log: &Log) -> Judged<Opening> {
    let found = log.recovery().partitions().iter().find(|found| found.topic() == TOPIC);
    found.map(|found| found.opening()).ok_or_else(|| Fault::Other("no report of the partition".into()))
}

/// Harm elsewhere changes nothing of how the partition is opened.
fn check_opening(ground: &Ground, harm: &Harm, opening: Opening) -> Judged<()> {
    if harm.path.starts_with(FOLDER) || harm.expected.ended_at.is_some() {
        return Ok(());
    }
    let expected = match ground.ending {
        Ending::Clean => Opening::Clean,
        Ending::Killed if is_believable(&ground.log()) => Opening::Resumed,
        Ending::Killed | Ending::Power => Opening::Scanned,
    };
    check(opening == expected, || format!("opened as {opening:?}, not as {expected:?}"))
}

/// Reads everything there is, and goes on behind each error.
fn read(partition: &Partition, harm: &Harm, folder: &Path) -> Judged<Reading> {
    let mut records = partition.read_from(partition.start_offset()).map_err(failed("read"))?;
    let mut reading = Reading { records: Vec::new(), errors: Vec::new() };
    loop {
        match records.next() {
            None => return Ok(reading),
            Some(Ok(record)) => {
                let after_last = reading.records.last().is_none_or(|(last, _)| *last < record.offset());
                check(after_last, || format!("offset {} comes late", record.offset()))?;
                reading.records.push((record.offset(), content(&record)));
            }
            Some(Err(error)) => {
                check(error.kind() == ErrorKind::Corruption, || format!("reading: {error}"))?;
                let (topic, number) = (partition.topic(), partition.number());
                let own = folder.join(format!("{topic}-{number}"));
                let named = error.path().is_some_and(|path| path.starts_with(own))
                    && error.file_position().is_some()
                    && (error.topic(), error.partition()) == (Some(topic), Some(number));
                check(named, || format!("no place: {error:?}"))?;
                let resume = error.resume_offset().filter(|&offset| offset > records.position() || offset == 0);
                let resume = resume.ok_or_else(|| Fault::Other(format!("no way on: {error:?} {harm:?}")))?;
                records.seek(resume).map_err(failed("going on"))?;
                reading.errors.push(error);
            }
        }
    }
}

fn content(record: &OwnedRecord) -> Content {
    Content {
        key: record.key().map(Vec::from),
        value: record.value().map(Vec::from),
        headers: record.headers().map(|(name, value)| (name.into(), value.map(Vec::from))).collect(),
        client_time_ms: record.client_timestamp_ms(),
        append_time_ms: record.append_time_ms(),
    }
}

/// Where a torn tail was cut, if one was; it must be the place of the damage, and not below what was durable.
fn cut_at(ground: &Ground, harm: &Harm, log: &Log) -> Judged<Option<u64>> {
    let found = log.recovery().partitions().iter().find(|found| found.topic() == TOPIC);
    let mut cut = None;
    for event in found.map(|found| found.events()).unwrap_or_default() {
        let (RecoveryEvent::TornTail(found) | RecoveryEvent::ReorderedTail(found)) = event else { continue };
        check(harm.expected.may_cut, || format!("cut: {event}"))?;
        check(found.end_offset >= ground.written.durable, || format!("cut below what was durable: {event}"))?;
        let begins = harm.expected.lost.iter().any(|lost| lost.start == found.end_offset);
        check(begins, || format!("cut where nothing is damaged: {event}"))?;
        check(!found.kept_in.is_empty() && found.kept_in.iter().all(|path| path.exists()), || {
            format!("nothing kept: {event}")
        })?;
        cut = Some(found.end_offset);
    }
    Ok(cut)
}

/// Exactly the damaged records are missing, and said to be; all others are what they were.
fn judge_reading(ground: &Ground, harm: &Harm, log: &Log, reading: &Reading, cut: Option<u64>) -> Judged<()> {
    for (offset, content) in &reading.records {
        let written = ground.written.records.get(*offset as usize);
        if written != Some(content) {
            return Err(Fault::Changed(format!("offset {offset} is {content:?}, was {written:?}")));
        }
    }
    let mut said = reading.gaps();
    let is_said = |said: &[Range<u64>], offset: u64| said.iter().any(|range| range.contains(&offset));
    if let Some(wrong) = reading.records.iter().find(|(offset, _)| is_said(&said, *offset)) {
        return Err(Fault::Other(format!("offset {} is readable, and said to be damaged", wrong.0)));
    }
    said.extend(cut.map(|end| end..u64::MAX));
    if harm.expected.vanished {
        said.extend(vanished(ground, log));
    }
    if let Some((later, _)) = reading.records.last().filter(|(last, _)| *last >= end_of(ground, harm)) {
        return Err(Fault::Other(format!("offset {later} is there, and wasn't yet")));
    }
    for offset in 0..end_of(ground, harm) {
        let damaged = harm.expected.lost.iter().any(|range| range.contains(&offset));
        let expected = !damaged && cut.is_none_or(|end| offset < end);
        match (expected, reading.has(offset)) {
            (true, false) => return Err(Fault::Other(format!("offset {offset} is missing, and wasn't damaged"))),
            (false, true) if !harm.expected.may_stay => {
                return Err(Fault::Other(format!("offset {offset} is there, and was damaged")));
            }
            (false, false) if !is_said(&said, offset) => {
                return Err(Fault::Unsaid(format!(
                    "offset {offset} is missing, and nothing is said: {:?}",
                    log.recovery()
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What recovery tells of offsets of which nothing is left, so that reading meets no damage; where there is no page to
/// believe, nobody has to tell of any.
fn vanished(ground: &Ground, log: &Log) -> Vec<Range<u64>> {
    if ground.ending != Ending::Killed || !is_believable(&ground.log()) {
        return vec![0..u64::MAX];
    }
    let found = log.recovery().partitions().iter().filter(|found| found.topic() == TOPIC);
    let told = found.flat_map(|found| found.events()).filter_map(|event| match event {
        RecoveryEvent::Corruption { offsets, .. } => Some(offsets.clone()),
        _ => None,
    });
    told.collect()
}

/// The group goes on where it was; or from earlier, and that is told, or so old is what it reads.
fn judge_commits(ground: &Ground, log: &Log, harm: &Harm) -> Judged<()> {
    let consumer = log.consumer(GROUP).topic(TOPIC).open().map_err(failed("consumer"))?;
    let committed = consumer.committed(TOPIC, 0).map_err(failed("committed"))?;
    let right = match harm.expected.commits {
        Commits::Are(offset) => committed == offset,
        Commits::Stay | Commits::MayGo => committed == COMMITS.last().copied(),
    };
    if right {
        return Ok(());
    }
    let known = committed.is_none_or(|offset| COMMITS.contains(&offset));
    let told = log.recovery().findings().iter().any(|finding| matches!(finding, Finding::DamagedCommits { .. }))
        || log.recovery().partitions().iter().any(|found| found.topic() == "__offsets" && !found.is_clean());
    // Zeros in place of what wasn't known to be durable are what a power cut leaves; nobody can tell them apart.
    let as_by_power_cut = ground.ending != Ending::Clean && committed == Some(DURABLE_COMMIT);
    check(known && (told || as_by_power_cut) && harm.expected.commits == Commits::MayGo, || {
        format!("committed {committed:?}, told {told}: {:?}", log.recovery())
    })
}

/// Which time a log is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    First,
    /// What the first one appended is there too.
    Again,
}

/// The other topic is what it was, or what is lost of it is told; appends to it go on.
fn judge_payments(ground: &Ground, harm: &Harm, log: &Log, visit: Visit) -> Judged<()> {
    let expected = harm.expected.payments;
    if expected == Payments::Unseen {
        return Ok(());
    }
    let is_told = is_orphan(log, &log.path().join(OTHER_FOLDER));
    let Ok(topic) = log.topic(OTHER_TOPIC) else {
        let gone = || format!("topic {OTHER_TOPIC:?} is gone: {:?}", log.recovery());
        return if is_told { check(expected == Payments::Orphaned, gone) } else { Err(Fault::Unsaid(gone())) };
    };
    check(expected != Payments::Orphaned, || format!("topic {OTHER_TOPIC:?} is there without its file"))?;
    let partition = topic.partition(0).map_err(failed("the other partition"))?;
    let mut reading = read(&partition, harm, log.path())?;
    if visit == Visit::Again {
        let next = reading.records.pop();
        check(next.is_some_and(|(_, next)| next.value.as_deref() == Some(b"next")), || "the appended payment".into())?;
    }
    let (_, payment) = &ground.written.payments;
    let is_there = match &reading.records[..] {
        [] => false,
        [(0, record)] if record == payment => true,
        others => return Err(Fault::Changed(format!("payments are {others:?}, were {payment:?}"))),
    };
    check(is_there == (expected == Payments::Intact), || format!("payment is there: {is_there}"))?;
    if !is_there && !is_payment_told(log, &reading) {
        return Err(Fault::Unsaid(format!("the payment is missing, and nothing is said: {:?}", log.recovery())));
    }
    check(!is_there || reading.errors.is_empty(), || format!("errors of an intact partition: {:?}", reading.errors))?;
    if visit == Visit::First { append(&partition, 1).map(drop) } else { Ok(()) }
}

/// Whether reading, or what recovery found, tells that the other topic's record is lost. It isn't a torn tail: it was
/// durable.
fn is_payment_told(log: &Log, reading: &Reading) -> bool {
    let found = log.recovery().partitions().iter().find(|found| found.topic() == OTHER_TOPIC);
    let mut events = found.map(|found| found.events()).unwrap_or_default().iter();
    reading.gaps().iter().any(|gap| gap.contains(&0))
        || events.any(|event| match event {
            RecoveryEvent::Corruption { offsets, .. } | RecoveryEvent::SegmentsMissing { offsets } => {
                offsets.contains(&0)
            }
            _ => false,
        })
}

/// Appends go on, with an offset that nobody had.
fn append(partition: &Partition, unused: u64) -> Judged<u64> {
    let at = partition.append(Record::new("next")).map_err(failed("append"))?.offset;
    check(at >= unused, || format!("offset {at} was used before"))?;
    let back = partition.read_from(at).map_err(failed("read back"))?.next();
    let same = back.is_some_and(|record| record.is_ok_and(|record| record.value() == Some(b"next")));
    check(same, || format!("offset {at} can't be read back"))?;
    Ok(at)
}

/// A second open tells the same of the records, and has nothing more to mend.
fn judge_again(ground: &Ground, harm: &Harm, first: &Reading, next: u64) -> Judged<()> {
    let log = options().open(ground.log()).map_err(failed("a second open"))?;
    let cut = |event: &RecoveryEvent| matches!(event, RecoveryEvent::TornTail(_) | RecoveryEvent::ReorderedTail(_));
    let again = log.recovery().partitions().iter().flat_map(|found| found.events()).any(cut);
    check(!again, || format!("a second open cut more: {:?}", log.recovery()))?;
    let partition = log.topic(TOPIC).and_then(|topic| topic.partition(0)).map_err(failed("the topic"))?;
    judge_payments(ground, harm, &log, Visit::Again)?;
    let mut second = read(&partition, harm, log.path())?;
    let appended = second.records.pop().map(|(offset, _)| offset);
    check(appended == Some(next), || format!("the last one is {appended:?}, not {next}"))?;
    if second.records != first.records {
        return Err(Fault::Changed("a second open tells other records".into()));
    }
    // The end of damage at the end of the log is where appends went on.
    let starts = |reading: &Reading| reading.gaps().into_iter().map(|gap| gap.start).collect::<Vec<_>>();
    check(starts(&second).starts_with(&starts(first)), || {
        format!("a second open tells {:?}, the first told {:?}", second.gaps(), first.gaps())
    })?;
    log.close().map_err(failed("close"))
}

fn judge_refusal(harm: &Harm, folder: &Path, error: &Error, thoroughly: bool) -> Judged<Outcome> {
    let expected = harm.expected.refused == Some(error.kind());
    check(expected, || format!("refused: {error}"))?;
    check(error.path().is_some_and(|path| path.starts_with(folder)), || format!("no path: {error:?}"))?;
    if thoroughly {
        let again = options().open(folder).map(drop).map_err(|again| again.to_string());
        check(again.as_ref() == Err(&error.to_string()), || format!("a second open says {again:?}, not {error}"))?;
    }
    Ok(Outcome::Refused)
}

/// Whether that folder is told to belong to no topic.
fn is_orphan(log: &Log, folder: &Path) -> bool {
    log.recovery().findings().contains(&Finding::OrphanedFolder { path: folder.to_owned() })
}

/// A topic without its file: told, and not to be created over.
fn judge_orphan(log: &Log, folder: &Path) -> Judged<Outcome> {
    if !is_orphan(log, &folder.join(FOLDER)) {
        return Err(Fault::Unsaid(format!("the topic is gone: {:?}", log.recovery())));
    }
    let created = log.create_topic(TOPIC, TopicConfig::with_partitions(1)).map(drop);
    let refused = created.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corruption);
    check(refused, || format!("created over what is there: {created:?}"))?;
    log.close().map_err(failed("close"))?;
    Ok(Outcome::Orphaned)
}

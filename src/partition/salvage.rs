//! Finding the end of a log when neither a clean mark nor the control page tells: the rule of the crate.
//!
//! The frames behind the checkpoint's durable mark are read with `pread` and verified. Then
//! - **S** is the furthest place known to have been durable: the checkpoint's mark, or what any valid frame says was
//!   durable when it was written.
//! - Invalid bytes *below S* are **corruption**: they had been on the device and are no longer what was written. They
//!   are reported and left alone; reading tells of them and can go on behind.
//! - **X**, the first invalid place *at or above S*, is the **torn tail**: everything from there on goes, valid frames
//!   behind a hole too, because pages reach a device in any order and what is lost has to be a suffix. It is copied
//!   aside first.
//!
//! A frame is valid if both its checks hold, offsets grow, and the epoch doesn't fall. A later segment whose header is
//! gone, or doesn't match its predecessor, is invalid from its start.
//!
//! Without a durable mark S is the end of the last valid frame. Without a checkpoint appends go on in a new segment 2^32
//! offsets behind.
//!
//! # Invariants
//! - What is cut is copied aside, durably, before a byte of it changes. Where there is no space for that it stays, and is
//!   cut before the first append (see [`uncut`](super::uncut)): a full disk keeps nobody from reading.
//! - A crash anywhere in here leaves a partition for which the same rule finds the same S and X, or for which the cut
//!   is done.
//!
//! # Thread safety
//! Runs before anybody else has the partition.

use std::{io, sync::Arc};

use crate::{
    codec::ALIGNMENT,
    error::{Error, ErrorKind, Result},
    frame::{FrameHeader, HEADER_BYTES},
    partition::{
        checkpoint::{Checkpoint, CheckpointFault, CheckpointState},
        control::{ControlPage, Previous, PreviousPage},
        recovery::{Opener, Recovered, Tail, Unsettled, position, remove_segment, verify_tail},
        report::{Cut, Opening, RecoveryEvent},
        scan::{FileSource, Found, Scan, Source},
        segment::{Segment, SegmentSlot},
        set_aside::{COPY_BYTES, REWRITE_NAME, SetAsideFault, TornTail, give_up_temporary},
        survey::{Invalid, Survey, SurveyEnd, Torn, survey},
    },
    segment_header::{COPY_A_AT, COPY_B_AT, DATA_START, Predecessor, SEGMENT_HEADER_BYTES, SegmentHeader},
    storage::{File, OpenMode},
};

/// How far appends leave the last known offset behind when the offset ceiling is lost.
pub(crate) const LOST_CEILING_GAP: u64 = 1 << 32;

/// What is told of appends of which nothing is left.
pub(super) const VANISHED: &str = "appends that the control page tells of are gone";

/// Opens a partition by scanning it.
pub(crate) fn open(
    mut opener: Opener<'_>,
    mut checkpoint: Option<Checkpoint>,
    page: PreviousPage,
) -> Result<Recovered> {
    let known = checkpoint.as_ref().map(Checkpoint::presumed_state);
    let mut events = Vec::new();
    let log_start_offset = match &known {
        Some(state) => state.log_start_offset,
        None => opener.bases.first().copied().unwrap_or(0),
    };
    opener.note_missing_start(log_start_offset, &mut events);
    let mut survey = survey(&opener, known.as_ref())?;
    events.extend(survey.missing.iter().map(|offsets| RecoveryEvent::SegmentsMissing { offsets: offsets.clone() }));
    let told = events.len();
    report_corruption(&survey, known.as_ref(), &mut events);
    let kept = match &mut checkpoint {
        Some(checkpoint) if events.len() > told && survey.ending().torn.is_some() => {
            keep_mark(&opener, checkpoint, &survey)
        }
        _ => Ok(()),
    };
    let Ended { end, uncut, failed } = cut(&mut opener, &mut survey, kept, &mut events)?;
    if let Some(previous) = &page.believed {
        report_vanished(&survey, end, previous, &mut events);
    }
    complete_headers(&opener, &survey)?;
    let poisoned = page.poisoned || known.is_some_and(|state| state.poisoned);
    let synced = if poisoned { Ok(false) } else { sync(&opener, &survey, page.syncing) };
    let made_durable = match (failed.map_or(synced, Err), &uncut) {
        (Err(error), _) => Err(error),
        (Ok(true), _) => Ok(()),
        (Ok(false), None) => rewrite(&opener, &survey, end, &mut events),
        // The new file would take the place of what isn't copied yet.
        (Ok(false), Some((_, error))) => Err(Error::io("write anew", opener.dir, io::Error::other(error.to_string()))),
    };
    if made_durable.is_err() {
        let _ = ControlPage::leave_poisoned(opener.storage(), opener.dir);
    }
    let (torn, full) = uncut.unzip();
    let mut found = activate(&opener, &survey, end, known.as_ref(), events, full)?;
    found.torn = torn;
    if let Err(error) = made_durable {
        found.poison = Some(error.to_string());
    }
    opener.settle(found, checkpoint, log_start_offset)
}

/// How the log ends.
struct Ended {
    /// The candidate that it ends in, and where.
    end: (usize, u64),
    /// A torn tail that is still there, because there was no space to copy it aside.
    uncut: Option<(TornTail, Error)>,
    /// A sync that failed meanwhile.
    failed: Option<Error>,
}

/// Writes down S before anything is cut, where damage lies below it. The frame that says what was durable may be behind the
/// tear, and go: then nothing else would tell that damage from a torn tail, if the power goes before the end is settled.
fn keep_mark(opener: &Opener<'_>, checkpoint: &mut Checkpoint, survey: &Survey) -> Result<(), SetAsideFault> {
    let mut state = *checkpoint.state();
    if survey.durable <= state.durable {
        return Ok(());
    }
    // No frame's end is known there. What valid frames say further on counts, and the ceiling is above all.
    let below = survey.invalid.iter().take_while(|invalid| invalid.range.start < survey.durable_in(invalid.candidate));
    let offset = below.map(|invalid| invalid.before.next_offset).max().unwrap_or(0);
    (state.durable, state.durable_offset) = (survey.durable, state.durable_offset.max(offset));
    state.clean = None;
    checkpoint.write(opener.storage(), state).map_err(|fault| match fault {
        CheckpointFault::Write(error) => SetAsideFault::Undone(error),
        CheckpointFault::Sync(error) => {
            SetAsideFault::Sync { path: checkpoint.path().to_owned(), source: io::Error::other(error.to_string()) }
        }
    })
}

/// Reports the invalid ranges below S.
fn report_corruption(survey: &Survey, known: Option<&CheckpointState>, events: &mut Vec<RecoveryEvent>) {
    // Where nothing valid follows, everything up to where appends go on.
    let end_offset = known.map_or(0, |state| state.offset_ceiling).max(survey.tail.next_offset);
    for invalid in &survey.invalid {
        let durable = survey.durable_in(invalid.candidate);
        let end = invalid.range.end.min(durable);
        if invalid.range.start >= end {
            continue;
        }
        let candidate = &survey.candidates[invalid.candidate];
        events.push(RecoveryEvent::Corruption {
            file: candidate.path.clone(),
            range: invalid.range.start..if end == u64::MAX { candidate.len } else { end },
            offsets: invalid.before.next_offset..invalid.resume.unwrap_or(end_offset),
            detail: invalid.detail.clone(),
        });
    }
}

/// Reports appends that were published and of which nothing is left: not even bytes that are invalid.
fn report_vanished(survey: &Survey, (last, end): (usize, u64), previous: &Previous, events: &mut Vec<RecoveryEvent>) {
    let next_offset = survey.tail.next_offset;
    let is_told = events.iter().any(|event| match event {
        RecoveryEvent::TornTail(_) | RecoveryEvent::ReorderedTail(_) | RecoveryEvent::UncutTail { .. } => true,
        RecoveryEvent::Corruption { offsets, .. } => offsets.contains(&next_offset),
        _ => false,
    });
    let Some((range, offsets)) = survey.vanished(last, end, previous).filter(|_| !is_told) else { return };
    let (file, detail) = (survey.candidates[last].path.clone(), VANISHED.into());
    events.push(RecoveryEvent::Corruption { file, range, offsets, detail });
}

/// Cuts the torn tail, if there is one and what has to be done before is `kept`, or at least looks no further than it.
fn cut(
    opener: &mut Opener<'_>,
    survey: &mut Survey,
    kept: Result<(), SetAsideFault>,
    events: &mut Vec<RecoveryEvent>,
) -> Result<Ended> {
    let SurveyEnd { keep, position: end, tail, torn } = survey.ending();
    let last = keep.saturating_sub(1);
    let Some(Torn { position, reordered, .. }) = torn else {
        return Ok(Ended { end: (last, end), uncut: None, failed: None });
    };
    let later = survey.candidates.drain(keep..).map(|candidate| (candidate.base, candidate.path)).collect::<Vec<_>>();
    opener.bases.retain(|base| !later.iter().any(|(gone, _)| gone == base));
    let mut torn = TornTail { cut: None, later: later.into_iter().map(|(_, path)| path).collect() };
    torn.cut = position.and_then(|position| Some((survey.candidates.get(last)?.clone(), position)));
    let set_aside = kept.and_then(|()| torn.set_aside(opener.storage(), opener.dir));
    if let (Some((cut, _)), Some(candidate)) = (&torn.cut, survey.candidates.get_mut(last)) {
        candidate.written.clone_from(&cut.written);
    }
    survey.tail = tail;
    let file = opener.path(survey.candidates.get(last).map_or(0, |candidate| candidate.base));
    let mut cut = Cut { file, position: end, end_offset: tail.next_offset, kept_in: Vec::new() };
    let (error, failed) = match set_aside {
        Ok(kept_in) => {
            cut.kept_in = kept_in;
            events.push(if reordered { RecoveryEvent::ReorderedTail(cut) } else { RecoveryEvent::TornTail(cut) });
            return Ok(Ended { end: (last, end), uncut: None, failed: None });
        }
        // No space, or a device that can't be written to; it can be read.
        Err(SetAsideFault::Undone(error)) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::Io) => {
            (error, None)
        }
        Err(SetAsideFault::Undone(error)) => return Err(error),
        Err(SetAsideFault::Sync { path, source }) => {
            let failed = Error::io("sync", path, io::Error::other(source.to_string()));
            (Error::io("set the torn tail aside of", &cut.file, source), Some(failed))
        }
    };
    events.push(RecoveryEvent::UncutTail { cut, detail: error.to_string() });
    Ok(Ended { end: (last, end), uncut: Some((torn, error)), failed })
}

/// Makes what was kept durable: it may have been read from pages that never reached the device. False if the device has
/// something else all the same: a sync had failed, and its process was killed before it was told. (Where there was a
/// control page, it says whether that may be: `in_doubt`.)
fn sync(opener: &Opener<'_>, survey: &Survey, in_doubt: bool) -> Result<bool> {
    let mut on_device = true;
    // If this process is killed meanwhile, the next one is to know. Where there is no space for the mark nobody will.
    let _ = ControlPage::leave_syncing(opener.storage(), opener.dir);
    for (at, candidate) in survey.candidates.iter().enumerate().filter(|(_, candidate)| candidate.header.is_some()) {
        let file = candidate.open(opener.storage(), opener.mode)?;
        file.sync_data().map_err(|source| Error::io("sync", &candidate.path, source))?;
        let doubtful = survey.durable_in(at)..candidate.valid_end;
        if (in_doubt || opener.env.positional_appends) && !doubtful.is_empty() {
            on_device &= file.is_on_device(doubtful).unwrap_or(false);
        }
    }
    let synced = opener.storage().sync_dir(opener.dir);
    synced.map(|()| on_device).map_err(|source| Error::io("sync the folder", opener.dir, source))
}

/// Of a segment of which nothing was known to be durable, one copy of the header may not have reached the device.
fn complete_headers(opener: &Opener<'_>, survey: &Survey) -> Result<()> {
    for (_, candidate) in survey.candidates.iter().enumerate().filter(|(at, _)| survey.durable_in(*at) == 0) {
        if let Some(header) = &candidate.header {
            // Where there is no space for it, one copy is enough.
            let _ = complete_header(&*candidate.open(opener.storage(), opener.mode)?, header);
        }
    }
    Ok(())
}

/// Writes a segment's header where it isn't.
fn complete_header(file: &dyn File, header: &SegmentHeader) -> io::Result<()> {
    let expected = header.encode();
    for position in [COPY_A_AT, COPY_B_AT] {
        let mut copy = [0; SEGMENT_HEADER_BYTES];
        file.read_at(&mut copy, position)?;
        if copy != expected {
            file.write_all_at(&expected, position)?;
        }
    }
    Ok(())
}

/// After a failed sync neither a later success nor a reread is worth anything: the pages count as clean. So what
/// wasn't known to be durable is written into new files, which are synced and take the old ones' names.
fn rewrite(opener: &Opener<'_>, survey: &Survey, end: (usize, u64), events: &mut Vec<RecoveryEvent>) -> Result<()> {
    let mut files = Vec::new();
    for (at, candidate) in survey.candidates.iter().enumerate() {
        if candidate.header.is_none() {
            continue;
        }
        let file = candidate.open(opener.storage(), opener.mode)?;
        let len = if at == end.0 { end.1 } else { candidate.limit };
        let temporary = opener.dir.join(REWRITE_NAME);
        let swap = || {
            let new = opener.storage().open(&temporary, OpenMode::Truncate)?;
            let mut source = FileSource::new(file.clone())?.until(len);
            let mut position = 0;
            while position < source.len() {
                let bytes = source.at(position, COPY_BYTES)?;
                if bytes.is_empty() {
                    break;
                }
                new.write_all_at(bytes, position)?;
                position += bytes.len() as u64;
            }
            new.sync_all()?;
            opener.storage().rename(&temporary, &candidate.path)
        };
        give_up_temporary(opener.storage(), &temporary, swap())
            .and_then(|()| opener.storage().sync_dir(opener.dir))
            .map_err(|source| Error::io("write anew", &candidate.path, source))?;
        files.push(candidate.path.clone());
    }
    events.push(RecoveryEvent::Rewritten { files });
    Ok(())
}

/// Maps the segment that the log ends in, or begins a new one where nothing can be appended to it; not if `full` says why
/// nothing can be written.
fn activate(
    opener: &Opener<'_>,
    survey: &Survey,
    end: (usize, u64),
    known: Option<&CheckpointState>,
    mut events: Vec<RecoveryEvent>,
    full: Option<Error>,
) -> Result<Unsettled> {
    let next_offset = match known {
        Some(state) => survey.tail.next_offset.max(state.offset_ceiling),
        None => survey.tail.next_offset.saturating_add(LOST_CEILING_GAP),
    };
    if known.is_none() {
        events.push(RecoveryEvent::CheckpointLost { next_offset });
    }
    let last = survey.candidates.get(end.0);
    let appendable = last.filter(|_| known.is_some()).filter(|last| {
        // A mark beyond all that a file could have had would make one of that length.
        let holds_end = (DATA_START..=last.len.max(opener.spec.segment_file_bytes())).contains(&end.1);
        last.header.is_some() && last.sequence >= survey.durable.sequence().into() && holds_end
    });
    // The handle is taken anew: the file may have been swapped.
    let file = appendable.map_or(Ok(None), |last| opener.intact_file(last.base))?;
    let file = match file {
        Some((file, header)) if splits_a_frame(survey, end, &file, &header).unwrap_or(true) => None,
        file => file,
    };
    let (active, end_position) = match (file.zip(appendable), full) {
        (Some(((file, header), last)), _) => (opener.map_active(header, last.path.clone(), file, end.1)?, end.1),
        // A new segment has to come behind all that there is.
        (None, Some(full)) => return Err(full),
        (None, None) => (Arc::new(begin_anew(opener, survey, end, next_offset)?), DATA_START),
    };
    // By a forged mark, or one that lies behind all frames.
    let next_offset = next_offset.max(active.header.base_offset);
    // The survey has begun at the durable mark, and knows no time of what lies before it. Times must not fall, and
    // retention must not take anything for older than it is.
    let last_time_ms = match verify_tail(&active, end_position) {
        Some(tail) => tail.last_time_ms,
        // The last frame is damaged. It isn't later than now, unless the clock was set back: but for it, all others tell.
        None => opener.env.clock.now_ms().max(greatest_time_ms(&active, end_position)),
    };
    let sealed = opener.bases.iter().filter(|&&base| base != active.header.base_offset);
    let mut slots: Vec<_> = sealed.map(|&base| Arc::new(SegmentSlot::unopened(base, opener.path(base)))).collect();
    slots.push(Arc::new(SegmentSlot::opened(active.clone())));
    Ok(Unsettled {
        end: position(&active, end_position)?,
        slots,
        tail: Tail {
            next_offset,
            last_time_ms: survey.tail.last_time_ms.max(active.header.base_timestamp_ms).max(last_time_ms),
            epoch: survey.tail.epoch,
        },
        active,
        opening: Opening::Scanned,
        events,
        poison: None,
        torn: None,
    })
}

/// Whether the end of the log lies inside of a damaged frame whose header holds. That was claimed by a forged one; who reads
/// passes over the whole frame, and with it over what would be appended there.
fn splits_a_frame(
    survey: &Survey,
    (last, end): (usize, u64),
    file: &Arc<dyn File>,
    header: &SegmentHeader,
) -> io::Result<bool> {
    let around = |invalid: &&Invalid| invalid.candidate == last && invalid.range.start < end && end < invalid.range.end;
    let Some(invalid) = survey.invalid.iter().find(around) else { return Ok(false) };
    let mut source = FileSource::new(file.clone())?;
    let mut position = invalid.range.start.max(DATA_START);
    // Not by a scan: a file that was written anew ends here, and a frame that goes on behind its end is none.
    while position < end {
        let frame = FrameHeader::decode(source.at(position, HEADER_BYTES)?, header.frame_seed(), position);
        position += frame.map_or(ALIGNMENT, |frame| frame.frame_bytes()) as u64;
    }
    Ok(position > end)
}

/// The greatest time of the frames before `end` whose headers are intact, as far as they can be read.
fn greatest_time_ms(segment: &Segment, end: u64) -> i64 {
    let mut greatest = segment.header.base_timestamp_ms;
    let Some(mut source) = segment.file.get().and_then(|file| FileSource::new(file).ok()).map(|it| it.until(end))
    else {
        return greatest;
    };
    let mut scan = Scan::headers(segment.seed, DATA_START);
    loop {
        match scan.next_in(&mut source) {
            Ok(Found::Frame { header, .. }) => greatest = greatest.max(segment.append_time_ms(&header)),
            Ok(Found::Damage { .. }) => {}
            Ok(Found::End { .. }) | Err(_) => return greatest,
        }
    }
}

/// A new active segment behind one that can't be appended to.
fn begin_anew(opener: &Opener<'_>, survey: &Survey, end: (usize, u64), next_offset: u64) -> Result<Segment> {
    let last = survey.candidates.get(end.0);
    let sequence = last.map_or(0, |last| last.sequence).max(survey.durable.sequence().into()) + 1;
    // It follows the last segment only if nothing is missing in between.
    let whole = last.filter(|last| last.sequence + 1 == sequence && end.1 >= DATA_START);
    let predecessor = whole.and_then(|last| last.header).map(|header| Predecessor {
        segment_id: header.segment_id,
        end_position: end.1,
        end_offset: survey.tail.next_offset,
    });
    let segment =
        opener.create_segment(opener.new_header(sequence, next_offset, survey.tail.last_time_ms, predecessor)?)?;
    if let Err(source) = segment.open_file(opener.env).and_then(|file| file.sync_all()) {
        // The next open makes another one; this one would look sound from the page cache.
        let _ = remove_segment(opener.storage(), &segment.path);
        return Err(Error::io("sync the new segment", &segment.path, source));
    }
    opener.storage().sync_dir(opener.dir).map_err(|source| Error::io("sync the folder", opener.dir, source))?;
    Ok(segment)
}

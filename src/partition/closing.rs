//! The end of a partition's life in this process: closed, or deleted with its topic.
//!
//! # Invariants
//! - A life only goes on: open, closing, closed, deleted; some stages may be left out.
//! - A clean mark is the last thing that is written to the checkpoint, and only when all before it is on the device.
//! - Behind [`PartitionLog::delete`] nothing is written any more, and no file but the control page stays open for the
//!   handles that are left.
//!
//! # Thread safety
//! Any thread may call anything.

use std::sync::Arc;

use super::{Company, PartitionLog, checkpoint::CleanMark};
use crate::{
    error::{Error, Repr, Result, is_out_of_files},
    storage::keep_open,
    sync::{Ordering, this_thread},
    waiter::LONGEST_SLEEP,
};

/// How far the life of a partition has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Life {
    Open,
    /// Nothing is appended any more; what was is being synced.
    Closing,
    Closed,
    Deleted,
}

impl PartitionLog {
    /// True after [`close`](PartitionLog::close) and after [`delete`](PartitionLog::delete).
    pub(crate) fn is_closed(&self) -> bool {
        self.life.load(Ordering::Acquire) != Life::Open as u8
    }

    /// Kind `Closed`, or `UnknownTopic` if the partition was deleted.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            self.check_exists()?;
            return Err(Repr::Closed.into());
        }
        Ok(())
    }

    /// Kind `UnknownTopic` if the partition was deleted.
    #[inline]
    pub(crate) fn check_exists(&self) -> Result<()> {
        // Sequentially consistent, for who is about to sleep: either it sees this, or the deletion sees the sleeper.
        if self.life.load(Ordering::SeqCst) == Life::Deleted as u8 { Err(self.deleted()) } else { Ok(()) }
    }

    /// The error of who asks for something that a deleted partition no longer has.
    pub(super) fn deleted(&self) -> Error {
        Repr::TopicDeleted { topic: self.spec.topic.to_string() }.into()
    }

    /// Goes on to a later stage of life; answers whether it is one.
    fn enter(&self, life: Life) -> bool {
        self.life.fetch_max(life as u8, Ordering::SeqCst) < life as u8
    }

    /// Syncs, trims, writes the clean mark. Later appends and flushes answer kind `Closed`; batches stay valid.
    pub(crate) fn close(&self) -> Result<()> {
        if !self.enter(Life::Closing) {
            return Ok(());
        }
        self.wake_waiters();
        // No file is removed behind this.
        let _leftovers = self.leftovers.lock();
        self.forget_recent_segments(u64::MAX);
        let outcome = self.finish();
        self.enter(Life::Closed);
        self.wake_all_durable();
        // Somebody may have deleted it meanwhile, and then nothing is to be told.
        if self.check_exists().is_err() { Ok(()) } else { outcome }
    }

    /// Makes everything durable and says so in the checkpoint.
    fn finish(&self) -> Result<()> {
        // Whoever is inside an append has published when the lock comes free; nobody enters any more.
        let (active, end, next_offset, last_time_ms) = {
            let mut writer = self.writer()?;
            writer.finish_times();
            (writer.segment().clone(), writer.end(), writer.next_offset(), writer.last_time_ms())
        };
        if let Err(error) = self.sync_through(end, Company::Alone) {
            // A handle with bytes that never reached the device must not be closed: with it would go the kernel's
            // memory that there was a failure.
            keep_open(self.sync.lock().unsynced.clone());
            if self.poison.get().is_some() {
                self.write_poison(); // It may have failed before.
            }
            return Err(error);
        }
        if self.has_torn_tail() {
            // Nothing was appended. The next open finds it as this one did.
            return Ok(());
        }
        if cfg!(windows) {
            // No file is cut there while it is mapped, and readers keep it mapped as long as they like. All is on the
            // device; without a mark the next open looks for the end.
            return Ok(());
        }
        active.seal_index(&*self.env.storage);
        let position = end.file_position();
        let segment_id = active.header.segment_id;
        let mark = CleanMark { segment_id, end_position: position, next_offset, last_time_ms };
        // Nothing was appended since it was opened, as in most of many partitions. If the power takes the trimming away,
        // the next open reads some holes.
        let marked = self.is_marked(mark);
        let trim = || {
            let file = active.open_file(&self.env)?;
            file.set_len(position)?;
            if !marked {
                file.sync_all()?;
            }
            active.file.close();
            Ok(())
        };
        self.env.open_files.with_spare(is_out_of_files, trim).map_err(|source| match is_out_of_files(&source) {
            true => Error::io("open the segment", &active.path, source),
            false => self.sync_failed(&active.path, source),
        })?;
        active.save_active_times(&*self.env.storage, position, self.epoch);
        // Until the mark is written, the page is what a process that is killed leaves to believe.
        if !marked {
            self.update_checkpoint(|state| {
                self.finished.store(true, Ordering::Release);
                (state.durable, state.durable_offset, state.offset_ceiling) = (end, next_offset, next_offset);
                state.clean = Some(mark);
            })?;
        }
        self.control.make_invalid();
        Ok(())
    }

    /// Whether the checkpoint has this clean mark already. If so, nothing is written to it any more.
    fn is_marked(&self, mark: CleanMark) -> bool {
        let checkpoint = self.checkpoint.lock();
        let marked = checkpoint.state().clean == Some(mark);
        self.finished.fetch_or(marked, Ordering::AcqRel);
        marked
    }

    /// Ends the partition because its topic goes. From now on its handles answer kind `UnknownTopic`, but for what is
    /// mapped already, and all who sleep wake up to see it. When this returns, nobody syncs or writes here any more: the
    /// caller removes the folder.
    ///
    /// (A reader that has found the index of a segment damaged, just now, may still write it anew: a folder that is
    /// renamed before it is removed has no such surprise.)
    pub(crate) fn delete(&self) {
        self.enter(Life::Deleted);
        {
            // Who is at it is waited for; who comes later finds that it's over.
            let _checkpoint = self.checkpoint.lock();
            self.finished.store(true, Ordering::Release);
        }
        // Whoever sets the tail aside right now has done so when the lock comes free, and nobody begins to.
        *self.torn.lock() = None;
        // Whoever is inside an append has published when the lock comes free; nobody enters any more.
        let writer = self.writer.lock().take();
        {
            let leftovers = self.leftovers.lock();
            leftovers.borrow_mut().clear();
            self.synced.wake();
            loop {
                let ticket = self.synced.ticket();
                let mut sync = self.sync.lock();
                // Unless we are called by a task that this very sync wakes, because it has failed.
                if sync.running.is_none_or(|syncing| syncing == this_thread()) {
                    sync.unsynced.clear();
                    break;
                }
                drop(sync);
                self.synced.wait(ticket, LONGEST_SLEEP);
            }
        }
        // With these go the files and maps, but for those in which somebody still reads.
        self.segments.store(Arc::default());
        self.forget_recent_segments(u64::MAX);
        drop(writer);
        self.wake_waiters();
        self.wake_all_durable();
    }
}

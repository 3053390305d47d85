//! A torn tail that recovery couldn't copy aside, for lack of space: set aside by the first append that finds some.
//!
//! Until then the partition is read up to the place where the tail begins, and everything behind it is left as it was.
//!
//! # Invariants
//! - Nothing is stored, rolled or trimmed before the tail is set aside: what is cut is copied first.
//! - Nobody believes the control page before that: who does zeroes what lies behind its end.
//!
//! # Thread safety
//! Any thread may call anything. The tail's lock is held across the copy and its sync, and comes before the writer's.

use super::{PartitionLog, set_aside::SetAsideFault};
use crate::error::Result;

impl PartitionLog {
    /// Whether there is one.
    pub(super) fn has_torn_tail(&self) -> bool {
        self.torn.lock().is_some()
    }

    /// Sets the tail aside, if there is one. Kind `StorageFull` where there still is no space; nothing has changed then.
    pub(super) fn cut_tail(&self) -> Result<()> {
        let mut torn = self.torn.lock();
        let Some(tail) = &mut *torn else { return Ok(()) };
        self.check_writable()?;
        match tail.set_aside(&*self.env.storage, &self.dir) {
            Ok(_) => {}
            Err(SetAsideFault::Undone(error)) => return Err(error),
            Err(SetAsideFault::Sync { path, source }) => {
                drop(torn);
                return Err(self.sync_failed(&path, source));
            }
        }
        let written =
            tail.cut.as_ref().and_then(|(candidate, _)| Some((candidate.path.clone(), candidate.written.clone()?)));
        if let Some((path, file)) = written {
            if let Err(source) = file.sync_data() {
                // Who is woken by this may close the partition, which looks for the tail.
                drop(torn);
                return Err(self.sync_failed(&path, source));
            }
        }
        self.writer()?.uncut = false;
        *torn = None;
        self.control.make_valid();
        Ok(())
    }
}

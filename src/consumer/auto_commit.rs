//! Committing by itself, now and then.
//!
//! # Invariants
//! Commits only what `poll` returned before: it happens when the next `poll` begins (or while it waits, before it has
//! read anything), and when the consumer is closed. Never when it is dropped.

use std::time::{Duration, Instant};

use super::{core::Core, following::unless_fenced};
use crate::error::Result;

/// When the next one is due.
#[derive(Debug)]
pub(super) struct AutoCommit {
    interval: Duration,
    last: Instant,
    /// Positions may have moved since.
    moved: bool,
    /// When the consumer will be woken for it, if that was arranged.
    pub(super) alarm: Option<Instant>,
}

impl AutoCommit {
    /// The first one also commits where a new group begins, so that it misses nothing after a restart.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, last: Instant::now(), moved: true, alarm: None }
    }

    /// Whether nobody will wake the consumer at `due`.
    pub(super) fn needs_alarm(&self, due: Instant) -> bool {
        // One that is over has rung.
        !self.alarm.is_some_and(|alarm| alarm <= due && alarm > Instant::now())
    }
}

impl Core {
    /// When there is something to commit; `None` if there is nothing, or never.
    pub(super) fn auto_commit_due(&self) -> Option<Instant> {
        let auto_commit = self.auto_commit.as_ref().filter(|auto_commit| auto_commit.moved)?;
        auto_commit.last.checked_add(auto_commit.interval)
    }

    pub(super) fn auto_commit_if_due(&mut self) -> Result<()> {
        match self.auto_commit_due() {
            Some(due) if due <= Instant::now() => unless_fenced(self.commit_positions(None)),
            _ => Ok(()),
        }
    }

    /// Commits what is left to commit, due or not.
    pub(super) fn auto_commit_rest(&mut self) -> Result<()> {
        match &self.auto_commit {
            Some(auto_commit) if auto_commit.moved => self.commit_positions(None),
            _ => Ok(()),
        }
    }

    /// Whether commits are made without being asked for.
    pub(super) fn has_auto_commits(&self) -> bool {
        self.auto_commit.is_some()
    }

    /// There is something to commit.
    pub(super) fn positions_moved(&mut self) {
        if let Some(auto_commit) = &mut self.auto_commit {
            auto_commit.moved = true;
        }
    }

    pub(super) fn positions_committed(&mut self) {
        if let Some(auto_commit) = &mut self.auto_commit {
            (auto_commit.last, auto_commit.moved) = (Instant::now(), false);
        }
    }
}

//! Following the group: partitions that come, and partitions that go.
//!
//! # Invariants
//! - Only partitions that move are touched: what stays keeps its place, its position, and its epoch.
//! - A partition is released only behind everything that this consumer does with it, its callback included.
//! - Whoever is told that a partition was assigned is told when it goes.
//! - A step that the callback fails in is completed all the same. One that the log fails in is tried again by the next
//!   poll.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    core::{Assigned, Core},
    rebalance::{Callback, Rebalance, RebalanceKind},
};
use crate::{
    config::Start,
    error::{Error, ErrorKind, Repr, Result},
    group::{Owned, PartitionId, View},
    partition::PartitionLog,
    reader::{Place, resolve},
};

/// How an assigned partition stands in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Kept,
    /// Another member is to have it.
    Revoked,
    /// Another member, or nobody, has it.
    Lost,
}

impl Core {
    /// Whether [`follow`](Core::follow) would find something.
    pub(super) fn has_moved(&self) -> bool {
        self.member.version() != self.seen_group
            || self.topics.changes().version() != self.seen_topics
            || self.on_rebalance.is_some() && self.assigned.iter().any(|assigned| !assigned.is_announced)
    }

    /// Lets go of partitions that are to move, and takes up those that came.
    ///
    /// Kind `UnknownTopic`, once, if a topic that was named is no longer there; what the callback answers; those of
    /// commits.
    pub(super) fn follow(&mut self) -> Result<()> {
        if !self.has_moved() {
            return Ok(());
        }
        let version = self.topics.changes().version();
        if version != self.seen_topics {
            self.member.follow_topics();
            self.seen_topics = version;
        }
        // Before looking: what changes meanwhile is found by the next look.
        let mut version = self.member.version();
        let view = loop {
            match self.member.view() {
                Some(view) => break view,
                None => self.come_back()?,
            }
            version = self.member.version();
        };
        self.generation = view.generation;
        let lost = self.let_go_of_lost(&view);
        let revoked = self.let_go_of_revoked(&view);
        if revoked.is_ok() {
            self.take_up(view);
            self.seen_group = version;
        }
        lost.and(revoked)?;
        self.announce()
    }

    /// Joins the group again, from which this consumer was expelled; by the next poll if there is an error to tell first.
    fn come_back(&mut self) -> Result<()> {
        let outcome = self.tell(RebalanceKind::Lost, |_| true);
        let lost = self.forget(|_| true);
        outcome?;
        self.check_exist(&lost)?;
        let start = self.start_if_new;
        self.member.rejoin(&|log| begin(log, start))
    }

    /// Kind `UnknownTopic` if one of the partitions that are lost was of a topic that was named, and is deleted.
    fn check_exist(&self, lost: &[Assigned]) -> Result<()> {
        let is_named = |assigned: &&Assigned| {
            assigned.partition().check_exists().is_err() && self.subscription.is_named(assigned.topic())
        };
        match lost.iter().find(is_named) {
            Some(assigned) => Err(Repr::UnknownTopic { topic: assigned.topic().into() }.into()),
            None => Ok(()),
        }
    }

    /// Partitions of topics that were deleted.
    fn let_go_of_lost(&mut self, view: &View) -> Result<()> {
        let standing = standings(view);
        let is_lost = |assigned: &Assigned| standing(assigned) == Standing::Lost;
        if !self.assigned.iter().any(is_lost) {
            return Ok(());
        }
        let outcome = self.tell(RebalanceKind::Lost, is_lost);
        let lost = self.forget(is_lost);
        outcome.and(self.check_exist(&lost))
    }

    /// Partitions that other members are to have.
    fn let_go_of_revoked(&mut self, view: &View) -> Result<()> {
        let revoked: Vec<PartitionId> =
            view.owned.iter().filter(|owned| owned.is_revoked).map(|owned| PartitionId::of(&owned.log)).collect();
        if revoked.is_empty() {
            return Ok(());
        }
        let standing = standings(view);
        let is_revoked = |assigned: &Assigned| standing(assigned) == Standing::Revoked;
        self.auto_commit_of(is_revoked)?;
        let outcome = self.tell(RebalanceKind::Revoked, is_revoked);
        self.forget(is_revoked);
        // Also those that were let go of before, when this failed.
        let released = self.member.release(revoked);
        outcome.and(released)
    }

    /// Partitions that came.
    pub(super) fn take_up(&mut self, view: View) {
        let owned = view.owned.into_iter().filter(|owned| !owned.is_revoked);
        let new: Vec<Assigned> =
            owned.filter(|owned| !self.is_assigned(&owned.log)).map(|owned| self.assigned_from(owned)).collect();
        if new.is_empty() {
            return;
        }
        for assigned in &new {
            if let Some(numbers) = self.lost.get_mut(assigned.topic()) {
                numbers.remove(&assigned.number());
            }
        }
        self.assign(new);
        // Where the group begins is worth committing too.
        self.positions_moved();
    }

    /// A partition at what the group has committed, else where it began.
    fn assigned_from(&self, owned: Owned) -> Assigned {
        let Owned { log, epoch, start, committed, .. } = owned;
        let position = self.restart_offset_of(&log, committed, start);
        let figures = self.member.figures().reading(&log.spec().topic, log.spec().number);
        Assigned { place: Place::new(&log, position).counted(figures), epoch, start, is_announced: false }
    }

    /// Tells the callback of what it hasn't heard of.
    fn announce(&mut self) -> Result<()> {
        let is_new = |assigned: &Assigned| !assigned.is_announced;
        if self.on_rebalance.is_none() || !self.assigned.iter().any(is_new) {
            return Ok(());
        }
        let outcome = self.call_back(RebalanceKind::Assigned, is_new);
        self.assigned.iter_mut().for_each(|assigned| assigned.is_announced = true);
        outcome
    }

    /// Tells the callback of partitions that go, if it has heard of them.
    pub(super) fn tell(&mut self, kind: RebalanceKind, which: impl Fn(&Assigned) -> bool) -> Result<()> {
        self.call_back(kind, |assigned| assigned.is_announced && which(assigned))
    }

    fn call_back(&mut self, kind: RebalanceKind, which: impl Fn(&Assigned) -> bool) -> Result<()> {
        let chosen = self.assigned.iter().filter(|assigned| which(assigned));
        let partitions: Vec<_> = chosen.map(|assigned| (assigned.topic().to_owned(), assigned.number())).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        let callback = self.on_rebalance.take();
        let mut call = Call { core: self, callback };
        match &mut call.callback {
            Some(callback) => callback(&mut Rebalance::new(call.core, kind, partitions)),
            None => Ok(()),
        }
    }

    /// Takes partitions out of the list, and remembers that they were there.
    fn forget(&mut self, gone: impl FnMut(&Assigned) -> bool) -> Vec<Assigned> {
        let gone = self.unassign(gone);
        for assigned in &gone {
            self.lost.entry(assigned.topic().into()).or_default().insert(assigned.number());
        }
        gone
    }

    /// Commits positions of partitions that go, if that is this consumer's way.
    fn auto_commit_of(&mut self, which: impl Fn(&Assigned) -> bool) -> Result<()> {
        if !self.has_auto_commits() {
            return Ok(());
        }
        unless_fenced(self.commit_positions_of(which, None))
    }
}

/// A callback while it runs. It is there again behind that, also if it panics.
struct Call<'a> {
    core: &'a mut Core,
    callback: Option<Callback>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.core.on_rebalance = self.callback.take();
    }
}

/// Says how partitions stand.
fn standings(view: &View) -> impl Fn(&Assigned) -> Standing {
    let owned: BTreeMap<PartitionId, (u64, bool)> =
        view.owned.iter().map(|owned| (PartitionId::of(&owned.log), (owned.epoch, owned.is_revoked))).collect();
    move |assigned| match owned.get(&assigned.id()) {
        Some(&(epoch, false)) if epoch == assigned.epoch => Standing::Kept,
        Some(&(epoch, true)) if epoch == assigned.epoch => Standing::Revoked,
        _ => Standing::Lost,
    }
}

/// Where a group that is new to a partition begins; kind `OffsetOutOfRange`.
pub(super) fn begin(log: &Arc<PartitionLog>, start: Start) -> Result<u64> {
    match start {
        Start::Offset(_) => Ok(Place::at(log, start)?.position()),
        start => resolve(log, start),
    }
}

/// What nobody asked for fails silently where the partition went to another member: that is told as what it is.
pub(super) fn unless_fenced(outcome: Result<()>) -> Result<()> {
    let is_fenced = |error: &Error| error.kind() == ErrorKind::Fenced;
    if outcome.as_ref().is_err_and(is_fenced) { Ok(()) } else { outcome }
}

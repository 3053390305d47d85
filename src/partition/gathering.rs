//! Waiting, before a sync begins, for those whom the last one let go.
//!
//! Threads that append one durable record after the other come back within microseconds of the end of a sync, one by one.
//! The first could sync at once, for itself: then the others wait for that sync and share the next, and each takes part in
//! every other one. If it waits for them for a moment, all share one (`cargo bench --bench durable`).
//!
//! # Invariants
//! - Nothing relies on it: it moves when a sync begins, not what it covers.
//! - Who is alone never waits.
//! - The wait ends with the last who is expected, and after a share of what the last sync took, and of a fixed time, at
//!   most. Where it was in vain, the next syncs, twice as many each time, begin at once.
//!
//! # Thread safety
//! Belongs to the lock of those who sync.

use std::time::Duration;

/// So long others are waited for, at most.
const LIMIT: Duration = Duration::from_micros(if cfg!(loom) { 0 } else { 200 });

/// So many syncs begin at once, at most, before somebody is waited for again.
const PAUSE_MAX: u32 = 64;

/// Who is expected.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// They take part in the sync that comes next.
    arrived: u32,
    /// The last one let so many go.
    released: u32,
    /// Of these, as far as is known, so many haven't come again.
    away: u32,
    /// What the last one took.
    took: Duration,
    /// So many more syncs that others are expected for begin at once.
    pause: u32,
    /// And so many will the next time.
    next_pause: u32,
}

impl Gathering {
    /// Somebody is there who wants a sync.
    pub(super) fn arrive(&mut self) {
        self.arrived += 1;
        self.away = self.away.saturating_sub(1);
    }

    /// Whether more are waited for, `waited` after the first who came.
    pub(super) fn goes_on(&self, waited: Duration) -> bool {
        self.away > 0 && self.pause == 0 && waited < LIMIT.min(self.took / 2)
    }

    /// A sync begins, for those who are there; returns how many.
    pub(super) fn depart(&mut self) -> u32 {
        if self.released > 1 {
            if self.pause > 0 {
                self.pause -= 1;
            } else if self.away < self.arrived {
                self.next_pause = 1;
            } else {
                // Most have other things to do.
                self.pause = self.next_pause.max(1);
                self.next_pause = (2 * self.pause).min(PAUSE_MAX);
            }
        }
        std::mem::take(&mut self.arrived)
    }

    /// It ended after this time, and let them go.
    pub(super) fn release(&mut self, group: u32, took: Duration) {
        (self.released, self.away, self.took) = (group, group, took);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(100);
    const NOW: Duration = Duration::ZERO;

    /// One whose last sync let `group` go.
    fn behind(group: u32) -> Gathering {
        let mut gathering = Gathering::default();
        (0..group).for_each(|_| gathering.arrive());
        assert_eq!(gathering.depart(), group);
        gathering.release(group, SYNC);
        gathering
    }

    #[test]
    fn who_is_alone_never_waits() {
        let mut gathering = Gathering::default();
        for _ in 0..3 {
            gathering.arrive();
            assert!(!gathering.goes_on(NOW));
            assert_eq!(gathering.depart(), 1);
            gathering.release(1, SYNC);
        }
    }

    #[test]
    fn all_are_waited_for_who_were_let_go_and_nobody_else() {
        let mut gathering = behind(8);
        for _ in 0..7 {
            gathering.arrive();
            assert!(gathering.goes_on(NOW));
        }
        gathering.arrive();
        assert!(!gathering.goes_on(NOW));
        assert_eq!(gathering.depart(), 8);

        // Four arrive while four are at it.
        let mut gathering = behind(4);
        (0..4).for_each(|_| gathering.arrive());
        assert_eq!(gathering.depart(), 4);
        (0..4).for_each(|_| gathering.arrive());
        gathering.release(4, SYNC);
        assert!(gathering.goes_on(NOW));
        (0..4).for_each(|_| gathering.arrive());
        assert_eq!((gathering.goes_on(NOW), gathering.depart()), (false, 8));
    }

    #[test]
    fn nobody_waits_longer_than_half_a_sync_or_the_limit() {
        let mut gathering = behind(8);
        gathering.arrive();
        assert!(gathering.goes_on(SYNC / 2 - Duration::from_nanos(1)));
        assert!(!gathering.goes_on(SYNC / 2));
        gathering.depart();
        gathering.release(8, Duration::from_secs(1));
        gathering.depart();
        gathering.release(8, Duration::from_secs(1));
        assert!(gathering.goes_on(LIMIT - Duration::from_nanos(1)));
        assert!(!gathering.goes_on(LIMIT));
    }

    #[test]
    fn waiting_in_vain_ends_and_is_tried_again_ever_more_rarely() {
        let mut gathering = behind(8);
        let mut waits = Vec::new();
        for sync in 0..200 {
            gathering.arrive();
            waits.extend(gathering.goes_on(NOW).then_some(sync));
            assert_eq!(gathering.depart(), 1);
            gathering.release(8, SYNC);
        }
        assert_eq!(waits, [0, 2, 5, 10, 19, 36, 69, 134, 199]);

        // Once they come again, they are waited for again.
        while !gathering.goes_on(NOW) {
            (0..8).for_each(|_| gathering.arrive());
            gathering.depart();
            gathering.release(8, SYNC);
        }
        (0..8).for_each(|_| gathering.arrive());
        gathering.depart();
        gathering.release(8, SYNC);
        gathering.arrive();
        assert!(gathering.goes_on(NOW));
        gathering.depart();
        gathering.release(8, SYNC);
        gathering.depart();
        gathering.release(8, SYNC);
        assert!(gathering.goes_on(NOW), "one pause of one sync");
    }
}

//! Waiting, before a sync begins, for those whom the last one let go.
//!
//! Threads that append one durable record after the other come back within microseconds of the end of a sync, one by one.
//! The first could sync at once, for itself: then the others wait for that sync and share the next, and each takes part in
//! every other one. If it waits for them for a moment, all share one (`cargo bench --bench durable`).
//!
//! # Invariants
//! - Nothing relies on it: it moves when a sync begins, not what it covers.
//! - Who is alone doesn't wait, but for a moment, once, right behind a sync that others took part in.
//! - The wait ends with the last who is expected, and after a share of what the last sync took, and of a fixed time, at
//!   most. Where it was in vain, the next syncs, twice as many each time, begin at once.
//!
//! # Thread safety
//! Belongs to the lock of those who sync.

use std::time::{Duration, Instant};

/// So long others are waited for, at most.
const LIMIT: Duration = Duration::from_micros(if cfg!(loom) { 0 } else { 200 });

/// So many syncs begin at once, at most, before somebody is waited for again.
const PAUSE_MAX: u32 = 64;

/// Who is expected.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// The number of the group that takes part in the sync that comes next.
    group: u64,
    /// So many are in it.
    arrived: u32,
    /// The last one let so many go.
    released: u32,
    /// Of these, as far as is known, so many haven't come again.
    away: u32,
    /// What the last one took, and when it let them go.
    took: Duration,
    released_at: Option<Instant>,
    /// So many more syncs that others are expected for begin at once.
    pause: u32,
    /// And so many will the next time.
    next_pause: u32,
}

impl Gathering {
    /// Somebody is there who wants a sync, and was in this group before, if in any. Answers in which one they are now.
    pub(super) fn arrive(&mut self, before: Option<u64>) -> u64 {
        if before != Some(self.group) {
            self.arrived += 1;
            // Whose group's sync didn't do comes a second time, and was never away.
            self.away = self.away.saturating_sub(u32::from(before.is_none()));
        }
        self.group
    }

    /// Whether more are waited for, by who began to wait at `began`. Those who don't come back at once have other things
    /// to do.
    pub(super) fn goes_on(&self, began: Instant, now: Instant) -> bool {
        let most = LIMIT.min(self.took / 2);
        self.away > 0
            && self.pause == 0
            && now.saturating_duration_since(began) < most
            && self.released_at.is_some_and(|released| now.saturating_duration_since(released) < self.took)
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
        self.group += 1;
        std::mem::take(&mut self.arrived)
    }

    /// It ended after this time, and let them go.
    pub(super) fn release(&mut self, released: u32, took: Duration, now: Instant) {
        (self.released, self.away, self.took, self.released_at) = (released, released, took, Some(now));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(100);

    /// What is tested, at a time that stands still unless it is said how long somebody waits.
    struct Bench {
        gathering: Gathering,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { gathering: Gathering::default(), now: Instant::now() }
        }

        /// One whose last sync let `group` go.
        fn behind(group: u32) -> Self {
            let mut bench = Self::new();
            bench.arrive(group);
            assert_eq!(bench.gathering.depart(), group);
            bench.release(group, SYNC);
            bench
        }

        fn arrive(&mut self, count: u32) {
            for _ in 0..count {
                self.gathering.arrive(None);
            }
        }

        fn release(&mut self, group: u32, took: Duration) {
            self.gathering.release(group, took, self.now);
        }

        fn goes_on(&self) -> bool {
            self.goes_on_for(Duration::ZERO)
        }

        fn goes_on_for(&self, waited: Duration) -> bool {
            self.gathering.goes_on(self.now, self.now + waited)
        }
    }

    #[test]
    fn who_is_alone_never_waits() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.arrive(1);
            assert!(!bench.goes_on());
            assert_eq!(bench.gathering.depart(), 1);
            bench.release(1, SYNC);
        }
    }

    #[test]
    fn all_are_waited_for_who_were_let_go_and_nobody_else() {
        let mut bench = Bench::behind(8);
        for _ in 0..7 {
            bench.arrive(1);
            assert!(bench.goes_on());
        }
        bench.arrive(1);
        assert!(!bench.goes_on());
        assert_eq!(bench.gathering.depart(), 8);

        // Four arrive while four are at it.
        let mut bench = Bench::behind(4);
        bench.arrive(4);
        assert_eq!(bench.gathering.depart(), 4);
        bench.arrive(4);
        bench.release(4, SYNC);
        assert!(bench.goes_on());
        bench.arrive(4);
        assert_eq!((bench.goes_on(), bench.gathering.depart()), (false, 8));
    }

    #[test]
    fn nobody_waits_longer_than_half_a_sync_or_the_limit() {
        let mut bench = Bench::behind(8);
        bench.arrive(1);
        assert!(bench.goes_on_for(SYNC / 2 - Duration::from_nanos(1)));
        assert!(!bench.goes_on_for(SYNC / 2));
        bench.gathering.depart();
        bench.release(8, Duration::from_secs(1));
        bench.gathering.depart();
        bench.release(8, Duration::from_secs(1));
        assert!(bench.goes_on_for(LIMIT - Duration::from_nanos(1)));
        assert!(!bench.goes_on_for(LIMIT));
    }

    #[test]
    fn who_has_not_come_back_for_as_long_as_a_sync_takes_is_not_expected() {
        let mut bench = Bench::behind(8);
        bench.now += SYNC - Duration::from_nanos(1);
        bench.arrive(1);
        assert!(bench.goes_on());
        bench.now += Duration::from_nanos(1);
        assert!(!bench.goes_on());
    }

    #[test]
    fn each_counts_once_a_group_and_who_was_there_all_the_time_was_never_away() {
        let mut bench = Bench::new();
        let first = bench.gathering.arrive(None);
        assert_eq!(bench.gathering.arrive(Some(first)), first);
        assert_eq!(bench.gathering.depart(), 1);
        // Two more begin to wait meanwhile; the sync doesn't do for the first one.
        bench.arrive(2);
        bench.release(1, SYNC);
        let second = bench.gathering.arrive(Some(first));
        assert_eq!(bench.gathering.arrive(Some(second)), second);
        assert!(second != first && bench.goes_on(), "whoever was let go");
        bench.arrive(1);
        assert!(!bench.goes_on());
        assert_eq!(bench.gathering.depart(), 4);
        // Of one that has failed nobody was let go.
        bench.release(0, SYNC);
        bench.arrive(1);
        assert!(!bench.goes_on());
    }

    #[test]
    fn waiting_in_vain_ends_and_is_tried_again_ever_more_rarely() {
        let mut bench = Bench::behind(8);
        let mut waits = Vec::new();
        for sync in 0..200 {
            bench.arrive(1);
            waits.extend(bench.goes_on().then_some(sync));
            assert_eq!(bench.gathering.depart(), 1);
            bench.release(8, SYNC);
        }
        assert_eq!(waits, [0, 2, 5, 10, 19, 36, 69, 134, 199]);

        // Once they come again, they are waited for again.
        while !bench.goes_on() {
            bench.arrive(8);
            bench.gathering.depart();
            bench.release(8, SYNC);
        }
        bench.arrive(8);
        bench.gathering.depart();
        bench.release(8, SYNC);
        bench.arrive(1);
        assert!(bench.goes_on());
        bench.gathering.depart();
        bench.release(8, SYNC);
        bench.gathering.depart();
        bench.release(8, SYNC);
        assert!(bench.goes_on(), "one pause of one sync");
    }
}

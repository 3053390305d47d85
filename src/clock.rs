//! Time: milliseconds since the Unix epoch, from the system or, in tests, from a hand that sets it.
//!
//! The system's clock may jump; whoever needs times that never fall keeps the greatest seen so far. Whoever deletes what
//! is old asks for the time [by which records expire](Clock::expiry_now_ms), which no jump brings forward.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use parking_lot::Mutex;

/// By how much the time of day must have run ahead of the time that has passed, to count as a leap: drift is less.
const LEAST_LEAP_MS: i64 = 1000;
/// Leaps that are remembered on their own.
const MOST_LEAPS: usize = 32;

/// Those of the system's clock.
static SYSTEM_LEAPS: Mutex<Leaps> = Mutex::new(Leaps::new());

/// A source of the time of day. Cheap to clone; any thread may ask it.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    /// The system's real-time clock.
    #[default]
    System,
    /// A clock that moves only when it is told to.
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests set the time"))]
    Manual(Arc<AtomicI64>),
    /// A clock that is set apart from the time that passes.
    #[cfg(test)]
    Apart(Arc<Apart>),
}

/// What a test says that a clock shows.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Apart {
    pub(crate) now_ms: AtomicI64,
    pub(crate) passed_ms: AtomicI64,
    leaps: Mutex<Leaps>,
}

impl Clock {
    /// Milliseconds since the Unix epoch; negative before it.
    pub(crate) fn now_ms(&self) -> i64 {
        match self {
            Self::System => system_now_ms(),
            Self::Manual(now) => now.load(Ordering::Relaxed),
            #[cfg(test)]
            Self::Apart(hands) => hands.now_ms.load(Ordering::Relaxed),
        }
    }

    /// The time of day by which records expire that are kept for so long: behind [`now_ms`](Clock::now_ms) by what that
    /// has leapt ahead within that time. So none is deleted before it is as old as that, if all leaps happened while
    /// somebody asked for this time now and then.
    pub(crate) fn expiry_now_ms(&self, age_ms: u64) -> i64 {
        let leaps = match self {
            Self::System => &SYSTEM_LEAPS,
            // Its time passes as it is set.
            Self::Manual(_) => return self.now_ms(),
            #[cfg(test)]
            Self::Apart(hands) => &hands.leaps,
        };
        // The clocks are read inside: who waited for the lock with one of them would see a leap.
        let mut leaps = leaps.lock();
        let (now_ms, passed_ms) = (self.now_ms(), self.passed_ms());
        leaps.look(now_ms, passed_ms);
        now_ms.saturating_sub(leaps.within(age_ms, passed_ms))
    }

    /// Milliseconds that have passed since some moment, whatever was done to the time of day.
    fn passed_ms(&self) -> i64 {
        match self {
            Self::System => system_passed_ms(),
            Self::Manual(now) => now.load(Ordering::Relaxed),
            #[cfg(test)]
            Self::Apart(hands) => hands.passed_ms.load(Ordering::Relaxed),
        }
    }
}

/// Each append asks for it: on its own, the call takes two thirds of what the standard library makes of it.
#[cfg(unix)]
fn system_now_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    #[allow(clippy::useless_conversion, reason = "32 bits on some systems")]
    let milliseconds = i64::from(now.tv_nsec) / 1_000_000;
    now.tv_sec.saturating_mul(1000).saturating_add(milliseconds)
}

#[cfg(not(unix))]
fn system_now_ms() -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// On Linux also those in which the machine slept; elsewhere waking up may look like a leap, and then records stay longer.
fn system_passed_ms() -> i64 {
    #[cfg(target_os = "linux")]
    {
        let passed = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        passed.tv_sec.saturating_mul(1000).saturating_add(passed.tv_nsec / 1_000_000)
    }
    #[cfg(not(target_os = "linux"))]
    {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        let passed = START.get_or_init(std::time::Instant::now).elapsed();
        i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)
    }
}

/// When the time of day was set ahead, and by how much.
///
/// A record that was appended before a leap looks older by it, until it is really as old as it has to become: then the
/// leap is longer ago than that, and doesn't matter. To a record that was appended later it makes no difference, as
/// that can't expire sooner. A clock that is set back is no leap: nothing looks older for it. If it is set right again,
/// that is one, and what was appended since then is kept as it should.
#[derive(Debug, Default)]
struct Leaps {
    /// Time of day and time passed, at the last look.
    last: Option<(i64, i64)>,
    /// The time passed when it was seen, and by how much; in the order of time.
    leaps: Vec<(i64, i64)>,
}

impl Leaps {
    const fn new() -> Self {
        Self { last: None, leaps: Vec::new() }
    }

    /// Compares the clocks.
    fn look(&mut self, now_ms: i64, passed_ms: i64) {
        if let Some((last_now_ms, last_passed_ms)) = self.last {
            let leap = now_ms.saturating_sub(last_now_ms).saturating_sub(passed_ms.saturating_sub(last_passed_ms));
            if leap >= LEAST_LEAP_MS {
                self.leaps.push((passed_ms, leap));
            }
        }
        self.last = Some((now_ms, passed_ms));
        if self.leaps.len() > MOST_LEAPS {
            // As if both were as late as the second one: nothing goes earlier for that.
            let (_, first) = self.leaps.remove(0);
            self.leaps[0].1 = self.leaps[0].1.saturating_add(first);
        }
    }

    /// The sum of those that were seen no longer ago.
    fn within(&self, age_ms: u64, passed_ms: i64) -> i64 {
        let recent = self.leaps.iter().rev().take_while(|(seen_ms, _)| passed_ms.abs_diff(*seen_ms) <= age_ms);
        recent.fold(0, |sum, (_, leap)| sum.saturating_add(*leap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_it_is_set() {
        let now = Arc::new(AtomicI64::new(5));
        let clock = Clock::Manual(now.clone());
        assert_eq!(clock.now_ms(), 5);
        now.store(-7, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), -7);
    }

    /// A clock with hands of its own, set by `now` and `passed`.
    fn apart() -> (Arc<Apart>, Clock) {
        let hands = Arc::new(Apart::default());
        (hands.clone(), Clock::Apart(hands))
    }

    fn set(hands: &Apart, now_ms: i64, passed_ms: i64) {
        hands.now_ms.store(now_ms, Ordering::Relaxed);
        hands.passed_ms.store(passed_ms, Ordering::Relaxed);
    }

    #[test]
    fn a_leap_ahead_counts_once_it_is_as_long_ago_as_records_are_kept() {
        let (hands, clock) = apart();
        set(&hands, 5_000, 100);
        assert_eq!(clock.expiry_now_ms(50_000), 5_000);
        set(&hands, 1_000_000, 10_100);
        // Ten seconds have passed, whatever the clock says.
        assert_eq!((clock.now_ms(), clock.expiry_now_ms(50_000)), (1_000_000, 15_000));
        set(&hands, 1_050_000, 60_100);
        assert_eq!((clock.expiry_now_ms(50_000), clock.expiry_now_ms(49_999)), (65_000, 1_050_000));
        set(&hands, 1_050_001, 60_101);
        assert_eq!(clock.expiry_now_ms(50_000), 1_050_001);
    }

    #[test]
    fn setting_a_clock_back_is_no_leap_and_setting_it_right_is_one() {
        let (hands, clock) = apart();
        set(&hands, 100_000, 0);
        assert_eq!(clock.expiry_now_ms(1_000_000), 100_000);
        set(&hands, 50_000, 1_000);
        assert_eq!(clock.expiry_now_ms(1_000_000), 50_000);
        set(&hands, 102_000, 2_000);
        assert_eq!(clock.expiry_now_ms(1_000_000), 51_000);
        // Drift isn't one.
        set(&hands, 103_999, 3_000);
        assert_eq!(clock.expiry_now_ms(1_000_000), 52_999);
    }

    #[test]
    fn of_many_leaps_none_is_forgotten() {
        let (hands, clock) = apart();
        set(&hands, 0, 0);
        assert_eq!(clock.expiry_now_ms(1_000), 0);
        for leap in 1..=100 {
            set(&hands, leap * 10_000, leap);
            assert_eq!(clock.expiry_now_ms(1_000), leap);
        }
        // Extremes are no reason to fall over.
        for (now_ms, passed_ms) in [(i64::MAX, 200), (i64::MIN, 300), (i64::MAX, 400), (0, i64::MAX)] {
            set(&hands, now_ms, passed_ms);
            assert!(clock.expiry_now_ms(1_000) <= now_ms);
        }
    }

    #[test]
    fn the_system_clock_does_not_leap_while_nobody_sets_it() {
        let before = Clock::System.now_ms();
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(system_passed_ms() >= 30 - 15);
        assert!(Clock::System.expiry_now_ms(u64::MAX) >= before + 30 - 15 || Clock::System.now_ms() < before);
    }

    #[test]
    fn the_system_clock_is_later_than_this_line_was_written() {
        assert!(Clock::System.now_ms() > 1_760_000_000_000);
    }
}

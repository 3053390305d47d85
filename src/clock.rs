//! Time: milliseconds since the Unix epoch, from the system or, in tests, from a hand that sets it.
//!
//! The system's clock may jump; whoever needs times that never fall keeps the greatest seen so far.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// A source of the time of day. Cheap to clone; any thread may ask it.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    /// The system's real-time clock.
    #[default]
    System,
    /// A clock that moves only when it is told to.
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests set the time"))]
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Milliseconds since the Unix epoch; negative before it.
    pub(crate) fn now_ms(&self) -> i64 {
        match self {
            Self::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
                Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
            },
            Self::Manual(now) => now.load(Ordering::Relaxed),
        }
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

    #[test]
    fn the_system_clock_is_later_than_this_line_was_written() {
        assert!(Clock::System.now_ms() > 1_760_000_000_000);
    }
}

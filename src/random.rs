//! Random ids, from the system's generator; or, where a test wants to run the same way twice, from a seeded one.
//!
//! # Thread safety
//! Any thread may call anything. A seeded generator is its thread's own.

use std::io;

/// A random number.
pub(crate) fn u64() -> io::Result<u64> {
    #[cfg(any(test, fuzzing))]
    if let Some(drawn) = seeded::draw() {
        return Ok(drawn);
    }
    getrandom::u64().map_err(io::Error::other)
}

/// A random number.
pub(crate) fn u128() -> io::Result<u128> {
    Ok((u128::from(u64()?) << 64) | u128::from(u64()?))
}

#[cfg(any(test, fuzzing))]
pub(crate) use seeded::{Sequence, seed};

/// For tests: numbers that come the same way each time.
#[cfg(any(test, fuzzing))]
mod seeded {
    use std::cell::RefCell;

    use crate::mix::split_mix64;

    thread_local! {
        static SEQUENCE: RefCell<Option<Sequence>> = const { RefCell::new(None) };
    }

    /// Has this thread's ids come from a sequence, until `None` is given.
    pub(crate) fn seed(sequence: Option<Sequence>) -> Option<Sequence> {
        SEQUENCE.replace(sequence)
    }

    pub(super) fn draw() -> Option<u64> {
        SEQUENCE.with_borrow_mut(|sequence| sequence.as_mut().map(Sequence::next))
    }

    /// A generator of numbers: SplitMix64.
    #[derive(Debug, Clone)]
    pub(crate) struct Sequence {
        seed: u64,
        drawn: u64,
    }

    impl Sequence {
        pub(crate) fn new(seed: u64) -> Self {
            Self { seed, drawn: 0 }
        }

        /// The next number.
        pub(crate) fn next(&mut self) -> u64 {
            self.drawn += 1;
            split_mix64(self.seed, self.drawn - 1)
        }

        /// A number below `bound`, which is above zero.
        pub(crate) fn below(&mut self, bound: u64) -> u64 {
            ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
        }
    }

    #[cfg(test)]
    mod tests {
        use crate::random::{Sequence, seed};

        #[test]
        fn a_seeded_thread_draws_the_same_ids_twice() {
            let draw = || {
                seed(Some(Sequence::new(7)));
                let drawn = [crate::random::u64().unwrap(), crate::random::u64().unwrap()];
                seed(None);
                drawn
            };
            let first = draw();
            assert_eq!(first, draw());
            assert_ne!(first[0], first[1]);
            assert_ne!(crate::random::u64().unwrap(), first[0]);
        }

        #[test]
        fn numbers_below_a_bound_reach_all_of_it() {
            let mut sequence = Sequence::new(1);
            let mut counts = [0; 5];
            (0..5000).for_each(|_| counts[sequence.below(5) as usize] += 1);
            assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        }
    }
}

//! How a power cut decides: for each thing that isn't durable, which of its versions is there afterwards.
//!
//! Where each is drawn on its own, what breaks a recovery seldom comes: that all is lost but one sector, or that one is
//! missing in the middle. So a cut follows a pattern as a whole.
//!
//! # Thread safety
//! Plain data.

use crate::random::Sequence;

/// What becomes of a number of things in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern {
    kind: Kind,
    /// The thing that is treated apart, or from which on all are.
    at: u64,
    /// The thing that is asked for next.
    next: u64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    AllOld,
    AllNew,
    AllOldButOne,
    AllNewButOne,
    /// New before a place, old from it on.
    Prefix,
    /// Old before a place, new from it on.
    Suffix,
    /// The oldest or the newest, for each on its own.
    Flips,
    /// Any version, for each on its own.
    Any,
}

const KINDS: [Kind; 8] = [
    Kind::AllOld,
    Kind::AllNew,
    Kind::AllOldButOne,
    Kind::AllNewButOne,
    Kind::Prefix,
    Kind::Suffix,
    Kind::Flips,
    Kind::Any,
];

impl Pattern {
    /// For so many things.
    pub(super) fn draw(things: u64, choices: &mut Sequence) -> Self {
        let kind = KINDS[choices.below(KINDS.len() as u64) as usize];
        Self { kind, at: choices.below(things.max(1)), next: 0 }
    }

    /// Which of its versions, counted from the oldest, the next thing has. There are two or more.
    pub(super) fn pick(&mut self, versions: usize, choices: &mut Sequence) -> usize {
        let (number, last) = (self.next, versions - 1);
        self.next += 1;
        let mut below = |bound: usize| choices.below(bound as u64) as usize;
        match self.kind {
            Kind::AllOld => 0,
            Kind::AllNew => last,
            Kind::AllOldButOne if number == self.at => 1 + below(last),
            Kind::AllOldButOne => 0,
            Kind::AllNewButOne if number == self.at => below(last),
            Kind::AllNewButOne => last,
            // The one at the place may be anything.
            Kind::Prefix | Kind::Suffix if number == self.at => below(versions),
            Kind::Prefix => {
                if number < self.at {
                    last
                } else {
                    0
                }
            }
            Kind::Suffix => {
                if number < self.at {
                    0
                } else {
                    last
                }
            }
            Kind::Flips => last * below(2),
            Kind::Any => below(versions),
        }
    }
}

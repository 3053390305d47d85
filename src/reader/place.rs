//! A place to read on from, in one partition.
//!
//! # Invariants
//! - The position moves by reading, by who asks for it, and by a policy that says so; then it is told.
//! - A place that is paused hands nothing out and keeps its position.

use std::sync::Arc;

use super::policy::Policies;
use crate::{
    config::Start,
    error::{ErrorKind, Result},
    figures::ReadFigures,
    partition::{Cursor, PartitionLog, Run, Skipped},
};

/// How often a position that retention takes away just when it is taken is looked up again.
const MOVES: u32 = 16;

/// A place to read on from that may lie outside the log: then every attempt to read is an error.
#[derive(Debug)]
pub(crate) struct Place {
    partition: Arc<PartitionLog>,
    position: Position,
    /// Where damage was passed over, until a record comes.
    passed_to: Option<u64>,
    paused: bool,
    figures: ReadFigures,
}

#[derive(Debug)]
enum Position {
    Inside(Cursor),
    Outside(u64),
}

/// How much is read at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// About; one frame at least.
    pub(crate) bytes: usize,
    /// Exactly; one at least.
    pub(crate) records: u64,
}

/// What a place gives next.
#[derive(Debug)]
pub(super) enum Step {
    End,
    Records(Run),
    Skipped(Skipped),
}

impl Place {
    /// At `offset`, wherever that is.
    pub(crate) fn new(partition: &Arc<PartitionLog>, offset: u64) -> Self {
        let position = Cursor::new(partition, offset).map_or(Position::Outside(offset), Position::Inside);
        Self::with(partition, position)
    }

    fn with(partition: &Arc<PartitionLog>, position: Position) -> Self {
        Self { partition: partition.clone(), position, passed_to: None, paused: false, figures: ReadFigures::default() }
    }

    /// Where `start` is in the partition; kind `OffsetOutOfRange`.
    pub(crate) fn at(partition: &Arc<PartitionLog>, start: Start) -> Result<Self> {
        let mut place = Self::with(partition, Position::Outside(partition.start_offset()));
        place.seek_start(start)?;
        Ok(place)
    }

    /// The same, with what it gives counted.
    pub(crate) fn counted(self, figures: ReadFigures) -> Self {
        Self { figures, ..self }
    }

    pub(super) fn count(&self, run: &Run) {
        self.figures.read(run.records(), run.bytes() as u64);
    }

    pub(crate) fn partition(&self) -> &Arc<PartitionLog> {
        &self.partition
    }

    /// The offset of the next record to hand out, or less where offsets have a gap.
    pub(crate) fn position(&self) -> u64 {
        match &self.position {
            Position::Inside(cursor) => cursor.position(),
            Position::Outside(offset) => *offset,
        }
    }

    /// Whether the position is in the log, as far as is known.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.position, Position::Inside(_))
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Goes to `offset`; kind `OffsetOutOfRange`, and the position stays.
    pub(crate) fn seek(&mut self, offset: u64) -> Result<()> {
        match &mut self.position {
            Position::Inside(cursor) => cursor.seek(offset)?,
            Position::Outside(_) => self.position = Position::Inside(Cursor::new(&self.partition, offset)?),
        }
        self.passed_to = None;
        Ok(())
    }

    /// Goes to `offset`, wherever that is.
    pub(crate) fn restart(&mut self, offset: u64) {
        let figures = std::mem::take(&mut self.figures);
        *self = Self { paused: self.paused, figures, ..Self::new(&self.partition, offset) };
    }

    /// Goes where `start` is.
    pub(crate) fn seek_start(&mut self, start: Start) -> Result<()> {
        let mut moved = self.seek(resolve(&self.partition, start)?);
        for _ in 0..MOVES {
            match (&moved, start) {
                // Retention removed it between looking it up and going there.
                (Err(error), Start::Earliest | Start::Time(_)) if error.kind() == ErrorKind::OffsetOutOfRange => {
                    moved = self.seek(resolve(&self.partition, start)?);
                }
                _ => break,
            }
        }
        moved
    }

    /// Whether there is nothing to read, nor an error to tell.
    pub(crate) fn at_end(&self) -> bool {
        matches!(&self.position, Position::Inside(cursor) if cursor.at_end())
    }

    /// The next frames; see [`Cursor::next_run_of`].
    pub(super) fn next_run(&mut self, bounds: Bounds) -> Result<Option<Run>> {
        if let Position::Outside(offset) = self.position {
            self.position = Position::Inside(Cursor::new(&self.partition, offset)?);
        }
        match &mut self.position {
            Position::Inside(cursor) => cursor.next_run_of(bounds.bytes, bounds.records),
            Position::Outside(_) => Ok(None), // was just replaced
        }
    }

    /// The next frames, or what a policy passed over to get to them.
    pub(super) fn step(&mut self, bounds: Bounds, policies: Policies) -> Result<Step> {
        let error = match self.next_run(bounds) {
            Ok(None) => return Ok(Step::End),
            Ok(Some(run)) => {
                self.passed_to = None;
                return Ok(Step::Records(run));
            }
            Err(error) => error,
        };
        let position = self.position();
        match policies.resume(&error) {
            // The same damage again: passing it over didn't help, so nothing does.
            Some(Start::Offset(offset)) if offset <= position && self.passed_to == Some(offset) => Err(error),
            Some(start) => {
                // What lies behind the damage can be gone meanwhile.
                self.seek_start(start).or_else(|gone| match policies.resume(&gone) {
                    Some(start) => self.seek_start(start),
                    None => Err(gone),
                })?;
                self.passed_to = Some(self.position());
                let skipped = Skipped::new(self.partition.spec(), position..self.position(), error);
                Ok(Step::Skipped(skipped))
            }
            None => Err(error),
        }
    }
}

impl AsMut<Place> for Place {
    fn as_mut(&mut self) -> &mut Place {
        self
    }
}

/// The offset that `start` means in a partition.
pub(crate) fn resolve(partition: &Arc<PartitionLog>, start: Start) -> Result<u64> {
    Ok(match start {
        Start::Earliest => partition.start_offset(),
        Start::Latest => partition.end_offset(),
        Start::Offset(offset) => offset,
        Start::Time(time_ms) => {
            // Looked up first, so that what is appended meanwhile isn't skipped.
            let end_offset = partition.end_offset();
            partition.offset_for_time(time_ms)?.unwrap_or(end_offset)
        }
    })
}

/// Moves all places to where the time is in their partitions; none of them if that can't be told for one.
pub(crate) fn seek_to_time<P: AsMut<Place>>(places: &mut [P], time_ms: i64) -> Result<()> {
    let found = places.iter_mut().map(|place| Place::at(place.as_mut().partition(), Start::Time(time_ms)));
    let found = found.collect::<Result<Vec<_>>>()?;
    for (place, found) in places.iter_mut().map(AsMut::as_mut).zip(found) {
        *place = Place { paused: place.paused, ..found };
    }
    Ok(())
}

//! What a child says: messages of one length, over its standard output.

use tidelog::Opening;

use super::plan::{Place, RecordId};

/// Bytes of a message: four words.
pub(crate) const MESSAGE_BYTES: usize = 32;
/// What a pipe takes in one piece.
pub(crate) const PIPE_BYTES: usize = 4096;
/// Bytes of an error's kind that are told.
const KIND_BYTES: usize = MESSAGE_BYTES - 8;

/// What a child says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// The log is open, and whatever comes now is work.
    Ready,
    /// This partition was opened so, and ends there.
    Opened(Place, How, u64),
    /// The group was found with this committed offset.
    Committed(Place, Option<u64>),
    /// An append of this record returned.
    Appended(Place, u64, RecordId),
    /// Records below this offset are on the device.
    Durable(Place, u64),
    /// Everything that was told before this is about to be flushed.
    WillFlush,
    /// It is on the device.
    DidFlush,
    /// A commit of this offset, which `poll` had reached, is about to be made.
    WillCommit(Place, u64),
    /// It returned. The last word: and is on the device.
    DidCommit(Place, u64, bool),
    /// Records below this offset are about to be deleted.
    WillDelete(Place, u64),
    /// The log start offset was seen here.
    Starts(Place, u64),
    /// The creation of a topic returned.
    MadeTopic(u64),
    /// The topic that comes and goes is about to be created with this number, which no other one has.
    WillCreateScratch(u64),
    /// It was created.
    DidCreateScratch(u64),
    /// An append to it returned: its number, that of the record in it, the offset, and whether it is on the device.
    AppendedScratch { incarnation: u64, number: u64, offset: u64, durable: bool },
    /// It is about to be deleted.
    WillDeleteScratch,
    /// It was deleted.
    DidDeleteScratch,
    /// The log was closed; it may be opened again.
    DidClose,
    /// Something failed with an error of this kind; the rest is waiting for the end.
    Failed([u8; KIND_BYTES]),
}

/// What told where a partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Created,
    Clean,
    Resumed,
    Scanned,
}

impl How {
    pub(crate) fn of(opening: Opening) -> Self {
        match opening {
            Opening::Created => Self::Created,
            Opening::Clean => Self::Clean,
            Opening::Resumed => Self::Resumed,
            Opening::Scanned => Self::Scanned,
            other => panic!("an opening that this test doesn't know: {other:?}"),
        }
    }
}

impl Message {
    pub(crate) fn failed(kind: &str) -> Self {
        let mut bytes = [b' '; KIND_BYTES];
        bytes.iter_mut().zip(kind.bytes()).for_each(|(byte, letter)| *byte = letter);
        Self::Failed(bytes)
    }

    pub(crate) fn encode(self) -> [u8; MESSAGE_BYTES] {
        let at = |place: Place| (place.topic as u64) << 32 | u64::from(place.partition);
        let words = match self {
            Self::Ready => [1, 0, 0, 0],
            Self::Opened(place, how, end) => [2, at(place), how as u64, end],
            Self::Committed(place, None) => [3, at(place), 0, 0],
            Self::Committed(place, Some(offset)) => [3, at(place), 1, offset],
            Self::Appended(place, offset, id) => [4, at(place), offset, id.to_word()],
            Self::Durable(place, below) => [5, at(place), below, 0],
            Self::WillFlush => [6, 0, 0, 0],
            Self::DidFlush => [7, 0, 0, 0],
            Self::WillCommit(place, offset) => [8, at(place), offset, 0],
            Self::DidCommit(place, offset, durable) => [9, at(place), offset, durable.into()],
            Self::WillDelete(place, before) => [10, at(place), before, 0],
            Self::Starts(place, offset) => [11, at(place), offset, 0],
            Self::MadeTopic(number) => [12, number, 0, 0],
            Self::WillCreateScratch(incarnation) => [13, incarnation, 0, 0],
            Self::DidCreateScratch(incarnation) => [14, incarnation, 0, 0],
            Self::AppendedScratch { incarnation, number, offset, durable } => {
                [15, incarnation, number << 1 | u64::from(durable), offset]
            }
            Self::WillDeleteScratch => [16, 0, 0, 0],
            Self::DidDeleteScratch => [17, 0, 0, 0],
            Self::DidClose => [18, 0, 0, 0],
            Self::Failed(kind) => {
                let word = |at: usize| u64::from_le_bytes(kind[at * 8..at * 8 + 8].try_into().unwrap());
                [19, word(0), word(1), word(2)]
            }
        };
        let mut bytes = [0; MESSAGE_BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; MESSAGE_BYTES]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
        let place = Place { topic: (word(1) >> 32) as usize, partition: word(1) as u32 };
        match word(0) {
            1 => Self::Ready,
            2 => {
                let how = [How::Created, How::Clean, How::Resumed, How::Scanned][word(2) as usize];
                Self::Opened(place, how, word(3))
            }
            3 => Self::Committed(place, (word(2) == 1).then(|| word(3))),
            4 => Self::Appended(place, word(2), RecordId::from_word(word(3))),
            5 => Self::Durable(place, word(2)),
            6 => Self::WillFlush,
            7 => Self::DidFlush,
            8 => Self::WillCommit(place, word(2)),
            9 => Self::DidCommit(place, word(2), word(3) == 1),
            10 => Self::WillDelete(place, word(2)),
            11 => Self::Starts(place, word(2)),
            12 => Self::MadeTopic(word(1)),
            13 => Self::WillCreateScratch(word(1)),
            14 => Self::DidCreateScratch(word(1)),
            15 => Self::AppendedScratch {
                incarnation: word(1),
                number: word(2) >> 1,
                offset: word(3),
                durable: word(2) & 1 == 1,
            },
            16 => Self::WillDeleteScratch,
            17 => Self::DidDeleteScratch,
            18 => Self::DidClose,
            19 => Self::Failed(bytes[8..].try_into().unwrap()),
            other => panic!("no message has the number {other}"),
        }
    }
}

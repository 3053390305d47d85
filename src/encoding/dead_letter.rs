//! Dead letters: records that can't be dealt with, kept aside with what was wrong with them.
//!
//! [`RecordRef::dead_letter`] makes one of a record that was read. The headers that it adds are named here; numbers in
//! them are decimal text.
//!
//! ```
//! use std::time::Duration;
//! # use serde::{Deserialize, Serialize};
//! use tidelog::{Json, Log, Record, Start, TopicConfig, dead_letter};
//! # #[derive(Serialize, Deserialize)]
//! # struct Order { pence: u64 }
//! # fn bill(_: Order) {}
//!
//! # fn main() -> tidelog::Result<()> {
//! # let log = Log::options().in_memory().open("shop")?;
//! # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
//! # orders.append_batch([r#"{"pence":250}"#, "tea, please", r#"{"pence":120}"#].map(Record::new))?;
//! let dead_letters = log.ensure_topic("orders.dead-letters", TopicConfig::with_partitions(1))?;
//! let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open()?;
//! for (record, order) in consumer.poll(Duration::from_secs(1))?.typed::<Order>(&Json) {
//!     match order {
//!         Ok(Some(order)) => bill(order),
//!         Ok(None) => {} // a tombstone: nothing to bill
//!         Err(error) => {
//!             dead_letters.append(record.dead_letter(error))?;
//!         }
//!     }
//! }
//! consumer.commit()?; // behind all of them: the dead letter is kept, and its order doesn't come again
//!
//! for record in dead_letters.partition(0)?.read_from(0)? {
//!     let record = record?;
//!     println!("{:?}: {:?}", record.value_str()?, record.header_str(dead_letter::REASON)?);
//!     assert_eq!(record.value_str()?, Some("tea, please"));
//!     assert_eq!(record.header_str(dead_letter::TOPIC)?, Some("orders"));
//!     assert_eq!(record.header_str(dead_letter::OFFSET)?, Some("1"));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A consumer that is killed between the append and the commit appends the dead letter again, so there may be two of
//! one record: partition and offset tell.
//!
//! # Putting them back
//! When what was wrong is mended, append the record again, from a [`Record`] that is made of the dead letter. It keeps
//! its headers, so if it becomes a dead letter again, that says where it was at first;
//! [`Record::without_header`] takes them away.
//!
//! ```
//! # use tidelog::{Json, Log, Record, TopicConfig, dead_letter};
//! # fn main() -> tidelog::Result<()> {
//! # let log = Log::options().in_memory().open("shop")?;
//! # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
//! # let dead_letters = log.ensure_topic("orders.dead-letters", TopicConfig::with_partitions(1))?;
//! # let at = orders.append(Record::new("tea, please"))?;
//! # let first = orders.partition(0)?.read_from(0)?.next().expect("one")?;
//! # dead_letters.append(first.dead_letter("no JSON"))?;
//! for letter in dead_letters.partition(0)?.read_from(0)? {
//!     let letter = letter?;
//!     if let Some(topic) = letter.header_str(dead_letter::TOPIC)? {
//!         log.topic(topic)?.append(Record::from(&letter))?;
//!     }
//! }
//! # assert_eq!(orders.partition(0)?.read_from(at.offset + 1)?.next().expect("two")?.value_str()?, Some("tea, please"));
//! # Ok(())
//! # }
//! ```
//!
//! # Thread safety
//! Plain values.

use std::{borrow::Cow, fmt};

use crate::record::{OwnedRecord, Record, RecordRef};

/// The name of the topic that the record was read from.
pub const TOPIC: &str = "tidelog.dead-letter.topic";

/// The number of its partition.
pub const PARTITION: &str = "tidelog.dead-letter.partition";

/// Its offset there.
pub const OFFSET: &str = "tidelog.dead-letter.offset";

/// Its [timestamp](RecordRef::timestamp_ms), in milliseconds since the Unix epoch.
pub const TIMESTAMP_MS: &str = "tidelog.dead-letter.timestamp-ms";

/// What was wrong with it, in words: 1,024 bytes at most, the rest is cut off.
pub const REASON: &str = "tidelog.dead-letter.reason";

/// What says where a record was first.
const PLACE: [&str; 4] = [TOPIC, PARTITION, OFFSET, TIMESTAMP_MS];

/// The longest reason. Some errors repeat what they complain of, which may be the whole record.
const MAX_REASON_BYTES: usize = 1_024;

/// Stands at the end of a reason that was cut off.
const CUT: &str = "…";

impl<'a> RecordRef<'a> {
    /// A record to append to a topic of dead letters: key, value, headers and the client's time are this record's, and
    /// headers say where it was ([`TOPIC`], [`PARTITION`], [`OFFSET`], [`TIMESTAMP_MS`]) and why it is no longer there
    /// ([`REASON`]). See [there](crate::dead_letter) for a consumer that does it.
    ///
    /// The dead letter of a dead letter says where the record was first, and the latest reason.
    ///
    /// It is up to 1,600 bytes larger than the record. Where records come near to the limit of their topic
    /// ([`TopicConfig::max_record_bytes`](crate::TopicConfig::max_record_bytes)), give the topic of dead letters a
    /// higher one.
    pub fn dead_letter(&self, reason: impl fmt::Display) -> Record<'a> {
        let mut record = PLACE.into_iter().chain([REASON]).fold(Record::from(self), Record::without_header);
        for (name, value) in PLACE.into_iter().zip(self.first_place()) {
            record = record.header(name, value);
        }
        record.header(REASON, shortened(reason.to_string()))
    }

    /// What the headers in [`PLACE`] are to say: if this is a dead letter, what they say in it.
    fn first_place(&self) -> [Cow<'a, [u8]>; 4] {
        if let [Some(Some(topic)), Some(Some(partition)), Some(Some(offset)), Some(Some(time))] =
            PLACE.map(|name| self.header(name))
        {
            return [topic, partition, offset, time].map(Cow::Borrowed);
        }
        let number = |number: String| Cow::Owned(number.into_bytes());
        [
            Cow::Borrowed(self.topic().as_bytes()),
            number(self.partition().to_string()),
            number(self.offset().to_string()),
            number(self.timestamp_ms().to_string()),
        ]
    }
}

impl OwnedRecord {
    /// A record to append to a topic of dead letters: see [`RecordRef::dead_letter`].
    pub fn dead_letter(&self, reason: impl fmt::Display) -> Record<'_> {
        self.as_record_ref().dead_letter(reason)
    }
}

/// At most [`MAX_REASON_BYTES`] of it, in whole characters.
fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON_BYTES {
        let mut end = MAX_REASON_BYTES - CUT.len();
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        reason.push_str(CUT);
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        for length in 0..8 {
            let text = format!("{}{}", "x".repeat(length), "ü".repeat(600));
            let short = shortened(text.clone());
            let kept = short.strip_suffix(CUT).unwrap();
            assert!(text.starts_with(kept));
            assert!((MAX_REASON_BYTES - 1..=MAX_REASON_BYTES).contains(&short.len()));
        }
        let fits = "x".repeat(MAX_REASON_BYTES);
        assert_eq!(shortened(fits.clone()), fits);
    }
}

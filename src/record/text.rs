//! Keys, values and headers as text.
//!
//! # Invariants
//! Nothing is replaced or left out: bytes that aren't UTF-8 are an error that tells the record's place.
//!
//! # Thread safety
//! Plain values.

use std::str::Utf8Error;

use super::{OwnedRecord, RecordRef};
use crate::error::{Repr, Result};

/// Which part of a record isn't text.
#[derive(Debug, thiserror::Error)]
#[error("{part} isn't UTF-8: {source}")]
struct NotText {
    part: String,
    source: Utf8Error,
}

impl<'a> RecordRef<'a> {
    /// The key as text; `None` if it is null.
    ///
    /// # Errors
    /// [`Undecodable`](crate::ErrorKind::Undecodable) if it isn't UTF-8, with the record's topic, partition and offset.
    pub fn key_str(&self) -> Result<Option<&'a str>> {
        self.text(self.key(), || "the key".into())
    }

    /// The value as text; `None` if it is null.
    ///
    /// ```
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
    /// orders.append(Record::new("tea").key("customer-42"))?;
    /// orders.append(Record::tombstone("customer-42"))?;
    /// for record in orders.partition(0)?.read_from(0)? {
    ///     let record = record?;
    ///     println!("{}: {}", record.key_str()?.unwrap_or("-"), record.value_str()?.unwrap_or("(forget it)"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Undecodable`](crate::ErrorKind::Undecodable) if it isn't UTF-8, with the record's topic, partition and offset.
    pub fn value_str(&self) -> Result<Option<&'a str>> {
        self.text(self.value(), || "the value".into())
    }

    /// The value of the *last* header of that name as text; `None` if it is null, or if there is no such header (which
    /// [`header`](RecordRef::header) tells apart).
    ///
    /// # Errors
    /// [`Undecodable`](crate::ErrorKind::Undecodable) if it isn't UTF-8, with the record's topic, partition and offset.
    pub fn header_str(&self, name: &str) -> Result<Option<&'a str>> {
        self.text(self.header(name).flatten(), || format!("the header {name:?}"))
    }

    fn text(&self, bytes: Option<&'a [u8]>, part: impl FnOnce() -> String) -> Result<Option<&'a str>> {
        bytes.map(std::str::from_utf8).transpose().map_err(|source| {
            let (topic, partition, offset) = (self.topic().to_owned(), self.partition(), self.offset());
            Repr::Undecodable { topic, partition, offset, source: Box::new(NotText { part: part(), source }) }.into()
        })
    }
}

impl OwnedRecord {
    /// The key as text: see [`RecordRef::key_str`].
    ///
    /// # Errors
    /// [`Undecodable`](crate::ErrorKind::Undecodable).
    pub fn key_str(&self) -> Result<Option<&str>> {
        self.as_record_ref().key_str()
    }

    /// The value as text: see [`RecordRef::value_str`].
    ///
    /// # Errors
    /// [`Undecodable`](crate::ErrorKind::Undecodable).
    pub fn value_str(&self) -> Result<Option<&str>> {
        self.as_record_ref().value_str()
    }

    /// The value of the *last* header of that name as text: see [`RecordRef::header_str`].
    ///
    /// # Errors
    /// [`Undecodable`](crate::ErrorKind::Undecodable).
    pub fn header_str(&self, name: &str) -> Result<Option<&str>> {
        self.as_record_ref().header_str(name)
    }
}

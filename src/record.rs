//! Records: what is appended ([`Record`]), what is read in place ([`RecordRef`]), what is kept ([`OwnedRecord`]).
//!
//! # Format
//! A record's place in a frame is in `frame`; here is the headers block, which records carry around as it lies in the
//! file, repeated until its end: `u16` name length, length word of the value, name (UTF-8), value.
//!
//! # Invariants
//! - Null and empty are different, for keys, values and header values. Headers keep their order and may repeat names.
//! - The read side borrows: walking records and headers allocates nothing, whatever the bytes are.
//!
//! # Thread safety
//! Plain values, `Send` and `Sync`.

mod text;

use std::{borrow::Cow, fmt, sync::Arc};

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    codec::{self, Reader},
    storage::Store,
};

/// Bytes before the name of a header in a headers block: name length and length word of the value.
const HEADER_PREFIX_BYTES: usize = size_of::<u16>() + size_of::<u32>();

/// The longest name of a header, in bytes.
pub(crate) const MAX_HEADER_NAME_BYTES: usize = u16::MAX as usize;

/// The bytes of a key, a value or a header's value, borrowed or owned.
///
/// Made from strings and bytes without copying them; a [`Record`]'s methods take anything that converts into it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload<'a>(Cow<'a, [u8]>);

impl Payload<'_> {
    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Payload<'_> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text(Some(&self.0)).fmt(f)
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }
}

impl From<String> for Payload<'_> {
    #[inline]
    fn from(text: String) -> Self {
        Self(Cow::Owned(text.into_bytes()))
    }
}

impl<'a> From<&'a String> for Payload<'a> {
    #[inline]
    fn from(text: &'a String) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Payload<'_> {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(bytes))
    }
}

impl<'a> From<&'a Vec<u8>> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl<'a> From<Cow<'a, [u8]>> for Payload<'a> {
    #[inline]
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        Self(bytes)
    }
}

impl<'a> From<Cow<'a, str>> for Payload<'a> {
    #[inline]
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

/// A record to append.
///
/// ```
/// use tidelog::Record;
///
/// let record = Record::new("one iPhone").key("customer-42").header("source", "web");
/// assert_eq!(record.key_bytes(), Some(&b"customer-42"[..]));
/// let forget = Record::tombstone("customer-42");
/// assert_eq!(forget.value_bytes(), None);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a record does nothing until it is appended"]
pub struct Record<'a> {
    key: Option<Payload<'a>>,
    value: Option<Payload<'a>>,
    headers: Vec<(Cow<'a, str>, Option<Payload<'a>>)>,
    client_timestamp_ms: Option<i64>,
    partition: Option<u32>,
}

impl<'a> Record<'a> {
    /// A record with a value and, so far, a null key and no headers.
    #[inline]
    pub fn new(value: impl Into<Payload<'a>>) -> Self {
        Self { value: Some(value.into()), ..Self::null() }
    }

    /// A record with a null value and, so far, a null key and no headers.
    #[inline]
    pub fn null() -> Self {
        Self { key: None, value: None, headers: Vec::new(), client_timestamp_ms: None, partition: None }
    }

    /// A key with a null value: says that what was appended under the key is to be forgotten.
    #[inline]
    pub fn tombstone(key: impl Into<Payload<'a>>) -> Self {
        Self::null().key(key)
    }

    /// Sets the key. Records with the same key keep their order: they go to the same partition.
    #[inline]
    pub fn key(mut self, key: impl Into<Payload<'a>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header behind those that are there. Names may repeat; a name has at most 65,535 bytes.
    pub fn header(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Payload<'a>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a header with a null value, which is not the same as an empty one.
    pub fn null_header(mut self, name: impl Into<Cow<'a, str>>) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// Takes away all headers of that name.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self
    }

    /// Sets the client's time, in milliseconds since the Unix epoch: when the thing happened that the record tells
    /// of. Any number is kept as it is. Without it, a record's timestamp is the time of its append.
    #[inline]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.client_timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Appends to this partition, whatever the key says.
    #[inline]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The key; `None` if it is null.
    #[inline]
    pub fn key_bytes(&self) -> Option<&[u8]> {
        self.key.as_ref().map(Payload::as_bytes)
    }

    /// The value; `None` if it is null.
    #[inline]
    pub fn value_bytes(&self) -> Option<&[u8]> {
        self.value.as_ref().map(Payload::as_bytes)
    }

    /// Names and values of the headers, in order.
    pub fn header_pairs(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> + Clone {
        self.headers.iter().map(|(name, value)| (&**name, value.as_ref().map(Payload::as_bytes)))
    }

    /// The client's time, if one was set.
    #[inline]
    pub fn explicit_timestamp_ms(&self) -> Option<i64> {
        self.client_timestamp_ms
    }

    /// The partition that was asked for by number, if one was.
    #[inline]
    pub fn explicit_partition(&self) -> Option<u32> {
        self.partition
    }

    /// Bytes of the key, the value, and the names and values of the headers: what limits are compared with.
    #[inline]
    pub(crate) fn payload_bytes(&self) -> u64 {
        let of = |payload: &Option<Payload<'_>>| payload.as_ref().map_or(0, |payload| payload.0.len() as u64);
        let headers = self.headers.iter().map(|(name, value)| name.len() as u64 + of(value));
        headers.fold(of(&self.key).saturating_add(of(&self.value)), u64::saturating_add)
    }

    /// Number of headers.
    #[inline]
    pub(crate) fn header_count(&self) -> usize {
        self.headers.len()
    }

    /// Bytes of the headers block; zero without headers.
    #[inline]
    pub(crate) fn header_block_bytes(&self) -> u64 {
        self.header_pairs().fold(0, |sum, (name, value)| {
            let payload = name.len() as u64 + value.map_or(0, <[u8]>::len) as u64;
            u64::saturating_add(sum, HEADER_PREFIX_BYTES as u64 + payload)
        })
    }

    /// Writes the headers block at `at`; answers where it ends. Sizes were checked.
    pub(crate) fn put_header_block<S: Store>(&self, store: &mut S, mut at: usize) -> usize {
        for (name, value) in self.header_pairs() {
            let mut prefix = [0; HEADER_PREFIX_BYTES];
            let (name_length, value_word) = prefix.split_at_mut(size_of::<u16>());
            LittleEndian::write_u16(name_length, name.len() as u16);
            LittleEndian::write_u32(value_word, codec::length_word(value));
            for bytes in [&prefix, name.as_bytes(), value.unwrap_or_default()] {
                store.put(at, bytes);
                at += bytes.len();
            }
        }
        at
    }
}

/// A record that was read, to append again, elsewhere for instance: its key, its value, its headers and the client's time,
/// borrowed from it. Where it goes is decided anew, by its key. One that has no client's time gets a new timestamp; to
/// keep the one that it was read with, set [`timestamp_ms`](Record::timestamp_ms).
///
/// ```
/// # use tidelog::{Log, Record, Start, TopicConfig};
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
/// # orders.append(Record::new("tea").key("customer-42").header("source", "web"))?;
/// // More partitions, and every key in one of them from its first record on.
/// let wider = log.create_topic("orders-wider", TopicConfig::with_partitions(8))?;
/// let mut reader = orders.reader(Start::Earliest)?;
/// while let Some(batch) = reader.next_batch()? {
///     wider.append_batch(batch.iter().map(Record::from))?;
/// }
/// # let at = wider.append(Record::new("milk").key("customer-42"))?;
/// # let read = wider.partition(at.partition)?.read_from(0)?.next().expect("one")?;
/// # assert_eq!((read.value_str()?, read.header_str("source")?), (Some("tea"), Some("web")));
/// # Ok(())
/// # }
/// ```
impl<'a> From<RecordRef<'a>> for Record<'a> {
    fn from(record: RecordRef<'a>) -> Self {
        Self {
            key: record.key().map(Payload::from),
            value: record.value().map(Payload::from),
            headers: record.headers().map(|(name, value)| (name.into(), value.map(Payload::from))).collect(),
            client_timestamp_ms: record.client_timestamp_ms(),
            partition: None,
        }
    }
}

impl<'a> From<&RecordRef<'a>> for Record<'a> {
    fn from(record: &RecordRef<'a>) -> Self {
        (*record).into()
    }
}

impl<'a> From<&'a OwnedRecord> for Record<'a> {
    fn from(record: &'a OwnedRecord) -> Self {
        record.as_record_ref().into()
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &Text(self.key_bytes()))
            .field("value", &Text(self.value_bytes()))
            .field("headers", &Pairs(self.header_pairs()))
            .field("timestamp_ms", &self.client_timestamp_ms)
            .field("partition", &self.partition)
            .finish()
    }
}

/// A record as it lies in a frame, without its offset and the log's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordView<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) client_time_ms: Option<i64>,
    pub(crate) headers: HeaderBlock<'a>,
}

/// A headers block as it lies in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HeaderBlock<'a>(pub(crate) &'a [u8]);

impl<'a> HeaderBlock<'a> {
    /// Walks the headers.
    #[inline]
    pub(crate) fn iter(self) -> Headers<'a> {
        Headers { reader: Reader::new(self.0) }
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether headers fill the block to its end, and all names are UTF-8.
    pub(crate) fn is_well_formed(self) -> bool {
        let mut headers = self.iter();
        while !headers.reader.is_empty() {
            if headers.read().is_none() {
                return false;
            }
        }
        true
    }
}

impl fmt::Debug for HeaderBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().fmt(f)
    }
}

/// The headers of a record that was read, in order: names and values, `None` for a null value.
#[derive(Clone)]
pub struct Headers<'a> {
    reader: Reader<'a>,
}

impl<'a> Headers<'a> {
    /// Reads one header; `None` if there isn't a well-formed one.
    #[inline]
    fn read(&mut self) -> Option<(&'a str, Option<&'a [u8]>)> {
        let name_length = self.reader.u16()?;
        let value_word = self.reader.u32()?;
        let name = std::str::from_utf8(self.reader.bytes(name_length.into())?).ok()?;
        Some((name, self.reader.nullable(value_word)?))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let header = self.read();
        if header.is_none() {
            self.reader = Reader::new(&[]); // a frame that wasn't verified: don't go on in the middle of a header
        }
        header
    }
}

impl std::iter::FusedIterator for Headers<'_> {}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Pairs(self.clone()).fmt(f)
    }
}

/// A record that was read, borrowed from where it lies; cheap to copy. [`to_owned`](RecordRef::to_owned) keeps it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    topic: &'a Arc<str>,
    partition: u32,
    offset: u64,
    append_time_ms: i64,
    view: RecordView<'a>,
}

impl<'a> RecordRef<'a> {
    /// Gives a view its place.
    #[inline]
    pub(crate) fn new(
        topic: &'a Arc<str>,
        partition: u32,
        offset: u64,
        append_time_ms: i64,
        view: RecordView<'a>,
    ) -> Self {
        Self { topic, partition, offset, append_time_ms, view }
    }

    /// The topic's name, which is at the same place in memory for all records of a topic.
    pub(crate) fn topic_name(&self) -> &'a Arc<str> {
        self.topic
    }

    /// The topic's name.
    #[inline]
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The partition's number in its topic.
    #[inline]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The record's number in its partition. Offsets grow, but not always by one.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The client's time if the record has one, else the log's, in milliseconds since the Unix epoch.
    #[inline]
    pub fn timestamp_ms(&self) -> i64 {
        self.view.client_time_ms.unwrap_or(self.append_time_ms)
    }

    /// The time that the client gave, in milliseconds since the Unix epoch.
    #[inline]
    pub fn client_timestamp_ms(&self) -> Option<i64> {
        self.view.client_time_ms
    }

    /// The log's own time of the append, in milliseconds since the Unix epoch. It never falls within a partition.
    #[inline]
    pub fn append_time_ms(&self) -> i64 {
        self.append_time_ms
    }

    /// The key; `None` if it is null.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.view.key
    }

    /// The value; `None` if it is null.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.view.value
    }

    /// Names and values of the headers, in order.
    #[inline]
    pub fn headers(&self) -> Headers<'a> {
        self.view.headers.iter()
    }

    /// The value of the *last* header of that name (as Kafka's `lastHeader`): `None` if there is no such header,
    /// `Some(None)` if its value is null.
    pub fn header(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.headers().filter(|(found, _)| *found == name).last().map(|(_, value)| value)
    }

    /// Whether this is a key with a null value.
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.view.key.is_some() && self.view.value.is_none()
    }

    /// A copy that lives on its own.
    #[allow(clippy::wrong_self_convention)] // the usual name; the type is `Copy`
    pub fn to_owned(&self) -> OwnedRecord {
        OwnedRecord {
            topic: Arc::clone(self.topic),
            partition: self.partition,
            offset: self.offset,
            append_time_ms: self.append_time_ms,
            client_timestamp_ms: self.view.client_time_ms,
            key: self.view.key.map(Box::from),
            value: self.view.value.map(Box::from),
            header_block: Box::from(self.view.headers.0),
        }
    }

    /// Shared by the two read types.
    fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("topic", &self.topic())
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("timestamp_ms", &self.timestamp_ms())
            .field("append_time_ms", &self.append_time_ms)
            .field("key", &Text(self.key()))
            .field("value", &Text(self.value()))
            .field("headers", &self.headers())
            .finish()
    }
}

impl fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as("RecordRef", f)
    }
}

/// A record that was read, with its own copy of everything: to keep, to send to another thread.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    topic: Arc<str>,
    partition: u32,
    offset: u64,
    append_time_ms: i64,
    client_timestamp_ms: Option<i64>,
    key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    header_block: Box<[u8]>,
}

impl OwnedRecord {
    /// The same record, borrowed.
    #[inline]
    pub fn as_record_ref(&self) -> RecordRef<'_> {
        let view = RecordView {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            client_time_ms: self.client_timestamp_ms,
            headers: HeaderBlock(&self.header_block),
        };
        RecordRef::new(&self.topic, self.partition, self.offset, self.append_time_ms, view)
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number in its topic.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The record's number in its partition. Offsets grow, but not always by one.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The client's time if the record has one, else the log's, in milliseconds since the Unix epoch.
    pub fn timestamp_ms(&self) -> i64 {
        self.as_record_ref().timestamp_ms()
    }

    /// The time that the client gave, in milliseconds since the Unix epoch.
    pub fn client_timestamp_ms(&self) -> Option<i64> {
        self.client_timestamp_ms
    }

    /// The log's own time of the append, in milliseconds since the Unix epoch.
    pub fn append_time_ms(&self) -> i64 {
        self.append_time_ms
    }

    /// The key; `None` if it is null.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The value; `None` if it is null.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// Names and values of the headers, in order.
    pub fn headers(&self) -> Headers<'_> {
        self.as_record_ref().headers()
    }

    /// The value of the *last* header of that name: see [`RecordRef::header`].
    pub fn header(&self, name: &str) -> Option<Option<&[u8]>> {
        self.as_record_ref().header(name)
    }

    /// Whether this is a key with a null value.
    pub fn is_tombstone(&self) -> bool {
        self.as_record_ref().is_tombstone()
    }
}

impl fmt::Debug for OwnedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_record_ref().fmt_as("OwnedRecord", f)
    }
}

impl From<RecordRef<'_>> for OwnedRecord {
    fn from(record: RecordRef<'_>) -> Self {
        record.to_owned()
    }
}

/// Prints bytes as text, null as `null`.
struct Text<'a>(Option<&'a [u8]>);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => fmt::Debug::fmt(&String::from_utf8_lossy(bytes), f),
            None => f.write_str("null"),
        }
    }
}

/// Prints headers as a map, in order.
struct Pairs<I>(I);

impl<'a, I: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone> fmt::Debug for Pairs<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.clone().map(|(name, value)| (name, Text(value)))).finish()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

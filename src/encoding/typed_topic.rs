//! A topic of events of one type.
//!
//! # Invariants
//! - All events of a batch are encoded before the first one is appended.
//!
//! # Thread safety
//! Any thread may call anything, if the encoding allows it.

use std::{borrow::Borrow, fmt, sync::Arc};

use super::{Encoding, Json};
use crate::{
    config::Durability,
    error::{Repr, Result},
    place::{Appended, AppendedRange},
    record::{Payload, Record, RecordRef},
    topic::Topic,
};

/// A [`Topic`] whose values are events of type `T` in an encoding. Cheap to clone if the encoding is.
///
/// Made by [`Topic::typed`]. It appends, and [reads](TypedTopic::reader) without a group; what takes a [`Record`] takes the
/// ones that [`record`](TypedTopic::record) makes. Everything else is the [`topic`](TypedTopic::topic)'s.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidelog::{Durability, Json, Log, TopicConfig};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order {
///     customer: String,
///     pence: u64,
/// }
///
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// let orders = log.ensure_topic("orders", TopicConfig::with_partitions(4))?.typed(Json);
/// let order = Order { customer: "customer-42".into(), pence: 250 };
/// orders.append(&order)?; // without a key
/// orders.append_keyed("customer-42", &order)?;
///
/// // Or say once what the key is:
/// let orders = orders.keyed_by(|order: &Order| (&order.customer).into());
/// orders.append(&order)?;
/// orders.append_with(&order, Durability::Synced)?;
/// orders.append_batch((0..100).map(|i| Order { customer: format!("customer-{i}"), pence: i }))?;
/// orders.append_tombstone("customer-7")?;
///
/// // A record with more than an event in it:
/// orders.topic().append(orders.record(&order)?.header("source", "web"))?;
///
/// // One that is appended only if nobody else has appended meanwhile:
/// let partition = orders.topic().partition(0)?;
/// partition.append_if(partition.end_offset(), orders.record(&order)?)?;
/// # Ok(())
/// # }
/// ```
pub struct TypedTopic<T, E = Json> {
    topic: Topic,
    encoding: E,
    key_of: Option<Arc<KeyOf<T>>>,
}

/// The key of an event.
type KeyOf<T> = dyn for<'a> Fn(&'a T) -> Payload<'a> + Send + Sync;

impl Topic {
    /// A handle of the same topic for events of type `T`. Other handles aren't affected, and nothing is checked of
    /// what the topic holds so far.
    ///
    /// The type is known from the first event that is appended. Where none is, name it:
    /// `topic.typed::<Order, _>(Json)`, or `let orders: TypedTopic<Order> = topic.typed(Json)`.
    pub fn typed<T, E: Encoding<T>>(&self, encoding: E) -> TypedTopic<T, E> {
        TypedTopic { topic: self.clone(), encoding, key_of: None }
    }
}

impl<T, E: Encoding<T>> TypedTopic<T, E> {
    /// The topic, for everything that isn't about events.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The encoding.
    pub fn encoding(&self) -> &E {
        &self.encoding
    }

    /// From now on every event is appended under the key that `key` makes of it, which may be a part of it:
    /// `.keyed_by(|order: &Order| (&order.customer).into())`.
    pub fn keyed_by(self, key: impl for<'a> Fn(&'a T) -> Payload<'a> + Send + Sync + 'static) -> Self {
        Self { key_of: Some(Arc::new(key)), ..self }
    }

    /// The event as a record, under the key of [`keyed_by`](TypedTopic::keyed_by) if that was called: to add headers
    /// or a time, to name the partition, or for another way of appending.
    ///
    /// # Errors
    /// [`Unencodable`](crate::ErrorKind::Unencodable), with the encoding's error as its
    /// [source](std::error::Error::source).
    pub fn record<'a>(&self, event: &'a T) -> Result<Record<'a>> {
        let mut value = Vec::new();
        self.encoding
            .encode(event, &mut value)
            .map_err(|source| Repr::Unencodable { topic: self.topic.name().to_owned(), source })?;
        let record = Record::new(value);
        Ok(match &self.key_of {
            Some(key_of) => record.key(key_of(event)),
            None => record,
        })
    }

    /// Appends an event with the topic's durability; answers where it went.
    ///
    /// # Errors
    /// Those of [`record`](TypedTopic::record) and [`Topic::append`].
    pub fn append(&self, event: &T) -> Result<Appended> {
        self.topic.append(self.record(event)?)
    }

    /// As [`append`](TypedTopic::append), with a durability for this one event.
    ///
    /// # Errors
    /// Those of [`record`](TypedTopic::record) and [`Topic::append_with`].
    pub fn append_with(&self, event: &T, durability: Durability) -> Result<Appended> {
        self.topic.append_with(self.record(event)?, durability)
    }

    /// As [`append`](TypedTopic::append), under this key.
    ///
    /// # Errors
    /// Those of `append`.
    pub fn append_keyed<'a>(&self, key: impl Into<Payload<'a>>, event: &'a T) -> Result<Appended> {
        self.topic.append(self.record(event)?.key(key))
    }

    /// Appends events, owned or borrowed, as [`Topic::append_batch`] appends records; answers the ranges of offsets
    /// that they took. All are encoded before the first one is appended.
    ///
    /// # Errors
    /// Those of [`record`](TypedTopic::record) and [`Topic::append_batch`].
    pub fn append_batch(&self, events: impl IntoIterator<Item: Borrow<T>>) -> Result<Vec<AppendedRange>> {
        self.with_records(events, |records| self.topic.append_batch(records))
    }

    /// As [`append_batch`](TypedTopic::append_batch), with a durability for these events.
    ///
    /// # Errors
    /// Those of [`record`](TypedTopic::record) and [`Topic::append_batch_with`].
    pub fn append_batch_with(
        &self,
        events: impl IntoIterator<Item: Borrow<T>>,
        durability: Durability,
    ) -> Result<Vec<AppendedRange>> {
        self.with_records(events, |records| self.topic.append_batch_with(records, durability))
    }

    /// Appends a [tombstone](Record::tombstone): what was appended under the key is to be forgotten. It is read as
    /// `Ok(None)`.
    ///
    /// # Errors
    /// Those of [`Topic::append`].
    pub fn append_tombstone<'a>(&self, key: impl Into<Payload<'a>>) -> Result<Appended> {
        self.topic.append(Record::tombstone(key))
    }

    /// The event that a record of this topic holds: [`RecordRef::decode`] with this encoding.
    ///
    /// # Errors
    /// [`Undecodable`](crate::ErrorKind::Undecodable).
    pub fn decode(&self, record: &RecordRef<'_>) -> Result<Option<T>> {
        record.decode(&self.encoding)
    }

    /// Calls `append` with the records of these events, which may borrow their keys from them.
    fn with_records<R>(
        &self,
        events: impl IntoIterator<Item: Borrow<T>>,
        append: impl FnOnce(Vec<Record<'_>>) -> Result<R>,
    ) -> Result<R> {
        let events: Vec<_> = events.into_iter().collect();
        append(events.iter().map(|event| self.record(event.borrow())).collect::<Result<_>>()?)
    }
}

impl<T, E: Clone> Clone for TypedTopic<T, E> {
    fn clone(&self) -> Self {
        Self { topic: self.topic.clone(), encoding: self.encoding.clone(), key_of: self.key_of.clone() }
    }
}

impl<T, E> fmt::Debug for TypedTopic<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}

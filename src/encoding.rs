//! Typed events: values of a program's own types in place of bytes.
//!
//! # Format
//! An encoding alone decides what bytes a value takes; nothing is added to them, and nothing in the log tells which
//! encoding it was. A record with a null value holds no event, whatever the encoding.
//!
//! # Invariants
//! - Nothing is appended of an event that can't be encoded, nor of the batch that it is in.
//! - A record that can't be decoded is an error that tells its place, and stands in nobody's way: the records behind it
//!   are read all the same.
//!
//! # Thread safety
//! Encodings are shared by whoever uses them; those here have no state.

pub mod dead_letter;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod typed_reader;
mod typed_topic;

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Repr, Result},
    partition::Batch,
    record::{OwnedRecord, RecordRef},
};

pub use typed_reader::TypedReader;
pub use typed_topic::TypedTopic;

/// What an [`Encoding`] says when it fails: any error, made of text by `?` and `into` as well.
pub type EncodingError = Box<dyn std::error::Error + Send + Sync>;

/// Makes bytes of values and values of bytes: [`Json`], `Bincode` (with the feature `bincode`), or a program's own.
///
/// ```
/// use tidelog::{Encoding, EncodingError, Log, TopicConfig};
///
/// /// A temperature in hundredths of a degree, in two bytes.
/// struct Hundredths;
///
/// impl Encoding<f64> for Hundredths {
///     fn encode(&self, degrees: &f64, into: &mut Vec<u8>) -> Result<(), EncodingError> {
///         let hundredths = (degrees * 100.0).round();
///         if !(-32_768.0..=32_767.0).contains(&hundredths) {
///             return Err("not a temperature on earth".into());
///         }
///         into.extend((hundredths as i16).to_le_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<f64, EncodingError> {
///         Ok(f64::from(i16::from_le_bytes(bytes.try_into()?)) / 100.0)
///     }
/// }
///
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("weather")?;
/// let readings = log.create_topic("readings", TopicConfig::with_partitions(1))?.typed(Hundredths);
/// let at = readings.append(&21.5)?;
/// for record in readings.topic().partition(0)?.read_from(at.offset)? {
///     assert_eq!(record?.decode(&Hundredths)?, Some(21.5));
/// }
/// # Ok(())
/// # }
/// ```
///
/// What was appended once is there to stay: a later version of a program has to read what an earlier one wrote.
/// `decode` is given whatever a record holds, also what another program put there: it should answer an error and not
/// panic.
pub trait Encoding<T> {
    /// Appends the bytes of `value` to `into`.
    ///
    /// # Errors
    /// Whatever keeps the value from being encoded. What is in `into` is then thrown away.
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), EncodingError>;

    /// The value that `bytes` are, all of them.
    ///
    /// # Errors
    /// Whatever keeps the bytes from being a value.
    fn decode(&self, bytes: &[u8]) -> Result<T, EncodingError>;
}

/// An encoding that is borrowed, boxed or shared is the same encoding, `dyn Encoding<T>` included.
macro_rules! encoding_behind {
    ($($pointer:ty),*) => {$(
        impl<T, E: Encoding<T> + ?Sized> Encoding<T> for $pointer {
            fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), EncodingError> {
                (**self).encode(value, into)
            }

            fn decode(&self, bytes: &[u8]) -> Result<T, EncodingError> {
                (**self).decode(bytes)
            }
        }
    )*};
}

encoding_behind!(&E, Box<E>, Arc<E>);

/// Events as JSON, by `serde`: readable by people and by every other program, and forgiving when types change.
///
/// What a later version may do with a type and still read the earlier one's events: add a field that has a default
/// (`#[serde(default)]`, or an `Option`), remove a field, add a variant to an enum; rename with `#[serde(alias)]`. What
/// JSON has no word for comes out as `serde_json` has it: a float that isn't a number is `null`, which no float is
/// decoded from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Encoding<T> for Json {
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), EncodingError> {
        Ok(serde_json::to_writer(into, value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, EncodingError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// Events as [bincode](https://docs.rs/bincode/2) has them, by `serde`: small and quick, for types that stay as they
/// are.
///
/// It is bincode 2's standard configuration: little-endian, integers of variable length, nothing that names or counts
/// fields. So a field that is added, removed or moved makes earlier events undecodable, or something else altogether;
/// variants may be added to an enum behind the others. `serde`'s attributes that need a format that describes itself
/// (`tag`, `untagged`, `flatten`, `skip_serializing_if`) don't work.
///
/// A length that the bytes claim makes it allocate about a MiB at most, or 4,096 bytes for each that is there. But
/// bytes that nobody vouches for also decide how deep a type nests that holds itself (to the end of the stack), and how
/// long a list is of things that take no bytes (`Vec<()>`): for such types, take [`Json`].
#[cfg(feature = "bincode")]
#[cfg_attr(docsrs, doc(cfg(feature = "bincode")))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bincode;

#[cfg(feature = "bincode")]
impl<T: Serialize + DeserializeOwned> Encoding<T> for Bincode {
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), EncodingError> {
        bincode::serde::encode_into_std_write(value, into, bincode::config::standard())?;
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, EncodingError> {
        // Without a limit, the length of a text is believed and allocated, and one that is too large for this panics.
        // A limit is a constant and counts an integer by its width, whatever it takes: up to 16 for a byte.
        const WIDEST: usize = 16;
        const SMALL: usize = 64 << 10;
        const LARGE: usize = 16 << 20;
        const LARGEST: usize = 1 << 30; // a record has at most 64 MiB
        let config = bincode::config::standard();
        let (value, length) = match bytes.len().saturating_mul(WIDEST) {
            claimed if claimed <= SMALL => bincode::serde::decode_from_slice(bytes, config.with_limit::<SMALL>())?,
            claimed if claimed <= LARGE => bincode::serde::decode_from_slice(bytes, config.with_limit::<LARGE>())?,
            _ => bincode::serde::decode_from_slice(bytes, config.with_limit::<LARGEST>())?,
        };
        match bytes.len() - length {
            0 => Ok(value),
            rest => Err(format!("{rest} bytes are left over").into()),
        }
    }
}

impl<'a> RecordRef<'a> {
    /// The event that the value is; `None` if the value is null.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use serde::{Deserialize, Serialize};
    /// # use tidelog::{Json, Log, Record, Start, TopicConfig};
    /// #[derive(Serialize, Deserialize)]
    /// struct Order {
    ///     item: String,
    ///     pence: u64,
    /// }
    ///
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
    /// # orders.append(Record::new(r#"{"item":"tea","pence":250}"#))?;
    /// # let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open()?;
    /// for record in &consumer.poll(Duration::from_secs(1))? {
    ///     if let Some(order) = record.decode::<Order>(&Json)? {
    ///         println!("{} pence for {}", order.pence, order.item);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Undecodable`](crate::ErrorKind::Undecodable), with the record's topic, partition and offset, and the
    /// encoding's error as its [source](std::error::Error::source). The
    /// [offset to go on at](crate::Error::resume_offset) is behind the record. See [`Batch::typed`] for going on, and
    /// [`dead_letter`](RecordRef::dead_letter) for keeping it.
    pub fn decode<T>(&self, encoding: &(impl Encoding<T> + ?Sized)) -> Result<Option<T>> {
        let decoded = self.value().map(|value| encoding.decode(value)).transpose();
        decoded.map_err(|source| {
            let (topic, partition, offset) = (self.topic().to_owned(), self.partition(), self.offset());
            Repr::Undecodable { topic, partition, offset, source }.into()
        })
    }
}

impl OwnedRecord {
    /// The event that the value is: see [`RecordRef::decode`].
    ///
    /// # Errors
    /// [`Undecodable`](crate::ErrorKind::Undecodable).
    pub fn decode<T>(&self, encoding: &(impl Encoding<T> + ?Sized)) -> Result<Option<T>> {
        self.as_record_ref().decode(encoding)
    }
}

impl Batch {
    /// The records, each with the event that its value is: `Ok(None)` if the value is null, an error of kind
    /// [`Undecodable`](crate::ErrorKind::Undecodable) if it can't be decoded. The next record comes all the same, so
    /// what to do with one that can't is the program's choice: end, go on, or keep it aside as a
    /// [dead letter](RecordRef::dead_letter).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use serde::{Deserialize, Serialize};
    /// # use tidelog::{Json, Log, Record, Start, TopicConfig};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Order { pence: u64 }
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
    /// # orders.append_batch([r#"{"pence":250}"#, "tea, please", r#"{"pence":120}"#].map(Record::new))?;
    /// let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open()?;
    /// let mut pence = 0;
    /// for (record, order) in consumer.poll(Duration::from_secs(1))?.typed::<Order>(&Json) {
    ///     match order {
    ///         Ok(Some(order)) => pence += order.pence,
    ///         Ok(None) => println!("{:?} is to be forgotten", record.key()),
    ///         Err(error) => eprintln!("passed over: {error}"),
    ///     }
    /// }
    /// consumer.commit()?;
    /// # assert_eq!(pence, 370);
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<'a, T>(
        &'a self,
        encoding: &'a (impl Encoding<T> + ?Sized),
    ) -> impl ExactSizeIterator<Item = (RecordRef<'a>, Result<Option<T>>)> {
        self.iter().map(move |record| (record, record.decode(encoding)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn what_is_fuzzed_holds(data in vec(any::<u8>(), 0..300), headers in 0u8..40) {
            fuzzing::typed_decode(&[&[0, headers], &*data].concat());
        }
    }
}

//! Events: what services tell each other, as JSON in the values of records; and the topics they go through.
//!
//! Records are keyed by customer, or by invoice where there is none: what happens to one customer happens in order.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use tidelog::{Log, Record, RecordRef, Topic, TopicConfig};

use crate::Result;

/// `order.created`, from intake.
pub(crate) const ORDERS: &str = "orders";
/// `order.refunded`, from intake.
pub(crate) const REFUNDS: &str = "refunds";
/// Lines that intake couldn't take, as they were read, with `reason`, `file` and `line` in their headers.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";
/// `stock.reserved`, from the warehouse.
pub(crate) const RESERVATIONS: &str = "reservations";
/// `order.paid` and `order.rejected`, from payment.
pub(crate) const PAYMENTS: &str = "payments";
/// `order.shipped`, `order.delivered` and `stock.released`, from the warehouse.
pub(crate) const SHIPMENTS: &str = "shipments";
/// `notification.sent`, from notifications.
pub(crate) const NOTIFICATIONS: &str = "notifications";

const PARTITIONS: u32 = 4;
/// The largest order: what follows from one (its shipment and its delivery, say) fits a frame, so it is all or nothing.
const MAX_ORDER_BYTES: u64 = 512 << 10;

/// A topic, created by whoever comes first.
pub(crate) fn topic(log: &Log, name: &str) -> Result<Topic> {
    let config = TopicConfig::with_partitions(PARTITIONS);
    let config = if name == ORDERS { config.max_record_bytes(MAX_ORDER_BYTES) } else { config };
    Ok(log.ensure_topic(name, config)?)
}

/// An order or a refund, without the things that were bought.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Invoice {
    /// Where it begins: file name and line. Unlike the number, never the same for two.
    pub(crate) id: String,
    pub(crate) number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) customer: Option<String>,
    pub(crate) country: String,
    /// The exact sum of quantity × price, above zero for refunds too.
    #[serde(with = "rust_decimal::serde::str")]
    pub(crate) total: Decimal,
}

/// So many of one thing.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) stock_code: String,
    pub(crate) quantity: i64,
}

/// What happened to an order, to stock, or to a refund.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Event {
    #[serde(rename = "order.created")]
    Created { order: Invoice, items: Vec<Item> },
    #[serde(rename = "stock.reserved")]
    Reserved { order: Invoice, items: Vec<Item> },
    #[serde(rename = "order.paid")]
    Paid { order: Invoice },
    #[serde(rename = "order.rejected")]
    Rejected { order: Invoice, reason: String },
    #[serde(rename = "stock.released")]
    Released { order: Invoice, items: Vec<Item> },
    #[serde(rename = "order.shipped")]
    Shipped { order: Invoice, items: Vec<Item> },
    #[serde(rename = "order.delivered")]
    Delivered { order: Invoice },
    #[serde(rename = "order.refunded")]
    Refunded { refund: Invoice },
    #[serde(rename = "notification.sent")]
    Notified { about: Invoice, text: String },
}

impl Event {
    /// The order or refund that it is about.
    pub(crate) fn invoice(&self) -> &Invoice {
        match self {
            Self::Created { order, .. }
            | Self::Reserved { order, .. }
            | Self::Paid { order }
            | Self::Rejected { order, .. }
            | Self::Released { order, .. }
            | Self::Shipped { order, .. }
            | Self::Delivered { order } => order,
            Self::Refunded { refund } => refund,
            Self::Notified { about, .. } => about,
        }
    }

    /// The event as a record, to which the headers are yet to be added that say where it comes from.
    pub(crate) fn to_record(&self) -> Result<Record<'_>> {
        let Invoice { customer, number, .. } = self.invoice();
        Ok(Record::new(serde_json::to_vec(self)?).key(customer.as_ref().unwrap_or(number)))
    }

    /// Reads back what [`to_record`](Self::to_record) wrote.
    pub(crate) fn from_record(record: &RecordRef<'_>) -> Result<Self> {
        serde_json::from_slice(record.value().unwrap_or_default())
            .map_err(|error| format!("{} holds no event of this shop: {error}", Source::of(record)).into())
    }
}

/// The place of a record: what its consequences carry in a header named [`Source::HEADER`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

impl Source {
    pub(crate) const HEADER: &str = "source";

    /// The place of this record.
    pub(crate) fn of(record: &RecordRef<'_>) -> Self {
        Self { topic: record.topic().to_owned(), partition: record.partition(), offset: record.offset() }
    }

    /// The place that this record is a consequence of.
    pub(crate) fn named_by(record: &RecordRef<'_>) -> Result<Self> {
        let parse = |text: &str| {
            let (partition, offset) = text.rsplit_once('@')?;
            let (topic, partition) = partition.rsplit_once('-')?;
            Some(Self { topic: topic.to_owned(), partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        };
        record
            .header_str(Self::HEADER)?
            .and_then(parse)
            .ok_or_else(|| format!("{} doesn't name its source", Self::of(record)).into())
    }
}

/// `orders-3@17`: topic, partition, offset.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}@{}", self.topic, self.partition, self.offset)
    }
}

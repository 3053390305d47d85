//! Analytics: folds everything that happened into totals.
//!
//! They are kept nowhere, since the log has it all: each run reads it from the beginning. What is counted is counted
//! by its identity, so topics may come in any order and a record twice.

use std::collections::{BTreeMap, HashSet};

use rust_decimal::Decimal;
use tidelog::{Consumer, RecordRef};

use crate::{
    Result,
    events::{DEAD_LETTERS, Event, Invoice, ORDERS, PAYMENTS, REFUNDS, SHIPMENTS},
    intake,
    lines::LineSet,
    service::{self, PATIENCE, Report},
    shop::Shop,
};

const GROUP: &str = "analytics";
const INPUTS: [&str; 5] = [ORDERS, REFUNDS, DEAD_LETTERS, PAYMENTS, SHIPMENTS];

/// What is in the log.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) lines: LineSet,
    pub(crate) dead_letters: LineSet,
    pub(crate) created: Sum,
    pub(crate) completed: Sum,
    pub(crate) rejected: Sum,
    pub(crate) refunded: Sum,
    pub(crate) completed_by_country: BTreeMap<String, Sum>,
}

/// A number of orders or refunds, and what they amount to.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) amount: Decimal,
    ids: HashSet<String>,
}

impl Sum {
    pub(crate) fn count(&self) -> usize {
        self.ids.len()
    }

    fn add(&mut self, invoice: &Invoice) -> Result<()> {
        if self.ids.insert(invoice.id.clone()) {
            self.amount = self.amount.checked_add(invoice.total).ok_or("the sum of all amounts is out of range")?;
        }
        Ok(())
    }
}

impl Totals {
    fn add(&mut self, record: &RecordRef<'_>) -> Result<()> {
        if [ORDERS, REFUNDS, DEAD_LETTERS].contains(&record.topic()) {
            intake::add_lines(record, &mut self.lines)?;
        }
        if record.topic() == DEAD_LETTERS {
            return intake::add_lines(record, &mut self.dead_letters);
        }
        match Event::from_record(record)? {
            Event::Created { order, .. } => self.created.add(&order),
            Event::Rejected { order, .. } => self.rejected.add(&order),
            Event::Delivered { order } => {
                self.completed.add(&order)?;
                self.completed_by_country.entry(order.country.clone()).or_default().add(&order)
            }
            Event::Refunded { refund } => self.refunded.add(&refund),
            _ => Ok(()),
        }
    }
}

/// Folds until the inputs are closed and all that is in them is counted.
pub(crate) fn run(shop: &Shop<'_>) -> Result<(Totals, Report)> {
    let mut consumer = service::subscribe(shop.log, GROUP, INPUTS.into_iter())?;
    seek_to_beginning(shop, &mut consumer)?;
    let mut totals = Totals::default();
    let mut records_read = 0;
    loop {
        let closed = shop.closed_topics()?;
        let batch = consumer.poll(PATIENCE)?;
        for record in &batch {
            totals.add(&record)?;
            records_read += 1;
        }
        if !batch.is_empty() {
            consumer.commit()?;
        } else if INPUTS.iter().all(|input| closed.contains(input)) {
            let lag = Some(consumer.lag().total);
            return Ok((totals, Report { group: GROUP, records_read, records_appended: 0, lag }));
        }
    }
}

/// What the group has committed says how far it was, but not what it counted.
fn seek_to_beginning(shop: &Shop<'_>, consumer: &mut Consumer) -> Result<()> {
    for (topic, partition) in consumer.assignment() {
        let start = shop.log.topic(&topic)?.partition(partition)?.start_offset();
        consumer.seek(&topic, partition, start)?;
    }
    Ok(())
}

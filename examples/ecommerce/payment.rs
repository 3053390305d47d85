//! Payment: takes the money for what the warehouse has reserved, unless it is too much.

use rust_decimal::Decimal;

use crate::{
    events::{Event, PAYMENTS, RESERVATIONS},
    service::{Flow, Service},
};

/// The most that anyone is trusted with.
const MOST: Decimal = Decimal::from_parts(5_000, 0, 0, false, 0);

pub(crate) struct Payment;

impl Service for Payment {
    const GROUP: &'static str = "payment";
    const FLOWS: &'static [Flow] = &[Flow { input: RESERVATIONS, output: PAYMENTS }];

    fn handle(&self, input: Event) -> Vec<Event> {
        match input {
            Event::Reserved { order, .. } if order.total > MOST => {
                let reason = format!("{} is above {MOST}", order.total);
                vec![Event::Rejected { order, reason }]
            }
            Event::Reserved { order, .. } => vec![Event::Paid { order }],
            _ => Vec::new(),
        }
    }
}

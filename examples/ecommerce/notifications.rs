//! Notifications: writes down what it would send to the customer.

use crate::{
    events::{Event, NOTIFICATIONS, PAYMENTS, REFUNDS, SHIPMENTS},
    report,
    service::{Flow, Service},
};

pub(crate) struct Notifications;

impl Service for Notifications {
    const GROUP: &'static str = "notifications";
    const FLOWS: &'static [Flow] = &[
        Flow { input: PAYMENTS, output: NOTIFICATIONS },
        Flow { input: SHIPMENTS, output: NOTIFICATIONS },
        Flow { input: REFUNDS, output: NOTIFICATIONS },
    ];

    /// What is told of one order comes from one partition (it is rejected, or it is shipped and delivered), so it is
    /// told in order.
    fn handle(&self, input: Event) -> Vec<Event> {
        let (number, total) = (&input.invoice().number, report::amount(input.invoice().total));
        let text = match input {
            Event::Rejected { .. } => format!("We are sorry: your payment of {total} for order {number} was declined."),
            Event::Shipped { .. } => format!("Your order {number} is on its way. We have received {total}."),
            Event::Delivered { .. } => format!("Your order {number} has arrived. Enjoy!"),
            Event::Refunded { .. } => format!("We have sent you {total} back for {number}."),
            _ => return Vec::new(),
        };
        vec![Event::Notified { about: input.invoice().clone(), text }]
    }
}

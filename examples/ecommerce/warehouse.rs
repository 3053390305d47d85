//! The warehouse: reserves what is ordered, then ships it once it is paid, or releases it if it never will be.

use std::collections::HashMap;

use crate::{
    events::{Event, Item, ORDERS, PAYMENTS, RESERVATIONS, SHIPMENTS},
    service::{Flow, Service},
};

/// What is reserved, by the order's id.
#[derive(Default)]
pub(crate) struct Warehouse {
    reserved: HashMap<String, Vec<Item>>,
}

impl Service for Warehouse {
    const GROUP: &'static str = "warehouse";
    const FLOWS: &'static [Flow] =
        &[Flow { input: ORDERS, output: RESERVATIONS }, Flow { input: PAYMENTS, output: SHIPMENTS }];

    fn handle(&self, input: Event) -> Vec<Event> {
        // Payment comes after the reservation, so there is one, unless a power cut took it.
        let reserved = |id: &str| self.reserved.get(id).cloned().unwrap_or_default();
        match input {
            Event::Created { order, items } => vec![Event::Reserved { order, items }],
            Event::Paid { order } => {
                let items = reserved(&order.id);
                vec![Event::Shipped { order: order.clone(), items }, Event::Delivered { order }]
            }
            Event::Rejected { order, .. } => {
                let items = reserved(&order.id);
                vec![Event::Released { order, items }]
            }
            _ => Vec::new(),
        }
    }

    fn apply(&mut self, output: &Event) {
        match output {
            Event::Reserved { order, items } => drop(self.reserved.insert(order.id.clone(), items.clone())),
            Event::Shipped { order, .. } | Event::Released { order, .. } => drop(self.reserved.remove(&order.id)),
            _ => {}
        }
    }
}

//! Rules: which lines count, and what an invoice comes to. Pure functions: the same lines, the same outcome.

use rust_decimal::Decimal;

use crate::{
    Result,
    events::{Event, Invoice, Item},
    input::{Column, Line},
};

/// The finest price, in places behind the point, and the greatest amount of a line. Inside them no sum is ever
/// rounded, since a `Decimal` is exact to 28 digits.
const MOST_PLACES: u32 = 9;
const MOST_AMOUNT: i64 = 1_000_000_000_000_000;

/// What the lines of one invoice come to.
pub(crate) struct Outcome {
    /// An order or a refund, and the numbers of the lines that it stands for.
    pub(crate) event: Option<(Event, Vec<u64>)>,
    /// The lines that are no part of it, each with the reason.
    pub(crate) dead: Vec<(Line, &'static str)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Order,
    Refund,
}

/// Judges the lines of one invoice.
pub(crate) fn judge(lines: Vec<Line>) -> Result<Outcome> {
    let (mut valid, mut dead) = (Vec::new(), Vec::new());
    for line in lines {
        match judge_line(&line) {
            Ok(sold) => valid.push((line, sold)),
            Err(reason) => dead.push((line, reason)),
        }
    }
    let Some((first, (kind, ..))) = valid.first() else {
        return Ok(Outcome { event: None, dead });
    };
    let total = valid.iter().try_fold(Decimal::ZERO, |total, (_, (_, _, amount))| total.checked_add(*amount));
    let invoice = Invoice {
        id: format!("{}:{}", first.file, first.number),
        number: first.get(Column::InvoiceNo).to_owned(),
        customer: customer(first),
        country: first.get(Column::Country).to_owned(),
        total: total.ok_or_else(|| format!("{}:{}: the total is out of range", first.file, first.number))?,
    };
    let kind = *kind;
    let numbers = valid.iter().map(|(line, _)| line.number).collect();
    let items = valid.into_iter().map(|(_, (_, item, _))| item).collect();
    let event = match kind {
        Kind::Order => Event::Created { order: invoice, items },
        Kind::Refund => Event::Refunded { refund: invoice },
    };
    Ok(Outcome { event: Some((event, numbers)), dead })
}

/// What a line is part of, what it says was sold or given back, and for how much; or why it doesn't count.
fn judge_line(line: &Line) -> Result<(Kind, Item, Decimal), &'static str> {
    let quantity: i64 = line.get(Column::Quantity).parse().map_err(|_| "Quantity isn't an integer")?;
    let price = decimal(line.get(Column::UnitPrice)).ok_or("UnitPrice isn't a decimal")?.normalize();
    let kind = kind(line.get(Column::InvoiceNo)).ok_or("InvoiceNo is neither digits nor C and digits")?;
    match kind {
        Kind::Order if quantity <= 0 => return Err("Quantity of an order isn't above zero"),
        Kind::Refund if quantity >= 0 => return Err("Quantity of a refund isn't below zero"),
        _ if price <= Decimal::ZERO => return Err("UnitPrice isn't above zero"),
        _ => {}
    }
    let amount = Decimal::from(quantity.unsigned_abs()).checked_mul(price);
    let amount = amount.filter(|amount| price.scale() <= MOST_PLACES && *amount <= MOST_AMOUNT.into());
    let item = Item { stock_code: line.get(Column::StockCode).to_owned(), quantity };
    Ok((kind, item, amount.ok_or("the amount is out of range")?))
}

fn kind(invoice_number: &str) -> Option<Kind> {
    let (kind, digits) = match invoice_number.strip_prefix('C') {
        Some(digits) => (Kind::Refund, digits),
        None => (Kind::Order, invoice_number),
    };
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(kind)
}

/// A number such as `-2.55`. `Decimal` alone would also take `1_000`.
fn decimal(text: &str) -> Option<Decimal> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { Decimal::from_str_exact(text).ok() } else { None }
}

/// The customer of a line, if there is one. A spreadsheet once made `17850.0` of 17850.
pub(crate) fn customer(line: &Line) -> Option<String> {
    let id = line.get(Column::CustomerId);
    let id = id.strip_suffix(".0").unwrap_or(id);
    (!id.is_empty()).then(|| id.to_owned())
}

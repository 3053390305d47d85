//! Orders that the example makes itself: seeded, always the same, with everything in them that real ones have.

use std::sync::Arc;

use crate::input::Line;

/// What stands for the file's name. No file is ever called that, since it holds a slash.
pub(crate) const NAME: &str = "generated/orders";

const SEED: u64 = 20_101_201;
const ORDERS: u64 = 20_000;
const FIRST_INVOICE: u64 = 600_001;
const CUSTOMERS: u64 = 3_000;
const PRODUCTS: u64 = 500;

/// Where customers live, the more often a country is here, the more of them.
const COUNTRIES: [&str; 16] = [
    "United Kingdom",
    "United Kingdom",
    "United Kingdom",
    "United Kingdom",
    "United Kingdom",
    "United Kingdom",
    "United Kingdom",
    "Germany",
    "Germany",
    "France",
    "France",
    "EIRE",
    "Spain",
    "Netherlands",
    "Norway",
    "Japan",
];

/// All lines, in the order in which a file would hold them.
pub(crate) fn lines() -> impl Iterator<Item = Line> {
    let file: Arc<str> = NAME.into();
    let mut dice = Dice(SEED);
    let rows = (FIRST_INVOICE..FIRST_INVOICE + ORDERS).flat_map(move |number| rows(number, &mut dice));
    rows.zip(2..).map(move |(row, number)| Line::new(file.clone(), number, row.each_ref().map(String::as_str)))
}

/// The rows of one order, and sometimes of the refund of its first thing.
fn rows(number: u64, dice: &mut Dice) -> Vec<[String; 6]> {
    let customer = dice.below(CUSTOMERS);
    let country = COUNTRIES[(customer % COUNTRIES.len() as u64) as usize].to_owned();
    let customer = if dice.one_in(8) { String::new() } else { (12_000 + customer).to_string() };
    let most = if dice.one_in(50) { 900 } else { 20 };

    let mut rows = Vec::new();
    for _ in 0..=dice.below(5) {
        let product = dice.below(PRODUCTS);
        let pence = 29 + product * product % 1_571;
        let price = format!("{}.{:02}", pence / 100, pence % 100);
        let quantity = (1 + dice.below(most)).to_string();
        let code = (20_000 + product).to_string();
        rows.push([number.to_string(), code, quantity, price, customer.clone(), country.clone()]);
    }
    if dice.one_in(20) {
        let [_, code, quantity, rest @ ..] = rows[0].clone();
        let [price, customer, country] = rest;
        rows.push([format!("C{number}"), code, format!("-{quantity}"), price, customer, country]);
    }
    if dice.one_in(100) {
        let row = dice.below(rows.len() as u64) as usize;
        let (column, nonsense) = [(0, "A17"), (2, "0"), (2, "a few"), (3, "free")][dice.below(4) as usize];
        rows[row][column] = nonsense.to_owned();
    }
    rows
}

/// A small generator of numbers that look random (splitmix64, Steele et al., OOPSLA 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

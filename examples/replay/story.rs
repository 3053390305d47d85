//! The small story: what one can ask of a ledger that keeps everything.

use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use tidelog::{Json, Log, Start};

use crate::{
    Result,
    ledger::{self, Kind, Ledger, Posting, fold, wrong_fold},
};

/// Midnight of 2 March 2026 (UTC), the day of the story, in milliseconds since the Unix epoch.
const MIDNIGHT_MS: i64 = 20_514 * 24 * 60 * MINUTE_MS;
const MINUTE_MS: i64 = 60_000;

const POSTINGS: [(&str, Posting); 4] = [
    ("14:10", Posting { kind: Kind::Deposit, account: 1, amount: 1_000 }),
    ("14:20", Posting { kind: Kind::Deposit, account: 2, amount: 70 }),
    ("14:30", Posting { kind: Kind::Withdrawal, account: 1, amount: 200 }),
    ("14:40", Posting { kind: Kind::Deposit, account: 1, amount: 500 }),
];

/// Milliseconds since the Unix epoch for a time of that day.
pub(crate) fn parse_time(text: &str) -> Result<i64, &'static str> {
    match text.split_once(':').map(|(hours, minutes)| (hours.parse(), minutes.parse())) {
        Some((Ok(hours @ 0..24_i64), Ok(minutes @ 0..60_i64))) => Ok(MIDNIGHT_MS + (hours * 60 + minutes) * MINUTE_MS),
        _ => Err("a time is like 14:35"),
    }
}

fn time(timestamp_ms: i64) -> String {
    let minutes = (timestamp_ms - MIDNIGHT_MS) / MINUTE_MS;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

pub(crate) fn run(log: &Log, at_ms: i64, account: u32) -> Result<()> {
    let ledger = ledger::open(log, "ledger", 1, Json)?;
    if ledger.topic().partition(0)?.end_offset() == 0 {
        let records = POSTINGS.iter().map(|(time, event)| Ok(ledger.record(event)?.timestamp_ms(parse_time(time)?)));
        ledger.topic().append_batch(records.collect::<Result<Vec<_>>>()?)?; // in one frame: all of them or none
    }
    let before = audit(&ledger, account)?;
    println!("The audit of account {account}:\n{before}\n");
    let balance = |until_ms, fold| balance(&ledger, account, until_ms, fold);
    let (now, then) = (balance(i64::MAX, fold)?, balance(at_ms, fold)?);
    println!("Its balance is {now}. What was it at {}? {then}.\n", time(at_ms));
    let (wrong, mended) = (balance(i64::MAX, wrong_fold)?, balance(i64::MAX, fold)?);
    println!("A fold that adds what was withdrawn gives {wrong}. Mended and replayed, it gives {mended}.");
    let unchanged = if audit(&ledger, account)? == before { "not one of them has" } else { "SOME HAVE" };
    println!("That needed no other events, and {unchanged} changed.");
    Ok(())
}

/// What a fold makes of the postings of an account up to a moment.
fn balance(ledger: &Ledger, account: u32, until_ms: i64, fold: fn(i64, &Posting) -> i64) -> Result<i64> {
    let mut balance = 0;
    for event in ledger.reader(Start::Earliest)? {
        let (record, posting) = event?;
        let posting = posting.ok_or("a posting is null")?;
        if posting.account == account && record.timestamp_ms() <= until_ms {
            balance = fold(balance, &posting);
        }
    }
    Ok(balance)
}

fn audit(ledger: &Ledger, account: u32) -> Result<String> {
    let (mut table, mut balance) = (Table::new(), 0);
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["Offset", "Time", "What", "Amount", "Balance"]);
    for event in ledger.reader(Start::Earliest)? {
        let (record, posting) = event?;
        let posting = posting.ok_or("a posting is null")?;
        if posting.account == account {
            balance = fold(balance, &posting);
            let (time, what) = (time(record.timestamp_ms()), format!("{:?}", posting.kind));
            let [offset, amount] = [record.offset(), posting.amount.into()].map(|number| number.to_string());
            table.add_row([offset, time, what, amount, balance.to_string()]);
        }
    }
    Ok(table.to_string())
}

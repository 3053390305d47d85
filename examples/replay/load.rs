//! Many events: appended in batches, replayed in batches (which copies nothing), and what that took.

use indicatif::{ProgressBar, ProgressStyle};
use tidelog::{Log, Start};

use crate::{
    Result,
    ledger::{self, Compact, Kind, Posting, fold},
};

const ACCOUNTS: u32 = 100_000;
const BATCH: u64 = 10_000;

pub(crate) fn run(log: &Log, count: u64) -> Result<()> {
    let ledger = ledger::open(log, "large-ledger", 4, Compact)?;
    measure("appended", count, |bar| {
        for first in (0..count).step_by(BATCH as usize) {
            let last = count.min(first + BATCH);
            ledger.append_batch((first..last).map(posting))?;
            bar.set_position(last);
        }
        Ok(count)
    })?;
    let (mut balances, mut replayed) = (vec![0; ACCOUNTS as usize], 0);
    measure("replayed", count, |bar| {
        let mut reader = ledger.topic().reader(Start::Earliest)?;
        while let Some(batch) = reader.next_batch()? {
            for (_, posting) in batch.typed(ledger.encoding()) {
                let posting: Posting = posting?.ok_or("a posting is null")?;
                let balance = &mut balances[(posting.account % ACCOUNTS) as usize];
                *balance = fold(*balance, &posting);
            }
            replayed += batch.len() as u64;
            bar.set_position(replayed);
        }
        Ok(replayed)
    })?;
    println!("{ACCOUNTS} accounts hold {} in all", balances.iter().sum::<i64>());
    Ok(())
}

/// In turn through the accounts: three deposits, then a withdrawal.
fn posting(number: u64) -> Posting {
    let (kind, amount) = if number % 4 < 3 { (Kind::Deposit, 100) } else { (Kind::Withdrawal, 50) };
    Posting { kind, account: (number / 4 % u64::from(ACCOUNTS)) as u32, amount }
}

/// Does some work with a bar, and tells at what rate.
fn measure(done: &'static str, count: u64, work: impl FnOnce(&ProgressBar) -> Result<u64>) -> Result<()> {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} {msg}, {per_sec}")?;
    let bar = ProgressBar::new(count).with_style(style).with_message(done);
    let (events, seconds) = (work(&bar)?, bar.elapsed().as_secs_f64());
    bar.finish_and_clear();
    println!("{events} events {done} in {seconds:.2} s, {:.0} a second", events as f64 / seconds);
    Ok(())
}

//! The ledger: what happened to accounts, and what follows from it.

use serde::{Deserialize, Serialize};
use tidelog::{Encoding, EncodingError, Json, Log, TopicConfig, TypedTopic};

use crate::Result;

/// Something that happened to an account.
#[derive(Serialize, Deserialize)]
pub(crate) struct Posting {
    pub(crate) kind: Kind,
    pub(crate) account: u32,
    /// In whole dollars.
    pub(crate) amount: u32,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Deposit,
    Withdrawal,
}

/// A posting in nine bytes, for many of them. JSON takes fifty.
pub(crate) struct Compact;

impl Encoding<Posting> for Compact {
    fn encode(&self, posting: &Posting, into: &mut Vec<u8>) -> Result<(), EncodingError> {
        into.push(posting.kind as u8);
        into.extend(posting.account.to_le_bytes());
        into.extend(posting.amount.to_le_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Posting, EncodingError> {
        let [kind, a, b, c, d, amount @ ..]: [u8; 9] = bytes.try_into()?;
        let kind = *[Kind::Deposit, Kind::Withdrawal].get(usize::from(kind)).ok_or("no kind of posting")?;
        Ok(Posting { kind, account: u32::from_le_bytes([a, b, c, d]), amount: u32::from_le_bytes(amount) })
    }
}

pub(crate) type Ledger<E = Json> = TypedTopic<Posting, E>;

/// A ledger of that name. What happens to an account keeps its order.
pub(crate) fn open<E: Encoding<Posting>>(log: &Log, name: &str, partitions: u32, encoding: E) -> Result<Ledger<E>> {
    let topic = log.ensure_topic(name, TopicConfig::with_partitions(partitions))?;
    Ok(topic.typed(encoding).keyed_by(|posting| posting.account.to_string().into()))
}

/// The balance after a posting.
pub(crate) fn fold(balance: i64, posting: &Posting) -> i64 {
    match posting.kind {
        Kind::Deposit => balance + i64::from(posting.amount),
        Kind::Withdrawal => balance - i64::from(posting.amount),
    }
}

/// The mistake that somebody made once: what is withdrawn is added.
pub(crate) fn wrong_fold(balance: i64, posting: &Posting) -> i64 {
    balance + i64::from(posting.amount)
}

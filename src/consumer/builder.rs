//! Opening a consumer: which topics, from where, how much at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[cfg(doc)]
use super::RebalanceKind;
use super::{
    Consumer, Rebalance, auto_commit::AutoCommit, core::Core, following::begin, rebalance::Callback,
    subscription::Subscription, waker::Signal,
};
use crate::{
    config::Start,
    error::{Error, Repr, Result},
    group::{Groups, Joining},
    housekeeper::Housekeeper,
    name::check_name,
    reader::{Bounds, CorruptionPolicy, OutOfRangePolicy, Policies, Turns},
    topic::Keepalive,
    topics::Topics,
};

/// About how much a `poll` returns at most, in bytes, unless told otherwise.
const MAX_POLL_BYTES: usize = 1 << 20;

/// The longest time between two polls, unless told otherwise.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What a consumer needs of its log.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) topics: Arc<Topics>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) housekeeper: Arc<Housekeeper>,
    pub(crate) keepalive: Keepalive,
}

/// Opens a [`Consumer`]: from [`Log::consumer`](crate::Log::consumer).
#[must_use = "a consumer is opened by `open`"]
pub struct ConsumerBuilder {
    context: Context,
    group: String,
    topics: Vec<String>,
    patterns: Vec<String>,
    start_if_new: Start,
    max_poll_bytes: usize,
    max_poll_records: usize,
    policies: Policies,
    auto_commit: Option<Duration>,
    max_poll_interval: Duration,
    on_rebalance: Option<Callback>,
}

impl ConsumerBuilder {
    pub(crate) fn new(context: Context, group: String) -> Self {
        Self {
            context,
            group,
            topics: Vec::new(),
            patterns: Vec::new(),
            start_if_new: Start::default(),
            max_poll_bytes: MAX_POLL_BYTES,
            max_poll_records: usize::MAX,
            policies: Policies::default(),
            auto_commit: None,
            max_poll_interval: MAX_POLL_INTERVAL,
            on_rebalance: None,
        }
    }

    /// Reads all partitions of this topic, also those that it gets later. Repeat it to read several topics.
    ///
    /// The topic has to be there when the consumer is opened. For one that may come later there is
    /// [`topic_pattern`](ConsumerBuilder::topic_pattern): a name is a pattern, too.
    #[doc(alias = "subscribe")]
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        self.topics.push(name.into());
        self
    }

    /// Reads all partitions of these topics: as [`topic`](ConsumerBuilder::topic), for each.
    pub fn topics<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(names.into_iter().map(Into::into));
        self
    }

    /// Reads all topics whose names match, also those that are created later; it may be none so far. Repeat it for
    /// several patterns, and mix it with names as you like: a topic is read once.
    ///
    /// A name is words separated by dots. In a pattern, `*` stands for exactly one word and `#` for any number of words,
    /// also none; every other word stands for itself. The log's own topics, whose names begin with `__`, are never
    /// matched.
    ///
    /// | pattern | matches | doesn't match |
    /// |---|---|---|
    /// | `orders.*` | `orders.eu` | `orders`, `orders.eu.paid` |
    /// | `orders.#` | `orders`, `orders.eu`, `orders.eu.paid` | `orders-eu` |
    /// | `*.paid` | `orders.paid` | `paid`, `orders.eu.paid` |
    /// | `#.paid` | `paid`, `orders.eu.paid` | `orders.paid.late` |
    /// | `orders` | `orders` | `orders.eu` |
    /// | `#` | every topic | |
    ///
    /// Those are the rules of topic exchanges in AMQP 0-9-1.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// let mut consumer = log.consumer("billing").topic_pattern("orders.*").open()?;
    /// assert!(consumer.assignment().is_empty());
    /// let orders = log.create_topic("orders.eu", TopicConfig::with_partitions(4))?;
    /// orders.append(Record::new("tea"))?;
    /// assert_eq!(consumer.poll(Duration::from_secs(1))?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "subscribe")]
    pub fn topic_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Where to begin in partitions for which the group has never committed. Default: [`Start::Earliest`].
    ///
    /// [`Start::Latest`] is the end at the moment of [`open`](ConsumerBuilder::open); a group that is to miss nothing
    /// from then on commits once, even if nothing has come yet. [`Start::Time`] begins at the first record of that time
    /// or behind it. Partitions and topics that come while the consumer is open are read from their beginning, whatever
    /// is said here: the group can't have meant to skip what wasn't there. Of several consumers of a group, the one that is
    /// there first says it, for the topics that it reads; the others go on from there.
    #[doc(alias = "auto.offset.reset")]
    pub fn start_if_new(mut self, start: Start) -> Self {
        self.start_if_new = start;
        self
    }

    /// About how much a [`poll`](Consumer::poll) returns at most, in bytes as they lie in the files. What was appended
    /// in one piece isn't divided for it, so it may be more. At least 1, default 1 MiB.
    pub fn max_poll_bytes(mut self, bytes: usize) -> Self {
        self.max_poll_bytes = bytes;
        self
    }

    /// How many records a [`poll`](Consumer::poll) returns at most, exactly: of a batch that was appended in one piece
    /// the rest comes next time. At least 1, default as many as
    /// [`max_poll_bytes`](ConsumerBuilder::max_poll_bytes) allows.
    #[doc(alias = "max.poll.records")]
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.max_poll_records = records;
        self
    }

    /// Commits by itself, about this often: a [`poll`](Consumer::poll) commits what *earlier* polls returned, once the
    /// interval has passed since the last commit; never what it is about to return. So as long as records are dealt with
    /// before the next `poll`, each is dealt with at least once. (Hand them to another thread and poll on, and some may
    /// be committed that never were dealt with: then commit yourself.) With [`Duration::ZERO`], each `poll` commits.
    ///
    /// [`close`](Consumer::close) commits the rest. Dropping never commits, also not this. Default: no.
    #[doc(alias = "enable.auto.commit")]
    #[doc(alias = "auto.commit.interval.ms")]
    pub fn auto_commit(mut self, interval: Duration) -> Self {
        self.auto_commit = Some(interval);
        self
    }

    /// What [`poll`](Consumer::poll) does at records that can't be read. Default: [`CorruptionPolicy::Fail`].
    pub fn on_corruption(mut self, policy: CorruptionPolicy) -> Self {
        self.policies.corruption = policy;
        self
    }

    /// What [`poll`](Consumer::poll) does where the position isn't (or is no longer) in the log. Default:
    /// [`OutOfRangePolicy::Fail`].
    #[doc(alias = "auto.offset.reset")]
    pub fn on_out_of_range(mut self, policy: OutOfRangePolicy) -> Self {
        self.policies.out_of_range = policy;
        self
    }

    /// What [`poll`](Consumer::poll) calls when partitions come to the consumer or go to others of its group. Default:
    /// nothing.
    ///
    /// - [`Revoked`](RebalanceKind::Revoked), *before* they go: commit what was dealt with, so that the next one goes on
    ///   behind it and sees nothing again. (With [`auto_commit`](ConsumerBuilder::auto_commit) that is done before the
    ///   call.)
    /// - [`Assigned`](RebalanceKind::Assigned), before anything of them is read: load what belongs to them, and
    ///   [`seek`](Rebalance::seek) where the offsets are kept elsewhere. Of the partitions that
    ///   [`open`](ConsumerBuilder::open) found free, the first `poll` tells.
    /// - [`Lost`](RebalanceKind::Lost): throw away what belongs to them; others may have it already.
    ///
    /// Only partitions that move are named; those that stay are read on, whatever happens to the others. Each one that
    /// was assigned is revoked or lost once, but when the consumer is dropped: [`close`](Consumer::close) revokes them.
    ///
    /// An error comes out of `poll`; the partitions come or go all the same.
    ///
    /// ```
    /// # use std::{collections::BTreeMap, time::Duration};
    /// # use tidelog::{Log, Record, RebalanceKind, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(4))?;
    /// # let offset_in_database = |_: &str, _: u32| 0;
    /// let mut consumer = log
    ///     .consumer("billing")
    ///     .topic("orders")
    ///     .on_rebalance(move |rebalance| {
    ///         if rebalance.kind() == RebalanceKind::Assigned {
    ///             for (topic, partition) in rebalance.partitions().to_vec() {
    ///                 rebalance.seek(&topic, partition, offset_in_database(&topic, partition))?;
    ///             }
    ///         }
    ///         Ok(())
    ///     })
    ///     .open()?;
    /// consumer.poll(Duration::ZERO)?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ConsumerRebalanceListener")]
    pub fn on_rebalance(mut self, callback: impl FnMut(&mut Rebalance<'_>) -> Result<()> + Send + 'static) -> Self {
        self.on_rebalance = Some(Box::new(callback));
        self
    }

    /// The longest time between two polls. A consumer that takes longer is expelled from its group, and its partitions
    /// go to the others; its next [`poll`](Consumer::poll) tells [`Lost`](RebalanceKind::Lost) and joins again. At least
    /// 1 ms, default 5 minutes; [`Duration::MAX`] for no limit.
    ///
    /// The time inside `poll` doesn't count, nor does that of a [`ready`](Consumer::ready) that is pending.
    #[doc(alias = "max.poll.interval.ms")]
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.max_poll_interval = interval;
        self
    }

    /// Opens the consumer: it joins its group, takes the partitions that are free at once, and goes on where the group
    /// has committed. Partitions that other consumers of the group are to give away come when they next
    /// [`poll`](Consumer::poll).
    ///
    /// # Errors
    /// - [`InvalidName`](crate::ErrorKind::InvalidName) for the group, a topic or a pattern.
    /// - [`InvalidConfig`](crate::ErrorKind::InvalidConfig): neither topic nor pattern, or more than 1,000;
    ///   `max_poll_bytes` or `max_poll_records` of zero; a `max_poll_interval` below 1 ms.
    /// - [`UnknownTopic`](crate::ErrorKind::UnknownTopic): no topic has the name that was given to
    ///   [`topic`](ConsumerBuilder::topic).
    /// - [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange): [`Start::Offset`] lies outside a partition in which
    ///   the group begins. (A *committed* offset outside the log is told by [`poll`](Consumer::poll).)
    /// - [`Corruption`](crate::ErrorKind::Corruption), [`Io`](crate::ErrorKind::Io): the place of [`Start::Time`] can't
    ///   be looked up.
    /// - [`StorageFull`](crate::ErrorKind::StorageFull), [`Io`](crate::ErrorKind::Io),
    ///   [`Poisoned`](crate::ErrorKind::Poisoned): that the consumer joined its group couldn't be recorded.
    /// - [`Closed`](crate::ErrorKind::Closed).
    pub fn open(self) -> Result<Consumer> {
        check_name("group", &self.group)?;
        let subscription = Subscription::parse(&self.topics, &self.patterns)?;
        if self.max_poll_bytes == 0 {
            return Err(invalid("max_poll_bytes", "at least 1 byte"));
        }
        if self.max_poll_records == 0 {
            return Err(invalid("max_poll_records", "at least 1 record"));
        }
        if self.max_poll_interval < Duration::from_millis(1) {
            return Err(invalid("max_poll_interval", "at least 1 ms"));
        }
        let signal = Arc::new(Signal::default());
        let Context { topics, groups, housekeeper, keepalive } = self.context;
        // First, since it tells whether the log was closed.
        groups.check_open()?;
        subscription.check(&topics)?;
        // Before the topics are looked at: what comes meanwhile is found by the first poll.
        let seen_topics = topics.changes().version();
        let start = self.start_if_new;
        let member = groups.join(Joining {
            group: &self.group,
            subscription: subscription.of_member()?,
            max_poll_interval: self.max_poll_interval,
            waiter: signal.waiter.clone(),
            begin: &|log| begin(log, start),
        })?;
        let mut core = Core {
            watching: None,
            seen_topics,
            seen_group: member.version(),
            generation: 0,
            member,
            topics,
            housekeeper,
            subscription,
            assigned: Vec::new(),
            lost: BTreeMap::new(),
            topics_had: BTreeMap::new(),
            on_rebalance: self.on_rebalance,
            turns: Turns::default(),
            signal,
            bounds: Bounds { bytes: self.max_poll_bytes, records: self.max_poll_records as u64 },
            policies: self.policies,
            start_if_new: self.start_if_new,
            auto_commit: self.auto_commit.map(AutoCommit::new),
        };
        if let Some(view) = core.member.view() {
            core.generation = view.generation;
            core.take_up(view);
        }
        Ok(Consumer { core, _keepalive: keepalive })
    }
}

impl std::fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("patterns", &self.patterns)
            .field("start_if_new", &self.start_if_new)
            .field("max_poll_bytes", &self.max_poll_bytes)
            .finish_non_exhaustive()
    }
}

fn invalid(option: &'static str, reason: &str) -> Error {
    Repr::InvalidConfig { option, reason: reason.into() }.into()
}

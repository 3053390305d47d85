//! Opening a consumer: which topics, from where, how much at once.

use std::{sync::Arc, time::Duration};

use super::{Assigned, Consumer};
use crate::{
    config::Start,
    error::{Repr, Result},
    group::{Groups, Joining, Owned, Subscription},
    name::check_name,
    partition::PartitionLog,
    pattern::TopicPattern,
    reader::{Place, Turns},
    topic::{Keepalive, TopicState},
    topics::Topics,
    waiter::Waiter,
};

/// About how much a `poll` returns at most, in bytes, unless told otherwise.
const MAX_POLL_BYTES: usize = 1 << 20;

/// What a consumer needs of its log.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) topics: Arc<Topics>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) keepalive: Keepalive,
}

/// Opens a [`Consumer`]: from [`Log::consumer`](crate::Log::consumer).
#[must_use = "a consumer is opened by `open`"]
pub struct ConsumerBuilder {
    context: Context,
    group: String,
    topics: Vec<String>,
    start_if_new: Start,
    max_poll_bytes: usize,
}

impl ConsumerBuilder {
    pub(crate) fn new(context: Context, group: String) -> Self {
        Self { context, group, topics: Vec::new(), start_if_new: Start::default(), max_poll_bytes: MAX_POLL_BYTES }
    }

    /// Reads all partitions of this topic. Repeat it to read several topics.
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.topics.contains(&name) {
            self.topics.push(name);
        }
        self
    }

    /// Where to begin in partitions for which the group has never committed. Default: [`Start::Earliest`].
    ///
    /// [`Start::Latest`] is the end at the moment of [`open`](ConsumerBuilder::open); a group that is to miss nothing
    /// from then on commits once, even if nothing has come yet.
    pub fn start_if_new(mut self, start: Start) -> Self {
        self.start_if_new = start;
        self
    }

    /// About how much a [`poll`](Consumer::poll) returns at most, in bytes as they lie in the files. What was appended
    /// in one piece isn't divided, so it may be more. At least 1, default 1 MiB.
    pub fn max_poll_bytes(mut self, bytes: usize) -> Self {
        self.max_poll_bytes = bytes;
        self
    }

    /// Opens the consumer: it goes on where its group has committed.
    ///
    /// # Errors
    /// - [`InvalidName`](crate::ErrorKind::InvalidName) for the group or a topic.
    /// - [`InvalidConfig`](crate::ErrorKind::InvalidConfig): no topic, or `max_poll_bytes` of zero.
    /// - [`UnknownTopic`](crate::ErrorKind::UnknownTopic).
    /// - [`GroupInUse`](crate::ErrorKind::GroupInUse): another consumer of the group is alive.
    /// - [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange): [`Start::Offset`] lies outside a partition in which
    ///   the group begins. (A *committed* offset outside the log is told by [`poll`](Consumer::poll).)
    /// - [`Closed`](crate::ErrorKind::Closed).
    pub fn open(self) -> Result<Consumer> {
        check_name("group", &self.group)?;
        if self.topics.is_empty() {
            return Err(invalid("topic", "a consumer reads one topic at least"));
        }
        if self.max_poll_bytes == 0 {
            return Err(invalid("max_poll_bytes", "at least 1 byte"));
        }
        let waiter = Arc::new(Waiter::default());
        self.context.groups.check_open()?;
        let topics: Vec<_> = self.topics.iter().map(|name| self.context.topics.get(name)).collect::<Result<_>>()?;
        let begin = |log: &Arc<PartitionLog>| Ok(Place::at(log, self.start_if_new)?.position());
        let names = self.topics.iter().map(|name| TopicPattern::parse(name)).collect::<Result<Vec<_>>>()?;
        let member = self.context.groups.join(Joining {
            group: &self.group,
            subscription: Subscription::new(names)?,
            max_poll_interval: Duration::MAX,
            waiter: waiter.clone(),
            begin: &begin,
        })?;
        if self.context.groups.describe(&self.group)?.members.len() > 1 {
            return Err(Repr::GroupInUse { group: self.group }.into());
        }
        let mut consumer = Consumer {
            member,
            assigned: Vec::new(),
            places: Vec::new(),
            turns: Turns::default(),
            waiter,
            max_poll_bytes: self.max_poll_bytes,
            start_if_new: self.start_if_new,
            _keepalive: self.context.keepalive,
        };
        let owned = consumer.member.view().map(|view| view.owned).unwrap_or_default();
        for topic in topics {
            consumer.assign(&topic, &owned);
        }
        Ok(consumer)
    }
}

impl Consumer {
    /// Adds what is owned of a topic.
    fn assign(&mut self, topic: &TopicState, owned: &[Owned]) {
        for owned in owned.iter().filter(|owned| owned.log.spec().topic_id == topic.id) {
            let (log, number) = (&owned.log, owned.log.spec().number);
            self.places.push(Place::new(log, owned.committed.unwrap_or(owned.start)));
            self.assigned.push(Assigned {
                topic: topic.name.clone(),
                topic_id: topic.id,
                number,
                epoch: owned.epoch,
                first_position: owned.start,
            });
        }
    }
}

impl std::fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("start_if_new", &self.start_if_new)
            .field("max_poll_bytes", &self.max_poll_bytes)
            .finish_non_exhaustive()
    }
}

fn invalid(option: &'static str, reason: &str) -> crate::error::Error {
    Repr::InvalidConfig { option, reason: reason.into() }.into()
}

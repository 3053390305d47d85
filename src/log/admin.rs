//! Administration: the life of topics, and what there is to know of them.

use super::Log;
use crate::{config::TopicConfig, error::Result, topic::Topic};

impl Log {
    /// Deletes a topic with all its records, and what groups have committed for it. When this returns, that is durable.
    ///
    /// It is deleted in one step: a crash leaves it whole or gone. Handles of it are told: what they are asked they
    /// answer with kind [`UnknownTopic`](crate::ErrorKind::UnknownTopic), and who sleeps for its records wakes up to
    /// hear it. Batches that were read stay valid.
    ///
    /// A topic that is created by the same name later is another one and inherits nothing: no records, no offsets, no
    /// commits.
    ///
    /// ```
    /// # use tidelog::{ErrorKind, Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// let orders = log.create_topic("orders", TopicConfig::with_partitions(4))?;
    /// log.delete_topic("orders")?;
    /// assert_eq!(orders.append(Record::new("tea")).unwrap_err().kind(), ErrorKind::UnknownTopic);
    /// let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
    /// assert_eq!(orders.append(Record::new("tea"))?.offset, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`UnknownTopic`](crate::ErrorKind::UnknownTopic), [`InvalidName`](crate::ErrorKind::InvalidName),
    ///   [`Closed`](crate::ErrorKind::Closed).
    /// - [`Io`](crate::ErrorKind::Io), and the topic is still there: nothing has changed.
    /// - [`Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull),
    ///   [`Corruption`](crate::ErrorKind::Corruption) and others, and [`topic`](Log::topic) doesn't find it any more:
    ///   it is gone for all handles, but some of its files are left. They are removed by calling this again, by the next
    ///   open, or before a topic of that name is created. Only after a power cut may the topic be there again, whole.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.check_open()?;
        self.shared.topics.delete(name, &|id| self.shared.forget_topic(id))
    }

    /// Raises the number of a topic's partitions to `count`. When this returns, it is durable; all handles of the topic
    /// see it at once. With as many as there are nothing happens, so that a program can ask for it at every start.
    ///
    /// # What that does to keys
    /// The partition of a key depends on how many there are: records of most keys go to other partitions from now on,
    /// while those that are there stay where they are. So the order of a key's records holds among the earlier ones and
    /// among the later ones, but a reader may meet a later one before an earlier one. If that matters, give the topic
    /// enough partitions from the beginning, or create another one and copy the records there.
    ///
    /// The new partitions are empty. Consumer groups read them from their start.
    ///
    /// # Errors
    /// - [`PartitionCountMismatch`](crate::ErrorKind::PartitionCountMismatch): there are more. Partitions are never
    ///   taken away.
    /// - [`InvalidConfig`](crate::ErrorKind::InvalidConfig): more than [`MAX_PARTITIONS`](crate::MAX_PARTITIONS), or 0.
    /// - [`UnknownTopic`](crate::ErrorKind::UnknownTopic), [`InvalidName`](crate::ErrorKind::InvalidName),
    ///   [`Closed`](crate::ErrorKind::Closed).
    /// - [`Corruption`](crate::ErrorKind::Corruption): a folder named like one of the new partitions is there and may
    ///   hold records. It isn't touched.
    /// - [`Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull): handles see as many as before.
    ///   If it failed in its last step, the log may have the new ones when it is opened again.
    pub fn increase_partitions(&self, name: &str, count: u32) -> Result<Topic> {
        self.check_open()?;
        Ok(self.handle(self.shared.topics.increase_partitions(name, count)?))
    }

    /// Changes a topic's options; answers what they are then. When this returns, they are durable, and in use: by the
    /// next append, and by what happens in the background. A smaller segment size counts from the next segment on.
    ///
    /// `change` gets the options as they are. With `None` an option becomes the log's own again:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidelog::{Durability, Log, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # log.create_topic("orders", TopicConfig::with_partitions(4).durability(Durability::Synced))?;
    /// log.alter_topic("orders", |config| config.retention_age(Duration::from_secs(7 * 24 * 60 * 60)).durability(None))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// If others change the same topic meanwhile, `change` is called again, with what they made of it.
    ///
    /// # Errors
    /// - [`InvalidConfig`](crate::ErrorKind::InvalidConfig): an option out of its bounds; nothing has changed.
    /// - [`PartitionCountMismatch`](crate::ErrorKind::PartitionCountMismatch): what `change` answered has another number
    ///   of partitions, for which there is [`increase_partitions`](Log::increase_partitions).
    /// - [`UnknownTopic`](crate::ErrorKind::UnknownTopic), [`InvalidName`](crate::ErrorKind::InvalidName),
    ///   [`Closed`](crate::ErrorKind::Closed).
    /// - [`Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull): the options in use stay. If it
    ///   failed in its last step, the new ones may be in use when the log is opened again.
    pub fn alter_topic(&self, name: &str, change: impl Fn(TopicConfig) -> TopicConfig) -> Result<TopicConfig> {
        self.check_open()?;
        // What is kept may be bounded from now on.
        self.shared.housekeeper.begin()?;
        self.shared.topics.alter(name, change)
    }
}

//! A consumer as a stream of batches.

use std::{
    borrow::BorrowMut,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::Consumer;
use crate::{
    error::{ErrorKind, Result},
    group::Polling,
    partition::Batch,
};

/// The batches of a consumer, as they come: made by [`Consumer::stream`], which borrows the consumer, and
/// [`Consumer::into_stream`], which owns it.
///
/// It polls with no timeout whenever there is something, and needs no runtime and no thread of its own. An error is an
/// item; those that stay until somebody moves on (see [`Consumer::poll`]) come again and again, so stop at them, or
/// [`seek`](Consumer::seek). It ends (`None`) behind kind [`Closed`](crate::ErrorKind::Closed) alone. A batch has no
/// record where a policy skipped something ([`Batch::skipped`]), and where a
/// [`ConsumerWaker`](crate::ConsumerWaker) has ended the wait.
///
/// Dropping it between two items loses nothing: what it hasn't given isn't taken.
///
/// ```
/// # use tidelog::{Log, Record, TopicConfig};
/// use futures_util::StreamExt;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
/// # runtime.block_on(async {
/// # let log = Log::options().in_memory().open("shop")?;
/// # let orders = log.create_topic("orders", TopicConfig::with_partitions(4))?;
/// # orders.append(Record::new("tea").key("customer-42"))?;
/// let mut consumer = log.consumer("billing").topic("orders").open()?;
/// let mut stream = consumer.stream();
/// while let Some(batch) = stream.next().await {
///     for record in &batch? {
///         println!("to bill: {}", record.value_str()?.unwrap_or_default());
///     }
///     stream.get_mut().commit()?;
/// #   break;
/// }
/// # Ok::<(), tidelog::Error>(())
/// # }).expect("it works");
/// ```
pub struct ConsumerStream<C: BorrowMut<Consumer>> {
    consumer: C,
    /// While it waits.
    polling: Option<Polling>,
    ended: bool,
}

impl Consumer {
    /// The batches as they come, as a stream.
    #[cfg_attr(docsrs, doc(cfg(feature = "stream")))]
    pub fn stream(&mut self) -> ConsumerStream<&mut Consumer> {
        ConsumerStream { consumer: self, polling: None, ended: false }
    }

    /// As [`stream`](Consumer::stream); the stream owns the consumer, and so can be kept and sent.
    #[cfg_attr(docsrs, doc(cfg(feature = "stream")))]
    pub fn into_stream(self) -> ConsumerStream<Consumer> {
        ConsumerStream { consumer: self, polling: None, ended: false }
    }
}

impl<C: BorrowMut<Consumer>> ConsumerStream<C> {
    /// The consumer.
    pub fn get_ref(&self) -> &Consumer {
        self.consumer.borrow()
    }

    /// The consumer, to commit or to seek between two items.
    pub fn get_mut(&mut self) -> &mut Consumer {
        self.consumer.borrow_mut()
    }

    /// The consumer, at the position behind the last item.
    pub fn into_inner(self) -> C {
        self.consumer
    }

    fn next_batch(&mut self, context: &Context<'_>) -> Poll<Result<Batch>> {
        let core = &mut self.consumer.borrow_mut().core;
        let polling = self.polling.take().unwrap_or_else(|| core.member.polling());
        loop {
            if core.poll_ready(context).is_pending() {
                self.polling = Some(polling);
                return Poll::Pending;
            }
            match core.poll_now() {
                Ok(polled) if polled.is_something() => return Poll::Ready(Ok(polled.batch)),
                Ok(_) => {} // something else was done: a commit was due, or a topic came
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<C: BorrowMut<Consumer> + Unpin> Stream for ConsumerStream<C> {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.next_batch(context);
        if let Poll::Ready(batch) = &polled {
            self.consumer.borrow().core.count_poll(batch);
        }
        if matches!(&polled, Poll::Ready(Err(error)) if error.kind() == ErrorKind::Closed) {
            self.ended = true;
        }
        polled.map(Some)
    }
}

impl<C: BorrowMut<Consumer>> fmt::Debug for ConsumerStream<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerStream").field("consumer", self.get_ref()).finish_non_exhaustive()
    }
}

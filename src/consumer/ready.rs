//! Waiting without blocking a thread.
//!
//! # Invariants
//! Partitions know of the consumer only while the future is pending. A future that is dropped leaves nothing behind:
//! no record is lost, for it takes none.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{Consumer, core::Core, watching::Watching};
use crate::group::Polling;

/// A future that waits until a [`poll`](Consumer::poll) wouldn't: made by [`Consumer::ready`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Ready<'a> {
    consumer: &'a mut Consumer,
    _polling: Polling,
}

impl<'a> Ready<'a> {
    pub(super) fn new(consumer: &'a mut Consumer) -> Self {
        Self { _polling: consumer.core.member.polling(), consumer }
    }
}

impl Future for Ready<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.get_mut().consumer.core.poll_ready(context)
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        self.consumer.core.watching = None;
    }
}

impl fmt::Debug for Ready<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("consumer", &self.consumer).finish()
    }
}

impl Core {
    /// Whether there is work; if not, the task is woken when there may be.
    pub(super) fn poll_ready(&mut self, context: &Context<'_>) -> Poll<()> {
        if !self.has_work() {
            self.signal.waiter.register(context.waker());
            if self.watching.is_none() {
                self.watching = Some(Watching::new(self));
            }
            self.set_alarm();
            // Only now is nothing missed that comes behind this look (see `waiter`).
            if !self.has_work() {
                return Poll::Pending;
            }
        }
        self.watching = None;
        Poll::Ready(())
    }
}

//! What of a partition isn't on the device, for the gauges.

use super::PartitionLog;
use crate::{frame::FrameHeader, segment_header::DATA_START};

/// How far the device is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FlushLag {
    /// Bytes of frames.
    pub(crate) bytes: u64,
    /// When the oldest of these frames was appended, by the log's own time.
    pub(crate) since_ms: Option<i64>,
}

impl PartitionLog {
    pub(crate) fn flush_lag(&self) -> FlushLag {
        let mut lag = FlushLag::default();
        // The segments first: what is durable then is so still.
        let unsynced = self.sync.lock().unsynced.clone();
        let (durable, end) = (self.control.durable(), self.control.committed());
        for segment in unsynced {
            let sequence = segment.header.sequence;
            let start = match sequence.cmp(&durable.sequence().into()) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal => durable.file_position().max(DATA_START),
                std::cmp::Ordering::Greater => DATA_START,
            };
            let active_end = (sequence == u64::from(end.sequence())).then(|| end.file_position());
            let Some(end) = segment.sealed_end().or(active_end).filter(|end| start < *end) else { continue };
            lag.bytes += end - start;
            if lag.since_ms.is_none() {
                // SAFETY: `end` is the published end of the segment.
                let bytes = unsafe { segment.published(start, end) };
                let header = FrameHeader::decode(bytes, segment.seed, start).ok();
                let time_ms =
                    header.map(|it| segment.header.base_timestamp_ms.saturating_add(it.relative_time_ms.into()));
                lag.since_ms = time_ms;
            }
        }
        lag
    }

    /// Whether it takes no appends because a sync failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poison.get().is_some()
    }

    /// The log's own time.
    pub(crate) fn now_ms(&self) -> i64 {
        self.env.clock.now_ms()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::partition::tests::{Machine, append_numbers};

    #[test]
    fn what_isnt_on_the_device_is_counted_from_its_first_frame() {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let none = FlushLag::default();
        let now_ms = || machine.now_ms.load(std::sync::atomic::Ordering::Relaxed);
        let lag = |partition: &Arc<PartitionLog>| partition.flush_lag();
        assert_eq!(lag(&partition), none);
        append_numbers(&partition, 0..10);
        let ten = lag(&partition);
        assert_eq!(ten.since_ms, Some(now_ms()));
        assert!(ten.bytes > 10 * 20);
        partition.flush().unwrap();
        assert_eq!(lag(&partition), none);

        // Over a roll, counted from the frame before it.
        machine.advance_ms(1000);
        append_numbers(&partition, 0..10);
        let since_ms = now_ms();
        partition.roll().unwrap();
        assert_eq!(lag(&partition), FlushLag { since_ms: Some(since_ms), ..ten });
        machine.advance_ms(1000);
        append_numbers(&partition, 0..10);
        assert_eq!(lag(&partition), FlushLag { since_ms: Some(since_ms), bytes: 2 * ten.bytes });
        partition.flush().unwrap();
        assert_eq!(lag(&partition), none);
        assert!(!partition.is_poisoned());
        partition.close().unwrap();
        assert_eq!(lag(&partition), none);
    }
}

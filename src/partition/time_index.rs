//! Finding records by time.

use std::sync::Arc;

use super::{Batch, Cursor, PartitionLog};
use crate::error::Result;

/// Bytes that are read at once.
const SCAN_BYTES: usize = 256 << 10;

impl PartitionLog {
    /// The offset of the first record whose timestamp is at or behind `time_ms`; `None` if there is none.
    pub(crate) fn offset_for_time(self: &Arc<Self>, time_ms: i64) -> Result<Option<u64>> {
        let mut cursor = Cursor::new(self, self.start_offset())?;
        while let Some(run) = cursor.next_run(SCAN_BYTES)? {
            let batch = Batch::new(vec![run]);
            if let Some(record) = batch.iter().find(|record| record.timestamp_ms() >= time_ms) {
                return Ok(Some(record.offset()));
            }
        }
        Ok(None)
    }
}

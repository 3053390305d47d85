//! The handle of a segment's file. The map needs none once it is there; syncing what was stored through it, giving it
//! space and trimming it do.
//!
//! # Invariants
//! - A handle is closed only when everything that was stored in the file, through the handle or the map, was synced
//!   through this very handle since; and nothing more is stored before there is one again. With a handle goes the
//!   kernel's memory of a write that failed, and a later sync would answer that all is well.
//! - Who sees to that: while a segment is active, its writer ([`PartitionLog::close_clean_handle`]), which stores only
//!   below a mark that it lowers to the end when the handle is closed; once it is sealed, whoever syncs it.
//! - So where there is no handle, everything in the file is on the device.
//!
//! [`PartitionLog::close_clean_handle`]: super::PartitionLog::close_clean_handle
//!
//! # Thread safety
//! Any thread may ask for the handle, and keeps it open as long as it has it. Closing is up to those named above.

use std::{io, path::Path, sync::Arc};

use super::open_files::{Counted, OpenFiles};
use crate::{
    storage::{File, Region, Storage},
    sync::Mutex,
};

/// A handle that is open or not.
#[derive(Debug, Default)]
pub(crate) struct SegmentFile {
    open: Mutex<Option<Handle>>,
}

#[derive(Debug)]
struct Handle {
    file: Arc<dyn File>,
    _counted: Counted,
}

impl SegmentFile {
    pub(crate) fn opened(file: Arc<dyn File>, open_files: &Arc<OpenFiles>) -> Self {
        Self { open: Mutex::new(Some(Handle { file, _counted: Counted::new(open_files) })) }
    }

    /// The handle, if it is open.
    pub(crate) fn get(&self) -> Option<Arc<dyn File>> {
        self.open.lock().as_ref().map(|handle| handle.file.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.lock().is_some()
    }

    /// The handle, opened again if it was closed: `path` must still lead to what `region` maps.
    pub(crate) fn get_or_open(
        &self,
        storage: &dyn Storage,
        path: &Path,
        region: &Region,
        open_files: &Arc<OpenFiles>,
    ) -> io::Result<Arc<dyn File>> {
        let mut open = self.open.lock();
        if let Some(handle) = &*open {
            return Ok(handle.file.clone());
        }
        let file = storage.reopen(path, region)?;
        *open = Some(Handle { file: file.clone(), _counted: Counted::new(open_files) });
        Ok(file)
    }

    /// Closes the handle. See the invariants for who may.
    pub(crate) fn close(&self) {
        let handle = self.open.lock().take();
        drop(handle); // Not under the lock: closing may take a while.
    }
}

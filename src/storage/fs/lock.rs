//! The exclusive lock on a file, and the id of the process that holds it.
//!
//! # Format
//! The file holds the last holder's process id in decimal digits, ended by a newline. It is for people to read: only
//! the kernel's lock decides, so the text is neither synced nor trusted, and what stands behind the newline (the rest
//! of a longer id) is ignored.
//!
//! # Invariants
//! - The lock belongs to the open file, not to the process: two opens in one process exclude each other too. (A
//!   classic `fcntl` lock wouldn't, and would be lost when any other handle of the file is closed.)
//! - It is gone when the process is. A child started by exec doesn't have the file; one that was only forked does,
//!   and keeps the lock alive while it runs, so dropping ours unlocks before it closes. A forked child that drops
//!   its copy does not unlock, which would take the lock from its parent.
//!
//! Any thread may call.

use std::{fs, io, path::Path};

#[cfg(unix)]
use self::unix as kernel;
#[cfg(windows)]
use self::windows as kernel;
use super::{super::LockOutcome, sys};

/// Longest text that is looked at.
const HOLDER_BYTES: usize = 32;

/// Takes the lock if it is free.
pub(super) fn lock_exclusive(path: &Path) -> io::Result<LockOutcome> {
    let Some(file) = kernel::open_locked(path)? else {
        return Ok(LockOutcome::Held(read_holder(path)));
    };
    record_holder(&file);
    Ok(LockOutcome::Acquired(Box::new(HeldLock { file, process_id: std::process::id() })))
}

/// Takes a lock that excludes the exclusive one, if that is free. Several can have it.
pub(super) fn lock_shared(path: &Path) -> io::Result<LockOutcome> {
    match kernel::open_shared(path)? {
        None => Ok(LockOutcome::Held(read_holder(path))),
        Some(file) => Ok(LockOutcome::Acquired(Box::new(HeldLock { file, process_id: std::process::id() }))),
    }
}

/// A held lock.
struct HeldLock {
    file: fs::File,
    /// Who took it, to tell a forked child from its parent.
    process_id: u32,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        if self.process_id == std::process::id() {
            kernel::unlock(&self.file);
        }
    }
}

/// Writes our process id. A full disk must not keep a log from being opened for reading, so an error only leaves the
/// text as it was; and the old text is written over, not cut first, for that takes no new block.
fn record_holder(file: &fs::File) {
    let text = format!("{}\n", std::process::id());
    let _ = sys::write_all_at(file, text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64));
}

/// The process id that the file names.
fn read_holder(path: &Path) -> Option<u32> {
    let file = fs::File::open(path).ok()?;
    let mut text = [0; HOLDER_BYTES];
    let read = sys::read_some_at(&file, &mut text, 0).ok()?;
    parse_holder(&text[..read])
}

/// The number before the first newline.
fn parse_holder(text: &[u8]) -> Option<u32> {
    let end = text.iter().position(|&byte| byte == b'\n')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

#[cfg(unix)]
mod unix {
    use std::{fs, io, path::Path};

    /// Opens the file and locks it; `None` if somebody else has the lock.
    pub(super) fn open_locked(path: &Path) -> io::Result<Option<fs::File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = super::sys::open_regular(&mut options, path)?;
        Ok(try_lock(&file, true)?.then_some(file))
    }

    /// Opens the file for reading and locks it so that nobody else gets the exclusive lock; `None` if somebody has that.
    pub(super) fn open_shared(path: &Path) -> io::Result<Option<fs::File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        let file = super::sys::open_regular(&mut options, path)?;
        Ok(try_lock(&file, false)?.then_some(file))
    }

    /// Locks through the open file description, which newer kernels offer beside the classic locks of a process.
    #[cfg(target_os = "linux")]
    fn try_lock(file: &fs::File, exclusive: bool) -> io::Result<bool> {
        let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        loop {
            let error = match set_lock(file, kind) {
                Ok(()) => return Ok(true),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
                Some(libc::EINTR) => {}
                _ => return Err(error),
            }
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn unlock(file: &fs::File) {
        // Fails only for a bad file descriptor; closing comes next anyway.
        let _ = set_lock(file, libc::F_UNLCK);
    }

    /// One try to lock or unlock the whole file.
    #[cfg(target_os = "linux")]
    fn set_lock(file: &fs::File, kind: libc::c_int) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        // SAFETY: plain numbers, for which zero is a value. From the start, to whatever end, by no process.
        let mut lock: libc::flock64 = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        // SAFETY: the descriptor is open as long as `file` is borrowed, and this command reads a `flock64`, on
        // 32-bit systems too.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn try_lock(file: &fs::File, exclusive: bool) -> io::Result<bool> {
        use rustix::{
            fs::{FlockOperation, flock},
            io::{Errno, retry_on_intr},
        };
        let operation = match exclusive {
            true => FlockOperation::NonBlockingLockExclusive,
            false => FlockOperation::NonBlockingLockShared,
        };
        match retry_on_intr(|| flock(file, operation)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn unlock(file: &fs::File) {
        // Fails only for a bad file descriptor; closing comes next anyway.
        let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
    }
}

#[cfg(windows)]
mod windows {
    use std::{fs, io, os::windows::fs::OpenOptionsExt, path::Path};

    const FILE_SHARE_READ: u32 = 1;
    const ERROR_SHARING_VIOLATION: i32 = 32;

    /// Opens the file so that nobody else can open it for writing: that is the lock.
    pub(super) fn open_locked(path: &Path) -> io::Result<Option<fs::File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).share_mode(FILE_SHARE_READ);
        unless_shared(options.open(path))
    }

    /// Opens the file for reading, so that nobody else can open it for writing; `None` if somebody has.
    pub(super) fn open_shared(path: &Path) -> io::Result<Option<fs::File>> {
        unless_shared(fs::OpenOptions::new().read(true).share_mode(FILE_SHARE_READ).open(path))
    }

    fn unless_shared(opened: io::Result<fs::File>) -> io::Result<Option<fs::File>> {
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Closing is what unlocks.
    pub(super) fn unlock(_file: &fs::File) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire(path: &Path) -> Option<super::super::super::Lock> {
        match lock_exclusive(path).unwrap() {
            LockOutcome::Acquired(lock) => Some(lock),
            LockOutcome::Held(_) => None,
        }
    }

    #[test]
    fn the_holder_is_the_number_before_the_newline() {
        assert_eq!(parse_holder(b"4711\n"), Some(4711));
        assert_eq!(parse_holder(b"47\n11\n"), Some(47));
        for odd in [&b""[..], b"4711", b"\n", b"-1\n", b"\xff\n", b"99999999999\n"] {
            assert_eq!(parse_holder(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_shorter_id_replaces_a_longer_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("exclusive");
        fs::write(&path, "12345678901234567890\n").unwrap();
        let _lock = acquire(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_shared_lock_keeps_the_exclusive_one_away_and_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("exclusive");
        let share = || match lock_shared(&path).unwrap() {
            LockOutcome::Acquired(lock) => Some(lock),
            LockOutcome::Held(holder) => {
                assert_eq!(holder, Some(std::process::id()));
                None
            }
        };
        assert_eq!(lock_shared(&path).err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
        let exclusive = acquire(&path).unwrap();
        assert!(share().is_none());
        drop(exclusive);
        fs::write(&path, "17\n").unwrap();
        let (first, second) = (share().unwrap(), share().unwrap());
        assert!(acquire(&path).is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "17\n");
        drop((first, second));
        assert!(acquire(&path).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_child_started_by_exec_does_not_keep_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("exclusive");
        let locked = || kernel::open_locked(&path).unwrap();
        let file = locked().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(locked().is_none());
        // Closed without unlocking, as when the process dies. Children that other tests are about to start may
        // have the file until their exec.
        drop(file);
        let freed = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            locked().is_some()
        });
        let alive = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(freed && alive);
    }

    #[cfg(unix)]
    #[test]
    fn our_drop_unlocks_for_forked_copies_but_theirs_does_not_for_us() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("exclusive");
        let file = kernel::open_locked(&path).unwrap().unwrap();
        let copy = file.try_clone().unwrap();
        drop(HeldLock { file: copy, process_id: 0 });
        assert!(acquire(&path).is_none());
        let copy = file.try_clone().unwrap();
        drop(HeldLock { file, process_id: std::process::id() });
        assert!(acquire(&path).is_some());
        drop(copy);
    }
}

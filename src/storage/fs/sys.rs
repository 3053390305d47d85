//! Calls on files that differ from one system to another: reservation, writeback, holes, identity, folders, maps.
//!
//! Each function stands here once for each family of systems, under the same name and with the same meaning; the
//! caller knows none of the differences. Any thread may call any of them.

use std::{fs, io, ops::Range, path::Path, sync::Arc};

#[cfg(not(target_os = "linux"))]
use std::sync::Weak;

use memmap2::MmapRaw;

use super::{super::FileIdentity, FileMap};
use crate::error::NotAFile;

/// Opens a regular file, and nothing else: what a link leads to isn't touched, a pipe without another end isn't waited
/// for, a terminal doesn't become ours. A device isn't even opened, which may be to do something with it.
pub(super) fn open_regular(options: &mut fs::OpenOptions, path: &Path) -> io::Result<fs::File> {
    if let Ok(found) = fs::symlink_metadata(path) {
        check_regular(found.file_type())?;
    }
    // And again, as it may be another one by now.
    take_as_is(options);
    let (found, outcome) = match options.open(path) {
        // The system says this and that of what can't be opened so.
        Err(error) => match fs::symlink_metadata(path) {
            Ok(found) => (found, Err(error)),
            Err(_) => return Err(error),
        },
        Ok(file) => (file.metadata()?, Ok(file)),
    };
    check_regular(found.file_type())?;
    outcome
}

fn check_regular(kind: fs::FileType) -> io::Result<()> {
    match kind {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_symlink() => Err(NotAFile("a symbolic link").into()),
        kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(NotAFile("a pipe, a socket or a device").into()),
    }
}

#[cfg(unix)]
fn take_as_is(options: &mut fs::OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
}

/// A link is opened as itself, and so found out.
#[cfg(windows)]
fn take_as_is(options: &mut fs::OpenOptions) {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
    options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
}

/// One read, which may be short or interrupted.
#[cfg(unix)]
pub(super) fn read_some_at(file: &fs::File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, position)
}

#[cfg(windows)]
pub(super) fn read_some_at(file: &fs::File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, position)
}

/// Writes everything.
#[cfg(unix)]
pub(super) fn write_all_at(file: &fs::File, bytes: &[u8], position: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, position)
}

#[cfg(windows)]
pub(super) fn write_all_at(file: &fs::File, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                position += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The size of the largest page of the page cache: what one entry of a page table's middle level maps, 2 MiB where a page
/// has 4 KiB. (`MAX_PAGECACHE_ORDER` in the kernel: an entry of eight bytes for each page of a table that fills one; at
/// most 2^11 pages, which is what the cache's tree takes.)
#[cfg(target_os = "linux")]
pub(super) fn page_limit() -> u64 {
    let page = rustix::param::page_size() as u64;
    page * (page / 8).min(1 << 11)
}

/// The greatest that is in use.
#[cfg(not(target_os = "linux"))]
pub(super) fn page_limit() -> u64 {
    64 << 10
}

/// A map that is stored into from one end to the other.
#[cfg(target_os = "linux")]
pub(super) fn expect_stream(map: &MmapRaw) {
    // Without such pages in the kernel it fails, which is as well.
    let _ = map.advise(memmap2::Advice::HugePage);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn expect_stream(_map: &MmapRaw) {}

/// Makes the pages of a range as stores would, without any; false where the system never does.
#[cfg(target_os = "linux")]
pub(super) fn prefault(map: &MmapRaw, range: Range<usize>) -> bool {
    let made = map.advise_range(memmap2::Advice::PopulateWrite, range.start, range.len());
    // Where there is no space, or the file was cut meanwhile, this is another error, where a store would be a signal. This
    // one is that of Linux before 5.14.
    !made.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn prefault(_map: &MmapRaw, _range: Range<usize>) -> bool {
    false
}

/// A map that is used here and there.
#[cfg(unix)]
pub(super) fn expect_random(map: &MmapRaw) {
    let _ = map.advise(memmap2::Advice::Random);
}

#[cfg(not(unix))]
pub(super) fn expect_random(_map: &MmapRaw) {}

/// A file that is read here and there.
#[cfg(target_os = "linux")]
pub(super) fn expect_random_reads(file: &fs::File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn expect_random_reads(_file: &fs::File) {}

/// Gives a range within the file's length blocks of its own.
#[cfg(target_os = "linux")]
pub(super) fn reserve(file: &fs::File, range: Range<u64>) -> io::Result<()> {
    use rustix::{
        fs::{FallocateFlags, fallocate},
        io::{Errno, retry_on_intr},
    };
    let len = range.end - range.start;
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), range.start, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill_holes(file, range),
        outcome => Ok(outcome?),
    }
}

/// No call does it for a range in the middle of a file here.
#[cfg(all(unix, not(target_os = "linux")))]
pub(super) fn reserve(file: &fs::File, range: Range<u64>) -> io::Result<()> {
    fill_holes(file, range)
}

/// A file that isn't marked sparse (ours never are) got its clusters with its length.
#[cfg(windows)]
pub(super) fn reserve(_file: &fs::File, _range: Range<u64>) -> io::Result<()> {
    Ok(())
}

/// Gives a range blocks by writing zeros into its holes, which read as zeros before and after.
///
/// Where the file system knows of data nothing is written, so contents stay, also those of a page that somebody
/// stores into through a map meanwhile: the seam's rule is that nobody does so in an unreserved range. A file system
/// that keeps holes but doesn't tell where they are (it calls everything data) is left as it is: there, as on a
/// copy-on-write one, writing through a map is not safe from a full disk.
#[cfg(any(unix, test))]
pub(super) fn fill_holes(file: &fs::File, range: Range<u64>) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let mut position = range.start;
    while position < range.end {
        let data = next_data(file, position)?.map_or(range.end, |data| data.min(range.end));
        while position < data {
            let step = (data - position).min(ZEROS.len() as u64);
            write_all_at(file, &ZEROS[..step as usize], position)?;
            position += step;
        }
        if position < range.end {
            position = next_hole(file, position)?.max(position + 1);
        }
    }
    Ok(())
}

/// Another handle of the file, which reads past the page cache; `None` where that can't be had (in memory, say).
#[cfg(target_os = "linux")]
pub(super) fn open_direct(file: &fs::File) -> io::Result<Option<fs::File>> {
    use std::os::{fd::AsRawFd, unix::fs::OpenOptionsExt};
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if crate::error::is_out_of_files(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open_direct(_file: &fs::File) -> io::Result<Option<fs::File>> {
    Ok(None)
}

/// Begins to write a range's dirty pages without waiting.
#[cfg(target_os = "linux")]
pub(super) fn start_writeback(file: &fs::File, range: Range<u64>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let signed = |value: u64| i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (start, len) = (signed(range.start)?, signed(range.end - range.start)?);
    loop {
        // SAFETY: the call takes a file descriptor, which is open as long as `file` is borrowed, and three numbers.
        let answer = unsafe { libc::sync_file_range(file.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE) };
        if answer == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // A hint that the system, or a sandbox, doesn't know.
            Some(libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP | libc::EINVAL) => return Ok(()),
            _ => return Err(error),
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn start_writeback(_file: &fs::File, _range: Range<u64>) -> io::Result<()> {
    Ok(())
}

/// Makes a folder's names durable.
#[cfg(unix)]
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?.sync_all()
}

/// There is no such call here; NTFS writes changes of names to its journal in order.
#[cfg(windows)]
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(())
}

/// The first position from `position` on that may hold data; `None` behind the last.
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(super) fn next_data(file: &fs::File, position: u64) -> io::Result<Option<u64>> {
    use rustix::{
        fs::{SeekFrom, seek},
        io::Errno,
    };
    match seek(file, SeekFrom::Data(position)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => everything_is_data(file, position),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(super) fn next_data(file: &fs::File, position: u64) -> io::Result<Option<u64>> {
    everything_is_data(file, position)
}

/// The answer where holes aren't known.
fn everything_is_data(file: &fs::File, position: u64) -> io::Result<Option<u64>> {
    Ok((position < file.metadata()?.len()).then_some(position))
}

/// The first position from `position` on that is a hole; the end of the file is one.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn next_hole(file: &fs::File, position: u64) -> io::Result<u64> {
    use rustix::{
        fs::{SeekFrom, seek},
        io::Errno,
    };
    match seek(file, SeekFrom::Hole(position)) {
        Ok(found) => Ok(found),
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(file.metadata()?.len()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(all(any(unix, test), not(any(target_os = "linux", target_os = "macos"))))]
fn next_hole(file: &fs::File, _position: u64) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

/// Who a file is; `None` if the kernel or the file system lacks any part of the answer.
#[cfg(target_os = "linux")]
pub(super) fn identity(file: &fs::File) -> io::Result<Option<FileIdentity>> {
    use rustix::{
        fs::{AtFlags, StatxFlags, makedev, statx},
        io::{Errno, retry_on_intr},
    };
    /// `STATX_MNT_ID_UNIQUE`, since Linux 6.8.
    const MOUNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let wanted = StatxFlags::INO | StatxFlags::BTIME | MOUNT_ID_UNIQUE;
    let Some(boot_id) = boot_id() else { return Ok(None) };
    let found = match retry_on_intr(|| statx(file, c"", AtFlags::EMPTY_PATH, wanted)) {
        Ok(found) => found,
        // Kernels before 4.11, and sandboxes that don't know the call, refuse it.
        Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !StatxFlags::from_bits_retain(found.stx_mask).contains(wanted) {
        return Ok(None);
    }
    Ok(Some(FileIdentity {
        boot_id,
        mount_id: found.stx_mnt_id,
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        birth_ns: i128::from(found.stx_btime.tv_sec) * 1_000_000_000 + i128::from(found.stx_btime.tv_nsec),
    }))
}

/// No call tells one mount from the next here.
#[cfg(not(target_os = "linux"))]
pub(super) fn identity(_file: &fs::File) -> io::Result<Option<FileIdentity>> {
    Ok(None)
}

/// A file's number on this machine, as long as something keeps the file: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileNumber {
    device: u64,
    inode: u64,
}

#[cfg(unix)]
pub(super) fn number(file: &fs::Metadata) -> Option<FileNumber> {
    use std::os::unix::fs::MetadataExt;
    Some(FileNumber { device: file.dev(), inode: file.ino() })
}

/// Not told here; but a file that is mapped can't be removed or replaced.
#[cfg(not(unix))]
pub(super) fn number(_file: &fs::Metadata) -> Option<FileNumber> {
    None
}

/// The soft limit, which is the one that counts.
#[cfg(unix)]
pub(super) fn open_files_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
pub(super) fn open_files_limit() -> Option<u64> {
    None
}

/// The number that the kernel drew at boot, read once.
#[cfg(target_os = "linux")]
fn boot_id() -> Option<[u8; 16]> {
    static BOOT_ID: std::sync::OnceLock<Option<[u8; 16]>> = std::sync::OnceLock::new();
    *BOOT_ID.get_or_init(|| parse_uuid(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim()))
}

/// The bytes of 32 hexadecimal digits with dashes between them.
#[cfg(target_os = "linux")]
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|&digit| digit != '-').collect();
    // `from_str_radix` alone would take a sign.
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) || digits.len() != 32 {
        return None;
    }
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

/// A handle's living maps, where a sync of the file doesn't promise to take stores through them along. On Linux it
/// does, and this is nothing.
#[derive(Debug, Default)]
pub(super) struct Maps {
    #[cfg(not(target_os = "linux"))]
    alive: parking_lot::Mutex<Vec<Weak<FileMap>>>,
}

#[cfg(target_os = "linux")]
impl Maps {
    pub(super) fn remember(&self, _map: &Arc<FileMap>) {}

    pub(super) fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
impl Maps {
    pub(super) fn remember(&self, map: &Arc<FileMap>) {
        let mut alive = self.alive.lock();
        alive.retain(|map| map.strong_count() > 0);
        alive.push(Arc::downgrade(map));
    }

    /// Hands what was stored through the maps to the file. The lock isn't held over the calls, which take long.
    pub(super) fn flush(&self) -> io::Result<()> {
        let alive: Vec<_> = self.alive.lock().iter().filter_map(Weak::upgrade).collect();
        alive.iter().try_for_each(|map| map.map.flush())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_sixteen_bytes() {
        let id = parse_uuid("00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(id, Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]));
        for odd in ["", "0001", "+0010203-0405-0607-0809-0a0b0c0d0e0f", "g0010203-0405-0607-0809-0a0b0c0d0e0f"] {
            assert_eq!(parse_uuid(odd), None, "{odd}");
        }
    }
}

//! What a folder lies on, and how far that can be relied on.
//!
//! The lists name what was thought about. Anything else, every file system in user space among it, is unknown, and
//! used only when an option says so. Any thread may call.

use std::{io, path::Path};

use super::super::{FileSystem, FileSystemClass};

/// The file system that an existing folder lies on.
#[cfg(target_os = "linux")]
pub(super) fn file_system(path: &Path) -> io::Result<FileSystem> {
    let found = rustix::io::retry_on_intr(|| rustix::fs::statfs(path))?;
    // Every number is a 32-bit one; where the field is signed and that wide, the greater ones are negative.
    Ok(classify(found.f_type as u32))
}

/// A Linux file system by the number that `statfs` gives for it (`linux/magic.h`, and the modules' own headers).
///
/// Of xfs: it can share blocks between files (reflink), and rewriting a shared one takes space. Nobody makes copies
/// of a log's files but at the user's word, so it counts as one that rewrites in place.
#[cfg(any(target_os = "linux", test))]
fn classify(magic: u32) -> FileSystem {
    use FileSystemClass::{Local, LocalCopyOnWrite, Network, Unknown};
    let (name, class) = match magic {
        // ext2 and ext3 have the same number, and the same driver today.
        0x0000_ef53 => ("ext4", Local),
        0x5846_5342 => ("xfs", Local),
        0x0102_1994 => ("tmpfs", Local),
        0x7366_746e => ("ntfs3", Local),
        0x9123_683e => ("btrfs", LocalCopyOnWrite),
        0x2fc1_2fc1 => ("zfs", LocalCopyOnWrite),
        0x794c_7630 => ("overlay", LocalCopyOnWrite),
        0x0000_6969 => ("nfs", Network),
        0x0000_517b => ("smb", Network),
        0xfe53_4d42 => ("smb2", Network),
        0xff53_4d42 => ("cifs", Network),
        0x0102_1997 => ("9p", Network),
        0x00c3_6400 => ("ceph", Network),
        0x5346_414f | 0x6b41_4653 => ("afs", Network),
        0x0bd0_0bd0 => ("lustre", Network),
        0x0116_1970 => ("gfs2", Network),
        0x7461_636f => ("ocfs2", Network),
        0x7375_7245 => ("coda", Network),
        0x0000_564c => ("ncp", Network),
        0x1983_0326 => ("beegfs", Network),
        0x4750_4653 => ("gpfs", Network),
        0x2003_0528 => ("orangefs", Network),
        0xaad7_aaea => ("panfs", Network),
        // Folders that a virtual machine's host shares.
        0x786f_4256 => ("vboxsf", Network),
        0xbacb_acbc => ("vmhgfs", Network),
        _ => return FileSystem { name: format!("{magic:#x}"), class: Unknown },
    };
    FileSystem { name: name.to_owned(), class }
}

/// The file system that an existing folder lies on.
#[cfg(target_os = "macos")]
pub(super) fn file_system(path: &Path) -> io::Result<FileSystem> {
    let found = rustix::io::retry_on_intr(|| rustix::fs::statfs(path))?;
    let name: Vec<u8> = found.f_fstypename.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
    Ok(classify_name(&String::from_utf8_lossy(&name)))
}

/// A macOS file system by its name. (apfs copies on write, but sets aside what rewriting a block takes only for
/// blocks that clones share, which ours don't.)
#[cfg(any(target_os = "macos", test))]
fn classify_name(name: &str) -> FileSystem {
    let class = match name {
        "apfs" | "hfs" => FileSystemClass::Local,
        "smbfs" | "nfs" | "afpfs" | "webdav" | "ftp" | "acfs" => FileSystemClass::Network,
        _ => FileSystemClass::Unknown,
    };
    FileSystem { name: name.to_owned(), class }
}

/// The file system that an existing folder lies on: another machine's if the path, letters of drives resolved, begins
/// with that machine's name.
#[cfg(windows)]
pub(super) fn file_system(path: &Path) -> io::Result<FileSystem> {
    use std::path::{Component, Prefix};
    let remote = match std::fs::canonicalize(path)?.components().next() {
        Some(Component::Prefix(prefix)) => matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..)),
        _ => false,
    };
    Ok(match remote {
        true => FileSystem { name: "network share".to_owned(), class: FileSystemClass::Network },
        false => FileSystem { name: "local drive".to_owned(), class: FileSystemClass::Local },
    })
}

/// The file system that an existing folder lies on; not known on this system.
#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
pub(super) fn file_system(path: &Path) -> io::Result<FileSystem> {
    std::fs::metadata(path)?;
    Ok(FileSystem { name: "not known on this system".to_owned(), class: FileSystemClass::Unknown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names_and_classes() {
        let cases = [
            (0xef53, "ext4", FileSystemClass::Local),
            (0x5846_5342, "xfs", FileSystemClass::Local),
            (0x0102_1994, "tmpfs", FileSystemClass::Local),
            (0x9123_683e, "btrfs", FileSystemClass::LocalCopyOnWrite),
            (0x2fc1_2fc1, "zfs", FileSystemClass::LocalCopyOnWrite),
            (0x794c_7630, "overlay", FileSystemClass::LocalCopyOnWrite),
            (0x6969, "nfs", FileSystemClass::Network),
            (0xff53_4d42, "cifs", FileSystemClass::Network),
            (0xfe53_4d42, "smb2", FileSystemClass::Network),
            (0x0102_1997, "9p", FileSystemClass::Network),
            // A file system in user space; memory without a limit.
            (0x6573_5546, "0x65735546", FileSystemClass::Unknown),
            (0x8584_58f6, "0x858458f6", FileSystemClass::Unknown),
        ];
        for (magic, name, class) in cases {
            assert_eq!(classify(magic), FileSystem { name: name.to_owned(), class });
        }
    }

    #[test]
    fn names_have_classes() {
        assert_eq!(classify_name("apfs").class, FileSystemClass::Local);
        assert_eq!(classify_name("smbfs").class, FileSystemClass::Network);
        assert_eq!(classify_name("macfuse").class, FileSystemClass::Unknown);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pseudo_file_system_is_unknown_and_a_missing_folder_an_error() {
        assert_eq!(file_system(Path::new("/proc")).unwrap().class, FileSystemClass::Unknown);
        assert_eq!(file_system(Path::new("/proc/nothing here")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

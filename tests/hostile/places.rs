//! Something else in the place of a file or folder. A log stays in its folder: what a link leads to is none of its
//! business.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
};

use libtest_mimic::Failed;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tidelog::{ErrorKind, Log};

use crate::{
    common::mount::skip,
    folder::{Folder, RECORDS},
    visitor::{AS_NOBODY, visit_as},
};

/// What a log says of something in the place of a file or a folder.
const REFUSALS: [ErrorKind; 2] = [ErrorKind::Corruption, ErrorKind::NotADirectory];

/// Whether nobody minds what is there: indexes are made anew, and what isn't a mark is no mark.
fn is_cache(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "index" || it == "timeindex") || path.ends_with("processes/settled")
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Replaces each file and folder of a log, has it visited, and checks that it was refused.
fn replace_each(what: &str, replace: impl Fn(&Folder, &Path)) -> Result<(), Failed> {
    replace_each_in(Folder::new, what, replace)
}

fn replace_each_in(make: impl Fn(bool) -> Folder, what: &str, replace: impl Fn(&Folder, &Path)) -> Result<(), Failed> {
    for is_closed in [true, false] {
        let paths = make(is_closed).paths();
        for path in paths {
            let folder = make(is_closed);
            // Of a log that was made anew, whose names are the same.
            if folder.log().join(&path).symlink_metadata().is_err() {
                continue;
            }
            replace(&folder, &path);
            let what = format!("{what} in the place of {}", path.display());
            let visit = folder.visit(&what)?;
            match visit.refused {
                Some(_) if visit.is_refused_by(&REFUSALS) => {}
                None if is_cache(&path) && visit.read == 2 * RECORDS => {}
                _ => return Err(format!("{what}: {visit:?}").into()),
            }
        }
    }
    Ok(())
}

/// The most tempting ones: what they lead to is just what belongs there.
pub(crate) fn links_to_copies() -> Result<(), Failed> {
    replace_each("a link to a copy", |folder, path| {
        let (inside, outside) = (folder.log().join(path), folder.outside().join("copy"));
        fs::rename(&inside, &outside).unwrap();
        symlink(&outside, inside).unwrap();
    })
}

pub(crate) fn links_to_other_files() -> Result<(), Failed> {
    replace_each("a link to another file", |folder, path| {
        let inside = folder.log().join(path);
        let is_dir = inside.is_dir();
        remove(&inside);
        symlink(if is_dir { folder.outside() } else { folder.outside().join("diary") }, inside).unwrap();
    })
}

/// Nothing is to be made at their other end.
pub(crate) fn links_that_lead_nowhere() -> Result<(), Failed> {
    replace_each("a dangling link", |folder, path| {
        let inside = folder.log().join(path);
        remove(&inside);
        symlink(folder.outside().join("new"), inside).unwrap();
    })
}

/// Under names that the log will use: of temporary files, of topics and segments to come.
pub(crate) fn links_where_files_are_to_be_made() -> Result<(), Failed> {
    let next = |digits: u64| format!("orders-0/{digits:020}");
    let mut names: Vec<String> = ["orders-0/rewrite.tmp", "orders-0/partition.checkpoint.tmp", "fresh-0"]
        .into_iter()
        .chain(["topics/fresh.json", "topics/fresh.gone", "topics/orders.gone", "tidelog.meta.tmp", "meta.tmp"])
        .map(str::to_owned)
        .collect();
    for offset in [RECORDS, RECORDS + 1] {
        names
            .extend(["tmp", "index", "timeindex", "log.torn"].map(|extension| format!("{}.{extension}", next(offset))));
    }
    for name in names {
        for target in ["diary", "new", "."] {
            for lost_checkpoint in [false, true] {
                let folder = Folder::new(lost_checkpoint);
                symlink(folder.outside().join(target), folder.log().join(&name)).unwrap();
                if lost_checkpoint {
                    fs::remove_file(folder.log().join("orders-0/partition.checkpoint")).unwrap();
                }
                let what = format!("a link {name} to {target}");
                let visit = folder.visit(&what)?;
                let whole = visit.refused.is_none() && visit.read == 2 * RECORDS;
                if !whole && !visit.is_refused_by(&REFUSALS) {
                    return Err(format!("{what}: {visit:?}").into());
                }
            }
        }
    }
    Ok(())
}

/// The path to the log's folder may go through links.
pub(crate) fn links_that_may_be() -> Result<(), Failed> {
    let folder = Folder::new(true);
    let link = folder.root().join("link");
    symlink(folder.log(), &link).unwrap();
    assert!(Log::options().verify(&link)?.is_sound());
    let visit = crate::visitor::visit(&link, "a link to the log")?;
    if visit.refused.is_some() || visit.read != 2 * RECORDS || visit.told {
        return Err(format!("a link to the log: {visit:?}").into());
    }
    remove(&link);
    symlink(folder.root().join("nothing"), &link).unwrap();
    let visit = crate::visitor::visit(&link, "a link to nothing")?;
    if !visit.is_refused_by(&[ErrorKind::NotADirectory]) || folder.root().join("nothing").exists() {
        return Err(format!("a link to nothing: {visit:?}").into());
    }
    Ok(())
}

/// What a topic's folder leads to stays when the topic goes.
pub(crate) fn a_deletion_ends_at_links() -> Result<(), Failed> {
    let folder = Folder::new(true);
    for (name, target) in [("photos", "."), ("00000000000000009999.index", "diary"), ("letters", "diary")] {
        symlink(folder.outside().join(target), folder.log().join("orders-0").join(name)).unwrap();
    }
    fs::write(folder.root().join("log.delete"), "").unwrap();
    let visit = folder.visit("a deletion")?;
    if visit.refused.is_some() || !visit.errors.is_empty() || folder.log().join("orders-0").exists() {
        return Err(format!("a deletion: {visit:?}").into());
    }
    Ok(())
}

pub(crate) fn folders_pipes_sockets_and_devices() -> Result<(), Failed> {
    let node = |path: &Path, kind, device| mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device);
    replace_each("a folder or file", |folder, path| {
        let path = folder.log().join(path);
        if path.is_dir() {
            remove(&path);
            fs::write(path, "no folder").unwrap();
        } else {
            remove(&path);
            fs::create_dir_all(path.join("below")).unwrap();
        }
    })?;
    replace_each("a pipe", |folder, path| {
        let path = folder.log().join(path);
        remove(&path);
        node(&path, FileType::Fifo, 0).unwrap();
    })?;
    replace_each("a socket", |folder, path| {
        remove(&folder.log().join(path));
        // A socket's path has to be short.
        let short = folder.root().join("s");
        drop(UnixListener::bind(&short).unwrap());
        fs::rename(short, folder.log().join(path)).unwrap();
    })?;
    let probe = tempfile::tempdir()?;
    // As /dev/zero.
    let zero = probe.path().join("zero");
    let made = node(&zero, FileType::CharacterDevice, makedev(1, 5)).map_err(std::io::Error::from);
    if let Err(error) = made.and_then(|()| fs::File::open(&zero)) {
        return skip("devices", &format!("devices can't be made: {error}"));
    }
    replace_each_in(Folder::on_disk, "a device", |folder, path| {
        let path = folder.log().join(path);
        remove(&path);
        node(&path, FileType::CharacterDevice, makedev(1, 5)).unwrap();
    })
}

pub(crate) fn nothing_may_be_read() -> Result<(), Failed> {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return skip("root", "only root can become another user");
    }
    for path in Folder::new(true).paths() {
        let folder = Folder::new(true);
        fs::set_permissions(folder.root(), fs::Permissions::from_mode(0o777))?;
        // The others belong to nobody, so that this one alone is in the way.
        open_to_all(&folder)?;
        let path = folder.log().join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000))?;
        std::os::unix::fs::chown(&path, Some(0), Some(0))?;
        let what = format!("{} that nobody may read", path.display());
        let visit = visit_as(AS_NOBODY, &folder.log(), &what)?;
        let refused = visit.is_refused_by(&[ErrorKind::Io]);
        if !refused && !visit.errors.contains("Io") && !is_cache(&path) {
            return Err(format!("{what}: {visit:?}").into());
        }
    }
    Ok(())
}

fn open_to_all(folder: &Folder) -> Result<(), Failed> {
    const NOBODY: Option<u32> = Some(65_534);
    std::os::unix::fs::chown(folder.log(), NOBODY, NOBODY)?;
    for path in folder.paths() {
        std::os::unix::fs::chown(folder.log().join(path), NOBODY, NOBODY)?;
    }
    Ok(())
}

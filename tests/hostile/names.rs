//! Names and lengths that nobody expects.

use std::{fs, path::Path, process::Command};

use libtest_mimic::Failed;
use tidelog::{ErrorKind, Log, Record, TopicConfig};

use crate::{
    common::mount::{Mount, run, skip},
    folder::{Folder, RECORDS},
};

/// Each file in turn is made so long, with nothing in what is added.
pub(crate) fn files_without_end() -> Result<(), Failed> {
    for len in [(1_u64 << 31) - 1, 1 << 31, 1 << 32, (1 << 32) + 5, 1 << 40] {
        for is_closed in [true, false] {
            let paths = Folder::new(is_closed).paths();
            let folder = Folder::new(is_closed);
            let (log, intact) = (folder.log(), folder.root().join("intact"));
            copy_all(&log, &intact);
            for path in paths.iter().filter(|path| intact.join(path).is_file()) {
                fs::remove_dir_all(&log)?;
                copy_all(&intact, &log);
                fs::OpenOptions::new().write(true).open(log.join(path))?.set_len(len)?;
                let what = format!("{} of {len} bytes", path.display());
                let visit = folder.visit(&what)?;
                let is_json = path.extension().is_some_and(|it| it == "json" || it == "meta");
                let right = match visit.refused {
                    Some(_) => is_json && visit.is_refused_by(&[ErrorKind::Corruption]),
                    None => !is_json && visit.read == 2 * RECORDS,
                };
                if !right {
                    return Err(format!("{what}: {visit:?}").into());
                }
            }
        }
    }
    Ok(())
}

fn copy_all(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Thousands of them, in every folder; those that look like ours among them. They stay where they are.
pub(crate) fn strange_names() -> Result<(), Failed> {
    let odd =
        ["-0", "orders-", "orders-00", "orders-4294967295", "orders-99999999999", "..", "...", " ", "\n", "ö-0", "CON"];
    let ours = [
        "18446744073709551615.log",
        "18446744073709551616.log",
        "99999999999999999999.log",
        "-0000000000000000001.log",
        "0000000000000000000.log",
        "00000000000000000000.LOG",
        "00000000000000000000.log.torn",
        "partition.state.bak",
        ".json",
        "..json",
        "a b.json",
        "orders.json.json.json",
    ];
    for inside in ["", "orders-0", "topics", "processes", "__offsets-0"] {
        let folder = Folder::new(true);
        let dir = folder.log().join(inside);
        let numbered = (0..5000).map(|number| format!("strange {number}"));
        let names: Vec<String> = numbered.chain(odd.map(str::to_owned)).collect();
        for name in names.iter().filter(|name| *name != "..") {
            fs::write(dir.join(name), name)?;
        }
        for number in 0..500 {
            fs::create_dir(dir.join(format!("folder {number}")))?;
        }
        let what = format!("strange names in {inside:?}");
        let visit = folder.visit(&what)?;
        if visit.refused.is_some() || visit.read != 2 * RECORDS || visit.told {
            return Err(format!("{what}: {visit:?}").into());
        }
        for name in names.iter().filter(|name| *name != "..") {
            if fs::read(dir.join(name))? != name.as_bytes() {
                return Err(format!("{what}: {name:?} was changed").into());
            }
        }
        for name in ours {
            let folder = Folder::new(true);
            fs::write(folder.log().join(inside).join(name), name)?;
            let what = format!("{name:?} in {inside:?}");
            let visit = folder.visit(&what)?;
            let whole = visit.refused.is_none() && visit.read == 2 * RECORDS;
            if !whole && !visit.is_refused_by(&[ErrorKind::Corruption]) {
                return Err(format!("{what}: {visit:?}").into());
            }
            if fs::read(folder.log().join(inside).join(name)).ok().as_deref() != Some(name.as_bytes()) && !visit.told {
                return Err(format!("{what} was changed, and nothing told").into());
            }
        }
    }
    Ok(())
}

/// Where the file system takes them for the same name, the second topic is refused; elsewhere they are two.
pub(crate) fn names_that_differ_by_case() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    check_case(folder.path(), false)?;
    let mount = match Mount::in_file(Command::new("mkfs.ext4").args(["-q", "-O", "casefold"]), "ext4", 64 << 20) {
        Ok(mount) => mount,
        Err(reason) => return skip("casefold", &format!("no ext4 that ignores case: {reason}")),
    };
    let inside = mount.path().join("folded");
    fs::create_dir(&inside)?;
    if let Err(reason) = run(Command::new("chattr").arg("+F").arg(&inside)) {
        return skip("casefold", &format!("no folder that ignores case: {reason}"));
    }
    check_case(&inside, true)
}

fn check_case(folder: &Path, ignores_case: bool) -> Result<(), Failed> {
    let path = folder.join("log");
    for round in 0..2 {
        let log = Log::open(&path)?;
        let names: &[&str] = if ignores_case { &["orders"] } else { &["ORDERS", "orders"] };
        if round == 0 {
            log.create_topic("orders", TopicConfig::with_partitions(1))?.append(Record::new("small"))?;
        }
        match log.ensure_topic("ORDERS", TopicConfig::with_partitions(1)) {
            Ok(topic) if !ignores_case => drop(topic.append(Record::new("LARGE"))?),
            Err(error) if ignores_case && error.kind() == ErrorKind::TopicExists => {}
            other => return Err(format!("ORDERS beside orders: {other:?}").into()),
        }
        if log.topics() != names {
            return Err(format!("topics {:?}", log.topics()).into());
        }
        for record in log.topic("orders")?.partition(0)?.read_from(0)? {
            assert_eq!(record?.value(), Some(&b"small"[..]));
        }
        log.close()?;
    }
    // Once the one is gone, there can be the other.
    let log = Log::open(&path)?;
    log.delete_topic("orders")?;
    log.ensure_topic("ORDERS", TopicConfig::with_partitions(1))?.append(Record::new("LARGE"))?;
    log.close()?;
    assert_eq!(Log::open(&path)?.topics(), ["ORDERS"]);
    Ok(())
}

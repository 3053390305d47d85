//! File systems: which ones are used, and how; which are refused, and with which words. Those that need a mount are
//! mounted for the test.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(target_os = "linux")]
mod common;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: file systems are mounted on Linux only");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs, path::Path, process::Command, thread, time::Duration};

    use libtest_mimic::{Arguments, Failed, Trial};
    use tidelog::{Durability, Error, ErrorKind, Log, LogOptions, Opening, Partition, Record, Start, TopicConfig};

    use crate::common::{
        append, check_numbers, is_believable,
        mount::{Ballast, Mount, run, skip},
        process::{child_task, kill_myself, run_child, run_killed_child},
        require::requires,
        snapshot, value_of,
    };

    const VALUE_BYTES: usize = 500;
    /// Records that are appended before the kill.
    const RECORDS: u64 = 2_000;
    /// Of a file system in a file: what btrfs takes at least.
    const IMAGE_BYTES: u64 = 112 << 20;

    pub(crate) fn main() {
        if let Some((task, folder)) = child_task() {
            return match task.as_str() {
                "work and die" => work_and_die(&folder),
                "go on" => go_on(&folder, Opening::Scanned),
                "go on where it was" => go_on(&folder, Opening::Resumed),
                "fill" => fill(&folder),
                other => panic!("no task {other:?}"),
            };
        }
        let trials = vec![
            Trial::test("tmpfs_is_used", tmpfs_is_used),
            Trial::test("ext4_is_used_and_filled", ext4_is_used_and_filled),
            Trial::test("overlayfs_is_used", overlayfs_is_used),
            Trial::test("btrfs_is_used_and_filled", btrfs_is_used_and_filled),
            Trial::test("an_unknown_one_is_refused_by_name", an_unknown_one_is_refused_by_name),
            Trial::test("an_unknown_one_is_used_if_the_option_says_so", an_unknown_one_is_used),
            Trial::test("a_pseudo_file_system_is_refused", a_pseudo_file_system_is_refused),
            Trial::test("a_read_only_one_is_an_io_error", a_read_only_one_is_an_io_error),
            Trial::test("a_folder_without_permission_is_an_io_error", a_folder_without_permission_is_an_io_error),
            Trial::test("a_file_is_not_a_folder", a_file_is_not_a_folder),
            Trial::test("a_requirement_that_nobody_knows_is_refused", unknown_requirements_are_refused),
        ];
        libtest_mimic::run(&Arguments::from_args(), trials).exit();
    }

    fn tmpfs_is_used() -> Result<(), Failed> {
        match Mount::new("tmpfs", "size=32m") {
            Ok(mount) => used(mount.path()),
            Err(reason) => skip("mount", &reason),
        }
    }

    fn ext4_is_used_and_filled() -> Result<(), Failed> {
        let mut make = Command::new("mkfs.ext4");
        match Mount::in_file(make.args(["-q", "-F", "-m", "0"]), "ext4", 24 << 20) {
            Ok(mount) => {
                used(mount.path())?;
                Ok(run_child("fill", mount.path())?)
            }
            Err(reason) => skip("mount", &reason),
        }
    }

    fn overlayfs_is_used() -> Result<(), Failed> {
        let mounted = Mount::new("tmpfs", "size=32m").and_then(|mut mount| {
            let base = mount.path().to_owned();
            let at = |name: &str| base.join(name).display().to_string();
            for name in ["lower", "upper", "work"] {
                fs::create_dir(base.join(name)).map_err(|error| error.to_string())?;
            }
            let options = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
            mount.add("merged", "overlay", "overlay", &options).map(|_| mount)
        });
        match mounted {
            Ok(mount) => {
                used(mount.path())?;
                Ok(run_child("fill", mount.path())?)
            }
            Err(reason) => skip("mount", &reason),
        }
    }

    fn btrfs_is_used_and_filled() -> Result<(), Failed> {
        match Mount::in_file(Command::new("mkfs.btrfs").args(["-q", "--mixed"]), "btrfs", IMAGE_BYTES) {
            Ok(mount) => {
                used(mount.path())?;
                Ok(run_child("fill", mount.path())?)
            }
            Err(reason) => skip("mount-btrfs", &reason),
        }
    }

    /// Works, is killed, goes on.
    fn used(folder: &Path) -> Result<(), Failed> {
        run_killed_child("work and die", folder)?;
        Ok(run_child(if is_believable(folder) { "go on where it was" } else { "go on" }, folder)?)
    }

    fn options() -> LogOptions {
        Log::options().segment_bytes(64 << 10).allow_unknown_file_system(true)
    }

    fn partition(log: &Log) -> Partition {
        log.ensure_topic("orders", TopicConfig::with_partitions(1)).unwrap().partition(0).unwrap()
    }

    /// Appends while somebody reads, commits, and is killed in the middle of more.
    fn work_and_die(folder: &Path) {
        let log = options().open(folder.join("data")).unwrap();
        let partition = partition(&log);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut consumer =
                    log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open().unwrap();
                let mut next = 0;
                while next < RECORDS {
                    for record in &consumer.poll(Duration::from_secs(10)).unwrap() {
                        assert_eq!(record.value(), Some(&*value_of(next, VALUE_BYTES)));
                        next += 1;
                    }
                    consumer.commit().unwrap();
                }
            });
            append(&partition, 0..RECORDS, VALUE_BYTES);
        });
        thread::spawn(move || {
            (RECORDS..u64::MAX).for_each(|number| drop(append(&partition, number..number + 1, VALUE_BYTES)))
        });
        thread::sleep(Duration::from_millis(5));
        kill_myself();
    }

    /// Goes on after [`work_and_die`]: everything that was acknowledged is there.
    fn go_on(folder: &Path, opening: Opening) {
        let log = options().open(folder.join("data")).unwrap();
        for found in log.recovery().partitions() {
            assert_eq!(found.opening(), opening, "{found:?}");
        }
        assert!(opening == Opening::Scanned || log.recovery().is_clean(), "{:?}", log.recovery());
        let partition = partition(&log);
        let records = partition.read_from(0).unwrap().map(Result::unwrap).count() as u64;
        assert!(records >= RECORDS, "only {records} are left");
        check_numbers(&partition, 0..records, VALUE_BYTES);
        let consumer = log.consumer("billing").topic("orders").open().unwrap();
        assert!(consumer.committed("orders", 0).unwrap() >= Some(RECORDS));
        let end = partition.end_offset();
        assert!(opening == Opening::Scanned || end == records);
        assert_eq!(append(&partition, records..records + 10, VALUE_BYTES)[0], end);
        log.close().unwrap();

        let log = options().open(folder.join("data")).unwrap();
        assert!(log.recovery().partitions().iter().all(|found| found.opening() == Opening::Clean));
        check_numbers(&self::partition(&log), 0..records + 10, VALUE_BYTES);
        log.close().unwrap();
    }

    /// Fills the disk by appends, is refused, frees it, goes on.
    fn fill(folder: &Path) {
        // Most of it beforehand: that is faster.
        let found = rustix::fs::statvfs(folder).unwrap();
        let padding = (found.f_bavail * found.f_frsize).saturating_sub(12 << 20);
        fs::write(folder.join("padding"), vec![0x55; padding as usize]).unwrap();
        let log = options().segment_bytes(1 << 20).open(folder.join("filled")).unwrap();
        let topic = log.ensure_topic("orders", TopicConfig::with_partitions(1)).unwrap();
        let partition = topic.partition(0).unwrap();
        let (mut end, bytes) = (0, 4_000);
        for round in 0..2 {
            let ballast = Ballast::new(folder, (4 - round) << 20);
            let error = loop {
                let level = [Durability::Written, Durability::Synced][usize::from(end % 64 == 0)];
                match topic.append_with(Record::new(value_of(end, bytes)), level) {
                    Ok(at) => assert_eq!(at.offset, end),
                    Err(error) => break error,
                }
                end += 1;
                assert!(end * bytes as u64 <= 2 * IMAGE_BYTES, "the disk doesn't get full");
            };
            check_full(&error);
            let there = partition.end_offset();
            // With `Synced` a record may have been appended that wasn't acknowledged.
            assert!((end..=end + 1).contains(&there), "{there} is the end, {end} the last that was acknowledged");
            end = there;
            check_numbers(&partition, 0..end, bytes);
            ballast.remove();
            append(&partition, end..end + 20, bytes);
            end += 20;
            check_numbers(&partition, 0..end, bytes);
        }
        log.close().unwrap();
        let log = options().segment_bytes(1 << 20).open(folder.join("filled")).unwrap();
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        check_numbers(&self::partition(&log), 0..end, bytes);
        log.close().unwrap();
    }

    #[track_caller]
    fn check_full(error: &Error) {
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }

    /// ramfs: memory without a limit, whose number nobody has thought about.
    fn an_unknown_one_is_refused_by_name() -> Result<(), Failed> {
        let mount = match Mount::new("ramfs", "rw") {
            Ok(mount) => mount,
            Err(reason) => return skip("mount", &reason),
        };
        for folder in [mount.path().to_owned(), mount.path().join("new")] {
            let error = Log::open(&folder).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsupportedFileSystem, "{error}");
            assert_eq!(error.path(), Some(&*folder));
            assert!(error.to_string().contains("0x858458f6"), "{error}");
            assert!(error.to_string().contains("allow_unknown_file_system"), "{error}");
            assert!(fs::read_dir(&folder).unwrap().next().is_none() || folder == mount.path(), "something was made");
        }
        Ok(())
    }

    fn an_unknown_one_is_used() -> Result<(), Failed> {
        match Mount::new("ramfs", "rw") {
            Ok(mount) => used(mount.path()),
            Err(reason) => skip("mount", &reason),
        }
    }

    fn a_pseudo_file_system_is_refused() -> Result<(), Failed> {
        let error = Log::open("/proc/self").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedFileSystem, "{error}");
        assert_eq!(error.path(), Some(Path::new("/proc/self")));
        Ok(())
    }

    fn a_read_only_one_is_an_io_error() -> Result<(), Failed> {
        let mut mount = Mount::prepare();
        let (source, target) = (mount.root().join("source"), mount.root().join("target"));
        for folder in [&source, &target] {
            fs::create_dir(folder)?;
        }
        let log = Log::open(source.join("data"))?;
        append(&partition(&log), 0..10, VALUE_BYTES);
        log.close()?;
        if let Err(reason) = run(Command::new("mount").arg("--bind").args([&source, &target])) {
            return skip("mount", &reason);
        }
        mount.adopt(target.clone());
        if let Err(reason) = run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&target)) {
            return skip("mount", &reason);
        }
        let before = snapshot(&source);
        for name in ["data", "new"] {
            let error = Log::open(target.join(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.path().is_some_and(|path| path.starts_with(target.join(name))), "{error}");
            assert!(error.to_string().contains("Read-only file system"), "{error}");
        }
        assert!(snapshot(&source) == before);
        drop(mount);
        Ok(())
    }

    fn a_folder_without_permission_is_an_io_error() -> Result<(), Failed> {
        use std::{os::unix::fs::PermissionsExt, thread};
        let root = tempfile::tempdir()?;
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o555))?;
        let data = root.path().join("data");
        let open_both = || {
            // Permissions don't bind root, so a thread of root's looks at files as nobody.
            if rustix::process::geteuid().is_root() {
                // SAFETY: takes a number, and changes what this thread may do and nothing else.
                unsafe { libc::setfsuid(65_534) };
            }
            [Log::open(&data).unwrap_err(), Log::open(root.path()).unwrap_err()]
        };
        let errors = thread::scope(|scope| scope.spawn(open_both).join()).map_err(|_| "a thread panicked")?;
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700))?;
        for error in &errors {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.to_string().contains("ermission denied"), "{error}");
        }
        assert_eq!(errors[0].path(), Some(&*data));
        assert!(errors[1].path().is_some_and(|path| path.starts_with(root.path())), "{}", errors[1]);
        assert_eq!(fs::read_dir(root.path())?.count(), 0, "nothing was made");
        Ok(())
    }

    /// A name with a slip in it would require nothing, and what it was to require would be skipped.
    fn unknown_requirements_are_refused() -> Result<(), Failed> {
        assert_eq!(requires("mount, data", "data"), Ok(true));
        assert_eq!(requires("mount,data", "root"), Ok(false));
        assert_eq!(requires("", "root"), Ok(false));
        for (list, what) in [("mount,mount-brtfs", "mount"), ("mount", "brtfs")] {
            assert!(requires(list, what).is_err(), "{list:?} {what:?}");
        }
        Ok(())
    }

    fn a_file_is_not_a_folder() -> Result<(), Failed> {
        let root = tempfile::tempdir()?;
        let file = root.path().join("file");
        fs::write(&file, "somebody's")?;
        let pipe = root.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU)?;
        for path in [file.clone(), file.join("data"), pipe] {
            let error = Log::open(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotADirectory, "{error}");
            assert_eq!(error.path(), Some(&*path));
        }
        assert_eq!(fs::read(&file)?, b"somebody's");
        Ok(())
    }
}

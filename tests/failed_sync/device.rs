//! A device that has no room for what it was said to have: an ext4 file system in a file on a memory file system that is
//! full. Its free blocks are holes of that file, so writes to them fail when the kernel comes to write them, long after
//! the process did. It tells that once. The pages count as clean from then on, and hold what the device doesn't.

use std::{fs, io::Write, os::unix::process::ExitStatusExt, path::PathBuf, process::Command};

use libtest_mimic::Failed;

use crate::{
    child::ONE_DEVICE,
    common::mount::{Mount, run, skip},
    judge::{FIGURES, Judge, Undue},
    preload::Library,
};

const IMAGE_BYTES: u64 = 32 << 20;

/// How the process under test ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closes,
    IsKilled,
    /// Inside the call that fails: nobody but the kernel ever knew of it.
    IsKilledInside,
}

/// What happens before the next process opens the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The device gets its space.
    Space,
    /// The caches go, and with them what never came to the device; then it gets its space.
    Unmount,
    /// Somebody opens the log while it can't be mended.
    OpenedMeanwhile,
    /// As `OpenedMeanwhile`, with the caches gone.
    UnmountAndOpenedMeanwhile,
}

/// The file system, and what it lies on.
struct Device {
    // Dropped in this order: what is mounted, the loop, what the image is in.
    mounted: Option<Mount>,
    image: Image,
    /// Files that take the memory file system's space.
    ballast: Vec<PathBuf>,
}

/// The image and its loop device.
struct Image {
    name: String,
    // Held for its `drop`.
    memory: Mount,
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = run(Command::new("losetup").args(["--detach", &self.name]));
    }
}

impl Device {
    fn new() -> Result<Self, String> {
        let memory = Mount::new("tmpfs", "size=40m")?;
        let path = memory.path().join("image");
        let failed = |error: std::io::Error| error.to_string();
        fs::File::create(&path).and_then(|file| file.set_len(IMAGE_BYTES)).map_err(failed)?;
        let lazy_nothing = ["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"];
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-b", "4096"]).args(lazy_nothing).arg(&path))?;
        // Zeros take space only if they are written: the journal's have to.
        let bytes = fs::read(&path).map_err(failed)?;
        fs::write(&path, bytes).map_err(failed)?;
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&path).output().map_err(failed)?;
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || name.is_empty() {
            return Err(format!("losetup: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let image = Image { name, memory };
        // The loop driver takes a write that was cut short for a whole one. One of a single page isn't cut short.
        let number = image.name.rsplit('/').next().unwrap_or_default();
        fs::write(format!("/sys/block/{number}/queue/max_sectors_kb"), "4").map_err(failed)?;
        let mut device = Self { mounted: None, image, ballast: Vec::new() };
        device.mount()?;
        Ok(device)
    }

    fn mount(&mut self) -> Result<(), String> {
        let mut mount = Mount::prepare();
        mount.add("mounted", "ext4", &self.image.name, "rw")?;
        self.mounted = Some(mount);
        Ok(())
    }

    /// Drops every cache of it.
    fn remount(&mut self) -> Result<(), String> {
        self.mounted = None;
        self.mount()
    }

    fn folder(&self) -> PathBuf {
        self.mounted.as_ref().unwrap().path().join("data")
    }

    /// Drops every cache. From now on what isn't in use has no room.
    fn take_space(&mut self) -> Result<(), String> {
        // Also that of the blocks which the file system has laid by for files to come: those aren't free to be trimmed.
        self.remount()?;
        run(Command::new("fstrim").arg(self.mounted.as_ref().unwrap().path()))?;
        let path = self.image.memory.path().join(format!("ballast-{}", self.ballast.len()));
        let mut file = fs::File::create(&path).map_err(|error| error.to_string())?;
        for piece in [vec![0x55; 1 << 20], vec![0x55; 4096]] {
            while file.write_all(&piece).is_ok() {}
        }
        self.ballast.push(path);
        Ok(())
    }

    fn give_space(&mut self) -> Result<(), String> {
        self.ballast.drain(..).try_for_each(|path| fs::remove_file(path).map_err(|error| error.to_string()))
    }
}

pub(crate) fn all_ends() -> Result<(), Failed> {
    let library = match Library::build() {
        Ok(library) => library,
        Err(reason) => return skip("preload", &reason),
    };
    if let Err(reason) = Device::new() {
        return skip("mount", &reason);
    }
    for end in [End::Closes, End::IsKilled, End::IsKilledInside] {
        for then in [Then::Space, Then::Unmount, Then::OpenedMeanwhile, Then::UnmountAndOpenedMeanwhile] {
            one(&library, end, then).map_err(|reason| format!("{end:?}, then {then:?}: {reason}"))?;
        }
    }
    Ok(())
}

fn one(library: &Library, end: End, then: Then) -> Result<(), String> {
    let mut device = Device::new()?;
    let mut judge = Judge::default();
    judge.run("close 0", &device.folder(), &[])?;
    device.take_space()?;
    let folder = device.folder();
    let mut environment = vec![(ONE_DEVICE, "1".to_owned())];
    if end == End::IsKilledInside {
        environment.extend(library.environment("sync", "/data/orders-", 1, "kill-if-failed"));
    }
    let task = if end == End::Closes { "close 1000" } else { "die 1000" };
    let status = judge.run(task, &folder, &environment)?;
    if (status.signal() == Some(libc::SIGKILL)) == (end == End::Closes) {
        return Err(format!("it ended with {status}"));
    }
    let inside = if end == End::IsKilledInside { library.told().len() } else { 0 };
    let failures = inside + judge.poisoned.len();
    if failures == 0 {
        return Err("no sync has failed".into());
    }
    {
        let mut figures = FIGURES.lock().unwrap();
        figures.failures += failures as u64;
        figures.killed += inside as u64;
    }
    if matches!(then, Then::Unmount | Then::UnmountAndOpenedMeanwhile) {
        judge.forget_unflushed();
        device.take_space()?;
    }
    if matches!(then, Then::OpenedMeanwhile | Then::UnmountAndOpenedMeanwhile) {
        let poisoned = std::mem::take(&mut judge.poisoned);
        judge.run("stay 0", &device.folder(), &environment[..1])?;
        // Where the caches are gone there is no place for as much as the topic's records take. Else there may be: what was
        // given back since. And there may be some for the few of `__offsets`.
        let mut many = poisoned.iter().filter(|name| name.starts_with("orders-"));
        if then == Then::UnmountAndOpenedMeanwhile && !many.all(|name| judge.poisoned.contains(name)) {
            return Err(format!("{poisoned:?} can't be written anew, but only {:?} are poisoned", judge.poisoned));
        }
        device.remount()?;
        judge.forget_unflushed();
    }
    device.give_space()?;
    judge.judge(&device.folder(), Undue::Any)?;
    // On the device, and not in a cache alone.
    device.remount()?;
    judge.judge(&device.folder(), Undue::None)
}

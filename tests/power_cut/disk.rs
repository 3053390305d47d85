//! File systems in images, and two ways to cut their power.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::ioctl::{Setter, ioctl, opcode};

use crate::common::{
    Random,
    mount::{Mount, run},
};

/// `FS_IOC_SHUTDOWN`: from now on the file system writes nothing.
const SHUTDOWN: u32 = opcode::read::<u32>(b'X', 125) as u32;
/// Not even its journal: what a power cut does.
const WITHOUT_LOG_FLUSH: u32 = 2;
/// Where images are, if it is there: they needn't survive this machine's own power, so a slow disk would only cost time.
const MEMORY: &str = "/dev/shm";
const PAGE_BYTES: u64 = 4096;
/// What the device's image is larger than the one that it holds.
const DEVICE_OVERHEAD_BYTES: u64 = 64 << 20;
/// How often a file system is tried to be made.
const MAKE_ATTEMPTS: u32 = 20;

/// A file system that power is cut under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// What it takes at least, and some room.
    fn image_bytes(self) -> u64 {
        match self {
            Self::Ext4 => 128 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 256 << 20,
        }
    }

    /// The command that makes one in a file, but for the file's path. Journals are small, so that they wrap.
    fn make(self) -> Command {
        let (program, arguments): (_, &[&str]) = match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0", "-J", "size=4", "-E", "lazy_itable_init=0"]),
            Self::Xfs => ("mkfs.xfs", &["-q"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q"]),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }

    /// What `TIDELOG_REQUIRE` calls it.
    pub(crate) fn requirement(self) -> &'static str {
        match self {
            Self::Ext4 => "mount",
            Self::Xfs => "mount-xfs",
            Self::Btrfs => "mount-btrfs",
        }
    }
}

/// How the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The file system is shut down: what it hasn't written by then is lost, what it has is on the device.
    FileSystem,
    /// The device goes away, and with it what it had taken but not been told to flush. It is a loop device over a file
    /// in another file system, whose page cache is the device's volatile cache, and which is shut down.
    Device,
}

/// A file system in an image. Nothing of it is left when this goes.
pub(crate) struct Disk {
    kind: FileSystem,
    cut: Cut,
    image: PathBuf,
    device_image: PathBuf,
    // Before what it is mounted from, so that it goes first.
    mount: Mount,
    /// What the file system is mounted from, if that stays attached: the device's number then stays the same, as that
    /// of a disk does, and only the mount's own tells that there was a cut.
    attached: Option<Attached>,
}

/// A loop device. Detached when this goes.
struct Attached(String);

impl Attached {
    fn new(image: &Path) -> Result<Self, String> {
        let found = Command::new("losetup").args(["--find", "--show"]).arg(image).output();
        let found = found.map_err(|error| format!("losetup: {error}"))?;
        if !found.status.success() {
            return Err(format!("losetup: {}", String::from_utf8_lossy(&found.stderr).trim()));
        }
        Ok(Self(String::from_utf8_lossy(&found.stdout).trim().to_owned()))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = run(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

impl Disk {
    /// Makes and mounts a new one.
    pub(crate) fn new(kind: FileSystem, cut: Cut) -> Result<Self, String> {
        let memory = Path::new(MEMORY);
        let mut mount = if memory.is_dir() { Mount::prepare_in(memory) } else { Mount::prepare() };
        let (image, device_image) = match cut {
            Cut::FileSystem => (mount.root().join("image"), PathBuf::new()),
            Cut::Device => (mount.root().join("device/image"), mount.root().join("device.image")),
        };
        if cut == Cut::Device {
            create(&device_image, kind.image_bytes() + DEVICE_OVERHEAD_BYTES)?;
            run(FileSystem::Ext4.make().arg(&device_image))?;
            mount.add("device", "ext4", path_text(&device_image), "loop")?;
        }
        create(&image, kind.image_bytes())?;
        make(kind, &image)?;
        // The device is there before the power is.
        run(Command::new("sync").arg("--file-system").arg(&image))?;
        let attached = if cut == Cut::FileSystem { Some(Attached::new(&image)?) } else { None };
        let mut disk = Self { kind, cut, image, device_image, mount, attached };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        let mounted = match &self.attached {
            Some(device) => self.mount.add("mounted", self.kind.name(), &device.0, "defaults"),
            None => self.mount.add("mounted", self.kind.name(), path_text(&self.image), "loop"),
        };
        mounted.map(drop)
    }

    /// The file system's root.
    pub(crate) fn path(&self) -> &Path {
        self.mount.path()
    }

    /// Cuts the power. Whoever works there is left with errors.
    pub(crate) fn cut(&self) -> Result<(), String> {
        let below = match self.cut {
            Cut::FileSystem => self.path().to_owned(),
            Cut::Device => self.mount.root().join("device"),
        };
        let root = File::open(&below).map_err(|error| format!("{}: {error}", below.display()))?;
        // SAFETY: the call reads a u32 through the pointer that it is given, and that is what a setter of a u32 gives it.
        let done = unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(WITHOUT_LOG_FLUSH)) };
        done.map_err(|error| format!("shutdown of {}: {error}", below.display()))
    }

    /// Unmounts everything and mounts it again, as a boot does. Nobody works there any more.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.mount.unmount()?;
        if self.cut == Cut::Device {
            self.mount.add("device", "ext4", path_text(&self.device_image), "loop")?;
        }
        self.mount()
    }

    /// Writes back pages of segments and control pages, and of the device's cache, here and there, until `stop`: they reach a disk in any
    /// order.
    pub(crate) fn stir(&self, folder: &Path, seed: u64, stop: &AtomicBool) {
        let mut random = Random(seed);
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_micros(random.below(3_000)));
            if self.cut == Cut::Device && random.below(2) == 0 {
                write_back(&self.image, 16 * PAGE_BYTES, &mut random);
            } else if let Some(path) = some_file(folder, &mut random) {
                write_back(&path, PAGE_BYTES, &mut random);
            }
        }
    }
}

/// Makes the file system. That of btrfs looks first at what is mounted anywhere, and fails where somebody unmounts it
/// meanwhile.
fn make(kind: FileSystem, image: &Path) -> Result<(), String> {
    let mut made = Ok(());
    for _ in 0..MAKE_ATTEMPTS {
        made = run(kind.make().arg(image));
        match &made {
            Err(error) if error.contains("cannot check mount status") => thread::sleep(Duration::from_millis(10)),
            _ => break,
        }
    }
    made
}

fn create(path: &Path, bytes: u64) -> Result<(), String> {
    File::create(path).and_then(|file| file.set_len(bytes)).map_err(|error| format!("{}: {error}", path.display()))
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Any segment or control page of the log in `folder`; `None` where the draw, or the power, says so.
fn some_file(folder: &Path, random: &mut Random) -> Option<PathBuf> {
    let entries = |path: &Path| -> io::Result<Vec<PathBuf>> {
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    let mut pick = |mut paths: Vec<PathBuf>| {
        (!paths.is_empty()).then(|| paths.swap_remove(random.below(paths.len() as u64) as usize))
    };
    let partition = pick(entries(folder).ok()?)?;
    let mut files = entries(&partition).ok()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log" || extension == "state"));
    pick(files)
}

/// Has some pages of a file written, if they are dirty. A file that is gone, or a disk that is, doesn't matter.
fn write_back(path: &Path, bytes: u64, random: &mut Random) {
    let Ok(file) = File::open(path) else { return };
    let Ok(len) = file.metadata().map(|metadata| metadata.len()) else { return };
    for _ in 0..8 {
        let at = random.below(len / bytes + 1) * bytes;
        let flags = libc::SYNC_FILE_RANGE_WRITE;
        // SAFETY: the call takes a descriptor that is open here, and numbers.
        unsafe { libc::sync_file_range(file.as_raw_fd(), at as i64, bytes as i64, flags) };
    }
}

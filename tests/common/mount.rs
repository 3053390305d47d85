//! File systems that are mounted for a test.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::require::is_required;

/// How long somebody may take to leave a file system.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(10);

/// Ends a test that can't run here: an error where it is required.
pub(crate) fn skip(what: &str, reason: &str) -> Result<(), libtest_mimic::Failed> {
    if is_required(what) {
        return Err(format!("can't run, and TIDELOG_REQUIRE asks for {what:?}: {reason}").into());
    }
    eprintln!("skipped: {reason}");
    Ok(())
}

/// Runs a command; its messages are the error.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let named = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{named}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{named}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A mounted file system in a temporary folder; gone with this.
pub(crate) struct Mount {
    // Mounted somewhere below; unmounted in `drop`, before the folder is removed.
    mounted: Vec<PathBuf>,
    root: tempfile::TempDir,
}

impl Mount {
    /// A folder to mount in, nothing mounted yet.
    pub(crate) fn prepare() -> Self {
        Self::prepare_in(&env::temp_dir())
    }

    /// The same, in a folder in that one.
    pub(crate) fn prepare_in(folder: &Path) -> Self {
        Self { mounted: Vec::new(), root: tempfile::tempdir_in(folder).unwrap() }
    }

    /// Mounts one file system of this type, with these options.
    pub(crate) fn new(kind: &str, options: &str) -> Result<Self, String> {
        let mut mount = Self::prepare();
        mount.add("mounted", kind, kind, options)?;
        Ok(mount)
    }

    /// A file system made by `make` (a command that takes a file's path) in a file of `bytes`.
    pub(crate) fn in_file(make: &mut Command, kind: &str, bytes: u64) -> Result<Self, String> {
        let mut mount = Self::prepare();
        let image = mount.root.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        run(make.arg(&image))?;
        mount.add("mounted", kind, image.to_str().unwrap(), "loop")?;
        Ok(mount)
    }

    /// As [`in_file`](Mount::in_file), with the file in memory: blocks that nobody writes take none.
    pub(crate) fn in_memory(make: &mut Command, kind: &str, bytes: u64) -> Result<Self, String> {
        let mut mount = Self::new("tmpfs", &format!("size={}", bytes + (16 << 20)))?;
        let image = mount.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        run(make.arg(&image))?;
        mount.add("in-memory", kind, image.to_str().unwrap(), "loop")?;
        Ok(mount)
    }

    /// Mounts another one, on a folder of that name beside the others.
    pub(crate) fn add(&mut self, name: &str, kind: &str, source: &str, options: &str) -> Result<PathBuf, String> {
        let target = self.root.path().join(name);
        std::fs::create_dir_all(&target).map_err(|error| error.to_string())?;
        run(Command::new("mount").args(["-t", kind, "-o", options, source]).arg(&target))?;
        self.mounted.push(target.clone());
        Ok(target)
    }

    /// Unmounts everything, what was mounted last first. Waits a little for those who are on their way out.
    pub(crate) fn unmount(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + UNMOUNT_PATIENCE;
        while let Some(target) = self.mounted.last() {
            match run(Command::new("umount").arg(target)) {
                Ok(()) => drop(self.mounted.pop()),
                Err(reason) if Instant::now() > deadline => return Err(reason),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
        Ok(())
    }

    /// Says that something was mounted there by other means.
    pub(crate) fn adopt(&mut self, target: PathBuf) {
        self.mounted.push(target);
    }

    /// The folder that all is in; not itself mounted.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The folder that was mounted last.
    pub(crate) fn path(&self) -> &Path {
        self.mounted.last().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        while let Some(target) = self.mounted.pop() {
            if run(Command::new("umount").arg(&target)).is_err() {
                // Somebody is still inside. It goes when they do; not from under them.
                let _ = run(Command::new("umount").arg("--lazy").arg(&target));
            }
        }
    }
}

/// A file that keeps space from the others.
pub(crate) struct Ballast(PathBuf);

impl Ballast {
    /// Takes that much space.
    pub(crate) fn new(folder: &Path, bytes: usize) -> Self {
        let path = folder.join("ballast");
        std::fs::write(&path, vec![0x55; bytes]).unwrap();
        Self(path)
    }

    /// Takes all space but about `leave` bytes.
    pub(crate) fn all_but(folder: &Path, leave: u64) -> Self {
        use std::io::Write;
        let path = folder.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        for piece in [vec![0x55; 1 << 20], vec![0x55; 4096]] {
            while file.write_all(&piece).is_ok() {}
        }
        let _ = file.sync_all();
        let len = (file.metadata().unwrap().len() / 4096 * 4096).saturating_sub(leave);
        if file.set_len(len).and_then(|()| file.sync_all()).is_err() {
            // Where even that takes space (btrfs): once more, up to there.
            drop(file);
            std::fs::remove_file(&path).unwrap();
            rustix::fs::syncfs(std::fs::File::open(folder).unwrap()).unwrap();
            let mut file = std::fs::File::create(&path).unwrap();
            let piece = vec![0x55; 4096];
            let _ = (0..len / 4096).try_for_each(|_| file.write_all(&piece));
            let _ = file.sync_all();
        }
        Self(path)
    }

    /// Gives it back.
    pub(crate) fn remove(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}

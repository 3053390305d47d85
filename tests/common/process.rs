//! Child processes: this test binary again, with something else to do.

use std::{
    env,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The name of the environment variable that makes a test binary a child: what the child is to do.
const CHILD_VARIABLE: &str = "TIDELOG_TEST_CHILD";
/// The folder that the child works in.
const CHILD_FOLDER: &str = "TIDELOG_TEST_FOLDER";
/// Longer than any child takes.
const CHILD_LIFE: Duration = Duration::from_secs(120);

/// What this process is to do, and where, if it is a child.
pub(crate) fn child_task() -> Option<(String, PathBuf)> {
    Some((env::var(CHILD_VARIABLE).ok()?, env::var_os(CHILD_FOLDER)?.into()))
}

/// This binary again, as a child.
pub(crate) fn child(task: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(CHILD_VARIABLE, task).env(CHILD_FOLDER, folder).stdin(Stdio::null());
    command
}

/// Runs a child to its end. A signal (that of a store into a page that the disk has no room for, say) is an error.
pub(crate) fn run_child(task: &str, folder: &Path) -> Result<(), String> {
    let mut child = child(task, folder).stdout(Stdio::null()).spawn().unwrap();
    let status = wait(&mut child)?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (code, signal) => Err(format!("child {task:?} ended with code {code:?}, signal {signal:?}")),
    }
}

/// Runs a child until it kills itself by [`kill_myself`].
pub(crate) fn run_killed_child(task: &str, folder: &Path) -> Result<(), String> {
    let mut child = child(task, folder).stdout(Stdio::null()).spawn().unwrap();
    let status = wait(&mut child)?;
    match status.signal() {
        Some(libc::SIGKILL) => Ok(()),
        signal => Err(format!("child {task:?} ended with code {:?}, signal {signal:?}", status.code())),
    }
}

fn wait(child: &mut Child) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + CHILD_LIFE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err("the child hangs".into())
}

/// As `kill -9` from outside: nothing is closed, dropped or flushed.
pub(crate) fn kill_myself() -> ! {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    unreachable!("a signal that can't be ignored");
}

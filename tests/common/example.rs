//! Examples, built and run as the programs that they are.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Builds an example as this test was built; answers where it is.
pub(crate) fn build(name: &str) -> PathBuf {
    build_with(name, &[])
}

/// The same, of one that needs features.
pub(crate) fn build_with(name: &str, features: &[&str]) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--example", name, "--features", &features.join(","), "--message-format=json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "cargo could not build the example");
    let messages = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut executables = messages.filter_map(|message: Value| {
        let built = message["target"]["name"] == name && message["target"]["kind"] == json!(["example"]);
        built.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    executables.next().expect("cargo names the executable")
}

/// How a run ended, and what it printed.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The one JSON object that a run that went well prints, as text.
    pub(crate) fn json(self) -> String {
        let output = self.output();
        let line = output.strip_suffix('\n').expect("a line");
        assert!(serde_json::from_str::<Value>(line).unwrap().is_object());
        line.to_owned()
    }

    /// The message of a run that refused.
    pub(crate) fn error(self) -> String {
        assert_eq!(self.status.code(), Some(1), "{} {}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        assert!(self.stderr.starts_with("error: ") && !self.stderr.contains("panicked at"), "{}", self.stderr);
        self.stderr
    }

    /// What a run that aborted had printed. It said nothing of an error.
    pub(crate) fn aborted(self) -> String {
        #[cfg(unix)]
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&self.status), Some(6), "SIGABRT: {}", self.stderr);
        assert!(!self.status.success());
        assert_eq!(self.stderr, "");
        self.stdout
    }

    /// Checks that the run aborted without a word.
    pub(crate) fn assert_aborted(self) {
        assert_eq!(self.aborted(), "");
    }

    /// What a run that went well prints.
    pub(crate) fn output(self) -> String {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        assert_eq!(self.stderr, "");
        self.stdout
    }
}

/// A run that was started.
pub(crate) struct Running {
    pub(crate) child: Child,
    output: TempDir,
}

impl Running {
    pub(crate) fn start(program: &Path, args: &[&str]) -> Self {
        let output = TempDir::new().unwrap();
        let file = |name| fs::File::create(output.path().join(name)).unwrap();
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        Running { child: command.spawn().unwrap(), output }
    }

    /// Waits for the end, but not for ever.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + Duration::from_secs(300);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("the run hangs");
            }
            thread::sleep(Duration::from_millis(2));
        };
        let text = |name| fs::read_to_string(self.output.path().join(name)).unwrap();
        Ended { status, stdout: text("stdout"), stderr: text("stderr") }
    }
}

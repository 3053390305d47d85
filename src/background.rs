//! Threads of a log that are started when there is something for them to do first, and end with it.
//!
//! Most of what a thread costs is to be started: an open that starts none is a third faster, and programs that only look
//! something up never need one.
//!
//! # Invariants
//! - A thread that can't be started is told to who needs it, before anything that relies on it is promised; the next one
//!   who needs it tries again.
//! - Once ended none is started any more.
//!
//! # Thread safety
//! Any thread may call anything; the lock is held while a thread is being started, and not while it is waited for.

use std::{
    io,
    path::PathBuf,
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;

use crate::error::{Error, Repr, Result};

/// Who does the work in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Background {
    /// Threads, when it is due.
    #[default]
    Threads,
    /// Whoever takes the steps, due or not: for tests that want everything to happen in the same order twice, and for a
    /// repair, in which nobody takes any.
    Stepped,
    /// Threads, but the system has none.
    #[cfg(test)]
    NoThreads,
}

/// A thread that isn't there before it is needed.
#[derive(Debug)]
pub(crate) struct BackgroundThread {
    name: &'static str,
    #[cfg(test)]
    refused: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    NotYet,
    Running(JoinHandle<()>),
    /// It has ended, or is never to be started.
    Ended,
}

impl BackgroundThread {
    pub(crate) fn new(name: &'static str, background: Background) -> Self {
        let state = if background == Background::Stepped { State::Ended } else { State::NotYet };
        Self {
            name,
            #[cfg(test)]
            refused: background == Background::NoThreads,
            state: Mutex::new(state),
        }
    }

    /// Starts it, unless it was started, has ended, or isn't to be. Kind `LimitReached` if the system has no more threads.
    pub(crate) fn begin<F: FnOnce() + Send + 'static>(&self, body: impl FnOnce() -> F) -> Result<()> {
        let mut state = self.state.lock();
        if matches!(*state, State::NotYet) {
            let builder = thread::Builder::new().name(self.name.into());
            #[cfg(test)]
            let builder = if self.refused { builder.stack_size(usize::MAX >> 1) } else { builder };
            let thread = builder.spawn(body());
            *state = State::Running(thread.map_err(refused)?);
        }
        Ok(())
    }

    /// Waits for the end of it, which somebody else has told it to come to. None is started from now on.
    pub(crate) fn end(&self) {
        let state = std::mem::replace(&mut *self.state.lock(), State::Ended);
        if let State::Running(thread) = state {
            // The last handle of a log can be dropped by the thread itself, which can't wait for its own end. A panic
            // in it was told by the panic hook.
            if thread::current().id() != thread.thread().id() {
                let _ = thread.join();
            }
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_started(&self) -> bool {
        matches!(*self.state.lock(), State::Running(_))
    }
}

/// Most often it is a limit of the process or of its group (`EAGAIN`).
fn refused(source: io::Error) -> Error {
    let (operation, path) = ("start a thread for", PathBuf::from("the log"));
    match source.kind() {
        io::ErrorKind::WouldBlock => Repr::LimitReached { operation, path, source }.into(),
        _ => Error::io(operation, path, source),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;
    use crate::error::ErrorKind;

    fn counting(runs: &Arc<AtomicU32>) -> impl FnOnce() + Send + 'static {
        let runs = runs.clone();
        move || {
            runs.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_is_started_once_however_often_it_is_needed_and_never_once_ended() {
        let runs = Arc::new(AtomicU32::new(0));
        let thread = BackgroundThread::new("test", Background::Threads);
        assert!(!thread.is_started());
        (0..3).for_each(|_| thread.begin(|| counting(&runs)).unwrap());
        assert!(thread.is_started());
        thread.end();
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        thread.begin(|| counting(&runs)).unwrap();
        assert!(!thread.is_started());
        thread.end();
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_that_cant_be_started_is_told_each_time() {
        let thread = BackgroundThread::new("test", Background::NoThreads);
        for _ in 0..2 {
            let error = thread.begin(|| || panic!("a thread")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
            assert!(!thread.is_started());
        }
        thread.end();
    }

    #[test]
    fn there_is_none_where_steps_are_taken() {
        let thread = BackgroundThread::new("test", Background::Stepped);
        thread.begin(|| || panic!("a thread")).unwrap();
        assert!(!thread.is_started());
        thread.end();
    }

    #[test]
    fn it_may_end_itself() {
        let thread = Arc::new(BackgroundThread::new("test", Background::Threads));
        let (to, told) = std::sync::mpsc::channel();
        let own = thread.clone();
        thread
            .begin(|| {
                move || {
                    own.end();
                    to.send(()).unwrap();
                }
            })
            .unwrap();
        told.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
    }
}

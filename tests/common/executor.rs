//! The least that runs futures: no runtime, no thread but the caller's.

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Runs a future on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(unpark.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while !unpark.woken.swap(false, Ordering::SeqCst) {
            thread::park();
        }
    }
}

/// Counts how often it is woken.
#[derive(Default)]
pub(crate) struct Counting(AtomicU64);

impl Counting {
    pub(crate) fn wakes(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.count();
    }
}

/// Looks at a future once.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F, woken: &Arc<Counting>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(woken.clone())))
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs many tasks on the thread that calls [`run`](Executor::run).
#[derive(Default)]
pub(crate) struct Executor<'a> {
    tasks: Vec<Option<Task<'a>>>,
    queue: Arc<Queue>,
}

/// Numbers of the tasks to look at.
#[derive(Default)]
struct Queue {
    numbers: Mutex<VecDeque<usize>>,
    filled: Condvar,
}

struct TaskWaker {
    number: usize,
    queue: Arc<Queue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.queue.numbers.lock().unwrap().push_back(self.number);
        self.queue.filled.notify_one();
    }
}

impl<'a> Executor<'a> {
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + 'a) {
        self.queue.numbers.lock().unwrap().push_back(self.tasks.len());
        self.tasks.push(Some(Box::pin(task)));
    }

    /// Runs until all tasks have ended, or all wait and none is woken for `patience`. How many are left.
    pub(crate) fn run(&mut self, patience: Duration) -> usize {
        while self.tasks.iter().any(Option::is_some) {
            let Some(number) = self.next(patience) else { break };
            let waker = Waker::from(Arc::new(TaskWaker { number, queue: self.queue.clone() }));
            let ended = self.tasks[number]
                .as_mut()
                .is_some_and(|task| task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
            if ended {
                self.tasks[number] = None;
            }
        }
        self.tasks.iter().flatten().count()
    }

    fn next(&self, patience: Duration) -> Option<usize> {
        let deadline = Instant::now() + patience;
        let mut numbers = self.queue.numbers.lock().unwrap();
        loop {
            if let Some(number) = numbers.pop_front() {
                return Some(number);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            numbers = self.queue.filled.wait_timeout(numbers, left).unwrap().0;
        }
    }
}

//! The shop: its services, each in a thread of its own, and what they know of each other beside the log.
//!
//! That is little: which topics will get no more records in this run (so that a run ends), and whether a service
//! failed (so that the others don't wait for it). Nothing of it outlives the run.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, ScopedJoinHandle},
};

use tidelog::Log;

use crate::{
    Error, Result,
    analytics::{self, Totals},
    intake::{self, Intake},
    notifications::Notifications,
    payment::Payment,
    service::{self, Report},
    warehouse::Warehouse,
};

/// What the services of one run share.
pub(crate) struct Shop<'a> {
    pub(crate) log: &'a Log,
    closed: Mutex<HashSet<&'static str>>,
    failure: OnceLock<Error>,
}

impl<'a> Shop<'a> {
    fn new(log: &'a Log) -> Self {
        Self { log, closed: Mutex::default(), failure: OnceLock::new() }
    }

    /// Says that a topic gets no more records in this run.
    pub(crate) fn close(&self, topic: &'static str) {
        self.lock_closed().insert(topic);
    }

    /// The topics that get no more records in this run. An error if a service has failed.
    pub(crate) fn closed_topics(&self) -> Result<HashSet<&'static str>> {
        self.check()?;
        Ok(self.lock_closed().clone())
    }

    /// An error if a service has failed: the others are to end.
    pub(crate) fn check(&self) -> Result<()> {
        if self.failure.get().is_some() { Err("another service failed".into()) } else { Ok(()) }
    }

    fn lock_closed(&self) -> MutexGuard<'_, HashSet<&'static str>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a service in a thread of its own. The first to fail leaves its error for all.
    fn spawn<'scope, T: Send + 'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        service: impl FnOnce() -> Result<T> + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, Option<T>> {
        scope.spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(service)).unwrap_or_else(|_| Err("a service panicked".into()));
            outcome.map_err(|error| self.failure.set(error)).ok()
        })
    }
}

/// Runs all services until everything that came in is done. Answers what is in the log by then, and what each
/// service did for it.
pub(crate) fn run(log: &Log, intake: Intake) -> Result<(Totals, Vec<Report>)> {
    let shop = Shop::new(log);
    let ended = thread::scope(|scope| {
        let services = [
            shop.spawn(scope, || intake::run(&shop, &intake)),
            shop.spawn(scope, || service::run(&shop, Warehouse::default())),
            shop.spawn(scope, || service::run(&shop, Payment)),
            shop.spawn(scope, || service::run(&shop, Notifications)),
        ];
        let (totals, report) = shop.spawn(scope, || analytics::run(&shop)).join().ok()??;
        let mut reports =
            services.map(|service| service.join().ok().flatten()).into_iter().collect::<Option<Vec<_>>>()?;
        reports.push(report);
        Some((totals, reports))
    });
    match shop.failure.into_inner() {
        Some(error) => Err(error),
        None => ended.ok_or_else(|| "a service ended without a word".into()),
    }
}

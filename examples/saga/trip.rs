//! A trip: what happens to it, and what comes next. That follows from its records alone.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Service {
    Hotel,
    Ticket,
    Transfer,
}

/// In the order in which they are booked.
const SERVICES: [Service; 3] = [Service::Hotel, Service::Ticket, Service::Transfer];

/// What the world is asked for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Action {
    Book(Service),
    Cancel(Service),
}

impl Action {
    /// `book-hotel`, for instance.
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase().replace('(', "-").replace(')', "")
    }
}

/// A record of a trip.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Event {
    Started { all_well: bool },
    Decided(Action),
    Noted { action: Action, done: bool },
    Ended { booked: bool },
}

impl Event {
    /// What appending it is called.
    pub(crate) fn step(&self) -> String {
        match self {
            Self::Started { .. } => "start".into(),
            Self::Decided(action) => format!("decide-{}", action.name()),
            Self::Noted { action, .. } => format!("note-{}", action.name()),
            Self::Ended { .. } => "end".into(),
        }
    }

    /// The step, and how it went.
    pub(crate) fn describe(&self) -> String {
        let how = match self {
            Self::Noted { done, .. } => ["failed", "done"][usize::from(*done)],
            Self::Ended { booked } => ["cancelled", "booked"][usize::from(*booked)],
            _ => "",
        };
        format!("{:<24}{how}", self.step())
    }
}

/// Before and after every append and every effect of any trip.
pub(crate) fn crash_points() -> Vec<&'static str> {
    let cancelled = [Service::Ticket, Service::Hotel].map(Action::Cancel);
    let actions = SERVICES.map(Action::Book).into_iter().chain(cancelled);
    let steps = actions.flat_map(|action| ["decide-", "", "note-"].map(|what| format!("{what}{}", action.name())));
    let steps = ["start".to_owned()].into_iter().chain(steps).chain(["end".to_owned()]);
    steps.flat_map(|step| ["before", "after"].map(|when| &*format!("{when}-{step}").leak())).collect()
}

/// What a trip comes to next.
pub(crate) enum Next {
    Append(Event),
    Ask(Action),
}

/// Where a trip stands.
#[derive(Default)]
pub(crate) struct Trip {
    pub(crate) all_well: Option<bool>,
    /// Decided, and not yet noted.
    decided: Option<Action>,
    /// How many of the services are booked.
    booked: usize,
    failed: bool,
    pub(crate) ended: bool,
}

impl Trip {
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::Started { all_well } => self.all_well = Some(all_well),
            Event::Decided(action) => self.decided = Some(action),
            Event::Noted { action, done } => {
                self.decided = None;
                match action {
                    Action::Book(_) if done => self.booked += 1,
                    Action::Book(_) => self.failed = true,
                    Action::Cancel(_) => self.booked = self.booked.saturating_sub(1),
                }
            }
            Event::Ended { .. } => self.ended = true,
        }
    }

    /// A trip that hasn't started will start as `all_well` says. Nothing comes after the end.
    pub(crate) fn next(&self, all_well: bool) -> Option<Next> {
        let latest = self.booked.checked_sub(1).and_then(|latest| SERVICES.get(latest));
        let next_decision = || match (self.failed, SERVICES.get(self.booked), latest) {
            (false, Some(service), _) => Event::Decided(Action::Book(*service)),
            (false, None, _) => Event::Ended { booked: true },
            (true, _, Some(latest)) => Event::Decided(Action::Cancel(*latest)),
            (true, _, None) => Event::Ended { booked: false },
        };
        match (self.all_well, self.decided) {
            _ if self.ended => None,
            (None, _) => Some(Next::Append(Event::Started { all_well })),
            (_, Some(action)) => Some(Next::Ask(action)),
            (_, None) => Some(Next::Append(next_decision())),
        }
    }
}

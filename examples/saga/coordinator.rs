//! The coordinator: brings a trip to its end, whoever began it.

use tidelog::{Start, TypedTopic};

use crate::{
    Args, Result,
    trip::{Action, Event, Next, Service, Trip},
    world,
};

/// There is one trip. This is the key of its records and, with an action, of what the world does for it.
const TRIP: &str = "trip-1";

/// Goes on where the records end, until there is nothing left to do.
pub(crate) fn run(trips: &TypedTopic<Event>, world: &TypedTopic<bool>, args: &Args) -> Result<()> {
    let mut trip = Trip::default();
    for event in trips.reader(Start::Earliest)? {
        trip.apply(event?.1.ok_or("an event is null")?);
    }
    while let Some(next) = trip.next(args.all_well) {
        let event = match next {
            Next::Append(event) => event,
            Next::Ask(action) => {
                let possible = trip.all_well == Some(true) || !matches!(action, Action::Book(Service::Transfer));
                let key = format!("{TRIP}/{}", action.name());
                let done = around(&action.name(), args, || world::ask(world, &key, possible))?;
                Event::Noted { action, done }
            }
        };
        around(&event.step(), args, || Ok(trips.append_keyed(TRIP, &event)?))?;
        trip.apply(event);
    }
    Ok(())
}

/// Takes a step, if the process isn't to die before it; or after it.
fn around<T>(step: &str, args: &Args, take: impl FnOnce() -> Result<T>) -> Result<T> {
    let die_if_asked = |when| match &args.crash_at {
        Some(point) if *point == format!("{when}-{step}") => std::process::abort(),
        _ => {}
    };
    die_if_asked("before");
    let outcome = take()?;
    die_if_asked("after");
    Ok(outcome)
}

//! Services: what is handled is handled once, in effect, whenever the process dies.
//!
//! A service reads its inputs as a consumer group and appends what follows from each record. Between that append and
//! the commit of the group's offset an abort can fall, and then the next run is given the record again. So:
//!
//! 1. Every record that a service appends names, in a header, the [`Source`] that it follows from.
//! 2. A service that starts reads its own outputs. They tell it which sources behind the committed offset are done,
//!    and give it its state back, which is made of nothing but its outputs.
//! 3. All that follows from one source is appended as one batch under one key, so it lies in one frame: it is there
//!    entirely or not at all.
//!
//! An append survives the process. It may not survive the machine, and topics lose what they lose each for itself. So:
//!
//! 4. Nothing is handled that a power cut could take back, and no offset committed before what follows from the
//!    records below it is safe: a flush before each. Services that flush at the same time share the syncs.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tidelog::{Consumer, Log, Start, Topic};

use crate::{
    Result,
    events::{self, Event, Source},
    shop::Shop,
};

/// From one topic to another.
pub(crate) struct Flow {
    pub(crate) input: &'static str,
    pub(crate) output: &'static str,
}

/// What is particular to a service.
pub(crate) trait Service {
    /// The name of its consumer group.
    const GROUP: &'static str;
    /// Where that leads what it reads. No other service writes to these outputs.
    const FLOWS: &'static [Flow];

    /// What follows from an event: events about the same invoice. Depends on the event and the state alone.
    fn handle(&self, input: Event) -> Vec<Event>;

    /// Takes in what was appended, just now or in an earlier run. The only thing that changes the state.
    fn apply(&mut self, _output: &Event) {}
}

/// What a service has done in this run, and left undone.
pub(crate) struct Report {
    pub(crate) group: &'static str,
    pub(crate) records_read: u64,
    pub(crate) records_appended: u64,
    /// Records that its group has yet to read; nothing if it is no group.
    pub(crate) lag: Option<u64>,
}

/// How long to sleep for more before asking whether there will be more. A record that comes ends the sleep at once.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);

/// Runs a service until its inputs are closed and all that is in them is handled.
pub(crate) fn run<S: Service>(shop: &Shop<'_>, mut service: S) -> Result<Report> {
    let outputs = S::FLOWS.iter().map(|flow| Ok((flow.input, events::topic(shop.log, flow.output)?)));
    let outputs: HashMap<&str, Topic> = outputs.collect::<Result<_>>()?;
    let mut consumer = subscribe(shop.log, S::GROUP, S::FLOWS.iter().map(|flow| flow.input))?;
    let done = replay(&mut service, outputs.values(), &consumer)?;
    let mut report = Report { group: S::GROUP, records_read: 0, records_appended: 0, lag: None };
    loop {
        // Asked before the poll: what is closed now and found empty then stays empty.
        let closed = shop.closed_topics()?;
        let batch = consumer.poll(PATIENCE)?;
        if batch.is_empty() {
            close_outputs(shop, S::FLOWS, &closed);
            if S::FLOWS.iter().all(|flow| closed.contains(flow.input)) {
                report.lag = Some(consumer.lag().total);
                return Ok(report);
            }
            continue;
        }
        shop.log.flush()?;
        for record in &batch {
            report.records_read += 1;
            let source = Source::of(&record);
            if done.contains(&source) {
                continue;
            }
            let follows = service.handle(Event::from_record(&record)?);
            append(&outputs[record.topic()], &follows, &source)?;
            report.records_appended += follows.len() as u64;
            follows.iter().for_each(|event| service.apply(event));
        }
        shop.log.flush()?;
        consumer.commit()?;
    }
}

/// Joins the group; one that is new begins at the first record.
pub(crate) fn subscribe(
    log: &Log,
    group: &str,
    inputs: impl Iterator<Item = &'static str> + Clone,
) -> Result<Consumer> {
    for input in inputs.clone() {
        events::topic(log, input)?;
    }
    let consumer = inputs.fold(log.consumer(group), |consumer, input| consumer.topic(input));
    Ok(consumer.start_if_new(Start::Earliest).open()?)
}

/// Gives a service its state back. Answers which of the sources that it will be given again are done.
fn replay<'a>(
    service: &mut impl Service,
    outputs: impl Iterator<Item = &'a Topic>,
    consumer: &Consumer,
) -> Result<HashSet<Source>> {
    let mut done = HashSet::new();
    let mut seen = HashSet::new();
    for topic in outputs.filter(|topic| seen.insert(topic.name().to_owned())) {
        let mut reader = topic.reader(Start::Earliest)?;
        while let Some(batch) = reader.next_batch()? {
            for record in &batch {
                service.apply(&Event::from_record(&record)?);
                let source = Source::named_by(&record)?;
                if source.offset >= consumer.position(&source.topic, source.partition)? {
                    done.insert(source);
                }
            }
        }
    }
    Ok(done)
}

/// Appends what follows from one source, all or nothing.
fn append(topic: &Topic, follows: &[Event], source: &Source) -> Result<()> {
    let records = follows.iter().map(|event| Ok(event.to_record()?.header(Source::HEADER, source.to_string())));
    topic.append_batch(records.collect::<Result<Vec<_>>>()?)?;
    Ok(())
}

/// Closes each output that no open input leads to.
fn close_outputs(shop: &Shop<'_>, flows: &[Flow], closed: &HashSet<&str>) {
    for Flow { output, .. } in flows {
        if flows.iter().filter(|flow| flow.output == *output).all(|flow| closed.contains(flow.input)) {
            shop.close(output);
        }
    }
}

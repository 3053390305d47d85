//! Printing what is in the files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    Output, Result,
    format::{Frame, Piece, Segment},
};

#[derive(Args)]
pub(crate) struct Filter {
    folder: PathBuf,
    /// What to print
    #[arg(long, value_enum, default_value_t = Show::Segments)]
    show: Show,
    /// Of this topic alone
    #[arg(long)]
    topic: Option<String>,
    /// Of this partition alone
    #[arg(long)]
    partition: Option<u32>,
    /// From this offset on
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// At most so many rows
    #[arg(long, value_name = "ROWS", default_value_t = usize::MAX)]
    limit: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Show {
    Topics,
    Segments,
    Frames,
    Records,
}

/// A topic's file.
struct Topic {
    name: String,
    id: Value,
    partitions: u32,
}

const FRAME: [&str; 9] = ["topic", "partition", "offset", "records", "position", "bytes", "time_ms", "epoch", "kind"];
const RECORD: [&str; 7] = ["topic", "partition", "offset", "time_ms", "key", "value", "header_bytes"];

/// Answers whether everything that was printed could be read.
pub(crate) fn run(filter: &Filter, out: &Output) -> Result<bool> {
    let wanted = |topic: &Topic| filter.topic.as_ref().is_none_or(|name| *name == topic.name);
    let topics: Vec<Topic> = topics(&filter.folder)?.into_iter().filter(wanted).collect();
    if let Some(name) = filter.topic.as_ref().filter(|_| topics.is_empty()) {
        return Err(format!("there is no topic {name:?}").into());
    }
    if filter.show == Show::Topics {
        let rows = topics.iter().take(filter.limit);
        let rows = rows.map(|topic| vec![topic.name.clone().into(), topic.partitions.into(), topic.id.clone()]);
        out.rows("topic", &["topic", "partitions", "id"], rows)?;
        return Ok(true);
    }
    let (mut rows, mut whole) = (Vec::new(), true);
    for topic in &topics {
        for number in (0..topic.partitions).filter(|number| filter.partition.is_none_or(|wanted| wanted == *number)) {
            whole &= partition(filter, topic, number, &mut rows)?;
        }
    }
    match filter.show {
        Show::Frames => out.rows("frame", &FRAME, rows)?,
        Show::Records => out.rows("record", &RECORD, rows)?,
        Show::Segments | Show::Topics => {
            let columns =
                ["topic", "partition", "base_offset", "sequence", "bytes", "frames", "records", "damaged_bytes"];
            out.rows("segment", &columns, rows)?;
        }
    }
    Ok(whole)
}

/// The topics, by their files; the log's own too.
fn topics(folder: &Path) -> Result<Vec<Topic>> {
    let mut topics = Vec::new();
    for entry in fs::read_dir(folder.join("topics"))? {
        let path = entry?.path();
        let (Some("json"), Some(name)) =
            (path.extension().and_then(|it| it.to_str()), path.file_stem().and_then(|it| it.to_str()))
        else {
            continue;
        };
        let file: Value = serde_json::from_slice(&fs::read(&path)?).map_err(|error| format!("{path:?}: {error}"))?;
        let partitions = file["config"]["partitions"].as_u64().and_then(|count| u32::try_from(count).ok());
        let partitions = partitions.ok_or_else(|| format!("{path:?} doesn't tell how many partitions there are"))?;
        topics.push(Topic { name: name.into(), id: file["topic_id"].clone(), partitions });
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(topics)
}

fn partition(filter: &Filter, topic: &Topic, number: u32, rows: &mut Vec<Vec<Value>>) -> Result<bool> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(filter.folder.join(format!("{}-{number}", topic.name)))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    let base = |path: &PathBuf| path.file_stem().and_then(|name| name.to_str()?.parse::<u64>().ok());
    let mut whole = true;
    for (at, path) in paths.iter().enumerate() {
        let ends_before = paths.get(at + 1).and_then(base).is_some_and(|next| next <= filter.from);
        if rows.len() >= filter.limit || ends_before {
            continue;
        }
        let segment = Segment::read(path)?;
        whole &= segment.header().is_some();
        let place = [topic.name.clone().into(), number.into()];
        let (mut frames, mut records, mut damaged) = (0_u64, 0_u64, 0);
        for piece in segment.pieces() {
            match piece {
                Piece::Frame(frame) => {
                    frames += 1;
                    records += u64::from(frame.count);
                    add_frame(filter, &place, &frame, rows);
                }
                Piece::Damage(start, end) => {
                    whole = false;
                    damaged += end - start;
                    if filter.show == Show::Frames && rows.len() < filter.limit {
                        let row = [Value::Null, 0.into(), start.into(), (end - start).into(), Value::Null, Value::Null];
                        rows.push(place.iter().cloned().chain(row).chain(["damaged".into()]).collect());
                    }
                }
            }
        }
        if filter.show == Show::Segments {
            let sequence = segment.header().map_or(Value::Null, |header| header.sequence.into());
            let base = base(path).map_or(Value::Null, Value::from);
            let row = [base, sequence, segment.len().into(), frames.into(), records.into(), damaged.into()];
            rows.push(place.into_iter().chain(row).collect());
        }
    }
    Ok(whole)
}

fn add_frame(filter: &Filter, place: &[Value; 2], frame: &Frame<'_>, rows: &mut Vec<Vec<Value>>) {
    let wanted = frame.offset.saturating_add(frame.count.into()) > filter.from;
    if filter.show == Show::Frames && wanted && rows.len() < filter.limit {
        let kind = if frame.is_filler() { "set aside" } else { "records" };
        let row =
            json!([frame.offset, frame.count, frame.position, frame.bytes.len(), frame.time_ms, frame.epoch, kind]);
        rows.push(place.iter().chain(row.as_array().into_iter().flatten()).cloned().collect());
    }
    if filter.show == Show::Records {
        for (offset, record) in frame.records().filter(|(offset, _)| *offset >= filter.from) {
            if rows.len() >= filter.limit {
                return;
            }
            let time_ms = record.time_ms.unwrap_or(frame.time_ms);
            let row = [offset.into(), time_ms.into(), text(record.key), text(record.value), record.header_bytes.into()];
            rows.push(place.iter().cloned().chain(row).collect());
        }
    }
}

/// Bytes as text: what isn't UTF-8 in hexadecimal, what is long by its beginning.
fn text(bytes: Option<&[u8]>) -> Value {
    const LONGEST: usize = 200;
    let Some(bytes) = bytes else { return Value::Null };
    let shown = &bytes[..bytes.len().min(LONGEST)];
    let mut text = match std::str::from_utf8(shown) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if shown.len() < bytes.len() {
        text += &format!("… ({} bytes)", bytes.len());
    }
    text.into()
}

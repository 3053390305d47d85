//! Opening a log whose process was killed, or whose machine lost power: how long that takes for how many bytes, and how
//! fast what wasn't flushed is read through.
//!
//! Each open happens in a process of its own, which is killed in its turn. What a power cut leaves is made of what a
//! killed process left: without the control page, which no other boot believes, and with the checkpoint as it was.
//! What isn't on the device yet is synced by the first open, which is told apart.
//!
//! Beside the scan stands what the machine allows, in the same run and over the same file, read with `pread` in blocks of
//! the same size: one checksum for each block, and one for each record, as the log has to.
//!
//! After a power cut nothing is in the page cache. That is the first comparison, of times by the clock: segments are taken
//! out of the cache before each reading. The second one is of what the scan takes of the processor, with all in the
//! cache; it holds where the machine is busy with other things.
//!
//! `TIDELOG_BENCH_BYTES` is the size of the greatest log; 1 GiB unless it is set.

#![allow(clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets};
use tidelog::{Durability, Log, LogOptions, Opening, Record, TopicConfig};

mod common;
use common::payload;

const ROLE: &str = "TIDELOG_BENCH_ROLE";
const DIR: &str = "TIDELOG_BENCH_DIR";
const BYTES: &str = "TIDELOG_BENCH_BYTES";
/// Bytes of a record's value.
const RECORD_BYTES: usize = 100;
/// Bytes of a record in the file: with its frame's header, two length words and the padding.
const FRAME_BYTES: u64 = 144;
const HEADER_BYTES: usize = 32;
/// Where frames begin in a segment, and what the library reads at once.
const DATA_START: u64 = 4192;
const BLOCK_BYTES: usize = 256 << 10;
/// Opens of one kind.
const ROUNDS: usize = 5;

fn main() {
    if let Ok(role) = env::var(ROLE) {
        play(&role, Path::new(&env::var_os(DIR).expect("a folder")));
    }
    let bytes = env::var(BYTES).map_or(1 << 30, |bytes| bytes.parse().expect("a number of bytes"));
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["bytes", "left by", "opening", "first open, ms", "median open, ms", "of the processor, ms"]);
    let mut killed = Vec::new();
    for bytes in [bytes / 16, bytes / 4, bytes] {
        let log = Killed::new("append", bytes);
        killed.push(log.measure(&mut table, "a kill", Opening::Resumed).1);
        log.measure(&mut table, "a power cut", Opening::Scanned);
    }
    let mut log = Killed::new("append to one segment", bytes);
    let resumed = log.measure(&mut table, "a kill, nothing flushed", Opening::Resumed).1;
    let (_, scanned) = log.measure(&mut table, "a power cut, nothing flushed", Opening::Scanned);
    let (blocks, frames) = (log.median(checksum_blocks), log.median(checksum_frames));
    log.is_cold = true;
    let (_, scanned_cold) = log.measure(&mut table, "the same, nothing cached", Opening::Scanned);
    let (blocks_cold, frames_cold) = (log.median(checksum_blocks), log.median(checksum_frames));
    println!("{table}");
    // What isn't reading: files are opened, mapped and synced as after a kill.
    let without_opening = |opened: Cost| Cost {
        wall: opened.wall.saturating_sub(resumed.wall),
        processor: opened.processor.saturating_sub(resumed.processor),
    };
    let (scan, scan_cold) = (without_opening(scanned), without_opening(scanned_cold));
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["read through", "ms", "of the processor, ms", "GB/s by the clock"]);
    for (name, cost) in [
        ("from the device, checksum of each block", blocks_cold),
        ("checksum of each record", frames_cold),
        ("open after a power cut", scanned_cold),
        ("of that, the scan", scan_cold),
        ("from the cache, checksum of each block", blocks),
        ("checksum of each record", frames),
        ("open", scanned),
        ("of that, the scan", scan),
    ] {
        let rate = log.bytes() as f64 / cost.wall.as_secs_f64() / 1e9;
        table.add_row([name.into(), milliseconds(cost.wall), milliseconds(cost.processor), format!("{rate:.2}")]);
    }
    println!("{table}");
    let ratio = |one: Cost, other: Cost| one.processor.as_secs_f64() / other.processor.as_secs_f64();
    let by_clock = |one: Cost, other: Cost| one.wall.as_secs_f64() / other.wall.as_secs_f64();
    println!(
        "recovery_bytes={bytes} killed_ms={} killed_growth={:.2} power_cut_ms={} scan_to_blocks={:.2} scan_to_records={:.2} \
         cached_scan_to_blocks={:.2} cached_scan_to_records={:.2}",
        milliseconds(killed[2].wall),
        ratio(killed[2], killed[0]),
        milliseconds(scanned_cold.wall),
        by_clock(blocks_cold, scan_cold),
        by_clock(frames_cold, scan_cold),
        ratio(blocks, scan),
        ratio(frames, scan),
    );
}

/// What something takes.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    /// Of the thread; where the system doesn't tell, the same.
    processor: Duration,
}

impl Cost {
    fn of<T>(body: impl FnOnce() -> T) -> (T, Self) {
        let (start, before) = (Instant::now(), processor_time());
        let made = body();
        let (wall, after) = (start.elapsed(), processor_time());
        let processor = before.zip(after).map_or(wall, |(before, after)| after - before);
        (made, Self { wall, processor })
    }
}

/// What this thread has taken of the processor.
fn processor_time() -> Option<Duration> {
    // It is brought up to date when the thread gives way.
    thread::yield_now();
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(told.split_whitespace().next()?.parse().ok()?))
}

/// A log whose process was killed.
struct Killed {
    dir: tempfile::TempDir,
    checkpoint: Vec<u8>,
    /// Whether what is measured finds nothing of the segments in the page cache.
    is_cold: bool,
}

impl Killed {
    fn new(role: &str, bytes: u64) -> Self {
        let dir = tempfile::tempdir_in(".").expect("a temporary folder");
        kill(start(role, dir.path(), bytes).0);
        let checkpoint = fs::read(dir.path().join("orders-0/partition.checkpoint")).expect("a checkpoint");
        Self { dir, checkpoint, is_cold: false }
    }

    /// The first open and the median of the others.
    fn measure(&self, table: &mut Table, left_by: &str, opening: Opening) -> (Cost, Cost) {
        let mut times: Vec<_> = (0..=ROUNDS).map(|_| self.open(opening)).collect();
        let first = times.remove(0);
        let median = median(times);
        let bytes = format!("{}", self.bytes());
        let (opened, costs) = (format!("{opening:?}"), [first.wall, median.wall, median.processor].map(milliseconds));
        table.add_row([&*bytes, left_by, &opened, &costs[0], &costs[1], &costs[2]]);
        (first, median)
    }

    fn open(&self, opening: Opening) -> Cost {
        if opening == Opening::Scanned {
            let folder = self.dir.path().join("orders-0");
            fs::remove_file(folder.join("partition.state")).expect("a control page");
            fs::write(folder.join("partition.checkpoint"), &self.checkpoint).expect("a checkpoint");
        }
        self.prepare();
        let (child, told) = start("open", self.dir.path(), 0);
        kill(child);
        let told: Vec<_> = told.split(' ').collect();
        let [wall, processor, how] = told[..] else { panic!("two times, and how it was opened: {told:?}") };
        assert_eq!(how, format!("{opening:?}"));
        let time = |nanoseconds: &str| Duration::from_nanos(nanoseconds.parse().expect("a number"));
        Cost { wall: time(wall), processor: time(processor) }
    }

    /// Of the records, in all segments.
    fn bytes(&self) -> u64 {
        self.segments().iter().map(|path| frames_end(path) - DATA_START).sum()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("orders-0")).expect("a folder");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        paths.sort();
        paths
    }

    fn median(&self, scan: impl Fn(&Path)) -> Cost {
        let segments = self.segments();
        let once = |_| {
            self.prepare();
            Cost::of(|| segments.iter().for_each(|path| scan(path))).1
        };
        median((0..ROUNDS).map(once).collect())
    }

    /// Takes the segments out of the page cache, if that is wanted: all is on the device since the first open.
    fn prepare(&self) {
        if !self.is_cold {
            return;
        }
        for path in self.segments() {
            let file = fs::File::open(path).expect("a segment");
            file.sync_all().expect("a sync");
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
        }
    }
}

/// One checksum for each block of the file.
fn checksum_blocks(path: &Path) {
    each_block(path, BLOCK_BYTES, |block| {
        std::hint::black_box(crc32fast::hash(block));
    });
}

/// One checksum for the body of each frame, and nothing else.
fn checksum_frames(path: &Path) {
    let whole_frames = BLOCK_BYTES / FRAME_BYTES as usize * FRAME_BYTES as usize;
    each_block(path, whole_frames, |block| {
        for frame in block.chunks_exact(FRAME_BYTES as usize) {
            let body = &frame[HEADER_BYTES..];
            std::hint::black_box(crc32fast::hash(body));
        }
    });
}

fn each_block(path: &Path, bytes: usize, mut body: impl FnMut(&[u8])) {
    let file = fs::File::open(path).expect("a segment");
    let (mut block, mut position, end) = (vec![0; bytes], DATA_START, frames_end(path));
    while position < end {
        let wanted = bytes.min((end - position) as usize);
        file.read_exact_at(&mut block[..wanted], position).expect("a block");
        body(&block[..wanted]);
        position += wanted as u64;
    }
}

/// Where the frames of a segment end: behind them are zeros.
fn frames_end(path: &Path) -> u64 {
    let file = fs::File::open(path).expect("a segment");
    let mut magic = [0];
    let is_frame = |number: u64, magic: &mut [u8; 1]| {
        file.read_at(magic, DATA_START + number * FRAME_BYTES).is_ok_and(|read| read == 1) && magic[0] != 0
    };
    let (mut low, mut high) = (0, file.metadata().expect("a length").len() / FRAME_BYTES + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_frame(middle, &mut magic) { low = middle + 1 } else { high = middle }
    }
    DATA_START + low * FRAME_BYTES
}

/// Of each of the times.
fn median(costs: Vec<Cost>) -> Cost {
    let of = |time: fn(&Cost) -> Duration| {
        let mut times: Vec<_> = costs.iter().map(time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    Cost { wall: of(|cost| cost.wall), processor: of(|cost| cost.processor) }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// Starts a process, and waits for what it tells.
fn start(role: &str, dir: &Path, bytes: u64) -> (Child, String) {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.env(ROLE, role).env(DIR, dir).env(BYTES, bytes.to_string()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a process");
    let mut told = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut told).expect("what it tells");
    (child, told.trim_end().to_owned())
}

fn kill(mut child: Child) {
    child.kill().expect("a process to kill");
    child.wait().expect("its end");
}

/// What the other process does: its part, a word about it, and nothing more until it is killed.
fn play(role: &str, dir: &Path) -> ! {
    let bytes: u64 = env::var(BYTES).expect("a size").parse().expect("a number");
    let keep: Box<dyn std::any::Any> = match role {
        "open" => {
            let (log, cost) = Cost::of(|| Log::open(dir).expect("a log"));
            let orders = log.recovery().partitions().iter().find(|partition| partition.topic() == "orders");
            let (wall, processor) = (cost.wall.as_nanos(), cost.processor.as_nanos());
            println!("{wall} {processor} {:?}", orders.expect("the partition").opening());
            Box::new(log)
        }
        "append" => Box::new(append(Log::options(), dir, bytes)),
        _ => Box::new(append(Log::options().durability(Durability::Written).segment_bytes(2 * bytes), dir, bytes)),
    };
    loop {
        thread::sleep(Duration::from_secs(60));
        std::hint::black_box(&keep);
    }
}

fn append(options: LogOptions, dir: &Path, bytes: u64) -> Log {
    let log = options.open(dir).expect("a new log");
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).expect("a new topic");
    let payload = payload(RECORD_BYTES);
    for _ in 0..bytes / FRAME_BYTES {
        topic.append(Record::new(&*payload)).expect("an append");
    }
    println!("appended");
    log
}

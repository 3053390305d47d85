//! Consumers that sleep take no processor time. Alone in its file: what else runs in the process would be counted.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{fs, thread, time::Duration};

use tidelog::{Log, Record, TopicConfig};

/// Of this process so far, user and system, in ticks of 10 ms.
fn processor_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The name of the process, in parentheses, may hold blanks; the two times are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn sleeping_consumers_take_no_processor_time_and_all_wake() {
    const CONSUMERS: u32 = 100;
    let log = Log::options().in_memory().segment_bytes(64 << 10).open("test").unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(8)).unwrap();
    thread::scope(|scope| {
        let sleepers: Vec<_> = (0..CONSUMERS)
            .map(|number| {
                let mut consumer = log.consumer(format!("group-{number}")).topic("orders").open().unwrap();
                scope.spawn(move || consumer.poll(Duration::from_secs(120)).unwrap().len())
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        let before = processor_ticks();
        thread::sleep(Duration::from_secs(1));
        let ticks = processor_ticks() - before;
        topic.append(Record::new("tea")).unwrap();
        let woken: usize = sleepers.into_iter().map(|sleeper| sleeper.join().unwrap()).sum();
        assert_eq!(woken, CONSUMERS as usize);
        // One consumer that polls busily would take a hundred.
        assert!(ticks <= 10, "{ticks} ticks in a second");
    });
}

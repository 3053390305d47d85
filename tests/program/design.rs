use std::time::Duration;
use tidelog::{Durability, Log, Record, Start, TopicConfig};

fn main() -> tidelog::Result<()> {
    let log = Log::open("data")?;                                       // creates the folder if missing
    let orders = log.ensure_topic("orders", TopicConfig::with_partitions(4))?;

    let at = orders.append(Record::new("one iPhone").key("customer-42").header("source", "web"))?;
    println!("partition {} offset {}", at.partition, at.offset);        // u32, u64
    orders.append_with(Record::new("paid").key("customer-42"), Durability::Synced)?;
    orders.append_batch((0..100).map(|i| Record::new(format!("order {i}")).key(format!("customer-{i}"))))?;
    orders.append(Record::tombstone("customer-7"))?;
    orders.flush()?;                                                    // durable now, whatever the level

    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open()?;
    let batch = consumer.poll(Duration::from_secs(1))?;                 // owned, Send; empty after the wait if nothing came
    for record in &batch {                                              // borrowed from the map
        let (_t, _p, _o, _ms) = (record.topic(), record.partition(), record.offset(), record.timestamp_ms());
        let (_k, _v): (Option<&[u8]>, Option<&[u8]>) = (record.key(), record.value());
        for (_name, _value) in record.headers() {}                      // &str, Option<&[u8]>
    }
    consumer.commit()?;                                                 // everything that poll has returned

    let mut reader = orders.reader(Start::Earliest)?;                   // all partitions, no group, no commit
    while let Some(batch) = reader.next_batch()? {                      // None at the end for now
        for record in &batch {
            let _ = record.to_owned();                                  // OwnedRecord: keep it, send it
        }
    }
    for record in orders.partition(0)?.read_from(0)? {                  // convenience, one record at a time
        let _ = record?.offset();
    }
    log.close()
}

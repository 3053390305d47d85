//! Typed events: encodings, what can't be encoded or decoded, changes of types, dead letters.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as _,
    sync::Arc,
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use serde::{Deserialize, Serialize};
use tidelog::{
    Batch, Durability, Encoding, EncodingError, ErrorKind, Json, Log, OwnedRecord, Record, Start, Topic, TopicConfig,
    TypedTopic, dead_letter,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    customer: String,
    pence: u64,
}

fn order(number: u64) -> Order {
    Order { customer: format!("customer-{number}"), pence: 100 * number }
}

fn log() -> Log {
    Log::options().in_memory().segment_bytes(1 << 20).open("test").unwrap()
}

fn topic(partitions: u32) -> Topic {
    log().create_topic("orders", TopicConfig::with_partitions(partitions)).unwrap()
}

/// Everything that is there, by partition and offset.
fn records(topic: &Topic) -> Vec<OwnedRecord> {
    let partitions = (0..topic.partitions()).map(|number| topic.partition(number).unwrap());
    partitions
        .flat_map(|partition| partition.read_from(partition.start_offset()).unwrap())
        .map(Result::unwrap)
        .collect()
}

fn only_batch(topic: &Topic) -> Batch {
    let mut reader = topic.reader(Start::Earliest).unwrap();
    let batch = reader.next_batch().unwrap().unwrap_or_default();
    assert!(reader.next_batch().unwrap().is_none());
    batch
}

/// Appends values as they are; answers what they are as orders.
fn decoded<T>(encoding: &impl Encoding<T>, values: &[&[u8]]) -> Vec<tidelog::Result<Option<T>>> {
    let orders = topic(1);
    orders.append_batch(values.iter().map(|value| Record::new(*value))).unwrap();
    only_batch(&orders).typed(encoding).map(|(_, event)| event).collect()
}

// ---- Appending and reading ----

#[test]
fn events_come_back_as_they_went_in() {
    let orders = topic(1).typed(Json);
    let offsets = [
        orders.append(&order(1)).unwrap().offset,
        orders.append_keyed("key", &order(2)).unwrap().offset,
        orders.append_with(&order(3), Durability::Synced).unwrap().offset,
        orders.append_tombstone("key").unwrap().offset,
    ];
    assert_eq!(offsets, [0, 1, 2, 3]);
    let ranges = orders.append_batch([order(5), order(6)]).unwrap(); // owned
    assert_eq!(ranges[0].offsets, 4..6);
    let ranges = orders.append_batch_with(&[order(7), order(8)], Durability::Synced).unwrap(); // borrowed
    assert_eq!(ranges[0].offsets, 6..8);
    assert_eq!(orders.topic().partition(0).unwrap().durable_offset(), 8);
    let ninth = order(9);
    let record = orders.record(&ninth).unwrap().key("key").header("source", "web").timestamp_ms(-5);
    orders.topic().append(record).unwrap();

    let batch = only_batch(orders.topic());
    let typed = batch.typed::<Order>(&Json);
    assert_eq!(typed.len(), 9);
    for (number, (record, event)) in (1..).zip(typed) {
        assert_eq!(record.offset(), number - 1);
        let expected = (number != 4).then(|| order(number));
        assert_eq!(event.unwrap(), expected);
        assert_eq!(record.decode(&Json).unwrap(), expected);
        assert_eq!(record.to_owned().decode(&Json).unwrap(), expected);
        assert_eq!(orders.decode(&record).unwrap(), expected);
        assert_eq!(record.key(), [2, 4, 9].contains(&number).then_some(&b"key"[..]));
    }
    let last = batch.iter().last().unwrap();
    assert_eq!((last.header("source"), last.timestamp_ms()), (Some(Some(&b"web"[..])), -5));
    assert_eq!(batch.iter().next().unwrap().value(), Some(&br#"{"customer":"customer-1","pence":100}"#[..]));
}

#[test]
fn a_key_that_was_said_once_is_that_of_every_event() {
    let topic = topic(8);
    let unkeyed: TypedTopic<Order> = topic.typed(Json);
    let orders = unkeyed.clone().keyed_by(|order: &Order| (&order.customer).into());
    for _ in 0..2 {
        orders.append(&order(1)).unwrap();
        orders.clone().append_with(&order(2), Durability::Written).unwrap();
        orders.append_batch((3..20).map(order)).unwrap();
        topic.append(orders.record(&order(20)).unwrap()).unwrap();
    }
    let mut partitions = BTreeMap::<_, BTreeSet<_>>::new();
    for record in records(&topic) {
        let event = record.decode::<Order>(&Json).unwrap().unwrap();
        assert_eq!(record.key(), Some(event.customer.as_bytes()));
        partitions.entry(event.customer).or_default().insert(record.partition());
    }
    assert_eq!(partitions.len(), 20);
    assert!(partitions.values().all(|partitions| partitions.len() == 1));

    // Another key for the one time; and none where nothing was said.
    let at = orders.append_keyed("other", &order(1)).unwrap();
    let again = topic.append(orders.record(&order(1)).unwrap().key("other")).unwrap();
    assert_eq!(at.partition, again.partition);
    assert_eq!(records(&topic).iter().filter(|record| record.key() == Some(b"other")).count(), 2);
    unkeyed.append(&order(1)).unwrap();
    assert_eq!(records(&topic).iter().filter(|record| record.key().is_none()).count(), 1);
}

#[test]
fn a_partitioner_of_ones_own_stays() {
    let orders = topic(4).with_partitioner(|_: &Record<'_>, _: u32| 2).typed(Json);
    assert_eq!(orders.append_keyed("any", &order(1)).unwrap().partition, 2);
}

#[test]
fn a_null_value_is_no_event_and_an_empty_one_is_up_to_the_encoding() {
    let orders = topic(1);
    orders.append_batch([Record::null(), Record::tombstone("key"), Record::new("")]).unwrap();
    let events: Vec<_> = only_batch(&orders).typed::<Order>(&Json).map(|(_, event)| event).collect();
    assert!(matches!(&events[..], [Ok(None), Ok(None), Err(_)]), "{events:?}");
    let events: Vec<_> = only_batch(&orders).typed::<Vec<u8>>(&AsIs).map(|(_, event)| event.unwrap()).collect();
    assert_eq!(events, [None, None, Some(Vec::new())]);
}

// ---- Encodings of one's own ----

/// Bytes as they are.
struct AsIs;

impl Encoding<Vec<u8>> for AsIs {
    fn encode(&self, value: &Vec<u8>, into: &mut Vec<u8>) -> Result<(), EncodingError> {
        into.extend(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, EncodingError> {
        Ok(bytes.to_vec())
    }
}

/// Numbers as text, but none above the limit.
struct UpTo(u64);

impl Encoding<u64> for UpTo {
    fn encode(&self, value: &u64, into: &mut Vec<u8>) -> Result<(), EncodingError> {
        *into = value.to_string().into_bytes(); // also so, though `extend` is asked for
        if *value > self.0 { Err(format!("{value} is above {}", self.0).into()) } else { Ok(()) }
    }

    fn decode(&self, bytes: &[u8]) -> Result<u64, EncodingError> {
        Ok(std::str::from_utf8(bytes)?.parse()?)
    }
}

#[test]
fn an_encoding_may_have_a_state_and_stand_behind_a_pointer() {
    let topic = topic(1);
    let limit = UpTo(10);
    topic.typed(&limit).append(&1).unwrap();
    topic.typed(Box::new(UpTo(10))).append(&2).unwrap();
    let shared: Arc<dyn Encoding<u64> + Send + Sync> = Arc::new(limit);
    let numbers = topic.typed(shared.clone());
    numbers.append_batch([3, 4, 5]).unwrap();
    assert_eq!(numbers.encoding().decode(b"7").unwrap(), 7);
    let found: Vec<u64> = only_batch(&topic).typed(&*shared).map(|(_, number)| number.unwrap().unwrap()).collect();
    assert_eq!(found, [1, 2, 3, 4, 5]);
}

#[test]
fn nothing_is_appended_of_what_cant_be_encoded() {
    let topic = topic(2);
    let numbers = topic.typed(UpTo(10)).keyed_by(|number| number.to_string().into());
    for error in [
        numbers.append(&11).unwrap_err(),
        numbers.append_with(&11, Durability::Synced).unwrap_err(),
        numbers.append_keyed("key", &11).unwrap_err(),
        numbers.append_batch([1, 2, 11, 3]).unwrap_err(),
        numbers.append_batch_with([1, 2, 11, 3], Durability::Synced).unwrap_err(),
        numbers.record(&11).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unencodable);
        assert_eq!((error.topic(), error.offset(), error.resume_offset()), (Some("orders"), None, None));
        assert_eq!(error.source().unwrap().to_string(), "11 is above 10");
        assert!(error.to_string().contains("11 is above 10") && error.to_string().contains("orders"), "{error}");
        assert!(error.appended().is_empty());
    }
    assert!(records(&topic).is_empty());

    // JSON has no word for a key that is a list.
    let lists = topic.typed(Json);
    assert_eq!(lists.append(&BTreeMap::from([(vec![1], 1)])).unwrap_err().kind(), ErrorKind::Unencodable);
}

#[test]
fn limits_hold_for_events_too() {
    let config = TopicConfig::with_partitions(1).max_record_bytes(100);
    let texts = log().create_topic("texts", config).unwrap().typed(Json);
    texts.append(&"x".repeat(98)).unwrap(); // and two quotes
    assert_eq!(texts.append(&"x".repeat(99)).unwrap_err().kind(), ErrorKind::RecordTooLarge);
}

// ---- What can't be decoded ----

#[test]
fn a_record_that_cant_be_decoded_is_an_error_with_its_place() {
    let log = log();
    let topic = log.create_topic("my-orders", TopicConfig::with_partitions(3)).unwrap();
    let orders = topic.typed(Json);
    for number in 0..3 {
        topic.append(orders.record(&order(number)).unwrap().partition(2)).unwrap();
    }
    topic.append(Record::new("tea, please").partition(2)).unwrap();
    topic.append(orders.record(&order(4)).unwrap().partition(2)).unwrap();

    let mut consumer = log.consumer("billing").topic("my-orders").start_if_new(Start::Earliest).open().unwrap();
    let batch = consumer.poll(Duration::from_secs(10)).unwrap();
    let events: Vec<_> = batch.typed::<Order>(&Json).collect();
    let numbers: Vec<_> = events.iter().filter_map(|(_, event)| Some(event.as_ref().ok()?.as_ref()?.pence)).collect();
    assert_eq!(numbers, [0, 100, 200, 400], "the batch goes on behind it");
    let (record, event) = &events[3];
    let owned = record.to_owned();
    for error in [
        event.as_ref().unwrap_err(),
        &record.decode::<Order>(&Json).unwrap_err(),
        &owned.decode::<Order>(&Json).unwrap_err(),
        &orders.decode(record).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        assert_eq!((error.topic(), error.partition(), error.offset()), (Some("my-orders"), Some(2), Some(3)));
        assert_eq!(error.resume_offset(), Some(4));
        let source = error.source().unwrap();
        assert!(source.downcast_ref::<serde_json::Error>().is_some_and(serde_json::Error::is_syntax), "{source}");
        let text = error.to_string();
        assert!(text.contains("offset 3 of my-orders-2") && text.contains(&source.to_string()), "{text}");
    }

    // A program that ends there can go on behind it.
    let resume = event.as_ref().unwrap_err().resume_offset().unwrap();
    consumer.seek("my-orders", 2, resume).unwrap();
    let rest = consumer.poll(Duration::from_secs(10)).unwrap();
    let rest: Vec<Order> = rest.typed(&Json).map(|(_, event)| event.unwrap().unwrap()).collect();
    assert_eq!(rest, [order(4)]);
}

#[test]
fn hostile_json_is_refused() {
    let deep = "[".repeat(100_000);
    let deep_object = r#"{"a":"#.repeat(100_000);
    let json = serde_json::to_vec(&order(7)).unwrap();
    let mut values: Vec<Vec<u8>> = (0..json.len()).map(|length| json[..length].to_vec()).collect();
    values.extend([deep.into_bytes(), deep_object.into_bytes(), b"\xff\xfe".to_vec(), b"null".to_vec(), vec![0; 1000]]);
    values.push([&json[..], b"{}"].concat());
    values.push(br#"{"customer":"a","pence":1e999}"#.to_vec());
    values.push(br#"{"customer":"\ud800","pence":1}"#.to_vec());
    let values: Vec<&[u8]> = values.iter().map(|value| &**value).collect();
    for (value, event) in values.iter().zip(decoded::<Order>(&Json, &values)) {
        assert_eq!(event.unwrap_err().kind(), ErrorKind::Undecodable, "{value:?}");
    }
    for event in decoded::<serde_json::Value>(&Json, &values[json.len()..json.len() + 2]) {
        assert_eq!(event.unwrap_err().kind(), ErrorKind::Undecodable, "nested too deep");
    }
}

// ---- Types change ----

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Before {
    Ordered { customer: String, pence: u64 },
    Paid { customer: String },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum After {
    Ordered {
        #[serde(alias = "customer")]
        buyer: String,
        pence: u64,
        #[serde(default = "pounds")]
        currency: String,
        note: Option<String>,
    },
    Paid {}, // forgets who
    Shipped,
}

fn pounds() -> String {
    "GBP".into()
}

#[test]
fn json_is_read_after_a_field_was_added_renamed_or_removed() {
    let topic = topic(1);
    let before = topic.typed(Json);
    before.append(&Before::Ordered { customer: "me".into(), pence: 250 }).unwrap();
    before.append(&Before::Paid { customer: "me".into() }).unwrap();
    let after: TypedTopic<After> = topic.typed(Json);
    let read: Vec<_> = records(&topic).iter().map(|record| after.decode(&record.as_record_ref()).unwrap()).collect();
    let ordered = After::Ordered { buyer: "me".into(), pence: 250, currency: pounds(), note: None };
    assert_eq!(read, [Some(ordered), Some(After::Paid {})]);

    // An old program meets a new variant: an error for this record alone.
    after.append(&After::Shipped).unwrap();
    before.append(&Before::Paid { customer: "you".into() }).unwrap();
    let batch = only_batch(&topic);
    let kinds: Vec<_> = batch.typed::<Before>(&Json).map(|(_, event)| event.map_err(|error| error.kind())).collect();
    assert!(matches!(kinds[..], [Ok(Some(_)), Ok(Some(_)), Err(ErrorKind::Undecodable), Ok(Some(_))]), "{kinds:?}");
}

// ---- Dead letters ----

type Headers = Vec<(String, Option<String>)>;

fn headers(record: &OwnedRecord) -> Headers {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    record.headers().map(|(name, value)| (name.to_owned(), value.map(text))).collect()
}

/// The headers that a dead letter ends with.
fn place(topic: &str, partition: u32, offset: u64, time: i64, reason: &str) -> Headers {
    [
        (dead_letter::TOPIC, topic.to_owned()),
        (dead_letter::PARTITION, partition.to_string()),
        (dead_letter::OFFSET, offset.to_string()),
        (dead_letter::TIMESTAMP_MS, time.to_string()),
        (dead_letter::REASON, reason.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), Some(value)))
    .into()
}

fn last(topic: &Topic) -> OwnedRecord {
    records(topic).pop().unwrap()
}

#[test]
fn a_consumer_keeps_what_it_cant_decode_aside_and_goes_on() {
    let log = log();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    let aside = log.create_topic("orders.dead-letters", TopicConfig::with_partitions(1)).unwrap();
    let orders = topic.typed(Json).keyed_by(|order: &Order| (&order.customer).into());
    let mut bad = Vec::new();
    for number in 0..100 {
        orders.append(&order(number)).unwrap();
        if number % 10 == 3 {
            let at = topic.append(Record::new(format!("broken {number}")).key(format!("customer-{number}"))).unwrap();
            bad.push((at.partition, at.offset));
        }
    }
    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open().unwrap();
    let mut billed = 0;
    loop {
        let batch = consumer.poll(Duration::ZERO).unwrap();
        for (record, order) in batch.typed::<Order>(&Json) {
            match order {
                Ok(Some(order)) => billed += order.pence,
                Ok(None) => panic!("nobody appended a tombstone"),
                Err(error) => drop(aside.append(record.dead_letter(&error)).unwrap()),
            }
        }
        consumer.commit().unwrap();
        if batch.is_empty() {
            break;
        }
    }
    assert_eq!(billed, (0..100).map(|number| 100 * number).sum::<u64>());
    assert_eq!(consumer.lag().total, 0);
    let mut found = Vec::new();
    for letter in records(&aside) {
        let number = |name| std::str::from_utf8(letter.header(name).unwrap().unwrap()).unwrap().parse::<u64>().unwrap();
        found.push((number(dead_letter::PARTITION) as u32, number(dead_letter::OFFSET)));
        let original = topic.partition(found[found.len() - 1].0).unwrap();
        let original = original.read_from(number(dead_letter::OFFSET)).unwrap().next().unwrap().unwrap();
        assert_eq!((letter.key(), letter.value()), (original.key(), original.value()));
        let reason = original.decode::<Order>(&Json).unwrap_err().to_string();
        assert_eq!(
            headers(&letter),
            place("orders", original.partition(), original.offset(), original.timestamp_ms(), &reason)
        );
    }
    bad.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, bad);
}

#[test]
fn a_dead_letter_keeps_all_that_the_record_had() {
    let topic = topic(3);
    let full =
        Record::new("v").key("k").header("a", "1").null_header("b").header("a", "").timestamp_ms(-7).partition(1);
    for (record, time) in [(full, Some(-7)), (Record::null(), None), (Record::new("").key(""), None)] {
        let at = topic.append(record.partition(1)).unwrap();
        let read = topic.partition(1).unwrap().read_from(at.offset).unwrap().next().unwrap().unwrap();
        let letter = read.dead_letter("no reason");
        assert_eq!(letter.explicit_timestamp_ms(), time);
        assert_eq!(letter.explicit_partition(), None, "the topic of dead letters may have fewer partitions");
        assert_eq!((letter.key_bytes(), letter.value_bytes()), (read.key(), read.value()));
        let appended = topic.append(letter.partition(0)).unwrap();
        let letter = topic.partition(0).unwrap().read_from(appended.offset).unwrap().next().unwrap().unwrap();
        let expected = [headers(&read), place("orders", 1, at.offset, read.timestamp_ms(), "no reason")].concat();
        assert_eq!(headers(&letter), expected);
    }
}

#[test]
fn the_dead_letter_of_a_dead_letter_keeps_the_first_place() {
    let log = log();
    let topic = |name| log.create_topic(name, TopicConfig::with_partitions(1)).unwrap();
    let (orders, first, second) = (topic("orders"), topic("first"), topic("second"));
    orders.append_batch([Record::new("tea"), Record::new("more tea").header("a", "1").timestamp_ms(5)]).unwrap();
    first.append(last(&orders).dead_letter("not JSON")).unwrap();
    second.append(last(&first).dead_letter("still not JSON")).unwrap();
    let expected = [vec![("a".into(), Some("1".into()))], place("orders", 0, 1, 5, "still not JSON")].concat();
    assert_eq!(headers(&last(&second)), expected);

    // What looks like one and says no place isn't one.
    let almost = Record::new("tea").header(dead_letter::TOPIC, "x").null_header(dead_letter::OFFSET).timestamp_ms(6);
    orders.append(almost.header(dead_letter::REASON, "x").header("b", "2")).unwrap();
    first.append(last(&orders).dead_letter("why")).unwrap();
    let expected = [vec![("b".into(), Some("2".into()))], place("orders", 0, 2, 6, "why")].concat();
    assert_eq!(headers(&last(&first)), expected);
}

#[test]
fn a_dead_letter_is_hardly_larger_than_its_record() {
    let log = log();
    let name = "x".repeat(249);
    let orders = log.create_topic(&name, TopicConfig::with_partitions(1).max_record_bytes(5_000)).unwrap();
    let config = TopicConfig::with_partitions(1).max_record_bytes(6_600);
    let aside = log.create_topic("aside", config).unwrap();
    orders.append(Record::new("ü".repeat(2_500)).timestamp_ms(i64::MIN)).unwrap();
    let endless = "why? ".repeat(100_000);
    aside.append(last(&orders).dead_letter(&endless)).unwrap();
    aside.append(last(&aside).dead_letter(&endless)).unwrap();
    let reason = last(&aside).header(dead_letter::REASON).unwrap().unwrap().to_vec();
    assert!(reason.len() <= 1_024 && reason.starts_with(b"why? why? "));
}

// ---- Round trips ----

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Named { name: String, corners: Vec<(i32, f32)>, color: Option<char> },
}

fn shapes() -> impl Strategy<Value = Shape> {
    let number = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    let corner = (any::<i32>(), prop::num::f32::NORMAL | prop::num::f32::ZERO);
    let named = (any::<String>(), vec(corner, 0..20), any::<Option<char>>());
    prop_oneof![
        Just(Shape::Nothing),
        number.prop_map(Shape::Circle),
        named.prop_map(|(name, corners, color)| Shape::Named { name, corners, color }),
    ]
}

/// Appends them in every way there is and reads them back.
fn round_trip<T: Clone + PartialEq + std::fmt::Debug>(events: &[T], encoding: impl Encoding<T> + Clone) {
    let topic = topic(1);
    let typed = topic.typed(encoding.clone());
    for event in events {
        typed.append(event).unwrap();
    }
    typed.append_batch(events).unwrap();
    typed.append_batch(events.iter().cloned()).unwrap();
    let mut reader = topic.reader(Start::Earliest).unwrap();
    let mut found = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        found.extend(batch.typed(&encoding).map(|(_, event)| event.unwrap().unwrap()));
    }
    assert_eq!(found, [events, events, events].concat());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_event_comes_back(events in vec(shapes(), 0..40), bytes in vec(vec(any::<u8>(), 0..100), 0..20)) {
        round_trip(&events, Json);
        round_trip(&bytes, &AsIs);
        #[cfg(feature = "bincode")]
        round_trip(&events, tidelog::Bincode);
    }
}

#[cfg(feature = "bincode")]
mod bincode {
    use tidelog::Bincode;

    use super::*;

    #[test]
    fn the_bytes_are_bincodes_standard_ones() {
        let orders = topic(1).typed(Bincode);
        orders.append(&Order { customer: "me".into(), pence: 251 }).unwrap();
        assert_eq!(last(orders.topic()).value(), Some(&[2, b'm', b'e', 251, 251, 0][..]));
    }

    /// Lengths that no memory has room for, at every level; and what is cut off, or has something behind it.
    #[test]
    fn hostile_bytes_are_refused() {
        let whole = ::bincode::serde::encode_to_vec(order(7_000_000), ::bincode::config::standard()).unwrap();
        let mut values: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
        values.push([&whole[..], &[0]].concat());
        for length in [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 40, 1 << 31] {
            let claim = [&[253][..], &length.to_le_bytes()].concat();
            values.push(claim.clone());
            values.push([&claim[..], &[b'x'; 100_000]].concat()); // with much behind it
        }
        let values: Vec<&[u8]> = values.iter().map(|value| &**value).collect();
        for (value, event) in values.iter().zip(decoded::<Order>(&Bincode, &values)) {
            let error = event.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Undecodable, "{:?}", &value[..value.len().min(30)]);
            assert!(error.source().is_some());
        }
        for event in decoded::<Vec<Vec<String>>>(&Bincode, &values[whole.len() + 1..]) {
            event.unwrap_err();
        }
    }

    /// The limit that guards against such lengths refuses nothing that was encoded: small numbers count most for it.
    #[test]
    fn no_event_is_too_large() {
        let config = TopicConfig::with_partitions(1).max_record_bytes(8 << 20);
        let topic = log().create_topic("orders", config).unwrap();
        let read_back =
            |at: tidelog::Appended| topic.partition(0).unwrap().read_from(at.offset).unwrap().next().unwrap().unwrap();
        for length in [0, 1, 4_092, 4_093, 4_094, 8_000, 16_000, (1 << 20) - 5, 1 << 20, 2_000_000] {
            let numbers = vec![1_u128; length]; // a byte each
            let record = read_back(topic.typed(Bincode).append(&numbers).unwrap());
            assert!(record.decode(&Bincode).unwrap() == Some(numbers), "{length}");
            let text = "x".repeat(length);
            let record = read_back(topic.typed(Bincode).append(&text).unwrap());
            assert!(record.decode(&Bincode).unwrap() == Some(text), "{length}");
        }
    }

    #[test]
    fn a_field_that_is_added_makes_earlier_events_undecodable_and_a_variant_does_not() {
        #[derive(Debug, Serialize, Deserialize)]
        struct Longer {
            customer: String,
            pence: u64,
            #[serde(default)]
            note: String,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum Before {
            Ordered(Order),
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum After {
            Ordered(Order),
            Paid,
        }
        let topic = topic(1);
        topic.typed(Bincode).append(&order(1)).unwrap();
        let error = last(&topic).decode::<Longer>(&Bincode).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        topic.typed(Bincode).append(&Before::Ordered(order(1))).unwrap();
        assert_eq!(last(&topic).decode(&Bincode).unwrap(), Some(After::Ordered(order(1))));
        topic.typed(Bincode).append(&After::Paid).unwrap();
        assert_eq!(last(&topic).decode::<Before>(&Bincode).unwrap_err().kind(), ErrorKind::Undecodable);
    }
}

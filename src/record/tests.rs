use super::*;

fn assert_send_sync<T: Send + Sync + 'static>() {}

/// A block as the encoder writes it.
fn block_of(record: &Record<'_>) -> Vec<u8> {
    let mut block = vec![0; record.header_block_bytes() as usize];
    let end = record.put_header_block(&mut &mut block[..], 0);
    assert_eq!(end, block.len());
    block
}

fn owned() -> OwnedRecord {
    let block = block_of(&Record::null().header("a", "1").null_header("b").header("a", "2"));
    let topic = Arc::from("orders");
    let view = RecordView {
        key: Some(b"customer-42"),
        value: Some(b"one iPhone"),
        client_time_ms: None,
        headers: HeaderBlock(&block),
    };
    RecordRef::new(&topic, 3, 17, 1_700_000_000_000, view).to_owned()
}

#[test]
fn payloads_are_made_without_a_copy() {
    let bytes = vec![1, 2, 3];
    let text = String::from("text");
    let (of_bytes, of_text) = (bytes.as_ptr(), text.as_ptr());
    assert_eq!(Payload::from(&bytes).as_bytes().as_ptr(), of_bytes);
    assert_eq!(Payload::from(&text).as_bytes().as_ptr(), of_text);
    assert_eq!(Payload::from(&bytes[..]).as_bytes().as_ptr(), of_bytes);
    assert_eq!(Payload::from(&*text).as_bytes().as_ptr(), of_text);
    assert_eq!(Payload::from(Cow::from(&*text)).as_bytes().as_ptr(), of_text);
    assert_eq!(Payload::from(Cow::from(text)).as_bytes().as_ptr(), of_text);
    assert_eq!(Payload::from(bytes).as_bytes().as_ptr(), of_bytes);
    assert_eq!(Payload::from(b"array").as_bytes(), b"array");
}

#[test]
fn null_and_empty_are_different() {
    assert_ne!(Record::new(""), Record::null());
    assert_ne!(Record::null().key(""), Record::null());
    assert_ne!(Record::null().header("h", ""), Record::null().null_header("h"));
    assert_eq!(Record::tombstone("k"), Record::null().key("k"));
}

#[test]
fn payload_bytes_are_those_of_key_value_and_headers() {
    let record = Record::new("12345").key("123").header("12", "1").null_header("1").timestamp_ms(0).partition(1);
    assert_eq!(record.payload_bytes(), 5 + 3 + 2 + 1 + 1);
    assert_eq!(Record::null().payload_bytes(), 0);
    assert_eq!((record.explicit_partition(), record.explicit_timestamp_ms()), (Some(1), Some(0)));
}

#[test]
fn headers_keep_order_repeated_names_and_null() {
    let record = owned();
    let headers: Vec<_> = record.headers().collect();
    assert_eq!(headers, [("a", Some(&b"1"[..])), ("b", None), ("a", Some(&b"2"[..]))]);
    assert_eq!(record.header("a"), Some(Some(&b"2"[..])));
    assert_eq!(record.header("b"), Some(None));
    assert_eq!(record.header("c"), None);
}

#[test]
fn a_broken_headers_block_ends_early() {
    let block = block_of(&Record::null().header("a", "1").header("b", "2"));
    for length in 0..block.len() {
        let cut = HeaderBlock(&block[..length]);
        assert_eq!(cut.is_well_formed(), length == 0 || length == block.len() / 2);
        assert_eq!(cut.iter().count(), length / (block.len() / 2));
    }
    let mut broken = block.clone();
    broken[HEADER_PREFIX_BYTES] = 0xff;
    assert!(!HeaderBlock(&broken).is_well_formed());
    assert_eq!(HeaderBlock(&broken).iter().count(), 0);
}

#[test]
fn the_client_time_comes_before_the_logs() {
    let mut record = owned();
    assert_eq!((record.timestamp_ms(), record.client_timestamp_ms()), (1_700_000_000_000, None));
    record.client_timestamp_ms = Some(-5);
    assert_eq!((record.timestamp_ms(), record.client_timestamp_ms()), (-5, Some(-5)));
    assert_eq!(record.append_time_ms(), 1_700_000_000_000);
}

#[test]
fn a_kept_record_is_the_one_that_was_read() {
    assert_send_sync::<OwnedRecord>();
    assert_send_sync::<Record<'static>>();
    assert_send_sync::<RecordRef<'static>>();
    let record = owned();
    assert_eq!(record.as_record_ref().to_owned(), record);
    assert_eq!((record.topic(), record.partition(), record.offset()), ("orders", 3, 17));
    assert_eq!((record.key(), record.value()), (Some(&b"customer-42"[..]), Some(&b"one iPhone"[..])));
    assert!(!record.is_tombstone());
}

#[test]
fn only_a_key_with_a_null_value_is_a_tombstone() {
    let is_tombstone = |key: bool, value: bool| {
        OwnedRecord { key: key.then(Box::default), value: value.then(Box::default), ..owned() }.is_tombstone()
    };
    assert!(is_tombstone(true, false));
    assert!(!is_tombstone(true, true) && !is_tombstone(false, false) && !is_tombstone(false, true));
}

#[test]
fn debug_output_is_text() {
    let record = Record::new(b"caf\xff").header("source", "web").null_header("trace");
    let expected = "Record { key: null, value: \"caf\u{fffd}\", headers: {\"source\": \"web\", \"trace\": null}, \
                    timestamp_ms: None, partition: None }";
    assert_eq!(format!("{record:?}"), expected);
    let text = format!("{:?}", owned());
    assert!(text.starts_with("OwnedRecord { topic: \"orders\", partition: 3, offset: 17,"), "{text}");
    assert!(text.ends_with("headers: {\"a\": \"1\", \"b\": null, \"a\": \"2\"} }"), "{text}");
}

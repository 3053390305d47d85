//! Random walks over everything that can happen to a partition but damage, beside a plain list of what it should hold.
//!
//! The simulated machine keeps all that was stored, so nothing that was acknowledged may ever be missing.

use std::io;

use super::*;
use crate::storage::sim::Repeat;

/// Numbers that look random and are the same each time (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 += 1;
        crate::mix::split_mix64(0x7465_7374, self.0) % limit
    }
}

/// What a partition should hold: acknowledged records, and those of failed appends, which may be there or not.
#[derive(Default)]
struct Model {
    acknowledged: Vec<(u64, String)>,
    unsure: Vec<String>,
    appended: u64,
}

impl Model {
    fn append(&mut self, partition: &Arc<PartitionLog>, durability: Durability) {
        let value = format!("record {}", self.appended);
        self.appended += 1;
        match partition.append(&Record::new(&*value).key("key"), Some(durability)) {
            Ok(offset) => self.acknowledged.push((offset, value)),
            Err(_) => self.unsure.push(value),
        }
    }

    fn check(&self, partition: &Arc<PartitionLog>, what: &str) {
        let start = partition.start_offset();
        let found = read_all(partition, start).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "{what}: offsets grow");
        let sure: Vec<_> = found.into_iter().filter(|(_, value)| !self.unsure.contains(value)).collect();
        let expected: Vec<_> = self.acknowledged.iter().filter(|(offset, _)| *offset >= start).cloned().collect();
        assert_eq!(sure, expected, "{what}");
    }
}

fn walk(seed: u64, positional_appends: bool) {
    let mut random = Random(seed << 32);
    let machine = Machine { positional_appends, ..Machine::new() };
    let mut model = Model::default();
    let (mut partition, _) = machine.open();
    for step in 0..40 {
        let what = format!("seed {seed}, positional {positional_appends}, step {step}");
        if random.below(4) == 0 {
            machine.storage.fail_nth(1 + random.below(12), io::ErrorKind::Other, Repeat::Once);
        }
        match random.below(14) {
            0..=4 => (0..random.below(300)).for_each(|_| model.append(&partition, Durability::Written)),
            5 => model.append(&partition, Durability::Synced),
            6 => drop(partition.flush()),
            7 => drop(partition.roll()),
            8 => {
                let bases = partition.segment_base_offsets();
                drop(partition.delete_segments_before(bases[random.below(bases.len() as u64) as usize]));
            }
            9 => {
                let (start, end) = (partition.start_offset(), partition.end_offset());
                drop(partition.delete_records(start + random.below(end - start + 1)));
            }
            10 => {
                machine.change(|settings| settings.retention_bytes = Some(random.below(200 << 10)));
                drop(partition.enforce_retention());
            }
            how => {
                if how == 11 {
                    drop(partition.close());
                }
                drop(partition);
                if random.below(2) == 0 {
                    machine.reboot();
                }
                // A first open may meet the failure.
                drop(machine.try_open());
                machine.storage.heal();
                partition = machine.open().0;
            }
        }
        machine.storage.heal();
        model.check(&partition, &what);
    }
}

#[test]
fn whatever_happens_everything_acknowledged_is_there_in_order() {
    for seed in 0..20 {
        walk(seed, false);
        walk(seed, true);
    }
}

//! The world: hotels, railways, drivers. Whatever it is asked for, it does once for a key.

use tidelog::{Start, TypedTopic};

use crate::Result;

/// Does what a key stands for, if that is possible, and answers whether it did. What was answered for the key before is
/// answered again, and nothing is done.
pub(crate) fn ask(world: &TypedTopic<bool>, key: &str, possible: bool) -> Result<bool> {
    for answer in world.reader(Start::Earliest)? {
        let (record, answer) = answer?;
        if record.key_str()? == Some(key) {
            println!("The world is asked again for {key}, and does nothing.");
            return Ok(answer.ok_or("an answer is null")?);
        }
    }
    world.append_keyed(key, &possible)?;
    Ok(possible)
}

//! The rule for names of topics and groups, which is Kafka's.

use crate::error::{Repr, Result};

/// The longest name, in bytes: with `-<partition>` behind it, it is still a file name.
const MAX_NAME_BYTES: usize = 249;

/// Names that begin so are the log's own.
pub(crate) const RESERVED_PREFIX: &str = "__";

/// Refuses (kind `InvalidName`) what isn't 1 to 249 of `[a-zA-Z0-9._-]`, is `.` or `..`, or is reserved. `what` names
/// the thing that has the name.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "has more than 249 characters"
    } else if !is_well_formed(name) {
        "has to be of the characters a-z, A-Z, 0-9, '.', '_' and '-', and neither \".\" nor \"..\""
    } else if name.starts_with(RESERVED_PREFIX) {
        "is reserved: names beginning with \"__\" are the log's own"
    } else {
        return Ok(());
    };
    // An error is read by people: a name of a megabyte is told by its beginning.
    let name = name.chars().take(MAX_NAME_BYTES + 1).collect();
    Err(Repr::InvalidName { what, name, reason }.into())
}

/// Whether the name keeps to the rule, reserved ones included.
pub(crate) fn is_well_formed(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names_that_keep_to_the_rule_are_taken() {
        for name in ["a", "orders", "Orders.v2_old-1", "...", "_", "-", "0", &"x".repeat(249)] {
            check_name("topic", name).unwrap();
        }
    }

    #[test]
    fn other_names_are_refused_by_name() {
        for name in ["", ".", "..", "a/b", "/", "a\0b", "ä", "a b", "a\n", "__offsets", "__", &"x".repeat(250)] {
            let error = check_name("topic", name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}");
            assert!(error.to_string().contains("topic"), "{error}");
        }
    }
}

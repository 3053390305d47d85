//! Patterns of topic names: the one definition that all of the crate uses.
//!
//! A name is words separated by dots. In a pattern, `*` stands for exactly one word and `#` for any number of words,
//! also none; every other word stands for itself. So a name is a pattern that matches itself alone.
//!
//! | pattern | matches | doesn't match |
//! |---|---|---|
//! | `orders.*` | `orders.eu` | `orders`, `orders.eu.paid` |
//! | `orders.#` | `orders`, `orders.eu`, `orders.eu.paid` | `orders-eu` |
//! | `*.paid` | `orders.paid` | `paid`, `orders.eu.paid` |
//! | `#.paid` | `paid`, `orders.eu.paid` | `orders.paid.late` |
//! | `#` | every topic | |
//!
//! These are the rules of topic exchanges in AMQP 0-9-1, as RabbitMQ's users know them.

use std::fmt;

use crate::{
    error::{Repr, Result},
    name::is_well_formed,
};

/// The word for exactly one word.
const ONE: &str = "*";
/// The word for any number of words.
const ANY: &str = "#";
/// The longest pattern, in bytes: as long as a name may be.
const MAX_BYTES: usize = 249;

/// A pattern of topic names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TopicPattern(Box<str>);

impl TopicPattern {
    /// Kind `InvalidName` for what is no pattern: each word is `*`, `#`, or made of what a name may have.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = |reason| Err(Repr::InvalidName { what: "pattern", name: text.into(), reason }.into());
        if text.is_empty() || text.len() > MAX_BYTES {
            return invalid("doesn't have 1 to 249 characters");
        }
        let is_word = |word: &str| word == ONE || word == ANY || word.is_empty() || is_well_formed(word);
        if !text.split('.').all(is_word) {
            return invalid("has words that are neither `*` nor `#` nor made of a-z A-Z 0-9 _ -");
        }
        Ok(Self(text.into()))
    }

    /// Whether the text has a word that stands for others: else it is a plain name.
    pub(crate) fn is_pattern(text: &str) -> bool {
        text.split('.').any(|word| word == ONE || word == ANY)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches the name.
    ///
    /// Takes time in proportion to the product of both numbers of words, however many `#` there are: at a mismatch only
    /// the last `#` is tried with one word more, since any that came earlier can't help.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let pattern: Vec<&str> = self.0.split('.').collect();
        let words: Vec<&str> = name.split('.').collect();
        let (mut at, mut word) = (0, 0);
        // Behind the last `#`, and the first word that it hasn't taken.
        let mut retry = None;
        while word < words.len() {
            match pattern.get(at) {
                Some(&ANY) => {
                    at += 1;
                    retry = Some((at, word));
                }
                Some(&own) if own == ONE || own == words[word] => {
                    (at, word) = (at + 1, word + 1);
                }
                _ => match &mut retry {
                    Some((behind, taken)) => {
                        *taken += 1;
                        (at, word) = (*behind, *taken);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|&own| own == ANY)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    fn matches(pattern: &str, name: &str) -> bool {
        TopicPattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn one_word_and_any_number_of_words() {
        for (pattern, matching, others) in [
            ("orders.*", &["orders.eu", "orders."][..], &["orders", "orders.eu.paid", "other.eu"][..]),
            ("orders.#", &["orders", "orders.eu", "orders.eu.paid"], &["orders-eu", "order", "other"]),
            ("*.paid", &["orders.paid"], &["paid", "orders.eu.paid"]),
            ("#.paid", &["paid", "orders.paid", "orders.eu.paid"], &["orders.paid.late", "unpaid"]),
            ("#", &["orders", "orders.eu"], &[]),
            ("a.#.z", &["a.z", "a.b.z", "a.z.z", "a.b.c.z"], &["a", "z", "a.z.b"]),
            ("a.#.b.#.c", &["a.b.c", "a.x.b.b.y.c", "a.b.b.c"], &["a.c", "a.c.b", "a.b"]),
            ("#.#", &["a", "a.b"], &[]),
            ("*.#", &["a", "a.b.c"], &[]),
            ("orders", &["orders"], &["orders.eu", "Orders"]),
        ] {
            matching.iter().for_each(|name| assert!(matches(pattern, name), "{pattern} {name}"));
            others.iter().for_each(|name| assert!(!matches(pattern, name), "{pattern} {name}"));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a b", "a/b", "or*ers", "a.##", "a.b#", &"x".repeat(250)] {
            assert_eq!(TopicPattern::parse(text).unwrap_err().kind(), ErrorKind::InvalidName, "{text:?}");
        }
        assert!(TopicPattern::is_pattern("a.*") && TopicPattern::is_pattern("#") && !TopicPattern::is_pattern("a.b"));
    }

    /// The definition, word by word.
    fn defined(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern.split_first(), words.split_first()) {
            (None, None) => true,
            (Some((&ANY, rest)), None) => defined(rest, words),
            (Some((&ANY, rest)), Some((_, others))) => defined(rest, words) || defined(pattern, others),
            (Some((&own, rest)), Some((&word, others))) => (own == ONE || own == word) && defined(rest, others),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_as_defined(pattern in "([ab*#]\\.){0,5}[ab*#]", name in "([ab]\\.){0,6}[ab]") {
            let split = |text: &'_ str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
            let (words, names) = (split(&pattern), split(&name));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            prop_assert_eq!(matches(&pattern, &name), defined(&words, &names));
        }
    }
}

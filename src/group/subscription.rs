//! What a consumer wants to read: names of topics, and patterns of names.
//!
//! # Invariants
//! - At most [`MAX_NAMES`], each once, in the order in which they were given: what fits a record.
//! - A pattern never matches one of the log's own topics, whose names begin with `__`.
//!
//! # Thread safety
//! Plain values.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::{Repr, Result},
    name::RESERVED_PREFIX,
    pattern::TopicPattern,
};

/// The most names and patterns that a subscription has.
pub(crate) const MAX_NAMES: usize = 1000;

/// Names and patterns of topics. (A name is a pattern that matches itself alone.)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    names: Vec<TopicPattern>,
}

impl Subscription {
    /// Kind `InvalidConfig` for more than [`MAX_NAMES`].
    pub(crate) fn new(names: impl IntoIterator<Item = TopicPattern>) -> Result<Self> {
        let (mut once, mut known) = (Vec::new(), BTreeSet::new());
        for name in names {
            if known.insert(name.clone()) {
                once.push(name);
            }
        }
        if once.len() > MAX_NAMES {
            let reason = format!("{} topics and patterns; {MAX_NAMES} are possible", once.len());
            return Err(Repr::InvalidConfig { option: "topic", reason }.into());
        }
        Ok(Self { names: once })
    }

    pub(crate) fn names(&self) -> &[TopicPattern] {
        &self.names
    }

    /// The ids of the topics, of those that there are by name, that it stands for.
    pub(crate) fn resolve(&self, topics: &BTreeMap<&str, u128>) -> BTreeSet<u128> {
        let (patterns, names): (Vec<_>, Vec<_>) =
            self.names.iter().partition(|name| TopicPattern::is_pattern(name.as_str()));
        let mut ids: BTreeSet<u128> = names.iter().filter_map(|name| topics.get(name.as_str()).copied()).collect();
        if !patterns.is_empty() {
            let users = topics.iter().filter(|(name, _)| !name.starts_with(RESERVED_PREFIX));
            let matching = users.filter(|(name, _)| patterns.iter().any(|pattern| pattern.matches(name)));
            ids.extend(matching.map(|(_, id)| *id));
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn subscription(names: &[&str]) -> Subscription {
        Subscription::new(names.iter().map(|name| TopicPattern::parse(name).unwrap())).unwrap()
    }

    #[test]
    fn names_and_patterns_stand_for_the_topics_that_there_are() {
        let topics =
            BTreeMap::from([("orders", 1), ("orders.eu", 2), ("orders.us", 3), ("other", 4), ("__offsets", 5)]);
        let resolve = |names: &[&str]| subscription(names).resolve(&topics).into_iter().collect::<Vec<_>>();
        assert_eq!(resolve(&["orders", "missing"]), [1]);
        assert_eq!(resolve(&["orders.*", "orders.eu"]), [2, 3]);
        assert_eq!(resolve(&["orders.#", "other"]), [1, 2, 3, 4]);
        assert_eq!(resolve(&["#"]), [1, 2, 3, 4], "never the log's own");
        assert_eq!(resolve(&["*"]), [1, 4]);
        assert_eq!(resolve(&[]), [0; 0]);
    }

    #[test]
    fn each_name_counts_once_and_too_many_are_refused() {
        let names = subscription(&["b", "a.*", "b"]);
        assert_eq!(names.names().iter().map(TopicPattern::as_str).collect::<Vec<_>>(), ["b", "a.*"]);
        let many = |count: usize| Subscription::new((0..count).map(|i| TopicPattern::parse(&format!("t{i}")).unwrap()));
        many(MAX_NAMES).unwrap();
        assert_eq!(many(MAX_NAMES + 1).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}

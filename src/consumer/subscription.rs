//! Which topics a consumer reads: names and patterns.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::{Repr, Result},
    name::check_name,
    pattern::TopicPattern,
    topic::TopicState,
    topics::Topics,
};

/// Names and patterns, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscription {
    names: BTreeSet<Box<str>>,
    patterns: BTreeSet<TopicPattern>,
}

impl Subscription {
    /// Kind `InvalidName`; `InvalidConfig` if there is nothing.
    pub(super) fn parse(names: &[String], patterns: &[String]) -> Result<Self> {
        if names.is_empty() && patterns.is_empty() {
            let reason = "a consumer reads one topic or pattern at least".into();
            return Err(Repr::InvalidConfig { option: "topic", reason }.into());
        }
        names.iter().try_for_each(|name| check_name("topic", name))?;
        let patterns = patterns.iter().map(|text| TopicPattern::parse(text)).collect::<Result<_>>()?;
        Ok(Self { names: names.iter().map(|name| name.as_str().into()).collect(), patterns })
    }

    /// Whether it has a topic of this name.
    pub(crate) fn covers(&self, topic: &str) -> bool {
        self.is_named(topic) || self.patterns.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether the name itself was given.
    pub(crate) fn is_named(&self, topic: &str) -> bool {
        self.names.contains(topic)
    }

    /// The topics that are there, in order of their names.
    pub(crate) fn topics(&self, topics: &Topics) -> Vec<Arc<TopicState>> {
        topics.select(|name| self.covers(name))
    }

    /// Kind `UnknownTopic` if one that was given by its name isn't there.
    pub(super) fn check(&self, topics: &Topics) -> Result<()> {
        self.names.iter().try_for_each(|name| topics.get(name).map(drop))
    }
}

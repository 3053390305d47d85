//! Which topics a consumer reads: names and patterns.

use std::collections::BTreeSet;

use crate::{
    error::{Repr, Result},
    group,
    name::check_name,
    pattern::TopicPattern,
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

    /// Whether the name itself was given.
    pub(crate) fn is_named(&self, topic: &str) -> bool {
        self.names.contains(topic)
    }

    /// What the group is told, for which a name is a pattern that matches itself alone. Kind `InvalidConfig` if there
    /// are too many.
    pub(super) fn of_member(&self) -> Result<group::Subscription> {
        let names = self.names.iter().map(|name| TopicPattern::parse(name)).collect::<Result<Vec<_>>>()?;
        group::Subscription::new(names.into_iter().chain(self.patterns.iter().cloned()))
    }

    /// Kind `UnknownTopic` if one that was given by its name isn't there.
    pub(super) fn check(&self, topics: &Topics) -> Result<()> {
        self.names.iter().try_for_each(|name| topics.get(name).map(drop))
    }
}

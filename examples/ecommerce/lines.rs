//! Lines: the identity of what was read, and which of it the log has already.
//!
//! A line is known by its file's name and its number in it, both written into the headers of every record that came
//! of it. So what was taken, by this run or by one that was aborted, is read back from the log and from nowhere else.

use std::collections::{HashMap, HashSet};

/// The numbers of one file's lines, as text for a header: `2-8,10`.
pub(crate) fn to_ranges(numbers: &[u64]) -> String {
    numbers
        .chunk_by(|line, next| line + 1 == *next)
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => run[0].to_string(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// Reads back what [`to_ranges`] wrote; `None` if it wasn't that.
fn from_ranges(text: &str) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(first.parse::<u64>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

/// A set of lines of any number of files.
#[derive(Default)]
pub(crate) struct LineSet {
    files: HashMap<String, HashSet<u64>>,
}

impl LineSet {
    /// Adds the lines that a header names. `None` if the header isn't one of ours.
    pub(crate) fn add_ranges(&mut self, file: &str, ranges: &str) -> Option<()> {
        let numbers = from_ranges(ranges)?;
        match self.files.get_mut(file) {
            Some(lines) => lines.extend(numbers),
            None => drop(self.files.insert(file.to_owned(), numbers.into_iter().collect())),
        }
        Some(())
    }

    pub(crate) fn contains(&self, file: &str, number: u64) -> bool {
        self.files.get(file).is_some_and(|lines| lines.contains(&number))
    }

    pub(crate) fn len(&self) -> usize {
        self.files.values().map(HashSet::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether a line of that file is in the set.
    pub(crate) fn has_file(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }
}

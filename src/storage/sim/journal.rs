//! What the device may have of names: the folders as they were made durable, and each change since.
//!
//! # Invariants
//! - A power cut undoes or keeps each change on its own; those that it keeps happen in the order in which they were made.
//!   A rename is one change, also from one folder into another.
//! - A file or folder has one name at most. The last change that is kept says which: a rename gives it its new name also
//!   if its creation, under the old one, is undone.
//! - A removal takes a name away only if it leads to what was removed.
//! - To sync a folder makes every change durable that touches it, and, as in a file system's journal, those before it
//!   in the other folders that a rename among them touches.
//!
//! # Thread safety
//! Plain data; the tree keeps it under its lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::RwLock;

use super::{
    contents::Contents,
    pattern::Pattern,
    tree::{Inode, Names, Place, ROOT},
};
use crate::random::Sequence;

/// All folders.
pub(super) type Tables = BTreeMap<Inode, Names>;

/// Contents of files, by their numbers.
pub(super) type Files = BTreeMap<Inode, Arc<RwLock<Contents>>>;

/// A file or folder was created (`from` is `None`), removed (`to` is `None`) or renamed.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) inode: Inode,
    pub(super) from: Option<Place>,
    pub(super) to: Option<Place>,
}

/// The durable names, and what isn't durable yet.
pub(super) struct Journal {
    durable: Tables,
    pending: Vec<Change>,
    /// What any of these names leads to, also if it has none any more.
    pub(super) files: Files,
}

impl Journal {
    /// Of folders and files of which everything is durable.
    pub(super) fn new(durable: Tables, files: Files) -> Self {
        Self { durable, pending: Vec::new(), files }
    }

    /// The same, with contents of its own.
    pub(super) fn copy(&self, files: Files) -> Self {
        Self { durable: self.durable.clone(), pending: self.pending.clone(), files }
    }

    /// Takes down a change; `contents` are those of a file.
    pub(super) fn add(&mut self, change: Change, contents: Option<Arc<RwLock<Contents>>>) {
        match contents {
            Some(contents) => drop(self.files.insert(change.inode, contents)),
            None => drop(self.durable.entry(change.inode).or_default()),
        }
        self.pending.push(change);
    }

    /// Makes a folder durable. `is_alive` tells what still has a name, durable or not.
    pub(super) fn sync(&mut self, dir: Inode, is_alive: impl Fn(Inode) -> bool) {
        let mut dirs = BTreeSet::from([dir]);
        let mut synced = Vec::new();
        for at in (0..self.pending.len()).rev() {
            if self.pending[at].dirs().any(|dir| dirs.contains(&dir)) {
                let change = self.pending.remove(at);
                dirs.extend(change.dirs());
                synced.push(change);
            }
        }
        synced.iter().rev().for_each(|change| change.apply(&mut self.durable));
        self.forget(is_alive);
    }

    /// Forgets what no name will lead to, whatever is kept.
    fn forget(&mut self, is_alive: impl Fn(Inode) -> bool) {
        let named = self.durable.values().flat_map(Names::values).copied();
        let named: BTreeSet<_> = named.chain(self.pending.iter().map(|change| change.inode)).collect();
        let may_return = |inode: &Inode| *inode == ROOT || is_alive(*inode) || named.contains(inode);
        self.durable.retain(|inode, _| may_return(inode));
        self.files.retain(|inode, _| may_return(inode));
        self.pending.retain(|change| change.dirs().all(|dir| self.durable.contains_key(&dir)));
    }

    /// The names after a power cut.
    pub(super) fn survivors(&self, choices: &mut Sequence) -> Tables {
        let mut tables = self.durable.clone();
        let mut pattern = Pattern::draw(self.pending.len() as u64, choices);
        for change in &self.pending {
            if pattern.pick(2, choices) == 1 {
                change.apply(&mut tables);
            }
        }
        tables
    }
}

impl Change {
    /// The folders that it touches.
    fn dirs(&self) -> impl Iterator<Item = Inode> + '_ {
        [&self.from, &self.to].into_iter().flatten().map(|(dir, _)| *dir)
    }

    fn apply(&self, tables: &mut Tables) {
        if let Some((dir, name)) = &self.to {
            tables.values_mut().for_each(|names| names.retain(|_, inode| *inode != self.inode));
            tables.entry(*dir).or_default().insert(name.clone(), self.inode);
        } else if let Some((dir, name)) = &self.from {
            let names = tables.entry(*dir).or_default();
            if names.get(name) == Some(&self.inode) {
                names.remove(name);
            }
        }
    }
}

//! Crashes: what the next process finds.
//!
//! A crash answers a machine of its own, and this one goes on undisturbed; so one run can crash at each of its steps.
//! Of files ([`history`](super::history)) and names ([`journal`](super::journal)) that weren't made durable, a
//! [`Pattern`] decides.
//!
//! # Invariants
//! - What a crash leaves depends on the machine and on the choices alone.
//! - After [`Power`](Crash::Power) and [`Remount`](Crash::Remount) all that is left is durable. After
//!   [`Kill`](Crash::Kill) it is there, and no more durable than it was.
//!
//! # Thread safety
//! Any thread may call anything. What other threads do meanwhile is in it or isn't, store by store.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

use super::{
    Machine, Shared, SimStorage,
    blocks::Space,
    contents::Contents,
    hash::bytes_hash,
    journal::{Files, Journal, Tables},
    node::FileNode,
    pattern::Pattern,
    tree::{Inode, Names, Node, ROOT, Tree},
};
use crate::{mix::mix64, random::Sequence};

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process was killed: everything is as it was stored, same boot, same mount. What wasn't synced still isn't: a
    /// power cut that follows may take it.
    Kill,
    /// The power was cut: another boot. Of what wasn't synced, any part may be there.
    Power,
    /// The file system was shut down by force and mounted again in the same boot: as [`Power`](Crash::Power) but for
    /// the boot id.
    Remount,
}

impl SimStorage {
    /// A machine that knows what a crash would take from it. On others everything counts as durable at once.
    pub(crate) fn tracked() -> Self {
        let journal = Journal::new(Tables::from([(ROOT, Names::new())]), Files::new());
        let tree = Tree { journal: Some(journal), ..Tree::default() };
        Self { shared: Arc::new(Shared { is_tracked: true, tree: Mutex::new(tree), ..Shared::default() }) }
    }

    /// What the next process finds: a machine of its own, that has nothing in common with this one, which goes on
    /// undisturbed. Locks are free, nothing fails, and no hook is set.
    pub(crate) fn crash(&self, crash: Crash, choices: &mut Sequence) -> SimStorage {
        let space = Arc::default();
        let tree = self.shared.tree.lock();
        for file in tree.files() {
            // The image has what is found, so it is no step of its own any more.
            let _ = file.look();
        }
        let found = match crash {
            Crash::Kill => tree.copy(&space),
            Crash::Power | Crash::Remount => tree.survivor(&space, choices),
        };
        let machine = self.shared.machine.lock().after(crash);
        SimStorage {
            shared: Arc::new(Shared {
                tree: Mutex::new(found),
                space,
                machine: Mutex::new(machine),
                is_tracked: self.shared.is_tracked,
                ..Shared::default()
            }),
        }
    }

    /// A hash of names, lengths and contents, of the whole machine: equal images have equal hashes. What machines say
    /// of themselves, and the numbers of files, are no part of it.
    pub(crate) fn image_hash(&self) -> u64 {
        self.shared.tree.lock().hash()
    }
}

impl Machine {
    fn after(&self, crash: Crash) -> Self {
        Self {
            boots: self.boots + u64::from(crash == Crash::Power),
            mounts: self.mounts + u64::from(crash != Crash::Kill),
            file_system: self.file_system.clone(),
        }
    }
}

impl Tree {
    /// The same names and contents, with what isn't durable of them, in a space of its own.
    fn copy(&self, space: &Arc<Space>) -> Self {
        let copy = |contents: &Arc<RwLock<Contents>>| Arc::new(RwLock::new(contents.read().copy()));
        let kept = self.journal.iter().flat_map(|journal| &journal.files);
        let mut files: Files = kept.map(|(&inode, contents)| (inode, copy(contents))).collect();
        let nodes = self.nodes.iter().map(|(&inode, node)| match node {
            Node::File(file) => {
                let contents = files.entry(inode).or_insert_with(|| copy(file.contents())).clone();
                (inode, new_file(inode, &file.path(), contents, space))
            }
            Node::Dir(names) => (inode, Node::Dir(names.clone())),
        });
        let nodes = nodes.collect();
        let journal = self.journal.as_ref().map(|journal| journal.copy(files));
        Self { nodes, last_inode: self.last_inode, journal }
    }

    /// What is left after a power cut, in a space of its own.
    fn survivor(&self, space: &Arc<Space>, choices: &mut Sequence) -> Self {
        let Some(journal) = &self.journal else { return self.copy(space) };
        let tables = journal.survivors(choices);
        let mut files = Decided::new(&journal.files, choices);
        let mut nodes = BTreeMap::new();
        let mut dirs = vec![(ROOT, PathBuf::from("/"))];
        while let Some((dir, path)) = dirs.pop() {
            let names = tables.get(&dir).cloned().unwrap_or_default();
            for (name, &inode) in &names {
                let path = path.join(name);
                match files.survivor(inode, choices) {
                    Some(contents) => drop(nodes.insert(inode, new_file(inode, &path, contents, space))),
                    None => dirs.push((inode, path)),
                }
            }
            nodes.insert(dir, Node::Dir(names));
        }
        let tables = nodes.iter().filter_map(|(&inode, node)| match node {
            Node::Dir(names) => Some((inode, names.clone())),
            Node::File(_) => None,
        });
        let journal = Some(Journal::new(tables.collect(), files.survivors));
        Self { nodes, last_inode: self.last_inode, journal }
    }

    /// A hash of all names, and of what they lead to.
    fn hash(&self) -> u64 {
        let (mut hash, mut dirs) = (0, vec![(ROOT, 1)]);
        while let Some((dir, above)) = dirs.pop() {
            let Some(Node::Dir(names)) = self.nodes.get(&dir) else { continue };
            for (name, inode) in names {
                let path = bytes_hash(name.as_encoded_bytes(), above);
                let node = match self.nodes.get(inode) {
                    Some(Node::File(file)) => file.contents().read().hash(path),
                    _ => {
                        dirs.push((*inode, path));
                        mix64(path)
                    }
                };
                hash = u64::wrapping_add(hash, node);
            }
        }
        mix64(hash)
    }
}

/// The files of a machine whose power was cut.
struct Decided<'a> {
    files: &'a Files,
    /// One pattern for all files, or none: then each has its own.
    pattern: Option<Pattern>,
    survivors: Files,
}

impl<'a> Decided<'a> {
    fn new(files: &'a Files, choices: &mut Sequence) -> Self {
        let things = files.values().map(|contents| contents.read().undecided()).sum();
        let pattern = (choices.below(2) == 0).then(|| Pattern::draw(things, choices));
        Self { files, pattern, survivors: Files::new() }
    }

    /// What is left of a file; `None` if it is a folder.
    fn survivor(&mut self, inode: Inode, choices: &mut Sequence) -> Option<Arc<RwLock<Contents>>> {
        let contents = self.files.get(&inode)?.read();
        let mut own = Pattern::draw(contents.undecided(), choices);
        let pattern = self.pattern.as_mut().unwrap_or(&mut own);
        let survivor = Arc::new(RwLock::new(contents.survivor(pattern, choices)));
        self.survivors.insert(inode, survivor.clone());
        Some(survivor)
    }
}

/// A file of a new machine.
fn new_file(inode: Inode, path: &Path, contents: Arc<RwLock<Contents>>, space: &Arc<Space>) -> Node {
    space.seize(contents.read().blocks().count());
    Node::File(Arc::new(FileNode::new(inode, path, contents, space.clone())))
}

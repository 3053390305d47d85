//! Names in folders, and the numbered nodes that they lead to.
//!
//! # Invariants
//! - A node has exactly one name but the root, which has none; it goes from the table with its name, and a file lives
//!   on in its open handles and regions.
//! - Numbers are never used twice.
//! - Paths are taken from the root on, relative ones too: there is no working folder. `..` is resolved in the text;
//!   there are no links that could make that wrong.
//!
//! # Thread safety
//! Plain data; the storage keeps it under a lock.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{DirEntry, EntryKind},
    memory::{FileNode, Space},
};
#[cfg(any(test, fuzzing))]
use {super::hash::bytes_hash, crate::mix::mix64};

/// The number of a file or folder.
type Inode = u64;

const ROOT: Inode = 1;

/// All names and nodes.
pub(super) struct Tree {
    nodes: HashMap<Inode, Node>,
    last_inode: Inode,
}

enum Node {
    File(Arc<FileNode>),
    Dir(BTreeMap<OsString, Inode>),
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: HashMap::from([(ROOT, Node::Dir(BTreeMap::new()))]), last_inode: ROOT }
    }
}

impl Tree {
    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in names(path) {
            dir = match self.names_in(dir)?.get(&name) {
                Some(&inode) => inode,
                None => self.insert(dir, name, |_| Node::Dir(BTreeMap::new()))?,
            };
        }
        self.names_in(dir).map(drop)
    }

    pub(super) fn entry_kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        match self.resolve(&names(path)) {
            Ok(inode) => Ok(self.nodes.get(&inode).map(Node::kind)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let entries = self.names_in(self.resolve(&names(dir))?)?.iter();
        Ok(entries
            .filter_map(|(name, inode)| {
                Some(DirEntry { name: name.to_str()?.to_owned(), kind: self.nodes.get(inode)?.kind() })
            })
            .collect())
    }

    /// The file of that name.
    pub(super) fn file(&self, path: &Path) -> io::Result<Arc<FileNode>> {
        match self.nodes.get(&self.resolve(&names(path))?) {
            Some(Node::File(file)) => Ok(file.clone()),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// All files.
    #[cfg(any(test, fuzzing))]
    pub(super) fn files(&self) -> Vec<Arc<FileNode>> {
        let files = self.nodes.values().filter_map(|node| match node {
            Node::File(file) => Some(file.clone()),
            Node::Dir(_) => None,
        });
        files.collect()
    }

    /// Another one that is the same, in a space of its own.
    #[cfg(any(test, fuzzing))]
    pub(super) fn copy(&self, space: &Arc<Space>) -> Self {
        let copies = self.nodes.iter().map(|(&inode, node)| match node {
            Node::File(file) => (inode, Node::File(Arc::new(file.copy(space.clone())))),
            Node::Dir(names) => (inode, Node::Dir(names.clone())),
        });
        Self { nodes: copies.collect(), last_inode: self.last_inode }
    }

    /// A hash of all names, and of what they lead to.
    #[cfg(any(test, fuzzing))]
    pub(super) fn hash(&self) -> u64 {
        let (mut hash, mut dirs) = (0, vec![(ROOT, 1)]);
        while let Some((dir, above)) = dirs.pop() {
            let Some(Node::Dir(names)) = self.nodes.get(&dir) else { continue };
            for (name, inode) in names {
                let path = bytes_hash(name.as_encoded_bytes(), above);
                let node = self.nodes.get(inode).map_or(0, |node| match node {
                    Node::File(file) => file.hash(path),
                    Node::Dir(_) => {
                        dirs.push((*inode, path));
                        mix64(path)
                    }
                });
                hash = u64::wrapping_add(hash, node);
            }
        }
        mix64(hash)
    }

    /// The file of that name, made if it is missing; if `new`, an error if it isn't.
    pub(super) fn create(&mut self, path: &Path, new: bool, space: &Arc<Space>) -> io::Result<Arc<FileNode>> {
        match self.entry_kind(path)? {
            None => {
                let (dir, name) = self.place(path)?;
                self.insert(dir, name, |inode| Node::File(Arc::new(FileNode::new(inode, path, space.clone()))))?;
            }
            Some(_) if new => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(_) => {}
        }
        self.file(path)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let moved = self.resolve(&names(from))?;
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        if let Some(&replaced) = self.names_in(to_dir)?.get(&to_name) {
            if replaced == moved {
                return Ok(());
            }
            match (self.nodes.get(&moved), self.nodes.get(&replaced)) {
                (Some(Node::File(_)), Some(Node::Dir(_))) => return Err(io::ErrorKind::IsADirectory.into()),
                (Some(Node::Dir(_)), Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
                (_, Some(Node::Dir(names))) if !names.is_empty() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        if names(to).starts_with(&names(from)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "into itself"));
        }
        self.names_in_mut(from_dir)?.remove(&from_name);
        if let Some(replaced) = self.names_in_mut(to_dir)?.insert(to_name, moved) {
            self.nodes.remove(&replaced);
        }
        self.tell_path(moved, to.to_owned());
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.file(path)?.inode();
        let (dir, name) = self.place(path)?;
        self.names_in_mut(dir)?.remove(&name);
        self.nodes.remove(&inode);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.resolve(&names(path))?;
        self.names_in(inode)?;
        let (dir, name) = self.place(path)?;
        self.names_in_mut(dir)?.remove(&name);
        let mut doomed = vec![inode];
        while let Some(inode) = doomed.pop() {
            if let Some(Node::Dir(names)) = self.nodes.remove(&inode) {
                doomed.extend(names.into_values());
            }
        }
        Ok(())
    }

    /// The node that a path leads to.
    fn resolve(&self, names: &[OsString]) -> io::Result<Inode> {
        names.iter().try_fold(ROOT, |dir, name| {
            self.names_in(dir)?.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    /// The folder that a path's last name is or would be in, and that name.
    fn place(&self, path: &Path) -> io::Result<(Inode, OsString)> {
        let mut names = names(path);
        let name = names.pop().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the root"))?;
        let dir = self.resolve(&names)?;
        self.names_in(dir)?;
        Ok((dir, name))
    }

    fn names_in(&self, dir: Inode) -> io::Result<&BTreeMap<OsString, Inode>> {
        match self.nodes.get(&dir) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn names_in_mut(&mut self, dir: Inode) -> io::Result<&mut BTreeMap<OsString, Inode>> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Adds a node to a folder.
    fn insert(&mut self, dir: Inode, name: OsString, make: impl FnOnce(Inode) -> Node) -> io::Result<Inode> {
        let inode = self.last_inode + 1;
        self.names_in_mut(dir)?.insert(name, inode);
        self.last_inode = inode;
        self.nodes.insert(inode, make(inode));
        Ok(inode)
    }

    /// Tells a node, and all below it, its new path.
    fn tell_path(&self, inode: Inode, path: PathBuf) {
        let mut moved = vec![(inode, path)];
        while let Some((inode, path)) = moved.pop() {
            match self.nodes.get(&inode) {
                Some(Node::File(file)) => file.set_path(path),
                Some(Node::Dir(names)) => moved.extend(names.iter().map(|(name, &inode)| (inode, path.join(name)))),
                None => {}
            }
        }
    }
}

impl Node {
    fn kind(&self) -> EntryKind {
        match self {
            Node::File(_) => EntryKind::File,
            Node::Dir(_) => EntryKind::Dir,
        }
    }
}

/// A path's names from the root on.
fn names(path: &Path) -> Vec<OsString> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::ParentDir => drop(names.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    names
}

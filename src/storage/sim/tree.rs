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
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;

#[cfg(any(test, fuzzing))]
use super::journal::{Change, Journal};
use super::{
    super::{DirEntry, EntryKind},
    blocks::Space,
    contents::Contents,
    node::FileNode,
};

/// The number of a file or folder.
pub(super) type Inode = u64;

pub(super) const ROOT: Inode = 1;

/// The names in a folder.
pub(super) type Names = BTreeMap<OsString, Inode>;

/// The folder that a name is in, and the name.
pub(super) type Place = (Inode, OsString);

/// All names and nodes.
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<Inode, Node>,
    pub(super) last_inode: Inode,
    /// `None` where nobody asks what a crash would leave.
    #[cfg(any(test, fuzzing))]
    pub(super) journal: Option<Journal>,
}

pub(super) enum Node {
    File(Arc<FileNode>),
    Dir(Names),
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(Names::new()))]),
            last_inode: ROOT,
            #[cfg(any(test, fuzzing))]
            journal: None,
        }
    }
}

impl Tree {
    /// Makes the folder and its missing parents; answers the folders that have new names.
    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<Vec<Inode>> {
        let (mut dir, mut changed) = (ROOT, Vec::new());
        for name in names(path) {
            dir = match self.names_in(dir)?.get(&name) {
                Some(&inode) => inode,
                None => {
                    changed.push(dir);
                    self.insert(dir, name, |_| Node::Dir(Names::new()))?
                }
            };
        }
        self.names_in(dir)?;
        Ok(changed)
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

    /// The file of that name, made if it is missing; if `new`, an error if it isn't.
    pub(super) fn create(&mut self, path: &Path, new: bool, space: &Arc<Space>) -> io::Result<Arc<FileNode>> {
        match self.entry_kind(path)? {
            None => {
                let (dir, name) = self.place(path)?;
                let contents = Arc::new(RwLock::new(self.new_contents()));
                self.insert(dir, name, |inode| {
                    Node::File(Arc::new(FileNode::new(inode, path, contents, space.clone())))
                })?;
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
        if let Some(replaced) = self.names_in_mut(to_dir)?.insert(to_name.clone(), moved) {
            self.nodes.remove(&replaced);
        }
        self.tell_path(moved, to.to_owned());
        self.note(moved, Some((from_dir, from_name)), Some((to_dir, to_name)));
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.remove(path)
    }

    /// All that is in a folder, and the folder, in an order in which they can be removed.
    pub(super) fn below(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.place(path)?;
        let (mut below, mut dirs) = (vec![path.to_owned()], vec![path.to_owned()]);
        while let Some(dir) = dirs.pop() {
            for (name, inode) in self.names_in(self.resolve(&names(&dir))?)? {
                let path = dir.join(name);
                if let Some(Node::Dir(_)) = self.nodes.get(inode) {
                    dirs.push(path.clone());
                }
                below.push(path);
            }
        }
        below.reverse();
        Ok(below)
    }

    /// Removes the name of a file or of an empty folder.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        if let Some(inode) = self.names_in_mut(dir)?.remove(&name) {
            self.note(inode, Some((dir, name)), None);
            self.nodes.remove(&inode);
        }
        Ok(())
    }

    /// Makes the names in the folder durable.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.resolve(&names(path))?;
        self.names_in(dir)?;
        self.make_durable(dir);
        Ok(())
    }

    /// The names in the folder are durable.
    #[cfg(any(test, fuzzing))]
    pub(super) fn make_durable(&mut self, dir: Inode) {
        if let Some(journal) = &mut self.journal {
            journal.sync(dir, |inode| self.nodes.contains_key(&inode));
        }
    }

    #[cfg(not(any(test, fuzzing)))]
    pub(super) fn make_durable(&mut self, _dir: Inode) {}

    #[cfg(not(any(test, fuzzing)))]
    fn new_contents(&self) -> Contents {
        Contents::default()
    }

    #[cfg(any(test, fuzzing))]
    fn new_contents(&self) -> Contents {
        if self.journal.is_some() { Contents::tracked() } else { Contents::default() }
    }

    /// Takes down that a file or folder lost a name and has got another one. It is among the nodes still.
    #[cfg(any(test, fuzzing))]
    fn note(&mut self, inode: Inode, from: Option<Place>, to: Option<Place>) {
        let Some(journal) = &mut self.journal else { return };
        let contents = match self.nodes.get(&inode) {
            Some(Node::File(file)) => Some(file.contents().clone()),
            _ => None,
        };
        journal.add(Change { inode, from, to }, contents);
    }

    #[cfg(not(any(test, fuzzing)))]
    fn note(&mut self, _inode: Inode, _from: Option<Place>, _to: Option<Place>) {}

    /// The node that a path leads to.
    fn resolve(&self, names: &[OsString]) -> io::Result<Inode> {
        names.iter().try_fold(ROOT, |dir, name| {
            self.names_in(dir)?.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    /// Where a path's last name is or would be.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let mut names = names(path);
        let name = names.pop().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the root"))?;
        let dir = self.resolve(&names)?;
        self.names_in(dir)?;
        Ok((dir, name))
    }

    fn names_in(&self, dir: Inode) -> io::Result<&Names> {
        match self.nodes.get(&dir) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn names_in_mut(&mut self, dir: Inode) -> io::Result<&mut Names> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Adds a node to a folder.
    fn insert(&mut self, dir: Inode, name: OsString, make: impl FnOnce(Inode) -> Node) -> io::Result<Inode> {
        let inode = self.last_inode + 1;
        self.names_in_mut(dir)?.insert(name.clone(), inode);
        self.last_inode = inode;
        self.nodes.insert(inode, make(inode));
        self.note(inode, None, Some((dir, name)));
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

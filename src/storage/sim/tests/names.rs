//! What crashes leave of names.

use std::collections::BTreeSet;

use super::*;
use crate::random::Sequence;

/// The names that power cuts leave, with the first letter of each file's content, in words; folders end in `/`.
fn outcomes(storage: &SimStorage) -> BTreeSet<String> {
    (0..2000).map(|seed| names(&storage.crash(Crash::Power, &mut Sequence::new(seed)))).collect()
}

fn names(storage: &SimStorage) -> String {
    let (mut found, mut dirs) = (BTreeSet::new(), vec![PathBuf::from("/")]);
    while let Some(dir) = dirs.pop() {
        for entry in storage.list(&dir).unwrap() {
            let path = dir.join(entry.name);
            let name = path.strip_prefix("/").unwrap().to_str().unwrap().to_owned();
            if entry.kind == EntryKind::Dir {
                found.insert(name + "/");
                dirs.push(path);
            } else {
                let content = String::from_utf8(storage.read(&path, 100).unwrap()).unwrap();
                found.insert(format!("{name}={content}"));
            }
        }
    }
    found.into_iter().collect::<Vec<_>>().join(" ")
}

fn set(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|&names| names.to_owned()).collect()
}

/// Creates a file with durable contents and a name that isn't durable.
fn create(storage: &SimStorage, path: &str, content: &str) {
    let file = storage.open(Path::new(path), OpenMode::CreateNew).unwrap();
    file.write_all_at(content.as_bytes(), 0).unwrap();
    file.sync_all().unwrap();
}

fn rename(storage: &SimStorage, from: &str, to: &str) {
    storage.rename(Path::new(from), Path::new(to)).unwrap();
}

fn sync(storage: &SimStorage, dir: &str) {
    storage.sync_dir(Path::new(dir)).unwrap();
}

/// A machine with files `a` and `b`, all durable.
fn two_files() -> SimStorage {
    let storage = SimStorage::tracked();
    create(&storage, "a", "1");
    create(&storage, "b", "2");
    sync(&storage, "/");
    storage
}

#[test]
fn a_synced_file_is_gone_unless_its_name_was_synced_too() {
    let storage = SimStorage::tracked();
    create(&storage, "a", "1");
    assert_eq!(outcomes(&storage), set(&["", "a=1"]));
    sync(&storage, "/");
    assert_eq!(outcomes(&storage), set(&["a=1"]));
}

#[test]
fn every_change_is_kept_or_undone_on_its_own() {
    let storage = two_files();
    create(&storage, "c", "3");
    storage.remove_file(Path::new("a")).unwrap();
    assert_eq!(outcomes(&storage), set(&["a=1 b=2", "b=2", "a=1 b=2 c=3", "b=2 c=3"]));
    sync(&storage, "/");
    assert_eq!(outcomes(&storage), set(&["b=2 c=3"]));
}

#[test]
fn a_rename_is_undone_as_a_whole_and_brings_back_what_it_replaced() {
    let storage = two_files();
    rename(&storage, "a", "b");
    assert_eq!(outcomes(&storage), set(&["a=1 b=2", "b=1"]));
    sync(&storage, "/");
    assert_eq!(outcomes(&storage), set(&["b=1"]));
    rename(&storage, "b", "c");
    rename(&storage, "c", "d");
    assert_eq!(outcomes(&storage), set(&["b=1", "c=1", "d=1"]));
}

#[test]
fn a_file_has_one_name_whatever_is_undone() {
    let storage = two_files();
    create(&storage, "temporary", "3");
    rename(&storage, "temporary", "a");
    // The rename without the creation has the file under its new name.
    assert_eq!(outcomes(&storage), set(&["a=1 b=2", "a=1 b=2 temporary=3", "a=3 b=2"]));
    storage.remove_file(Path::new("a")).unwrap();
    // The removal without the rename removes nothing: what has the name is another file.
    assert_eq!(outcomes(&storage), set(&["a=1 b=2", "a=1 b=2 temporary=3", "a=3 b=2", "b=2"]));
    sync(&storage, "/");
    assert_eq!(outcomes(&storage), set(&["b=2"]));
}

#[test]
fn a_replacement_is_durable_and_half_of_it_is_all_or_nothing() {
    let storage = two_files();
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    storage.on_step(Some(Arc::new({
        let seen = seen.clone();
        move |storage: &SimStorage, _: &Step<'_>| seen.lock().append(&mut outcomes(storage))
    })));
    storage.replace(Path::new("/"), "temporary", "a", b"3").unwrap();
    storage.on_step(None);
    let seen: BTreeSet<_> = seen.lock().iter().filter(|names| !names.contains("temporary")).cloned().collect();
    assert_eq!(outcomes(&storage), set(&["a=3 b=2"]));
    assert_eq!(seen, set(&["a=1 b=2", "a=3 b=2"]));
}

#[test]
fn what_is_stored_into_a_removed_file_comes_back_with_its_name() {
    let storage = two_files();
    let file = storage.open(Path::new("a"), OpenMode::ReadWrite).unwrap();
    storage.remove_file(Path::new("a")).unwrap();
    file.write_all_at(b"9", 0).unwrap();
    drop(file);
    assert_eq!(storage.used_space(), 4096);
    assert_eq!(outcomes(&storage), set(&["a=1 b=2", "a=9 b=2", "b=2"]));
    let killed = storage.crash(Crash::Kill, &mut Sequence::new(1));
    assert_eq!(names(&killed), "b=2");
    assert_eq!(outcomes(&killed), set(&["a=1 b=2", "a=9 b=2", "b=2"]));
    // In a new folder of that name is another file.
    create(&killed, "a", "5");
    assert_eq!(outcomes(&killed), set(&["a=1 b=2", "a=9 b=2", "b=2", "a=5 b=2"]));
}

#[test]
fn folders_are_durable_once_they_were_created() {
    let storage = SimStorage::tracked();
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    storage.on_step(Some(Arc::new({
        let seen = seen.clone();
        move |storage: &SimStorage, _: &Step<'_>| seen.lock().append(&mut outcomes(storage))
    })));
    storage.create_dir_all(Path::new("/a/b")).unwrap();
    assert_eq!(outcomes(&storage), set(&["a/ a/b/"]));
    storage.create_dirs(Path::new("/a"), &["c".to_owned(), "d".to_owned()]).unwrap();
    assert_eq!(outcomes(&storage), set(&["a/ a/b/ a/c/ a/d/"]));
    // Before that, any of them.
    let all = ["", "a/", "a/ a/b/", "a/ a/b/ a/c/", "a/ a/b/ a/d/", "a/ a/b/ a/c/ a/d/"];
    assert_eq!(*seen.lock(), set(&all));
}

#[test]
fn a_folder_takes_what_is_in_it_along() {
    let storage = SimStorage::tracked();
    storage.create_dir_all(Path::new("/a")).unwrap();
    create(&storage, "/a/x", "1");
    sync(&storage, "/a");
    rename(&storage, "/a", "/b");
    assert_eq!(outcomes(&storage), set(&["a/ a/x=1", "b/ b/x=1"]));
    // What isn't durable in the folder is undone in it wherever it is.
    create(&storage, "/b/y", "2");
    assert_eq!(outcomes(&storage), set(&["a/ a/x=1", "a/ a/x=1 a/y=2", "b/ b/x=1", "b/ b/x=1 b/y=2"]));
    sync(&storage, "/b");
    assert_eq!(outcomes(&storage), set(&["a/ a/x=1 a/y=2", "b/ b/x=1 b/y=2"]));
}

#[test]
fn a_rename_into_another_folder_has_no_halves() {
    for synced in ["/a", "/b"] {
        let storage = SimStorage::tracked();
        storage.create_dir_all(Path::new("/a")).unwrap();
        storage.create_dir_all(Path::new("/b")).unwrap();
        create(&storage, "/a/x", "1");
        rename(&storage, "/a/x", "/b/x");
        create(&storage, "/a/z", "3");
        assert_eq!(
            outcomes(&storage),
            set(&["a/ b/", "a/ a/x=1 b/", "a/ b/ b/x=1", "a/ a/z=3 b/", "a/ a/x=1 a/z=3 b/", "a/ a/z=3 b/ b/x=1"])
        );
        // With it goes what was there before it: the creation that isn't undone any more.
        sync(&storage, synced);
        let expected: &[_] =
            if synced == "/a" { &["a/ a/z=3 b/ b/x=1"] } else { &["a/ b/ b/x=1", "a/ a/z=3 b/ b/x=1"] };
        assert_eq!(outcomes(&storage), set(expected));
    }
}

#[test]
fn a_folder_is_removed_name_by_name() {
    let storage = SimStorage::tracked();
    storage.create_dir_all(Path::new("/a/b")).unwrap();
    create(&storage, "/a/x", "1");
    create(&storage, "/a/b/y", "2");
    sync(&storage, "/a");
    sync(&storage, "/a/b");
    let killed = Arc::new(Mutex::new(Vec::new()));
    storage.on_step(Some(Arc::new({
        let killed = killed.clone();
        move |storage: &SimStorage, _: &Step<'_>| {
            killed.lock().push(names(&storage.crash(Crash::Kill, &mut Sequence::new(0))));
        }
    })));
    storage.remove_dir_all(Path::new("/a")).unwrap();
    assert_eq!(*killed.lock(), ["a/ a/b/ a/x=1", "a/ a/b/", "a/", ""]);
    let seen = outcomes(&storage);
    let some = ["", "a/", "a/ a/b/", "a/ a/x=1", "a/ a/b/ a/x=1", "a/ a/b/ a/b/y=2", "a/ a/b/ a/b/y=2 a/x=1"];
    assert_eq!(seen, set(&some));
    sync(&storage, "/");
    assert_eq!(outcomes(&storage), set(&[""]));
}

#[test]
fn a_failed_sync_of_a_folder_makes_nothing_durable() {
    let storage = two_files();
    rename(&storage, "a", "c");
    storage.fail_nth(1, io::ErrorKind::Other, Repeat::Once);
    storage.sync_dir(Path::new("/")).unwrap_err();
    assert_eq!(outcomes(&storage).len(), 2);
    sync(&storage, "/");
    assert_eq!(outcomes(&storage), set(&["b=2 c=1"]));
}

#[test]
fn a_power_cut_leaves_names_that_are_durable() {
    let storage = two_files();
    rename(&storage, "a", "c");
    storage.remove_file(Path::new("b")).unwrap();
    for seed in 0..50 {
        let found = storage.crash(Crash::Power, &mut Sequence::new(seed));
        assert_eq!(outcomes(&found), BTreeSet::from([names(&found)]));
        create(&found, "new", "7");
        assert_eq!(outcomes(&found).len(), 2);
    }
}

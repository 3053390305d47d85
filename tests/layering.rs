//! The layers of the crate: a file uses only what stands in rows above its own, or in its own.
//!
//! Looked at is the code without comments and without its unit tests.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Rows from the ground up: their names, and their modules.
const ROWS: [(&str, &[&str]); 8] = [
    (
        "ground",
        &[
            "error",
            "place",
            "name",
            "pattern",
            "config",
            "clock",
            "waiter",
            "changes",
            "background",
            "housekeeper",
            "figures",
            "mix",
            "random",
            "sync",
            "verification",
        ],
    ),
    ("storage", &["storage"]),
    ("format", &["codec", "record", "frame", "segment_header"]),
    ("partition", &["partition"]),
    ("topics", &["partitioner", "partition_list", "json_file", "report", "orphan", "topic", "durable", "topics"]),
    ("groups", &["group"]),
    ("clients", &["reader", "consumer", "encoding"]),
    ("root", &["log", "simulation"]),
];

/// Modules of no row: they are documentation.
const OUTSIDE: [&str; 1] = ["doc"];

/// The most lines that a file may have.
const MAX_LINES: usize = 800;

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|(_, modules)| modules.contains(&module))
}

#[test]
fn every_file_uses_only_what_stands_above_it_or_beside_it() {
    let mut found = Vec::new();
    for (path, code) in sources() {
        let modules = modules_of(&path);
        if modules.is_empty() || OUTSIDE.contains(&&*modules[0]) {
            continue;
        }
        let Some(own) = row(&modules[0]) else {
            found.push(format!("{} has no row: give its module one", path.display()));
            continue;
        };
        for used in leading_names(&code, "crate::") {
            match row(&used) {
                Some(row) if row <= own => {}
                Some(row) => found.push(format!(
                    "{} ({}) uses {used} ({}), which stands below it",
                    path.display(),
                    ROWS[own].0,
                    ROWS[row].0
                )),
                None => found.push(format!("{} uses crate::{used}: name it by its module", path.display())),
            }
        }
        if code.contains(&"super::".repeat(modules.len())) {
            found.push(format!("{} reaches for the root by `super`: name it by `crate`", path.display()));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn only_the_storage_layer_touches_the_file_system() {
    let mut found = Vec::new();
    for (path, code) in sources() {
        if modules_of(&path).first().is_some_and(|module| module == "storage") {
            continue;
        }
        for root in ["std::", "rustix::"] {
            if leading_names(&code, root).iter().any(|name| name == "fs") {
                found.push(format!("{} names {root}fs", path.display()));
            }
        }
        if code.contains("memmap2") {
            found.push(format!("{} names memmap2", path.display()));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn files_stay_short() {
    let long: Vec<_> = sources().into_keys().filter(|path| lines(path) > MAX_LINES).collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:?}");
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn the_rows_name_modules_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for module in ROWS.iter().flat_map(|(_, modules)| *modules).chain(&OUTSIDE) {
        assert!(root.join(format!("{module}.rs")).exists() || root.join(module).join("mod.rs").exists(), "{module}");
    }
}

/// The test would be worth nothing if it overlooked uses.
#[test]
fn uses_are_found_however_they_are_written() {
    let code = code_of(
        "use crate::{\n    error::{Error, Result},\n    /* log::Log */ topic::{self, Keepalive as K}, // log::Log\n};\n\
         use std::{\n    collections::{fs2, x::{y}},\n    fs::File, io,\n};\n\
         pub(crate) fn f() -> crate::reader::Reader { $crate::group::Groups }\n\
         #[cfg(test)]\nmod tests {\n    use crate::log::Log;\n}\n",
    );
    assert_eq!(leading_names(&code, "crate::"), ["error", "topic", "reader", "group"]);
    assert_eq!(leading_names(&code, "std::"), ["collections", "fs", "io"]);
    assert_eq!(row("error"), Some(0));
    assert!(row("consumer") < row("log") && row("partition") < row("topic"));
}

/// The code of all files of the crate, without unit tests.
fn sources() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if name != "tests" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let code = code_of(&fs::read_to_string(&path).unwrap());
                found.insert(path, code);
            }
        }
    }
    assert!(found.len() > 20);
    found
}

/// The modules that a file stands for, from the root down; none for `lib.rs`.
fn modules_of(path: &Path) -> Vec<String> {
    let path = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().with_extension("");
    let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

/// The text without comments and without what stands behind the beginning of the unit tests.
fn code_of(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let mut code = String::new();
    for line in text.lines() {
        code += line.split("//").next().unwrap();
        code.push('\n');
    }
    while let Some(start) = code.find("/*") {
        let end = code[start..].find("*/").map_or(code.len(), |length| start + length + 2);
        code.replace_range(start..end, "");
    }
    code
}

/// What stands first behind every `root`: of `crate::{a::B, c::{d, E}}` and `crate::f::G`, it is a, c and f.
fn leading_names(code: &str, root: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(root) {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue; // the end of another name
        }
        let path = &code[at + root.len()..];
        match path.strip_prefix('{') {
            Some(list) => names.extend(items(list).into_iter().map(name_at_start)),
            None => names.push(name_at_start(path)),
        }
    }
    names
}

/// The items of a list in braces, without what stands behind its closing one.
fn items(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                found.push(list[start..at].trim());
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|item| !item.is_empty());
    found
}

fn name_at_start(path: &str) -> String {
    path.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

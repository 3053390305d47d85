//! Is the simulation worth anything? Bugs that one could well write are put in, one at a time, and it has to find each.
//!
//! Every file `*.patch` beside this one is such a bug: a line that says what is wrong, the seed that finds it, and the
//! change as `diff -u` writes it. With `TIDELOG_MUTATIONS=all` (or some names, with commas) the crate is copied into a
//! temporary folder, each of them is applied there and built, and the simulation runs from its seed on. The last line is
//! `mutations=24 found=24`. Without it, only that they still apply is looked at: that takes no time.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// Crash states within which a bug has to be found.
const STATES: u64 = 60_000;

/// What calls the simulation.
const MAIN: &str = r#"fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|number| number.parse().unwrap()).collect();
    let (violations, line) = tidelog::fuzzing::crash_states(numbers[0], numbers[1]);
    print!("{}{line}\n", violations.concat());
    std::process::exit(if violations.is_empty() { 0 } else { 1 });
}
"#;

/// A bug.
struct Mutation {
    name: String,
    why: String,
    seed: u64,
    hunks: Vec<Hunk>,
}

/// Lines that stand together in a file, and what becomes of them.
struct Hunk {
    file: String,
    old: String,
    new: String,
}

impl Hunk {
    /// The text with the change in it. It has to fit in one place, and in no other.
    fn apply(&self, text: &str) -> Result<String, String> {
        match text.matches(&self.old).count() {
            1 => Ok(text.replacen(&self.old, &self.new, 1)),
            count => Err(format!("{} places in {} are as the patch wants them", count, self.file)),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All mutations, in the order of their names.
fn mutations() -> Vec<Mutation> {
    let entries = fs::read_dir(root().join("tests/mutations")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|it| it == "patch")).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| parse(path.file_stem().unwrap().to_str().unwrap(), &fs::read_to_string(path).unwrap()))
        .collect()
}

fn parse(name: &str, text: &str) -> Mutation {
    let mut mutation = Mutation { name: name.into(), why: String::new(), seed: u64::MAX, hunks: Vec::new() };
    let mut file = String::new();
    for line in text.lines() {
        if let Some(seed) = line.strip_prefix("# seed: ") {
            mutation.seed = seed.parse().unwrap();
        } else if let Some(why) = line.strip_prefix("# ") {
            mutation.why = why.into();
        } else if let Some(path) = line.strip_prefix("+++ b/") {
            file = path.into();
        } else if line.starts_with("@@") {
            mutation.hunks.push(Hunk { file: file.clone(), old: String::new(), new: String::new() });
        } else if let (Some(hunk), false) = (mutation.hunks.last_mut(), line.starts_with("--- ")) {
            let (kind, rest) = line.split_at(line.len().min(1));
            if kind != "+" {
                hunk.old += &format!("{rest}\n");
            }
            if kind != "-" {
                hunk.new += &format!("{rest}\n");
            }
        }
    }
    assert!(
        !mutation.why.is_empty() && mutation.seed != u64::MAX && !mutation.hunks.is_empty(),
        "{name} lacks something"
    );
    mutation
}

#[test]
fn every_mutation_still_applies() {
    let mutations = mutations();
    assert!(mutations.len() >= 12, "{}", mutations.len());
    for Mutation { name, hunks, .. } in mutations {
        for hunk in hunks {
            let text = fs::read_to_string(root().join(&hunk.file)).unwrap();
            let changed = hunk.apply(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_ne!(changed, text, "{name}");
        }
    }
}

#[test]
fn a_change_that_fits_nowhere_or_twice_is_refused() {
    let patch = "# why\n# seed: 7\n--- a/x\n+++ b/x\n@@ -1,3 +1,2 @@\n one\n-two\n three\n";
    let mutation = parse("name", patch);
    assert_eq!((&*mutation.why, mutation.seed, mutation.hunks.len()), ("why", 7, 1));
    let hunk = &mutation.hunks[0];
    assert_eq!(hunk.apply("zero\none\ntwo\nthree\n").unwrap(), "zero\none\nthree\n");
    assert!(hunk.apply("one\nthree\n").is_err());
    assert!(hunk.apply("one\ntwo\nthree\none\ntwo\nthree\n").is_err());
}

#[test]
fn every_mutation_is_found() {
    let Ok(wanted) = std::env::var("TIDELOG_MUTATIONS") else {
        let told = "no mutation is built: that takes minutes, and TIDELOG_MUTATIONS=all does it\n";
        return std::io::stdout().write_all(told.as_bytes()).unwrap();
    };
    let mutations: Vec<_> = mutations().into_iter().filter(|it| is_wanted(&wanted, &it.name)).collect();
    assert!(!mutations.is_empty(), "no mutation is named {wanted:?}");
    let bench = Bench::new();
    // Or else anything might be found.
    assert_eq!(bench.finds(mutations[0].seed, 5_000), None, "a violation without any mutation");
    let mut found = 0;
    for mutation in &mutations {
        for hunk in &mutation.hunks {
            let path = bench.krate().join(&hunk.file);
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, hunk.apply(&text).unwrap_or_else(|why| panic!("{}: {why}", mutation.name))).unwrap();
        }
        let told = bench.finds(mutation.seed, STATES);
        for hunk in &mutation.hunks {
            fs::copy(root().join(&hunk.file), bench.krate().join(&hunk.file)).unwrap();
        }
        found += usize::from(told.is_some());
        tell(&format!("{} {}: {}", if told.is_some() { "found" } else { "MISSED" }, mutation.name, mutation.why));
        told.iter().for_each(|told| tell(&format!("    {told}")));
    }
    tell(&format!("mutations={} found={found}", mutations.len()));
    assert_eq!(found, mutations.len());
}

fn is_wanted(wanted: &str, name: &str) -> bool {
    wanted == "all" || wanted.split(',').any(|it| it == name)
}

/// Shown of a test that succeeds, too.
fn tell(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// A copy of the crate, and a program that calls its simulation.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        copy(&root().join("src"), &bench.krate().join("src"));
        for file in ["Cargo.lock", "README.md"] {
            if root().join(file).exists() {
                fs::copy(root().join(file), bench.krate().join(file)).unwrap();
            }
        }
        fs::write(bench.krate().join("Cargo.toml"), manifest_of_library()).unwrap();
        fs::create_dir_all(bench.program().join("src")).unwrap();
        fs::write(bench.program().join("src/main.rs"), MAIN).unwrap();
        let manifest = "[package]\nname = \"mutated\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
            [dependencies]\ntidelog = { path = \"../crate\" }\n[profile.release]\ndebug = 0\nincremental = true\n[workspace]\n";
        fs::write(bench.program().join("Cargo.toml"), manifest).unwrap();
        if root().join("Cargo.lock").exists() {
            fs::copy(root().join("Cargo.lock"), bench.program().join("Cargo.lock")).unwrap();
        }
        bench
    }

    fn krate(&self) -> PathBuf {
        self.0.path().join("crate")
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("program")
    }

    /// Builds the copy as it is, and runs the simulation from a seed on: the seed and the first line of what it finds.
    /// A program that ends in another way, or tells of no plan to repeat, has found nothing.
    fn finds(&self, seed: u64, states: u64) -> Option<String> {
        let mut command = Command::new(env!("CARGO"));
        command.args(["run", "--release", "--quiet", "--", &seed.to_string(), &states.to_string()]);
        command.current_dir(self.program()).env("RUSTFLAGS", "--cfg fuzzing --cap-lints warn");
        command.env("CARGO_TARGET_DIR", root().join("target/mutations"));
        let output = command.output().unwrap();
        let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("crash_states="), "it wasn't built, or didn't run:\n{errors}\n{told}");
        let first = told.lines().find(|line| line.starts_with("TIDELOG_SEED="));
        match output.status.code() {
            Some(0) => assert_eq!(first, None, "a violation that nobody heard of"),
            Some(1) => assert!(first.is_some() && told.contains("\nsmaller: "), "what was violated?\n{errors}\n{told}"),
            code => panic!("the simulation ended with {code:?}:\n{errors}\n{told}"),
        }
        first.map(str::to_owned)
    }
}

/// The crate's manifest without its tests, examples and benchmarks, which aren't copied.
fn manifest_of_library() -> String {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut kept = String::new();
    let mut is_left_out = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_left_out = ["[[test]]", "[[example]]", "[[bench]]"].contains(&line);
        }
        if !is_left_out {
            kept += &format!("{line}\n");
        }
    }
    kept
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

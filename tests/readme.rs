//! The README's claims: what it links to is there, and the test that a claim names exists.
//!
//! A claim is a link into `tests/` or `src/` whose title is the name of the test: `[yes](tests/damage.rs "name")`.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

/// Path and title of every link of the README that leads into the project.
fn links(text: &str) -> Vec<(&str, Option<&str>)> {
    let inside_code = |at: usize| text[..at].matches("```").count() % 2 == 1;
    let targets = text.match_indices("](").filter(|&(at, _)| !inside_code(at)).map(|(at, _)| &text[at + 2..]);
    targets
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| match target.split_once(" \"") {
            Some((path, title)) => (path, Some(title.trim_end_matches('"'))),
            None => (target, None),
        })
        .filter(|(path, _)| !path.contains("://") && !path.starts_with('#'))
        .collect()
}

#[test]
fn every_claim_names_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let mut wrong = Vec::new();
    for (path, title) in links(&readme) {
        let Ok(text) = fs::read_to_string(root.join(path)) else {
            if !root.join(path).is_dir() {
                wrong.push(format!("{path} isn't there"));
            }
            continue;
        };
        let is_test = path.starts_with("tests/") || path.starts_with("src/") && path.ends_with(".rs");
        match title {
            Some(test) if !text.contains(&format!("fn {test}(")) => wrong.push(format!("{path} has no test {test}")),
            None if is_test => wrong.push(format!("{path} is linked without the name of a test")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn links_are_found_with_their_titles() {
    let text = "a [b](tests/x.rs \"y\") [c](LICENSE-MIT), [d](https://e.f)\n```\n[g](h)\n```\n[i](#j)";
    assert_eq!(links(text), [("tests/x.rs", Some("y")), ("LICENSE-MIT", None)]);
}

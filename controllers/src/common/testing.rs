//! Golden tests: folders of small text files, each an input and what must come of it.
//!
//! A file is `input`, a line `=====`, and the expected output. `UPDATE_GOLDEN=1` rewrites the
//! expected halves; the diff is then reviewed like any other change.

use std::path::Path;

use serde::de::DeserializeOwned;

const SEPARATOR: &str = "\n=====\n";

/// Runs every file of `golden/FOLDER` through `run`.
pub fn golden(folder: &str, run: impl Fn(&str) -> String) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no case in {}", dir.display());
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (input, expected) = text.split_once(SEPARATOR).unwrap_or((text.trim_end(), ""));
        let actual = run(input);
        if actual.trim_end() == expected.trim_end() {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let text = format!("{input}{SEPARATOR}{}\n", actual.trim_end());
            std::fs::write(&file, text).unwrap();
        } else {
            wrong.push(format!("{}:\n{actual}", file.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "golden files differ:\n{}",
        wrong.join("\n")
    );
}

/// The YAML documents of a golden input whose `kind` is the one asked for.
pub fn objects<K: DeserializeOwned>(input: &str, kind: &str) -> Vec<K> {
    let is_kind = |text: &&str| {
        text.lines()
            .any(|line| line.trim() == format!("kind: {kind}"))
    };
    input
        .split("\n---\n")
        .filter(is_kind)
        .map(|text| {
            serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error} in:\n{text}"))
        })
        .collect()
}

/// The instant after a `now:` comment, as `# now: 2026-01-01T00:00:00Z`.
pub fn now(input: &str) -> jiff::Timestamp {
    let line = input.lines().find_map(|line| line.strip_prefix("# now: "));
    line.expect("a golden input begins with `# now: TIME`")
        .trim()
        .parse()
        .expect("a time as 2026-01-01T00:00:00Z")
}

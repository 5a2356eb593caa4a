//! Transcripts: one speaker, peers that a script plays, virtual time. A file holds the script and
//! what came of it; `UPDATE_GOLDEN=1` writes that anew. The language is in [`script`].

mod script;

use std::path::Path;

/// Plays the script of a file and compares what comes of it with the file.
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(name);
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let played = script::play(&golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, played).unwrap();
    } else if played != golden {
        let differs = played
            .lines()
            .zip(golden.lines())
            .find(|(now, then)| now != then);
        let (now, then) = differs.unwrap_or(("(more or fewer lines)", ""));
        panic!("{name}: played:\n  {now}\nthe file has:\n  {then}\n\n{played}");
    }
}

macro_rules! transcripts {
    ($($name:ident),+ $(,)?) => {$(
        #[test]
        fn $name() {
            check(concat!(stringify!($name), ".txt"));
        }
    )+

        /// No file is forgotten.
        #[test]
        fn every_file_is_played() {
            let known = [$(concat!(stringify!($name), ".txt")),+];
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
            for entry in std::fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(known.contains(&name.as_str()), "{name} is not in the list");
            }
        }
    };
}

transcripts!(
    session_up_and_down,
    open_refused,
    unexpected_messages,
    timers,
    collision,
    late_answer,
    idle_backoff,
    best_path,
    multipath,
    policy,
    graceful_restart_helper,
    graceful_restart_notification,
    graceful_restart_restarting,
    long_lived,
    max_prefixes,
    route_refresh,
    reflection,
    add_path,
    export_rules,
    loops_and_leaks,
    malformed_update,
    unnumbered,
    dynamic_neighbors,
    reconfigure,
    next_hops,
    shutdown,
    advertisement_interval,
    require_policy,
    link_back,
    local_as,
);

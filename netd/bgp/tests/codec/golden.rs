//! Golden tests of the codec: each file in `tests/codec/golden` has a message in hexadecimal and, below
//! a line of dashes, what it means.
//!
//! ```text
//! # Comments say what it is.
//! session internal two-octet ipv4-unicast ipv6-unicast
//! ffffffffffffffffffffffffffffffff 0013 04   # so do these
//! ----
//! KEEPALIVE
//! ```
//!
//! `peers` holds what other speakers sent, octet by octet; the others are made to show one thing each.
//!
//! Words of the session: `external` (the default) or `internal`; `as N` (65001), `two-octet`
//! (four), `extended-message`, `any-first-as`; families (both unicast ones), each with `+add-path`
//! or `+ipv6-next-hop`. `BLESS=1 cargo test` writes what is read now into the files, and the
//! corpus of the fuzz targets from them; look at the difference before committing it.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use peapod_bgp::types::{Family, Message, Notification};
use peapod_bgp::wire::{self, FamilySession, Session};

use crate::bodies;

#[test]
fn every_message_is_read_as_its_file_says() {
    let mut wrong = Vec::new();
    let paths = files();
    assert!(paths.len() > 60, "only {} files", paths.len());
    for path in paths {
        let case = Case::read(&path);
        let shown = shown(&case.decode());
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, format!("{}{RULE}{shown}\n", case.input)).expect("the file is ours");
            fs::write(case.corpus(), case.seed()).expect("the file is ours");
        } else if shown != case.expected.trim_end() {
            wrong.push(format!(
                "{}\nis read as\n{shown}\nnot as\n{}",
                case.name, case.expected
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_read_is_written_as_the_same() {
    for path in files() {
        let case = Case::read(&path);
        let Ok(message) = case.decode() else { continue };
        let mut written = BytesMut::new();
        wire::encode(&message, &case.session, &mut written).expect(&case.name);
        let again = bodies::read_all(&mut written, &case.session);
        match (&message, &*again) {
            (Message::Update(update), again) => {
                let mut routes = [bodies::Routes::default(), bodies::Routes::default()];
                routes[0].add(update);
                for one in again {
                    let Message::Update(update) = one else {
                        panic!("{}: {one}", case.name)
                    };
                    routes[1].add(update);
                }
                assert_eq!(routes[0], routes[1], "{}", case.name);
            }
            (message, again) => assert_eq!(again, std::slice::from_ref(message), "{}", case.name),
        }
    }
}

#[test]
fn the_corpus_of_the_fuzz_targets_is_that_of_the_files() {
    for path in files() {
        let case = Case::read(&path);
        let seed = fs::read(case.corpus()).unwrap_or_default();
        assert!(
            seed == case.seed(),
            "{}: BLESS=1 cargo test makes its seed",
            case.name
        );
    }
}

const RULE: &str = "----\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/codec/golden")
}

/// All files, in order of their names.
fn files() -> Vec<PathBuf> {
    let list = |folder: PathBuf| {
        let entries = fs::read_dir(folder).expect("the folder is in the tree");
        entries.map(|entry| entry.expect("an entry").path())
    };
    let mut files: Vec<PathBuf> = list(folder()).flat_map(list).collect();
    files.sort();
    files
}

struct Case {
    /// Folder and file, without the ending.
    name: String,
    /// Everything above the line of dashes.
    input: String,
    session: Session,
    octets: Bytes,
    expected: String,
}

impl Case {
    fn read(path: &Path) -> Case {
        let relative = path.strip_prefix(folder()).expect("a file of the folder");
        let name = relative.with_extension("").display().to_string();
        let text = fs::read_to_string(path).expect("a text file");
        let (input, expected) = text.split_once(RULE).unwrap_or((&text, ""));
        let mut session = read_session("");
        let mut digits = String::new();
        for line in input.lines() {
            let line = line.split('#').next().unwrap_or_default();
            match line.strip_prefix("session ") {
                Some(words) => session = read_session(words),
                None => digits.extend(line.split_whitespace()),
            }
        }
        let octets = (0..digits.len()).step_by(2).map(|at| {
            u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_else(|error| {
                panic!("{name}: octet {}: {error}", at / 2);
            })
        });
        Case {
            octets: octets.collect::<Vec<u8>>().into(),
            name,
            input: input.to_string(),
            session,
            expected: expected.to_string(),
        }
    }

    fn decode(&self) -> Result<Message, Notification> {
        wire::decode(&self.octets, &self.session)
    }

    /// As the fuzz targets take it: an octet that chooses a session like this one goes first.
    fn seed(&self) -> Vec<u8> {
        let family = |family| self.session.family(family);
        let v4 = family(Family::IPV4_UNICAST);
        let bits = [
            self.session.external,
            self.session.four_octet_as,
            self.session.extended_message,
            family(Family::IPV6_UNICAST).is_some(),
            v4.is_some_and(|one| one.add_path_receive),
            v4.is_some_and(|one| one.extended_next_hop),
            self.session.enforce_first_as,
        ];
        let bits = bits
            .iter()
            .rev()
            .fold(0, |bits, bit| bits << 1 | u8::from(*bit));
        [&[bits], &self.octets[..]].concat()
    }

    fn corpus(&self) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/message");
        folder.join(self.name.replace('/', "-"))
    }
}

fn shown(outcome: &Result<Message, Notification>) -> String {
    match outcome {
        Ok(message) => message.to_string(),
        Err(answer) => format!("answered with {}", Message::Notification(answer.clone())),
    }
}

fn read_session(words: &str) -> Session {
    let mut session = Session {
        peer_as: 65001,
        enforce_first_as: true,
        four_octet_as: true,
        families: Vec::new(),
        ..Session::before_open()
    };
    let mut words = words.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "external" => {}
            "internal" => {
                session.external = false;
                session.enforce_first_as = false;
            }
            "as" => session.peer_as = words.next().and_then(|n| n.parse().ok()).expect("a number"),
            "two-octet" => session.four_octet_as = false,
            "extended-message" => session.extended_message = true,
            "any-first-as" => session.enforce_first_as = false,
            family => session.families.push(read_family(family)),
        }
    }
    if session.families.is_empty() {
        session.families = Family::SUPPORTED.map(FamilySession::plain).to_vec();
    }
    session
}

fn read_family(text: &str) -> FamilySession {
    let mut parts = text.split('+');
    let mut family = FamilySession::plain(match parts.next() {
        Some("ipv4-unicast") => Family::IPV4_UNICAST,
        Some("ipv6-unicast") => Family::IPV6_UNICAST,
        other => panic!("{other:?} is no word of a session"),
    });
    for part in parts {
        match part {
            "add-path" => (family.add_path_receive, family.add_path_send) = (true, true),
            "ipv6-next-hop" => family.extended_next_hop = true,
            other => panic!("{other:?} is nothing a family has"),
        }
    }
    family
}

//! Golden scripts: each file in `tests/golden` is what happens to a session and, indented below
//! each line, what it does. `BLESS=1 cargo test` writes what it does now into the files.
//!
//! ```text
//! session tx 100ms rx 100ms multiplier 3   first: the settings; also `independent`, `passive`
//! chance low                               how much of an interval chance leaves: `low` three
//!                                          quarters, `high` (the default) all of it
//! until 2s                                 time passes; what is due is done
//! hear Down to 0 tx 1s rx 100ms            a packet from discriminator 2, now; also `multiplier N`
//!                                          (3), `poll`, `final`, `independent`, `demand`, `ttl N`
//! admin down, admin up, path down          what the operator and the link do
//! set tx 500ms                             new settings, the others stay
//! ```

use std::fmt::Write as _;
use std::fs;
use std::num::{NonZeroU8, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use peapod_bfd::{Config, Diagnostic, Outcome, Packet, Received, Session, State, TTL};

#[test]
fn every_session_does_as_its_file_says() {
    let paths = files();
    assert!(paths.len() >= 12, "only {} files", paths.len());
    for path in paths {
        let expected = fs::read_to_string(&path).expect("a text file");
        let script = expected.lines().filter(|line| !line.starts_with("  "));
        let mut run = Run::new();
        script.for_each(|line| run.line(line));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, run.text).expect("the file is ours");
        } else {
            assert_eq!(run.text, expected, "{}", path.display());
        }
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(folder).expect("the folder is in the tree");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

struct Run {
    config: Config,
    session: Session,
    now: Duration,
    random: u32,
    text: String,
}

impl Run {
    fn new() -> Run {
        let config = Config::new(NonZeroU32::MIN);
        let session = Session::new(config);
        Run {
            config,
            session,
            now: Duration::ZERO,
            random: u32::MAX,
            text: String::new(),
        }
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{line}");
        let line = line.split('#').next().unwrap_or_default().trim();
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "" => {}
            "session" => {
                configure(&mut self.config, rest);
                self.session = Session::new(self.config);
            }
            "set" => {
                configure(&mut self.config, rest);
                self.session.reconfigure(self.config);
            }
            "chance" => self.random = if rest == "low" { 0 } else { u32::MAX },
            "until" => self.until(duration(rest)),
            "hear" => {
                let outcome = self.session.receive(&packet(rest), self.now, self.random);
                self.show(&outcome);
            }
            "admin" => {
                let down = rest == "down";
                let outcome = self.session.set_admin_down(down, self.now, self.random);
                self.show(&outcome);
            }
            "path" => {
                let outcome = self.session.path_down(self.now, self.random);
                self.show(&outcome);
            }
            other => panic!("{other:?} is no command"),
        }
    }

    fn until(&mut self, end: Duration) {
        while let Some(at) = self.session.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let outcome = self.session.tick(self.now, self.random);
            assert_ne!(
                self.session.deadline(),
                Some(at),
                "what was due at {at:?} is still due"
            );
            self.show(&outcome);
        }
        self.now = end;
    }

    fn show(&mut self, outcome: &Outcome) {
        let mut line = |text: String| {
            let _ = writeln!(self.text, "  {:>9.3}s  {text}", self.now.as_secs_f64());
        };
        if let Some(change) = outcome.change {
            let why = match change.diagnostic {
                Diagnostic::None => String::new(),
                diagnostic => format!(", {diagnostic}"),
            };
            let failure = if change.is_failure() {
                ", a failure"
            } else {
                ""
            };
            let independent = match change.remote_control_plane_independent {
                true => ", the neighbour is independent of its control plane",
                false => "",
            };
            line(format!(
                "{} -> {}{why}{failure}{independent}",
                change.from, change.to
            ));
        }
        if let Some(packet) = outcome.send {
            line(format!("send {}", shown(&packet)));
        }
        if let Some(discarded) = outcome.discarded {
            line(format!("dropped: {discarded}"));
        }
    }
}

fn shown(packet: &Packet) -> String {
    let flag = |set, name| if set { name } else { "" };
    format!(
        "{} to {} tx {}ms rx {}ms multiplier {}{}{}{}",
        packet.state,
        packet.your_discriminator.map_or(0, NonZeroU32::get),
        packet.desired_min_tx / 1000,
        packet.required_min_rx / 1000,
        packet.detect_multiplier,
        flag(packet.poll, " poll"),
        flag(packet.final_, " final"),
        flag(packet.control_plane_independent, " independent"),
    )
}

fn configure(config: &mut Config, text: &str) {
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word {
            "tx" => config.desired_min_tx = duration(value()),
            "rx" => config.required_min_rx = duration(value()),
            "multiplier" => {
                let multiplier = value().parse().expect("a number");
                config.detect_multiplier = NonZeroU8::new(multiplier).expect("not zero");
            }
            "independent" => config.control_plane_independent = true,
            "passive" => config.passive = true,
            other => panic!("{other:?} is no setting"),
        }
    }
}

fn packet(text: &str) -> Received {
    let mut words = text.split_whitespace();
    let state = match words.next() {
        Some("AdminDown") => State::AdminDown,
        Some("Down") => State::Down,
        Some("Init") => State::Init,
        Some("Up") => State::Up,
        other => panic!("{other:?} is no state"),
    };
    let mut packet = Packet {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: 3,
        my_discriminator: const { NonZeroU32::new(2).unwrap() },
        your_discriminator: NonZeroU32::new(1),
        desired_min_tx: 100_000,
        required_min_rx: 100_000,
        required_min_echo_rx: 0,
    };
    let mut ttl = TTL;
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word {
            "to" => packet.your_discriminator = NonZeroU32::new(value().parse().expect("a number")),
            "tx" => packet.desired_min_tx = duration(value()).as_micros() as u32,
            "rx" => packet.required_min_rx = duration(value()).as_micros() as u32,
            "multiplier" => packet.detect_multiplier = value().parse().expect("a number"),
            "ttl" => ttl = value().parse().expect("a number"),
            "poll" => packet.poll = true,
            "final" => packet.final_ = true,
            "independent" => packet.control_plane_independent = true,
            "demand" => packet.demand = true,
            other => panic!("{other:?} is nothing a packet has"),
        }
    }
    // Through the wire form, as a real one.
    let packet = Packet::decode(&packet.encode()).expect("a packet as it should be");
    Received { packet, ttl }
}

/// A number with `ms` or `s` behind it.
fn duration(text: &str) -> Duration {
    let number = |text: &str| text.parse::<f64>().expect("a number") / 1000.0;
    let seconds = match text.strip_suffix("ms") {
        Some(millis) => number(millis),
        None => number(text.strip_suffix('s').expect("ms or s")) * 1000.0,
    };
    Duration::from_micros((seconds * 1e6).round() as u64)
}

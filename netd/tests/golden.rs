//! Text in, text out: `tests/golden/services` and `tests/golden/dns`.
//!
//! A file is a run of sections. `## apply` holds objects of the API, `## delete` their names;
//! `## changes` is what must change in the service map after them, `## ask` holds questions
//! (`? name TYPE`; with a star, before the zone is complete), each with its answer below. `GOLDEN=write` writes what came out instead of
//! comparing, to be read before it is committed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use hickory_proto::rr::{Name, Record};
use peapod_api::attach::Protocol;
use peapod_netd::core::facts::{ServiceFacts, ServiceKey, SliceFacts};
use peapod_netd::core::services::{Change, Dispatch, Frontend, ServiceTable};
use peapod_netd::core::zone::{Answer, Zone};

struct World {
    table: ServiceTable,
    zone: Zone,
}

#[test]
fn services() {
    run("services");
}

#[test]
fn dns() {
    run("dns");
}

fn run(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let wanted = fs::read_to_string(&path).unwrap();
        let got = play(&wanted);
        if std::env::var_os("GOLDEN").is_some_and(|mode| mode == "write") {
            fs::write(&path, &got).unwrap();
            continue;
        }
        assert_eq!(got, wanted, "{}", path.display());
    }
}

/// Plays a file's sections; returns the file with what came out.
fn play(text: &str) -> String {
    let ip = |text: &str| text.parse().unwrap();
    let dns = ["10.96.0.10", "fd00:10:96::a"].map(ip);
    let cidrs = ["10.96.0.0/16", "10.244.0.0/16", "fd00:10:244::/56"];
    let cidrs = cidrs.map(|cidr| cidr.parse().unwrap()).to_vec();
    let origin = Name::from_ascii("cluster.local").unwrap();
    let mut world = World {
        table: ServiceTable::new("here", &dns, BTreeMap::new()),
        zone: Zone::new(origin, 30, dns.to_vec(), cidrs),
    };
    let mut sections = text.split("\n## ");
    let mut played = sections.next().unwrap().to_owned();
    for section in sections {
        let (title, body) = section.split_once('\n').unwrap();
        let body = match title {
            "apply" => body
                .split("\n---\n")
                .map(|o| world.apply(o))
                .fold(body.to_owned(), |b, ()| b),
            "delete" => body
                .lines()
                .map(|l| world.delete(l))
                .fold(body.to_owned(), |b, ()| b),
            "changes" => world.changes(),
            "ask" => world.ask(body),
            other => panic!("no section is called {other}"),
        };
        write!(played, "\n## {title}\n{}", body.trim_end_matches('\n')).unwrap();
        played.push('\n');
    }
    played
}

impl World {
    fn apply(&mut self, yaml: &str) {
        let kind: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
        if kind["kind"] == "Service" {
            let (key, facts) = ServiceFacts::of(&serde_json::from_value(kind).unwrap()).unwrap();
            let facts = Some(Arc::new(facts));
            self.zone.set_service(&key, facts.clone());
            self.table.set_service(key, facts);
        } else {
            let (name, facts) = SliceFacts::of(&serde_json::from_value(kind).unwrap()).unwrap();
            let namespace = facts.service.namespace.clone();
            let facts = Some(Arc::new(facts));
            self.zone.set_slice(&namespace, &name, facts.clone());
            self.table.set_slice(&namespace, &name, facts);
        }
    }

    fn delete(&mut self, line: &str) {
        let Some((kind, name)) = line.split_once(' ') else {
            return;
        };
        let (namespace, name) = name.split_once('/').unwrap();
        if kind == "Service" {
            let key = ServiceKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            self.zone.set_service(&key, None);
            self.table.set_service(key, None);
        } else {
            self.zone.set_slice(namespace, name, None);
            self.table.set_slice(namespace, name, None);
        }
    }

    fn changes(&mut self) -> String {
        self.table
            .plan()
            .iter()
            .map(|change| format!("{}\n", show(change)))
            .collect()
    }

    fn ask(&mut self, body: &str) -> String {
        let mut answered = String::new();
        for question in body.lines().filter_map(|line| line.strip_prefix("? ")) {
            // A star asks before the zone is complete.
            let (name, kind) = question.split_once(' ').unwrap();
            if !kind.ends_with('*') {
                self.zone.complete();
            }
            let kind = kind.trim_end_matches('*').parse().unwrap();
            let name = Name::from_ascii(format!("{name}.")).unwrap();
            let answer = self.zone.answer(&name, kind);
            writeln!(answered, "? {question}\n{}", show_answer(&answer)).unwrap();
        }
        answered
    }
}

fn show(change: &Change) -> String {
    let sign = match (&change.from, &change.to) {
        (None, _) => '+',
        (_, None) => '-',
        _ => '~',
    };
    let protocol = match change.frontend.protocol() {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    let address = match change.frontend {
        Frontend::Address { ip, .. } => ip.to_string(),
        Frontend::NodePort { v4: true, .. } => "node".to_owned(),
        Frontend::NodePort { v4: false, .. } => "node6".to_owned(),
    };
    let port = change.frontend.port();
    let to = change.to.as_ref().map_or_else(String::new, show_dispatch);
    format!("{sign} {address} {protocol} {port}{to}")
}

fn show_dispatch(dispatch: &Dispatch) -> String {
    let balance = match dispatch {
        Dispatch::Balance(balance) => balance,
        Dispatch::Refuse => return " refuse".to_owned(),
        Dispatch::Drop => return " drop".to_owned(),
        Dispatch::Here => return " here".to_owned(),
    };
    let mut text = String::from(" ->");
    balance
        .endpoints
        .iter()
        .for_each(|e| write!(text, " {e}").unwrap());
    if let Some(outside) = &balance.outside {
        text += "; from outside ->";
        outside.iter().for_each(|e| write!(text, " {e}").unwrap());
    }
    if let Some(seconds) = balance.affinity_s {
        write!(text, "; clients stay {seconds} s").unwrap();
    }
    text
}

fn show_answer(answer: &Answer) -> String {
    let show_records = |title: &str, records: &[Record]| -> String {
        records
            .iter()
            .map(|record| format!("{title}{record}\n"))
            .collect()
    };
    match answer {
        Answer::Records {
            answers,
            additionals,
        } => show_records("  ", answers) + &show_records("  and ", additionals),
        Answer::Alias { record, .. } => format!("  {record}\n"),
        Answer::NoData => "  no data\n".into(),
        Answer::NoName => "  no such name\n".into(),
        Answer::NotReady => "  not ready\n".into(),
        Answer::NotOurs => "  not ours\n".into(),
    }
}

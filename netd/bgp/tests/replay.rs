//! A run that was recorded is had again from its record: the same outputs, the same tables.

use peapod_bgp::sim::{Net, config, wanted_table};
use peapod_bgp::speaker::{Beginning, Recorded};
use peapod_bgp::{Chance, Speaker};

/// Two spines and three leaves, with flaps of links, all of it recorded.
fn recorded(seed: u64) -> Net {
    let mut net = Net::new();
    net.record();
    let spines = [0, 1].map(|n| net.add(&format!("spine{n}"), config(65_000 + n, 100 + n)));
    let mut links = Vec::new();
    for n in 0..3 {
        let leaf = net.add(&format!("leaf{n}"), config(65_100 + n, 200 + n));
        net.announce(leaf, &format!("10.244.{n}.0/24"));
        links.extend(spines.map(|spine| net.link(spine, leaf)));
    }
    net.run_until(20_000, "the fabric converges", Net::quiet);
    let mut chance = Chance::new(seed);
    for _ in 0..60 {
        let link = links[usize::try_from(chance.number() % 6).unwrap()];
        net.set_link(link, chance.number().is_multiple_of(2));
        net.run(chance.number() % 3_000);
    }
    net
}

/// The speaker of a record after some of its inputs, and what it said.
fn replayed<'a>(
    beginning: &Beginning,
    inputs: impl IntoIterator<Item = &'a Recorded>,
) -> (Speaker, Vec<String>) {
    let mut speaker = written_and_read(beginning).speaker();
    let mut outputs = Vec::new();
    for recorded in inputs {
        let Recorded { at, input } = written_and_read(recorded);
        speaker.handle(input, at);
        outputs.extend(speaker.take_outputs().map(|output| format!("{output:?}")));
        speaker.take_changes(usize::MAX);
    }
    (speaker, outputs)
}

fn written_and_read<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
fn what_was_recorded_happens_again() {
    let net = recorded(11);
    let wanted = net.wanted_tables();
    for node in &net.nodes {
        let record = node.record.as_ref().unwrap();
        let (speaker, outputs) = replayed(&record.beginning, &record.inputs);
        assert!(outputs.len() > 40, "{}: hardly anything", node.name);
        for (at, (before, again)) in record.said.iter().zip(&outputs).enumerate() {
            assert_eq!(before, again, "{}: output {at}", node.name);
        }
        assert_eq!(record.said.len(), outputs.len(), "{}", node.name);
        assert_eq!(wanted_table(&speaker), wanted[&node.name], "{}", node.name);
    }
}

/// The comparison above can tell: with a part of the record missing, something else happens.
#[test]
fn another_input_is_noticed() {
    let net = recorded(12);
    let record = net.nodes[0].record.as_ref().unwrap();
    let middle = record.inputs.len() / 2;
    let some = record.inputs[..middle]
        .iter()
        .chain(&record.inputs[middle + 10..]);
    let (_, outputs) = replayed(&record.beginning, some);
    assert_ne!(outputs, record.said);
}

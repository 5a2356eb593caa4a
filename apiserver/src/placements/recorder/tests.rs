//! Scripts of events, each with the placements that come out below it.

use super::*;

/// Plays a script: a line is an event, at its own second; what comes out is written below it.
///
/// `pod UID NAME WORKLOAD NODE ADDRESS [end]`, `gone UID NAME WORKLOAD NODE [end]`,
/// `node NAME BOOT [cordoned] [notready]`, `leaves NODE [NAME..]`, `present [UID..]`, `tick`.
fn play(script: &str) -> String {
    let mut recorder = Recorder::default();
    let mut out = String::new();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let mut words = line.split_whitespace();
        let second: i64 = words.next().unwrap().parse().unwrap();
        let at = Timestamp::from_second(second).unwrap();
        let words: Vec<&str> = words.collect();
        out.push_str(&format!("{line}\n"));
        if words[0] == "restart" {
            let (open, last) = (recorder.open.clone().into_values(), recorder.last_id);
            recorder = Recorder::restore(open, last);
            continue;
        }
        if words[0] == "caught-up" {
            recorder.caught_up();
            continue;
        }
        for kept in recorder.take(event(&words), at) {
            out.push_str(&format!("    {}\n", shown(&kept)));
        }
    }
    out
}

fn event(words: &[&str]) -> Event {
    let deleting = |disruption, ended| Some(End::Deleting { disruption, ended });
    let end = |word: Option<&&str>| match word {
        Some(&"evicted") => deleting(Disruption::Eviction, false),
        Some(&"preempted") => deleting(Disruption::Preemption, false),
        Some(&"tainted") => deleting(Disruption::Taint, false),
        Some(&"deleting") => deleting(Disruption::None, false),
        Some(&"ended") => deleting(Disruption::None, true),
        Some(&"done") => Some(End::Completed),
        _ => None,
    };
    let pod = |addresses: &str, end| PodFacts {
        uid: words[1].into(),
        namespace: "default".into(),
        name: words[2].into(),
        workload: words[3].split('@').next().unwrap().into(),
        controller: words[3].into(),
        node: if words[4] == "-" { "" } else { words[4] }.into(),
        addresses: addresses
            .split(',')
            .filter(|a| *a != "-")
            .map(str::to_owned)
            .collect(),
        scheduled: None,
        end,
    };
    match words[0] {
        "pod" => Event::Pod(pod(words[5], end(words.get(6)))),
        "gone" => Event::PodGone(pod("-", end(words.get(5)))),
        "node" => Event::Node(NodeFacts {
            name: words[1].into(),
            rack: Some("r1".into()),
            boot: words[2].into(),
            cordoned: words.contains(&"cordoned"),
            ready: !words.contains(&"notready"),
        }),
        "leaves" => Event::Leaves(
            words[1].into(),
            words[2..]
                .iter()
                .map(|name| PlacementLeaf {
                    name: (*name).into(),
                    interface: None,
                })
                .collect(),
        ),
        "present" => Event::Present(words[1..].iter().map(|uid| (*uid).into()).collect()),
        "tick" => Event::Tick,
        other => panic!("{other} is no event"),
    }
}

fn shown(kept: &Kept) -> String {
    let spec = &kept.spec;
    let second = |text: &str| text.parse::<Timestamp>().unwrap().as_second();
    let leaves: Vec<_> = spec.leaves.iter().map(|leaf| leaf.name.as_str()).collect();
    let mut text = format!(
        "#{} {} on {} [{}] via [{}] {}..{} {}",
        kept.id,
        spec.pod_name,
        spec.node,
        spec.addresses.join(","),
        leaves.join(","),
        second(&spec.from),
        spec.to
            .as_deref()
            .map_or(String::new(), |to| second(to).to_string()),
        spec.reason.word(),
    );
    if let (Some(after), Some(replaces)) = (spec.after, &spec.replaces) {
        text.push_str(&format!(" after {} of {replaces}", after.word()));
    }
    if let Some(end) = spec.end_reason {
        text.push_str(&format!(", left: {}", end.word()));
    }
    if let Some(message) = &spec.message {
        text.push_str(&format!(" ({message})"));
    }
    text
}

macro_rules! plays {
    ($name:ident) => {
        #[test]
        fn $name() {
            let case = concat!("src/placements/golden/", stringify!($name), ".txt");
            let text = std::fs::read_to_string(case).unwrap();
            let script: String = text
                .lines()
                .filter(|line| !line.starts_with("    "))
                .map(|line| format!("{line}\n"))
                .collect();
            let played = play(&script);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(case, &played).unwrap();
            }
            assert_eq!(played, text, "UPDATE_GOLDEN=1 rewrites it");
        }
    };
}

plays!(replacements);
plays!(nodes);
plays!(addresses_and_leaves);
plays!(restarts);

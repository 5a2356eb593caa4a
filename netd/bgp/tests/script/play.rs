//! A speaker on stage, and the peers that the script plays.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use peapod_bgp::fsm::ConnectionId;
use peapod_bgp::rib::PeerId;
use peapod_bgp::speaker::{Endpoint, Input, Notice, Output, Scope};
use peapod_bgp::types::{
    Message, Notification, NotificationError, Open, RefreshSubtype, RouteRefresh,
};
use peapod_bgp::wire::{self, Session};
use peapod_bgp::{Config, Speaker, Time};

use super::describe;
use super::message::{self, Words, family};

/// The speaker, the ends of its connections that the script holds, and what was said.
pub struct Stage {
    speaker: Speaker,
    now: Time,
    ends: BTreeMap<String, End>,
    wanted: BTreeMap<String, PeerId>,
    /// Attempts that the speaker gave up.
    given_up: BTreeMap<String, PeerId>,
    connections: u64,
    text: String,
}

/// The far end of a connection.
struct End {
    connection: ConnectionId,
    buffer: BytesMut,
    /// What the speaker said of itself.
    theirs: Option<Open>,
    /// What the script said.
    ours: Option<Open>,
}

impl End {
    /// What the two agreed on, as seen from the script's side.
    fn session(&self) -> Session {
        match (&self.ours, &self.theirs) {
            (Some(ours), Some(theirs)) => Session::negotiate(ours, theirs),
            _ => Session::before_open(),
        }
    }
}

impl Stage {
    pub fn new(config: Config) -> Self {
        config
            .check()
            .unwrap_or_else(|fault| panic!("config: {fault}"));
        Stage {
            speaker: Speaker::new(config, 7, Time(0)),
            now: Time(0),
            ends: BTreeMap::new(),
            wanted: BTreeMap::new(),
            given_up: BTreeMap::new(),
            connections: 0,
            text: String::new(),
        }
    }

    pub fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    fn say(&mut self, line: &str) {
        let _ = writeln!(self.text, "    {} {line}", self.now);
    }

    /// Plays one line.
    pub fn command(&mut self, line: &str, given: &str) {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "wait" => self.wait(rest),
            "show" => self.show(rest),
            "bfd" => {
                let peer = self.peer(rest.trim_end_matches(" down"));
                self.input(Input::BfdDown { peer });
            }
            "link" => {
                let (interface, state) = rest.split_once(' ').expect("link IFACE up");
                let interface = interface.to_owned();
                self.input(Input::Link {
                    interface,
                    up: state == "up",
                });
            }
            "next-hop" => {
                let (address, metric) = rest.split_once(' ').expect("next-hop ADDRESS ...");
                let address = address.parse().expect("an address");
                let metric = metric
                    .strip_prefix("metric ")
                    .map(|text| text.parse().expect("metric"));
                self.input(Input::NextHop { address, metric });
            }
            "announce" => {
                let words = Words::new(rest);
                let attributes = message::attributes(&words).into();
                let prefixes = words
                    .plain()
                    .map(|word| word.parse().expect("a prefix"))
                    .collect();
                self.input(Input::Announce {
                    prefixes,
                    attributes,
                });
            }
            "withdraw" => {
                let prefixes = rest
                    .split(' ')
                    .map(|word| word.parse().expect("prefix"))
                    .collect();
                self.input(Input::Withdraw { prefixes });
            }
            "enable" | "disable" | "reset" => {
                let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let (peer, message) = (self.peer(name), text.to_owned());
                self.input(match first {
                    "enable" => Input::Enable { peer },
                    "disable" => Input::Disable { peer, message },
                    _ => Input::Reset { peer, message },
                });
            }
            "shutdown" => self.input(Input::Shutdown {
                message: rest.to_owned(),
            }),
            "leave" => self.input(Input::Leave),
            "configure" => {
                let config: Config = serde_saphyr::from_str(given).expect("a configuration");
                self.input(Input::Configure(Box::new(config)));
            }
            peer => self.peer_does(peer, rest),
        }
    }

    fn peer_does(&mut self, name: &str, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = Words::new(rest);
        match verb {
            "answers" => {
                if rest == "late"
                    && let Some(peer) = self.given_up.remove(name)
                {
                    self.wanted.insert(name.to_owned(), peer);
                }
                self.answers(name);
            }
            "refuses" => {
                let peer = self
                    .wanted
                    .remove(name)
                    .expect("no connection was asked for");
                self.input(Input::ConnectFailed { peer });
            }
            "calls" => self.calls(name, rest.strip_prefix("on ")),
            "up" => {
                match self.wanted.contains_key(name) {
                    true => self.answers(name),
                    false => self.calls(name, None),
                }
                self.settle();
                self.open(name, &words);
                self.settle();
                self.send(name, &Message::Keepalive);
            }
            "open" => self.open(name, &words),
            "keepalive" => self.send(name, &Message::Keepalive),
            "update" => {
                let update = message::update(&words, &self.end(name).session());
                self.send(name, &update);
            }
            "withdraw" => {
                let update = message::withdraw(&words, &self.end(name).session());
                self.send(name, &update);
            }
            "eor" => {
                let mut bytes = BytesMut::new();
                wire::end_of_rib(family(rest), &mut bytes);
                self.deliver(name, bytes.freeze());
            }
            "refresh" => {
                let (name_of, kind) = rest.split_once(' ').unwrap_or((rest, ""));
                let subtype = match kind {
                    "begin" => RefreshSubtype::Begin,
                    "end" => RefreshSubtype::End,
                    _ => RefreshSubtype::Request,
                };
                let refresh = RouteRefresh {
                    family: family(name_of),
                    subtype,
                };
                self.send(name, &Message::RouteRefresh(refresh));
            }
            "notify" => {
                let codes: Vec<u8> = rest
                    .split(' ')
                    .map(|word| word.parse().expect("code"))
                    .collect();
                let error = NotificationError::from_codes(codes[0], codes[1]);
                self.send(name, &Message::Notification(Notification::new(error)));
            }
            "raw" => {
                let hex: String = rest.split_whitespace().collect();
                let octets =
                    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16));
                let bytes: Vec<u8> = octets.map(|octet| octet.expect("hex")).collect();
                self.deliver(name, bytes.into());
            }
            "closes" => {
                let connection = self.ends.remove(name).expect("no connection").connection;
                self.input(Input::Closed { connection });
            }
            "is" => {
                let address = rest
                    .strip_prefix("at ")
                    .map(|text| text.parse().expect("address"));
                let peer = self.peer(name);
                self.input(Input::Located { peer, address });
            }
            other => panic!("{name} cannot `{other}`"),
        }
    }

    fn endpoint(&self, name: &str) -> Endpoint {
        let name = name.trim_end_matches('\'');
        let views = self.speaker.peers();
        let known = views.iter().find(|view| view.name == name);
        let remote = known
            .and_then(|view| view.address)
            .or_else(|| name.parse().ok());
        let remote: IpAddr = remote.expect("the peer's address");
        let local: IpAddr = match remote {
            IpAddr::V4(_) => "10.0.0.1".parse().unwrap(),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => "fe80::1".parse().unwrap(),
            IpAddr::V6(_) => "fd00::1".parse().unwrap(),
        };
        let interface = known.and_then(|view| view.interface.clone());
        Endpoint {
            interface,
            ..Endpoint::between(local, remote)
        }
    }

    fn attach(&mut self, name: &str) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let end = End {
            connection,
            buffer: BytesMut::new(),
            theirs: None,
            ours: None,
        };
        let name = match self.ends.contains_key(name) {
            true => format!("{name}'"),
            false => name.to_owned(),
        };
        self.ends.insert(name, end);
        connection
    }

    fn answers(&mut self, name: &str) {
        let peer = self
            .wanted
            .remove(name)
            .expect("no connection was asked for");
        let endpoint = self.endpoint(name);
        let connection = self.attach(name);
        self.input(Input::Connected {
            peer,
            connection,
            endpoint,
        });
    }

    fn calls(&mut self, name: &str, interface: Option<&str>) {
        let mut endpoint = self.endpoint(name);
        endpoint.interface = interface.map(str::to_owned).or(endpoint.interface);
        let connection = self.attach(name);
        self.input(Input::Accepted {
            connection,
            endpoint,
        });
    }

    fn open(&mut self, name: &str, words: &Words<'_>) {
        let open = message::open(words);
        self.send(name, &Message::Open(open.clone()));
        if let Some(end) = self.ends.get_mut(name) {
            end.ours = Some(open);
        }
    }

    fn end(&self, name: &str) -> &End {
        self.ends
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no connection"))
    }

    fn send(&mut self, name: &str, message: &Message) {
        let mut bytes = BytesMut::new();
        wire::encode(message, &self.end(name).session(), &mut bytes).expect("it can be written");
        self.deliver(name, bytes.freeze());
    }

    fn deliver(&mut self, name: &str, bytes: Bytes) {
        let connection = self.end(name).connection;
        self.input(Input::Received { connection, bytes });
    }

    fn peer(&self, name: &str) -> PeerId {
        self.speaker
            .peer_named(name)
            .unwrap_or_else(|| panic!("there is no peer {name}"))
    }

    fn input(&mut self, input: Input) {
        self.speaker.handle(input, self.now);
        self.settle();
    }

    fn wait(&mut self, time: &str) {
        let seconds: f64 = time.trim_end_matches('s').parse().expect("wait 5s");
        let end = Time(self.now.0 + (seconds * 1000.0) as u64);
        self.settle();
        while let Some(at) = self.speaker.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.input(Input::Tick);
        }
        self.now = end;
    }

    /// Shows what the speaker wants, until it wants nothing more.
    pub fn settle(&mut self) {
        loop {
            let outputs: Vec<Output> = self.speaker.take_outputs().collect();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.output(output);
            }
        }
        let mut changes = self.speaker.take_changes(usize::MAX);
        changes.sort_by_key(|change| change.prefix);
        for change in changes {
            let line = match change.next_hops {
                None => format!("route {} gone", change.prefix),
                Some(hops) => {
                    let hops: Vec<String> = hops.iter().map(ToString::to_string).collect();
                    format!("route {} via {}", change.prefix, hops.join(", "))
                }
            };
            self.say(&line);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Connect { peer, address } => {
                let name = self.speaker.peer_name(peer).to_owned();
                self.say(&format!("connect to {address}"));
                self.wanted.insert(name, peer);
            }
            Output::Abandon { peer } => {
                let name = self.speaker.peer_name(peer).to_owned();
                self.say(&format!("stop connecting to {name}"));
                if let Some(peer) = self.wanted.remove(&name) {
                    self.given_up.insert(name, peer);
                }
            }
            Output::Close { connection } => {
                if let Some(name) = self.name_of(connection) {
                    self.say(&format!("close {name}"));
                    self.ends.remove(&name);
                }
            }
            Output::Resolve { .. }
            | Output::Notice {
                notice: Notice::EndOfRib(_),
                ..
            } => {}
            Output::Notice { name, notice, .. } => {
                self.say(&format!("! {name}: {notice}"));
            }
            Output::Send { connection, bytes } => self.sent(connection, &bytes),
        }
    }

    fn sent(&mut self, connection: ConnectionId, bytes: &Bytes) {
        let Some(name) = self.name_of(connection) else {
            return;
        };
        let mut lines = Vec::new();
        let end = self.ends.get_mut(&name).expect("it has a name");
        end.buffer.extend_from_slice(bytes);
        loop {
            let session = end.session();
            let Some(bytes) = wire::split(&mut end.buffer, &session).expect("a message") else {
                break;
            };
            let message = wire::decode(&bytes, &session).expect("a good message");
            lines.extend(describe::message(&message));
            if let Message::Open(open) = message {
                end.theirs = Some(open);
            }
        }
        for line in lines {
            self.say(&format!("to {name}: {line}"));
        }
        let bytes = bytes.len();
        self.speaker
            .handle(Input::Sent { connection, bytes }, self.now);
    }

    fn name_of(&self, connection: ConnectionId) -> Option<String> {
        let mut ends = self.ends.iter();
        ends.find(|(_, end)| end.connection == connection)
            .map(|(name, _)| name.clone())
    }

    fn show(&mut self, what: &str) {
        let (kind, name) = what.split_once(' ').unwrap_or((what, ""));
        let lines: Vec<String> = match kind {
            "peers" => self.speaker.peers().iter().map(describe::peer).collect(),
            kind => {
                let scope = match kind {
                    "routes" => Scope::All,
                    "received" => Scope::Received(self.peer(name)),
                    "advertised" => Scope::Advertised(self.peer(name)),
                    other => panic!("nobody can show {other}"),
                };
                let routes = self.speaker.routes(scope);
                routes.iter().flat_map(describe::route).collect()
            }
        };
        for line in lines {
            let _ = writeln!(self.text, "    {line}");
        }
    }
}

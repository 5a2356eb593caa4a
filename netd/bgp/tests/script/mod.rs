//! The language of transcripts.
//!
//! A file starts with the speaker's configuration (YAML), a line `---`, then the script. Lines
//! that begin with `> ` are played, those with `#` are for people, and indented ones are what came
//! of it, each with the time. What is played:
//!
//! | line | meaning |
//! | --- | --- |
//! | `wait 5s` | time passes, timers fire |
//! | `PEER answers` | the connection that the speaker asked for is there |
//! | `PEER answers late` | the same, although the speaker has given it up |
//! | `PEER refuses` | it is refused |
//! | `PEER calls [on IFACE]` | the peer connects; as a second connection it is named `PEER'` |
//! | `PEER up [OPEN OPTIONS]` | answers or calls, OPEN, KEEPALIVE: all of a session's start |
//! | `PEER open as=N id=A [hold=S] [families=v4,v6] [gr=S] [gr-notification] [restarting] [forwarding] [llgr=S] [refresh] [enhanced] [add-path=send,receive] [ext-nh] [role=R]` | sends OPEN |
//! | `PEER keepalive` | sends KEEPALIVE |
//! | `PEER update PREFIX... [path=AS,AS] [nh=A] [med=N] [lp=N] [comm=C,C] [origin=igp] [originator=A] [clusters=A,A] [otc=N] [id=N]` | announces |
//! | `PEER withdraw PREFIX... [id=N]` | withdraws |
//! | `PEER eor v4`, `PEER refresh v4 [begin or end]` | End-of-RIB, ROUTE-REFRESH |
//! | `PEER notify CODE SUBCODE` | sends NOTIFICATION |
//! | `PEER raw HEX` | sends octets |
//! | `PEER closes` | closes the connection |
//! | `PEER is at ADDRESS`, `PEER is gone` | an unnumbered peer is heard, or is not any more |
//! | `bfd PEER down`, `link IFACE up`, `next-hop A metric N`, `next-hop A unreachable` | the machine |
//! | `announce P`, `withdraw P`, `enable P`, `disable P TEXT`, `reset P TEXT`, `shutdown TEXT`, `leave` | the operator |
//! | `configure` followed by indented YAML lines that begin with `\| ` | another configuration |
//! | `show peers`, `show routes`, `show received P`, `show advertised P` | what people see |

mod describe;
mod message;
mod play;

/// Plays the script of a file; the file as it should be.
pub fn play(file: &str) -> String {
    let (config, script) = file
        .split_once("---\n")
        .expect("a line --- after the configuration");
    let parsed = serde_saphyr::from_str(config).unwrap_or_else(|error| panic!("config: {error}"));
    let mut stage = play::Stage::new(parsed);
    let mut lines = script.lines().peekable();
    let mut played = format!("{config}---\n");
    stage.settle();
    let opening = stage.take_text();
    let mut started = false;
    while let Some(line) = lines.next() {
        if line.starts_with("    ") {
            continue;
        }
        if let Some(command) = line.strip_prefix("> ") {
            if !started {
                played.push_str(&opening);
                started = true;
            }
            let mut given = String::new();
            while let Some(more) = lines.next_if(|line| line.starts_with("| ")) {
                given.push_str(&more[2..]);
                given.push('\n');
            }
            played.push_str(&format!("{line}\n"));
            given
                .lines()
                .for_each(|more| played.push_str(&format!("| {more}\n")));
            stage.command(command, &given);
            stage.settle();
            played.push_str(&stage.take_text());
        } else {
            played.push_str(&format!("{line}\n"));
        }
    }
    played
}

//! The API servers of a cluster, as a node sees them: the one that it joined by, and those that the
//! `kubernetes` Service leads to. One is asked until it fails, then another. Pure: [`super::link`] asks.

/// More servers than these are not remembered.
const MAX_SERVERS: usize = 32;

/// Which servers there are, and which one is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// Where the node joined; it stands for the cluster, and is never forgotten.
    first: String,
    /// The others that are known to live.
    pub(super) learned: Vec<String>,
    /// The one that is asked.
    pub(super) current: String,
}

// === impl Servers ===

impl Servers {
    /// The server that the node joined by, and those that it knew when it ran last.
    pub fn new(first: &str, remembered: Vec<String>) -> Self {
        Self {
            first: first.to_owned(),
            learned: remembered,
            current: first.to_owned(),
        }
    }

    /// Takes over which servers live. True when another one than before is to be asked: the one of now is
    /// neither among them nor what the node joined by, which may be the name of a balancer.
    pub fn learn(&mut self, mut living: Vec<String>) -> bool {
        living.sort();
        living.dedup();
        living.truncate(MAX_SERVERS);
        if living.is_empty() {
            return false;
        }
        self.learned = living;
        let known = self.current == self.first || self.learned.contains(&self.current);
        if !known {
            self.current = self.learned[0].clone();
        }
        !known
    }

    /// `server` failed: the next one is asked, unless that has been decided already. True when there is
    /// another.
    pub fn give_up(&mut self, server: &str) -> bool {
        if self.current != server {
            return false;
        }
        let mut all: Vec<&String> = self.learned.iter().collect();
        if !all.contains(&&self.first) {
            all.push(&self.first);
        }
        let at = all.iter().position(|one| *one == server);
        let next = all[at.map_or(0, |at| (at + 1) % all.len())].clone();
        let other = next != self.current;
        self.current = next;
        other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn one_is_asked_until_it_fails_then_the_next_and_all_in_turn() {
        let mut servers = Servers::new("a", named(&["a", "b", "c"]));
        assert!(servers.give_up("a"));
        assert_eq!(servers.current, "b");
        // Somebody else saw the same failure.
        assert!(!servers.give_up("a"));
        assert!(servers.give_up("b"));
        assert!(servers.give_up("c"));
        assert_eq!(servers.current, "a");
    }

    #[test]
    fn a_balancer_that_the_node_joined_by_is_never_forgotten() {
        let mut servers = Servers::new("balancer", Vec::new());
        assert!(!servers.give_up("balancer"), "there is no other");
        assert!(!servers.learn(named(&["b", "a"])));
        assert_eq!(servers.current, "balancer");
        assert!(servers.give_up("balancer"));
        assert_eq!(servers.current, "a");
        assert!(servers.give_up("a"));
        assert!(servers.give_up("b"));
        assert_eq!(servers.current, "balancer");
    }

    #[test]
    fn a_server_that_left_is_asked_no_more() {
        let mut servers = Servers::new("a", named(&["b"]));
        assert!(servers.give_up("a"));
        assert_eq!(servers.current, "b");
        assert!(servers.learn(named(&["c", "d"])));
        assert_eq!(servers.current, "c");
        assert!(!servers.learn(Vec::new()), "nobody says that nobody lives");
    }
}

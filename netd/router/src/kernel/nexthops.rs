//! Nexthop objects: each next hop, and each set of next hops, is an object of its own in the
//! kernel, to which routes only point. So all routes over a next hop that failed are led around it
//! by one message, and all get it back by one.
//!
//! This is the book of the objects that we made, without the kernel: what is wanted goes in,
//! [`Command`]s come out. The kernel removes objects by itself when their link goes down, and
//! takes them out of groups. What it may have done is not guessed: objects over such a link are
//! written again when they are next used.
//!
//! A next hop without a known interface (a distant one) cannot be an object; its routes carry
//! their next hops themselves, as do all on kernels that have no such objects.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::message::Hop;

/// Our numbers begin here, to be recognised and out of the way of other daemons'.
const FIRST: u32 = 0x7065_0000;
/// Objects at a time, at most; routes to further sets carry their next hops themselves.
const LIMIT: usize = 4096;
/// Our numbers end here; they are used in turn.
const END: u32 = FIRST + 0x1_0000;

/// What is to be said to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Make an object of a next hop, in place of what it was.
    Single { id: u32, hop: Hop },
    /// Make an object of a set of objects, in place of what it was.
    Group { id: u32, members: Vec<u32> },
    /// Remove an object, and with it all routes that have nothing else.
    Delete { id: u32 },
}

/// The objects that we made.
#[derive(Debug, Default)]
pub(super) struct Objects {
    singles: HashMap<Hop, Object>,
    groups: HashMap<Vec<Hop>, Object>,
    /// Numbers of ours that the kernel had before us, or still has.
    taken: BTreeSet<u32>,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Object {
    id: u32,
    /// The kernel has it as we made it.
    sure: bool,
}

/// Whether a number is one of ours.
pub(super) fn is_ours(id: u32) -> bool {
    (FIRST..END).contains(&id)
}

// === impl Objects ===

impl Objects {
    /// No objects yet, but for these numbers of a router before us.
    pub fn new(taken: BTreeSet<u32>) -> Self {
        Objects {
            taken,
            ..Objects::default()
        }
    }

    /// The object for some next hops; what must be said before it is used is added to `commands`.
    /// None if there can be none. The next hops are in ascending order.
    pub fn of(&mut self, hops: &[Hop], commands: &mut Vec<Command>) -> Option<u32> {
        if hops.is_empty() || hops.iter().any(|hop| hop.link.is_none()) {
            return None;
        }
        if let [only] = hops {
            return self.single(*only, commands);
        }
        if let Some(Object { id, sure: true }) = self.groups.get(hops) {
            return Some(*id);
        }
        let members: Option<Vec<u32>> =
            hops.iter().map(|hop| self.single(*hop, commands)).collect();
        let members = members?;
        let id = match self.groups.get(hops) {
            Some(known) => known.id,
            None => self.number()?,
        };
        self.groups.insert(hops.to_vec(), Object { id, sure: true });
        commands.push(Command::Group { id, members });
        Some(id)
    }

    fn single(&mut self, hop: Hop, commands: &mut Vec<Command>) -> Option<u32> {
        let id = match self.singles.get(&hop) {
            Some(Object { id, sure: true }) => return Some(*id),
            Some(Object { id, .. }) => *id,
            None => self.number()?,
        };
        self.singles.insert(hop, Object { id, sure: true });
        commands.push(Command::Single { id, hop });
        Some(id)
    }

    fn number(&mut self) -> Option<u32> {
        if self.singles.len() + self.groups.len() >= LIMIT {
            return None;
        }
        let used: HashSet<u32> = self.all().map(|object| object.id).collect();
        let free = |id: &u32| !used.contains(id) && !self.taken.contains(id);
        let turn = (self.next..END - FIRST).chain(0..self.next);
        let id = turn.map(|offset| FIRST + offset).find(free)?;
        self.next = (id - FIRST + 1) % (END - FIRST);
        Some(id)
    }

    fn all(&self) -> impl Iterator<Item = &Object> {
        self.singles.values().chain(self.groups.values())
    }

    /// A next hop is gone: everything is led around it at once.
    pub fn fail(&mut self, hop: &Hop, commands: &mut Vec<Command>) {
        if let Some(object) = self.singles.get(hop).filter(|object| object.sure) {
            commands.push(Command::Delete { id: object.id });
        }
        self.doubt(|one| one == hop);
    }

    /// A link went down or came up: what the kernel made of its objects is not known.
    pub fn link_changed(&mut self, link: u32) {
        self.doubt(|hop| hop.link == Some(link));
    }

    /// Somebody else touched our objects, or the kernel refused one.
    pub fn doubt_all(&mut self) {
        self.doubt(|_| true);
    }

    fn doubt(&mut self, which: impl Fn(&Hop) -> bool) {
        for (hop, object) in &mut self.singles {
            object.sure &= !which(hop);
        }
        for (hops, object) in &mut self.groups {
            object.sure &= !hops.iter().any(&which);
        }
    }

    /// Removes what is of no use: of the objects that the kernel `has` (numbers, and for groups
    /// their members) those that no route `uses`. To be called when no route is about to be
    /// written. Groups go before their members.
    pub fn sweep(
        &mut self,
        has: &[(u32, Vec<u32>)],
        uses: &HashSet<u32>,
        commands: &mut Vec<Command>,
    ) {
        let ours = || has.iter().filter(|(id, _)| is_ours(*id));
        let members: HashSet<u32> = ours()
            .filter(|(id, _)| uses.contains(id))
            .flat_map(|(_, members)| members.iter().copied())
            .collect();
        let gone = |(id, _): &&(u32, Vec<u32>)| !uses.contains(id) && !members.contains(id);
        let groups_first = |one: &&(u32, Vec<u32>)| one.1.is_empty();
        let mut unused: Vec<&(u32, Vec<u32>)> = ours().filter(gone).collect();
        unused.sort_by_key(groups_first);
        commands.extend(unused.iter().map(|(id, _)| Command::Delete { id: *id }));
        let stays = |object: &Object| uses.contains(&object.id) || members.contains(&object.id);
        self.singles.retain(|_, object| stays(object));
        self.groups.retain(|_, object| stays(object));
        let known: HashSet<u32> = self.all().map(|object| object.id).collect();
        let left = ours().map(|(id, _)| *id);
        self.taken = left
            .filter(|id| (uses.contains(id) || members.contains(id)) && !known.contains(id))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(last: u8, link: u32) -> Hop {
        Hop {
            gateway: std::net::Ipv4Addr::new(10, 0, 0, last).into(),
            link: Some(link),
        }
    }

    fn told(objects: &mut Objects, hops: &[Hop]) -> (Option<u32>, Vec<Command>) {
        let mut commands = Vec::new();
        (objects.of(hops, &mut commands), commands)
    }

    #[test]
    fn an_object_is_made_once_and_again_when_its_link_was_down() {
        let mut objects = Objects::default();
        let (a, b) = (hop(1, 2), hop(2, 3));
        let (id, commands) = told(&mut objects, &[a, b]);
        assert_eq!((id, commands.len()), (Some(FIRST + 2), 3));
        assert_eq!(told(&mut objects, &[a, b]), (id, vec![]));
        assert_eq!(told(&mut objects, &[a]), (Some(FIRST), vec![]));
        objects.link_changed(3);
        assert_eq!(told(&mut objects, &[a]), (Some(FIRST), vec![]));
        let (again, commands) = told(&mut objects, &[a, b]);
        let members = vec![FIRST, FIRST + 1];
        let group = Command::Group {
            id: FIRST + 2,
            members,
        };
        assert_eq!(again, id);
        assert_eq!(
            commands,
            [
                Command::Single {
                    id: FIRST + 1,
                    hop: b
                },
                group
            ]
        );
    }

    #[test]
    fn one_message_leads_around_a_next_hop() {
        let mut objects = Objects::default();
        let (a, b) = (hop(1, 2), hop(2, 3));
        let (id, _) = told(&mut objects, &[a, b]);
        let mut commands = Vec::new();
        objects.fail(&a, &mut commands);
        assert_eq!(commands, [Command::Delete { id: FIRST }]);
        objects.fail(&a, &mut commands);
        assert_eq!(commands.len(), 1, "it is gone already");
        let (again, commands) = told(&mut objects, &[a, b]);
        assert_eq!((again, commands.len()), (id, 2));
    }

    #[test]
    fn what_nothing_uses_goes_with_groups_first() {
        let mut objects = Objects::new(BTreeSet::from([FIRST, FIRST + 1]));
        let (a, b, c) = (hop(1, 2), hop(2, 3), hop(3, 3));
        let (ab, _) = told(&mut objects, &[a, b]);
        let (lone, _) = told(&mut objects, &[c]);
        let (ab, lone) = (ab.unwrap(), lone.unwrap());
        assert!(
            ab > FIRST + 1,
            "{ab}: not the numbers of the router before us"
        );
        let has = [
            (FIRST, vec![]),
            (FIRST + 1, vec![FIRST]),
            (ab - 2, vec![]),
            (ab - 1, vec![]),
            (ab, vec![ab - 2, ab - 1]),
            (lone, vec![]),
            (7, vec![]),
        ];
        let mut commands = Vec::new();
        objects.sweep(&has, &HashSet::from([ab, 7]), &mut commands);
        let gone = [FIRST + 1, FIRST, lone].map(|id| Command::Delete { id });
        assert_eq!(commands, gone);
        assert_eq!(told(&mut objects, &[a, b]), (Some(ab), vec![]));
        assert_eq!(told(&mut objects, &[c]).1.len(), 1, "made again");
    }

    #[test]
    fn a_distant_next_hop_and_one_too_many_have_no_object() {
        let mut objects = Objects::default();
        let distant = Hop {
            link: None,
            ..hop(1, 1)
        };
        assert_eq!(told(&mut objects, &[distant]), (None, vec![]));
        let link = |n: usize| u32::try_from(n).unwrap();
        for n in 0..LIMIT {
            assert!(told(&mut objects, &[hop(1, link(n))]).0.is_some());
        }
        assert_eq!(told(&mut objects, &[hop(2, 1)]).0, None);
    }
}

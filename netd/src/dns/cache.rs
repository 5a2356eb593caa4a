//! Answers of upstream servers, as long as they may be kept. Pure: the time is told.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{RData, Record};

/// Answers kept, at most; the one that would expire first makes room.
pub const CAPACITY: usize = 4096;
/// Nothing is kept longer than this, whatever its owner says.
const LONGEST_S: u32 = 300;
/// What says that there is nothing is not kept longer than this.
const LONGEST_NEGATIVE_S: u32 = 30;

/// What is asked, in lower case, and whether with signatures.
type Key = (Query, bool);

#[derive(Debug)]
struct Entry {
    reply: Message,
    since: Duration,
    until: Duration,
    serial: u64,
}

/// The cache. Times are counted from any fixed moment.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// Which entry expires next; serial numbers tell apart those that expire together.
    by_expiry: BTreeMap<(Duration, u64), Key>,
    next_serial: u64,
}

impl Cache {
    /// The answer to a question, its times to live less what has passed.
    pub fn get(&self, query: &Query, dnssec: bool, now: Duration) -> Option<Message> {
        let entry = self.entries.get(&key(query, dnssec))?;
        if entry.until <= now {
            return None;
        }
        let age = now.saturating_sub(entry.since).as_secs() as u32;
        let mut reply = entry.reply.clone();
        let sections = [
            &mut reply.answers,
            &mut reply.authorities,
            &mut reply.additionals,
        ];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(reply)
    }

    /// Keeps an answer, if it may be kept.
    pub fn put(&mut self, query: &Query, dnssec: bool, reply: &Message, now: Duration) {
        let Some(seconds) = lifetime_s(reply) else {
            return;
        };
        let key = key(query, dnssec);
        if let Some(old) = self.entries.remove(&key) {
            self.by_expiry.remove(&(old.until, old.serial));
        }
        while self.entries.len() >= CAPACITY {
            let Some((_, next)) = self.by_expiry.pop_first() else {
                break;
            };
            self.entries.remove(&next);
        }
        let until = now + Duration::from_secs(u64::from(seconds));
        let serial = self.next_serial;
        self.next_serial += 1;
        self.by_expiry.insert((until, serial), key.clone());
        let entry = Entry {
            reply: reply.clone(),
            since: now,
            until,
            serial,
        };
        self.entries.insert(key, entry);
    }

    /// How many answers are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn key(query: &Query, dnssec: bool) -> Key {
    let mut query = query.clone();
    let name = query.name().to_lowercase();
    query.set_name(name);
    (query, dnssec)
}

/// For how many seconds an answer may be kept; `None` when not at all.
fn lifetime_s(reply: &Message) -> Option<u32> {
    if reply.metadata.truncation {
        return None;
    }
    let least = |records: &[Record]| records.iter().map(|record| record.ttl).min();
    let seconds = match reply.metadata.response_code {
        ResponseCode::NoError if !reply.answers.is_empty() => least(&reply.answers)?.min(LONGEST_S),
        ResponseCode::NoError | ResponseCode::NXDomain => {
            // RFC 2308, 5: the lesser of the SOA's time to live and its minimum.
            let soa = reply
                .authorities
                .iter()
                .find_map(|record| match &record.data {
                    RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                    _ => None,
                });
            soa?.min(LONGEST_NEGATIVE_S)
        }
        _ => return None,
    };
    (seconds > 0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RecordType};

    fn query(name: &str) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), RecordType::A)
    }

    fn reply(ttl: u32) -> Message {
        let mut reply = Message::response(1, OpCode::Query);
        let data = RData::A(A::new(192, 0, 2, 1));
        reply.add_answer(Record::from_rdata(Name::root(), ttl, data));
        reply
    }

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn an_answer_ages_and_expires() {
        let mut cache = Cache::default();
        cache.put(&query("Example.org."), false, &reply(20), START);
        let later = START + Duration::from_secs(15);
        let kept = cache.get(&query("example.ORG."), false, later).unwrap();
        assert_eq!(kept.answers[0].ttl, 5);
        assert!(cache.get(&query("example.org."), true, later).is_none());
        let too_late = START + Duration::from_secs(20);
        assert!(cache.get(&query("example.org."), false, too_late).is_none());
    }

    #[test]
    fn what_must_not_be_kept_is_not() {
        let mut cache = Cache::default();
        cache.put(&query("a."), false, &reply(0), START);
        let failure = Message::error_msg(1, OpCode::Query, ResponseCode::ServFail);
        cache.put(&query("a."), false, &failure, START);
        let without_soa = Message::error_msg(1, OpCode::Query, ResponseCode::NXDomain);
        cache.put(&query("a."), false, &without_soa, START);
        assert!(cache.is_empty());
    }

    #[test]
    fn it_does_not_grow_beyond_its_capacity() {
        let mut cache = Cache::default();
        for n in 0..CAPACITY + 10 {
            cache.put(&query(&format!("n{n}.")), false, &reply(60), START);
        }
        assert_eq!((cache.len(), cache.by_expiry.len()), (CAPACITY, CAPACITY));
        assert!(cache.get(&query("n0."), false, START).is_none());
    }
}

//! AS numbers of four octets past speakers that have two (RFC 6793 §4.2.3).

use super::Decoder;
use super::attributes::Four;
use crate::types::{AS_TRANS, AsPath, Segment};

impl Decoder<'_> {
    /// Merges AS4_PATH and AS4_AGGREGATOR into what the neighbour could say itself.
    pub(super) fn merge_four_octet(&mut self) {
        let Four { path, aggregator } = std::mem::take(&mut self.four);
        match (&mut self.read.aggregator, aggregator) {
            // Aggregated by a speaker with two octets, after AS4_PATH was made: both are outdated.
            (Some(two), Some(_)) if two.asn != AS_TRANS => return,
            (Some(two), Some(four)) => *two = four,
            _ => {}
        }
        if let Some(four) = path {
            self.read.as_path = merge(&self.read.as_path, four);
        }
    }
}

/// The two-octet path's nearest hops, as many as AS4_PATH lacks, then AS4_PATH. One that is
/// longer than the path is not to be believed.
fn merge(two: &AsPath, four: AsPath) -> AsPath {
    let Some(mut lacking) = two.hops().checked_sub(four.hops()) else {
        return two.clone();
    };
    let mut segments = Vec::with_capacity(two.segments().len() + four.segments().len());
    for segment in two.segments() {
        match segment {
            _ if lacking == 0 => break,
            Segment::Set(_) => {
                lacking -= 1;
                segments.push(segment.clone());
            }
            Segment::Sequence(asns) => {
                let taken = lacking.min(asns.len());
                lacking -= taken;
                segments.push(Segment::Sequence(asns[..taken].to_vec()));
            }
        }
    }
    segments.extend_from_slice(four.segments());
    AsPath::from_segments(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_merge_from_the_far_end() {
        let cases = [
            ("1 23456 23456", "100000 200000", "1 100000 200000"),
            ("1 2 3 23456", "300000", "1 2 3 300000"),
            ("23456", "100000", "100000"),
            ("{1,2} 23456", "100000", "{1,2} 100000"),
            ("1 {2,3} 23456", "{2,3} 100000", "1 {2,3} 100000"),
            // Longer than the path: not believed.
            ("1", "100000 200000", "1"),
            ("1 2", "", "1 2"),
        ];
        for (two, four, merged) in cases {
            let path = merge(&two.parse().unwrap(), four.parse().unwrap());
            assert_eq!(path.to_string(), merged, "{two} with {four}");
        }
    }
}

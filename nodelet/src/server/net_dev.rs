//! What went over a pod's interfaces, by the kernel's table `/proc/PID/net/dev`. Pure.

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`
    pub name: String,
    /// Of what came in.
    pub received: Counters,
    /// Of what went out.
    pub sent: Counters,
}

/// Of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// Reads the table; the loopback interface is not told of.
pub fn parse(table: &str) -> Vec<Interface> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        let counters = |from: usize| {
            Some(Counters {
                bytes: *numbers.get(from)?,
                packets: *numbers.get(from + 1)?,
                errors: *numbers.get(from + 2)?,
                dropped: *numbers.get(from + 3)?,
            })
        };
        Some(Interface {
            name: name.trim().to_owned(),
            received: counters(0)?,
            sent: counters(8)?,
        })
    };
    let all = table.lines().filter_map(interface);
    all.filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table() {
        let table = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    2048      20    1    2    0     0          0         0     4096      40    3    4    0     0       0          0
 short: 1 2
";
        let found = parse(table);
        assert_eq!(found.len(), 1);
        let eth0 = &found[0];
        assert_eq!((eth0.name.as_str(), eth0.received.bytes), ("eth0", 2048));
        assert_eq!((eth0.received.errors, eth0.received.dropped), (1, 2));
        assert_eq!((eth0.sent.packets, eth0.sent.dropped), (40, 4));
    }
}

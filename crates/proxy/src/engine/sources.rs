//! Which trunk a source address belongs to: the longest prefix over all trunks.

use std::net::IpAddr;

use ipnet::IpNet;

/// The sources of all trunks. An address is found among a million prefixes in some 50 ns, in two or three reads of memory.
#[derive(Debug, Default)]
pub(super) struct Sources {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl Sources {
    /// The table of `prefixes`, each with its trunk. A prefix that is there twice goes to `twice`, with both trunks, and keeps the first.
    pub(super) fn new(
        prefixes: impl IntoIterator<Item = (IpNet, usize)>,
        mut twice: impl FnMut(IpNet, usize, usize),
    ) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, trunk) in prefixes {
            match prefix.trunc() {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()), prefix, trunk)),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), prefix, trunk)),
            }
        }
        Self { v4: Ranges::new(v4, &mut twice), v6: Ranges::new(v6, &mut twice) }
    }

    /// The trunk of the longest prefix that `source` is in.
    pub(super) fn trunk_of(&self, source: IpAddr) -> Option<usize> {
        match source {
            IpAddr::V4(ip) => self.v4.find(ip.into()),
            IpAddr::V6(ip) => self.v6.find(ip.into()),
        }
    }
}

/// Prefixes as ranges that follow each other without a gap: where prefixes lie within others, the longest has the range.
#[derive(Debug, Default)]
struct Ranges<A> {
    /// First address of each range, rising. The first one is 0, unless there is none at all.
    starts: Vec<A>,
    /// Its trunk, or [`NOBODY`].
    trunks: Vec<u32>,
    /// Of each value of an address's first 16 bits, how many ranges begin before it; one value more, so that each has an end. Empty for
    /// few ranges.
    blocks: Vec<u32>,
}

impl<A: Address> Ranges<A> {
    fn new(mut prefixes: Vec<(A, A, IpNet, usize)>, twice: &mut impl FnMut(IpNet, usize, usize)) -> Self {
        // Wider ones before those within them; the sort is stable, so of two equal ones the first stays first.
        prefixes.sort_by(|a, b| (a.0, b.1).cmp(&(b.0, a.1)));
        prefixes.dedup_by(|later, first| {
            let is_twice = (later.0, later.1) == (first.0, first.1);
            if is_twice {
                twice(later.2, first.3, later.3);
            }
            is_twice
        });
        let mut ranges = Self { starts: Vec::new(), trunks: Vec::new(), blocks: Vec::new() };
        if prefixes.is_empty() {
            return ranges;
        }
        ranges.push(A::ZERO, NOBODY);
        // The prefixes that the current address is in, the longest last.
        let mut open: Vec<(A, u32)> = Vec::new();
        for (start, end, _, trunk) in prefixes {
            ranges.close(&mut open, |last| last < start);
            let trunk = u32::try_from(trunk).unwrap_or(NOBODY);
            ranges.push(start, trunk);
            open.push((end, trunk));
        }
        ranges.close(&mut open, |_| true);
        if ranges.starts.len() > FEW {
            let mut block = 0;
            for (count, start) in ranges.starts.iter().enumerate() {
                while block <= start.block() {
                    ranges.blocks.push(count as u32);
                    block += 1;
                }
            }
            ranges.blocks.resize(BLOCKS + 1, ranges.starts.len() as u32);
        }
        ranges
    }

    /// Ends the open prefixes whose last address `is_over`: what follows belongs to the one around.
    fn close(&mut self, open: &mut Vec<(A, u32)>, is_over: impl Fn(A) -> bool) {
        while let Some((last, _)) = open.last().copied().filter(|(last, _)| is_over(*last)) {
            open.pop();
            if let Some(next) = last.next() {
                self.push(next, open.last().map_or(NOBODY, |(_, trunk)| *trunk));
            }
        }
    }

    fn push(&mut self, start: A, trunk: u32) {
        if self.starts.last() == Some(&start) {
            // The one before it has no address.
            self.starts.pop();
            self.trunks.pop();
        }
        self.starts.push(start);
        self.trunks.push(trunk);
    }

    fn find(&self, address: A) -> Option<usize> {
        let block = address.block();
        let begun = match (self.blocks.get(block), self.blocks.get(block + 1)) {
            (Some(from), Some(to)) => {
                let within = self.starts.get(*from as usize..*to as usize)?;
                *from as usize + within.partition_point(|start| *start <= address)
            }
            _ => self.starts.partition_point(|start| *start <= address),
        };
        let trunk = self.trunks.get(begun.checked_sub(1)?)?;
        (*trunk != NOBODY).then_some(*trunk as usize)
    }
}

/// An address as a number.
trait Address: Copy + Ord {
    const ZERO: Self;
    fn next(self) -> Option<Self>;
    /// Its first 16 bits.
    fn block(self) -> usize;
}

impl Address for u32 {
    const ZERO: Self = 0;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn block(self) -> usize {
        (self >> 16) as usize
    }
}

impl Address for u128 {
    const ZERO: Self = 0;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn block(self) -> usize {
        (self >> 112) as usize
    }
}

/// No trunk.
const NOBODY: u32 = u32::MAX;
/// Values of 16 bits.
const BLOCKS: usize = 1 << 16;
/// So many ranges are searched as fast without the table of blocks, which has 256 KiB.
const FEW: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Against a list that is searched from end to end: prefixes of a few bits, so that many lie within others, and addresses at their ends.
    fn check(prefixes: Vec<IpNet>, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut given: Vec<(IpNet, usize)> = prefixes.into_iter().zip(0..).collect();
        let mut twice = Vec::new();
        let sources = Sources::new(given.clone(), |net, first, later| twice.push((net.trunc(), first, later)));
        let mut seen: Vec<(IpNet, usize)> = Vec::new();
        let mut expected = Vec::new();
        given.retain(|(net, trunk)| match seen.iter().find(|(other, _)| *other == net.trunc()) {
            Some((other, first)) => {
                expected.push((*other, *first, *trunk));
                false
            }
            None => {
                seen.push((net.trunc(), *trunk));
                true
            }
        });
        twice.sort();
        expected.sort();
        assert_eq!(twice, expected);
        for ip in addresses {
            let longest = given.iter().filter(|(net, _)| net.contains(&ip)).max_by_key(|(net, _)| net.prefix_len());
            assert_eq!(sources.trunk_of(ip), longest.map(|(_, trunk)| *trunk), "{ip} in {given:?}");
        }
    }

    fn around(net: &IpNet) -> Vec<IpAddr> {
        match net {
            IpNet::V4(net) => {
                let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|ip| Ipv4Addr::from(ip).into()).to_vec()
            }
            IpNet::V6(net) => {
                let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|ip| Ipv6Addr::from(ip).into()).to_vec()
            }
        }
    }

    proptest! {
        #[test]
        fn the_longest_prefix_wins(v4 in prop::collection::vec((any::<u32>(), 0..=32_u8, 0..=24_u32), 0..30), v6 in prop::collection::vec((any::<u128>(), 0..=128_u8, 0..=120_u32), 0..10)) {
            let v4 = v4.into_iter().map(|(ip, length, blank)| format!("{}/{length}", Ipv4Addr::from(ip >> blank << blank & 0x0300_0303)).parse().unwrap());
            let v6 = v6.into_iter().map(|(ip, length, blank)| format!("{}/{length}", Ipv6Addr::from(ip >> blank << blank)).parse().unwrap());
            let prefixes: Vec<IpNet> = v4.chain(v6).collect();
            let addresses: Vec<IpAddr> = prefixes.iter().flat_map(around).collect();
            check(prefixes, addresses);
        }
    }

    #[test]
    fn many_prefixes_are_found_by_blocks() {
        let prefixes: Vec<IpNet> = (0..3_000_u32)
            .map(|number| format!("{}/{}", Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1)), 9 + number % 24))
            .map(|text| text.parse().unwrap())
            .collect();
        let addresses: Vec<IpAddr> = prefixes.iter().flat_map(around).collect();
        check(prefixes, addresses);
        assert_eq!(Sources::default().trunk_of(Ipv4Addr::LOCALHOST.into()), None);
    }
}

//! Writes MMDB files: the form in which places are looked up, and so the one an import makes.
//!
//! The format (MaxMind DB, version 2.0) in the part that is used here: a binary tree over the bits
//! of an address, then 16 zero bytes, then records, then the metadata behind a marker. A node is two
//! big-endian numbers of 32 bits; one below the number of nodes is a node, equal to it is "nothing",
//! above it a record at that distance less 16. IPv4 addresses are the first 2^32 of the IPv6 space.
//!
//! Equal records are stored once, and so are equal texts within them, by a pointer. The tree is built
//! in memory: 8 bytes a node, which is about 40 bytes for each range of a large database.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;

use thiserror::Error;

use super::Place;

/// Nodes of one file: 512 MiB of tree, several times the largest database that is sold.
const NODES_MAX: usize = 64 << 20;
/// Bytes of records: with the tree below the 2^32 that a node can say.
const DATA_BYTES_MAX: usize = 1 << 30;
/// Nothing below this branch.
const EMPTY: u32 = u32::MAX;
/// In the tree under construction, a record's number has this bit.
const LEAF: u32 = 1 << 31;
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
const SEPARATOR: [u8; 16] = [0; 16];
/// Bits of an address in the tree.
const BITS: u32 = 128;

/// Why a range cannot be added.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WriteError {
    /// More ranges than one file is made of.
    #[error("more ranges than one file can hold")]
    TooMany,
    /// More different places than one file is made of.
    #[error("more different places than one file can hold")]
    TooLarge,
}

/// A database of places being made.
pub struct Builder {
    /// Two branches each: a node, [`EMPTY`], or a record's number with [`LEAF`].
    nodes: Vec<[u32; 2]>,
    /// Records in the order of their numbers: where each begins in `data`.
    starts: Vec<u32>,
    /// Number of a record by its bytes' place.
    known: HashMap<Vec<u8>, u32>,
    texts: HashMap<String, u32>,
    data: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Knows no place.
    pub fn new() -> Self {
        Self {
            nodes: vec![[EMPTY; 2]],
            starts: Vec::new(),
            known: HashMap::new(),
            texts: HashMap::new(),
            data: Vec::new(),
        }
    }

    /// Says that every address from `first` to `last` is at `place`; what was said of them before
    /// is replaced. Both are of one family, and `first` is not above `last`.
    ///
    /// # Errors
    /// When a bound is reached; what was added stays.
    pub fn add(&mut self, first: IpAddr, last: IpAddr, place: &Place) -> Result<(), WriteError> {
        let record = self.record(place)?;
        let (mut first, last) = (bits(first), bits(last));
        // The range as the fewest networks, from its start.
        while first <= last {
            let mut free = first.trailing_zeros().min(BITS - 1);
            while free > 0 && last - first < (1_u128 << free) - 1 {
                free -= 1;
            }
            self.insert(first, BITS - free, record)?;
            match first.checked_add(1_u128 << free) {
                Some(next) => first = next,
                None => break,
            }
        }
        Ok(())
    }

    /// Puts `record` at the network of the first `length` bits of `address`.
    #[expect(clippy::indexing_slicing, reason = "a branch is a bit, and nodes only grow")]
    fn insert(&mut self, address: u128, length: u32, record: u32) -> Result<(), WriteError> {
        let mut node = 0;
        for depth in 0..length {
            let branch = usize::from((address >> (BITS - 1 - depth)) & 1 == 1);
            if depth + 1 == length {
                self.nodes[node][branch] = record | LEAF;
                break;
            }
            let below = self.nodes[node][branch];
            node = if below & LEAF == 0 {
                below as usize
            } else {
                // Nothing, or a larger network that is now cut into halves.
                if self.nodes.len() >= NODES_MAX {
                    return Err(WriteError::TooMany);
                }
                let new = self.nodes.len();
                self.nodes.push([below; 2]);
                self.nodes[node][branch] = u32::try_from(new).map_err(|_| WriteError::TooMany)?;
                new
            };
        }
        Ok(())
    }

    /// The number of the record of `place`, which is written when it is new.
    fn record(&mut self, place: &Place) -> Result<u32, WriteError> {
        if self.data.len() >= DATA_BYTES_MAX || self.starts.len() >= (LEAF - 1) as usize {
            return Err(WriteError::TooLarge);
        }
        let mut bytes = Vec::with_capacity(64);
        self.encode(place, &mut bytes);
        if let Some(&number) = self.known.get(&bytes) {
            return Ok(number);
        }
        let number = u32::try_from(self.starts.len()).map_err(|_| WriteError::TooLarge)?;
        self.starts.push(u32::try_from(self.data.len()).map_err(|_| WriteError::TooLarge)?);
        self.data.extend_from_slice(&bytes);
        self.known.insert(bytes, number);
        Ok(number)
    }

    /// A record in the nested form, with what is known.
    fn encode(&mut self, place: &Place, out: &mut Vec<u8>) {
        let mut parts: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        let mut country = Vec::new();
        if let Some(code) = &place.country {
            country.push(("iso_code", self.text(code)));
        }
        if let Some(name) = &place.country_name {
            country.push(("names", self.names(name)));
        }
        if !country.is_empty() {
            parts.insert("country", self.map(country));
        }
        if let Some(region) = &place.region {
            let one = vec![("names", self.names(region))];
            let mut list = control(11, 1);
            list.extend(self.map(one));
            parts.insert("subdivisions", list);
        }
        if let Some(city) = &place.city {
            let names = vec![("names", self.names(city))];
            parts.insert("city", self.map(names));
        }
        if let Some(zip) = &place.zip {
            let code = vec![("code", self.text(zip))];
            parts.insert("postal", self.map(code));
        }
        let mut location = Vec::new();
        for (name, degrees) in [("latitude", place.lat), ("longitude", place.lon)] {
            if let Some(degrees) = degrees {
                let mut double = control(3, 8);
                double.extend(degrees.to_be_bytes());
                location.push((name, double));
            }
        }
        if let Some(zone) = &place.tz {
            location.push(("time_zone", self.text(zone)));
        }
        if !location.is_empty() {
            parts.insert("location", self.map(location));
        }
        let parts = parts.into_iter().collect();
        out.extend(self.map(parts));
    }

    fn names(&mut self, name: &str) -> Vec<u8> {
        let english = vec![("en", self.text(name))];
        self.map(english)
    }

    fn map(&mut self, entries: Vec<(&str, Vec<u8>)>) -> Vec<u8> {
        let mut bytes = control(7, entries.len());
        for (name, value) in entries {
            bytes.extend(self.text(name));
            bytes.extend(value);
        }
        bytes
    }

    /// A pointer to `text`, which is written when it is new; short texts stand where they are used.
    fn text(&mut self, text: &str) -> Vec<u8> {
        const POINTER_BYTES: usize = 5;
        if text.len() < POINTER_BYTES {
            return string(text);
        }
        let at = if let Some(&at) = self.texts.get(text) {
            at
        } else {
            // The bound on `data` is far below 2^32.
            let at = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
            self.data.extend(string(text));
            self.texts.insert(text.to_owned(), at);
            at
        };
        let mut pointer = vec![0b0011_1000];
        pointer.extend(at.to_be_bytes());
        pointer
    }

    /// Ranges and places so far, for progress.
    pub fn size(&self) -> (usize, usize) {
        (self.nodes.len(), self.starts.len())
    }

    /// Writes the file; `built_at` is in seconds since 1970.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write(&self, out: &mut dyn Write, name: &str, built_at: u64) -> io::Result<()> {
        let count = u32::try_from(self.nodes.len()).map_err(io::Error::other)?;
        for node in &self.nodes {
            for branch in node {
                let value = match *branch {
                    EMPTY => count,
                    leaf if leaf & LEAF != 0 => {
                        let start = self.starts.get((leaf & !LEAF) as usize).copied();
                        let start = start.ok_or_else(|| io::Error::other("a record is missing"))?;
                        count + 16 + start
                    }
                    node => node,
                };
                out.write_all(&value.to_be_bytes())?;
            }
        }
        out.write_all(&SEPARATOR)?;
        out.write_all(&self.data)?;
        out.write_all(MARKER)?;
        out.write_all(&metadata(count, name, built_at))
    }
}

/// The 128 bits by which an address is found.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The bytes before a value of type `kind` and this size.
fn control(kind: u8, size: usize) -> Vec<u8> {
    let (small, rest): (u8, Vec<u8>) = match size {
        0..29 => (u8::try_from(size).unwrap_or(0), Vec::new()),
        29..285 => (29, vec![u8::try_from(size - 29).unwrap_or(u8::MAX)]),
        // Texts are cut below this before they come here.
        _ => (30, u16::try_from(size - 285).unwrap_or(u16::MAX).to_be_bytes().to_vec()),
    };
    let mut bytes = match kind {
        0..=7 => vec![(kind << 5) | small],
        extended => vec![small, extended - 7],
    };
    bytes.extend(rest);
    bytes
}

/// Bytes of one text: what its length can say in two bytes.
const TEXT_BYTES_MAX: usize = 65_820;

fn string(text: &str) -> Vec<u8> {
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
    let text = text.get(..end.unwrap_or(0)).unwrap_or_default();
    let mut bytes = control(2, text.len());
    bytes.extend(text.as_bytes());
    bytes
}

fn metadata(count: u32, name: &str, built_at: u64) -> Vec<u8> {
    let number = |kind: u8, bytes: &[u8]| {
        let used = bytes.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<u8>>();
        let mut out = control(kind, used.len());
        out.extend(used);
        out
    };
    let entries = [
        ("binary_format_major_version", number(5, &[2])),
        ("binary_format_minor_version", number(5, &[0])),
        ("build_epoch", number(9, &built_at.to_be_bytes())),
        ("database_type", string(name)),
        ("description", control(7, 0)),
        ("ip_version", number(5, &[6])),
        ("languages", control(11, 0)),
        ("node_count", number(6, &count.to_be_bytes())),
        ("record_size", number(5, &[32])),
    ];
    let mut bytes = control(7, entries.len());
    for (key, value) in entries {
        bytes.extend(string(key));
        bytes.extend(value);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use maxminddb::Reader;
    use proptest::prelude::*;

    use super::*;
    use crate::geo::GeoDb;

    fn city(name: &str) -> Place {
        Place { city: Some(name.to_owned()), ..Place::default() }
    }

    fn open(builder: &Builder) -> GeoDb {
        let mut file = Vec::new();
        builder.write(&mut file, "test", 1_790_000_000).unwrap();
        let db = GeoDb::none();
        db.current.store(Some(std::sync::Arc::new(Reader::from_source(file).unwrap())));
        db
    }

    fn found(db: &GeoDb, ip: IpAddr) -> Option<String> {
        db.lookup(ip).and_then(|place| place.city)
    }

    #[test]
    fn everything_known_of_a_place_reads_back() {
        let text = |text: &str| Some(text.to_owned());
        let place = Place {
            country: text("BR"),
            country_name: text("Brazil"),
            region: text("São Paulo"),
            city: text(&"x".repeat(300)),
            zip: text("01000-000"),
            lat: Some(-23.5475),
            lon: Some(0.0),
            tz: text("-03:00"),
        };
        let mut builder = Builder::new();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        builder.add(ip("1.0.0.0"), ip("1.0.0.9"), &place).unwrap();
        builder
            .add(ip("::2:0:0:0"), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), &place)
            .unwrap();
        let db = open(&builder);
        assert_eq!(db.lookup(ip("1.0.0.9")), Some(place.clone()));
        assert_eq!(db.lookup(ip("1.0.0.10")), None);
        assert_eq!(db.lookup(ip("2001:db8::1")), Some(place));
        assert_eq!(builder.size().1, 1, "equal places are one record");
    }

    #[test]
    fn the_metadata_are_those_of_the_format() {
        let mut builder = Builder::new();
        builder
            .add(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into(), &city("all"))
            .unwrap();
        let mut file = Vec::new();
        builder.write(&mut file, "IP2Location-City", 1_790_000_000).unwrap();
        let reader = Reader::from_source(file).unwrap();
        let found = reader.metadata();
        assert_eq!((found.binary_format_major_version, found.ip_version), (2, 6));
        assert_eq!((found.record_size, found.build_epoch), (32, 1_790_000_000));
        assert_eq!(found.database_type, "IP2Location-City");
        assert_eq!(found.node_count as usize, builder.size().0);
    }

    /// Ranges that rise and do not overlap, with gaps: pairs of (gap, length).
    fn ranges(steps: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let mut next = 0_u32;
        let mut ranges = Vec::new();
        for (gap, length) in steps {
            let Some(first) = next.checked_add(*gap) else { break };
            let Some(last) = first.checked_add(*length) else { break };
            ranges.push((first, last));
            let Some(after) = last.checked_add(1) else { break };
            next = after;
        }
        ranges
    }

    /// Checks both ends, the middle and the neighbours of every range.
    fn check(ranges: &[(u32, u32)], at: impl Fn(u32) -> IpAddr, db: &GeoDb) {
        let expect = |ip: u32| {
            let index = ranges.iter().position(|(first, last)| (*first..=*last).contains(&ip));
            index.map(|index| format!("city number {index}"))
        };
        for (first, last) in ranges {
            let middle = first + (last - first) / 2;
            let near = [first.checked_sub(1), last.checked_add(1)].into_iter().flatten();
            for ip in [*first, middle, *last].into_iter().chain(near) {
                assert_eq!(found(db, at(ip)), expect(ip), "{ip} of {ranges:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn every_address_of_a_range_finds_it_and_its_neighbours_do_not(
            steps in prop::collection::vec((0_u32..70_000, 0_u32..200_000), 1..30),
        ) {
            let ranges = ranges(&steps);
            let v4 = |ip: u32| IpAddr::V4(Ipv4Addr::from(ip));
            // The same ranges of whole networks, high up in IPv6.
            let v6 = |ip: u32| Ipv6Addr::from((0x2001_u128 << 112) | (u128::from(ip) << 40)).into();
            let mut builder = Builder::new();
            for (index, (first, last)) in ranges.iter().enumerate() {
                let place = city(&format!("city number {index}"));
                builder.add(v4(*first), v4(*last), &place).unwrap();
                builder.add(v6(*first), v6(*last), &place).unwrap();
            }
            let db = open(&builder);
            check(&ranges, v4, &db);
            check(&ranges, v6, &db);
        }

        #[test]
        fn what_is_said_last_of_an_address_stands(
            said in prop::collection::vec((any::<u8>(), any::<u8>()), 1..12),
        ) {
            let at = |low: u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, low));
            let mut builder = Builder::new();
            for (index, (a, b)) in said.iter().enumerate() {
                builder.add(at(*a.min(b)), at(*a.max(b)), &city(&format!("city {index}"))).unwrap();
            }
            let db = open(&builder);
            for low in 0..=u8::MAX {
                let holds = |(a, b): &(u8, u8)| (*a.min(b)..=*a.max(b)).contains(&low);
                let expect = said.iter().rposition(holds).map(|index| format!("city {index}"));
                prop_assert_eq!(found(&db, at(low)), expect, "{}", low);
            }
        }
    }
}

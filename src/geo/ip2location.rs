//! IP2Location's CSV edition (DB11 and the LITE form of it), read line by line.
//!
//! A line is `"from","to","US","United States of America","California","Mountain View","37.4","-122.0",
//! "94043","-07:00"`: first and last address as decimal numbers, then the place; `-` is nothing. Of
//! shorter editions the columns that are there count. A file is of one family, which its first line
//! shows: only IPv6 files have numbers of more than 32 bits there. The IPv4 addresses that IPv6 files
//! repeat below `::ffff:0:0` are kept as IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Place;

/// Columns of DB11; further ones are not read.
const COLUMNS_MAX: usize = 10;
/// Columns without which a line says nothing.
const COLUMNS_MIN: usize = 3;
/// Bytes of one text; the longest in use has fewer than 100.
const TEXT_BYTES_MAX: usize = 256;
/// First and last of the IPv6 addresses that stand for IPv4 ones.
const MAPPED: (u128, u128) = (0xffff_0000_0000, 0xffff_ffff_ffff);

/// One line: a range of addresses and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// First address.
    pub first: IpAddr,
    /// Last address, of the same family.
    pub last: IpAddr,
    /// Where; nothing is known of a place without any part.
    pub place: Place,
}

/// Reads the lines of one file in order.
#[derive(Debug, Default)]
pub struct Lines {
    is_v6: Option<bool>,
    /// The last address so far: ranges rise and never overlap.
    last: Option<u128>,
}

impl Lines {
    /// The range of the next line.
    ///
    /// # Errors
    /// What is wrong with it; the line then counts for nothing.
    pub fn read(&mut self, line: &str) -> Result<Range, &'static str> {
        let columns = columns(line)?;
        let column = |at: usize| columns.get(at).map(String::as_str).filter(|t| !t.is_empty());
        let number = |at: usize| column(at).and_then(|text| text.parse::<u128>().ok());
        let (Some(first), Some(last)) = (number(0), number(1)) else {
            return Err("does not begin with two addresses as numbers");
        };
        if first > last {
            return Err("begins after it ends");
        }
        let is_v6 = *self.is_v6.get_or_insert(last > u128::from(u32::MAX));
        if !is_v6 && last > u128::from(u32::MAX) {
            return Err("has an address of IPv6 in a file of IPv4");
        }
        if self.last.is_some_and(|before| first <= before) {
            return Err("is out of order, or overlaps a line before it");
        }
        if columns.len() < COLUMNS_MIN {
            return Err("has fewer than three columns");
        }
        let place = place(&columns)?;
        self.last = Some(last);
        if is_v6 && first <= u128::from(u32::MAX) && place != Place::default() {
            return Err("is where IPv4 addresses are kept");
        }
        let (first, last) = match (to_v4(first, is_v6), to_v4(last, is_v6)) {
            (Some(first), Some(last)) => (IpAddr::V4(first), IpAddr::V4(last)),
            _ => (Ipv6Addr::from(first).into(), Ipv6Addr::from(last).into()),
        };
        Ok(Range { first, last, place })
    }
}

fn to_v4(number: u128, is_v6: bool) -> Option<Ipv4Addr> {
    let number = match is_v6 {
        false => number,
        true if (MAPPED.0..=MAPPED.1).contains(&number) => number - MAPPED.0,
        true => return None,
    };
    u32::try_from(number).ok().map(Ipv4Addr::from)
}

fn place(columns: &[String]) -> Result<Place, &'static str> {
    let text = |at: usize| columns.get(at).filter(|text| !text.is_empty() && *text != "-").cloned();
    let degrees = |at: usize, max: f64| match text(at) {
        None => Ok(None),
        Some(text) => match text.parse::<f64>() {
            Ok(degrees) if degrees.abs() <= max => Ok(Some(degrees)),
            _ => Err("has a coordinate that is none"),
        },
    };
    let country = text(2);
    if country.as_ref().is_some_and(|code| code.len() != 2 || !code.is_ascii()) {
        return Err("has a country that is no code of two letters");
    }
    let (mut lat, mut lon) = (degrees(6, 90.0)?, degrees(7, 180.0)?);
    if country.is_none() {
        // The zeros of unknown ranges are no place in the Atlantic.
        (lat, lon) = (None, None);
    }
    Ok(Place {
        country: country.map(|code| code.to_ascii_uppercase()),
        country_name: text(3),
        region: text(4),
        city: text(5),
        zip: text(8),
        lat,
        lon,
        tz: text(9),
    })
}

/// The columns of a line, with quotes or without; a quote inside quotes is doubled.
fn columns(line: &str) -> Result<Vec<String>, &'static str> {
    let mut columns = Vec::with_capacity(COLUMNS_MAX);
    let mut rest = line.trim_end_matches(['\r', '\n']);
    while columns.len() < COLUMNS_MAX {
        let mut text = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (part, after) =
                    quoted.split_once('"').ok_or("has a quote that does not end")?;
                text.push_str(part);
                let Some(more) = after.strip_prefix('"') else {
                    rest = after;
                    break;
                };
                text.push('"');
                quoted = more;
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            text.push_str(rest.get(..end).unwrap_or_default().trim());
            rest = rest.get(end..).unwrap_or_default();
        }
        if text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) {
            return Err("has a column that is no name");
        }
        columns.push(text);
        if rest.is_empty() {
            break;
        }
        rest = rest.strip_prefix(',').ok_or("has something between a quote and a comma")?;
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOGLE: &str = "\"134744064\",\"134744319\",\"US\",\"United States of America\",\"California\",\
                          \"Mountain View\",\"37.405992\",\"-122.078515\",\"94043\",\"-07:00\"";

    fn read(line: &str) -> Result<Range, &'static str> {
        Lines::default().read(line)
    }

    #[test]
    fn a_line_of_db11_is_read_whole() {
        let range = read(GOOGLE).unwrap();
        assert_eq!(
            (range.first.to_string(), range.last.to_string()),
            ("8.8.8.0".into(), "8.8.8.255".into())
        );
        let text = |text: &str| Some(text.to_owned());
        let expect = Place {
            country: text("US"),
            country_name: text("United States of America"),
            region: text("California"),
            city: text("Mountain View"),
            zip: text("94043"),
            lat: Some(37.405_992),
            lon: Some(-122.078_515),
            tz: text("-07:00"),
        };
        assert_eq!(range.place, expect);
    }

    #[test]
    fn a_dash_is_nothing_and_shorter_editions_are_read_as_far_as_they_go() {
        let empty =
            "\"0\",\"16777215\",\"-\",\"-\",\"-\",\"-\",\"0.000000\",\"0.000000\",\"-\",\"-\"";
        assert_eq!(read(empty).unwrap().place, Place::default());
        let range = read("16777216,16777471,AU,Australia\r\n").unwrap();
        assert_eq!(range.place.country.as_deref(), Some("AU"));
        assert_eq!(range.place.country_name.as_deref(), Some("Australia"));
        let quotes = "1,2,CI,\"Cote d\"\"Ivoire, the\"";
        assert_eq!(
            read(quotes).unwrap().place.country_name.as_deref(),
            Some("Cote d\"Ivoire, the")
        );
    }

    #[test]
    fn a_file_of_ipv6_keeps_its_mapped_addresses_as_ipv4() {
        let mut lines = Lines::default();
        let first = lines.read("\"0\",\"281470681743359\",\"-\",\"-\"").unwrap();
        assert_eq!(first.first.to_string(), "::");
        let mapped =
            lines.read("\"281470698520576\",\"281470698520831\",\"AU\",\"Australia\"").unwrap();
        assert_eq!(
            (mapped.first.to_string(), mapped.last.to_string()),
            ("1.0.0.0".into(), "1.0.0.255".into())
        );
        let v6 = lines
            .read("\"42540528726795050063891204319802818560\",\"42540528806023212578155541913346768895\",\"JP\",\"Japan\"")
            .unwrap();
        assert_eq!(v6.first.to_string(), "2001:200::");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, expect) in [
            ("", "does not begin with two addresses as numbers"),
            ("ip_from,ip_to,country_code", "does not begin with two addresses as numbers"),
            ("-1,5,US", "does not begin with two addresses as numbers"),
            ("9,5,US,x", "begins after it ends"),
            ("1,5", "has fewer than three columns"),
            ("1,5,USA,x", "has a country that is no code of two letters"),
            ("1,5,US,x,y,z,91,0", "has a coordinate that is none"),
            ("1,5,US,x,y,z,NaN,0", "has a coordinate that is none"),
            ("\"1\",\"5\",\"US", "has a quote that does not end"),
            ("\"1\"x,5,US", "has something between a quote and a comma"),
            ("1,5,US,a\u{7}b", "has a column that is no name"),
        ] {
            assert_eq!(read(line), Err(expect), "{line}");
        }
        let mut lines = Lines::default();
        lines.read(GOOGLE).unwrap();
        assert_eq!(lines.read(GOOGLE), Err("is out of order, or overlaps a line before it"));
        let v6 = "281470698520576,281470698520831,AU,x";
        assert_eq!(lines.read(v6), Err("has an address of IPv6 in a file of IPv4"));
    }
}

//! The country a time zone belongs to: a weak hint when nothing better is known.
//!
//! The table is text, one line `zone country` each, sorted by zone in lower case, so that it can be
//! searched where it lies: no start-up work and no memory beyond the program itself.

/// `zone COUNTRY` lines; see `LICENCES.md` for where they come from.
static TABLE: &str = include_str!("timezones.txt");

/// The country (ISO 3166-1 alpha-2, upper case) of an IANA zone name in any case; aliases count.
/// `None` for zones without a country, such as `Etc/UTC`, and for unknown names.
pub fn country(zone: &str) -> Option<&'static str> {
    let (mut low, mut high) = (0, TABLE.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        let start = TABLE.get(..middle)?.rfind('\n').map_or(0, |newline| newline + 1);
        let end = middle + TABLE.get(middle..)?.find('\n')?;
        let (name, country) = TABLE.get(start..end)?.split_once(' ')?;
        match name.bytes().cmp(zone.bytes().map(|byte| byte.to_ascii_lowercase())) {
            std::cmp::Ordering::Equal => return Some(country),
            std::cmp::Ordering::Less => low = end + 1,
            std::cmp::Ordering::Greater => high = start,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_found_and_sorted() {
        let mut last = "";
        for line in TABLE.lines() {
            let (name, code) = line.split_once(' ').unwrap();
            assert!(last < name, "{last} before {name}");
            assert!(code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase()), "{line}");
            assert_eq!(country(name), Some(code), "{name}");
            assert_eq!(country(&name.to_ascii_uppercase()), Some(code), "{name}");
            last = name;
        }
    }

    #[test]
    fn old_and_new_names_of_a_zone_have_its_country() {
        for (zone, expect) in [
            ("America/Los_Angeles", Some("US")),
            ("Europe/Kyiv", Some("UA")),
            ("europe/kiev", Some("UA")),
            ("Asia/Calcutta", Some("IN")),
            ("Asia/Kolkata", Some("IN")),
            ("Pacific/Apia", Some("WS")),
            ("Africa/Johannesburg", Some("ZA")),
            ("Africa/Asmera", Some("ER")),
            ("America/Argentina/Buenos_Aires", Some("AR")),
            ("UTC", None),
            ("Etc/GMT+5", None),
            ("EST", None),
            ("", None),
            ("zzz", None),
            ("africa", None),
            ("ü", None),
        ] {
            assert_eq!(country(zone), expect, "{zone}");
        }
    }
}

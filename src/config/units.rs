//! Durations and sizes as people write them: `"2s"`, `"500ms"`, `"1h30m"`, `"64MiB"`, `"10MB"`.

use std::time::Duration;

const DURATION_UNITS: [(&str, f64); 5] =
    [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Longest duration that is believed: a hundred years, far below what the arithmetic holds.
const SECONDS_MAX: f64 = 100.0 * 366.0 * 86_400.0;

/// Reads `500ms`, `2s`, `1.5s`, `1h30m`, `7d`; `None` for anything else.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?.1;
        seconds += number.parse::<f64>().ok()? * factor;
        rest = next;
    }
    (!text.trim().is_empty() && seconds <= SECONDS_MAX).then(|| Duration::from_secs_f64(seconds))
}

/// Reads `65536`, `64KiB`, `10 MB`; `None` for anything else, and for what 64 bits do not hold.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let unit = unit.trim_start();
    let factor = match unit {
        "" => 1,
        unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_the_forms_people_write() {
        let check = |text: &str, milliseconds: Option<u64>| {
            assert_eq!(duration(text), milliseconds.map(Duration::from_millis), "{text:?}");
        };
        check("2s", Some(2_000));
        check("500ms", Some(500));
        check("1.5s", Some(1_500));
        check("1h30m", Some(5_400_000));
        check("7d", Some(604_800_000));
        check("0s", Some(0));
        for wrong in ["", " ", "2", "s", "2 s", "-1s", "1x", "2sec", "1..5s", "999999999d", "1s2"] {
            check(wrong, None);
        }
    }

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(size(text), bytes, "{text:?}");
        check("65536", Some(65_536));
        check("64MiB", Some(64 << 20));
        check("64 MiB", Some(64 << 20));
        check("10MB", Some(10_000_000));
        check("1TiB", Some(1 << 40));
        for wrong in ["", "MiB", "-1", "1.5GiB", "64mib", "99999999999TiB", "1 2"] {
            check(wrong, None);
        }
    }
}

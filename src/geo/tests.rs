//! Places of known addresses, in both shapes of database.

use super::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/geo").join(name)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_built_in_database_knows_countries_of_both_address_families() {
    let db = GeoDb::open(None).unwrap();
    db.wait();
    for (address, country) in [
        ("8.8.8.8", "US"),
        ("81.2.69.142", "GB"),
        ("1.1.1.1", "AU"),
        ("2001:4860:4860::8888", "US"),
    ] {
        let place = db.lookup(ip(address)).unwrap();
        assert_eq!(place, Place { country: Some(country.to_owned()), ..Place::default() });
    }
    assert_eq!(db.lookup(ip("::ffff:8.8.8.8")), db.lookup(ip("8.8.8.8")));
    assert_eq!(db.lookup(ip("127.0.0.1")), None);
    assert_eq!(db.lookup(ip("::1")), None);
}

#[test]
fn a_nested_record_is_read_whole() {
    let db = GeoDb::open(Some(&data("GeoIP2-City-Test.mmdb"))).unwrap();
    let (place, first, last) = db.lookup_network(ip("81.2.69.142")).unwrap();
    let expect = Place {
        country: Some("GB".to_owned()),
        country_name: Some("United Kingdom".to_owned()),
        region: Some("England".to_owned()),
        city: Some("London".to_owned()),
        zip: None,
        lat: Some(51.5142),
        lon: Some(-0.0931),
        tz: Some("Europe/London".to_owned()),
    };
    assert_eq!(place, expect);
    assert_eq!((first, last), (ip("81.2.69.142"), ip("81.2.69.143")));
    assert_eq!(db.lookup(ip("2001:218::")).unwrap().country.as_deref(), Some("JP"));
    assert_eq!(db.lookup(ip("10.0.0.1")), None);
}

#[test]
fn a_v6_address_in_a_v4_database_is_unknown() {
    let db = GeoDb::open(Some(&data("MaxMind-DB-test-ipv4-24.mmdb"))).unwrap();
    assert_eq!(db.lookup(ip("2001:218::")), None);
}

#[test]
fn a_damaged_record_is_unknown() {
    let db = GeoDb::open(Some(&data("GeoIP2-City-Test-Broken-Double-Format.mmdb"))).unwrap();
    assert_eq!(db.lookup(ip("2001:220::")), None);
}

#[test]
fn a_bin_file_is_passed_over_and_a_missing_one_is_an_error() {
    let db = GeoDb::open(Some(Path::new("IP2LOCATION-LITE-DB11.BIN"))).unwrap();
    assert_eq!(db.lookup(ip("8.8.8.8")), None);
    assert!(matches!(GeoDb::open(Some(Path::new("none.mmdb"))), Err(GeoError::Read { .. })));
    let text = data("LICENCES.md");
    assert!(matches!(GeoDb::open(Some(&text)), Err(GeoError::Format { .. })));
}

#[test]
fn a_reload_replaces_the_database_and_a_failed_one_keeps_it() {
    let db = GeoDb::none();
    assert_eq!(db.lookup(ip("81.2.69.142")), None);
    db.reload(&data("GeoIP2-City-Test.mmdb")).unwrap();
    assert!(db.reload(Path::new("none.mmdb")).is_err());
    assert_eq!(db.lookup(ip("81.2.69.142")).unwrap().city.as_deref(), Some("London"));
}

#[test]
fn a_network_has_its_first_and_last_address() {
    for (address, prefix, first, last) in [
        ("10.1.2.3", 8, "10.0.0.0", "10.255.255.255"),
        ("10.1.2.3", 104, "10.0.0.0", "10.255.255.255"),
        ("10.1.2.3", 32, "10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", 0, "0.0.0.0", "255.255.255.255"),
        ("2001:db8::1", 32, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::1", 128, "2001:db8::1", "2001:db8::1"),
    ] {
        assert_eq!(bounds(ip(address), prefix), (ip(first), ip(last)), "{address}/{prefix}");
    }
}

/// A database writer just large enough for a flat record: one node, both branches to one record.
#[test]
fn a_flat_record_with_32_bit_coordinates_and_empty_texts_is_read() {
    let mut record = vec![0xe7];
    for (key, value) in [
        ("country_code", text("US")),
        ("state1", text("California")),
        ("city", text("")),
        ("postcode", text("94043")),
        ("timezone", text("America/Los_Angeles")),
        ("latitude", float(37.422)),
        ("longitude", float(-122.085)),
    ] {
        record.extend(text(key));
        record.extend(value);
    }
    // Nodes of 24-bit records: data starts at node count + 16.
    let mut file = vec![0, 0, 17, 0, 0, 17];
    file.extend([0; 16]);
    file.extend(record);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    file.push(0xe9);
    for (key, value) in [
        ("binary_format_major_version", vec![0xa1, 2]),
        ("binary_format_minor_version", vec![0xa1, 0]),
        ("build_epoch", vec![0x04, 2, 0, 0, 0, 1]),
        ("database_type", text("city flat")),
        ("description", vec![0xe0]),
        ("ip_version", vec![0xa1, 4]),
        ("languages", vec![0x00, 4]),
        ("node_count", vec![0xc1, 1]),
        ("record_size", vec![0xa1, 24]),
    ] {
        file.extend(text(key));
        file.extend(value);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flat.mmdb");
    std::fs::write(&path, file).unwrap();
    let expect = Place {
        country: Some("US".to_owned()),
        country_name: None,
        region: Some("California".to_owned()),
        city: None,
        zip: Some("94043".to_owned()),
        lat: Some(37.422),
        lon: Some(-122.085),
        tz: Some("America/Los_Angeles".to_owned()),
    };
    assert_eq!(GeoDb::open(Some(&path)).unwrap().lookup(ip("8.8.8.8")), Some(expect));
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = match u8::try_from(text.len()).unwrap() {
        length @ 0..29 => vec![0x40 | length],
        length => vec![0x5d, length - 29],
    };
    bytes.extend(text.as_bytes());
    bytes
}

fn float(number: f32) -> Vec<u8> {
    let mut bytes = vec![0x04, 8];
    bytes.extend(number.to_be_bytes());
    bytes
}

//! What each fuzz target does with its bytes, and what must hold whatever they are.
//!
//! The programs of `fuzz_targets/` call these under the fuzzing engine; `tests/corpora.rs` calls them
//! with the kept inputs in every test run. A parser of outside bytes that is not in [`TABLE`] is not
//! fuzzed. Each function is fast and keeps nothing between inputs but what is costly to build.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken promise is the finding")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use chrono::DateTime;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;
use tracker::backends::clickhouse;
use tracker::config::{Config, IntakeConfig, LinksConfig, TrustedProxy};
use tracker::event::{self, Body, Glance, Ingest, Origin, Verdict};
use tracker::geo::GeoDb;
use tracker::geo::ip2location::Lines;
use tracker::geo::mmdb::Builder;
use tracker::http::forwarded::{self, Trusted};
use tracker::http::{Encoding, Frame, batch, cookie, proxy};
use tracker::intake::{self, Agents, Fact, Hit, IntakeError, Keys, Preparer, RequestFacts, Tenant};
use tracker::links::{Key, Policy, base64};
use tracker::{delivery, import, journal};

/// Does something with an input; panics when what must hold does not.
pub(crate) type Target = fn(&[u8]);

/// Each target by the name of its corpus folder and of its program.
pub(crate) const TABLE: &[(&str, Target)] = &[
    ("agent", agent),
    ("batch", batch),
    ("config", config),
    ("cookies", cookies),
    ("cursor", cursor),
    ("event", event),
    ("forwarded", forwarded),
    ("frame", frame),
    ("geo_line", geo_line),
    ("hit", hit),
    ("inflate", inflate),
    ("json", json),
    ("log_line", log_line),
    ("lz4", lz4),
    ("payment", payment),
    ("path", path),
    ("redirect", redirect),
    ("segment", segment),
    ("store_answer", store_answer),
    ("store_refusal", store_refusal),
    ("store_table", store_table),
    ("url", url),
];

/// Runs the target `name` on one input; panics on a finding.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let target = TABLE.iter().find(|(known, _)| *known == name);
    let (_, target) = target.expect("the name of a target");
    target(bytes);
}

/// Bytes of a refusal that are told.
const REFUSAL_BYTES_MAX: usize = 600;
/// Nesting of JSON that is taken, as by default.
const NESTING_MAX: usize = 64;
/// Events of a batch that are taken.
const EVENTS_MAX: usize = 100;
/// Bytes a body may inflate to; low, so that an input can pass it.
const INFLATED_BYTES_MAX: usize = 64 << 10;
/// Bytes of a cursor's slot, and of what stands in it before the content.
const SLOT_BYTES: usize = 16 << 10;
const SLOT_HEAD_BYTES: usize = 20;
/// Bytes of a segment before its frames, and of a frame before its record.
const SEGMENT_HEADER_BYTES: usize = 4096;
const FRAME_HEAD_BYTES: usize = 24;
/// Bytes of a user agent that are stored.
const AGENT_BYTES_MAX: usize = 512;

/// JSON of strangers is read within its nesting, or refused; what was read reads the same again.
fn json(bytes: &[u8]) {
    let Ok(value) = intake::parse_json(bytes, NESTING_MAX) else { return };
    assert!(depth(&value) <= NESTING_MAX);
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    assert!(!holds_nul(&value), "{value}");
    assert_eq!(intake::parse_json(&written, NESTING_MAX), Ok(value));
}

/// The path of a request for a server behind us: once cleaned it stays as it is, and whoever decodes
/// it once and takes `\` for `/` still finds no way up.
fn path(bytes: &[u8]) {
    let path = text(bytes);
    let Some(cleaned) = proxy::path::clean(&path) else { return };
    assert!(cleaned.starts_with('/'), "{cleaned:?}");
    assert_eq!(proxy::path::clean(&cleaned).as_deref(), Some(&*cleaned));
    let decoded = decoded(cleaned.as_bytes());
    let mut parts = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
    assert!(!parts.any(|part| matches!(part, b"." | b"..")), "{cleaned:?}");
}

/// Each `%` with two digits of base 16 as the byte they are.
fn decoded(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        let digits = rest.get(..2).filter(|_| *first == b'%');
        let byte = digits
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        all.push(byte.unwrap_or(*first));
        bytes = if byte.is_some() { rest.get(2..).unwrap_or_default() } else { rest };
    }
    all
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// No store takes NUL in a text.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value))
        }
        _ => false,
    }
}

/// A whole request: path pairs, query, `User` header and body, one after the other, each but the
/// last ended by a line feed. It becomes an event that survives the journal, or is refused.
fn hit(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let path = text(parts.next().unwrap_or_default());
    let query = text(parts.next().unwrap_or_default());
    let user = parts.next().filter(|user| !user.is_empty());
    let facts = RequestFacts {
        uri: format!("/tr/v1/tr/{path}?{query}"),
        user: user.map(|user| text(user).into_owned()),
        ..browser()
    };
    let body = match parts.next().map(|body| intake::parse_json(body, NESTING_MAX)) {
        Some(Ok(Value::Object(body))) => Some(body),
        _ => None,
    };
    let fields = intake::fields(&facts, &path, Some(&query), body, Some("ignore"));
    for origin in [Origin::Client, Origin::Server] {
        prepare(Hit {
            origin,
            facts: Arc::new(facts.clone()),
            fields: fields.clone(),
            length: bytes.len(),
        });
    }
}

/// The body of a payment: refused by field, or an event whose amounts are within bounds and whose
/// payments have ids of their own; the same body makes the same ids.
fn payment(bytes: &[u8]) {
    let Ok(Value::Object(body)) = intake::parse_payments(bytes, NESTING_MAX) else { return };
    let prepare = || {
        let fields = intake::fields(&browser(), "", None, Some(body.clone()), None);
        let (facts, length) = (Arc::new(browser()), bytes.len());
        let hit = Hit { origin: Origin::Server, facts, fields, length };
        preparer().prepare_as(Fact::Payment, hit)
    };
    let payments = |event: event::Event| match event.body {
        Body::Payment(payments) => payments,
        other => panic!("{other:?}"),
    };
    let event = match prepare() {
        Ok(prepared) => prepared.event,
        Err(IntakeError::Invalid { field, message }) => {
            return assert!(!field.is_empty() && !message.is_empty());
        }
        Err(IntakeError::TooLarge { length, max }) => return assert!(length > max),
        Err(error) => panic!("preparing has no journal: {error}"),
    };
    let record = event::encode(&event).expect("what was prepared can be written");
    assert_eq!(event::decode(&record).expect("what was written can be read"), event);
    let first = payments(event);
    let ids: std::collections::BTreeSet<_> =
        first.lines.iter().map(|line| line.id.uuid()).collect();
    assert_eq!(ids.len(), first.lines.len(), "{first:?}");
    if first.lines.iter().all(|line| line.orid.is_some()) {
        let again = payments(prepare().expect("as before").event);
        assert!(first.lines.iter().zip(&again.lines).all(|(a, b)| a.id == b.id), "{again:?}");
    }
}

/// Lines of a file of places rise and never overlap; what is wrong with the others is said.
fn geo_line(bytes: &[u8]) {
    let mut lines = Lines::default();
    let mut builder = Builder::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        if let Ok(range) = lines.read(line) {
            assert_eq!(range.first.is_ipv4(), range.last.is_ipv4(), "{range:?}");
            assert!(range.first <= range.last, "{range:?}");
            builder.add(range.first, range.last, &range.place).expect("few ranges");
        }
    }
    let mut file = Vec::new();
    builder.write(&mut file, "fuzz", 0).expect("memory takes it");
}

/// Agent, language and referrer, each on a line of its own: a verdict, and texts within bounds.
fn agent(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().map(|line| text(line).into_owned());
    let facts = RequestFacts { user_agent: line(), language: line(), referer: line(), ..browser() };
    let known = agents().classify(facts.user_agent.as_deref().unwrap_or_default());
    assert!(known.verdict == Verdict::Human || known.reason.is_some());
    let fields = serde_json::Map::new();
    prepare(Hit { origin: Origin::Client, facts: Arc::new(facts), fields, length: 0 });
}

/// The event of a hit, if it is one, is the same before and behind the journal.
fn prepare(hit: Hit) {
    let prepared = match preparer().prepare(hit) {
        Ok(prepared) => prepared,
        Err(IntakeError::Invalid { field, message }) => {
            return assert!(!field.is_empty() && !message.is_empty());
        }
        Err(IntakeError::TooLarge { length, max }) => return assert!(length > max),
        Err(error) => panic!("preparing has no journal: {error}"),
    };
    let stored = prepared.event.agent.user_agent.as_deref().unwrap_or_default();
    assert!(stored.len() <= AGENT_BYTES_MAX);
    assert!(matches!(prepared.event.body, Body::Track(_)));
    let record = event::encode(&prepared.event).expect("what was prepared can be written");
    let written = record.get(1..).and_then(|json| serde_json::from_slice(json).ok());
    let written = written.expect("a record is JSON behind its version");
    assert!(!holds_nul(&written), "{written}");
    assert_eq!(event::decode(&record).expect("what was written can be read"), prepared.event);
}

/// Any text as an address: cleaned of query, fragment and control characters, or none.
fn url(bytes: &[u8]) {
    let Some(address) = intake::clean_url(&text(bytes)) else { return };
    assert!(!address.clean.contains(['?', '#']), "{address:?}");
    assert!(!address.clean.contains(char::is_control), "{address:?}");
    assert_eq!(address.host, address.host.to_ascii_lowercase());
    assert!(!address.query.contains('#'), "{address:?}");
}

/// Cookie headers, one a line, give names without what separates them; the same text as a host gives
/// at most one cookie, and for a domain that holds the host.
fn cookies(bytes: &[u8]) {
    let lines: Vec<HeaderValue> = bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    for (name, value) in cookie::parse(lines.iter()) {
        assert!(!name.is_empty() && name == name.trim() && !name.contains([';', '=']), "{name:?}");
        assert!(!value.contains(';'), "{value:?}");
    }
    let host = text(bytes);
    let domain = intake::cookie_domain(&host);
    if let Some(domain) = &domain {
        assert!(host.trim_end_matches('.').ends_with(domain.as_str()) && domain.contains('.'));
    }
    let mut headers = HeaderMap::new();
    let vid = "14fb0860-b4bf-11e9-8971-7b80435315ac".parse().expect("an id");
    cookie::set(
        &mut headers,
        &intake::VisitorCookie { vid, domain, agreed: None },
        cookie::Scope::Plain,
    );
    assert!(headers.len() <= 1);
}

/// Forwarding headers of any shape: addresses in canonical form, and none from a stranger.
fn forwarded(bytes: &[u8]) {
    let line = text(bytes);
    for ip in forwarded::forwarded_for(&line).into_iter().chain([forwarded::node(&line)]).flatten()
    {
        assert_eq!(forwarded::node(&ip.to_string()), Some(ip));
    }
    let proxy = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let stranger = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let trusted = Trusted::new(&[TrustedProxy::Loopback, TrustedProxy::Private]);
    for name in ["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip"] {
        let lines = bytes.split(|byte| *byte == b'\n');
        let values = lines.filter_map(|line| HeaderValue::from_bytes(line).ok());
        let headers: HeaderMap =
            values.map(|value| (HeaderName::from_static(name), value)).collect();
        let client = trusted.client(proxy, &headers);
        assert_eq!(client, client.to_canonical());
        assert_eq!(trusted.client(stranger, &headers), stranger);
    }
}

/// A body of many events splits into at most the events allowed, each a piece of it, or is refused.
fn batch(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let mut lines = HeaderMap::new();
    lines.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    for headers in [HeaderMap::new(), lines] {
        let form = batch::form(&headers, bytes);
        let Ok(events) = batch::split(form, &body, EVENTS_MAX) else { continue };
        assert!(events.len() <= EVENTS_MAX);
        assert!(events.iter().map(Bytes::len).sum::<usize>() <= bytes.len());
        for event in &events {
            assert!(!event.is_empty());
            drop(intake::parse_json(event, NESTING_MAX));
        }
    }
}

/// A compressed body inflates within its bound, or is refused.
fn inflate(bytes: &[u8]) {
    for encoding in [Encoding::Gzip, Encoding::Brotli] {
        if let Ok(body) = tracker::http::inflate(encoding, bytes, INFLATED_BYTES_MAX) {
            assert!(body.len() <= INFLATED_BYTES_MAX);
        }
    }
}

/// Any bytes as a WebSocket frame of either kind: events within the bounds of a body, or refused.
fn frame(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    for frame in [Frame::Text(bytes.clone()), Frame::Binary(bytes)] {
        let Ok((form, events)) = tracker::http::payload(frame, INFLATED_BYTES_MAX) else {
            continue;
        };
        assert!(form != batch::Form::Empty && !events.is_empty());
        let Ok(events) = batch::split(form, &events, EVENTS_MAX) else { continue };
        assert!(events.len() <= EVENTS_MAX);
        for event in events {
            drop(intake::parse_json(&event, NESTING_MAX));
        }
    }
}

/// An LZ4 block inflates to what it declares, within its bound, or is refused; what was compressed
/// comes back.
fn lz4(bytes: &[u8]) {
    if let Ok(inflated) = tracker::http::inflate_block(bytes, INFLATED_BYTES_MAX) {
        assert!(inflated.len() <= INFLATED_BYTES_MAX);
        let declared = bytes.first_chunk().map(|length| u32::from_le_bytes(*length));
        assert_eq!(declared.map(u64::from), Some(inflated.len() as u64));
    }
    let packed = lz4_flex::block::compress_prepend_size(bytes);
    let back = tracker::http::inflate_block(&packed, INFLATED_BYTES_MAX);
    assert!(back.is_ok_and(|back| back == bytes) || bytes.len() > INFLATED_BYTES_MAX);
}

/// Any text as a configuration file: settings, or errors that each say something.
fn config(bytes: &[u8]) {
    let variables = BTreeMap::from([("NAME".to_owned(), "value".to_owned())]);
    if let Err(errors) = Config::parse(&text(bytes), Path::new("."), &variables) {
        assert!(!errors.is_empty() && errors.iter().all(|error| !error.message.is_empty()));
    }
}

/// A line of an access log is a request or says why not.
fn log_line(bytes: &[u8]) {
    if let Ok(line) = import::parse(&text(bytes)) {
        assert!(!line.method.is_empty() && !line.target.is_empty());
    }
}

/// Any text as a destination: what is allowed leads to a configured host, in a form that every browser
/// reads the same and no header can be split by. And as the address of a short link: one form.
fn redirect(bytes: &[u8]) {
    let line = text(bytes);
    let config = LinksConfig {
        redirect_hosts: vec!["good.example".to_owned(), ".wide.example".to_owned()],
        domains: vec!["own.example".to_owned()],
        ..LinksConfig::default()
    };
    let policy = Policy::new(&config, 1);
    let check = |url: &url::Url| {
        assert!(matches!(url.scheme(), "http" | "https"), "{url}");
        assert!(url.username().is_empty() && url.password().is_none(), "{url}");
        assert!(url.as_str().bytes().all(|byte| (0x21..0x7f).contains(&byte)), "{url}");
        assert_eq!(url::Url::parse(url.as_str()).as_ref(), Ok(url));
    };
    if let Ok(url) = policy.redirect(&line, false) {
        check(&url);
        let host = url.host_str().expect("a host").trim_end_matches('.');
        let below = host == "wide.example" || host.ends_with(".wide.example");
        assert!(host == "good.example" || below, "{url}");
    }
    if let Ok(target) = policy.link(&line, "go.example") {
        check(&target.url);
        assert_ne!(target.url.host_str(), Some("go.example"));
        assert!(target.tracked.is_some() || !policy.is_own(&target.url), "{}", target.url);
    }
    if let Ok(key) = Key::parse(&line) {
        assert_eq!(key.as_str(), format!("{}{}", key.host(), key.path()));
        assert!(key.path().len() > 1 && !key.host().is_empty());
    }
    drop(base64::decode(&line));
}

/// Any bytes as a segment file: nothing panics. And as records, a line each, behind a damaged header
/// and before any garbage: every one is found.
fn segment(bytes: &[u8]) {
    assert!(journal::scan_bytes(bytes) <= bytes.len() / FRAME_HEAD_BYTES);
    let mut file = vec![0; SEGMENT_HEADER_BYTES];
    let mut position = 0_u64;
    for record in bytes.split(|byte| *byte == b'\n') {
        position += 1;
        let length = u32::try_from(record.len()).expect("a short input").to_le_bytes();
        let epoch = 1_u64.to_le_bytes();
        let checked = [&length[..], &epoch, &position.to_le_bytes(), record].concat();
        let (length, rest) = checked.split_at(length.len());
        file.extend_from_slice(length);
        file.extend_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
        file.extend_from_slice(rest);
    }
    file.extend_from_slice(bytes);
    assert!(journal::scan_bytes(&file) as u64 >= position);
}

/// Bytes of the journal that decode are an event that survives being written again, and looks the same
/// at a glance.
fn event(bytes: &[u8]) {
    let glance = Glance::of(bytes, Ingest::default());
    if let Ok(read) = event::decode(bytes) {
        let glance = glance.expect("what can be read can be looked at");
        assert_eq!(glance.event().received_at, read.received_at);
        let mut tables = tracker::tables::ALL.iter();
        assert!(tables.all(|table| table.has_row(glance.event()) == table.has_row(&read)));
        let written = event::encode(&read).expect("what was read can be written");
        assert_eq!(event::decode(&written).expect("what was written can be read"), read);
    }
}

/// Any bytes as a cursor file, and as the content of its second slot under a checksum that is right;
/// under a wrong one the slot says nothing.
fn cursor(bytes: &[u8]) {
    let _ = delivery::scan_cursor(bytes);
    let content = bytes.get(..SLOT_BYTES - SLOT_HEAD_BYTES).unwrap_or(bytes);
    let mut checked = u64::MAX.to_le_bytes().to_vec();
    checked.extend_from_slice(&u32::try_from(content.len()).expect("a slot").to_le_bytes());
    checked.extend_from_slice(content);
    let mut first = bytes.to_vec();
    first.resize(SLOT_BYTES, 0);
    let with_second = |checksum: u32| {
        let file = [&first[..], b"TCUR", &checksum.to_le_bytes(), &checked].concat();
        delivery::scan_cursor(&file)
    };
    let checksum = crc32c::crc32c(&checked);
    let _ = with_second(checksum);
    assert_eq!(with_second(!checksum), delivery::scan_cursor(&first));
}

/// Any bytes as an answer of ClickHouse, whole or cut off: rows as wide as their columns and no more
/// than were asked for, or none.
fn store_answer(bytes: &[u8]) {
    const ROWS_MAX: usize = 8;
    for is_cut in [false, true] {
        let Some(rows) = clickhouse::scan_answer(bytes, is_cut, ROWS_MAX) else { continue };
        assert!(rows.rows.len() <= ROWS_MAX);
        assert!(rows.rows.iter().all(|row| row.len() == rows.columns.len()), "{rows:?}");
        assert!(rows.truncated || !is_cut);
    }
    if let Some(rows) = clickhouse::scan_small_answer(bytes) {
        assert!(rows.rows.iter().all(|row| row.len() == rows.columns.len()), "{rows:?}");
    }
}

/// Any text as ClickHouse's refusal: a bounded part of it is told, with its number if it has one.
fn store_refusal(bytes: &[u8]) {
    let (code, told) = clickhouse::scan_refusal(&text(bytes));
    assert!(told.len() <= REFUSAL_BYTES_MAX + " (code 4294967295)".len());
    assert!(code.is_none_or(|code| told.ends_with(&format!(" (code {code})"))), "{told:?}");
}

/// What ClickHouse says of a table, a line each: a column's type, the key of partitions, and the
/// statement that made it in all others.
fn store_table(bytes: &[u8]) {
    let all = text(bytes);
    let mut lines = all.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let data_type = line();
    assert!(clickhouse::scan_type(data_type), "{data_type:?}");
    let (_, target) = clickhouse::scan_description(data_type, line(), line());
    assert!(target.is_none_or(|name| !name.contains([' ', '\n', '(', ')', '.'])), "{target:?}");
}

/// Bytes as text, where the program itself reads text.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn agents() -> &'static Agents {
    static AGENTS: OnceLock<Agents> = OnceLock::new();
    AGENTS.get_or_init(|| {
        let agents = Agents::start();
        // The same input must do the same every time.
        agents.wait();
        agents
    })
}

fn preparer() -> &'static Preparer {
    static PREPARER: OnceLock<Preparer> = OnceLock::new();
    PREPARER.get_or_init(|| {
        let config = IntakeConfig::new("unused".into());
        let keys = Keys::from_bytes([7; 32], config.hash_mode, &config.prefix_private_hash);
        let places = Arc::new(GeoDb::none());
        Preparer::new(&config, keys, places, agents().clone()).expect("the default has no filter")
    })
}

/// An ordinary browser's request.
fn browser() -> RequestFacts {
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0";
    RequestFacts {
        received_at: DateTime::from_timestamp_millis(1_790_000_000_000).expect("a time"),
        ip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)),
        trusted: true,
        tenant: Tenant::AsSaid,
        query_has_key: false,
        route: "tr",
        method: "GET".to_owned(),
        http2: true,
        host: "t.example.com".to_owned(),
        uri: "/tr/v1/tr/".to_owned(),
        header_names: ["User-Agent", "Accept", "Accept-Language"].map(str::to_owned).to_vec(),
        user_agent: Some(agent.to_owned()),
        language: Some("en-US,en;q=0.9".to_owned()),
        referer: None,
        user: None,
        cookies: BTreeMap::new(),
        greeted: None,
        gpc: false,
        dnt: false,
        hints: BTreeMap::new(),
    }
}

//! What one event costs before the journal: reading JSON, merging, building, enriching, encoding.
//!
//! The input is a page view of about 900 bytes as the snippet sends it, from an agent seen before.
//! The baseline is `serde_json` reading the same bytes into a `Value`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot start should stop")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::Value;
use tracker::config::{HashMode, IntakeConfig};
use tracker::event::{self, Origin};
use tracker::geo::GeoDb;
use tracker::intake::{
    Agents, Hit, Keys, Preparer, RequestFacts, Tenant, channel, clean_url, fields, parse_json,
};

/// As in the program: allocation is a good part of the cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY: &str = include_str!("page_view.json");
const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/126.0.0.0 Safari/537.36";

fn facts() -> RequestFacts {
    let names = "Accept Accept-Encoding Accept-Language Content-Length Content-Type Cookie Origin \
                 Referer Sec-Ch-Ua Sec-Ch-Ua-Mobile Sec-Ch-Ua-Platform Sec-Fetch-Dest \
                 Sec-Fetch-Mode Sec-Fetch-Site User-Agent";
    RequestFacts {
        received_at: chrono::DateTime::from_timestamp_millis(1_790_000_000_000).unwrap(),
        ip: [81, 2, 69, 142].into(),
        trusted: false,
        tenant: Tenant::AsSaid,
        query_has_key: false,
        route: "tr",
        method: "POST".to_owned(),
        http2: true,
        host: "t.example.com".to_owned(),
        uri: "/tr/v1/tr/".to_owned(),
        header_names: names.split_whitespace().map(str::to_owned).collect(),
        user_agent: Some(AGENT.to_owned()),
        language: Some("en-GB,en;q=0.9".to_owned()),
        referer: Some("https://www.example.com/".to_owned()),
        user: None,
        cookies: BTreeMap::from([
            ("vid".to_owned(), "019a1f30-5a52-7f3e-8a52-0c9f1b1c2d3e".to_owned()),
            ("CookieConsent".to_owned(), "4096".to_owned()),
        ]),
        greeted: None,
        gpc: false,
        dnt: false,
        hints: BTreeMap::from([
            ("accept-encoding", "gzip, deflate, br".to_owned()),
            ("sec-fetch-site", "same-site".to_owned()),
            ("sec-fetch-mode", "cors".to_owned()),
            ("sec-fetch-dest", "empty".to_owned()),
            ("sec-ch-ua-platform", "\"Windows\"".to_owned()),
        ]),
    }
}

fn preparer() -> Preparer {
    let geo = GeoDb::open(None).unwrap();
    let agents = Agents::start();
    geo.wait();
    agents.wait();
    let keys = Keys::from_bytes([7; 32], HashMode::Keyed, "");
    Preparer::new(&IntakeConfig::new("keys".into()), keys, Arc::new(geo), agents).unwrap()
}

fn intake(criterion: &mut Criterion) {
    let (preparer, facts) = (preparer(), Arc::new(facts()));
    let read = || match parse_json(BODY.as_bytes(), 64) {
        Ok(Value::Object(body)) => fields(&facts, "", None, Some(body), None),
        other => unreachable!("{other:?}"),
    };
    let hit = || Hit {
        origin: Origin::Client,
        facts: Arc::clone(&facts),
        fields: read(),
        length: BODY.len(),
    };
    let mut group = criterion.benchmark_group("intake");
    group.bench_function("baseline_value", |b| {
        b.iter(|| serde_json::from_slice::<Value>(black_box(BODY.as_bytes())));
    });
    group.bench_function("parse_json", |b| b.iter(|| parse_json(black_box(BODY.as_bytes()), 64)));
    group.bench_function("parse_and_merge", |b| b.iter(read));
    group.bench_function("prepare", |b| {
        b.iter_batched(hit, |hit| preparer.prepare(hit), criterion::BatchSize::SmallInput);
    });
    group.bench_function("bytes_to_record", |b| {
        b.iter(|| event::encode(&preparer.prepare(hit()).unwrap().event));
    });
    group.finish();
}

fn parts(criterion: &mut Criterion) {
    let geo = GeoDb::open(None).unwrap();
    let agents = Agents::start();
    geo.wait();
    agents.wait();
    let mut group = criterion.benchmark_group("intake_parts");
    group.bench_function("geo_lookup", |b| {
        b.iter(|| geo.lookup(black_box([81, 2, 69, 142].into())));
    });
    group.bench_function("agent_first_seen", |b| b.iter(|| agents.classify(black_box(AGENT))));
    let url = "https://shop.example.com/Shoes/42?utm_source=news&gclid=abc#top";
    group.bench_function("clean_url", |b| b.iter(|| clean_url(black_box(url))));
    let campaign = event::Campaign::default();
    group.bench_function("channel", |b| {
        b.iter(|| channel(&campaign, black_box(Some("www.google.de"))));
    });
    group.finish();
}

criterion_group!(benches, intake, parts);
criterion_main!(benches);

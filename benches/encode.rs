//! The journal's form of an event: writing and reading it, beside `serde_json::Value` doing the same.

#![expect(missing_docs, reason = "criterion's macro makes an undocumented function")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot start should stop")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;
use tracker::event;

/// As in the program: allocation is a good part of the cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A stored page view, as the journal holds it behind the version byte.
const EVENT: &str = include_str!("event.json");

fn encode(criterion: &mut Criterion) {
    let mut record = vec![1];
    record.extend(EVENT.trim().as_bytes());
    let event = event::decode(&record).unwrap();
    assert_eq!(event::encode(&event).unwrap(), record);
    let value: Value = serde_json::from_str(EVENT).unwrap();
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Bytes(record.len() as u64));
    group.bench_function("encode", |b| b.iter(|| event::encode(black_box(&event))));
    group.bench_function("encode_value", |b| b.iter(|| serde_json::to_vec(black_box(&value))));
    group.bench_function("decode", |b| b.iter(|| event::decode(black_box(&record))));
    group.bench_function("decode_value", |b| {
        b.iter(|| serde_json::from_slice::<Value>(black_box(EVENT.as_bytes())));
    });
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);

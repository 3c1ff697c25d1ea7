//! What clients were promised, and the comparison of that with what stands in the stores.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "each test uses its part, and what fails here should fail the run with its reason"
)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::thread;

use serde_json::{Value, json};

use crate::clickhouse::ClickHouse;
use crate::support::Client;

/// Ids of events by what their sender was told.
#[derive(Default)]
pub struct Promises {
    /// Answered with a durable 200.
    pub acknowledged: HashSet<String>,
    /// Sent, and never answered so: they may be stored or not.
    pub unanswered: HashSet<String>,
}

impl Promises {
    /// Lets `clients` at a time send `each` events, some alone and some together, until all are answered
    /// or the connection breaks.
    pub fn send(&mut self, address: SocketAddr, clients: usize, each: usize) {
        let told: Vec<Self> = thread::scope(|scope| {
            let senders: Vec<_> =
                (0..clients).map(|_| scope.spawn(|| Self::of_one(address, each))).collect();
            senders.into_iter().map(|sender| sender.join().expect("a client")).collect()
        });
        for one in told {
            self.acknowledged.extend(one.acknowledged);
            self.unanswered.extend(one.unanswered);
        }
    }

    fn of_one(address: SocketAddr, events: usize) -> Self {
        let mut promises = Self::default();
        let Ok(mut client) = Client::connect(address) else { return promises };
        let (mut sent, mut turn) = (0, 0);
        while sent < events {
            turn += 1;
            let together = if turn % 3 == 0 { 10.min(events - sent) } else { 1 };
            let ids: Vec<String> =
                (0..together).map(|_| uuid::Uuid::now_v7().to_string()).collect();
            sent += together;
            let bodies: Vec<Value> = ids.iter().map(|id| event(id, turn)).collect();
            let body = if let [one] = bodies.as_slice() {
                one.to_string()
            } else {
                json!(bodies).to_string()
            };
            match client.request("POST", "/tr/v1/tr/", &[], body.as_bytes()) {
                Ok(answer) if answer.status == 200 => promises.acknowledged.extend(ids),
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "neither stored nor refused");
                    promises.unanswered.extend(ids);
                }
                Err(_) => {
                    promises.unanswered.extend(ids);
                    break;
                }
            }
        }
        promises
    }

    /// As [`Promises::check_events`], and what derives from the events adds up to them.
    pub fn check(&self, clickhouse: &ClickHouse, database: &str) {
        let rows = self.check_events(clickhouse, database);
        for derived in ["hits", "reqs"] {
            let total = clickhouse.number(&format!("select sum(total) from {database}.{derived}"));
            assert_eq!(total, rows, "{derived} do not add up to the events");
        }
    }

    /// Every promise stands in `events` of `database` exactly once, beside nothing that was not sent;
    /// how many rows there are.
    pub fn check_events(&self, clickhouse: &ClickHouse, database: &str) -> u64 {
        let rows = clickhouse.query(&format!("select eid from {database}.events"));
        let stored: HashSet<&str> =
            rows.iter().map(|row| row["eid"].as_str().expect("an id")).collect();
        assert_eq!(stored.len(), rows.len(), "events that stand more than once");
        let lost = self.acknowledged.iter().filter(|id| !stored.contains(id.as_str()));
        let lost: Vec<_> = lost.collect();
        assert!(
            lost.is_empty(),
            "{} of {} are lost: {lost:?}",
            lost.len(),
            self.acknowledged.len()
        );
        let known = |id: &str| self.acknowledged.contains(id) || self.unanswered.contains(id);
        let foreign: Vec<_> = stored.iter().filter(|id| !known(id)).collect();
        assert!(foreign.is_empty(), "nobody sent {foreign:?}");
        rows.len() as u64
    }
}

/// An event from which rows of `hits` and `reqs` derive.
fn event(id: &str, turn: usize) -> Value {
    json!({
        "eid": id,
        "vid": format!("0190a8f0-0000-7000-8000-{:012}", turn % 5),
        "ename": "visit",
        "etyp": "fault",
        "url": format!("https://shop.example/page/{}", turn % 7),
        "turn": turn,
        "price": {"amount": 9.5, "currency": "EUR"},
    })
}

//! Rules of pruning that get in each other's way, and what each finds: both stores must agree.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};

/// Rules of which each finds rows that one before it changes or takes away.
pub fn rules() -> Value {
    let rule = |more: Value| {
        let mut rule = json!({"Table": "events", "TTL": 30 * 24 * 3600});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let hashed = json!([{"Id": "ip", "DestParamHash": "iphash"}]);
    json!([
        rule(json!({"CFlagsIgnore": [4], "ClearParams": true, "Fields": hashed})),
        rule(json!({"Fields": [{"Id": "ip"}, {"Id": "url"}]})),
        rule(json!({"Fields": [{"Id": "ip"}]})),
        rule(json!({"ClearParams": true})),
        rule(json!({"ClearParams": true})),
        rule(json!({"ClearNumericParams": true})),
        rule(json!({"ClearAll": true, "CFlagsIgnore": [4]})),
        rule(json!({"ClearAll": true})),
        rule(json!({"Fields": [{"Id": "duration"}]}))
    ])
}

/// What [`rules`] find in events of which two are old, one is old and spared by its
/// flags, and one is new.
pub const FOUND: [&str; 6] = [
    "Prune[0]): 2 rows in 1 portions",
    "Prune[1]): 3 rows in 1 portions",
    // The hashes that the first rule left, and what the spared one says.
    "Prune[3]): 3 rows in 1 portions",
    "Prune[5]): 3 rows in 1 portions",
    "Prune[6]): 2 rows in 1 portions",
    "Prune[7]): 1 rows in 1 portions",
];

/// What rules of `events` found, of what `tracker prune` printed.
pub fn found(said: &str) -> Vec<&str> {
    let lines = said.lines().filter(|line| line.contains(" events before "));
    lines.filter_map(|line| line.split_once('(').map(|(_, found)| found)).collect()
}

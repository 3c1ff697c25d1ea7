//! The small questions of the routes.

use serde_json::json;
use tempfile::tempdir;

use super::*;
use crate::backends::duckdb::file;
use crate::event::Origin;

fn prepared(path: &Path, sql: &str) -> Backend {
    file::open(&config(path)).unwrap().connection.execute_batch(sql).unwrap();
    started(path)
}

#[tokio::test]
async fn a_short_link_leads_to_its_latest_destination() {
    let folder = tempdir().unwrap();
    let backend = prepared(
        &folder.path().join("t.duckdb"),
        "insert into redirects (urlfrom, urlto, updated_at) values
            ('h/a', 'https://old', '2026-01-01'), ('h/a', 'https://new', '2026-01-02')",
    );
    let found = store(&backend).redirect("h/a").await.unwrap();
    assert_eq!(found.as_deref(), Some("https://new"));
    assert_eq!(store(&backend).redirect("h/' or '1'='1").await.unwrap(), None);
}

#[tokio::test]
async fn links_are_those_of_the_host_newest_first() {
    let folder = tempdir().unwrap();
    let backend = prepared(
        &folder.path().join("t.duckdb"),
        "insert into redirect_history (hostfrom, slugfrom, updated_at) values
            ('h', '/1', '2026-01-01'), ('h', '/2', '2026-01-02'), ('other', '/3', '2026-01-03')",
    );
    let found = store(&backend).redirects("h").await.unwrap();
    let slugs: Vec<_> = found.iter().map(|link| link.fields["slugfrom"].clone()).collect();
    assert_eq!(slugs, [json!("/2"), json!("/1")]);
    assert_eq!(found[0].fields["updated_at"], json!("2026-01-02T00:00:00.000Z"));
}

#[tokio::test]
async fn agreements_are_those_of_the_visitor() {
    let folder = tempdir().unwrap();
    let backend = prepared(
        &folder.path().join("t.duckdb"),
        "insert into agreements (vid, cflags) values
            ('00000000-0000-0000-0000-000000000001', 5),
            ('00000000-0000-0000-0000-000000000002', 6)",
    );
    let visitor = uuid::Uuid::from_u128(2).into();
    let found = store(&backend).agreements(visitor).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].fields["cflags"], json!(6));
}

#[tokio::test]
async fn regulations_come_in_order() {
    let folder = tempdir().unwrap();
    let backend = prepared(
        &folder.path().join("t.duckdb"),
        "insert into jurisdictions (regulation, seq, rules) values
            ('gdpr', 2, '{}'), ('gdpr', 1, '{\"days\": 30}'), ('ccpa', 1, null)",
    );
    let found = store(&backend).jurisdictions().await.unwrap();
    let order: Vec<_> = found.iter().map(|row| (&row["regulation"], &row["seq"])).collect();
    assert_eq!(
        order,
        [(&json!("ccpa"), &json!(1)), (&json!("gdpr"), &json!(1)), (&json!("gdpr"), &json!(2))]
    );
    assert_eq!(found[1]["rules"], json!({"days": 30}));
}

#[tokio::test]
async fn an_account_has_a_password_until_it_expires() {
    let folder = tempdir().unwrap();
    let backend = prepared(
        &folder.path().join("t.duckdb"),
        "insert into accounts (uid, pwd, expires) values
            ('00000000-0000-0000-0000-000000000001', 'one', null),
            ('00000000-0000-0000-0000-000000000002', 'two', '2026-02-01 11:59:59'),
            ('00000000-0000-0000-0000-000000000003', 'three', '2026-02-01 12:00:01')",
    );
    for (account, expect) in [
        ("00000000-0000-0000-0000-000000000001", Some("one")),
        ("00000000-0000-0000-0000-000000000002", None),
        ("00000000-0000-0000-0000-000000000003", Some("three")),
        ("00000000-0000-0000-0000-000000000004", None),
        ("admin", None),
        ("", None),
    ] {
        let found = store(&backend).password_hash(account).await.unwrap();
        assert_eq!(found.as_deref(), expect, "{account}");
    }
}

#[tokio::test]
async fn only_client_events_of_the_address_and_the_day_are_counted() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    let mut events: Vec<_> = (1..=6).map(samples::event).collect();
    events[2].origin = Origin::Server;
    events[3].place.ip = Some([198, 51, 100, 0].into());
    events[4].received_at -= chrono::TimeDelta::hours(13);
    events[5].received_at += chrono::TimeDelta::hours(12);
    sink(&backend).write(&batch("events", events)).await.unwrap();
    let ip = [192, 0, 2, 0].into();
    assert_eq!(store(&backend).daily_total(ip).await.unwrap(), 2);
    assert_eq!(store(&backend).daily_total([192, 0, 2, 1].into()).await.unwrap(), 0);
}

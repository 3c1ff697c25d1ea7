//! The small questions of the routes.

use serde_json::json;
use tempfile::tempdir;

use super::*;
use crate::backends::AccountChange;
use crate::backends::duckdb::file;

fn prepared(path: &Path, sql: &str) -> Backend {
    file::open(&config(path)).unwrap().connection.execute_batch(sql).unwrap();
    started(path)
}

#[tokio::test]
async fn a_short_link_leads_to_its_latest_destination() {
    let folder = tempdir().unwrap();
    let backend = prepared(
        &folder.path().join("t.duckdb"),
        "insert into redirects (urlfrom, urlto, oid, updated_at) values
            ('h/a', 'https://old', null, '2026-01-01'),
            ('h/a', 'https://new', '00000000-0000-0000-0000-000000000007', '2026-01-02'),
            ('i/b', 'https://b', null, '2026-01-01'), ('j/b', 'https://b', null, '2026-01-01')",
    );
    let found = store(&backend).redirect("h/a").await.unwrap().unwrap();
    assert_eq!(found.urlto, "https://new");
    assert_eq!(found.oid, Some(uuid::Uuid::from_u128(7).into()));
    assert_eq!(store(&backend).redirect("h/' or '1'='1").await.unwrap(), None);
    for (path, expect) in [("/a", vec!["h/a"]), ("/b", vec!["i/b", "j/b"]), ("/c", vec![])] {
        let found = store(&backend).redirects_at(path).await.unwrap();
        let mut found: Vec<_> = found.iter().map(|link| link.urlfrom.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, expect, "{path}");
    }
}

#[tokio::test]
async fn links_are_those_of_the_host_and_the_organisation_newest_first() {
    let folder = tempdir().unwrap();
    let backend = prepared(
        &folder.path().join("t.duckdb"),
        "insert into redirect_history (hostfrom, slugfrom, oid, updated_at) values
            ('h', '/1', '00000000-0000-0000-0000-000000000007', '2026-01-01'),
            ('h', '/2', null, '2026-01-02'), ('other', '/3', null, '2026-01-03')",
    );
    let slugs = async |host, of| -> Vec<String> {
        let found = store(&backend).redirects(host, of).await.unwrap();
        found.iter().map(|link| link.fields["slugfrom"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(slugs("h", None).await, ["/2", "/1"]);
    assert_eq!(slugs("h", Some(uuid::Uuid::from_u128(7).into())).await, ["/1"]);
    let found = store(&backend).redirects("h", None).await.unwrap();
    assert_eq!(found[0].fields["updated_at"], json!("2026-01-02T00:00:00.000Z"));
}

#[tokio::test]
async fn a_link_that_changes_stays_one_row() {
    let folder = tempdir().unwrap();
    let backend = started(&folder.path().join("t.duckdb"));
    let events = vec![samples::link(1, "/a", "https://one"), samples::link(2, "/a", "https://two")];
    sink(&backend).write(&batch("redirects", events)).await.unwrap();
    let events = vec![samples::link(3, "/b", "https://b"), samples::link(4, "/a", "https://three")];
    sink(&backend).write(&batch("redirects", events)).await.unwrap();
    let sql = "select urlfrom, urlto from redirects order by all";
    let rows = store(&backend).query(sql, 10, std::time::Duration::from_secs(5)).await.unwrap();
    let expect = [
        [json!("example.org/a"), json!("https://three")],
        [json!("example.org/b"), json!("https://b")],
    ];
    assert_eq!(rows.rows, expect);
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
async fn an_account_is_there_until_it_expires_and_can_be_changed_and_removed() {
    let folder = tempdir().unwrap();
    let backend = prepared(
        &folder.path().join("t.duckdb"),
        "insert into accounts (uid, pwd, owner, expires) values
            ('00000000-0000-0000-0000-000000000001', 'one', null, null),
            ('00000000-0000-0000-0000-000000000002', 'two', null, '2026-02-01 11:59:59'),
            ('00000000-0000-0000-0000-000000000003', 'three',
             '00000000-0000-0000-0000-000000000007', '2026-02-01 12:00:01')",
    );
    let hash = async |number: u128| {
        let found = store(&backend).account(uuid::Uuid::from_u128(number).into()).await.unwrap();
        found.map(|account| account.password_hash)
    };
    let expect = [(1, Some("one")), (2, None), (3, Some("three")), (4, None)];
    for (number, expect) in expect {
        assert_eq!(hash(number).await.as_deref(), expect, "{number}");
    }
    let third = uuid::Uuid::from_u128(3).into();
    let mut account = store(&backend).account(third).await.unwrap().unwrap();
    assert_eq!(account.organisation, Some(uuid::Uuid::from_u128(7).into()));
    account.password_hash = "changed".to_owned();
    let change = async |change| store(&backend).change_account(change).await.unwrap();
    assert!(!change(AccountChange::Add(account.clone())).await);
    assert_ne!(store(&backend).account(third).await.unwrap(), Some(account.clone()));
    assert!(change(AccountChange::Put(account.clone())).await);
    assert_eq!(store(&backend).account(third).await.unwrap(), Some(account));
    assert!(change(AccountChange::Remove(third)).await);
    assert!(!change(AccountChange::Remove(third)).await);
    assert_eq!(hash(3).await, None);
    assert_eq!(store(&backend).accounts().await.unwrap().len(), 2);
}

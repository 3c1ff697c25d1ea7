//! The operator's socket.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tracker::backends::{
    Account, AccountChange, Agreement, Link, Rows, ShortLink, Store, StoreError,
};
use tracker::event::{OrgId, UserId, VisitorId};
use tracker::http::control::{AskError, Control, ControlError, Handlers, ask};

use crate::support::{Served, client};

/// Answers every query with its own text, and refuses `bad`.
struct Echo;

#[async_trait]
impl Store for Echo {
    async fn redirect(&self, _: &str) -> Result<Option<ShortLink>, StoreError> {
        Ok(None)
    }
    async fn redirects_at(&self, _: &str) -> Result<Vec<ShortLink>, StoreError> {
        Ok(Vec::new())
    }
    async fn redirects(&self, _: &str, _: Option<OrgId>) -> Result<Vec<Link>, StoreError> {
        Ok(Vec::new())
    }
    async fn agreements(&self, _: VisitorId) -> Result<Vec<Agreement>, StoreError> {
        Ok(Vec::new())
    }
    async fn jurisdictions(&self) -> Result<Vec<Map<String, Value>>, StoreError> {
        Ok(Vec::new())
    }
    async fn account(&self, _: UserId) -> Result<Option<Account>, StoreError> {
        Ok(None)
    }
    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        Ok(Vec::new())
    }
    async fn change_account(&self, _: AccountChange) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn query(&self, sql: &str, max: usize, _: Duration) -> Result<Rows, StoreError> {
        if sql == "bad" {
            return Err(StoreError::Invalid("no such table".into()));
        }
        let row = vec![json!(sql), json!(max)];
        Ok(Rows { columns: vec!["sql".into(), "max".into()], rows: vec![row], truncated: false })
    }
}

fn handlers(served: &Served) -> Handlers {
    Handlers {
        app: served.app.clone(),
        store: Some(Arc::new(Echo)),
        rows_max: 100,
        time_max: Duration::from_secs(1),
        replay: Arc::new(|wish| {
            Box::pin(async move {
                if wish["sink"] == "none" { Err("no such sink".into()) } else { Ok(wish) }
            })
        }),
        reload: Arc::new(|_| Box::pin(async { Err("refused whole".into()) })),
        pruners: BTreeMap::new(),
        disbelieved: Arc::clone(&served.app.disbelieved),
    }
}

fn socket(served: &Served) -> PathBuf {
    served.folder.path().join("tracker.sock")
}

#[tokio::test]
async fn queries_and_replays_go_through_the_socket_only() {
    let served = Served::start().await;
    let path = socket(&served);
    let control = Control::bind(&path, handlers(&served)).await.unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(control.serve(stop.clone()));

    let rows = ask(&path, "/query", &json!({ "sql": "select 1" })).await.unwrap();
    let expect =
        json!({ "columns": ["sql", "max"], "rows": [["select 1", 100]], "truncated": false });
    assert_eq!(rows, expect);
    let rows = ask(&path, "/query", &json!({ "sql": "x", "rows_max": 7 })).await.unwrap();
    assert_eq!(rows["rows"][0][1], 7);
    let refused =
        async |route: &str, body: Value| ask(&path, route, &body).await.unwrap_err().to_string();
    assert_eq!(refused("/query", json!({ "sql": "bad" })).await, "no such table");
    assert!(refused("/query", json!({})).await.contains("sql"));
    assert_eq!(refused("/replay", json!({ "sink": "none" })).await, "no such sink");
    assert_eq!(ask(&path, "/replay", &json!({ "n": 1 })).await.unwrap(), json!({ "n": 1 }));

    let public = client().post(served.url("/query")).body(r#"{"sql":"x"}"#).send().await.unwrap();
    assert_eq!(public.status(), 404);

    stop.cancel();
    task.await.unwrap();
    assert!(!path.exists());
    assert!(matches!(ask(&path, "/query", &json!({})).await, Err(AskError::Nobody(_))));
}

#[tokio::test]
async fn the_socket_is_private_and_only_a_dead_one_is_replaced() {
    let served = Served::start().await;
    let path = socket(&served);
    let first = Control::bind(&path, handlers(&served)).await.unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Control::bind(&path, handlers(&served)).await;
    assert!(matches!(second, Err(ControlError::InUse(_))));
    drop(first);
    assert!(path.exists(), "a crash leaves it behind");
    Control::bind(&path, handlers(&served)).await.unwrap();
}

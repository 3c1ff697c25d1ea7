//! The stores of an installation as one: the first answers, and while it cannot, the next.
//!
//! Every sink is given every fact, so the next one knows what the first knew, as far as it was there
//! from the beginning: "nothing there" is only believed of the first. Accounts are changed in the first
//! and asked of it alone, since others have none, or older ones; so is a query, whose dialect is that
//! of one store.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Account, AccountChange, Agreement, Backend, Link, Rows, ShortLink, Store, StoreError};
use crate::event::{OrgId, UserId, VisitorId};

/// A question on its way.
type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The store that answers for `backends`; `None` when none of them does.
pub fn answering(backends: &[Backend]) -> Option<Arc<dyn Store>> {
    let mut stores = backends.iter().filter_map(|backend| backend.store.clone());
    let first = stores.next()?;
    let others: Vec<_> = stores.collect();
    if others.is_empty() { Some(first) } else { Some(Arc::new(Answering { first, others })) }
}

struct Answering {
    first: Arc<dyn Store>,
    others: Vec<Arc<dyn Store>>,
}

impl Answering {
    /// The answer of the first, else the first of the others that says something; else why the first
    /// has none.
    async fn ask<'a, T>(
        &'a self,
        says_something: fn(&T) -> bool,
        ask: impl Fn(&'a dyn Store) -> Asked<'a, T> + Send,
    ) -> Result<T, StoreError> {
        let failure = match ask(&*self.first).await {
            Err(failure) => failure,
            answer => return answer,
        };
        for other in &self.others {
            match ask(&**other).await {
                Ok(answer) if says_something(&answer) => return Ok(answer),
                Ok(_) | Err(_) => {}
            }
        }
        Err(failure)
    }
}

#[async_trait]
impl Store for Answering {
    async fn redirect(&self, from: &str) -> Result<Option<ShortLink>, StoreError> {
        self.ask(Option::is_some, |store| store.redirect(from)).await
    }

    async fn redirects_at(&self, path: &str) -> Result<Vec<ShortLink>, StoreError> {
        self.ask(|links: &Vec<_>| !links.is_empty(), |store| store.redirects_at(path)).await
    }

    async fn redirects(&self, host: &str, of: Option<OrgId>) -> Result<Vec<Link>, StoreError> {
        self.ask(|links: &Vec<_>| !links.is_empty(), |store| store.redirects(host, of)).await
    }

    async fn agreements(&self, visitor: VisitorId) -> Result<Vec<Agreement>, StoreError> {
        self.ask(|found: &Vec<_>| !found.is_empty(), |store| store.agreements(visitor)).await
    }

    async fn jurisdictions(&self) -> Result<Vec<Map<String, Value>>, StoreError> {
        self.ask(|found: &Vec<_>| !found.is_empty(), |store| store.jurisdictions()).await
    }

    async fn account(&self, uid: UserId) -> Result<Option<Account>, StoreError> {
        self.first.account(uid).await
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.first.accounts().await
    }

    async fn change_account(&self, change: AccountChange) -> Result<bool, StoreError> {
        self.first.change_account(change).await
    }

    async fn query(
        &self,
        sql: &str,
        rows_max: usize,
        time_max: Duration,
    ) -> Result<Rows, StoreError> {
        self.first.query(sql, rows_max, time_max).await
    }
}

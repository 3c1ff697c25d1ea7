//! Short links: from host and path to destination, seen by their maker at once.
//!
//! A link is a fact in the journal, so the store has it seconds after it was made, or hours when the
//! store is down. Until then it stands here among the **fresh** links, which win over every other
//! answer; after a restart they are read from the end of the journal ([`Links::recover`]). What the
//! store answered, "nothing" included, is **known** for a while. No question to the store holds a
//! visitor longer than [`LOOKUP_TIME_MAX`], and only `LOOKUPS_MAX` are asked at a time: scanners
//! ask for paths that nobody made.

pub mod accounts;
pub mod base64;
mod key;
mod target;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use key::{Key, KeyError, is_loopback, is_reserved};
pub use target::{Policy, Refused, Target};

use crate::backends::{ShortLink, Store, StoreError};
use crate::clock::Clock;
use crate::event::{self, Body, Event, OrgId};
use crate::fresh::{Facts, Fresh, StoredUpTo};
use crate::journal::Position;

/// Longest a visitor waits for the store. It answers in a millisecond, but its threads stand back
/// while the machine is busy, and a late redirect is better than none.
pub const LOOKUP_TIME_MAX: Duration = Duration::from_secs(1);
/// Questions to the store at a time; half of what its queue takes, so that lists still come through.
const LOOKUPS_MAX: usize = 32;
/// Answers of the store that are kept: some 30 MB at most.
const KNOWN_MAX: u64 = 100_000;
/// How long a link is believed without asking again. A change made here is seen at once whatever
/// this says; it bounds what was changed in the store by other hands.
const LINK_AGE_MAX: Duration = Duration::from_secs(300);
/// How long "nothing there" is believed.
const NOTHING_AGE_MAX: Duration = Duration::from_secs(30);
/// How long an answer that is too old stays, for when the store cannot be asked.
const STALE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// While one visitor asks about a link again, others are answered with what was known.
const ASKING: Duration = Duration::from_secs(1);

/// What is known about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A link.
    Link(Arc<ShortLink>),
    /// There is none.
    Nothing,
    /// It cannot be said now.
    Unknown,
}

/// The store lacks too many links to take another.
#[derive(Debug, Error)]
#[error("too many links wait for the store")]
pub struct TooManyFresh;

/// An answer of the store.
#[derive(Clone)]
struct Known {
    link: Option<Arc<ShortLink>>,
    until: Instant,
}

/// A change that the store may lack.
struct Change {
    link: Arc<ShortLink>,
    /// Columns of `redirect_history`.
    fields: Map<String, Value>,
    oid: Option<OrgId>,
    host: String,
}

/// Finds and remembers short links. Shared by every connection.
pub struct Links {
    store: Option<Arc<dyn Store>>,
    clock: Arc<dyn Clock>,
    known: Cache<String, Known>,
    /// By `urlfrom`; more cannot be made than it takes.
    fresh: Fresh<String, Change>,
    asking: Semaphore,
}

impl Links {
    /// Over `store`, the one that answers questions; without one there are only fresh links.
    pub fn new(store: Option<Arc<dyn Store>>, stored: StoredUpTo, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            fresh: Fresh::new(stored, Arc::clone(&clock)),
            clock,
            known: Cache::builder().max_capacity(KNOWN_MAX).time_to_live(STALE_AGE_MAX).build(),
            asking: Semaphore::new(LOOKUPS_MAX),
        }
    }

    /// Announces that links are going to be recovered: until [`Self::recovered`], a path is not said
    /// to be nothing.
    pub fn will_recover(&self) {
        self.fresh.will_recover();
    }

    /// Takes in a link that was read at `position` of the journal after a restart.
    pub fn recover(&self, event: &Event, position: Position) {
        self.insert(event, position);
    }

    /// What there was to recover is recovered.
    pub fn recovered(&self) {
        self.fresh.recovered();
    }

    /// Whether another link can be made now.
    ///
    /// # Errors
    /// When too many wait for the store.
    pub fn make_room(&self) -> Result<(), TooManyFresh> {
        if self.fresh.lacking().is_full() { Err(TooManyFresh) } else { Ok(()) }
    }

    /// Remembers a link that is durable in the journal at `position`.
    pub fn remember(&self, event: &Event, position: Position) {
        self.insert(event, position);
    }

    fn insert(&self, event: &Event, position: Position) {
        let Body::Link(body) = &event.body else { return };
        let link = Arc::new(ShortLink {
            urlfrom: body.urlfrom.clone(),
            urlto: body.urlto.clone(),
            oid: event.who.oid,
            org: event.who.org.clone(),
        });
        let change = Change {
            fields: history(event, body),
            oid: event.who.oid,
            host: body.hostfrom.clone(),
            link,
        };
        self.fresh.insert(body.urlfrom.clone(), change, position);
        self.known.invalidate(&body.urlfrom);
        self.known.invalidate(&anywhere(&body.slugfrom));
    }

    /// The link that a visitor of `host` (lower case, without port) means by `path`, as requested.
    /// On a loopback host the link of any host, where only one has the path.
    pub async fn find(&self, host: &str, path: &str) -> Found {
        let Ok(key) = Key::of_visit(host, path) else { return Found::Nothing };
        if is_reserved(key.path()) {
            return Found::Nothing;
        }
        match self.find_key(&key).await {
            Found::Nothing if is_loopback(host) => self.find_anywhere(key.path()).await,
            found => found,
        }
    }

    /// The link of exactly this key.
    pub async fn find_key(&self, key: &Key) -> Found {
        self.look_up(Question::Key(key.as_str())).await
    }

    /// Whether `target` is itself a short link of ours: following it would be another hop, and at
    /// worst a circle. What cannot be said now counts as no.
    pub async fn is_chain(&self, target: &url::Url) -> bool {
        let Some(host) = target.host_str() else { return false };
        let Ok(key) = Key::of_visit(host, target.path()) else { return false };
        !is_reserved(key.path()) && matches!(self.find_key(&key).await, Found::Link(_))
    }

    async fn find_anywhere(&self, path: &str) -> Found {
        // Fresh links are a part of the answer here, not all of it, so both are put together.
        let stored = self.look_up(Question::Path(path)).await;
        let fresh = at(&self.fresh.lock(), path);
        match (fresh.as_slice(), stored) {
            ([], stored) => stored,
            ([one], Found::Nothing) => Found::Link(Arc::clone(one)),
            ([one], Found::Link(stored)) if stored.urlfrom == one.urlfrom => {
                Found::Link(Arc::clone(one))
            }
            (_, Found::Unknown) => Found::Unknown,
            _ => Found::Nothing,
        }
    }

    /// The answer: fresh, else known, else the store's.
    async fn look_up(&self, question: Question<'_>) -> Found {
        if let Some(link) = self.fresh_link(question) {
            return Found::Link(link);
        }
        let (name, now) = (question.name(), self.clock.monotonic());
        let known = self.known.get(&*name);
        if let Some(known) = &known {
            if known.until > now {
                return known.found();
            }
            let until = now + ASKING;
            self.known.insert(name.to_string(), Known { until, ..known.clone() });
        }
        let answer = timeout(LOOKUP_TIME_MAX, self.ask(question)).await.ok().flatten();
        // What was made meanwhile is newer than any answer.
        if let Some(link) = self.fresh_link(question) {
            return Found::Link(link);
        }
        let Some(link) = answer else {
            return known
                .filter(|known| known.link.is_some())
                .map_or(Found::Unknown, |k| k.found());
        };
        let age_max = if link.is_some() { LINK_AGE_MAX } else { NOTHING_AGE_MAX };
        let known = Known { link: link.map(Arc::new), until: now + age_max };
        let found = known.found();
        self.known.insert(name.into_owned(), known);
        found
    }

    fn fresh_link(&self, question: Question<'_>) -> Option<Arc<ShortLink>> {
        match question {
            Question::Key(key) => {
                self.fresh.lock().of(key).next().map(|change| Arc::clone(&change.link))
            }
            Question::Path(_) => None,
        }
    }

    /// The store's answer; `None` when it has none now.
    async fn ask(&self, question: Question<'_>) -> Option<Option<ShortLink>> {
        self.fresh.all_recovered().await;
        let Some(store) = &self.store else { return Some(None) };
        let _permit = self.asking.acquire().await.ok()?;
        match question {
            Question::Key(key) => store.redirect(key).await.ok(),
            Question::Path(path) => store.redirects_at(path).await.ok().map(|found| only(&found)),
        }
    }

    /// Every change of a link of `host`, newest first: what the store has and what it lacks, of one
    /// organisation's links or of all.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn list(
        &self,
        host: &str,
        of: Option<OrgId>,
    ) -> Result<Vec<Map<String, Value>>, StoreError> {
        let stored = match &self.store {
            Some(store) => store.redirects(host, of).await?,
            None => Vec::new(),
        };
        let fresh = self.fresh.lacking();
        let lacks = |change: &&Change| {
            let is_same =
                |name: &str, other: &Map<String, Value>| other.get(name) == change.fields.get(name);
            !stored
                .iter()
                .any(|link| is_same("urlfrom", &link.fields) && is_same("updated_at", &link.fields))
        };
        let is_wanted =
            |change: &&Change| change.host == host && (of.is_none() || change.oid == of);
        let newest = fresh.all().filter(is_wanted).filter(lacks);
        let newest: Vec<_> = newest.map(|change| change.fields.clone()).collect();
        drop(fresh);
        Ok(newest.into_iter().chain(stored.into_iter().map(|link| link.fields)).collect())
    }
}

impl Known {
    fn found(&self) -> Found {
        self.link.clone().map_or(Found::Nothing, Found::Link)
    }
}

/// The latest of each link with this path.
fn at(fresh: &Facts<String, Change>, path: &str) -> Vec<Arc<ShortLink>> {
    let is_at =
        |urlfrom: &&String| urlfrom.find('/').is_some_and(|at| urlfrom.get(at..) == Some(path));
    let latest = |urlfrom: &String| Some(Arc::clone(&fresh.of(urlfrom).next()?.link));
    fresh.keys().filter(is_at).filter_map(latest).collect()
}

/// What is looked up.
#[derive(Clone, Copy)]
enum Question<'q> {
    /// One link.
    Key(&'q str),
    /// The only link with this path, whatever its host.
    Path(&'q str),
}

impl<'q> Question<'q> {
    /// The name under which its answer is known.
    fn name(self) -> Cow<'q, str> {
        match self {
            Self::Key(key) => Cow::Borrowed(key),
            Self::Path(path) => Cow::Owned(anywhere(path)),
        }
    }
}

/// The name under which "this path on any host" is known; no host has a star.
fn anywhere(path: &str) -> String {
    format!("*{path}")
}

/// The one link of a list that has only one.
fn only(links: &[ShortLink]) -> Option<ShortLink> {
    match links {
        [one] => Some(one.clone()),
        _ => None,
    }
}

/// The row of `redirect_history` as the store will give it.
fn history(event: &Event, link: &event::Link) -> Map<String, Value> {
    let time = event.created_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let fields = [
        ("urlfrom", link.urlfrom.as_str().into()),
        ("hostfrom", link.hostfrom.as_str().into()),
        ("slugfrom", link.slugfrom.as_str().into()),
        ("urlto", link.urlto.as_str().into()),
        ("hostto", link.hostto.as_str().into()),
        ("pathto", link.pathto.as_str().into()),
        ("searchto", link.searchto.clone().into()),
        ("oid", event.who.oid.map(|oid| oid.to_string()).into()),
        ("org", event.who.org.clone().into()),
        ("updater", link.updater.to_string().into()),
        ("updated_at", time.into()),
    ];
    fields.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect()
}

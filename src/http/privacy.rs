//! The routes about privacy: what a visitor agreed to, which regulations are in force where, and where
//! an address is.
//!
//! An agreement may be posted by anyone who may post an event. It is read by its own visitor, who
//! shows the cookie, or with a server's key; nobody reads another's by knowing an id. The cookie must
//! hold a UUID: an id made of a text could be guessed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::ApiError;
use super::keys::{Need, Presented};
use super::state::Shared;
use super::track::{self, Route};
use super::{answer, facts};
use crate::config::KeyKind;
use crate::consent::Unanswered;
use crate::event::{Origin, VisitorId};
use crate::geo::Place;
use crate::intake::Fact;

/// The regulations that travel with the program: orientation, no legal advice.
static REGULATIONS: &str = include_str!("assets/jurisdictions.json");

/// Look-ups of other addresses in a minute, of all callers together, until there are keys: a person
/// trying the documentation needs few, and a database must not be read out by strangers.
const LOOKUPS_PER_MINUTE_MAX: u64 = 120;

/// `ppi/agree`: POST records what a visitor agreed to; anything else reads it.
pub(super) async fn agree(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if request.method() != Method::POST {
        let (parts, _) = request.into_parts();
        return agreements(&shared, &parts).await.unwrap_or_else(IntoResponse::into_response);
    }
    let route =
        Route { name: "ppi", origin: Origin::Client, need: Need::Site, fact: Fact::Agreement };
    match track::record(&shared, request, route).await {
        Ok(recorded) => recorded.finish(&shared, |_| answer::empty()).await,
        Err(error) => error.into_response(),
    }
}

/// What a visitor agreed to, the newest first: that one is in force, the others are its history.
async fn agreements(shared: &Shared, parts: &Parts) -> Result<Response, ApiError> {
    let wanted = parameter(parts, "vid").filter(|vid| !vid.trim().is_empty());
    let (visitor, organisation) = match shared.keys.presented(parts) {
        Presented::Wrong => return Err(ApiError::Unauthorized("the key is not known here")),
        Presented::Key(key) if key.kind == KeyKind::Server => {
            let Some(wanted) = wanted else { return Ok(nobody()) };
            let id = shared.app.intake.id_of(&wanted).ok_or_else(|| ApiError::Invalid {
                field: "vid".to_owned(),
                message: "is no id: a UUID, or a text of at most 128 bytes".to_owned(),
            })?;
            (VisitorId::from(id), key.organization.as_deref())
        }
        Presented::Key(_) | Presented::None => {
            let own = facts::read(shared, parts, "ppi").cookies.remove("vid");
            match (own.and_then(|own| Uuid::parse_str(own.trim()).ok()), wanted) {
                (None, None) => return Ok(nobody()),
                (Some(own), wanted) if wanted.as_deref().is_none_or(|vid| is_same(vid, own)) => {
                    (VisitorId::from(own), None)
                }
                _ => {
                    return Err(ApiError::Unauthorized(
                        "agreements are read by their own visitor, by cookie, or with a server's key",
                    ));
                }
            }
        }
    };
    let agreements = shared.app.consent.agreements(visitor).await;
    let agreements = agreements.map_err(|error| unanswered(&error))?;
    let organisation = organisation.and_then(|text| shared.app.intake.id_of(text));
    let is_theirs = |fields: &Map<String, Value>| {
        let found = fields.get("oid").and_then(Value::as_str);
        organisation.is_none_or(|id| found.is_some_and(|found| is_same(found, id)))
    };
    let found: Vec<Map<String, Value>> = agreements.into_iter().filter(is_theirs).collect();
    Ok(answer::json(StatusCode::OK, &found))
}

/// The contract's answer where no visitor is named.
fn nobody() -> Response {
    answer::json(StatusCode::NOT_FOUND, &json!([]))
}

fn is_same(text: &str, id: Uuid) -> bool {
    Uuid::parse_str(text.trim()).is_ok_and(|other| other == id)
}

fn unanswered(error: &Unanswered) -> ApiError {
    tracing::warn!(error = error as &dyn std::error::Error, "the store did not answer a route");
    ApiError::Unavailable(match error {
        Unanswered::NoStore => "no configured store answers questions",
        Unanswered::Slow | Unanswered::Store(_) => "the store cannot answer now",
    })
}

/// `ppi/jds`: the regulations in force, those of the store over those of the program; `?country=`
/// names those of one country.
pub(super) async fn jurisdictions(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let mut rows = BTreeMap::new();
    for row in regulations() {
        rows.insert(key_of(row), row.clone());
    }
    // The program's own list is an answer too, so a store that is down only makes it shorter.
    match shared.app.consent.regulations().await {
        Ok(own) => rows.extend(own.iter().map(|row| (key_of(row), row.clone()))),
        Err(error) => drop(unanswered(&error)),
    }
    let country = parameter(&parts, "country").map(|country| country.trim().to_ascii_uppercase());
    let applies = |row: &Map<String, Value>| {
        let countries = row.get("locs").and_then(|locs| locs.get("countries")?.as_array());
        country.as_deref().is_none_or(|country| {
            countries.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(country)))
        })
    };
    let rows: Vec<Map<String, Value>> = rows.into_values().filter(applies).collect();
    answer::json(StatusCode::OK, &rows)
}

fn regulations() -> &'static [Map<String, Value>] {
    static ROWS: OnceLock<Vec<Map<String, Value>>> = OnceLock::new();
    // A test reads the file; were it broken, the list would be empty.
    ROWS.get_or_init(|| serde_json::from_str(REGULATIONS).unwrap_or_default())
}

fn key_of(row: &Map<String, Value>) -> (String, String, i64) {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let seq = row.get("seq").and_then(Value::as_i64).unwrap_or_default();
    (text("regulation"), text("compliance"), seq)
}

/// `ppi/geoip`: where the caller's address is, or, with a key, any address.
pub(super) async fn geoip(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    place(&shared, &parts).unwrap_or_else(IntoResponse::into_response)
}

fn place(shared: &Shared, parts: &Parts) -> Result<Response, ApiError> {
    let own = facts::read(shared, parts, "ppi").ip;
    let ip = match parameter(parts, "ip").filter(|ip| !ip.trim().is_empty()) {
        None => own,
        Some(text) => text.trim().parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| {
            let message = "Bad Request (IP): it is no address".to_owned();
            ApiError::Invalid { field: "ip".to_owned(), message }
        })?,
    };
    if ip != own {
        may_look_up(shared, parts)?;
    }
    if !shared.app.geo.is_ready() {
        return Err(ApiError::Unavailable("no database of places is loaded"));
    }
    let found = shared.app.geo.lookup_network(ip);
    let (place, first, last) = found.ok_or(ApiError::Unknown("Not Found (IP)"))?;
    Ok(answer::json(StatusCode::OK, &record(&place, first, last)))
}

/// Whether the caller may ask about addresses that are not its own (D22).
fn may_look_up(shared: &Shared, parts: &Parts) -> Result<(), ApiError> {
    match shared.keys.presented(parts) {
        Presented::Key(key) if key.kind == KeyKind::Server => Ok(()),
        Presented::None if shared.keys.is_empty() => {
            let now = shared.app.clock.wall().timestamp().unsigned_abs();
            shared.lookups.take(now).map_err(|retry_seconds| ApiError::Limited {
                message: "too many look-ups of other addresses; a server's key has no such limit",
                retry_seconds,
            })
        }
        _ => Err(ApiError::Unauthorized("another address is looked up with a server's key only")),
    }
}

/// The contract's record: what the database does not know is null.
fn record(place: &Place, first: IpAddr, last: IpAddr) -> Value {
    let decimal = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u32::from(ip).to_string(),
        IpAddr::V6(ip) => u128::from(ip).to_string(),
    };
    json!({
        "ips": decimal(first),
        "ipe": decimal(last),
        "iso2": place.country,
        "country": place.country_name,
        "region": place.region,
        "city": place.city,
        "lat": place.lat,
        "lon": place.lon,
        "zip": place.zip,
        "tz": place.tz,
    })
}

/// `ppi/…`: anything else.
pub(super) async fn unknown() -> Response {
    ApiError::Malformed { field: None, message: "Unknown action".to_owned() }.into_response()
}

/// The first pair of the query of that name.
fn parameter(parts: &Parts, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(parts.uri.query()?.as_bytes());
    pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Look-ups of this minute: the minute in the upper bits, the count in the lower ones.
#[derive(Default)]
pub(super) struct Lookups(AtomicU64);

impl Lookups {
    /// Spends one at `now`, in seconds; the error is how long to wait for the next.
    fn take(&self, now: u64) -> Result<(), u64> {
        const COUNT_BITS: u32 = 16;
        let minute = now / 60;
        let spend = |state: u64| {
            let spent = if state >> COUNT_BITS == minute { state & 0xffff } else { 0 };
            (spent < LOOKUPS_PER_MINUTE_MAX).then_some((minute << COUNT_BITS) | (spent + 1))
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .map(|_| ())
            .map_err(|_| 60 - now % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_regulation_says_where_since_when_and_what_consent() {
        let rows = regulations();
        assert_eq!(rows.len(), 50);
        let keys: Vec<_> = rows.iter().map(key_of).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        for row in rows {
            let rules = &row["rules"];
            let effective = rules["effective"].as_str().unwrap();
            assert!(effective.parse::<chrono::NaiveDate>().is_ok(), "{row:?}");
            assert!(["opt_in", "opt_out", "notice"].contains(&rules["consent"].as_str().unwrap()));
            assert!(!rules["name"].as_str().unwrap().is_empty());
            let countries = row["locs"]["countries"].as_array().unwrap();
            assert!(!countries.is_empty());
            let is_code =
                |code: &str| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
            assert!(countries.iter().all(|code| is_code(code.as_str().unwrap())), "{row:?}");
            for region in row["locs"]["regions"].as_array().unwrap() {
                let (country, _) = region.as_str().unwrap().split_once('-').unwrap();
                assert!(countries.contains(&Value::from(country)), "{row:?}");
            }
        }
    }

    #[test]
    fn look_ups_are_bounded_for_each_minute() {
        let lookups = Lookups::default();
        for _ in 0..LOOKUPS_PER_MINUTE_MAX {
            assert_eq!(lookups.take(600), Ok(()));
        }
        assert_eq!(lookups.take(610), Err(50));
        assert_eq!(lookups.take(660), Ok(()));
    }
}

//! The routes of those who make short links: make and list.
//!
//! Name and password come as `Authorization: Basic …`, or in the path as the Go tracker has them,
//! where they end up in histories and in the logs of proxies. A made link is durable when it is
//! answered, and found from then on.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use super::error::ApiError;
use super::state::Shared;
use super::{answer, body, credentials, facts};
use crate::backends::{Account, StoreError};
use crate::event::{Link, OrgId, UserId};
use crate::intake::{self, Keys, RequestFacts};
use crate::links::accounts::Denied;
use crate::links::{Found, Key, Target, is_reserved};

/// What is answered while the store does not.
pub(super) const UNAVAILABLE: ApiError =
    ApiError::Unavailable("the store cannot be asked now, try again");
/// Seconds until failed passwords are forgotten.
const DENIED_SECONDS: u64 = 60;
/// Bytes of a name; a UUID has 36.
const NAME_BYTES_MAX: usize = 128;
/// `rpi/redirect`: makes a short link, or changes it.
pub(super) async fn create(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        return ApiError::Method("POST").into_response();
    }
    match made(&shared, &parts, body).await {
        Ok(response) => response,
        Err(error) => refused(error),
    }
}

/// `rpi/redirects`: every change of the links of one host, newest first.
pub(super) async fn list(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if parts.method != Method::GET {
        return ApiError::Method("GET").into_response();
    }
    match listed(&shared, &parts).await {
        Ok(response) => response,
        Err(error) => refused(error),
    }
}

async fn made(
    shared: &Shared,
    parts: &Parts,
    body: axum::body::Body,
) -> Result<Response, ApiError> {
    let facts = facts::read(shared, parts, "rpi");
    let (credentials, _) = credentials::read(parts, 2)?;
    let account = let_in(shared, &facts, credentials).await?;
    let body = body::read(shared, parts, body).await?;
    let parsed = intake::parse_json(&body.bytes, shared.app.reading.nesting_max)?;
    let Value::Object(fields) = parsed else {
        let message = "a link is a JSON object".to_owned();
        return Err(ApiError::Malformed { field: None, message });
    };
    let mut wish = Wish::read(shared, &fields, &account)?;
    wish.check(shared, &account).await?;
    shared.app.links.make_room().map_err(|_| ApiError::Busy)?;
    let (event, pending) = shared.app.intake.link(&facts, wish.link, wish.oid, wish.org)?;
    let position = pending.durable().await?;
    shared.app.links.remember(&event, position);
    let mut response = answer::empty();
    let ack = HeaderValue::from_static(shared.app.durability.as_str());
    response.headers_mut().insert("x-ack", ack);
    Ok(response)
}

async fn listed(shared: &Shared, parts: &Parts) -> Result<Response, ApiError> {
    let facts = facts::read(shared, parts, "rpi");
    let (credentials, rest) = credentials::read(parts, 3)?;
    let host = rest.ok_or(ApiError::NotFound)?;
    let account = let_in(shared, &facts, credentials).await?;
    let host = match Key::parse(&format!("{host}/x")) {
        Ok(key) => key.host().to_owned(),
        Err(_) => return Err(invalid("host", "is no host like \"example.com\"")),
    };
    let rows = shared.app.links.list(&host, account.organisation).await;
    let rows = rows.map_err(|_: StoreError| UNAVAILABLE)?;
    let mut response = answer::json(StatusCode::OK, &json!({ "results": rows }));
    private(&mut response);
    Ok(response)
}

/// What the maker of a link wants, read and within the policy.
struct Wish {
    key: Key,
    target: Target,
    link: Link,
    oid: Option<OrgId>,
    org: Option<String>,
}

impl Wish {
    fn read(
        shared: &Shared,
        fields: &Map<String, Value>,
        account: &Account,
    ) -> Result<Self, ApiError> {
        let (from, to) = (needed(fields, "urlfrom")?, needed(fields, "urlto")?);
        if from.eq_ignore_ascii_case(to) {
            return Err(invalid("urlto", "is the same as urlfrom"));
        }
        let policy = &shared.policy;
        let key = Key::parse(from).map_err(|error| invalid("urlfrom", &error.to_string()))?;
        if is_reserved(key.path()) || shared.app.proxies.takes(key.host(), key.path()) {
            return Err(invalid("urlfrom", "has a path that the server answers itself"));
        }
        let target =
            policy.link(to, key.host()).map_err(|error| invalid("urlto", &error.to_string()))?;
        let url = Url::parse(to).map_err(|error| invalid("urlto", &error.to_string()))?;
        let named = scalar(fields, "searchto")?;
        let link = Link {
            urlfrom: key.as_str().to_owned(),
            hostfrom: key.host().to_owned(),
            slugfrom: key.path().to_owned(),
            urlto: url.as_str().to_owned(),
            hostto: url.host_str().unwrap_or_default().to_owned(),
            pathto: url.path().to_owned(),
            searchto: named.or_else(|| url.query().map(str::to_owned)),
            updater: account.uid,
        };
        let oid = organisation(shared.app.intake.keys(), fields, account)?;
        Ok(Self { key, target, link, oid, org: scalar(fields, "org")? })
    }

    /// What only the links there are can tell. A link keeps its organisation when an account without
    /// one changes it and names no other.
    async fn check(&mut self, shared: &Shared, account: &Account) -> Result<(), ApiError> {
        let links = &shared.app.links;
        if links.is_chain(&self.target.url).await {
            return Err(invalid("urlto", "is itself a short link of this server"));
        }
        match links.find_key(&self.key).await {
            Found::Link(link) if account.organisation.is_some_and(|own| link.oid != Some(own)) => {
                Err(ApiError::Forbidden("this short link belongs to another organisation"))
            }
            Found::Link(link) => {
                self.oid = self.oid.or(link.oid);
                Ok(())
            }
            Found::Nothing => Ok(()),
            Found::Unknown => Err(UNAVAILABLE),
        }
    }
}

/// The account's own organisation; one without may name any.
fn organisation(
    keys: &Keys,
    fields: &Map<String, Value>,
    account: &Account,
) -> Result<Option<OrgId>, ApiError> {
    let named = scalar(fields, "oid")?.filter(|text| !text.trim().is_empty());
    let named = named.map(|text| id_of(keys, &text)).transpose()?.map(OrgId::from);
    match (account.organisation, named) {
        (Some(own), Some(named)) if own != named => {
            Err(ApiError::Forbidden("oid is not the organisation of this account"))
        }
        (own, named) => Ok(own.or(named)),
    }
}

/// A text or number as text; anything else is no such thing.
fn scalar(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(invalid(name, "is no text")),
    }
}

fn needed<'f>(fields: &'f Map<String, Value>, name: &str) -> Result<&'f str, ApiError> {
    match fields.get(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim()),
        Some(Value::String(_) | Value::Null) | None => Err(invalid(name, "is missing")),
        Some(_) => Err(invalid(name, "is no text")),
    }
}

/// The id that a text is or stands for.
fn id_of(keys: &Keys, text: &str) -> Result<Uuid, ApiError> {
    let text = text.trim();
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(char::is_control) {
        return Err(invalid("oid", "is no id"));
    }
    Ok(Uuid::parse_str(text).unwrap_or_else(|_| keys.id(text)))
}

async fn let_in(
    shared: &Shared,
    facts: &RequestFacts,
    credentials: Option<(String, String)>,
) -> Result<Account, ApiError> {
    const WRONG: ApiError = ApiError::Unauthorized("user or password is wrong");
    let (name, password) = credentials.ok_or(WRONG)?;
    let uid = id_of(shared.app.intake.keys(), &name).map_err(|_| WRONG)?;
    let network = intake::network(facts.ip);
    let checked = shared.app.accounts.check(UserId::from(uid), password, network).await;
    checked.map_err(|denied| match denied {
        Denied::Wrong => WRONG,
        Denied::TooOften => ApiError::Limited {
            message: "too many wrong passwords, try again in a minute",
            retry_seconds: DENIED_SECONDS,
        },
        Denied::Unavailable => UNAVAILABLE,
    })
}

fn invalid(field: &str, message: &str) -> ApiError {
    ApiError::Invalid { field: field.to_owned(), message: message.to_owned() }
}

/// An error, which names the scheme by which one is let in here.
fn refused(error: ApiError) -> Response {
    let is_unauthorized = matches!(error, ApiError::Unauthorized(_));
    let mut response = error.into_response();
    if is_unauthorized {
        let scheme = HeaderValue::from_static("Basic realm=\"tracker\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    private(&mut response);
    response
}

fn private(response: &mut Response) {
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
}

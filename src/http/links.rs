//! The routes of those who make short links: make, list, draw as a QR code.
//!
//! Name and password come as `Authorization: Basic …`, or in the path as the Go tracker has them,
//! where they end up in histories and in the logs of proxies. A made link is durable when it is
//! answered, and found from then on.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use super::error::ApiError;
use super::state::Shared;
use super::{answer, body, facts};
use crate::backends::{Account, StoreError};
use crate::event::{Link, OrgId, UserId};
use crate::intake::{self, Keys, RequestFacts};
use crate::links::accounts::Denied;
use crate::links::{Found, Key, Target};

/// Seconds until failed passwords are forgotten.
const DENIED_SECONDS: u64 = 60;
/// Bytes of a name; a UUID has 36.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of an address that is drawn: a code with more is too dense for a camera.
const QR_BYTES_MAX: usize = 1024;
/// Pixels of a code's side at least; it is drawn in vectors and scales.
const QR_PIXELS_MIN: u32 = 240;

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

/// `rpi/qr?url=`: the QR code of a short link or of an address on a configured host, as SVG.
pub(super) async fn qr(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return ApiError::Method("GET, HEAD").into_response();
    }
    drawn(&shared, &parts).await.unwrap_or_else(IntoResponse::into_response)
}

async fn made(
    shared: &Shared,
    parts: &Parts,
    body: axum::body::Body,
) -> Result<Response, ApiError> {
    let facts = facts::read(shared, parts, "rpi");
    let (credentials, _) = credentials(parts, 2)?;
    let account = let_in(shared, &facts, credentials).await?;
    let body = body::read(shared, parts, body).await?;
    let fields = match intake::parse_json(&body.bytes, shared.app.reading.nesting_max)? {
        Value::Object(fields) => fields,
        _ => {
            let message = "a link is a JSON object".to_owned();
            return Err(ApiError::Malformed { field: None, message });
        }
    };
    let wish = Wish::read(shared, &fields, &account)?;
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
    let (credentials, rest) = credentials(parts, 3)?;
    let host = rest.ok_or(ApiError::NotFound)?;
    let account = let_in(shared, &facts, credentials).await?;
    let host = match Key::parse(&format!("{host}/x")) {
        Ok(key) => key.host().to_owned(),
        Err(_) => return Err(invalid("host", "is no host like \"example.com\"")),
    };
    let rows = shared.app.links.list(&host, account.organisation).await;
    let rows = rows.map_err(|_: StoreError| ApiError::Unavailable)?;
    let mut response = answer::json(StatusCode::OK, &json!({ "results": rows }));
    private(&mut response);
    Ok(response)
}

async fn drawn(shared: &Shared, parts: &Parts) -> Result<Response, ApiError> {
    let query = parts.uri.query().unwrap_or_default();
    let text = url::form_urlencoded::parse(query.as_bytes())
        .find_map(|(key, value)| (key == "url").then_some(value))
        .ok_or_else(|| invalid("url", "is missing"))?;
    let wrong = || invalid("url", "is no short link of this server and on no configured host");
    let url = Url::parse(&text).map_err(|_| wrong())?;
    if url.as_str().len() > QR_BYTES_MAX {
        return Err(invalid("url", "is too long for a code that a camera reads"));
    }
    let policy = shared.app.links.policy();
    if policy.redirect(&text, false).is_err() {
        let key = Key::parse(&text).map_err(|_| wrong())?;
        match shared.app.links.find_key(&key).await {
            Found::Link(_) => {}
            Found::Nothing => return Err(wrong()),
            Found::Unknown => return Err(ApiError::Unavailable),
        }
    }
    let image = svg_of(url.as_str()).ok_or_else(wrong)?;
    let mut response = answer::with_type(StatusCode::OK, "image/svg+xml", image.into());
    let headers = response.headers_mut();
    // The code of an address never changes.
    let lasting = HeaderValue::from_static("public, max-age=86400");
    headers.insert(header::CACHE_CONTROL, lasting);
    let csp = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    headers.insert(header::CONTENT_SECURITY_POLICY, csp);
    Ok(response)
}

/// Level M survives a logo or a scratch; the quiet zone around it is part of the picture.
fn svg_of(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::M).ok()?;
    let mut picture = code.render::<svg::Color<'_>>();
    Some(picture.min_dimensions(QR_PIXELS_MIN, QR_PIXELS_MIN).build())
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
        let policy = shared.app.links.policy();
        let key = Key::parse(from).map_err(|error| invalid("urlfrom", error))?;
        if policy.is_reserved(key.path()) {
            return Err(invalid("urlfrom", "has a path that the server answers itself"));
        }
        let target = policy.link(to, key.host()).map_err(|error| invalid("urlto", error))?;
        let url = Url::parse(to).map_err(|error| invalid("urlto", error))?;
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

    /// What only the links there are can tell.
    async fn check(&self, shared: &Shared, account: &Account) -> Result<(), ApiError> {
        let links = &shared.app.links;
        if links.is_chain(&self.target.url).await {
            return Err(invalid("urlto", "is itself a short link of this server"));
        }
        let Some(organisation) = account.organisation else { return Ok(()) };
        match links.find_key(&self.key).await {
            Found::Link(link) if link.oid != Some(organisation) => {
                Err(ApiError::Forbidden("this short link belongs to another organisation"))
            }
            Found::Link(_) | Found::Nothing => Ok(()),
            Found::Unknown => Err(ApiError::Unavailable),
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
        Some(Value::String(_)) | None | Some(Value::Null) => Err(invalid(name, "is missing")),
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

/// Name and password, and the segment of the path behind them.
type Credentials = (Option<(String, String)>, Option<String>);

/// Reads them: from the header, or from the first two of up to `segments_max` segments behind the
/// route `/tr/vN/rpi/name`.
fn credentials(parts: &Parts, segments_max: usize) -> Result<Credentials, ApiError> {
    let path = parts.uri.path().trim_end_matches('/');
    let mut segments = Vec::new();
    for segment in path.split('/').skip(5).take(segments_max + 2) {
        let decoded = percent_decode_str(segment).decode_utf8();
        segments.push(decoded.map_err(|_| ApiError::NotFound)?.into_owned());
    }
    let basic = basic(parts);
    let mut segments = segments.into_iter();
    match (basic, segments.len()) {
        // With the header, one segment is the host; more are the old form, which is read as such.
        (Some(basic), 0 | 1) => Ok((Some(basic), segments.next())),
        (_, 2 | 3) => {
            let both = segments.next().zip(segments.next());
            Ok((both, segments.next()))
        }
        (None, 0 | 1) => Ok((None, segments.next())),
        _ => Err(ApiError::NotFound),
    }
}

/// `Authorization: Basic …` (RFC 7617).
fn basic(parts: &Parts) -> Option<(String, String)> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(unbase64(token.trim())?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Base 64 of RFC 4648, with or without padding.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
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
        Denied::Unavailable => ApiError::Unavailable,
    })
}

fn invalid(field: &str, message: impl ToString) -> ApiError {
    ApiError::Invalid { field: field.to_owned(), message: message.to_string() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for (text, expect) in [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm9v", Some("foo")),
            ("Zm9vYmE", Some("fooba")),
            ("dXNlcjpww6Rzcw==", Some("user:päss")),
            ("Zm9v!", None),
        ] {
            let found = unbase64(text).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found.as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn credentials_come_from_the_header_or_the_path() {
        let check = |path: &str,
                     basic: Option<&str>,
                     expect: Option<(Option<(&str, &str)>, Option<&str>)>| {
            let mut request = axum::http::Request::get(path);
            if let Some(basic) = basic {
                request = request.header("authorization", format!("Basic {basic}"));
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let own = |text: &str| text.to_owned();
            let expect = expect.map(|(both, rest)| {
                (both.map(|(name, password)| (own(name), own(password))), rest.map(own))
            });
            assert_eq!(credentials(&parts, 3).ok(), expect, "{path}");
        };
        let both = Some(("u", "p/w"));
        check("/tr/v1/rpi/redirect/u/p%2Fw", None, Some((both, None)));
        check("/tr/v1/rpi/redirect/u/p%2Fw/", None, Some((both, None)));
        check("/tr/v1/rpi/redirects/u/p%2Fw/h.example", None, Some((both, Some("h.example"))));
        check("/tr/v1/rpi/redirects/h.example", Some("dTpwL3c="), Some((both, Some("h.example"))));
        check("/tr/v1/rpi/redirect", Some("dTpwL3c="), Some((both, None)));
        check("/tr/v1/rpi/redirects/h.example", None, Some((None, Some("h.example"))));
        check("/tr/v1/rpi/redirect/a/b/c/d", None, None);
    }

    #[test]
    fn a_code_is_a_picture_without_script_or_reference() {
        let image = svg_of("https://go.example/x").unwrap();
        assert!(image.contains("<svg") && !image.contains("script") && !image.contains("href"));
    }
}

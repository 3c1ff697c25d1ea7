//! Visitors who are sent on: `rdr` and `xrdr` with their destination in the query, and short links,
//! which are every path that no other route has.
//!
//! The event is appended and the visitor is sent on at once: a redirect never waits for a disk, and
//! one that was answered before its event was durable is counted as unconfirmed. Where a visitor may
//! be sent is [`crate::links::Policy`]'s to say. `HEAD` is answered and records nothing: whoever
//! checks links is no visitor.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use url::{Position, Url};

use super::error::{ApiError, RETRY_SECONDS};
use super::links::UNAVAILABLE;
use super::state::Shared;
use super::{answer, cookie, facts};
use crate::backends::ShortLink;
use crate::event::Origin;
use crate::intake::{self, Hit, Receipt, RequestFacts};
use crate::links::{Found, Refused, Target, is_reserved};

/// The contract's type and name of a visit of a short link.
const VISIT: [(&str, &str); 2] = [("etyp", "redirect"), ("ename", "short_rdr")];
/// The label of a visit that left no event.
const UNRECORDED: &str = "unrecorded";
/// The label of a page that was fetched ahead.
const PREFETCH: &str = "prefetch";

/// `rdr`: a server event.
pub(super) async fn rdr(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    follow(&shared, request, Going { route: "rdr", origin: Origin::Server })
}

/// `xrdr`: the same as a client event, with the visitor cookie.
pub(super) async fn xrdr(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    follow(&shared, request, Going { route: "xrdr", origin: Origin::Client })
}

/// Every path without a route of its own and without a server behind: a short link, or nothing.
pub(super) async fn visit(shared: &Arc<Shared>, parts: &Parts) -> Response {
    let links = &shared.app.links;
    let is_visit = matches!(parts.method, Method::GET | Method::HEAD);
    if !is_visit || is_reserved(parts.uri.path()) {
        return ApiError::NotFound.into_response();
    }
    let facts = facts::read(shared, parts, "link");
    match links.find(&facts.host, parts.uri.path()).await {
        Found::Link(link) => match target_of(shared, &link).await {
            Ok(target) => arrive(shared, parts, facts, &link, target),
            Err(refused) => {
                count_refused(shared, refused);
                by_default(shared).unwrap_or_else(|| {
                    ApiError::Forbidden("this link leads where nobody is sent").into_response()
                })
            }
        },
        Found::Nothing => ApiError::NotFound.into_response(),
        Found::Unknown => {
            shared.app.metrics.links_unknown.inc();
            by_default(shared).unwrap_or_else(unknown)
        }
    }
}

/// A route and whose event it records.
#[derive(Clone, Copy)]
struct Going {
    route: &'static str,
    origin: Origin,
}

fn follow(shared: &Arc<Shared>, request: Request, going: Going) -> Response {
    let (parts, _) = request.into_parts();
    let to = match destination(shared, parts.uri.query().unwrap_or_default()) {
        Ok(url) => url,
        Err(refused) => {
            count_refused(shared, refused);
            let default = shared.app.site.default_redirect.as_deref();
            let Some(url) = default.and_then(|text| Url::parse(text).ok()) else {
                let (field, message) = ("url".to_owned(), refused.to_string());
                return ApiError::Invalid { field, message }.into_response();
            };
            url
        }
    };
    let facts = facts::read(shared, &parts, going.route);
    // `/tr/vN/route/` and then the rest.
    let rest = parts.uri.path().splitn(5, '/').nth(4).unwrap_or_default();
    let mut fields = said(shared, &facts, rest, parts.uri.query(), Map::new());
    fields.shift_remove("sig");
    // What was asked for may have been refused; the page is where the visitor is sent.
    fields.insert("url".to_owned(), to.as_str().into());
    send(shared, &parts, facts, going, fields, &to)
}

/// The destination that the query names, if it is allowed.
fn destination(shared: &Shared, query: &str) -> Result<Url, Refused> {
    let first = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find_map(|(key, value)| (key == name).then_some(value))
    };
    let text = first("url").ok_or(Refused::Missing)?;
    let signature = first("sig");
    let keys = shared.app.intake.keys();
    let is_signed = signature.as_ref().is_some_and(|sig| keys.is_redirect_signed(&text, sig));
    shared.policy.redirect(&text, is_signed).map_err(|refused| {
        let is_forged = refused == Refused::Host && signature.is_some();
        if is_forged { Refused::Signature } else { refused }
    })
}

/// Where `link` leads, as the policy is today.
async fn target_of(shared: &Shared, link: &ShortLink) -> Result<Target, Refused> {
    let links = &shared.app.links;
    let host = link.urlfrom.split('/').next().unwrap_or_default();
    let target = shared.policy.link(&link.urlto, host)?;
    if links.is_chain(&target.url).await { Err(Refused::Own) } else { Ok(target) }
}

/// Records the visit of a short link and sends its visitor on.
fn arrive(
    shared: &Arc<Shared>,
    parts: &Parts,
    facts: RequestFacts,
    link: &ShortLink,
    target: Target,
) -> Response {
    let origin = if target.tracked.is_some() { Origin::Server } else { Origin::Client };
    let mut own = target.tracked.unwrap_or_default();
    for (name, value) in VISIT {
        own.entry(name).or_insert_with(|| value.into());
    }
    // Pairs begin behind the first segment (contract §2.4).
    let rest = parts.uri.path().splitn(3, '/').nth(2).unwrap_or_default();
    let mut fields = said(shared, &facts, rest, parts.uri.query(), own);
    // Whose link it is, and which, is not the visitor's to say.
    fields.shift_remove("oid");
    fields.shift_remove("org");
    if let Some(oid) = link.oid {
        fields.insert("oid".to_owned(), oid.to_string().into());
    }
    if let Some(org) = &link.org {
        fields.insert("org".to_owned(), org.as_str().into());
    }
    fields.insert("link".to_owned(), link.urlfrom.as_str().into());
    fields.insert("to".to_owned(), target.url[..Position::AfterPath].into());
    send(shared, parts, facts, Going { route: "link", origin }, fields, &target.url)
}

fn said(
    shared: &Shared,
    facts: &RequestFacts,
    rest: &str,
    query: Option<&str>,
    own: Map<String, Value>,
) -> Map<String, Value> {
    let ignore = shared.app.reading.ignore_query_key.as_deref();
    intake::fields(facts, rest, query, Some(own), ignore)
}

/// Appends the event and answers; nothing here waits.
fn send(
    shared: &Arc<Shared>,
    parts: &Parts,
    facts: RequestFacts,
    going: Going,
    fields: Map<String, Value>,
    to: &Url,
) -> Response {
    let mut response = found(&parts.method, to.as_str());
    if !matches!(parts.method, Method::GET | Method::POST | Method::PUT) {
        return response;
    }
    let scope = facts::scope(shared, parts, &facts.host);
    let length = facts.uri.len();
    let hit = Hit { origin: going.origin, facts: Arc::new(facts), fields, length };
    // A refusal is counted by intake, with its reason; the visitor goes on all the same.
    let class = match shared.app.intake.accept(hit) {
        Ok(receipt) => {
            let class = if receipt.is_prefetch { PREFETCH } else { receipt.verdict.as_str() };
            let Receipt { pending, cookie, .. } = receipt;
            if pending.is_open() {
                shared.app.metrics.events_unconfirmed.inc();
            }
            if let Some(cookie) = &cookie {
                cookie::set(response.headers_mut(), cookie, scope);
            }
            class
        }
        Err(_) => UNRECORDED,
    };
    shared.app.metrics.redirects.with_label_values(&[going.route, class]).inc();
    response
}

/// The store does not answer: whether there is such a link cannot be said.
fn unknown() -> Response {
    let mut response = UNAVAILABLE.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
    response
}

fn by_default(shared: &Shared) -> Option<Response> {
    shared.app.site.default_redirect.as_deref().map(|to| found(&Method::HEAD, to))
}

fn count_refused(shared: &Shared, refused: Refused) {
    shared.app.metrics.redirects_refused.with_label_values(&[refused.as_str()]).inc();
}

/// 302 with the contract's body; never cached, so that every visit is seen.
fn found(method: &Method, to: &str) -> Response {
    let body = match *method {
        Method::GET => format!("<a href=\"{}\">Found</a>.\n\n", escaped(to)),
        _ => String::new(),
    };
    let mut response =
        answer::with_type(StatusCode::FOUND, "text/html; charset=utf-8", body.into());
    let headers = response.headers_mut();
    // What was read as an address is ASCII without control characters.
    if let Ok(location) = HeaderValue::from_str(to) {
        headers.insert(header::LOCATION, location);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;").replace('>', "&gt;")
}

//! Who speaks: the keys of the configuration, as a request presents them.
//!
//! A key comes in `Authorization: Bearer …` or in `X-Api-Key`; a site key, which is public, also as
//! `?key=` for pixels. Keys are kept as SHA-256 digests and compared in constant time, so neither a
//! dump of memory nor the time of an answer tells one.
//!
//! Without keys there is one tenant and every sender is believed, as the documentation's examples
//! have it. With any key, organisations are said by keys and hosts only, and servers need their
//! key; with any site, every event of a page must belong to one.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode_str;

use super::error::ApiError;
use super::facts::without_port;
use crate::config::{KeyConfig, KeyKind};
use crate::intake::{RequestFacts, Tenant};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The pair of a query that holds a site key.
const QUERY_KEY: &str = "key";

/// One key of the configuration.
pub(super) struct ApiKey {
    /// For messages.
    pub(super) name: String,
    /// What its holder may do.
    pub(super) kind: KeyKind,
    /// Whose events these are; see [`KeyConfig::organization`].
    pub(super) organization: Option<String>,
    hosts: Vec<String>,
    digest: Digest,
}

/// What a request shows of keys.
pub(super) enum Presented<'k> {
    /// None, or none is configured.
    None,
    /// One that is not known, or one where it may not be.
    Wrong,
    /// A known one.
    Key(&'k ApiKey),
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// One of the registered sites, as soon as there is one.
    Site,
    /// The key of a server, as soon as there is any key.
    Server,
}

/// Every key of the configuration.
pub(super) struct Keys {
    keys: Vec<ApiKey>,
    has_sites: bool,
}

impl Keys {
    pub(super) fn new(keys: &[KeyConfig]) -> Self {
        let key = |config: &KeyConfig| ApiKey {
            name: config.name.clone(),
            kind: config.kind,
            organization: config.organization.clone(),
            hosts: config.hosts.clone(),
            digest: digest(&SHA256, config.key.reveal().as_bytes()),
        };
        Self {
            keys: keys.iter().map(key).collect(),
            has_sites: keys.iter().any(|key| key.kind == KeyKind::Site),
        }
    }

    /// Whether the installation has any key.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a request shows. A server's key in an address is wrong: addresses are logged on
    /// the way. Any other `?key=` that is no site's is an ordinary field.
    pub(super) fn presented(&self, parts: &Parts) -> Presented<'_> {
        if self.is_empty() {
            return Presented::None;
        }
        if let Some(shown) = in_headers(&parts.headers) {
            return self.find(shown).map_or(Presented::Wrong, Presented::Key);
        }
        let shown = parts.uri.query().and_then(in_query);
        match shown.and_then(|shown| self.find(&shown)) {
            None => Presented::None,
            Some(key) if key.kind == KeyKind::Site => Presented::Key(key),
            Some(_) => Presented::Wrong,
        }
    }

    /// Lets a request in and says in `facts` what its sender is believed.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] when the route needs a key that was not shown.
    pub(super) fn admit(
        &self,
        parts: &Parts,
        facts: &mut RequestFacts,
        need: Need,
    ) -> Result<(), ApiError> {
        if self.is_empty() {
            return Ok(());
        }
        let page = page_host(&parts.headers);
        let key = match self.presented(parts) {
            Presented::Wrong => return Err(ApiError::Unauthorized("the key is not known here")),
            Presented::Key(key) => Some(key),
            Presented::None => self.site_of(page.as_deref().unwrap_or(&facts.host)),
        };
        match key {
            Some(key) if key.kind == KeyKind::Server => {
                facts.trusted = true;
                facts.tenant = match &key.organization {
                    Some(organization) => Tenant::Fixed(Some(organization.clone())),
                    None => Tenant::AsSaid,
                };
                return Ok(());
            }
            _ if need == Need::Server => {
                return Err(ApiError::Unauthorized("this needs the key of a server"));
            }
            Some(site) => {
                if page.is_some_and(|page| !site.is_of(&page)) {
                    tracing::debug!(key = site.name, "a page of another site showed this key");
                    return Err(ApiError::Unauthorized("the key belongs to another site"));
                }
                facts.query_has_key = parts.uri.query().and_then(in_query).is_some();
                facts.tenant = Tenant::Fixed(site.organization.clone());
            }
            None if self.has_sites => {
                return Err(ApiError::Unauthorized("no registered site and no key"));
            }
            None => facts.tenant = Tenant::Fixed(None),
        }
        Ok(())
    }

    /// The site that has `host` among its own.
    fn site_of(&self, host: &str) -> Option<&ApiKey> {
        self.keys.iter().find(|key| key.hosts.iter().any(|own| own == host))
    }

    /// Compares with every key, so that the time does not say which was near.
    fn find(&self, shown: &str) -> Option<&ApiKey> {
        let shown = digest(&SHA256, shown.as_bytes());
        self.keys.iter().fold(None, |found, key| {
            let is_same = verify_slices_are_equal(key.digest.as_ref(), shown.as_ref()).is_ok();
            if is_same { Some(key) } else { found }
        })
    }
}

impl ApiKey {
    /// Whether pages of `host` may use this key; any may where no hosts are named.
    fn is_of(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|own| own == host)
    }
}

fn in_headers(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    // A value that is no text is shown all the same, and wrong.
    bearer.or_else(|| Some(headers.get(X_API_KEY)?.to_str().unwrap_or_default().trim()))
}

fn in_query(query: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(name, _)| *name == QUERY_KEY)?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// The host of the page that sends, as its browser says; `null` and nonsense are no host of a site.
fn page_host(headers: &HeaderMap) -> Option<String> {
    let said = headers.get(header::ORIGIN).or_else(|| headers.get(header::REFERER))?;
    let said = said.to_str().unwrap_or_default();
    let authority = said.split_once("://").map_or("", |(_, rest)| rest);
    Some(without_port(authority.split(['/', '?', '#']).next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::config::Secret;

    const SERVER: &str = "5e7a1b8d3f6051c2a7e49f2c";
    const SITE: &str = "0f6051c2a7e49f2c5e7a1b8d";

    fn keys() -> Keys {
        let key =
            |name: &str, key: &str, kind, organization: Option<&str>, hosts: &[&str]| KeyConfig {
                name: name.to_owned(),
                key: Secret::new(key),
                kind,
                organization: organization.map(str::to_owned),
                hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            };
        Keys::new(&[
            key("billing", SERVER, KeyKind::Server, None, &[]),
            key("shop", SITE, KeyKind::Site, Some("acme"), &["shop.example"]),
        ])
    }

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn shown(keys: &Keys, uri: &str, headers: &[(&str, &str)]) -> String {
        match keys.presented(&parts(uri, headers)) {
            Presented::None => "none".to_owned(),
            Presented::Wrong => "wrong".to_owned(),
            Presented::Key(key) => key.name.clone(),
        }
    }

    #[test]
    fn a_key_is_found_where_it_may_be_and_nowhere_else() {
        let (keys, bearer) = (keys(), format!("bearer {SERVER}"));
        let check = |uri: &str, headers: &[(&str, &str)], expect: &str| {
            assert_eq!(shown(&keys, uri, headers), expect, "{uri} {headers:?}");
        };
        check("/", &[], "none");
        check("/", &[("authorization", &bearer)], "billing");
        check("/", &[("x-api-key", SERVER)], "billing");
        check("/", &[("x-api-key", SITE)], "shop");
        check("/", &[("x-api-key", "")], "wrong");
        check("/", &[("x-api-key", &SERVER[1..])], "wrong");
        check("/", &[("authorization", "Basic dTpw")], "none");
        check("/", &[("authorization", "Bearer other"), ("x-api-key", SERVER)], "wrong");
        check(&format!("/?a=1&key={SITE}"), &[], "shop");
        check(&format!("/?key={SERVER}"), &[], "wrong");
        check("/?key=value", &[], "none");
        assert_eq!(shown(&Keys::new(&[]), "/", &[("x-api-key", "any")]), "none");
    }

    #[test]
    fn a_page_is_known_by_its_origin_and_then_by_its_referrer() {
        let check = |name: &'static str, value: &str, expect: &str| {
            let parts = parts("/", &[(name, value)]);
            assert_eq!(page_host(&parts.headers).as_deref(), Some(expect), "{value}");
        };
        check("origin", "https://Shop.example:8443", "shop.example");
        check("origin", "null", "");
        check("referer", "https://shop.example/a?b=https://evil.example/", "shop.example");
        check("referer", "https://evil.example#@shop.example/", "evil.example");
        check("referer", "https://evil.example?shop.example/", "evil.example");
        assert_eq!(page_host(&HeaderMap::new()), None);
    }
}

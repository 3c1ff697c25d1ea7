//! Name and password of an account, as a request carries them: `Authorization: Basic …` (RFC 7617), or
//! two segments of the path, as the Go tracker has them.

use axum::http::header;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::error::ApiError;
use crate::links::base64;

/// Name and password, and the segment of the path behind them.
pub(super) type Credentials = (Option<(String, String)>, Option<String>);

/// Reads them: from the header, or from the first two of up to `segments_max` segments behind the
/// route `/tr/vN/rpi/name`.
pub(super) fn read(parts: &Parts, segments_max: usize) -> Result<Credentials, ApiError> {
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
    let text = String::from_utf8(base64::decode(token.trim())?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expect = (Option<(&'static str, &'static str)>, Option<&'static str>);

    #[test]
    fn credentials_come_from_the_header_or_the_path() {
        let check = |path: &str, basic: Option<&str>, expect: Option<Expect>| {
            let mut request = axum::http::Request::get(path);
            if let Some(basic) = basic {
                request = request.header("authorization", format!("Basic {basic}"));
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let own = |text: &str| text.to_owned();
            let expect = expect.map(|(both, rest)| {
                (both.map(|(name, password)| (own(name), own(password))), rest.map(own))
            });
            assert_eq!(read(&parts, 3).ok(), expect, "{path}");
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
}

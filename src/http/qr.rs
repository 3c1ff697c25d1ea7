//! QR codes of our own addresses, as SVG: `rpi/qr?url=`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use url::Url;

use super::answer;
use super::error::ApiError;
use super::links::UNAVAILABLE;
use super::state::Shared;
use crate::links::{Found, Key};

/// Bytes of an address that is drawn: a code with more is too dense for a camera.
const QR_BYTES_MAX: usize = 1024;
/// Pixels of a code's side at least; it is drawn in vectors and scales.
const QR_PIXELS_MIN: u32 = 240;

/// `rpi/qr?url=`: the QR code of a short link or of an address on a configured host, as SVG.
pub(super) async fn qr(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return ApiError::Method("GET, HEAD").into_response();
    }
    drawn(&shared, &parts).await.unwrap_or_else(IntoResponse::into_response)
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
    if shared.policy.redirect(&text, false).is_err() {
        let key = Key::parse(&text).map_err(|_| wrong())?;
        match shared.app.links.find_key(&key).await {
            Found::Link(_) => {}
            Found::Nothing => return Err(wrong()),
            Found::Unknown => return Err(UNAVAILABLE),
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

fn invalid(field: &str, message: &str) -> ApiError {
    ApiError::Invalid { field: field.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_picture_without_script_or_reference() {
        let image = svg_of("https://go.example/x").unwrap();
        assert!(image.contains("<svg") && !image.contains("script") && !image.contains("href"));
    }
}

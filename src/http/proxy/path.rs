//! Which path a request really asks for, before it is decided who answers it.
//!
//! A server behind us may decode a path before it follows `..`, and may take `\` or a part after `;`
//! for something else than we do. So dots are followed here, in whatever spelling, and where the
//! spellings could be read in two ways the path is refused. Everything else goes on byte for byte,
//! empty segments too.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The path without `.` and `..`; `None` when it climbs above the root or is ambiguous.
pub fn clean(path: &str) -> Option<Cow<'_, str>> {
    let inside = path.strip_prefix('/')?;
    let mut kept: Vec<&str> = Vec::new();
    let (mut changed, mut ends_in_folder) = (false, false);
    for segment in inside.split('/') {
        ends_in_folder = false;
        match kind(segment)? {
            Kind::Plain => kept.push(segment),
            Kind::Here => (changed, ends_in_folder) = (true, true),
            Kind::Up => {
                kept.pop()?;
                (changed, ends_in_folder) = (true, true);
            }
        }
    }
    if !changed {
        return Some(Cow::Borrowed(path));
    }
    let mut cleaned = format!("/{}", kept.join("/"));
    if ends_in_folder && !cleaned.ends_with('/') {
        cleaned.push('/');
    }
    Some(Cow::Owned(cleaned))
}

enum Kind {
    Plain,
    Here,
    Up,
}

/// What a segment means; `None` when that depends on who reads it.
fn kind(segment: &str) -> Option<Kind> {
    if !segment.contains(['.', '%', '\\']) {
        return Some(Kind::Plain);
    }
    let decoded = percent_decode_str(segment).collect::<Vec<u8>>();
    match decoded.as_slice() {
        b"." => return Some(Kind::Here),
        b".." => return Some(Kind::Up),
        _ => {}
    }
    let is_dots = |part: &[u8]| {
        let name = part.split(|byte| *byte == b';').next().unwrap_or(part);
        matches!(name, b"." | b"..")
    };
    let hides_dots = decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(is_dots);
    (!hides_dots && !decoded.contains(&0)).then_some(Kind::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expect: Option<&str>) {
        assert_eq!(clean(path).as_deref(), expect, "{path}");
    }

    #[test]
    fn what_has_no_dots_goes_on_byte_for_byte() {
        for path in [
            "/",
            "/api/",
            "/api//x/",
            "/api/url/https://a.example/b",
            "/a%20b/%C3%BC",
            "/a%2Fb",
            "/...",
            "/.well-known/x",
            "/a..b",
            "/%252e%252e/x",
            "/a;b=.",
            "/a.b\\c",
        ] {
            check(path, Some(path));
        }
    }

    #[test]
    fn dots_are_followed_in_every_spelling() {
        for (path, expect) in [
            ("/api/./x", "/api/x"),
            ("/api/../x", "/x"),
            ("/api/a/%2e%2e/x", "/api/x"),
            ("/api/a/.%2E", "/api/"),
            ("/api/a/..", "/api/"),
            ("/api/..", "/"),
            ("/api/.", "/api/"),
            ("/a/b/../../c", "/c"),
        ] {
            check(path, Some(expect));
        }
    }

    #[test]
    fn what_climbs_out_or_can_be_read_in_two_ways_is_refused() {
        for path in [
            "/..",
            "/api/../../x",
            "/%2e%2e/x",
            "/api/..%2fx",
            "/api/x%2f..%2fy",
            "/api/..\\x",
            "/api/%5c..%5cx",
            "/api/..;/x",
            "/api/..;a=b/x",
            "/api/x%00",
            "x",
            "",
        ] {
            check(path, None);
        }
    }
}

//! One line of an access log in combined format: `address ident user [time] "request" status bytes
//! "referrer" "agent"`.
//!
//! Real logs hold lines that are no request (a connection that sent nothing, or garbage, or was cut
//! short while writing). Reading never panics and never guesses: a line is a request or says why not.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use thiserror::Error;

/// A request as the log remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The client's address; absent where the log has a name instead.
    pub address: Option<IpAddr>,
    /// When.
    pub time: DateTime<Utc>,
    /// `GET`, `POST` …
    pub method: String,
    /// Path and query, or a whole address where a proxy was asked.
    pub target: String,
    /// Status of the answer.
    pub status: u16,
    /// Bytes of the answer's body; absent where the log has `-`.
    pub bytes: Option<u64>,
    /// `Referer`; absent where the log has `-` or nothing.
    pub referrer: Option<String>,
    /// `User-Agent`; absent where the log has `-` or nothing.
    pub agent: Option<String>,
    /// The last quoted field has no end: the line was cut while it was written.
    pub cut: bool,
}

/// Why a line is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Odd {
    /// Nothing but white space.
    #[error("empty line")]
    Empty,
    /// Longer than a line may be.
    #[error("line too long")]
    TooLong,
    /// Not the fields of the format.
    #[error("not in combined format")]
    Format,
    /// The time cannot be read.
    #[error("unreadable time")]
    Time,
    /// The connection sent no request, or something that is none.
    #[error("no request")]
    NoRequest,
}

/// Reads one line, without its end.
///
/// # Errors
/// Why the line is no request.
pub fn parse(line: &str) -> Result<Line, Odd> {
    let line = line.trim();
    if line.is_empty() {
        return Err(Odd::Empty);
    }
    let (client, rest) = line.split_once(" [").ok_or(Odd::Format)?;
    let address = client.split(' ').next().ok_or(Odd::Format)?;
    let (time, rest) = rest.split_once("] ").ok_or(Odd::Format)?;
    let time = DateTime::parse_from_str(time, "%d/%b/%Y:%H:%M:%S %z").map_err(|_| Odd::Time)?;
    let (request, rest) = quoted(rest).ok_or(Odd::Format)?;
    let mut numbers = rest.text.trim_start().splitn(3, ' ');
    let status = numbers.next().and_then(|s| s.parse().ok()).ok_or(Odd::Format)?;
    let bytes = numbers.next().ok_or(Odd::Format)?;
    let (referrer, rest) = quoted(numbers.next().ok_or(Odd::Format)?).ok_or(Odd::Format)?;
    let (agent, end) = quoted(rest.text).ok_or(Odd::Format)?;
    let (method, target) = request_line(&request).ok_or(Odd::NoRequest)?;
    Ok(Line {
        address: address.parse().ok(),
        time: time.to_utc(),
        method: method.to_owned(),
        target: target.to_owned(),
        status,
        bytes: bytes.parse().ok(),
        referrer: present(referrer),
        agent: present(agent),
        cut: !end.closed,
    })
}

/// What stands behind a quoted field.
struct After<'l> {
    text: &'l str,
    closed: bool,
}

/// The next quoted field, with the servers' escapes undone, and what stands behind it.
fn quoted(text: &str) -> Option<(String, After<'_>)> {
    let inside = text.trim_start().strip_prefix('"')?;
    let mut escaped = false;
    let end = inside.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    let (field, after) = match end {
        // Both are character borders: a quote is one byte.
        Some(end) => (inside.get(..end)?, After { text: inside.get(end + 1..)?, closed: true }),
        None => (inside, After { text: "", closed: false }),
    };
    Some((unescape(field), after))
}

/// Apache and nginx write `\"`, `\\`, `\t` and `\xHH`. Where the bytes are no UTF-8 the field stays as
/// it was written: that is text, and nothing is lost.
fn unescape(field: &str) -> String {
    if !field.contains('\\') {
        return field.to_owned();
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(hex));
                let [Some(high), Some(low)] = digits else { return field.to_owned() };
                bytes.push(high << 4 | low);
            }
            Some(other) => bytes.push(other),
            None => bytes.push(b'\\'),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| field.to_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Method and target of `GET /path HTTP/1.1`; HTTP/0.9 has no version.
fn request_line(request: &str) -> Option<(&str, &str)> {
    let (method, rest) = request.split_once(' ')?;
    let target = match rest.rsplit_once(' ') {
        Some((target, version)) if version.starts_with("HTTP/") => target,
        _ => rest,
    };
    let is_token = |c: char| c.is_ascii_uppercase() || matches!(c, '-' | '_');
    let is_method = !method.is_empty() && method.chars().all(is_token);
    let is_target = ["/", "http://", "https://"].iter().any(|start| target.starts_with(start));
    (is_method && is_target).then_some((method, target))
}

fn present(field: String) -> Option<String> {
    let field = if field.trim().len() < field.len() { field.trim().to_owned() } else { field };
    (!field.is_empty() && field != "-").then_some(field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "203.0.113.9 - - [17/May/2015:10:05:03 +0200]";

    fn check(line: &str, expect: Result<(&str, &str), Odd>) {
        let line = line.replace("HEAD", HEAD);
        let found = parse(&line);
        let found = found.as_ref().map(|line| (line.method.as_str(), line.target.as_str()));
        assert_eq!(found.map_err(|odd| *odd), expect, "{line}");
    }

    #[test]
    fn a_request_is_read_field_by_field() {
        let line = format!(
            "{HEAD} \"GET /a?b=c HTTP/1.1\" 206 - \"http://x.example/\" \"Say \\\"hi\\\" \\xc3\\xa4\" extra"
        );
        assert_eq!(
            parse(&line),
            Ok(Line {
                address: Some("203.0.113.9".parse().unwrap()),
                time: "2015-05-17T08:05:03Z".parse().unwrap(),
                method: "GET".to_owned(),
                target: "/a?b=c".to_owned(),
                status: 206,
                bytes: None,
                referrer: Some("http://x.example/".to_owned()),
                agent: Some("Say \"hi\" ä".to_owned()),
                cut: false,
            })
        );
    }

    #[test]
    fn lines_that_are_no_request_say_why() {
        check("", Err(Odd::Empty));
        check("  \t", Err(Odd::Empty));
        check("hello", Err(Odd::Format));
        check("HEAD \"-\" 408 0 \"-\" \"-\"", Err(Odd::NoRequest));
        check("HEAD \"\" 400 0 \"-\" \"-\"", Err(Odd::NoRequest));
        check("HEAD \"\\x16\\x03\\x01\" 400 226 \"-\" \"-\"", Err(Odd::NoRequest));
        check("HEAD \"OPTIONS * HTTP/1.0\" 200 0 \"-\" \"-\"", Err(Odd::NoRequest));
        check("HEAD \"CONNECT a:443 HTTP/1.1\" 405 0 \"-\" \"-\"", Err(Odd::NoRequest));
        check("HEAD \"get / HTTP/1.1\" 200 0 \"-\" \"-\"", Err(Odd::NoRequest));
        check("HEAD \"GET / HTTP/1.1\" two 0 \"-\" \"-\"", Err(Odd::Format));
        check("HEAD \"GET / HTTP/1.1\" 200", Err(Odd::Format));
        check("HEAD \"GET / HTTP/1.1\" 200 5", Err(Odd::Format));
        check("HEAD \"GET / HTTP/1.1\" 200 5 \"-\"", Err(Odd::Format));
        check("a - - [yesterday] \"GET / HTTP/1.1\" 200 5 \"-\" \"-\"", Err(Odd::Time));
        check("HEAD \"GET /", Err(Odd::Format));
    }

    #[test]
    fn odd_requests_are_requests() {
        check("HEAD \"GET /\" 200 5 \"-\" \"-\"", Ok(("GET", "/")));
        check("HEAD \"GET /a b HTTP/1.1\" 404 5 \"-\" \"-\"", Ok(("GET", "/a b")));
        check("HEAD \"M-SEARCH / HTTP/1.1\" 405 5 \"-\" \"-\"", Ok(("M-SEARCH", "/")));
        check("HEAD \"GET http://x/ HTTP/1.1\" 404 5 \"-\" \"-\"", Ok(("GET", "http://x/")));
        check(
            "a.example - Jo Do [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 5 \"\" \"\"",
            Ok(("GET", "/")),
        );
    }

    #[test]
    fn a_line_that_was_cut_keeps_what_it_has() {
        let line = parse(&format!("{HEAD} \"GET / HTTP/1.1\" 200 5 \"-\" \"Googlebot (+http:/"));
        let line = line.unwrap();
        assert_eq!((line.agent.as_deref(), line.cut), (Some("Googlebot (+http:/"), true));
    }

    #[test]
    fn escapes_of_bytes_that_are_no_text_stay_as_written() {
        for (written, expect) in [
            ("a\\\"b", "a\"b"),
            ("a\\\\b", "a\\b"),
            ("\\xe4\\xe5", "\\xe4\\xe5"),
            ("\\xc3\\xa4", "ä"),
            ("\\xz1", "\\xz1"),
            ("a\\", "a\\"),
            ("\\x4", "\\x4"),
        ] {
            assert_eq!(unescape(written), expect, "{written}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn no_text_makes_it_panic(
            line in "\\PC{0,60}",
            parts in prop::collection::vec("[ \\[\\]\"\\\\a-z0-9:/+x-]{0,12}", 0..9),
        ) {
            drop(parse(&line));
            drop(parse(&format!("{HEAD} {}", parts.join("\""))));
        }

        #[test]
        fn what_is_escaped_comes_back(text in "\\PC{0,30}") {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let line = format!("\"{escaped}\" rest");
            let (field, after) = quoted(&line).unwrap();
            prop_assert_eq!(field, text);
            prop_assert_eq!(after.text, " rest");
        }
    }
}

//! The header fingerprint `ja4h` in the contract's form `a_b_c_d` (§2.3).
//!
//! Not the published JA4H: header names are sorted, `Host` does not count, and only the names of
//! cookies are hashed. Values are therefore comparable with older data here, not with other tools.

use aws_lc_rs::digest;

use super::super::RequestFacts;
use super::super::keys::hex;

/// Bytes of a hash that are kept: 12 hex characters.
const HASH_BYTES: usize = 6;
/// The last two parts without cookies.
const NO_COOKIES: &str = "000000000000";

/// The fingerprint of a request.
pub(super) fn ja4h(facts: &RequestFacts) -> String {
    let mut names: Vec<&str> = facts.header_names.iter().map(String::as_str).collect();
    names.retain(|name| !name.eq_ignore_ascii_case("host"));
    let is_counted = |name: &&&str| {
        !name.eq_ignore_ascii_case("cookie") && !name.eq_ignore_ascii_case("referer")
    };
    let count = names.iter().filter(is_counted).count().min(99);
    names.sort_unstable();
    let method: String = facts.method.chars().take(2).map(|c| c.to_ascii_lowercase()).collect();
    let version = if facts.http2 { "20" } else { "11" };
    let cookie = if facts.cookies.is_empty() { 'n' } else { 'c' };
    let referer = if facts.referer.is_some() { 'r' } else { 'n' };
    let language = language(facts.language.as_deref().unwrap_or_default());
    let headers = hash(names.iter().copied());
    let cookies = if facts.cookies.is_empty() {
        NO_COOKIES.to_owned()
    } else {
        hash(facts.cookies.keys().map(String::as_str))
    };
    format!(
        "{method:0<2}{version}{cookie}{referer}{count:02}{language}_{headers}_{cookies}_{cookies}"
    )
}

/// Four characters of the first language, without hyphens and what no language is written with,
/// filled with zeros.
fn language(accepted: &str) -> String {
    let first = accepted.split(',').next().unwrap_or_default();
    let written = first.chars().filter(|c| c.is_ascii_graphic() && *c != '-');
    let four: String = written.take(4).map(|c| c.to_ascii_lowercase()).collect();
    format!("{four:0<4}")
}

fn hash<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    names.for_each(|name| context.update(name.as_bytes()));
    hex(context.finish().as_ref().get(..HASH_BYTES).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::facts;
    use super::*;

    /// The hashes were computed by an independent program from the contract's words.
    #[test]
    fn the_fingerprint_is_that_of_the_contract() {
        let mut facts = facts();
        facts.header_names =
            ["User-Agent", "Accept", "Accept-Language", "Cookie", "Referer", "Host"]
                .map(str::to_owned)
                .to_vec();
        facts.cookies.insert("vid".to_owned(), "1".to_owned());
        facts.cookies.insert("sid".to_owned(), "2".to_owned());
        facts.referer = Some("https://a.com/".to_owned());
        facts.language = Some("en-US,en;q=0.9".to_owned());
        facts.method = "POST".to_owned();
        facts.http2 = true;
        assert_eq!(ja4h(&facts), "po20cr03enus_e07be5ae709f_6eb0d6e602bc_6eb0d6e602bc");
        facts.language = Some("\0d\u{fffd}e".to_owned());
        assert_eq!(ja4h(&facts), "po20cr03de00_e07be5ae709f_6eb0d6e602bc_6eb0d6e602bc");
        facts.cookies.clear();
        facts.referer = None;
        facts.language = None;
        facts.http2 = false;
        facts.method = "X".to_owned();
        facts.header_names = vec!["Accept".to_owned()];
        assert_eq!(ja4h(&facts), "x011nn010000_89713b9c9c1b_000000000000_000000000000");
    }
}

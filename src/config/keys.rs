//! `Keys`: who may speak as a server, and which pages belong to which site.

use super::secret::{self, Secret};
use super::section::Section;

/// Characters of a key: 128 bits as base64, fewer than the UUID that many already have.
const KEY_CHARS_MIN: usize = 24;
/// Keys of one file: each request with a key is compared with all of them.
const KEYS_MAX: usize = 1_000;

/// What the holder of a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A secret of a server: its word on time, address and organisation is believed.
    Server,
    /// Stands in pages for everyone to read: says which site an event is of, and nothing else.
    Site,
}

/// One entry of `Keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConfig {
    /// `Name`: for messages and for a person; never secret.
    pub name: String,
    /// `Key`.
    pub key: Secret,
    /// `Kind`.
    pub kind: KeyKind,
    /// `Organization`: whose events these are, as the field `oid` is written. None: a server says so
    /// itself, a site has none.
    pub organization: Option<String>,
    /// `Hosts` of a site: its pages need no key, and pages elsewhere may not use it. Lower case.
    pub hosts: Vec<String>,
}

/// The words for kinds.
pub(super) const KINDS: [(&str, KeyKind); 2] =
    [("server", KeyKind::Server), ("site", KeyKind::Site)];

/// Reads `Keys`.
pub(super) fn read(file: &mut Section<'_>) -> Vec<KeyConfig> {
    let sections = file.sections("Keys");
    if sections.len() > KEYS_MAX {
        file.error("Keys", format!("has more than {KEYS_MAX} entries"));
    }
    let mut keys: Vec<KeyConfig> = Vec::new();
    for mut section in sections.into_iter().take(KEYS_MAX) {
        section.accept(&["Note"]);
        if let Some(key) = entry(&mut section) {
            if keys.iter().any(|other| other.name == key.name || other.key == key.key) {
                section.error_here("has the Name or the Key of an entry before it");
            }
            if key.hosts.iter().any(|host| keys.iter().any(|other| other.hosts.contains(host))) {
                section.error("Hosts", "a host belongs to one site only");
            }
            keys.push(key);
        }
        section.finish(|_| None);
    }
    keys
}

fn entry(section: &mut Section<'_>) -> Option<KeyConfig> {
    let name = section.filled("Name");
    let key = section.filled("Key");
    let has_kind = section.filled("Kind").is_some();
    let kind = section.choice("Kind", &KINDS);
    let organization = section.filled("Organization").map(|text| text.trim().to_owned());
    let hosts = section.list("Hosts").unwrap_or_default();
    for (field, is_missing) in
        [("Name", name.is_none()), ("Key", key.is_none()), ("Kind", !has_kind)]
    {
        if is_missing {
            section.error(field, "is missing");
        }
    }
    if let Some(weakness) = key.as_deref().and_then(|key| secret::weakness(key, KEY_CHARS_MIN)) {
        section.error("Key", weakness);
    }
    // An id as intake reads one (D19's bound): it must never fail there.
    if organization.as_ref().is_some_and(|text| text.len() > 128 || text.contains(char::is_control))
    {
        section.error("Organization", "is a UUID or a text of at most 128 bytes");
    }
    if kind == Some(KeyKind::Server) && !hosts.is_empty() {
        section.error("Hosts", "belongs to a key of Kind \"site\"; a server has no pages");
    }
    for host in hosts.iter().filter(|host| host.is_empty() || host.contains(['/', ' ', ':', '*'])) {
        section.error("Hosts", format!("{host:?} is not a host like \"example.com\""));
    }
    Some(KeyConfig {
        name: name?,
        key: Secret::new(key?),
        kind: kind?,
        organization,
        hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::section::Findings;

    const SECRET: &str = "9f2c4e7a1b8d3f6051c2a7e4";

    fn read_keys(keys: &Value) -> (Vec<KeyConfig>, Vec<String>) {
        let Value::Object(object) = json!({ "Keys": keys }) else { unreachable!() };
        let findings = RefCell::<Findings>::default();
        let read = read(&mut Section::root(&object, &findings));
        let errors = findings.borrow().errors.iter().map(ToString::to_string).collect();
        (read, errors)
    }

    #[test]
    fn a_site_and_a_server_are_read() {
        let other = SECRET.replace('9', "8");
        let (keys, errors) = read_keys(&json!([
            {"Name": "shop", "Key": SECRET, "Kind": "site", "Organization": "acme", "Hosts": ["Shop.example"]},
            {"Name": "billing", "Key": other, "Kind": "server"},
        ]));
        assert_eq!(errors, [""; 0]);
        assert_eq!((keys[0].kind, keys[0].organization.as_deref()), (KeyKind::Site, Some("acme")));
        assert_eq!(keys[0].hosts, ["shop.example"]);
        assert_eq!((keys[1].kind, keys[1].key.reveal()), (KeyKind::Server, other.as_str()));
        assert!(!format!("{keys:?}").contains(SECRET), "{keys:?}");
    }

    #[test]
    fn wrong_keys_are_named_and_never_shown() {
        let (_, errors) = read_keys(&json!([
            {"Name": "a", "Key": "short", "Kind": "server", "Hosts": ["a.example"]},
            {"Name": "b", "Key": SECRET, "Kind": "page"},
            {"Key": SECRET, "Kind": "site", "Hosts": ["https://x"]},
            {"Name": "c", "Key": SECRET, "Kind": "site", "Hosts": ["c.example"]},
            {"Name": "c", "Key": SECRET, "Kind": "site", "Hosts": ["C.example"], "Host": 1},
        ]));
        assert_eq!(
            errors,
            [
                "Keys[0].Key: has fewer than 24 characters; make one with `openssl rand -hex 32`",
                "Keys[0].Hosts: belongs to a key of Kind \"site\"; a server has no pages",
                "Keys[1].Kind: expected one of server, site",
                "Keys[2].Name: is missing",
                "Keys[2].Hosts: \"https://x\" is not a host like \"example.com\"",
                "Keys[4]: has the Name or the Key of an entry before it",
                "Keys[4].Hosts: a host belongs to one site only",
                "Keys[4].Host: unknown key; did you mean Hosts?",
            ]
        );
    }
}

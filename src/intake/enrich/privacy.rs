//! What may not be kept is taken away, last, so that it never reaches the disk.
//!
//! Three things happen here. The address is cut to its network and only then hashed. Consent is
//! settled: GPC or a missing marketing consent closes the event to advertising and removes click
//! and advertising ids. And names or values that are personal or secret wherever they stand
//! (passwords, tokens, e-mail addresses, telephone numbers, the client's own address) are removed
//! from custom fields, at any depth.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

use super::super::RequestFacts;
use super::super::keys::Keys;
use super::campaign::click_id;
use crate::config::{DntPolicy, HashMode, IntakeConfig};
use crate::event::{Body, Event, Holder, Who};

/// Digits from which on a number under a telephone's name is one.
const PHONE_DIGITS_MIN: usize = 7;

/// What the operator decided.
#[derive(Debug, Clone)]
pub(in super::super) struct Policy {
    /// The address is cut to its network before anything else.
    cuts_ip: bool,
    remove_ip: bool,
    dnt: DntPolicy,
    marketing: i64,
    missing_is_consent: bool,
}

impl Policy {
    pub(in super::super) fn new(config: &IntakeConfig) -> Self {
        Self {
            // A legacy hash can be reversed; where the address may not be kept it is of the network.
            cuts_ip: config.anonymize_ip
                || (config.remove_ip && config.hash_mode == HashMode::Legacy),
            remove_ip: config.remove_ip,
            dnt: config.dnt_policy,
            marketing: config.cflags_marketing,
            missing_is_consent: config.cflags_ignore,
        }
    }

    /// Whether nothing of this request may be stored.
    pub(in super::super) fn forbids(&self, facts: &RequestFacts) -> bool {
        facts.dnt && self.dnt == DntPolicy::Drop
    }

    /// Takes away what may not be kept.
    pub(in super::super) fn apply(&self, event: &mut Event, facts: &RequestFacts, keys: &Keys) {
        self.address(event, facts.ip.to_canonical(), keys);
        event.consent.advertising = self.allows_advertising(event);
        if facts.dnt && self.dnt == DntPolicy::Anonymous {
            forget_identity(event);
        }
        if !event.consent.advertising {
            close_to_advertising(event);
        }
        let own = facts.ip.to_canonical().to_string();
        scrub(&mut event.params, &own);
        match &mut event.body {
            Body::Track(track) => {
                scrub(&mut track.targets, &own);
                if let Some(thread) = &mut track.thread {
                    scrub(&mut thread.fields, &own);
                }
            }
            Body::Payment(payments) => {
                for line in &mut payments.lines {
                    scrub(&mut line.params, &own);
                    for text in line.texts() {
                        text.take_if(|text| is_personal(text, &own));
                    }
                }
            }
            Body::Agreement(agreement) => {
                scrub(&mut agreement.compliances, &own);
                scrub(&mut agreement.loc, &own);
            }
            Body::Link(_) | Body::Quarantine(_) => {}
        }
        for text in texts(event) {
            text.take_if(|text| is_personal(text, &own));
        }
    }

    fn address(&self, event: &mut Event, ip: IpAddr, keys: &Keys) {
        let ip = if self.cuts_ip { network(ip) } else { ip };
        event.place.iphash = Some(keys.address(ip));
        event.place.ip = Some(ip).filter(|_| !self.remove_ip);
    }

    fn allows_advertising(&self, event: &Event) -> bool {
        let is_allowed = match event.consent.cflags {
            _ if self.marketing == 0 => true,
            Some(flags) => flags & self.marketing == self.marketing,
            None => self.missing_is_consent,
        };
        let is_anonymous = event.consent.dnt && self.dnt == DntPolicy::Anonymous;
        is_allowed && !event.consent.gpc && !is_anonymous
    }
}

/// The texts of an event that come from free input, where an address could stand by mistake.
fn texts(event: &mut Event) -> impl Iterator<Item = &mut Option<String>> {
    let (who, page, campaign) = (&mut event.who, &mut event.page, &mut event.campaign);
    let track = match &mut event.body {
        Body::Track(track) => Some([
            &mut track.ename,
            &mut track.etyp,
            &mut track.outcome,
            &mut track.sink,
            &mut track.relation,
        ]),
        Body::Payment(_) | Body::Agreement(_) | Body::Link(_) | Body::Quarantine(_) => None,
    };
    let head = [
        &mut who.org,
        &mut who.ehash,
        &mut who.chash,
        &mut who.nhash,
        &mut page.app,
        &mut page.rel,
        &mut page.ptyp,
        &mut campaign.source,
        &mut campaign.medium,
        &mut campaign.campaign,
        &mut campaign.content,
        &mut campaign.term,
        &mut campaign.aff,
        &mut campaign.rcode,
        &mut campaign.xid,
        &mut campaign.split,
        &mut campaign.arm_id,
        &mut campaign.mcid,
    ];
    head.into_iter().chain(track.into_iter().flatten())
}

/// The network of `ip`: /24 or /48.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) & 0xffff_ff00).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 80 << 80).into(),
    }
}

/// No identity and nothing that would tell one client from another over time.
fn forget_identity(event: &mut Event) {
    let who = &mut event.who;
    // An agreement without its visitor would prove nothing; giving it is the visitor's own act.
    let vid = who.vid.filter(|_| matches!(event.body, Body::Agreement(_)));
    event.who = Who { vid, oid: who.oid, org: who.org.take(), ..Who::default() };
    event.campaign.referral = None;
    let place = &mut event.place;
    (place.ip, place.iphash, place.lat, place.lon, place.zip, place.city) = Default::default();
    let agent = &mut event.agent;
    (agent.user_agent, agent.bhash, agent.ja4h) = Default::default();
    // What could not be read as an id stands in `params` under its name.
    let is_identity = |name: &str| IDENTITY.iter().any(|known| name.eq_ignore_ascii_case(known));
    remove(&mut event.params, &is_identity);
    if let Body::Payment(payments) = &mut event.body {
        payments.credits.retain(|credit| credit.of == Holder::Order);
        for line in &mut payments.lines {
            remove(&mut line.params, &is_identity);
        }
    }
}

/// Fields that tell one client from another.
const IDENTITY: [&str; 11] =
    ["vid", "sid", "uid", "did", "device_id", "auth_id", "ref", "ehash", "chash", "nhash", "uhash"];

fn close_to_advertising(event: &mut Event) {
    let who = &mut event.who;
    (who.gaid, who.idfa, who.msid, who.fbid) = Default::default();
    let is_advertising = |name: &str| {
        let name = name.trim_start_matches('_');
        let known = ["fbp", "fbc", "gaid", "idfa", "msid", "fbid", "gclaw", "gcl_aw", "gcl_au"];
        click_id(name).is_some() || known.iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    remove(&mut event.params, &is_advertising);
    if let Body::Track(track) = &mut event.body
        && let Some(thread) = &mut track.thread
    {
        remove(&mut thread.fields, &is_advertising);
    }
}

/// Removes entries by name at any depth.
fn remove(map: &mut Map<String, Value>, is_removed: &impl Fn(&str) -> bool) {
    map.retain(|name, value| {
        if is_removed(name) {
            return false;
        }
        let mut values = vec![value];
        while let Some(value) = values.pop() {
            match value {
                Value::Object(inner) => remove(inner, is_removed),
                Value::Array(list) => values.extend(list),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        true
    });
}

/// Removes personal and secret entries at any depth; nesting is bounded by the parser.
fn scrub(map: &mut Map<String, Value>, own_address: &str) {
    map.retain(|name, value| !is_secret(name, value) && retain(value, own_address));
}

/// Whether `value` may stay, after what is inside it was scrubbed.
fn retain(value: &mut Value, own_address: &str) -> bool {
    match value {
        Value::String(text) => !is_personal(text, own_address),
        Value::Object(inner) => {
            scrub(inner, own_address);
            true
        }
        Value::Array(list) => {
            list.retain_mut(|value| retain(value, own_address));
            true
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Names whose values are secret or personal whatever they are. Sorted; compared as letters, so that
/// `user_name`, `userName` and `User-Name` are one.
static SECRET: [&str; 24] = [
    "auth",
    "authorization",
    "cardnumber",
    "ccnumber",
    "clientip",
    "cookie",
    "creditcard",
    "cvc",
    "cvv",
    "emailaddress",
    "iban",
    "ip",
    "ipaddr",
    "ipaddress",
    "jwt",
    "mail",
    "pass",
    "passphrase",
    "pin",
    "pwd",
    "remoteaddr",
    "ssn",
    "uname",
    "username",
];
/// Names that may hold a telephone number, or a mere word. Sorted.
static PHONE: [&str; 9] = [
    "cell",
    "cellphone",
    "mobile",
    "mobilephone",
    "msisdn",
    "phone",
    "phonenumber",
    "tel",
    "telephone",
];
/// Parts that make any name secret; each begins with `p` or `s`, by which they are found.
static SECRET_PARTS: [&str; 4] = ["password", "passwd", "privatekey", "secret"];
/// Endings that make any name secret.
static SECRET_ENDS: [&str; 3] = ["apikey", "email", "token"];
/// Letters of a name that are looked at; the rest of a longer one is not.
const LETTERS_MAX: usize = 64;

/// Whether an entry of this name is secret or personal.
fn is_secret(name: &str, value: &Value) -> bool {
    let mut letters = [0_u8; LETTERS_MAX];
    let named = name.bytes().filter(|byte| !matches!(byte, b'_' | b'-' | b'.' | b' '));
    let mut length = 0;
    for (letter, byte) in letters.iter_mut().zip(named) {
        *letter = byte.to_ascii_lowercase();
        length += 1;
    }
    let name = letters.get(..length).unwrap_or_default();
    if PHONE.binary_search_by(|known| known.as_bytes().cmp(name)).is_ok() {
        return digits(value) >= PHONE_DIGITS_MIN;
    }
    SECRET.binary_search_by(|known| known.as_bytes().cmp(name)).is_ok()
        || SECRET_ENDS.iter().any(|end| name.ends_with(end.as_bytes()))
        || has_part(name)
}

fn has_part(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'p' | b's')) {
        rest = rest.get(at..).unwrap_or_default();
        if SECRET_PARTS.iter().any(|part| rest.starts_with(part.as_bytes())) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

fn digits(value: &Value) -> usize {
    match value {
        Value::String(text) => text.bytes().filter(u8::is_ascii_digit).count(),
        Value::Number(number) => number.to_string().len(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => 0,
    }
}

/// Whether `text` as a whole is an e-mail address, a signed token, or the client's own address.
fn is_personal(text: &str, own_address: &str) -> bool {
    let text = text.trim();
    is_email(text) || is_token(text) || text == own_address
}

/// Whether `text` as a whole looks like an e-mail address.
pub(super) fn is_email(text: &str) -> bool {
    let text = text.strip_prefix("mailto:").unwrap_or(text);
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let is_plain = |byte: u8| !byte.is_ascii_whitespace() && !byte.is_ascii_control();
    !local.is_empty()
        && local.bytes().all(is_plain)
        && domain.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') || !byte.is_ascii()
        })
        && domain.split_once('.').is_some_and(|(name, top)| !name.is_empty() && !top.is_empty())
}

/// Whether `text` is a JSON web token: three parts of base 64, the first an object.
fn is_token(text: &str) -> bool {
    text.starts_with("eyJ")
        && text.split('.').count() == 3
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_that_are_searched_are_sorted() {
        assert!(SECRET.is_sorted_by(|a, b| a < b));
        assert!(PHONE.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_name_is_secret_in_any_spelling_and_a_harmless_one_stays() {
        for (name, value, expect) in [
            ("User-Name", json!("x"), true),
            ("new_password_again", json!("x"), true),
            ("csrfToken", json!("x"), true),
            ("token_count", json!(3), false),
            ("work.e-mail", json!("x"), true),
            ("emails_sent", json!(3), false),
            ("Authorization", json!("x"), true),
            ("author", json!("x"), false),
            ("IP_Address", json!("x"), true),
            ("zip", json!("x"), false),
            ("mobile", json!(true), false),
            ("mobile", json!("+49 170 1234567"), true),
            ("phone", json!(491_701_234_567_u64), true),
            ("", json!("x"), false),
        ] {
            assert_eq!(is_secret(name, &value), expect, "{name} {value}");
        }
    }

    #[test]
    fn addresses_and_tokens_are_known_as_a_whole() {
        for (text, expect) in [
            ("joe@example.com", true),
            ("mailto:joe@example.com", true),
            ("jöe@exämple.com", true),
            ("@joe", false),
            ("joe@home", false),
            ("write to joe@example.com", false),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", true),
            ("eyJust.a.sentence with spaces", false),
            ("203.0.113.77", true),
        ] {
            assert_eq!(is_personal(text, "203.0.113.77"), expect, "{text}");
        }
    }
}

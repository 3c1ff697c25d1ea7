//! What brought the visitor: campaign parameters and click ids of the page's own address, and the
//! channel they and the referrer amount to.
//!
//! Channels are GA4's default groups and one for assistants; the first rule that matches wins. A
//! referrer of the site's own (its host, its registrable domain, or one of `Domains`) is no source,
//! and a step within the site has no channel at all.

use serde_json::Value;

use super::sources::{self, Kind};
use super::url::{Address, Addresses};
use crate::event::{Campaign, Event, Origin};

/// What a click id says about the ad it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paid {
    Search,
    Social,
    Display,
    Other,
    /// Set on unpaid clicks too, or by affiliates: says who, not that it was paid.
    No,
}

/// Click ids by name, the most telling first.
static CLICK_IDS: [(&str, Paid); 20] = [
    ("gclid", Paid::Search),
    ("gbraid", Paid::Search),
    ("wbraid", Paid::Search),
    ("msclkid", Paid::Search),
    ("yclid", Paid::Search),
    ("dclid", Paid::Display),
    ("ttclid", Paid::Social),
    ("twclid", Paid::Social),
    ("li_fat_id", Paid::Social),
    ("sccid", Paid::Social),
    ("rdt_cid", Paid::Social),
    ("qclid", Paid::Social),
    ("ob_click_id", Paid::Other),
    ("tblci", Paid::Other),
    ("epik", Paid::No),
    ("fbclid", Paid::No),
    ("igshid", Paid::No),
    ("irclickid", Paid::No),
    ("cjevent", Paid::No),
    ("awc", Paid::No),
];

/// The click id that `name` is, in its usual spelling.
pub(super) fn click_id(name: &str) -> Option<&'static str> {
    CLICK_IDS.iter().map(|(known, _)| *known).find(|known| name.eq_ignore_ascii_case(known))
}

/// Fills the campaign from the page's query where nothing was sent, notes the click id, and decides
/// the channel.
pub(in super::super) fn apply(event: &mut Event, addresses: &Addresses, domains: &[String]) {
    let query = addresses.page.as_ref().map_or("", |page| &*page.query);
    if !query.is_empty() {
        read_query(event, query);
    }
    event.campaign.click = CLICK_IDS
        .iter()
        .map(|(name, _)| *name)
        .find(|name| event.params.keys().any(|key| key.eq_ignore_ascii_case(name)))
        .map(str::to_owned);
    event.campaign.channel = source_of(event, addresses, domains).map(str::to_owned);
}

fn read_query(event: &mut Event, query: &str) {
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = value.trim();
        if value.is_empty() || value.len() > QUERY_VALUE_BYTES_MAX {
            continue;
        }
        let campaign = &mut event.campaign;
        let place = match &*key {
            "utm_source" => &mut campaign.source,
            "utm_medium" => &mut campaign.medium,
            "utm_campaign" => &mut campaign.campaign,
            "utm_content" => &mut campaign.content,
            "utm_term" => &mut campaign.term,
            other => {
                let click = click_id(other);
                if let Some(name) = click.filter(|name| !event.params.contains_key(*name)) {
                    event.params.insert(name.to_owned(), Value::String(plain(value)));
                }
                continue;
            }
        };
        place.get_or_insert_with(|| plain(value).to_lowercase());
    }
}

/// Bytes of a campaign parameter or click id; longer ones are no such thing.
const QUERY_VALUE_BYTES_MAX: usize = 1024;

fn plain(value: &str) -> String {
    value.chars().filter(|character| *character != '\0').collect()
}

fn source_of(event: &Event, addresses: &Addresses, domains: &[String]) -> Option<&'static str> {
    let referrer = addresses.last.as_ref().map(|last| &*last.host).filter(|host| !host.is_empty());
    let is_internal = referrer.is_some_and(|host| is_own(host, event, addresses, domains));
    let outside = referrer.filter(|_| !is_internal);
    let campaign = &event.campaign;
    let is_marked =
        campaign.source.is_some() || campaign.medium.is_some() || campaign.click.is_some();
    // A server that speaks for a visitor has no referrer; that does not make the visit direct.
    let is_step = is_internal || event.origin == Origin::Server;
    if !is_marked && outside.is_none() && is_step {
        return None;
    }
    Some(channel(campaign, outside))
}

fn is_own(host: &str, event: &Event, addresses: &Addresses, domains: &[String]) -> bool {
    let page = addresses.page.as_ref().map(|page: &Address| &*page.host).filter(|h| !h.is_empty());
    let same_site = |own: &str| {
        own == host || psl::domain_str(own).is_some_and(|own| psl::domain_str(host) == Some(own))
    };
    let is_below = |domain: &str| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    page.unwrap_or(&event.host) == host
        || same_site(page.unwrap_or(&event.host))
        || domains.iter().any(|domain| is_below(domain))
}

/// The channel of a visit with this campaign from this outside host (lower case). Total.
pub fn channel(campaign: &Campaign, referrer: Option<&str>) -> &'static str {
    let source = campaign.source.as_deref().unwrap_or_default();
    let medium = campaign.medium.as_deref().unwrap_or_default();
    let name = campaign.campaign.as_deref().unwrap_or_default();
    let click = campaign
        .click
        .as_deref()
        .and_then(|click| CLICK_IDS.iter().find(|(name, _)| *name == click).map(|(_, paid)| *paid));
    let kind = match sources::of_source(source) {
        None if source.is_empty() => referrer.and_then(sources::of_host),
        kind => kind,
    };
    if name.contains("cross-network") {
        return "cross_network";
    }
    let is_shopping = kind == Some(Kind::Shopping) || is_shop(name);
    if is_paid(medium) {
        return match kind {
            _ if is_shopping => "paid_shopping",
            Some(Kind::Search) => "paid_search",
            Some(Kind::Social) => "paid_social",
            Some(Kind::Video) => "paid_video",
            _ if is_display(medium) => "display",
            _ => "paid_other",
        };
    }
    if is_display(medium) {
        return "display";
    }
    if medium.is_empty() {
        match click {
            Some(Paid::Search) if matches!(kind, None | Some(Kind::Search)) => return "paid_search",
            Some(Paid::Search) if kind == Some(Kind::Video) => return "paid_video",
            Some(Paid::Search | Paid::Other) => return "paid_other",
            Some(Paid::Social) => return "paid_social",
            Some(Paid::Display) => return "display",
            Some(Paid::No) | None => {}
        }
    }
    unpaid(kind, is_shopping, source, medium, referrer)
}

fn unpaid(
    kind: Option<Kind>,
    is_shopping: bool,
    source: &str,
    medium: &str,
    referrer: Option<&str>,
) -> &'static str {
    const SOCIAL: [&str; 6] =
        ["social", "social-network", "social-media", "sm", "social network", "social media"];
    const EMAIL: [&str; 4] = ["email", "e-mail", "e_mail", "e mail"];
    match kind {
        _ if is_shopping => "organic_shopping",
        _ if EMAIL.contains(&medium) => "email",
        Some(Kind::Social) => "organic_social",
        _ if SOCIAL.contains(&medium) => "organic_social",
        Some(Kind::Video) => "organic_video",
        _ if medium.contains("video") => "organic_video",
        Some(Kind::Assistant) => "ai_assistants",
        Some(Kind::Search) => "organic_search",
        _ if medium == "organic" => "organic_search",
        Some(Kind::Email) => "email",
        _ if matches!(medium, "affiliate" | "affiliates") => "affiliates",
        _ if medium == "audio" => "audio",
        _ if source == "sms" || medium == "sms" => "sms",
        _ if is_push(source, medium) => "push",
        Some(Kind::Shopping) | None if source_is_direct(source, medium) && referrer.is_none() => {
            "direct"
        }
        Some(Kind::Shopping) | None => "referral",
    }
}

fn source_is_direct(source: &str, medium: &str) -> bool {
    matches!(source, "" | "direct" | "(direct)" | "(none)")
        && matches!(medium, "" | "none" | "(none)" | "(not set)")
}

/// `^(.*cp.*|ppc|retargeting|paid.*)$`; `cpm` is among them, and display where the source is unknown.
fn is_paid(medium: &str) -> bool {
    medium.contains("cp") || matches!(medium, "ppc" | "retargeting") || medium.starts_with("paid")
}

fn is_display(medium: &str) -> bool {
    matches!(medium, "display" | "banner" | "expandable" | "interstitial" | "cpm")
}

fn is_push(source: &str, medium: &str) -> bool {
    medium.ends_with("push")
        || medium.contains("mobile")
        || medium.contains("notification")
        || source == "firebase"
}

/// A campaign named after a shop: the word `shop` begins it or follows anything but a letter that
/// would make it another word (`workshop`), or `shopping` stands anywhere.
fn is_shop(name: &str) -> bool {
    name.contains("shopping")
        || name.match_indices("shop").any(|(at, _)| {
            let before = name.get(..at).and_then(|before| before.bytes().next_back());
            before.is_none_or(|byte| matches!(byte, b'e') || !byte.is_ascii_lowercase())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, medium: &str, name: &str, click: &str, from: &str, expect: &str) {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let campaign = Campaign {
            source: some(source),
            medium: some(medium),
            campaign: some(name),
            click: some(click),
            ..Campaign::default()
        };
        let referrer = Some(from).filter(|from| !from.is_empty());
        let found = channel(&campaign, referrer);
        assert_eq!(found, expect, "{source} {medium} {name} {click} {from}");
    }

    #[test]
    fn the_first_rule_that_matches_names_the_channel() {
        for (source, medium, name, click, from, expect) in [
            ("google", "cpc", "cross-network sale", "", "", "cross_network"),
            ("google", "cpc", "shopping-de", "", "", "paid_shopping"),
            ("amazon", "ppc", "", "", "", "paid_shopping"),
            ("google", "cpc", "", "", "", "paid_search"),
            ("google", "cpc", "workshop", "", "", "paid_search"),
            ("google", "cpc", "e-shop", "", "", "paid_shopping"),
            ("bing", "paid-search", "", "", "", "paid_search"),
            ("", "", "", "gclid", "www.google.com", "paid_search"),
            ("", "", "", "gclid", "", "paid_search"),
            ("", "", "", "msclkid", "www.bing.com", "paid_search"),
            ("facebook", "paid_social", "", "", "", "paid_social"),
            ("ig", "cpc", "", "", "", "paid_social"),
            ("", "", "", "ttclid", "www.tiktok.com", "paid_social"),
            ("youtube.com", "cpv", "", "", "", "paid_video"),
            ("youtube.com", "cpc", "", "", "", "paid_video"),
            ("somewhere", "banner", "", "", "", "display"),
            ("somewhere", "cpm", "", "", "", "display"),
            ("", "", "", "dclid", "", "display"),
            ("somewhere", "cpc", "", "", "", "paid_other"),
            ("etsy", "", "", "", "", "organic_shopping"),
            ("", "", "", "", "www.amazon.co.jp", "organic_shopping"),
            ("", "", "", "fbclid", "l.facebook.com", "organic_social"),
            ("", "", "", "", "t.co", "organic_social"),
            ("ourblog", "social", "", "", "", "organic_social"),
            ("", "", "", "", "m.youtube.com", "organic_video"),
            ("", "", "", "", "chatgpt.com", "ai_assistants"),
            ("chatgpt.com", "", "", "", "", "ai_assistants"),
            ("", "", "", "", "www.perplexity.ai", "ai_assistants"),
            ("", "", "", "", "www.google.de", "organic_search"),
            ("", "", "", "", "search.brave.com", "organic_search"),
            ("x", "organic", "", "", "", "organic_search"),
            ("newsletter", "", "", "", "", "email"),
            ("spring", "e-mail", "", "", "", "email"),
            ("", "", "", "", "mail.google.com", "email"),
            ("partner", "affiliate", "", "", "", "affiliates"),
            ("pod", "audio", "", "", "", "audio"),
            ("sms", "", "", "", "", "sms"),
            ("app", "web_push", "", "", "", "push"),
            ("", "", "", "", "blog.example.org", "referral"),
            ("partner", "link", "", "", "", "referral"),
            ("", "", "", "", "", "direct"),
            ("(direct)", "(none)", "", "", "", "direct"),
        ] {
            check(source, medium, name, click, from, expect);
        }
    }

    #[test]
    fn a_click_id_is_known_in_any_case() {
        assert_eq!(click_id("ScCid"), Some("sccid"));
        assert_eq!(click_id("gclid"), Some("gclid"));
        assert_eq!(click_id("id"), None);
    }
}

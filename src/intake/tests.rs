//! Hits in, events out: merging, mapping, privacy and hostile input.

use std::sync::OnceLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::config::{DntPolicy, HashMode};
use crate::event::{Id, Track, Verdict};

pub(super) const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 \
                                 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
const ID: &str = "14fb0860-b4bf-11e9-8971-7b80435315ac";

/// Facts of an ordinary browser's request.
pub(super) fn facts() -> RequestFacts {
    RequestFacts {
        received_at: DateTime::from_timestamp_millis(1_790_000_000_000).unwrap(),
        ip: "203.0.113.77".parse().unwrap(),
        trusted: false,
        tenant: Tenant::AsSaid,
        query_has_key: false,
        route: "tr",
        method: "POST".to_owned(),
        http2: true,
        host: "t.example.com".to_owned(),
        uri: "/tr/v1/tr/".to_owned(),
        header_names: ["User-Agent", "Accept", "Accept-Language"].map(str::to_owned).to_vec(),
        user_agent: Some(CHROME.to_owned()),
        language: Some("en-US,en;q=0.9".to_owned()),
        referer: None,
        user: None,
        cookies: BTreeMap::new(),
        greeted: None,
        gpc: false,
        dnt: false,
        hints: BTreeMap::from([("accept-encoding", "gzip, br".to_owned())]),
    }
}

fn config() -> IntakeConfig {
    IntakeConfig::new("unused".into())
}

fn agents() -> Agents {
    static AGENTS: OnceLock<Agents> = OnceLock::new();
    AGENTS.get_or_init(Agents::start).clone()
}

fn preparer(config: &IntakeConfig) -> Preparer {
    let keys = Keys::from_bytes([7; 32], config.hash_mode, &config.prefix_private_hash);
    Preparer::new(config, keys, Arc::new(GeoDb::none()), agents()).unwrap()
}

fn hit(facts: RequestFacts, fields: Value) -> Hit {
    let Value::Object(fields) = fields else { panic!("{fields}") };
    Hit { origin: Origin::Client, facts: Arc::new(facts), fields, length: 100 }
}

fn event(facts: RequestFacts, fields: Value) -> Event {
    preparer(&config()).prepare(hit(facts, fields)).unwrap().event
}

fn track(event: &Event) -> &Track {
    match &event.body {
        Body::Track(track) => track,
        _ => panic!("not tracked"),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "columns are optional")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn encoded(event: &Event) -> String {
    String::from_utf8(event::encode(event).unwrap()).unwrap()
}

#[test]
fn every_field_has_its_column_and_the_rest_is_kept_with_case_and_type() {
    let fields = r##"{
        "eid": "#", "vid": "#", "sid": "#", "uid": "#", "oid": "#", "org": "Org", "auth_id": "#", "did": "#",
        "ename": "Page_View", "etyp": "View", "outcome": "Won", "score": "1.5", "sink": "Cart",
        "relation": "Order", "rid": "#", "invoice_id": "#", "targets": "{\"a\":[\"b\"]}", "seq": 4,
        "url": "https://Shop.example/P?q=1", "last": "https://Other.example/L#x", "app": "App",
        "rel": 1, "ptyp": "Home", "ver": "3", "w": 1280, "h": "720", "duration": 1500.0,
        "source": "News", "medium": "E-Mail", "campaign": "Spring", "content": "Top", "term": "Shoe",
        "aff": "Aff", "rcode": "RC", "ref": "#", "xid": "X", "split": "A", "arm_id": "Arm", "mcid": "Mc",
        "os": "macOS", "device": "Desktop", "country": "de", "region": "Bayern", "city": "MÜNCHEN",
        "zip": 80331, "lat": 48.1, "lon": "11.5", "tz": "Europe/Berlin", "cflags": 4096,
        "ehash": "E", "chash": "C", "uhash": "U", "gaid": "G", "idfa": "I", "msid": "M", "fbid": "F",
        "MyField": 5, "tags": ["A"], "params": {"Nested": {"Deep": true}, "url": "copy"}
    }"##;
    let fields = parse_json(fields.replace("\"#\"", &format!("\"{ID}\"")).as_bytes(), 64).unwrap();
    let event = event(facts(), fields);
    let id = ID.parse().unwrap();
    assert_eq!(event.id.to_string(), ID);
    assert_eq!(event.who.vid.unwrap().to_string(), ID);
    assert!(!event.who.is_new);
    for found in [
        event.who.sid.map(Id::uuid),
        event.who.uid.map(Id::uuid),
        event.who.oid.map(Id::uuid),
        event.who.auth_id.map(Id::uuid),
        event.who.device_id.map(Id::uuid),
        event.campaign.referral.map(Id::uuid),
        track(&event).rid.map(Id::uuid),
        track(&event).invoice_id.map(Id::uuid),
    ] {
        assert_eq!(found, Some(id));
    }
    let track = track(&event);
    assert_eq!(
        [&track.ename, &track.etyp, &track.outcome, &track.sink, &track.relation],
        [&text("page_view"), &text("view"), &text("won"), &text("cart"), &text("order")]
    );
    assert_eq!((track.score, track.seq), (Some(1.5), Some(4)));
    assert_eq!(Value::Object(track.targets.clone()), json!({"a": ["b"]}));
    let page = &event.page;
    assert_eq!(page.url, text("https://shop.example/P"));
    assert_eq!(page.last, text("https://other.example/L"));
    assert_eq!([&page.app, &page.rel, &page.ptyp], [&text("App"), &text("1"), &text("home")]);
    assert_eq!((page.ver, page.vp_w, page.vp_h), (Some(3), Some(1280), Some(720)));
    assert_eq!(page.duration, Some(1500));
    let c = &event.campaign;
    assert_eq!(
        [&c.source, &c.medium, &c.campaign, &c.content, &c.term],
        [&text("news"), &text("e-mail"), &text("spring"), &text("top"), &text("shoe")]
    );
    assert_eq!(
        [&c.aff, &c.rcode, &c.xid, &c.split],
        [&text("Aff"), &text("RC"), &text("X"), &text("A")]
    );
    assert_eq!([&c.arm_id, &c.mcid], [&text("Arm"), &text("Mc")]);
    assert_eq!([&event.agent.os, &event.agent.device], [&text("macOS"), &text("Desktop")]);
    let place = &event.place;
    assert_eq!(
        [&place.country, &place.region, &place.city, &place.zip, &place.tz],
        [&text("DE"), &text("bayern"), &text("münchen"), &text("80331"), &text("Europe/Berlin")]
    );
    assert_eq!((place.lat, place.lon), (Some(48.1), Some(11.5)));
    assert_eq!(event.consent.cflags, Some(4096));
    let who = &event.who;
    assert_eq!([&who.ehash, &who.chash, &who.nhash], [&text("E"), &text("C"), &text("U")]);
    assert_eq!(
        [&who.gaid, &who.idfa, &who.msid, &who.fbid, &who.org],
        [&text("G"), &text("I"), &text("M"), &text("F"), &text("Org")]
    );
    let expect = json!({"MyField": 5, "tags": ["A"], "Nested": {"Deep": true}});
    assert_eq!(Value::Object(event.params), expect);
}

#[test]
fn a_value_of_the_wrong_type_goes_to_params_under_its_name() {
    let fields = json!({
        "ename": ["a"], "duration": "soon", "ver": 3_000_000_000_u64, "score": "nan", "lat": 91.0,
        "vid": [1], "targets": 7, "params": "text",
    });
    let event = event(facts(), fields);
    let expect = json!({
        "ename": ["a"], "duration": "soon", "ver": 3_000_000_000_u64, "score": "nan", "vid": [1],
        "targets": 7, "params": "text", "lat": 91.0,
    });
    assert_eq!(Value::Object(event.params.clone()), expect);
    assert_eq!((&track(&event).ename, event.page.ver, event.place.lat), (&None, None, None));
    assert!(event.who.is_new);
}

#[test]
fn a_text_id_is_mapped_to_the_same_id_each_time_and_only_an_invoice_keeps_its_text() {
    let fields = json!({"vid": "user-123", "uid": 42, "oid": "org-id", "sid": "session-123",
        "invoice_id": "INV-7", "orid": "Order-123", "ref": "andy"});
    let (one, two) = (event(facts(), fields.clone()), event(facts(), fields));
    assert_eq!(one.who, two.who);
    assert_eq!(one.who.vid.unwrap().uuid().get_version_num(), 8);
    assert!(!one.who.is_new);
    assert_ne!(one.who.vid.map(Id::uuid), one.who.oid.map(Id::uuid));
    let expect = json!({"invoice_id": "INV-7", "orid": "Order-123"});
    assert_eq!(Value::Object(one.params.clone()), expect);
    for text in ["user-123", "org-id", "session-123", "andy"] {
        assert!(!encoded(&one).contains(text), "{text}");
    }
}

#[test]
fn a_new_visitor_is_made_where_none_or_a_malformed_one_was_sent() {
    let zero = "00000000-0000-0000-0000-000000000000";
    for vid in [json!(null), json!(""), json!("a\u{7}"), json!("x".repeat(129)), json!(zero)] {
        let made = event(facts(), json!({"vid": vid}));
        assert!(made.who.is_new, "{vid}");
        assert_eq!(made.who.vid.unwrap().uuid().get_version_num(), 7);
        assert_eq!(made.who.sid.map(Id::uuid), made.who.vid.map(Id::uuid));
    }
    let known = event(facts(), json!({"vid": ID}));
    assert_eq!((known.who.is_new, known.who.sid), (false, None));
}

#[test]
fn a_client_event_sets_the_cookie_for_the_registrable_domain_and_a_server_event_none() {
    let maker = preparer(&config());
    let prepared = maker.prepare(hit(facts(), json!({"vid": ID}))).unwrap();
    let cookie =
        VisitorCookie { vid: ID.parse().unwrap(), domain: text("example.com"), agreed: None };
    assert_eq!(prepared.cookie, Some(cookie));
    let mut server = hit(facts(), json!({"vid": ID}));
    server.origin = Origin::Server;
    assert_eq!(maker.prepare(server).unwrap().cookie, None);
}

#[test]
fn an_address_in_the_event_is_believed_from_a_trusted_peer_only() {
    for (value, is_trusted, is_believed) in
        [("8.8.4.77", true, true), ("8.8.4.77", false, false), ("8.8.4", true, false)]
    {
        let mut facts = facts();
        facts.trusted = is_trusted;
        let event = preparer(&config()).prepare(hit(facts, json!({"ip": value}))).unwrap().event;
        let is_named = event.place.ip == Some("8.8.4.0".parse().unwrap());
        assert_eq!(is_named, is_believed, "{value} {is_trusted}");
        assert_eq!(event.params.get("ip"), None);
    }
}

#[test]
fn a_time_is_believed_within_72_hours_or_from_a_trusted_peer() {
    let hour = 3_600_000;
    let now = 1_790_000_000_000_i64;
    let far = now - 100 * hour;
    for (field, value, is_trusted, expect, is_replaced) in [
        ("created_at", json!(now - 71 * hour), false, now - 71 * hour, false),
        ("created", json!((now + 72 * hour).to_string()), false, now + 72 * hour, false),
        ("created_at", json!("2026-09-21T16:13:20.5+02:00"), false, 1_790_000_000_500, false),
        ("created_at", json!(far), false, now, true),
        ("created_at", json!(far), true, far, false),
        ("created_at", json!("yesterday"), true, now, true),
        ("created_at", json!(i64::MAX), true, now, true),
        ("created_at", json!([]), true, now, true),
        ("time", json!(far), true, now, false),
    ] {
        let mut facts = facts();
        facts.trusted = is_trusted;
        let prepared = preparer(&config()).prepare(hit(facts, json!({field: value}))).unwrap();
        let found = (prepared.event.created_at.timestamp_millis(), prepared.is_time_replaced);
        assert_eq!(found, (expect, is_replaced), "{value}");
    }
}

#[test]
fn a_named_event_of_a_thread_brings_its_message_and_keeps_its_params() {
    let fields = json!({"tid": ID, "ename": "sent", "subject": "Hi", "urgency": 3, "other": 1});
    let sent = event(facts(), fields);
    let thread = track(&sent).thread.as_ref().unwrap();
    assert_eq!(thread.tid.to_string(), ID);
    assert_eq!(Value::Object(thread.fields.clone()), json!({"subject": "Hi", "urgency": 3}));
    assert_eq!(sent.params.len(), 3);
    for fields in [json!({"tid": ID}), json!({"tid": "thread-1", "ename": "sent"})] {
        let event = event(facts(), fields);
        assert!(track(&event).tid.is_some() && track(&event).thread.is_none());
    }
}

#[test]
fn nothing_personal_is_in_the_bytes() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
    let mut facts = facts();
    facts.referer = Some("https://a.example/p?mail=referer%40x.com".to_owned());
    facts.user = Some(format!(r#"{{"jwt":"{jwt}","Password":"hunter2"}}"#));
    facts.cookies.insert("jwt".to_owned(), jwt.to_owned());
    let body = json!({
        "email": "Joe@Example.com", "cell": "+49 170 1234567", "uname": "joe77",
        "auth": jwt, "bearer": jwt, "ip": "203.0.113.77", "seen": "203.0.113.77",
        "url": "https://u:secretpw@shop.example/a/joe@example.com?token=t0ps3cret",
        "term": "joe@example.com", "ehash": "joe@example.com",
        "invoice_id": "joe@example.com",
        "params": {"user": {"e_mail": "joe@example.com", "Phone-Number": 491_701_234_567_u64,
            "list": [{"password": "hunter2"}, "joe@example.com"]}, "accessToken": "t0ps3cret"},
    });
    let Value::Object(body) = body else { panic!() };
    let fields = fields(&facts, "", None, Some(body), None);
    let event = event(facts, Value::Object(fields));
    let bytes = encoded(&event).to_lowercase();
    for secret in
        ["joe", "1234567", "hunter2", "eyj", "203.0.113.77", "t0ps3cret", "secretpw", "referer"]
    {
        assert!(!bytes.contains(secret), "{secret} in {bytes}");
    }
    assert_eq!(event.who.ehash.as_ref().unwrap().len(), 32);
    assert_eq!(event.who.chash.as_ref().unwrap().len(), 32);
    assert_eq!(event.who.nhash.as_ref().unwrap().len(), 32);
    assert_eq!(event.page.url, text("https://shop.example/a/*"));
    assert_eq!(event.place.ip, Some("203.0.113.0".parse().unwrap()));
}

#[test]
fn an_address_is_cut_before_it_is_hashed_and_left_out_where_it_must() {
    let place = |ip: &str, change: fn(&mut IntakeConfig)| {
        let mut facts = facts();
        facts.ip = ip.parse().unwrap();
        let mut config = config();
        change(&mut config);
        preparer(&config).prepare(hit(facts, json!({}))).unwrap().event.place
    };
    let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let one = place("203.0.113.77", |_| {});
    assert_eq!(one.ip, ip("203.0.113.0"));
    assert_eq!(one, place("203.0.113.78", |_| {}));
    assert_eq!(one, place("::ffff:203.0.113.78", |_| {}));
    assert_eq!(place("2001:db8:1:2:3::4", |_| {}).ip, ip("2001:db8:1::"));
    let whole = place("203.0.113.77", |config| config.anonymize_ip = false);
    assert_eq!(whole.ip, ip("203.0.113.77"));
    assert_ne!(whole.iphash, one.iphash);
    let removed = place("203.0.113.77", |config| config.remove_ip = true);
    assert_eq!((removed.ip, &removed.iphash), (None, &one.iphash));
    // The legacy hash can be reversed, so it must be of the network when the address is left out.
    let legacy = |config: &mut IntakeConfig| {
        (config.hash_mode, config.remove_ip, config.anonymize_ip) = (HashMode::Legacy, true, false);
    };
    assert_eq!(place("203.0.113.77", legacy), place("203.0.113.1", legacy));
}

#[test]
fn advertising_needs_consent_and_without_it_click_ids_are_gone() {
    let fields = |cflags: Value| {
        json!({"url": "https://a.example/?gclid=CLICK1&x=1", "fbp": "CLICK2", "_fbc": "CLICK3",
            "ScCid": "CLICK4", "gaid": "CLICK5", "idfa": "CLICK6", "cflags": cflags,
            "ad": {"fbclid": "CLICK7"}, "keep": 1})
    };
    for (cflags, marketing, missing_is_consent, gpc, is_allowed) in [
        (json!(null), 0, false, false, true),
        (json!(null), 0, false, true, false),
        (json!(4096), 4096, false, false, true),
        (json!(4097), 4096, false, false, true),
        (json!(4096), 4096, false, true, false),
        (json!(1), 4096, false, false, false),
        (json!(8192), 4096, true, false, false),
        (json!(null), 4096, false, false, false),
        (json!(null), 4096, true, false, true),
    ] {
        let mut config = config();
        (config.cflags_marketing, config.cflags_ignore) = (marketing, missing_is_consent);
        let mut facts = facts();
        facts.gpc = gpc;
        let event = preparer(&config).prepare(hit(facts, fields(cflags.clone()))).unwrap().event;
        let bytes = encoded(&event);
        assert_eq!(event.consent.advertising, is_allowed, "{cflags} {marketing} {gpc}");
        assert_eq!(event.campaign.click, text("gclid"));
        assert_eq!(event.params["keep"], json!(1));
        for number in 1..=7 {
            let value = format!("CLICK{number}");
            assert_eq!(bytes.contains(&value), is_allowed, "{value} {cflags} {marketing} {gpc}");
        }
    }
}

#[test]
fn do_not_track_does_what_the_policy_says() {
    let with = |policy| {
        let mut config = config();
        config.dnt_policy = policy;
        let mut facts = facts();
        facts.dnt = true;
        let fields = json!({"vid": ID, "uid": ID, "email": "a@b.cc", "lat": 1.5, "lon": 2.5});
        preparer(&config).prepare(hit(facts, fields))
    };
    let ignored = with(DntPolicy::Ignore).unwrap();
    assert!(
        ignored.event.consent.dnt && ignored.event.who.vid.is_some() && ignored.cookie.is_some()
    );
    let anonymous = with(DntPolicy::Anonymous).unwrap();
    assert_eq!(anonymous.cookie, None);
    assert_eq!(anonymous.event.who, crate::event::Who::default());
    let place = &anonymous.event.place;
    assert_eq!((place.ip, &place.iphash, place.lat), (None, &None, None));
    assert_eq!((&anonymous.event.agent.ja4h, &anonymous.event.agent.bhash), (&None, &None));
    assert!(matches!(with(DntPolicy::Drop), Err(IntakeError::Private)));
}

#[test]
fn an_event_above_the_bound_or_with_a_wrong_account_is_refused() {
    let mut config = config();
    config.account_hash_mixer = "mixer".to_owned();
    let preparer = preparer(&config);
    let account = keys::base36("t.example.commixer");
    assert!(preparer.prepare(hit(facts(), json!({"acct": account}))).is_ok());
    for fields in [json!({}), json!({"acct": "x"}), json!({"acct": [1]})] {
        let refused = preparer.prepare(hit(facts(), fields));
        assert!(matches!(refused, Err(IntakeError::Invalid { field, .. }) if field == "acct"));
    }
    let mut large = hit(facts(), json!({}));
    large.length = config.event_bytes_max + 1;
    let refused = preparer.prepare(large);
    assert!(matches!(refused, Err(IntakeError::TooLarge { length: 262_145, max: 262_144 })));
}

#[test]
fn the_page_is_the_referer_of_a_pixel_and_the_page_before_otherwise() {
    let read = |route, mode: &str, dest: &str, fields: Value| {
        let mut facts = facts();
        facts.route = route;
        facts.uri = "/go/There?x=1".to_owned();
        facts.referer = Some("https://site.example/P?q".to_owned());
        facts.hints.insert("sec-fetch-mode", mode.to_owned());
        facts.hints.insert("sec-fetch-dest", dest.to_owned());
        let page = event(facts, fields).page;
        (page.url, page.last)
    };
    let referer = text("https://site.example/P");
    assert_eq!(read("tr", "cors", "empty", json!({})), (None, referer.clone()));
    assert_eq!(read("tr", "no-cors", "empty", json!({})), (referer.clone(), None));
    assert_eq!(read("img", "no-cors", "image", json!({})), (referer.clone(), None));
    let sent = json!({"url": "https://a.example/x", "last": "https://b.example/y"});
    let both = (text("https://a.example/x"), text("https://b.example/y"));
    assert_eq!(read("img", "no-cors", "image", sent.clone()), both);
    assert_eq!(read("tr", "cors", "empty", sent), both);
    let link = text("https://t.example.com/go/There");
    assert_eq!(read("link", "navigate", "document", json!({})), (link, referer));
}

#[test]
fn campaign_and_channel_come_from_the_address_and_the_referrer() {
    let own = |config: &mut IntakeConfig| config.domains = vec!["Partner.example".to_owned()];
    for (url, last, expect) in [
        ("https://a.example.com/?utm_source=Google&utm_medium=CPC", "", Some("paid_search")),
        ("https://a.example.com/?gclid=1", "https://www.google.com/", Some("paid_search")),
        ("https://a.example.com/", "https://www.google.com/search?q=x", Some("organic_search")),
        ("https://a.example.com/", "https://chatgpt.com/", Some("ai_assistants")),
        ("https://a.example.com/", "https://b.example.com/", None),
        ("https://a.example.com/", "https://www.partner.example/", None),
        ("https://a.example.com/", "https://notpartner.example/", Some("referral")),
        ("https://a.example.com/", "", Some("direct")),
        ("https://joe.github.io/", "https://ann.github.io/", Some("referral")),
    ] {
        let mut config = config();
        own(&mut config);
        let fields = json!({"url": url, "last": last});
        let event = preparer(&config).prepare(hit(facts(), fields)).unwrap().event;
        assert_eq!(event.campaign.channel.as_deref(), expect, "{url} {last}");
    }
    let fields =
        json!({"source": "Sent", "url": "https://a.example/?utm_source=Url&utm_term=T%20X"});
    let campaign = event(facts(), fields).campaign;
    assert_eq!((campaign.source, campaign.term), (text("sent"), text("t x")));
}

#[test]
fn what_was_sent_wins_over_the_address_and_the_address_over_the_time_zone() {
    let database = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/geo/GeoIP2-City-Test.mmdb");
    let place = |ip: &str, fields: Value, change: fn(&mut IntakeConfig)| {
        let mut config = config();
        change(&mut config);
        let geo = GeoDb::open(Some(database.as_ref())).unwrap();
        let keys = Keys::from_bytes([7; 32], HashMode::Keyed, "");
        let maker = Preparer::new(&config, keys, Arc::new(geo), agents()).unwrap();
        let mut facts = facts();
        facts.ip = ip.parse().unwrap();
        let place = maker.prepare(hit(facts, fields)).unwrap().event.place;
        (place.country, place.region, place.city, place.lat, place.lon)
    };
    let (london, unknown) = ("81.2.69.142", "10.0.0.1");
    let zone = json!({"tz": "Asia/Calcutta"});
    let england = (text("GB"), text("england"), text("london"), Some(51.5142), Some(-0.0931));
    assert_eq!(place(london, zone.clone(), |_| {}), england);
    assert_eq!(place(unknown, zone.clone(), |_| {}), (text("IN"), None, None, None, None));
    let off = place(london, json!({"tz": "Asia/Calcutta", "city": "Pune"}), |c| c.geo_ip = false);
    assert_eq!(off, (text("IN"), None, text("pune"), None, None));
    let country_only = place(london, zone, |config| config.region_descriptions = false);
    assert_eq!(country_only, (text("GB"), None, None, Some(51.5142), Some(-0.0931)));
    let sent = json!({"country": "fr", "region": "Bretagne", "city": "Brest", "lat": 0, "lon": 0});
    let france = (text("FR"), text("bretagne"), text("brest"), Some(0.0), Some(0.0));
    assert_eq!(place(london, sent, |_| {}), france);
}

#[test]
fn the_verdict_weighs_agent_and_headers() {
    let judge = |change: fn(&mut RequestFacts)| {
        let mut facts = facts();
        change(&mut facts);
        let agent = event(facts, json!({})).agent;
        (agent.verdict, agent.reasons.join(" "))
    };
    let expect = |verdict, reasons: &str| (verdict, reasons.to_owned());
    assert_eq!(judge(|_| {}), expect(Verdict::Human, ""));
    assert_eq!(judge(|f| f.user_agent = None), expect(Verdict::Crawler, "no_agent"));
    assert_eq!(judge(|f| f.language = None), expect(Verdict::Human, "no_language"));
    let bare = judge(|f| {
        f.language = None;
        f.hints.clear();
    });
    assert_eq!(bare, expect(Verdict::Crawler, "no_language no_encoding"));
    let old = judge(|f| {
        f.language = None;
        f.user_agent = Some("Mozilla/5.0 (X11; Linux x86_64; rv:25.0) Firefox/25.0".to_owned());
    });
    assert_eq!(old, expect(Verdict::Human, "old_browser no_language"));
    let prefetch = judge(|f| drop(f.hints.insert("sec-purpose", "prefetch;prerender".to_owned())));
    assert_eq!(prefetch, expect(Verdict::Preview, "prefetch"));
    let headless =
        judge(|f| drop(f.hints.insert("sec-ch-ua", "\"HeadlessChrome\";v=\"126\"".into())));
    assert_eq!(headless, expect(Verdict::Headless, "headless_hint"));
    let mismatch = judge(|f| drop(f.hints.insert("sec-ch-ua-platform", "\"macOS\"".to_owned())));
    assert_eq!(mismatch, expect(Verdict::Human, "hint_mismatch"));
    // The agent of a server that speaks for a visitor says nothing about the visitor.
    let server = judge(|f| {
        f.route = "str";
        f.user_agent = Some("python-requests/2.32".to_owned());
    });
    assert_eq!(server, expect(Verdict::Human, ""));
}

#[test]
fn legacy_hashes_reach_the_event_bit_for_bit() {
    let mut config = config();
    (config.hash_mode, config.anonymize_ip) = (HashMode::Legacy, false);
    let mut facts = facts();
    facts.ip = "8.8.8.8".parse().unwrap();
    facts.host = "tr.example.com".to_owned();
    facts.user_agent = Some("Mozilla/5.0".to_owned());
    let fields = json!({"email": " LaLaLa@AAA.com ", "uname": "admin"});
    let event = preparer(&config).prepare(hit(facts, fields)).unwrap().event;
    assert_eq!(event.hhash, "i5pkuo");
    assert_eq!(event.agent.bhash, text("4dc1h5"));
    assert_eq!(event.place.iphash, text("b4c84prdbt401t5oxss1cy8xcx"));
    assert_eq!(event.who.ehash, text("-MbtIBwImNmusGbGdX7jHdk6fe4="));
    assert_eq!(event.who.nhash, text("0DPiKuNIrrVmD8IUCuw1hQxNqZc="));
}

#[test]
fn a_text_is_cut_at_its_bound() {
    let event = event(facts(), json!({"ename": "ü".repeat(5000)}));
    assert_eq!(track(&event).ename.as_ref().unwrap().len(), 8 << 10);
}

struct Running {
    intake: Intake,
    journal: Journal,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

fn running(change: fn(&mut IntakeConfig)) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(crate::clock::SystemClock);
    let metrics = Arc::new(Metrics::new().unwrap());
    let mut journal = crate::config::JournalConfig::new(folder.path().join("journal"));
    journal.segment_bytes = 1 << 20;
    let (journal, _) = Journal::open(
        &journal,
        crate::journal::Position(0),
        Arc::new(crate::journal::RealFs),
        Arc::clone(&clock),
        Arc::clone(&metrics),
    )
    .unwrap();
    let mut config = IntakeConfig::new(folder.path().join("keys"));
    change(&mut config);
    let geo = Arc::new(GeoDb::none());
    let intake = Intake::open(&config, geo, journal.clone(), Arc::clone(&metrics)).unwrap();
    Running { intake, journal, metrics, _folder: folder }
}

impl Running {
    /// Received, stored, quarantined, rejected, in flight.
    fn counts(&self) -> (u64, u64, u64, u64, i64) {
        let m = &self.metrics;
        let in_flight = m.events_in_flight.get();
        (
            m.events_received.get(),
            m.events_stored.get(),
            m.events_quarantined.get(),
            m.rejected(),
            in_flight,
        )
    }

    fn rejected(&self, reason: &str) -> u64 {
        self.metrics.events_rejected.with_label_values(&[reason]).get()
    }
}

#[tokio::test]
async fn an_accepted_event_is_durable_readable_and_counted_once() {
    let running = running(|_| {});
    let receipt = running.intake.accept(hit(facts(), json!({"eid": ID, "created": 1}))).unwrap();
    assert_eq!(receipt.id.to_string(), ID);
    assert!(receipt.cookie.is_some());
    receipt.pending.durable().await.unwrap();
    assert_eq!(running.counts(), (1, 1, 0, 0, 0));
    assert_eq!(running.metrics.times_replaced.get(), 1);
    let records = running.journal.reader(crate::journal::Position(0)).read(1 << 20).unwrap();
    let stored = event::decode(&records[0].bytes).unwrap();
    assert_eq!((records.len(), stored.id.to_string()), (1, ID.to_owned()));
}

#[tokio::test]
async fn malformed_input_is_set_aside_with_its_reason_and_without_its_text() {
    let running = running(|_| {});
    let aside = running.intake.quarantine(&facts(), Reason::Malformed, "no JSON", b"{\"email\":");
    aside.unwrap().pending.durable().await.unwrap();
    assert_eq!(running.counts(), (1, 0, 1, 0, 0));
    assert_eq!(running.metrics.quarantined.with_label_values(&["malformed"]).get(), 1);
    let records = running.journal.reader(crate::journal::Position(0)).read(1 << 20).unwrap();
    let Body::Quarantine(stored) = event::decode(&records[0].bytes).unwrap().body else { panic!() };
    assert_eq!((stored.reason, &*stored.message, stored.length), (Reason::Malformed, "no JSON", 9));
    assert_eq!(stored.raw, None);
}

#[tokio::test]
async fn quarantine_keeps_four_kibibytes_where_the_operator_wants_them() {
    let running = running(|config| config.quarantine_raw = true);
    let event = running.intake.set_aside(&facts(), Reason::Invalid, "x", &[0xff; 9000]);
    let Body::Quarantine(aside) = event.body else { panic!() };
    assert_eq!(aside.length, 9000);
    assert!(aside.raw.unwrap().len() <= RAW_BYTES_MAX);
}

#[tokio::test]
async fn every_refusal_is_counted_with_its_reason() {
    let running = running(|config| config.dnt_policy = DntPolicy::Drop);
    let mut private = facts();
    private.dnt = true;
    let refused = running.intake.quarantine(&private, Reason::Malformed, "", b"");
    assert!(matches!(refused, Err(IntakeError::Private)));
    assert!(matches!(running.intake.accept(hit(private, json!({}))), Err(IntakeError::Private)));
    let mut large = hit(facts(), json!({}));
    large.length = usize::MAX;
    assert!(running.intake.accept(large).is_err());
    running.intake.refuse(Refusal::Malformed);
    running.journal.close();
    assert!(matches!(running.intake.accept(hit(facts(), json!({}))), Err(IntakeError::Failed)));
    let counts =
        ["privacy", "too_large", "malformed", "journal_failed"].map(|r| running.rejected(r));
    assert_eq!(counts, [2, 1, 1, 1]);
    assert_eq!(running.counts(), (5, 0, 0, 5, 0));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|cents| Value::from(f64::from(cents) / 100.0)),
        ".{0,20}".prop_map(Value::from),
        "[a-z@.:/?=&#%]{0,30}".prop_map(Value::from),
        Just(Value::from(ID)),
        Just(Value::from("https://a.b/c?utm_source=x&gclid=y")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_name() -> impl Strategy<Value = String> {
    let known: Vec<&str> = names::FIELDS.iter().map(|(name, _)| *name).collect();
    prop_oneof![prop::sample::select(known).prop_map(str::to_owned), ".{0,12}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
    ))]

    #[test]
    fn no_input_panics_and_every_event_reads_back_as_it_was_written(
        body in prop::collection::hash_map(any_name(), any_json(), 0..12),
        path in ".{0,40}",
        query in ".{0,60}",
        user in proptest::option::of(".{0,30}"),
        agent in proptest::option::of(".{0,60}"),
        referer in proptest::option::of(".{0,60}"),
        cookie in ".{0,20}",
        (get, gpc, dnt) in any::<(bool, bool, bool)>(),
    ) {
        let mut facts = facts();
        facts.user = user;
        facts.user_agent = agent;
        facts.referer = referer;
        facts.method = if get { "GET" } else { "POST" }.to_owned();
        (facts.gpc, facts.dnt) = (gpc, dnt);
        facts.cookies.insert("vid".to_owned(), cookie);
        let body = body.into_iter().collect();
        let fields = fields(&facts, &path, Some(&query), Some(body), None);
        let mut config = config();
        config.dnt_policy = DntPolicy::Anonymous;
        let event = preparer(&config).prepare(hit(facts, Value::Object(fields))).unwrap().event;
        let again = event::decode(&event::encode(&event).unwrap()).unwrap();
        prop_assert_eq!(again, event);
    }

    #[test]
    fn any_bytes_are_json_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_json(&bytes, 64);
    }

    #[test]
    fn any_text_is_an_address_or_none(text in ".{0,80}") {
        if let Some(address) = clean_url(&text) {
            prop_assert!(!address.clean.contains(['?', '#']), "{}", address.clean);
        }
    }
}

#[test]
fn a_malformed_id_is_kept_beside_the_others_unless_nobody_may_be_told_apart() {
    let long = "x".repeat(200);
    let stored = event(facts(), json!({"ename": "x", "uid": long, "vid": ["a"]}));
    assert_eq!((stored.params["uid"].as_str(), stored.who.uid), (Some(&*long), None));
    assert_eq!(stored.params["vid"], json!(["a"]));
    let mut config = config();
    config.dnt_policy = DntPolicy::Anonymous;
    let quiet = RequestFacts { dnt: true, ..facts() };
    let hit = hit(quiet, json!({"ename": "x", "uid": long, "vid": ["a"], "plan": "pro"}));
    let stored = preparer(&config).prepare(hit).unwrap().event;
    assert_eq!(serde_json::Value::Object(stored.params), json!({"plan": "pro"}));
}

fn payments(facts: RequestFacts, config: &IntakeConfig, fields: Value) -> crate::event::Payments {
    let prepared = preparer(config).prepare_as(Fact::Payment, hit(facts, fields)).unwrap();
    assert_eq!(prepared.cookie, None);
    assert!(!prepared.event.who.is_new, "a payment makes no visitor");
    match prepared.event.body {
        Body::Payment(payments) => *payments,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_personal_in_a_payment_is_taken_away() {
    let fields = json!({
        "amt": 1, "product": "jane@example.org", "model": "m", "note": "jane@example.org",
        "cardNumber": "4111111111111111", "payments": [],
    });
    let line = payments(facts(), &config(), fields).lines.remove(0);
    assert_eq!((line.product, line.model), (None, text("m")));
    assert_eq!(line.params, Map::new());
}

#[test]
fn an_anonymous_payment_is_of_its_order_only() {
    let config = IntakeConfig { dnt_policy: DntPolicy::Anonymous, ..config() };
    let facts = RequestFacts { dnt: true, ..facts() };
    let lines = json!([{"amt": 1, "orid": "o", "uid": "w"}]);
    let fields = json!({"uid": "u".repeat(200), "vid": ID, "payments": lines});
    let payments = payments(facts, &config, fields);
    let of: Vec<_> = payments.credits.iter().map(|credit| credit.of.as_str()).collect();
    assert_eq!(of, ["orid"]);
    assert_eq!(Value::Object(payments.lines[0].params.clone()), json!({"orid": "o"}));
}

#[test]
fn an_anonymous_agreement_keeps_its_visitor_and_nothing_else_of_who_it_was() {
    let config = IntakeConfig { dnt_policy: DntPolicy::Anonymous, ..config() };
    let facts = RequestFacts { dnt: true, ..facts() };
    let fields = json!({"vid": ID, "uid": "u", "cflags": 3, "loc": {"ip": "x", "country": "DE"}});
    let prepared = preparer(&config).prepare_as(Fact::Agreement, hit(facts, fields)).unwrap();
    let who = &prepared.event.who;
    assert_eq!((who.vid.map(|id| id.to_string()), who.uid), (text(ID), None));
    let Body::Agreement(agreement) = prepared.event.body else { panic!("no agreement") };
    assert_eq!(Value::Object(agreement.loc), json!({"country": "DE"}));
    assert_eq!(prepared.cookie.unwrap().agreed, Some(3));
}

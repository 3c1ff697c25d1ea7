//! Money and consent through the real program: requests in, rows of DuckDB out.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]
mod support;

use serde_json::{Value, json};
use support::{Answer, Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const SERVER_KEY: &str = "5e7a1b8d3f6051c2a7e49f2c";
const SITE_KEY: &str = "0f6051c2a7e49f2c5e7a1b8d";
const VID: &str = "0190a8f0-0000-7000-8000-000000000001";
const OTHER: &str = "0190a8f0-0000-7000-8000-000000000002";

fn send(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut client = Client::connect(server.address).expect("connecting");
    client.request(method, path, headers, body.as_bytes()).expect("an answer")
}

fn pay(server: &Server, body: &Value) {
    let answer = send(server, "POST", "/tr/v1/ltv/", &[], &body.to_string());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("x-ack"), Some("durable"));
    assert_eq!(answer.body, b"");
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Sums of lifetime values as text, by what they are of, once everything was delivered.
fn sums(site: &Site, server: &Server) -> Value {
    server.drained();
    let sql = "select id_type, currency, count(*) as holders, sum(paid)::varchar as paid \
               from ltv_totals group by all order by all";
    let rows = site.query(sql).into_iter();
    Value::Array(
        rows.map(|row| json!([row["id_type"], row["currency"], row["holders"], row["paid"]]))
            .collect(),
    )
}

#[test]
fn the_documented_payments_are_stored_and_added_up() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    pay(
        &server,
        &json!({
            "vid": "user-id", "uid": "user-123", "oid": "org-id",
            "amt": 99.99, "currency": "USD", "orid": "order-123"
        }),
    );
    pay(
        &server,
        &json!({
            "vid": "user-id", "uid": "user-123", "oid": "org-id",
            "payments": [
                {"amt": 50.00, "currency": "USD", "orid": "order-124"},
                {"amt": 25.00, "currency": "USD", "orid": "order-125"}
            ]
        }),
    );
    assert_eq!(
        sums(&site, &server),
        json!([
            ["orid", "USD", 3, "174.9900"],
            ["uid", "USD", 1, "174.9900"],
            ["vid", "USD", 1, "174.9900"],
        ])
    );
    let rows = site.query(
        "select revenue::varchar as revenue, params ->> 'orid' as o, typeof(revenue) as t, \
         count(distinct oid) over () as oids from payments order by revenue",
    );
    let found: Vec<Value> = rows.iter().map(|row| json!([row["revenue"], row["o"]])).collect();
    assert_eq!(
        found,
        [
            json!(["25.0000", "order-125"]),
            json!(["50.0000", "order-124"]),
            json!(["99.9900", "order-123"])
        ]
    );
    assert_eq!((&rows[0]["t"], &rows[0]["oids"]), (&json!("DECIMAL(18,4)"), &json!(1)));
    assert_eq!(site.number("select count(*) from events"), 0, "a payment is no event");
    assert_eq!(site.number("select count(*) from sfpla.ltv"), 5);
}

#[test]
fn an_order_told_again_counts_once_across_batches_and_restarts() {
    let site = Site::new(PROGRAM, json!({}));
    let order = |amount: f64| json!({"uid": "u", "vid": VID, "amt": amount, "orid": "o-1"});
    let server = site.start();
    pay(&server, &order(10.0));
    pay(&server, &order(10.0));
    pay(&server, &json!({"uid": "u", "vid": VID, "payments": [{"amt": 10, "orid": "o-1"}]}));
    let array = json!([order(10.0), order(10.0)]).to_string();
    assert_eq!(send(&server, "POST", "/tr/v1/ltv", &[], &array).status, 200);
    let once = json!([
        ["orid", "USD", 1, "10.0000"],
        ["uid", "USD", 1, "10.0000"],
        ["vid", "USD", 1, "10.0000"],
    ]);
    assert_eq!(sums(&site, &server), once);
    server.kill();
    let server = site.start();
    pay(&server, &order(10.0));
    assert_eq!(sums(&site, &server), once);
    assert_eq!(site.number("select count(*) from payments_latest"), 1);
    assert_eq!(site.number("select count(*) from payments"), 6, "every telling is kept");
    // What is told last stands, also for another user.
    pay(&server, &json!({"uid": "w", "vid": VID, "amt": "12.34", "orid": "o-1"}));
    let sum = "select id_type, paid::varchar as paid from ltv_totals where id_type = 'uid'";
    server.drained();
    assert_eq!(site.query(sum), [json!({"id_type": "uid", "paid": "12.3400"})]);
}

#[test]
fn parts_refunds_and_currencies_stay_apart() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let with = |fields: Value| {
        let mut all = json!({"uid": "u", "orid": "o-1"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        pay(&server, &all);
    };
    // Two parts of one order, one of them twice in the same request.
    let parts = json!({"payments": [
        {"amt": 10, "product": "a"}, {"amt": 10, "product": "a"}, {"amt": 5, "product": "b"}
    ]});
    with(parts.clone());
    with(parts);
    // Given back in two steps, the second told twice.
    with(json!({"refund": 3, "eid": "r-1"}));
    with(json!({"amt": -4, "eid": "r-2"}));
    with(json!({"amt": -4, "eid": "r-2"}));
    with(json!({"amt": 7, "currency": "EUR", "product": "c"}));
    // Without an order a payment goes by its own id, and without that by nothing.
    pay(&server, &json!({"uid": "u", "amt": 1, "eid": "p-1"}));
    pay(&server, &json!({"uid": "u", "amt": 1, "eid": "p-1"}));
    pay(&server, &json!({"uid": "u", "amt": 0.5}));
    pay(&server, &json!({"uid": "u", "amt": 0.5}));
    assert_eq!(
        sums(&site, &server),
        json!([
            ["orid", "EUR", 1, "7.0000"],
            ["orid", "USD", 1, "18.0000"],
            ["uid", "EUR", 1, "7.0000"],
            ["uid", "USD", 1, "20.0000"],
        ])
    );
    let received = server.metric("tracker_events_received_total");
    assert_eq!((received, server.metric("tracker_events_stored_total")), (10, 10));
}

#[test]
fn a_payment_that_is_wrong_is_refused_by_field_and_stored_nowhere() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    for (body, field) in [
        (r#"{"amt":"NaN"}"#, "amt"),
        (r#"{"amt":1e308}"#, "amt"),
        (r#"{"amt":1,"currency":"DOLLAR"}"#, "currency"),
        (r#"{"amt":1,"price":-1}"#, "price"),
        (r#"{"vid":"v"}"#, "amt"),
        (r#"{"payments":[{"amt":1},{"amt":"?"}]}"#, "payments[1].amt"),
    ] {
        let answer = send(&server, "POST", "/tr/v1/ltv/", &[], body);
        assert_eq!(answer.status, 400, "{body}");
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (&error["error"]["code"], &error["error"]["field"]),
            (&json!("invalid"), &json!(field))
        );
    }
    let get = send(&server, "GET", "/tr/v1/ltv/?uid=u&amt=1.25&currency=eur&orid=g", &[], "");
    assert_eq!(get.status, 200);
    assert_eq!(
        sums(&site, &server),
        json!([["orid", "EUR", 1, "1.2500"], ["uid", "EUR", 1, "1.2500"]])
    );
    assert_eq!(server.metric("tracker_events_rejected_total{reason=\"invalid\"}"), 6);
}

fn keyed(extra: Value) -> Site {
    let mut settings = json!({"Keys": [
        {"Name": "billing", "Key": SERVER_KEY, "Kind": "server"},
        {"Name": "shop", "Key": SITE_KEY, "Kind": "site", "Hosts": ["shop.example"]},
    ]});
    settings.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Site::new(PROGRAM, settings)
}

#[test]
fn with_keys_a_browser_tells_of_payments_only_where_that_is_configured() {
    let (page, site_key) = (("origin", "https://shop.example"), ("x-api-key", SITE_KEY));
    for (extra, from_page) in [(json!({}), 401), (json!({"PaymentsFrom": "site"}), 200)] {
        let site = keyed(extra);
        let server = site.start();
        let status = |headers: &[(&str, &str)]| {
            send(&server, "POST", "/tr/v1/ltv", headers, r#"{"amt":1,"uid":"u"}"#).status
        };
        assert_eq!(status(&[]), 401);
        assert_eq!(status(&[page]), from_page);
        assert_eq!(status(&[site_key]), from_page);
        assert_eq!(status(&[("x-api-key", SERVER_KEY)]), 200);
    }
}

fn agreements(server: &Server, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let answer = send(server, "GET", path, headers, "");
    (answer.status, body(&answer))
}

#[test]
fn the_documented_consent_is_stored_and_read_by_its_visitor() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let agree = |body: &Value| send(&server, "POST", "/tr/v1/ppi/agree", &[], &body.to_string());
    let documented = json!({
        "vid": "user-id", "cflags": 1024, "tz": "America/Los_Angeles", "lat": 37.7749, "lon": -122.4194
    });
    assert_eq!(agree(&documented).status, 200);
    let answer =
        agree(&json!({"vid": VID, "cflags": 1024, "compliances": {"GDPR": ["ads"]}, "x": [1]}));
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"".as_slice()));
    assert_eq!(answer.header("x-ack"), Some("durable"));
    assert_eq!(agree(&json!({"vid": VID, "cflags": 0})).status, 200);
    server.drained();
    let rows = site.query("select cflags, country, lat, tz, ip from agreed where lat is not null");
    assert_eq!(
        rows,
        [
            json!({"cflags": 1024, "country": "US", "lat": 37.7749, "tz": "America/Los_Angeles", "ip": "127.0.0.0"})
        ]
    );
    assert_eq!(site.number("select count(*) from agreed"), 3);
    assert_eq!(site.number("select count(*) from sfpla.agreements"), 2, "the newest of each");
    // The visitor's own cookie is the proof.
    let cookie = format!("vid={VID}");
    let path = format!("/tr/v1/ppi/agree?vid={VID}");
    for path in ["/tr/v1/ppi/agree", &path] {
        let (status, found) = agreements(&server, path, &[("cookie", &cookie)]);
        assert_eq!(status, 200);
        let flags: Vec<&Value> =
            found.as_array().unwrap().iter().map(|row| &row["cflags"]).collect();
        assert_eq!(flags, [&json!(0), &json!(1024)], "newest first");
        assert_eq!(found[1]["compliances"], json!({"GDPR": ["ads"]}));
        assert_eq!(found[1]["params"], json!({"x": [1]}));
    }
    let other = format!("vid={OTHER}");
    assert_eq!(agreements(&server, &path, &[]).0, 401);
    assert_eq!(agreements(&server, &path, &[("cookie", &other)]).0, 401);
    assert_eq!(
        agreements(&server, "/tr/v1/ppi/agree?vid=user-id", &[("cookie", "vid=user-id")]).0,
        401
    );
    assert_eq!(agreements(&server, "/tr/v1/ppi/agree", &[]), (404, json!([])));
    assert_eq!(agreements(&server, "/tr/v1/ppi/agree", &[("cookie", &other)]), (200, json!([])));
}

#[test]
fn a_servers_key_reads_any_visitors_consent_within_its_organisation() {
    let bound = "77c2a7e49f2c5e7a1b8d3f60";
    let site = Site::new(
        PROGRAM,
        json!({"Keys": [
            {"Name": "all", "Key": SERVER_KEY, "Kind": "server"},
            {"Name": "acme", "Key": bound, "Kind": "server", "Organization": "acme"},
        ]}),
    );
    let server = site.start();
    for (key, flags) in [(SERVER_KEY, 1), (bound, 2)] {
        let body = json!({"vid": "user-id", "cflags": flags, "oid": "other"}).to_string();
        let answer = send(&server, "POST", "/tr/v1/ppi/agree", &[("x-api-key", key)], &body);
        assert_eq!(answer.status, 200);
    }
    server.drained();
    for (key, expect) in [(SERVER_KEY, json!([2, 1])), (bound, json!([2]))] {
        let (status, found) =
            agreements(&server, "/tr/v1/ppi/agree?vid=user-id", &[("x-api-key", key)]);
        let flags: Vec<&Value> =
            found.as_array().unwrap().iter().map(|row| &row["cflags"]).collect();
        assert_eq!((status, json!(flags)), (200, expect));
    }
    assert_eq!(agreements(&server, "/tr/v1/ppi/agree?vid=user-id", &[]).0, 401);
    assert_eq!(
        agreements(&server, "/tr/v1/ppi/agree?vid=user-id", &[("x-api-key", "wrong")]).0,
        401
    );
}

#[test]
fn what_a_visitor_agreed_to_holds_for_its_later_events() {
    let site = Site::new(PROGRAM, json!({"CFlagsMarketing": 1024}));
    let server = site.start();
    let track = |cookie: &str, name: &str| {
        let body = json!({"vid": VID, "ename": name, "gclid": "click"}).to_string();
        let answer = send(&server, "POST", "/tr/v1/tr", &[("cookie", cookie)], &body);
        assert_eq!(answer.status, 200);
    };
    track("a=b", "before");
    for (flags, name) in [(1024, "allowed"), (0, "refused")] {
        let body = json!({"vid": VID, "cflags": flags}).to_string();
        let answer = send(&server, "POST", "/tr/v1/ppi/agree", &[], &body);
        let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
        assert_eq!(
            cookie,
            format!("CookieConsent={flags}; Path=/; Max-Age=34560000; SameSite=Lax")
        );
        track(cookie.split(';').next().unwrap(), name);
    }
    server.drained();
    let rows = site
        .query("select ename, cflags, params ->> 'gclid' as click from events order by ingest_seq");
    assert_eq!(
        rows,
        [
            json!({"ename": "before", "cflags": null, "click": null}),
            json!({"ename": "allowed", "cflags": 1024, "click": "click"}),
            json!({"ename": "refused", "cflags": 0, "click": null}),
        ]
    );
}

#[test]
fn a_consent_without_its_visitor_is_refused_and_names_vid() {
    let site = Site::new(PROGRAM, json!({"DNTPolicy": "drop"}));
    let server = site.start();
    let long = json!({"vid": "x".repeat(129)}).to_string();
    let zero = json!({"vid": "00000000-0000-0000-0000-000000000000"}).to_string();
    for text in [r#"{"cflags":1}"#, r#"{"vid":""}"#, r#"{"vid":[1]}"#, "null", &long, &zero] {
        let answer = send(&server, "POST", "/tr/v1/ppi/agree", &[], text);
        assert_eq!(
            (answer.status, &body(&answer)["error"]["field"]),
            (400, &json!("vid")),
            "{text}"
        );
    }
    for text in ["", "{", "[1]", "5"] {
        assert_eq!(send(&server, "POST", "/tr/v1/ppi/agree", &[], text).status, 400, "{text}");
    }
    // A consent is the visitor's own act: it is kept whatever DNT says of tracking.
    let text = json!({"vid": VID, "cflags": 1}).to_string();
    assert_eq!(send(&server, "POST", "/tr/v1/ppi/agree", &[("dnt", "1")], &text).status, 200);
    server.drained();
    assert_eq!(site.number("select count(*) from agreed"), 1);
}

#[test]
fn the_regulations_in_force_are_listed_also_for_one_country() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let (status, all) = agreements(&server, "/tr/v1/ppi/jds", &[]);
    assert_eq!(status, 200);
    let named: Vec<&str> =
        all.as_array().unwrap().iter().map(|row| row["regulation"].as_str().unwrap()).collect();
    for regulation in
        ["GDPR", "ePrivacy", "UK_GDPR", "CCPA_CPRA", "LGPD", "PIPEDA", "POPIA", "APPI"]
    {
        assert!(named.contains(&regulation), "{regulation} of {named:?}");
    }
    let (_, of_germany) = agreements(&server, "/tr/v1/ppi/jds?country=de", &[]);
    let named: Vec<&str> = of_germany
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["regulation"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["GDPR", "ePrivacy"]);
    assert_eq!(of_germany[0]["rules"]["effective"], "2018-05-25");
    let answer = send(&server, "GET", "/tr/v1/ppi/other", &[], "");
    assert_eq!(
        (answer.status, &body(&answer)["error"]["message"]),
        (400, &json!("Unknown action"))
    );
    let answer =
        send(&server, "OPTIONS", "/tr/v1/ppi/agree", &[("origin", "https://a.example")], "");
    assert_eq!((answer.status, answer.header("access-control-max-age")), (200, Some("1728000")));
}

#[test]
fn places_of_other_addresses_are_answered_until_there_are_keys() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let record = loop {
        let (status, record) = agreements(&server, "/tr/v1/ppi/geoip?ip=8.8.8.8", &[]);
        match status {
            200 => break record,
            503 => std::thread::yield_now(),
            other => panic!("{other} {record}"),
        }
    };
    assert_eq!(record["iso2"], "US");
    let first: u32 = record["ips"].as_str().unwrap().parse().unwrap();
    let last: u32 = record["ipe"].as_str().unwrap().parse().unwrap();
    assert!((first..=last).contains(&u32::from(std::net::Ipv4Addr::new(8, 8, 8, 8))));
    let names: Vec<&String> = record.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["ips", "ipe", "iso2", "country", "region", "city", "lat", "lon", "zip", "tz"]
    );
    let (status, error) = agreements(&server, "/tr/v1/ppi/geoip?ip=nowhere", &[]);
    assert_eq!((status, &error["error"]["field"]), (400, &json!("ip")));
    let (status, error) = agreements(&server, "/tr/v1/ppi/geoip", &[]);
    assert_eq!((status, &error["error"]["message"]), (404, &json!("Not Found (IP)")));
    drop(server);

    let site = keyed(json!({}));
    let server = site.start();
    let status =
        |headers: &[(&str, &str)]| agreements(&server, "/tr/v1/ppi/geoip?ip=8.8.8.8", headers).0;
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[("x-api-key", SITE_KEY)]), 401);
    assert_ne!(status(&[("x-api-key", SERVER_KEY)]), 401);
    drop(server);

    let site = Site::new(PROGRAM, json!({"UseGeoIP": false}));
    let (status, error) = agreements(&site.start(), "/tr/v1/ppi/geoip", &[]);
    assert_eq!((status, &error["error"]["code"]), (503, &json!("unavailable")));
}

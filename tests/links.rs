//! Redirects, short links, accounts, QR codes and static files, through the program as built: requests
//! over a socket in, answers and rows in DuckDB out.
#![allow(
    clippy::expect_used,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Answer, Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
/// What a browser sends besides, so that it is taken for one.
const HUMAN: [(&str, &str); 3] =
    [("User-Agent", BROWSER), ("Accept-Language", "de"), ("Accept-Encoding", "gzip")];
const PASSWORD: &str = "correct horse battery";

/// One request on a connection of its own.
fn once(
    server: &Server,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut client = Client::connect(server.address).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    client.send(head.as_bytes()).unwrap();
    client.answer(method).unwrap()
}

/// As a patient client: on a busy machine the store may not be open yet or not answer in time.
fn ask(
    server: &Server,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        let answer = once(server, method, host, path, headers, body);
        if answer.status != 503 || Instant::now() > deadline {
            return answer;
        }
    }
}

fn get(server: &Server, host: &str, path: &str) -> Answer {
    ask(server, "GET", host, path, &HUMAN, "")
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", text(answer)))
}

/// Starts the program and waits until its store can be asked, which opens behind the listener.
fn open(site: &Site) -> Server {
    let server = site.start();
    up(&server);
    server
}

/// Waits until the store can be asked.
fn up(server: &Server) {
    let deadline = Instant::now() + support::PATIENCE;
    while server.health()["sinks"][0]["state"] != "up" {
        assert!(Instant::now() < deadline, "the store does not open");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the store has everything: a redirect is answered before its event is in the journal.
fn stored(server: &Server) {
    let deadline = Instant::now() + support::PATIENCE;
    while server.metric("tracker_events_in_flight") > 0 {
        assert!(Instant::now() < deadline, "events stay in flight");
        std::thread::sleep(Duration::from_millis(20));
    }
    up(server);
    server.drained();
}

/// Where an answer leads; it must be a 302.
fn location(answer: &Answer) -> &str {
    assert_eq!(answer.status, 302, "{}", text(answer));
    answer.header("location").unwrap()
}

/// What a command prints.
fn command(site: &Site, args: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(PROGRAM)
        .args(args)
        .arg("--config")
        .arg(site.path().join("config.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(words(output.stdout)) } else { Err(words(output.stderr)) }
}

fn add_account(site: &Site, user: &str, more: &[&str]) {
    let args = [&["account", "add", user, "--password-stdin"], more].concat();
    command(site, &args, &format!("{PASSWORD}\n")).unwrap();
}

/// `Authorization: Basic` of `user` and the password of all accounts here.
fn basic(user: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{user}:{PASSWORD}");
    let mut coded = "Basic ".to_owned();
    for group in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap();
            coded.push(if at <= group.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    coded
}

fn create(server: &Server, user: &str, link: &Value) -> Answer {
    let authorization = basic(user);
    let headers = [("Authorization", authorization.as_str())];
    ask(server, "POST", "localhost", "/tr/v1/rpi/redirect", &headers, &link.to_string())
}

fn list(server: &Server, user: &str, host: &str) -> Vec<Value> {
    let authorization = basic(user);
    let path = format!("/tr/v1/rpi/redirects/{host}");
    let headers = [("Authorization", authorization.as_str())];
    let answer = ask(server, "GET", "localhost", &path, &headers, "");
    assert_eq!(answer.status, 200, "{}", text(&answer));
    body(&answer)["results"].as_array().unwrap().clone()
}

/// A site with one account, `marketing`.
fn site(extra: Value) -> Site {
    let site = Site::new(PROGRAM, extra);
    add_account(&site, "marketing", &[]);
    site
}

#[test]
fn the_documentations_example_works_and_survives_a_kill_before_the_store_has_it() {
    let site = Site::new(PROGRAM, json!({}));
    add_account(&site, "USER_ID", &[]);
    let server = open(&site);
    let made = ask(
        &server,
        "POST",
        "localhost:8443",
        "/tr/v1/rpi/redirect/USER_ID/correct%20horse%20battery",
        &[("Content-Type", "application/json")],
        r#"{"urlfrom": "https://yourdomain.com/short", "slugfrom": "/short",
            "urlto": "https://example.com/long/path?utm_source=test", "oid": "org-id"}"#,
    );
    assert_eq!((made.status, made.body.len()), (200, 0), "{}", text(&made));
    assert_eq!(made.header("x-ack"), Some("durable"));
    up(&server);
    let check = |server: &Server| {
        for (host, path) in [
            ("yourdomain.com", "/short"),
            ("YourDomain.com:8443", "/SHORT?a=b"),
            ("localhost:8443", "/short"),
            ("127.0.0.1", "/short"),
        ] {
            let visit = get(server, host, path);
            let to = "https://example.com/long/path?utm_source=test";
            assert_eq!(location(&visit), to, "{host}{path}");
            assert_eq!(text(&visit), format!("<a href=\"{to}\">Found</a>.\n\n"));
            assert_eq!(visit.header("content-type"), Some("text/html; charset=utf-8"));
        }
        assert_eq!(get(server, "other.example", "/short").status, 404);
        assert_eq!(get(server, "yourdomain.com", "/shorter").status, 404);
        let path = "/tr/v1/rpi/redirects/USER_ID/correct%20horse%20battery/yourdomain.com";
        let listed = ask(server, "GET", "localhost:8443", path, &[], "");
        assert_eq!(listed.header("content-type"), Some("application/json"));
        let rows = body(&listed)["results"].as_array().unwrap().clone();
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0]["urlfrom"], "yourdomain.com/short");
        assert_eq!(rows[0]["pathto"], "/long/path");
        assert_eq!(rows[0]["searchto"], "utm_source=test");
    };
    check(&server);
    server.kill();
    let server = site.start();
    // The store is not even open.
    let to = "https://example.com/long/path?utm_source=test";
    let early = once(&server, "GET", "yourdomain.com", "/short", &HUMAN, "");
    assert_eq!(location(&early), to);
    up(&server);
    check(&server);
    stored(&server);
    check(&server);
    let rows = site.query(
        "select urlfrom, urlto, oid is not null as owned, updater is not null as known \
         from redirects",
    );
    assert_eq!(
        rows,
        [json!({"urlfrom": "yourdomain.com/short",
            "urlto": "https://example.com/long/path?utm_source=test",
            "owned": true, "known": true})]
    );
    assert_eq!(site.number("select count(*) from redirect_history"), 1);
    let visits = site.query(
        "select distinct ename, etyp, origin, url, oid is not null as owned, \
         (params->>'$.to') as target from events where host = 'yourdomain.com' order by url",
    );
    let visit = |url: &str| {
        json!({"ename": "short_rdr", "etyp": "redirect", "origin": "client", "url": url,
            "owned": true, "target": "https://example.com/long/path"})
    };
    let expect = ["https://yourdomain.com/SHORT", "https://yourdomain.com/short"].map(visit);
    assert_eq!(visits, expect);
    server.stop();
}

#[test]
fn a_change_is_seen_at_once_and_the_old_forms_of_the_routes_work() {
    let site = site(json!({}));
    let server = open(&site);
    let link = |to: &str| json!({"urlfrom": "go.example/a", "urlto": to, "searchto": 5});
    assert_eq!(create(&server, "marketing", &link("https://one.example/")).status, 200);
    assert_eq!(location(&get(&server, "go.example", "/a")), "https://one.example/");
    stored(&server);
    assert_eq!(create(&server, "marketing", &link("https://two.example/")).status, 200);
    assert_eq!(location(&get(&server, "go.example", "/a")), "https://two.example/");
    // The form of older documentation, with the host behind the password.
    let path = "/tr/v1/rpi/redirect/marketing/correct%20horse%20battery/go.example";
    let made = ask(&server, "POST", "x", path, &[], &link("https://three.example/").to_string());
    assert_eq!(made.status, 200);
    assert_eq!(location(&get(&server, "go.example", "/a")), "https://three.example/");
    let targets: Vec<_> =
        list(&server, "marketing", "GO.example:443").iter().map(|l| l["urlto"].clone()).collect();
    let newest_first = ["https://three.example/", "https://two.example/", "https://one.example/"];
    assert_eq!(targets, newest_first);
    stored(&server);
    assert_eq!(site.query("select urlto from redirects"), [json!({"urlto": newest_first[0]})]);
    for (method, path, status) in [
        ("OPTIONS", "/tr/v1/rpi/anything", 200),
        ("GET", "/tr/v1/rpi/redirect/u/p", 405),
        ("POST", "/tr/v1/rpi/redirects/u/p/h", 405),
        ("GET", "/tr/v1/rpi/anything", 404),
        ("GET", "/tr/v1/rpi/", 404),
        ("POST", "/a", 404),
        ("GET", "/tr/v2/x", 404),
    ] {
        let answer = ask(&server, method, "go.example", path, &[], "");
        assert_eq!(answer.status, status, "{method} {path}");
    }
    server.stop();
}

#[test]
fn what_is_no_link_is_refused_with_its_field() {
    let site = site(json!({"Domains": ["own.example"]}));
    let server = open(&site);
    let good = json!({"urlfrom": "go.example/first", "urlto": "https://example.com/"});
    assert_eq!(create(&server, "marketing", &good).status, 200);
    for (from, to, field) in [
        (json!(null), json!("https://example.com/"), "urlfrom"),
        (json!("  "), json!("https://example.com/"), "urlfrom"),
        (json!(7), json!("https://example.com/"), "urlfrom"),
        (json!("go.example/x"), json!(null), "urlto"),
        (json!("https://go.example/X"), json!("https://GO.example/x"), "urlto"),
        (json!("go.example/x"), json!("not an address"), "urlto"),
        (json!("go.example/x"), json!("javascript:alert(1)"), "urlto"),
        (json!("go.example/x"), json!("data:text/html,x"), "urlto"),
        (json!("go.example/x"), json!("https://good.example@evil.example/"), "urlto"),
        (json!("go.example/x"), json!("https://own.example/y"), "urlto"),
        (json!("go.example/x"), json!("https://go.example/y"), "urlto"),
        (json!("go.example/x"), json!("http://localhost:8080/"), "urlto"),
        (json!("go.example/x"), json!("http://127.0.0.1/"), "urlto"),
        (json!("go.example/x"), json!("http://10.0.0.1/"), "urlto"),
        (json!("go.example/x"), json!("http://169.254.169.254/latest/meta-data"), "urlto"),
        (json!("go.example/x"), json!("http://[::ffff:192.168.0.1]/"), "urlto"),
        (json!("go2.example/x"), json!("https://go.example/FIRST"), "urlto"),
        (json!("go.example"), json!("https://example.com/"), "urlfrom"),
        (json!("go.example/"), json!("https://example.com/"), "urlfrom"),
        (json!("ftp://go.example/x"), json!("https://example.com/"), "urlfrom"),
        (json!("go.example/ping"), json!("https://example.com/"), "urlfrom"),
        (json!("go.example/tr/v1/tr/"), json!("https://example.com/"), "urlfrom"),
    ] {
        let answer = create(&server, "marketing", &json!({"urlfrom": from, "urlto": to}));
        assert_eq!(answer.status, 400, "{from} {to}");
        assert_eq!(body(&answer)["error"]["field"], field, "{from} {to} {}", text(&answer));
    }
    for wrong in ["", "[]", "{", "null"] {
        let authorization = basic("marketing");
        let headers = [("Authorization", authorization.as_str())];
        let answer = ask(&server, "POST", "x", "/tr/v1/rpi/redirect", &headers, wrong);
        assert_eq!(answer.status, 400, "{wrong:?}");
    }
    stored(&server);
    assert_eq!(site.number("select count(*) from redirect_history"), 1);
    server.stop();
}

#[test]
fn destinations_that_became_wrong_are_refused_at_the_visit() {
    let site = site(json!({}));
    open(&site).stop();
    let database = duckdb::Connection::open(site.path().join("data/tracker.duckdb")).unwrap();
    let chain: String = (0..10)
        .map(|hop| format!(", ('hop{hop}.example/x', 'https://hop{}.example/x', now())", hop + 1))
        .collect();
    database
        .execute_batch(&format!(
            "insert into redirects (urlfrom, urlto, updated_at) values \
             ('go.example/private', 'http://10.0.0.1/', now()), \
             ('go.example/script', 'javascript:alert(1)', now()), \
             ('go.example/split', 'https://a.example/' || chr(13) || chr(10) || 'X: y', now()), \
             ('go.example/loop', 'https://go.example/loop', now()), \
             ('go.example/fine', 'https://fine.example/', now()){chain}"
        ))
        .unwrap();
    drop(database);
    let server = open(&site);
    stored(&server);
    assert_eq!(location(&get(&server, "go.example", "/fine")), "https://fine.example/");
    for path in ["/private", "/script", "/split", "/loop"] {
        let answer = get(&server, "go.example", path);
        assert_eq!((answer.status, answer.header("location")), (403, None), "{path}");
    }
    for hop in 0..9 {
        assert_eq!(get(&server, &format!("hop{hop}.example"), "/x").status, 403, "hop {hop}");
    }
    assert_eq!(location(&get(&server, "hop9.example", "/x")), "https://hop10.example/x");
    assert!(server.metric("tracker_redirects_refused_total{reason=\"private\"}") == 1);
    server.stop();
    site.reconfigure(json!({"DefaultRedirect": "https://home.example/"}));
    let server = open(&site);
    stored(&server);
    assert_eq!(location(&get(&server, "go.example", "/private")), "https://home.example/");
    assert_eq!(get(&server, "go.example", "/nothing").status, 404);
    server.stop();
    site.reconfigure(json!({"AllowPrivateTargets": true}));
    let server = open(&site);
    stored(&server);
    assert_eq!(location(&get(&server, "go.example", "/private")), "http://10.0.0.1/");
    server.stop();
}

#[test]
fn an_organisation_sees_and_changes_its_own_links_only() {
    let site = site(json!({}));
    add_account(&site, "alpha", &["--organisation", "org-a"]);
    add_account(&site, "beta", &["--organisation", "org-b"]);
    let server = open(&site);
    let link = |path: &str, oid: Option<&str>| {
        let mut link =
            json!({"urlfrom": format!("go.example{path}"), "urlto": "https://x.example/"});
        if let Some(oid) = oid {
            link["oid"] = oid.into();
        }
        link
    };
    assert_eq!(create(&server, "alpha", &link("/a", None)).status, 200);
    assert_eq!(create(&server, "beta", &link("/b", Some("org-b"))).status, 200);
    assert_eq!(create(&server, "marketing", &link("/m", Some("org-a"))).status, 200);
    assert_eq!(create(&server, "beta", &link("/b", Some("org-a"))).status, 403, "another oid");
    assert_eq!(create(&server, "beta", &link("/a", None)).status, 403, "another's link");
    let check = |server: &Server| {
        for (user, expect) in [
            ("alpha", vec!["/m", "/a"]),
            ("beta", vec!["/b"]),
            ("marketing", vec!["/m", "/b", "/a"]),
        ] {
            let found = list(server, user, "go.example");
            let found: Vec<_> = found.iter().map(|l| l["slugfrom"].as_str().unwrap()).collect();
            assert_eq!(found, expect, "{user}");
            assert_eq!(list(server, user, "other.example").len(), 0);
        }
    };
    check(&server);
    stored(&server);
    check(&server);
    // A visitor cannot say whose visit it is.
    location(&get(&server, "go.example", "/a?oid=org-b&ename=mine"));
    stored(&server);
    let same = "select count(*) from events e, redirects r where e.oid = r.oid \
                and r.urlfrom = 'go.example/a' and e.ename = 'mine'";
    assert_eq!(site.number(same), 1);
    server.stop();
}

#[test]
fn an_account_is_replaced_only_on_demand_with_and_without_a_server() {
    let site = Site::new(PROGRAM, json!({}));
    add_account(&site, "marketing", &["--organisation", "org-a"]);
    let kept = "select uid, pwd, owner, expires, updated_at from accounts order by uid";
    let before = site.query(kept);
    let again = || command(&site, &["account", "add", "marketing"], "").unwrap_err();
    let refused = |words: String| assert!(words.contains("--replace"), "{words}");
    refused(again());
    assert_eq!(site.query(kept), before);
    let server = open(&site);
    refused(again());
    assert_eq!(site.query(kept), before);
    assert_eq!(list(&server, "marketing", "go.example").len(), 0, "the first password");
    command(&site, &["account", "add", "marketing", "--replace"], "").unwrap();
    let after = site.query(kept);
    assert_eq!((after.len(), &after[0]["owner"]), (1, &Value::Null));
    assert_ne!(after[0]["pwd"], before[0]["pwd"]);
    // One that has ended is still there; one that is not there is added.
    add_account(&site, "marketing", &["--replace", "--days", "1"]);
    add_account(&site, "other", &["--replace"]);
    server.stop();
    let database = duckdb::Connection::open(site.path().join("data/tracker.duckdb")).unwrap();
    database.execute_batch("update accounts set expires = now() - interval 1 day").unwrap();
    drop(database);
    refused(again());
    command(&site, &["account", "add", "marketing", "--replace"], "").unwrap();
    assert_eq!(site.query(kept).len(), 2);
}

#[test]
fn passwords_are_asked_for_bounded_and_upgraded() {
    let site = Site::new(PROGRAM, json!({}));
    open(&site).stop();
    let uid = "14fb0860-b4bf-11e9-8971-7b80435315ac";
    let database = duckdb::Connection::open(site.path().join("data/tracker.duckdb")).unwrap();
    database
        .execute_batch(&format!(
            "insert into accounts (uid, pwd) values ('{uid}', 'W6ph5Mm5Pz8GgiULbPgzG37mj9g=')"
        ))
        .unwrap();
    drop(database);
    let server = open(&site);
    let listed = |password: &str| {
        let path = format!("/tr/v1/rpi/redirects/{uid}/{password}/go.example");
        ask(&server, "GET", "localhost", &path, &[], "")
    };
    let wrong = listed("passwort");
    assert_eq!(wrong.status, 401);
    assert_eq!(
        wrong.header("www-authenticate"),
        Some("Basic realm=\"tracker\", charset=\"UTF-8\"")
    );
    assert_eq!(listed("password").status, 200, "an old hash");
    let kept = "select starts_with(pwd, '$argon2id$') as kept from accounts";
    assert_eq!(site.query(kept), [json!({"kept": true})]);
    assert_eq!(listed("password").status, 200, "the new hash");
    let unnamed = ask(&server, "GET", "localhost", "/tr/v1/rpi/redirects/go.example", &[], "");
    assert_eq!(unnamed.status, 401);
    // No account by default.
    for user in ["admin", "USER_ID", ""] {
        let path = format!("/tr/v1/rpi/redirects/{user}/password/go.example");
        assert_ne!(ask(&server, "GET", "localhost", &path, &[], "").status, 200, "{user}");
    }
    // With a server, the command line goes through its socket; removing works too.
    command(&site, &["account", "add", "new"], "").unwrap();
    add_account(&site, "marketing", &["--days", "1"]);
    assert_eq!(list(&server, "marketing", "go.example").len(), 0);
    command(&site, &["account", "remove", "marketing"], "").unwrap();
    assert!(command(&site, &["account", "remove", "marketing"], "").is_err());
    let link = json!({"urlfrom": "go.example/x", "urlto": "https://x.example/"});
    assert_eq!(create(&server, "marketing", &link).status, 401);
    // Guessing ends, for the right password too.
    let mut statuses: Vec<u16> = (0..25).map(|_| listed("guess").status).collect();
    statuses.dedup();
    assert_eq!(statuses, [401, 429]);
    let refused = listed("password");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("60")));
    let log = fs::read_to_string(site.path().join("log")).unwrap();
    assert!(!log.contains("guess") && !log.contains("password/"), "{log}");
    server.stop();
}

/// Destinations that must not be followed, as they stand in a query.
const EVIL: [&str; 20] = [
    "//evil.example",
    "%2F%2Fevil.example",
    "https:evil.example",
    "https%3Aevil.example",
    "https:/evil.example",
    "https:///evil.example",
    "%5C%5Cevil.example",
    "/%5Cevil.example",
    "https:%5C%5Cevil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "https://good.example/%0d%0aSet-Cookie:%20a=b",
    "https://good.example%0d%0a.evil.example/",
    "https://good.example@evil.example/",
    "https://good.example%2540evil.example/",
    "https://g%D0%BE%D0%BEd.example/",
    "https%253A%252F%252Fevil.example",
    "https://good.example.evil.example/",
    "https://evil.example/%23good.example",
    "/relative",
];

#[test]
fn redirects_lead_to_configured_hosts_and_signed_addresses_only() {
    let site = Site::new(PROGRAM, json!({"Domains": ["good.example", "tr.example"]}));
    let server = open(&site);
    for route in ["rdr", "xrdr"] {
        for evil in EVIL {
            let answer = get(&server, "tr.example", &format!("/tr/v1/{route}/?url={evil}"));
            assert_eq!((answer.status, answer.header("location")), (400, None), "{evil}");
            assert_eq!(answer.header("set-cookie"), None, "{evil}");
            assert_eq!(body(&answer)["error"]["field"], "url");
        }
        assert_eq!(get(&server, "tr.example", &format!("/tr/v1/{route}/")).status, 400);
        for form in [route.to_owned(), format!("{route}/"), format!("{route}/k/v")] {
            let path =
                format!("/tr/v1/{form}?url=https://Good.example/Path%3Fa%3DB&utm_source=News");
            assert_eq!(
                location(&get(&server, "tr.example", &path)),
                "https://good.example/Path?a=B"
            );
        }
    }
    let printed = command(&site, &["link", "sign", "https://else.example/a?b=c"], "").unwrap();
    let signed = printed
        .trim()
        .strip_prefix("https://tr.example")
        .or(printed.trim().strip_prefix("https://good.example"))
        .unwrap();
    assert_eq!(location(&get(&server, "tr.example", signed)), "https://else.example/a?b=c");
    let forged = signed.replace("else.example", "evil.example");
    assert_eq!(get(&server, "tr.example", &forged).status, 400);
    assert!(command(&site, &["link", "sign", "http://10.0.0.1/"], "").is_err());
    let cookie = |route: &str, method: &str| {
        let path = format!("/tr/v1/{route}/?url=https://good.example/");
        let answer = ask(&server, method, "tr.example", &path, &HUMAN, "");
        location(&answer);
        answer.header("set-cookie").is_some()
    };
    assert!(!cookie("rdr", "GET"), "a server event");
    assert!(cookie("xrdr", "GET"), "a client event");
    assert!(!cookie("xrdr", "HEAD"), "no event");
    stored(&server);
    let rows = site.query(
        "select origin, url, source, count(*) as n, bool_or((params->>'$.sig') is not null) as sig \
         from events group by all order by origin, n",
    );
    assert_eq!(
        rows,
        [
            json!({"origin": "client", "url": "https://good.example/", "source": null, "n": 1, "sig": false}),
            json!({"origin": "client", "url": "https://good.example/Path", "source": "news", "n": 3, "sig": false}),
            json!({"origin": "server", "url": "https://else.example/a", "source": null, "n": 1, "sig": false}),
            json!({"origin": "server", "url": "https://good.example/", "source": null, "n": 1, "sig": false}),
            json!({"origin": "server", "url": "https://good.example/Path", "source": "news", "n": 3, "sig": false}),
        ]
    );
    server.stop();
    site.reconfigure(json!({"DefaultRedirect": "https://home.example/x", "RedirectHosts": []}));
    let server = open(&site);
    for query in ["", "?url=", "?url=//evil.example", "?url=https://good.example/"] {
        let answer = get(&server, "tr.example", &format!("/tr/v1/rdr/{query}"));
        assert_eq!(location(&answer), "https://home.example/x", "{query}");
    }
    server.stop();
}

#[test]
fn destinations_change_without_a_restart() {
    let site = Site::new(PROGRAM, json!({}));
    let server = open(&site);
    let status = || get(&server, "x.example", "/tr/v1/rdr/?url=https://good.example/").status;
    assert_eq!(status(), 400);
    site.reconfigure(json!({"RedirectHosts": ["good.example"]}));
    server.signal("HUP");
    let deadline = Instant::now() + support::PATIENCE;
    while status() != 302 {
        assert!(Instant::now() < deadline, "the new setting is not taken up");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.stop();
}

#[test]
fn a_tracked_link_is_followed_in_one_step_as_a_server_event() {
    let site = site(json!({"Domains": ["tr.example"]}));
    let server = open(&site);
    let link = json!({"urlfrom": "go.example/t", "urlto":
        "https://tr.example/tr/v1/rdr/?url=https%3A%2F%2Fshop.example%2FBuy&utm_source=Mail&sink=Cart"});
    assert_eq!(create(&server, "marketing", &link).status, 200);
    let visit = get(&server, "go.example", "/t");
    assert_eq!(location(&visit), "https://shop.example/Buy");
    assert_eq!(visit.header("set-cookie"), None);
    stored(&server);
    let rows = site.query("select origin, source, sink, ename from events");
    let expect =
        json!({"origin": "server", "source": "mail", "sink": "cart", "ename": "short_rdr"});
    let mut row = rows[0].clone();
    row["sink"] = row["sink"].as_str().unwrap().to_lowercase().into();
    assert_eq!((rows.len(), row), (1, expect));
    server.stop();
}

#[test]
fn people_and_machines_are_counted_apart() {
    let site = site(json!({}));
    let server = open(&site);
    let link = json!({"urlfrom": "go.example/c", "urlto": "https://x.example/"});
    assert_eq!(create(&server, "marketing", &link).status, 200);
    let visit = |more: &[(&str, &str)]| {
        location(&ask(&server, "GET", "go.example", "/c", more, ""));
    };
    let with = |name: &'static str, value: &'static str| {
        let mut headers = HUMAN.to_vec();
        headers.push((name, value));
        headers
    };
    visit(&HUMAN);
    visit(&with("Referer", "https://news.example/story"));
    visit(&with("Sec-Purpose", "prefetch;prerender"));
    visit(&with("Purpose", "prefetch"));
    visit(&with("X-Moz", "prefetch"));
    visit(&[("User-Agent", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)")]);
    visit(&[("User-Agent", "Mozilla/5.0 (compatible; Barracuda Sentinel)")]);
    visit(&[("User-Agent", "curl/8.5.0")]);
    ask(&server, "HEAD", "go.example", "/c", &HUMAN, "");
    for (verdict, count) in
        [("human", 2), ("prefetch", 3), ("preview", 1), ("scanner", 1), ("crawler", 1)]
    {
        let name = format!("tracker_redirects_total{{route=\"link\",verdict=\"{verdict}\"}}");
        assert_eq!(server.metric(&name), count, "{verdict}");
    }
    assert!(server.metric("tracker_events_unconfirmed_total") <= 8);
    stored(&server);
    let totals = site.query("select * exclude (last_visit) from link_totals");
    assert_eq!(
        totals,
        [json!({"link": "go.example/c", "clicks": 2, "visitors": 2, "others": 6,
            "prefetches": 3, "previews": 1, "scanners": 1})]
    );
    let referrer = "select count(*) from link_visits where referrer = 'https://news.example/story'";
    assert_eq!(site.number(referrer), 1);
    server.stop();
}

#[test]
fn without_its_store_a_link_is_neither_invented_nor_denied_for_long() {
    let lost = json!([{"Type": "duckdb", "Path": "/proc/none/tracker.duckdb"}]);
    let site = Site::new(PROGRAM, json!({"Notify": lost}));
    let server = site.start();
    let started = Instant::now();
    let answer = once(&server, "GET", "go.example", "/x", &HUMAN, "");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let link = json!({"urlfrom": "go.example/x", "urlto": "https://x.example/"}).to_string();
    let authorization = basic("marketing");
    let headers = [("Authorization", authorization.as_str())];
    let path = "/tr/v1/rpi/redirect";
    assert_eq!(once(&server, "POST", "localhost", path, &headers, &link).status, 503);
    server.kill();
    site.reconfigure(json!({"DefaultRedirect": "https://home.example/"}));
    let server = site.start();
    assert_eq!(location(&get(&server, "go.example", "/x")), "https://home.example/");
    server.kill();
}

#[test]
fn a_code_is_drawn_for_our_own_addresses_only() {
    let site = site(json!({"Domains": ["good.example"]}));
    let server = open(&site);
    let link = json!({"urlfrom": "go.example/q", "urlto": "https://x.example/"});
    assert_eq!(create(&server, "marketing", &link).status, 200);
    for url in ["https://go.example/q", "https%3A%2F%2Fgo.example%2FQ", "https://good.example/page"]
    {
        let answer = get(&server, "localhost", &format!("/tr/v1/rpi/qr?url={url}"));
        assert_eq!(answer.status, 200, "{url} {}", text(&answer));
        assert_eq!(answer.header("content-type"), Some("image/svg+xml"));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=86400"));
        assert!(text(&answer).contains("<svg"));
    }
    for url in ["", "https://evil.example/", "https://go.example/other", "javascript:x", "x"] {
        let answer = get(&server, "localhost", &format!("/tr/v1/rpi/qr?url={url}"));
        assert_eq!(answer.status, 400, "{url}");
    }
    server.stop();
}

/// A folder of files, hidden ones and ways out among them.
fn site_with_files() -> Site {
    let site = Site::new(PROGRAM, json!({"StaticDirectory": "public"}));
    let root = site.path().join("public");
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("app.js", "let a = 1;");
    write("app.js.gz", "(gzip)");
    write("app.js.br", "(brotli)");
    write("a/index.html", "<p>index</p>");
    write("b/file.txt", "0123456789");
    write(".env", "SECRET");
    write(".git/config", "SECRET");
    write("track_url.html", "<p>ours</p>");
    fs::write(site.path().join("secret.txt"), "SECRET").unwrap();
    symlink(site.path().join("secret.txt"), root.join("link.txt")).unwrap();
    symlink(site.path(), root.join("up")).unwrap();
    symlink(root.join(".env"), root.join("env.txt")).unwrap();
    symlink(root.join("b/file.txt"), root.join("inside.txt")).unwrap();
    write("plain.txt", "plain");
    symlink(site.path().join("secret.txt"), root.join("plain.txt.gz")).unwrap();
    site
}

fn fetch(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(server, "GET", "localhost", &format!("/tr/v1/pub{path}"), headers, "")
}

#[test]
fn static_files_are_served_with_conditions_ranges_and_variants() {
    let site = site_with_files();
    let server = open(&site);
    let fetch = |path: &str, headers: &[(&str, &str)]| fetch(&server, path, headers);
    for (path, kind, expect) in [
        ("/app.js", "text/javascript; charset=utf-8", "let a = 1;"),
        ("/a/", "text/html; charset=utf-8", "<p>index</p>"),
        ("/b/file.txt", "text/plain; charset=utf-8", "0123456789"),
        ("/inside.txt", "text/plain; charset=utf-8", "0123456789"),
        ("/track_url.html", "text/html; charset=utf-8", "<p>ours</p>"),
    ] {
        let answer = fetch(path, &[]);
        assert_eq!((answer.status, text(&answer).as_str()), (200, expect), "{path}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(answer.header("cache-control").unwrap().starts_with("private, "), "{path}");
        let tag = answer.header("etag").unwrap();
        let again = fetch(path, &[("If-None-Match", tag)]);
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    let slash = fetch("/a", &[]);
    assert_eq!(slash.header("location"), Some("/tr/v1/pub/a/"));
    let part = fetch("/b/file.txt", &[("Range", "bytes=2-4")]);
    assert_eq!((part.status, text(&part).as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(fetch("/b/file.txt", &[("Range", "bytes=20-")]).status, 416);
    let fresh = fetch("/b/file.txt", &[("Range", "bytes=2-4"), ("If-Range", "\"old\"")]);
    assert_eq!((fresh.status, fresh.body.len()), (200, 10));
    for (accept, coding, expect) in [
        ("gzip", Some("gzip"), "(gzip)"),
        ("br, gzip", Some("br"), "(brotli)"),
        ("zstd", None, "let a = 1;"),
    ] {
        let answer = fetch("/app.js", &[("Accept-Encoding", accept)]);
        assert_eq!((answer.header("content-encoding"), text(&answer).as_str()), (coding, expect));
        assert!(answer.header("vary").unwrap().to_lowercase().contains("accept-encoding"));
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
    }
    assert_eq!(text(&fetch("/plain.txt", &[("Accept-Encoding", "gzip")])), "plain");
    assert_eq!(ask(&server, "POST", "localhost", "/tr/v1/pub/app.js", &[], "").status, 405);
    let head = ask(&server, "HEAD", "localhost", "/tr/v1/pub/app.js", &[], "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    stored(&server);
    let rows =
        site.query("select distinct origin, url, etyp from events where url like '%file.txt'");
    assert_eq!(
        rows,
        [json!({"origin": "client", "etyp": "file",
        "url": "https://localhost/tr/v1/pub/b/file.txt"})]
    );
    server.stop();
}

#[test]
fn nothing_hidden_and_nothing_outside_the_folder_is_served() {
    let site = site_with_files();
    let server = open(&site);
    let fetch = |path: &str, headers: &[(&str, &str)]| fetch(&server, path, headers);
    for path in [
        "/",
        "/b",
        "/b/",
        "/missing.txt",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/env.txt",
        "/link.txt",
        "/up/secret.txt",
        "/up/config.json",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/a/..%2f..%2fsecret.txt",
        "/a/../../secret.txt",
        "/..%5csecret.txt",
        "/%00",
        "/b/file.txt/",
        "//etc/passwd",
        "/a//..//../secret.txt",
    ] {
        let answer = fetch(path, &[]);
        let is_answered = matches!(answer.status, 400 | 404 | 307);
        assert!(is_answered && !text(&answer).contains("SECRET"), "{path} {}", answer.status);
        if answer.status == 307 {
            assert_eq!(path, "/b");
        }
    }
    server.stop();
}

#[test]
fn the_built_in_pages_use_nothing_from_elsewhere() {
    let site = Site::new(PROGRAM, json!({}));
    let server = open(&site);
    for page in
        ["track_url.html", "shorten_url.html", "track_url.js", "shorten_url.js", "links.css"]
    {
        let answer = get(&server, "localhost", &format!("/tr/v1/pub/{page}"));
        assert_eq!(answer.status, 200, "{page}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
        let found = text(&answer);
        let elsewhere = found.replace("https://example.com/", "").replace("\"https://\"", "");
        for part in
            ["http://", "//cdn", "innerHTML", "document.cookie", "<script>", " on", "style="]
        {
            let is_word = part == " on";
            assert!(is_word || !elsewhere.contains(part), "{page} has {part}");
        }
        assert!(found.len() > 500, "{page}");
        let again = ask(
            &server,
            "GET",
            "localhost",
            &format!("/tr/v1/pub/{page}"),
            &[("If-None-Match", answer.header("etag").unwrap())],
            "",
        );
        assert_eq!((again.status, again.body.len()), (304, 0), "{page}");
    }
    assert_eq!(get(&server, "localhost", "/tr/v1/pub/").status, 404);
    assert_eq!(get(&server, "localhost", "/tr/v1/pub/other.html").status, 404);
    server.stop();
}

//! Pages in a real browser: what they send across sites arrives as one visitor, and what the browser
//! keeps from a page of an origin that is not listed.
//!
//! `.ci/services install` gets the browser and the driver of `tests/browser/visit.mjs`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what fails here should fail the run with its reason"
)]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{PATIENCE, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");

/// The driver; `None` where it or the browser is not installed and need not be.
fn driver() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let driver = cache.or_else(home)?.join("tracker/playwright-core");
    let runs = |program| Command::new(program).arg("--version").output().is_ok();
    if driver.exists() && runs("node") && runs("chromium") {
        return Some(driver);
    }
    assert!(std::env::var_os("CI").is_none(), "there is no browser; run .ci/services install");
    eprintln!("not tested: pages in a browser; run .ci/services install");
    None
}

/// A site's own web server: an empty page at every path. It lives as long as the test.
fn pages() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |mut stream: TcpStream| {
        let page = "<!doctype html><title>shop</title>";
        let mut request = [0; 4096];
        if stream.read(&mut request).is_ok_and(|read| read > 0) {
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{page}",
                page.len()
            );
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One each, because browsers open connections before they need them.
            thread::spawn(move || answer(stream));
        }
    });
    address
}

/// A browser that is on a page.
struct Visit {
    browser: Child,
    /// What the page was told, and the cookies of the profile.
    said: Value,
}

impl Visit {
    /// Starts a browser with the profile kept in `site` and lets `page` send its events.
    fn start(driver: &Path, site: &Site, page: &str, tracker: &str, visit: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/visit.mjs");
        let mut browser = Command::new("timeout")
            .args(["120", "node", script])
            .arg(driver)
            .arg(site.path().join("profile"))
            .args([page, tracker, visit])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(browser.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = serde_json::from_str(&line).expect("what the page was told");
        Self { browser, said }
    }

    /// The visitor cookie.
    fn cookie(&self) -> Option<&Value> {
        let cookies = self.said["cookies"].as_array().unwrap();
        cookies.iter().find(|cookie| cookie["name"] == "vid")
    }

    /// Closes the browser, which then writes its cookies down.
    fn end(mut self) {
        drop(self.browser.stdin.take());
        assert!(self.browser.wait().unwrap().success());
    }
}

/// Browsers keep cookies across sites only for people who allow it, and this one asks to be told.
fn allow_cookies_across_sites(site: &Site) {
    let folder = site.path().join("profile/Default");
    std::fs::create_dir_all(&folder).unwrap();
    let wish = json!({"profile": {"cookie_controls_mode": 0, "block_third_party_cookies": false}});
    std::fs::write(folder.join("Preferences"), wish.to_string()).unwrap();
}

/// Waits until there are `count` rows and says what the events of all visits are.
fn rows(site: &Site, count: u64) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    while site.number("select count(*) as n from events") < count {
        assert!(Instant::now() < deadline, "there are never {count} rows");
        thread::sleep(Duration::from_millis(50));
    }
    site.query(
        "select etyp as visit, ename, vid::text as vid, is_new, origin from events \
         order by visit, ename = 'socket', ename = 'beacon'",
    )
}

/// Two visits of `page` with one profile; what the cookie is like.
fn two_visits_are_one_visitor(driver: &Path, site: &Site, page: &str, tracker: &str) -> Value {
    let row = |visit: &str, ename: &str, vid: &Value, is_new: bool| json!({"visit": visit, "ename": ename, "vid": vid, "is_new": is_new, "origin": "client"});
    let mut expect = Vec::new();
    let mut cookie = Value::Null;
    for visit in ["first", "second"] {
        let page = Visit::start(driver, site, page, tracker, visit);
        let told = ["post", "beacon", "socket"].map(|name| page.said[name].clone());
        assert_eq!(told, [json!("durable"), json!(true), json!({"ack": 1})], "{}", page.said);
        cookie = page.cookie().expect("a cookie").clone();
        let vid = cookie["value"].clone();
        expect.push(row(visit, "post", &vid, visit == "first"));
        expect.push(row(visit, "beacon", &vid, false));
        expect.push(row(visit, "socket", &vid, false));
        assert_eq!(rows(site, expect.len() as u64), expect);
        page.end();
    }
    assert!(expect.iter().all(|row| row["vid"] == cookie["value"]), "one visitor: {expect:?}");
    cookie
}

#[test]
fn a_page_of_another_site_sends_as_one_visitor_who_is_known_when_the_browser_comes_back() {
    let Some(driver) = driver() else { return };
    let page = format!("http://www.shop.example:{}", pages().port());
    let site = Site::new(
        PROGRAM,
        json!({"ListenHTTPS": "127.0.0.1:0", "UseLocalTLS": true, "AllowOrigins": [page]}),
    );
    allow_cookies_across_sites(&site);
    let server = site.start();
    let tracker = format!("https://t.tracker.example:{}", server.https.unwrap().port());
    let cookie = two_visits_are_one_visitor(&driver, &site, &page, &tracker);
    assert_eq!(cookie["domain"], ".tracker.example");
    let flags = ["secure", "httpOnly", "sameSite"].map(|name| cookie[name].clone());
    assert_eq!(flags, [json!(true), json!(true), json!("None")]);
    server.stop();
}

#[test]
fn a_page_of_the_same_site_needs_no_cookie_that_crosses_sites() {
    let Some(driver) = driver() else { return };
    let page = format!("http://www.tracker.example:{}", pages().port());
    let site = Site::new(PROGRAM, json!({"AllowOrigins": [page]}));
    let server = site.start();
    let tracker = format!("http://t.tracker.example:{}", server.address.port());
    let cookie = two_visits_are_one_visitor(&driver, &site, &page, &tracker);
    let flags = ["secure", "httpOnly", "sameSite"].map(|name| cookie[name].clone());
    assert_eq!(flags, [json!(false), json!(true), json!("Lax")]);
    server.stop();
}

#[test]
fn a_page_of_an_origin_that_is_not_listed_can_post_nothing_and_gets_no_cookie() {
    let Some(driver) = driver() else { return };
    let port = pages().port();
    let site = Site::new(
        PROGRAM,
        json!({
            "ListenHTTPS": "127.0.0.1:0",
            "UseLocalTLS": true,
            "AllowOrigins": [format!("http://www.shop.example:{port}")],
        }),
    );
    allow_cookies_across_sites(&site);
    let server = site.start();
    let tracker = format!("https://t.tracker.example:{}", server.https.unwrap().port());
    let page = format!("http://www.other.example:{port}");
    let visit = Visit::start(&driver, &site, &page, &tracker, "first");
    assert_eq!(visit.said, json!({"post": "TypeError", "cookies": []}));
    visit.end();
    server.stop();
    assert_eq!(site.number("select count(*) as n from events"), 0);
}

//! ClickHouse as the store that answers: links, accounts, agreements, queries and the commands, through
//! the program as built, against a real server; and the ways to it: several addresses, TLS, secrets.
#![expect(
    clippy::expect_used,
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/clickhouse.rs"]
mod clickhouse;
#[path = "support/relay.rs"]
mod relay;
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clickhouse::{ClickHouse, READER};
use relay::{Fault, Relay};
use serde_json::{Value, json};
use support::{Answer, Client, PATIENCE, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const PASSWORD: &str = "correct horse battery";
/// `user` and that password.
const BASIC: &str = "Basic bWFya2V0aW5nOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ==";
const VISITOR: &str = "14fb0860-b4bf-11e9-8971-7b80435315ac";

/// A site whose only store is `entry`, with its tables made.
fn site(entry: &Value) -> Site {
    let site = Site::new(PROGRAM, json!({"Notify": [entry]}));
    command(&site, &["migrate"], "").expect("the tables");
    site
}

/// What a command prints.
fn command(site: &Site, args: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(PROGRAM)
        .args(args)
        .arg("--config")
        .arg(site.path().join("config.json"))
        .env("CH_PASSWORD", clickhouse::USER.1)
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

fn add_account(site: &Site) {
    let args = ["account", "add", "marketing", "--password-stdin"];
    command(site, &args, &format!("{PASSWORD}\n")).expect("an account");
}

/// One request on a connection of its own.
fn once(server: &Server, method: &str, host: &str, path: &str, head: &str, body: &str) -> Answer {
    let mut client = Client::connect(server.address).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{head}");
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    client.send(request.as_bytes()).unwrap();
    client.answer(method).unwrap()
}

/// As a patient client: on a busy machine the store may not answer in time.
fn ask(server: &Server, method: &str, host: &str, path: &str, head: &str, body: &str) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = once(server, method, host, path, head, body);
        if answer.status != 503 || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", text(answer)))
}

/// Makes a link; its status.
fn create(server: &Server, from: &str, to: &str) -> u16 {
    let head = format!("Authorization: {BASIC}\r\n");
    let link = json!({"urlfrom": from, "urlto": to, "org": "Örg's"}).to_string();
    ask(server, "POST", "localhost", "/tr/v1/rpi/redirect", &head, &link).status
}

/// Every change of the links of `host`.
fn list(server: &Server, host: &str) -> (u16, Value) {
    let head = format!("Authorization: {BASIC}\r\n");
    let answer =
        ask(server, "GET", "localhost", &format!("/tr/v1/rpi/redirects/{host}"), &head, "");
    (answer.status, body(&answer)["results"].clone())
}

/// Where a visit is sent, or its status.
fn visit(server: &Server, host: &str, path: &str) -> Result<String, u16> {
    let answer = ask(server, "GET", host, path, "User-Agent: Mozilla/5.0\r\n", "");
    let location = answer.header("location").map(str::to_owned);
    location.filter(|_| answer.status == 302).ok_or(answer.status)
}

#[test]
fn links_and_accounts_work_with_clickhouse_alone() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let site = site(&clickhouse.entry("store_links"));
    // Without a server the store is asked directly.
    add_account(&site);
    assert!(command(&site, &["account", "remove", "nobody"], "").is_err());
    let server = site.start();
    assert_eq!(create(&server, "go.example/a", "https://one.example/x?y=1"), 200);
    assert_eq!(visit(&server, "go.example", "/A").unwrap(), "https://one.example/x?y=1");
    server.drained();
    assert_eq!(create(&server, "go.example/a", "https://two.example/"), 200);
    assert_eq!(visit(&server, "go.example", "/a").unwrap(), "https://two.example/");
    server.drained();
    server.stop();

    // What the first process knew is gone: this is the store's answer.
    let server = site.start();
    assert_eq!(visit(&server, "go.example", "/a").unwrap(), "https://two.example/");
    assert_eq!(visit(&server, "localhost", "/a").unwrap(), "https://two.example/");
    assert_eq!(visit(&server, "go.example", "/b"), Err(404));
    assert_eq!(visit(&server, "other.example", "/a"), Err(404));
    let (status, links) = list(&server, "go.example");
    assert_eq!(status, 200);
    let targets: Vec<&Value> = links.as_array().unwrap().iter().map(|l| &l["urlto"]).collect();
    assert_eq!(targets, ["https://two.example/", "https://one.example/x?y=1"]);
    let first = &links[1];
    assert_eq!((&first["searchto"], &first["org"]), (&json!("y=1"), &json!("Örg's")));
    assert_eq!((&first["oid"], &links[0]["searchto"]), (&Value::Null, &Value::Null));
    let updated_at = first["updated_at"].as_str().unwrap();
    assert!(updated_at.len() == 24 && updated_at.ends_with('Z'), "{updated_at}");

    // Changes of accounts count at once, through the running server.
    command(&site, &["account", "remove", "marketing"], "").unwrap();
    assert_eq!(list(&server, "go.example").0, 401);
    assert!(command(&site, &["account", "remove", "marketing"], "").is_err());
    add_account(&site);
    assert_eq!(list(&server, "go.example").0, 200);
    // One that is there keeps its password, with a server and without.
    let again = || command(&site, &["account", "add", "marketing"], "").unwrap_err();
    assert!(again().contains("--replace"));
    assert_eq!(list(&server, "go.example").0, 200);
    server.stop();
    assert!(again().contains("--replace"));
    let server = site.start();
    assert_eq!(list(&server, "go.example").0, 200);
    command(&site, &["account", "add", "marketing", "--replace"], "").unwrap();
    assert_eq!(list(&server, "go.example").0, 401);
    server.stop();
}

#[test]
fn what_other_programs_keep_in_an_account_survives_another_password() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let site = site(&clickhouse.entry("store_accounts"));
    add_account(&site);
    // As if a clock had been wrong: the next change must still be the latest.
    clickhouse.query(
        "insert into store_accounts.accounts select * replace ('note' as msg, \
         '{\"k\":1}' as creds, now64(3) + interval 1 year as updated_at) \
         from store_accounts.accounts final",
    );
    command(&site, &["account", "add", "marketing", "--replace", "--days", "7"], "").unwrap();
    let accounts = "store_accounts.accounts final";
    let row = clickhouse.query(&format!(
        "select msg, creds.k as k, expires > now() + interval 6 day as ends, \
         updated_at > now() + interval 360 day as later, count() over () as n from {accounts}"
    ));
    assert_eq!(row, [json!({"msg": "note", "k": 1, "ends": 1, "later": 1, "n": 1})]);
    command(&site, &["account", "remove", "marketing"], "").unwrap();
    let row = clickhouse.query(&format!("select pwd, msg, toString(creds) as c from {accounts}"));
    assert_eq!(row, [json!({"pwd": "", "msg": "", "c": "{}"})]);
}

/// The answer to `tracker query`, or its words of refusal.
fn query(site: &Site, sql: &str) -> Result<Vec<Value>, String> {
    let told = command(site, &["query", "--format", "ndjson", sql], "")?;
    Ok(told.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn a_query_reads_and_can_do_nothing_else() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let mut entry = clickhouse.entry("store_query");
    entry["QueryMaxRows"] = json!(5);
    entry["QueryTimeout"] = json!("2s");
    let site = site(&entry);
    let server = site.start();
    let event = json!({"ename": "seen", "vid": VISITOR, "params_note": "x",
        "score": 2.5, "created_at": "2020-02-03T04:05:06.789Z"});
    let told = once(&server, "POST", "localhost", "/tr/v1/tr/", "", &event.to_string());
    assert_eq!(told.status, 200, "{}", text(&told));
    server.drained();
    let check = || {
        for table in ["events", "store_query.events"] {
            let rows = query(
                &site,
                &format!("select ename, vid, oid, score, created_at, params from {table} final"),
            );
            let expect = json!({"ename": "seen", "vid": VISITOR,
                "oid": "00000000-0000-0000-0000-000000000000", "score": 2.5,
                "created_at": "2020-02-03T04:05:06.789Z", "params": {"params_note": "x"}});
            assert_eq!(rows.unwrap(), [expect], "{table}");
        }
        for (sql, words) in [
            ("insert into updates values ('a', now(), 'x')", "only a query that reads"),
            ("kill query where 1", "only a query that reads"),
            ("with 1 as x insert into updates select 'a', now(), 'x'", ""),
            ("select * from file('/etc/passwd', 'LineAsString')", "readonly mode"),
            ("select * from url('http://127.0.0.1:1/', 'LineAsString')", "readonly mode"),
            ("select 1 settings max_execution_time = 100", "Cannot modify 'max_execution_time'"),
            ("select 1 settings readonly = 0", "Cannot modify 'readonly'"),
            ("select 1; select 2", "Multi-statements are not allowed"),
            ("select nonsense", "UNKNOWN_IDENTIFIER"),
            ("select 1 format CSV", "leave FORMAT out"),
            ("select sleepEachRow(1) from numbers(9) settings max_block_size = 1", ""),
            ("select count() from numbers(100000000000)", "longer than 2s"),
        ] {
            let refused = query(&site, sql).expect_err(sql);
            assert!(refused.contains(words), "{sql}: {refused}");
        }
        let many = query(&site, "select number from numbers(100000)").unwrap();
        assert_eq!(many.len(), 5);
        assert_eq!(many[4], json!({"number": 4}));
        assert_eq!(query(&site, "show databases like 'store_query'").unwrap().len(), 1);
        assert_eq!(clickhouse.number("select count() from store_query.updates"), 0);
    };
    check();
    server.stop();
    // The same without a server.
    check();

    // A user who may change no setting at all can still ask.
    (entry["Username"], entry["Password"]) = (json!(READER.0), json!(READER.1));
    site.reconfigure(json!({"Notify": [entry]}));
    let row = query(&site, "select ename, created_at from events").unwrap();
    assert_eq!(row, [json!({"ename": "seen", "created_at": "2020-02-03T04:05:06.789Z"})]);
    assert_eq!(query(&site, "select number from numbers(100000)").unwrap().len(), 5);
    let refused = query(&site, "with 1 as x insert into updates select 'a', now(), 'x'");
    refused.expect_err("a user who may only read");
    let slow = query(&site, "select count() from numbers(100000000000)").expect_err("too long");
    assert!(slow.contains("longer than 2s"), "{slow}");
}

/// `POST ppi/agree` for `VISITOR`, then what `GET` shows at once: the flags, newest first.
fn agree(server: &Server, flags: u32) {
    let body = json!({"vid": VISITOR, "cflags": flags, "app": "shop"}).to_string();
    let told = once(server, "POST", "localhost", "/tr/v1/ppi/agree", "", &body);
    assert_eq!(told.status, 200, "{}", text(&told));
}

fn agreed(server: &Server) -> Vec<Value> {
    let cookie = format!("Cookie: vid={VISITOR}\r\n");
    let answer = ask(server, "GET", "localhost", "/tr/v1/ppi/agree", &cookie, "");
    assert_eq!(answer.status, 200, "{}", text(&answer));
    body(&answer).as_array().unwrap().clone()
}

fn flags(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["cflags"].as_u64().unwrap()).collect()
}

/// What was agreed to shows at once, whatever the store has; and has the same form in every store.
fn agreements_show_at_once(notify: &Value) -> Vec<Value> {
    let site = Site::new(PROGRAM, json!({"Notify": notify}));
    let server = site.start();
    assert_eq!(flags(&agreed(&server)), [0; 0]);
    agree(&server, 1);
    assert_eq!(flags(&agreed(&server)), [1]);
    agree(&server, 2);
    assert_eq!(flags(&agreed(&server)), [2, 1]);
    let before = agreed(&server);
    server.kill();
    // What the killed process had not delivered is read from the journal.
    let server = site.start();
    assert_eq!(agreed(&server), before);
    server.drained();
    agree(&server, 4);
    assert_eq!(flags(&agreed(&server)), [4, 2, 1]);
    server.drained();
    server.stop();
    let server = site.start();
    server.drained();
    let stored = agreed(&server);
    assert_eq!(flags(&stored), [4, 2, 1]);
    assert_eq!(stored[1..], before);
    server.stop();
    stored
}

#[test]
fn an_agreement_shows_at_once_and_in_the_same_form_in_every_store() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let one = agreements_show_at_once(&json!([{"Type": "duckdb", "MaxBatchTime": "100ms"}]));
    let other = agreements_show_at_once(&json!([clickhouse.entry("store_agreements")]));
    // Made of the moment, or with the key of an installation.
    let unique = ["created_at", "updated_at", "hhash", "iphash"];
    for (one, other) in one.iter().zip(&other) {
        for (name, value) in one.as_object().unwrap() {
            if unique.contains(&name.as_str()) {
                assert_eq!(other[name].to_string().len(), value.to_string().len(), "{name}");
            } else {
                assert_eq!(&other[name], value, "{name}");
            }
        }
    }
}

#[test]
fn regulations_of_the_store_stand_over_the_shipped_ones() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let site = site(&clickhouse.entry("store_regulations"));
    for rules in [r#"{"name": "old"}"#, r#"{"name": "Ours", "consent": "opt_in"}"#] {
        clickhouse.query(&format!(
            "insert into store_regulations.jurisdictions select 'ZZ', 'own', 1, '{rules}', \
             '{{\"countries\": [\"CH\"]}}', now64(3) + interval {} second",
            rules.len()
        ));
    }
    let server = site.start();
    let answer = ask(&server, "GET", "localhost", "/tr/v1/ppi/jds?country=CH", "", "");
    let rows = body(&answer);
    let own: Vec<&Value> =
        rows.as_array().unwrap().iter().filter(|row| row["regulation"] == "ZZ").collect();
    assert_eq!(own.len(), 1, "{rows}");
    assert_eq!(own[0]["rules"], json!({"name": "Ours", "consent": "opt_in"}));
    assert_eq!(own[0]["locs"], json!({"countries": ["CH"]}));
    server.stop();
}

#[test]
fn while_the_first_store_is_away_the_next_one_answers() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let relay = Relay::start(clickhouse.address);
    let entry = clickhouse::entry(relay.address, "store_fallback");
    let site = site(&entry);
    site.reconfigure(json!({"Notify": [entry, {"Type": "duckdb", "MaxBatchTime": "100ms"}]}));
    add_account(&site);
    let server = site.start();
    for path in ["a", "b"] {
        let from = format!("go.example/{path}");
        assert_eq!(create(&server, &from, "https://one.example/"), 200);
    }
    agree(&server, 1);
    server.drained();
    server.stop();
    let server = site.start();
    server.drained();
    for silence in [false, true] {
        if silence {
            relay.arm("POST", Fault::Silence, usize::MAX);
        } else {
            relay.refuse();
        }
        let path = if silence { "/a" } else { "/b" };
        assert_eq!(visit(&server, "go.example", path).unwrap(), "https://one.example/");
        assert_eq!(flags(&agreed(&server)), [1]);
        // What only the first can say is not said by another.
        assert_eq!(once(&server, "GET", "go.example", "/none", "", "").status, 503);
        let head = format!("Authorization: {BASIC}\r\n");
        let listed = once(&server, "GET", "x", "/tr/v1/rpi/redirects/go.example", &head, "");
        assert_eq!(listed.status, 503, "an account is the first store's to know");
        relay.heal();
    }
    assert_eq!(list(&server, "go.example").0, 200);
    assert_eq!(visit(&server, "go.example", "/none"), Err(404));
    server.stop();
}

#[test]
fn an_imported_log_is_compared_with_what_clickhouse_has() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let site = site(&clickhouse.entry("store_import"));
    let server = site.start();
    let log = site.path().join("access.log");
    let line = |path: &str, agent: &str| {
        format!(
            "198.51.100.7 - - [17/May/2015:10:05:03 +0000] \"GET {path} HTTP/1.1\" 200 7 \
             \"-\" \"{agent}\"\n"
        )
    };
    std::fs::write(&log, line("/a?x=1", "Mozilla/5.0 (X11)") + &line("/b", "-")).unwrap();
    let url = format!("http://{}", server.address);
    let args =
        ["import", "--verify", "--url", &url, "--host", "shop.example", log.to_str().unwrap()];
    let told = command(&site, &args, "").expect("a comparison without differences");
    assert!(told.contains("times"), "{told}");
    server.stop();
}

#[test]
fn refused_rows_are_put_back_from_clickhouse_once() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let site = site(&clickhouse.entry("store_replay"));
    let events = "store_replay.events";
    clickhouse.query(&format!("alter table {events} add constraint c check ename != 'bad'"));
    let server = site.start();
    for name in ["good", "bad", "fine"] {
        let event = json!({"ename": name, "vid": VISITOR}).to_string();
        assert_eq!(once(&server, "POST", "localhost", "/tr/v1/tr/", "", &event).status, 200);
    }
    server.drained();
    assert_eq!(clickhouse.number(&format!("select count() from {events}")), 2);
    clickhouse.query(&format!("alter table {events} drop constraint c"));
    let replayed = |site: &Site| -> Value {
        let told = command(site, &["replay"], "").expect("a replay");
        serde_json::from_str(told.trim()).unwrap()
    };
    assert_eq!(replayed(&site), json!({"appended": 1, "undecodable": 0}));
    server.drained();
    assert_eq!(clickhouse.number(&format!("select countIf(ename = 'bad') from {events}")), 1);
    assert_eq!(clickhouse.number(&format!("select count() from {events}")), 3);
    assert_eq!(replayed(&site), json!({"appended": 0, "undecodable": 0}));
    server.stop();
}

/// An entry with these addresses instead of its own.
fn with_hosts(mut entry: Value, hosts: &[String]) -> Value {
    for key in ["Host", "HTTPPort"] {
        entry.as_object_mut().unwrap().remove(key);
    }
    entry["Hosts"] = json!(hosts);
    entry
}

#[test]
fn of_several_addresses_one_may_go_and_come_back() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let relays = [Relay::start(clickhouse.address), Relay::start(clickhouse.address)];
    let hosts: Vec<String> = relays.iter().map(|relay| relay.address.to_string()).collect();
    let site = site(&with_hosts(clickhouse.entry("store_addresses"), &hosts));
    add_account(&site);
    let server = site.start();
    assert_eq!(create(&server, "go.example/a", "https://one.example/"), 200);
    server.drained();
    // Each path is a question of its own, since no path is asked for twice.
    let mut paths = 0..;
    let mut ask_some = |times: usize| {
        for _ in 0..times {
            let path = format!("/none{}", paths.next().unwrap());
            let asked = Instant::now();
            let answer = once(&server, "GET", "go.example", &path, "", "");
            assert_eq!(answer.status, 404, "{path} after {:?}", asked.elapsed());
        }
    };
    let passed = || relays.each_ref().map(Relay::passed);
    let before = passed();
    ask_some(10);
    let after = passed();
    for at in 0..2 {
        assert!(after[at] - before[at] >= 4, "asked in turn: {before:?} {after:?}");
    }
    // One that ends every connection, and one that takes all and says nothing.
    relays[0].refuse();
    ask_some(10);
    relays[0].heal();
    relays[0].arm("POST", Fault::Silence, usize::MAX);
    ask_some(5);
    relays[0].heal();
    // It rests for a moment after its last failure, and then takes its turns again.
    let before = passed()[0];
    let deadline = Instant::now() + PATIENCE;
    while passed()[0] == before {
        assert!(Instant::now() < deadline, "it is never asked again");
        ask_some(1);
        std::thread::sleep(Duration::from_millis(50));
    }
    // The same with the other, so that each has once been the only one.
    relays[1].refuse();
    ask_some(10);
    relays[1].heal();
    server.stop();
}

/// What stands in front of a server: TLS that asks for a certificate of the caller.
struct TlsProxy {
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl TlsProxy {
    /// In front of `upstream`, with an authority of its own for both sides; `ca.pem`, `cert.pem` and
    /// `key.pem` in the folder are the caller's.
    fn start(upstream: std::net::SocketAddr) -> Self {
        use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
        let folder = tempfile::tempdir().unwrap();
        let mut of_ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        of_ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca = of_ca.self_signed(&ca_key).unwrap();
        let issue = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &ca, &ca_key).unwrap(), key)
        };
        let (client, client_key) = issue("tracker");
        for (name, text) in [
            ("ca.pem", ca.pem()),
            ("cert.pem", client.pem()),
            ("key.pem", client_key.serialize_pem()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            std::sync::Arc::new(roots),
            std::sync::Arc::clone(&provider),
        );
        let (server, server_key) = issue("localhost");
        let server_key = PrivatePkcs8KeyDer::from(server_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![server.der().clone()], PrivateKeyDer::Pkcs8(server_key))
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut inside = acceptor.accept(stream).await?;
                    let mut server = tokio::net::TcpStream::connect(upstream).await?;
                    tokio::io::copy_bidirectional(&mut inside, &mut server).await
                });
            }
        });
        Self { address, folder, _runtime: runtime }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

#[test]
fn tls_shows_our_certificate_and_believes_only_whom_it_is_told_to() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let (proxy, stranger) =
        (TlsProxy::start(clickhouse.address), TlsProxy::start(clickhouse.address));
    let entry = json!({
        "Type": "clickhouse", "Host": format!("https://localhost:{}", proxy.address.port()),
        "Database": "store_tls", "Username": clickhouse::USER.0, "Password": "${CH_PASSWORD}",
        "CACert": proxy.file("ca.pem"), "Cert": proxy.file("cert.pem"),
        "Key": proxy.file("key.pem"), "Timeout": "2s",
    });
    let site = site(&entry);
    site.reconfigure(json!({"LogFilter": "trace"}));
    let host = query(&site, "select getServerPort('http_port') > 0 as is_there");
    assert_eq!(host.unwrap(), [json!({"is_there": 1})]);
    let told = command(&site, &["doctor"], "").unwrap_or_else(|told| told);
    assert!(!told.contains(clickhouse::USER.1), "{told}");

    // The server's log, at its most talkative, does not have the secret.
    let mut child = Command::new(PROGRAM)
        .arg(site.path().join("config.json"))
        .env("CH_PASSWORD", clickhouse::USER.1)
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(site.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let socket = site.path().join("data/tracker.sock");
    let deadline = Instant::now() + PATIENCE;
    while !socket.exists() {
        assert!(Instant::now() < deadline, "the server does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(query(&site, "select 1 as one").unwrap(), [json!({"one": 1})]);
    child.kill().unwrap();
    child.wait().unwrap();
    let log = std::fs::read_to_string(site.path().join("log")).unwrap();
    assert!(log.contains("TRACE") && log.contains("hyper"), "{log}");
    assert!(!log.contains(clickhouse::USER.1), "{log}");

    let refused = |change: Value| {
        let mut entry = entry.clone();
        for (key, value) in change.as_object().unwrap() {
            entry[key] = value.clone();
        }
        site.reconfigure(json!({"Notify": [entry]}));
        let words = query(&site, "select 1").expect_err("a refusal");
        assert!(!words.contains(clickhouse::USER.1), "{words}");
        words
    };
    // An authority that is not the server's; none of ours; no certificate; a stranger's.
    let words = refused(json!({"CACert": stranger.file("ca.pem")}));
    assert!(words.contains("certificate"), "{words}");
    let words = refused(json!({"CACert": ""}));
    assert!(words.contains("certificate"), "{words}");
    refused(json!({"Cert": "", "Key": ""}));
    refused(json!({"Cert": stranger.file("cert.pem"), "Key": stranger.file("key.pem")}));
    // A name that the certificate does not have.
    let words = refused(json!({"Host": format!("https://127.0.0.1:{}", proxy.address.port())}));
    assert!(words.contains("certificate"), "{words}");
    // Another password.
    let words = refused(json!({"Password": "not the secret"}));
    assert!(words.contains("Authentication failed"), "{words}");

    // What the configuration names is looked at before anything is started.
    site.reconfigure(json!({"Notify": [entry]}));
    command(&site, &["check"], "").expect("all is there");
    std::fs::write(proxy.folder.path().join("key.pem"), "nothing").unwrap();
    let words = command(&site, &["check"], "").expect_err("a broken key");
    assert!(words.contains("key.pem holds no private key"), "{words}");
}

#[test]
fn the_doctor_says_which_clickhouse_answers() {
    let Some(clickhouse) = ClickHouse::shared() else { return };
    let relay = Relay::start(clickhouse.address);
    let mut entry = clickhouse.entry("store_doctor");
    entry["Timeout"] = json!("500ms");
    let hosts = [clickhouse.address.to_string(), relay.address.to_string()];
    let entry = with_hosts(entry, &hosts);
    let site = Site::new(PROGRAM, json!({"Notify": [entry]}));
    let about = |address: &str| -> Vec<(String, String)> {
        let args = ["doctor", "--json", "--config"];
        let config = site.path().join("config.json");
        let output = Command::new(PROGRAM).args(args).arg(config).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let found = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let word = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        found
            .filter(|finding| finding["topic"] == "clickhouse")
            .filter(|finding| word(finding, "what").contains(address))
            .map(|finding| (word(&finding, "level"), word(&finding, "what")))
            .collect()
    };
    let found = about(&hosts[0]);
    assert_eq!(found[0].0, "warning", "{found:?}");
    assert!(found[0].1.contains("version 26.") && found[0].1.contains("lacks events"), "{found:?}");
    command(&site, &["migrate"], "").unwrap();
    relay.refuse();
    let found = about(&hosts[0]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "ok", "{found:?}");
    let found = about(&hosts[1]);
    assert_eq!(found[0].0, "failure", "{found:?}");
    assert!(found[0].1.contains("does not answer"), "{found:?}");
}

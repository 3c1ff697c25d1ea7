//! Whole files in, settings or errors out.

use std::time::Duration;

use serde_json::json;

use super::*;

const SHIPPED: &str = include_str!("../../config.json");
const GO: &str = include_str!("../../tests/data/go-config.json");

fn parse(value: &Value) -> Result<Loaded, Vec<String>> {
    parse_text(&value.to_string())
}

fn parse_text(text: &str) -> Result<Loaded, Vec<String>> {
    Config::parse(text, Path::new("/etc/tracker"), &BTreeMap::new())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn errors(value: &Value) -> Vec<String> {
    parse(value).expect_err("refused")
}

fn notes(value: &Value) -> Vec<String> {
    parse(value).expect("accepted").notes
}

fn duckdb(loaded: &Loaded) -> &DuckDbConfig {
    let [BackendConfig::DuckDb(duckdb)] = loaded.config.backends.as_slice() else {
        panic!("one embedded store")
    };
    duckdb
}

#[test]
fn an_empty_file_is_the_documented_default() {
    let loaded = parse(&json!({})).unwrap();
    assert_eq!(loaded.notes, [""; 0]);
    let Config { server, intake, journal, .. } = &loaded.config;
    assert_eq!(server.listen_http.unwrap().to_string(), "127.0.0.1:8080");
    assert_eq!(server.listen_https.unwrap().to_string(), "127.0.0.1:8443");
    assert_eq!(server.http, HttpConfig::default());
    assert_eq!(server.tls, TlsConfig::Generated { directory: "/etc/tracker/./data/tls".into() });
    assert_eq!(*intake, IntakeConfig::new("/etc/tracker/./data/keys".into()));
    assert_eq!(*journal, JournalConfig::new("/etc/tracker/./data/journal".into()));
    assert_eq!(duckdb(&loaded).path, Path::new("/etc/tracker/data/tracker.duckdb"));
    assert_eq!(duckdb(&loaded).limits, LimitsByTable::documented());
}

#[test]
fn the_shipped_file_says_nothing_but_the_defaults_and_its_domain() {
    let loaded = parse_text(SHIPPED).unwrap();
    let mut standard = parse(&json!({})).unwrap();
    let localhost = vec!["localhost".to_owned()];
    standard.config.intake.domains.clone_from(&localhost);
    standard.config.links.domains.clone_from(&localhost);
    standard.config.links.redirect_hosts = localhost;
    assert_eq!(loaded, standard);
}

#[test]
fn every_mistake_is_named_at_once_with_its_place() {
    let found = errors(&json!({
        "ListenHTTP": "8080",
        "MaxBodyByte": 1,
        "MaximumConnections": 5,
        "Durability": "tape",
        "ConnectionTimeout": "fast",
        "AllowOrigins": ["https://a.example/path"],
        "TrustedProxies": ["cloudfare"],
        "UrlFilter": "(",
        "TLSCert": "a.pem",
        "Notify": [{"Type": "duckdb", "MaxBatchSiz": 5, "Host": "x",
                    "Tables": {"event": {}, "events": {"Strategy": "fast"}}},
                   {"Type": "cassandra"}, {"Type": "mysql"}],
    }));
    let paths: Vec<&str> = found.iter().map(|e| e.split(": ").next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "ListenHTTP",
            "TLSKey",
            "ConnectionTimeout",
            "AllowOrigins",
            "TrustedProxies",
            "UrlFilter",
            "Durability",
            "Notify[0].Tables.events.Strategy",
            "Notify[0].Tables.event",
            "Notify[0].MaxBatchSiz",
            "Notify[0].Host",
            "Notify[1].Type",
            "Notify[2].Type",
            "MaxBodyByte",
            "MaximumConnections",
        ]
    );
    let has = |line: &str| assert!(found.iter().any(|error| error == line), "{line}\n{found:#?}");
    has("MaxBodyByte: unknown key; did you mean MaxBodyBytes?");
    has("MaximumConnections: unknown key; it is called MaxConnections here");
    has("Durability: expected one of disk, os, memory");
    has("Notify[0].MaxBatchSiz: unknown key; did you mean MaxBatchSize?");
    has("Notify[0].Tables.event: unknown key; did you mean events?");
    has(
        "Notify[1].Type: cassandra is not in this version yet; set \"Skip\": true in this entry to \
         go on without it",
    );
}

#[test]
fn documented_forms_of_numbers_durations_and_sizes_are_read() {
    let loaded = parse(&json!({
        "ConnectionTimeout": 30, "PixelWait": 5, "MaxBodyBytes": "4MiB", "JournalSegmentBytes": 2_097_152,
        "JournalMaxBytes": "1GiB", "JournalKeep": "2h", "MaxConnections": 10, "ListenHTTP": ":9000",
        "ListenHTTPS": "[::1]:9443", "StopDeadline": "10s",
    }))
    .unwrap();
    let Config { server, journal, .. } = loaded.config;
    assert_eq!(server.http.timeout.as_secs(), 30);
    assert_eq!(server.http.pixel_wait.as_millis(), 5);
    assert_eq!(server.http.body_bytes_max, 4 << 20);
    assert_eq!(server.http.connections_max, 10);
    assert_eq!(server.listen_http.unwrap().to_string(), "0.0.0.0:9000");
    assert_eq!(server.listen_https.unwrap().to_string(), "[::1]:9443");
    assert_eq!(server.stop_deadline.as_secs(), 10);
    assert_eq!((journal.segment_bytes, journal.disk_bytes_max), (2 << 20, 1 << 30));
    assert_eq!(journal.keep.as_secs(), 7_200);
}

#[test]
fn an_empty_address_switches_a_listener_off_but_not_both() {
    assert_eq!(parse(&json!({"ListenHTTP": ""})).unwrap().config.server.listen_http, None);
    assert_eq!(parse(&json!({"ListenHTTPS": ""})).unwrap().config.server.listen_https, None);
    assert_eq!(errors(&json!({"ListenHTTP": "", "ListenHTTPS": ""})).len(), 1);
    assert_eq!(errors(&json!({"ListenHTTP": ":8443", "ListenHTTPS": ":8443"})).len(), 1);
}

#[test]
fn origins_are_exact_and_a_star_stands_alone() {
    let origins = |value: Value| parse(&value).unwrap().config.server.http.allow_origins;
    assert_eq!(origins(json!({"AllowOrigin": "https://a.example"})), ["https://a.example"]);
    assert_eq!(origins(json!({"AllowOrigin": "*"})), ["*"]);
    for wrong in ["https://a.example/", "a.example", "https://*.a.example", "null", "ftp://a"] {
        assert_eq!(errors(&json!({"AllowOrigins": [wrong]})).len(), 1, "{wrong}");
    }
    assert_eq!(errors(&json!({"AllowOrigins": ["*", "https://a.example"]})).len(), 1);
    assert_eq!(errors(&json!({"AllowOrigins": [], "AllowOrigin": "https://a.example"})).len(), 1);
}

#[test]
fn proxies_are_networks_addresses_or_presets() {
    let proxies =
        json!({"TrustedProxies": ["loopback", "private", "cloudflare", "10.1.2.3/8", "::1"]});
    assert_eq!(
        parse(&proxies).unwrap().config.server.http.trusted_proxies,
        [
            TrustedProxy::Loopback,
            TrustedProxy::Private,
            TrustedProxy::Cloudflare,
            TrustedProxy::Net("10.0.0.0/8".parse().unwrap()),
            TrustedProxy::Net("::1/128".parse().unwrap()),
        ]
    );
}

#[test]
fn secrets_come_from_the_environment() {
    let env = BTreeMap::from([("SALT".to_owned(), "pepper".to_owned())]);
    let text = r#"{"PrefixPrivateHash": "${SALT}"}"#;
    let loaded = Config::parse(text, Path::new("."), &env).unwrap();
    assert_eq!(loaded.config.intake.prefix_private_hash, "pepper");
    let missing = parse_text(text).unwrap_err();
    assert_eq!(missing, ["PrefixPrivateHash: the environment variable SALT is not set"]);
}

#[test]
fn a_later_feature_is_named_when_it_is_asked_for_and_only_then() {
    let asked = notes(&json!({
        "S3Bucket": "b", "S3Region": "r", "Database": "mine",
    }));
    assert_eq!(asked.len(), 3, "{asked:#?}");
    assert!(asked[0].starts_with("Database is for ClickHouse"), "{asked:#?}");
    let later = |note: &String| note.starts_with("not in this version yet: ");
    assert!(asked[1..].iter().all(later), "{asked:#?}");
    let silent = notes(&json!({
        "LetsEncryptDomains": [], "PruneOldData": false, "ProxyUrl": "",
        "Database": "sfpla",
    }));
    assert_eq!(silent, [""; 0]);
    assert_eq!(errors(&json!({"S3Bucket": 7})).len(), 1);
}

#[test]
fn rules_of_pruning_are_read_as_the_go_tracker_has_them() {
    let rules = |line: Value| {
        let file = json!({"Notify": [{"Type": "clickhouse", "Prune": [line]}]});
        Ok(parse(&file)?.config.backends[0].prune_rules().to_vec())
    };
    let sample = json!({"Table": "events", "TTL": 2_592_000, "PageSize": 10_000,
        "CFlagsIgnore": [1024, 4], "ClearAll": false, "ClearParams": true,
        "ClearNumericParams": true,
        "Fields": [{"Id": "ip", "Type": "inet", "Default": null, "DestParamHash": "iphash"}]});
    let expect = PruneRule {
        table: "events".into(),
        age_max: Duration::from_secs(2_592_000),
        spared_flags: 1028,
        action: PruneAction::Blank(PruneBlank {
            fields: vec![PruneField { column: "ip".into(), hash: Some("iphash".into()) }],
            texts: true,
            numbers: true,
        }),
    };
    assert_eq!(rules(sample), Ok::<_, Vec<String>>(vec![expect]));
    let all = rules(json!({"Table": "logs", "TTL": 1, "ClearAll": true}));
    assert_eq!(all.unwrap()[0].action, PruneAction::Delete);
    for (line, place) in [
        (json!({"TTL": 1, "ClearAll": true}), "Notify[0].Prune[0].Table:"),
        (json!({"Table": "a'b", "TTL": 1, "ClearAll": true}), "Notify[0].Prune[0].Table:"),
        (json!({"Table": "logs", "ClearAll": true}), "Notify[0].Prune[0].TTL:"),
        (json!({"Table": "logs", "TTL": 1}), "Notify[0].Prune[0]:"),
        (
            json!({"Table": "logs", "TTL": 1, "ClearParams": true, "CFlagsIgnore": ["4"]}),
            "Notify[0].Prune[0].CFlagsIgnore:",
        ),
        (json!({"Table": "logs", "TTL": 1, "Fields": [{}]}), "Notify[0].Prune[0].Fields[0].Id:"),
    ] {
        let errors: Vec<String> = rules(line.clone()).unwrap_err();
        assert!(errors.len() <= 2 && errors[0].starts_with(place), "{line}: {errors:?}");
    }
}

#[test]
fn old_data_goes_only_when_both_keys_say_so() {
    let prune = |file: Value| parse(&file).unwrap().config.prune;
    assert_eq!(prune(json!({})), PruneConfig::default());
    assert_eq!(prune(json!({"DataRetentionDays": 30})), PruneConfig::default());
    assert_eq!(notes(&json!({"DataRetentionDays": 30})).len(), 1);
    assert_eq!(errors(&json!({"PruneOldData": true})).len(), 1);
    let both = json!({"DataRetentionDays": 30, "PruneOldData": true, "PruneLogsTTL": 60,
        "PruneLimit": 5, "PruneSkipToTimestamp": 1_700_000_000, "PruneLogsPageSize": 10_000,
        "Notify": [{"Type": "clickhouse"}]});
    let loaded = parse(&both).unwrap();
    let expect = PruneConfig {
        retention_days: Some(30),
        logs_age_max: Some(Duration::from_secs(60)),
        logs_only: false,
        rows_max: Some(5),
        skip_before: chrono::DateTime::from_timestamp(1_700_000_000, 0),
    };
    assert_eq!(loaded.config.prune, expect);
    assert_eq!(loaded.notes, [""; 0]);
    let [BackendConfig::ClickHouse(store)] = &loaded.config.backends[..] else { unreachable!() };
    assert_eq!(store.retention_days, Some(30));
    assert_eq!(prune(json!({"PruneLogsSkip": true})).logs_age_max, None);
    assert_eq!(errors(&json!({"PruneLogsSkip": true, "PruneLogsOnly": true})).len(), 1);
    assert_eq!(errors(&json!({"PruneLimit": "many"})).len(), 1);
}

#[test]
fn limits_are_off_until_they_are_set() {
    let limits = |file: &Value| parse(file).unwrap().config.server.http.limits;
    assert_eq!(limits(&json!({})), LimitsConfig::default());
    assert_eq!(limits(&json!({"RateLimitPerDay": 0})), LimitsConfig::default());
    let set = json!({
        "RateLimitPerDay": 10_000, "RateLimitPerSecond": 20, "RateLimitKeyPerSecond": 500,
        "RateLimitBurst": 40, "RateLimitDryRun": true, "RateLimitAddresses": 1_000,
    });
    let expect = LimitsConfig {
        address_per_day: 10_000,
        address_per_second: 20,
        key_per_second: 500,
        burst: Some(40),
        dry_run: true,
        addresses_max: 1_000,
    };
    assert_eq!(limits(&set), expect);
    assert_eq!(errors(&json!({"RateLimitPerDay": "many", "RateLimitBurst": 0})).len(), 2);
    let go = json!({"ProxyPort": "", "ProxyExceptHTTP": ":8880", "ProxyDailyLimit": 7});
    assert_eq!(limits(&go).address_per_day, 7);
}

#[test]
fn a_websocket_has_bounds_of_its_own() {
    let websocket = |file: &Value| parse(file).unwrap().config.server.http.websocket;
    assert_eq!(websocket(&json!({})), WebSocketConfig::default());
    let set = json!({
        "WebSocketFrameBytes": "64KiB", "WebSocketFramesPerSecond": 0,
        "WebSocketEventsPerSecond": 5, "WebSocketIdle": 10,
    });
    let expect = WebSocketConfig {
        frame_bytes_max: 64 << 10,
        frames_per_second: 0,
        events_per_second: 5,
        idle: Duration::from_secs(10),
    };
    assert_eq!(websocket(&set), expect);
    assert_eq!(errors(&json!({"WebSocketIdle": "1ms", "WebSocketFrameBytes": 1})).len(), 2);
}

#[test]
fn the_documentations_examples_are_read_or_say_what_is_missing() {
    let security = json!({
        "UseLocalTLS": true, "LetsEncryptDomains": ["yourdomain.com"], "RateLimitPerDay": 10000,
        "MaxConnections": 10, "ConnectionTimeout": 30,
    });
    let loaded = parse(&security).unwrap();
    assert_eq!(loaded.notes.len(), 0, "{:?}", loaded.notes);
    assert_eq!(loaded.config.server.acme.unwrap().domains, ["yourdomain.com"]);
    let privacy = json!({
        "GeoIPDatabase": ".setup/geoip/IP2LOCATION.BIN", "AnonymizeIP": true,
        "DataRetentionDays": 365, "PruneOldData": true,
    });
    let loaded = parse(&privacy).unwrap();
    assert_eq!(loaded.config.intake.geo_ip_database, None);
    assert!(loaded.notes[0].contains("CSV"), "{:?}", loaded.notes);
    let stores = |skip: bool| {
        json!({"Notify": [
            {"Type": "clickhouse", "Host": "localhost", "Port": 9000, "BatchingEnabled": true,
             "MaxBatchSize": 1000, "MaxBatchTime": "2s", "Skip": skip},
            {"Type": "cassandra", "Hosts": ["localhost:9042"], "Keyspace": "tracker", "Skip": skip},
        ]})
    };
    // Cassandra, which is to come; ClickHouse is read.
    assert_eq!(errors(&stores(false)).len(), 1);
    let loaded = parse(&stores(true)).unwrap();
    assert_eq!(duckdb(&loaded).name, "duckdb");
    assert_eq!(loaded.notes.len(), 3, "{:?}", loaded.notes);
}

#[test]
fn numbers_of_an_entry_change_what_waits_and_leave_what_does_not() {
    let limits = |entry: Value| {
        let mut entry = entry;
        entry["Type"] = "duckdb".into();
        duckdb(&parse(&json!({"Notify": [entry]})).unwrap()).limits.clone()
    };
    let documented = LimitsByTable::documented();

    let larger = limits(json!({"MaxBatchSize": 5000, "MaxBatchTime": "500ms"}));
    let events = larger.of("events");
    assert_eq!((events.limits.rows, events.limits.age.as_millis()), (5_000, 500));
    assert_eq!(events.limits.bytes, documented.of("events").limits.bytes);
    assert_eq!(larger.of("payments"), documented.of("payments"));
    assert_eq!(larger.of("quarantine").limits.rows, 5_000);

    let at_once = limits(json!({"BatchingEnabled": false, "MaxBatchSize": 5000}));
    assert_eq!(at_once.of("events").limits, Limits::of(Strategy::Immediate, 1, 1, Duration::ZERO));

    let by_memory = limits(json!({"Strategy": "memory", "MaxMemoryMB": 4}));
    let memory = by_memory.of("events").limits;
    assert_eq!((memory.rows, memory.bytes, memory.age), (usize::MAX, 4 << 20, Duration::MAX));

    let one = limits(json!({"Tables": {"payments": {"Strategy": "hybrid", "RetryAttempts": 9,
        "Priority": 2, "RetryBackoffMs": 250}}}));
    let payments = one.of("payments");
    assert_eq!(payments.limits, documented.of("events").limits);
    assert_eq!((payments.retry_attempts, payments.priority), (9, 2));
    assert_eq!(payments.retry_backoff.as_millis(), 250);
    assert_eq!(one.of("events"), documented.of("events"));
}

#[test]
fn a_file_that_is_not_json_says_where() {
    let found = parse_text("{\n  \"A\": 1,\n}").unwrap_err();
    assert!(found[0].contains("line 3"), "{found:?}");
    assert_eq!(parse_text("[]").unwrap_err(), ["expected one JSON object"]);
    let missing = Config::load(Path::new("/nowhere/config.json"), &BTreeMap::new()).unwrap_err();
    assert!(
        missing.to_string().starts_with("/nowhere/config.json: 1 error\n  there is no such file")
    );
}

fn go() -> Value {
    serde_json::from_str(GO).unwrap()
}

#[test]
fn a_go_file_is_translated_and_each_difference_is_named() {
    let Loaded { config, notes } = parse(&go()).unwrap();
    let [BackendConfig::ClickHouse(clickhouse)] = config.backends.as_slice() else {
        panic!("one store: {:?}", config.backends)
    };
    assert_eq!(clickhouse.addresses, ["https://127.0.0.1:8443"]);
    assert!(clickhouse.critical);
    assert_eq!(config.server.listen_http.unwrap().to_string(), "0.0.0.0:8880");
    assert_eq!(config.server.listen_https.unwrap().to_string(), "0.0.0.0:8443");
    assert_eq!(config.server.http.connections_max, 150_000);
    assert_eq!(config.server.http.timeout.as_secs(), 20);
    assert_eq!(config.server.http.header_bytes_max, 1 << 20);
    assert_eq!(config.intake.ignore_query_params_key.as_deref(), Some("igqp"));
    assert_eq!(config.intake.url_filter_match_group, 6);
    assert_eq!(config.intake.cflags_marketing, 4_096);
    assert!(config.intake.remove_ip && config.intake.geo_ip);
    assert_eq!(config.log.filter, "info,tracker=debug");
    let certificate = "/etc/tracker/./.setup/keys/nginx.crt";
    assert!(
        matches!(&config.server.tls, TlsConfig::Files { cert, .. } if cert == Path::new(certificate))
    );
    assert_eq!(config.server.listen_redirect.unwrap().to_string(), "0.0.0.0:8080");
    assert_eq!(config.server.public_host.as_deref(), Some("tr.example.com:8443"));
    let [api] = config.server.http.proxies.as_slice() else { panic!("one proxy") };
    assert_eq!((api.path.as_str(), api.origin.as_str()), ("/api/", "http://localhost:3030"));
    assert!(api.url_filter.as_ref().is_some_and(|filter| filter.contains("dontlogthese")));
    let has = |line: &str| assert!(notes.iter().any(|note| note == line), "{line}\n{notes:#?}");
    has("ProxyPort is read as ListenRedirect");
    has("MaximumConnections is read as MaxConnections");
    has("ProxyExceptHTTP is read as ListenHTTP");
    has("SchemaVersion is ignored: each store keeps its own schema version");
    assert_eq!(config.links.default_redirect.as_deref(), Some("https://sfpl.io"));
    assert_eq!(config.links.redirect_hosts, ["localhost", "tr.example.com"]);
    assert_eq!(config.links.static_directory.as_deref(), Some(Path::new("/etc/tracker/public")));
}

#[test]
fn destinations_and_the_static_folder_are_read() {
    let links = |value: &Value| parse(value).unwrap().config.links;
    assert_eq!(links(&json!({})), LinksConfig::default());
    let read = links(&json!({
        "Domains": ["www.example.com"], "RedirectHosts": [".shop.example"],
        "DefaultRedirect": "https://www.example.com/", "StaticDirectory": "public",
        "AllowPrivateTargets": true,
    }));
    assert_eq!(read.redirect_hosts, [".shop.example"]);
    assert_eq!(read.domains, ["www.example.com"]);
    assert!(read.private_targets);
    let none = links(&json!({"Domains": ["www.example.com"], "RedirectHosts": []}));
    assert_eq!(none.redirect_hosts, [""; 0]);
    for (wrong, expect) in [
        (json!({"DefaultRedirect": "/home"}), "DefaultRedirect: expected an address"),
        (json!({"DefaultRedirect": "javascript:x"}), "DefaultRedirect: expected an address"),
        (json!({"RedirectHosts": ["https://a.example"]}), "RedirectHosts: \"https://a.example\""),
        (json!({"StaticDirectory": "."}), "StaticDirectory: would publish the configuration"),
        (json!({"StaticDirectory": "/"}), "StaticDirectory: would publish the configuration"),
        (json!({"StaticDirectory": "data/keys"}), "StaticDirectory: is inside the data folder"),
    ] {
        let errors = errors(&wrong);
        assert!(errors.len() == 1 && errors[0].starts_with(expect), "{wrong}: {errors:?}");
    }
}

#[test]
fn a_go_file_without_a_boolean_keeps_the_meaning_it_had_there() {
    let loaded =
        parse(&json!({"ProxyPort": ":8080", "ProxyExceptHTTP": ":http", "maximumconnections": 0}))
            .unwrap();
    assert!(!loaded.config.intake.geo_ip && !loaded.config.intake.region_descriptions);
    assert_eq!(loaded.config.server.listen_http.unwrap().to_string(), "0.0.0.0:80");
    assert_eq!(loaded.config.server.listen_https, None);
    assert_eq!(loaded.config.server.http.connections_max, 10_000);
}

#[test]
fn a_mistake_in_a_go_file_is_named_as_it_stands_there() {
    let mut go = go();
    go["MaximumConnections"] = "many".into();
    assert_eq!(
        errors(&go),
        ["MaximumConnections (read as MaxConnections): expected a whole number that is not \
          negative, found a text"]
    );
}

/// Every key of the Go tracker's file, at the top and in an entry, with a value that does something.
const GO_KEYS: &str = "AccountHashMixer AllowOrigin ApiVersion CFlagsIgnore CFlagsMarketing Consume \
    Debug DefaultRedirect Domains GeoIPVersion HealthCheckInterval IPv4GeoIPCSVDest \
    IPv6GeoIPCSVDest IPv4GeoIPZip IPv6GeoIPZip IdleTimeoutSeconds IgnoreInsecureTLS \
    IgnoreProxyOptions IgnoreQueryParamsKey InactivityTimeoutSeconds MaxHeaderBytes \
    MaxShardSizeBytes MaximumConnections Notify PrefixPrivateHash ProxyDailyLimit \
    ProxyDailyLimitChecker ProxyExceptHTTP ProxyForceJson ProxyPort ProxyPortTLS \
    ProxyPortRedirect ProxyUrl ProxyUrlFilter PruneLimit PruneLogsOnly PruneLogsSkip \
    PruneLogsPageSize PruneLogsTTL PruneSkipToTimestamp PruneUpdateConfig \
    ReadHeaderTimeoutSeconds ReadTimeoutSeconds WriteTimeoutSeconds S3Bucket S3Prefix S3Region \
    S3AccessKeyID S3SecretAccessKey SchemaVersion StaticDirectory TLSCert TLSKey TempDirectory \
    UrlFilter UrlFilterMatchGroup UseGeoIP UseLocalTLS UseRegionDescriptions UseRemoveIP";
const GO_ENTRY_KEYS: &str = "Service Hosts Context Username Password Key Cert CACert Secure \
    Unencrypted Critical Skip Timeout Connections Retries AttemptAll Filter Prune \
    ProxyRealtimeStorageServiceName ProxyRealtimeStorageServiceTables Format MessageLimit \
    ByteLimit Consumer Ephemeral Note BatchingEnabled MaxBatchSize BatchFlushInterval \
    EnableCompression";

/// A value of the type that the key has there.
fn some_value(key: &str) -> Value {
    match key {
        "Consume" | "Notify" => json!([]),
        "Domains" | "Hosts" | "Filter" | "Prune" => json!(["a.example"]),
        "AllowOrigin" => json!("https://a.example"),
        "ProxyExceptHTTP" | "ProxyPort" | "ProxyPortTLS" => json!(":8123"),
        "UrlFilter" => json!("(a)"),
        "UrlFilterMatchGroup" => json!(0),
        "BatchingEnabled" => json!(false),
        _ if key.starts_with("Use")
            || key.starts_with("Ignore") && key != "IgnoreQueryParamsKey" =>
        {
            json!(true)
        }
        "CFlagsIgnore" | "Debug" | "ProxyForceJson" | "PruneLogsOnly" | "PruneLogsSkip"
        | "PruneUpdateConfig" | "Secure" | "Unencrypted" | "Critical" | "Skip" | "AttemptAll"
        | "Ephemeral" | "EnableCompression" => json!(true),
        "ApiVersion"
        | "CFlagsMarketing"
        | "GeoIPVersion"
        | "HealthCheckInterval"
        | "MaximumConnections"
        | "ProxyDailyLimit"
        | "SchemaVersion"
        | "MaxBatchSize" => json!(7),
        "MaxHeaderBytes" => json!(65_536),
        _ if key.ends_with("Seconds")
            || key.starts_with("Prune")
            || key.starts_with("MaxShard") =>
        {
            json!(7)
        }
        "Timeout" | "Connections" | "Retries" | "MessageLimit" | "ByteLimit" => json!(7),
        "ProxyRealtimeStorageServiceTables" => json!(u64::MAX),
        _ => json!("text"),
    }
}

#[test]
fn every_key_of_the_go_tracker_is_honoured_or_named_as_ignored_with_a_reason() {
    let object = |value: Value| match value {
        Value::Object(object) => object,
        _ => unreachable!(),
    };
    for key in GO_KEYS.split_whitespace() {
        let translated = legacy::translate(&object(json!({key: some_value(key)})));
        let notes = translated.notes();
        let taken = translated.file.get(key) == Some(&some_value(key))
            || notes.iter().any(|note| note.starts_with(&format!("{key} is read as ")));
        let ignored = notes.iter().any(|note| {
            note.strip_prefix(&format!("{key} is ignored: "))
                .is_some_and(|reason| reason.len() > 10 && !reason.contains("does not know it"))
        });
        assert!(taken != ignored, "{key} taken {taken} ignored {ignored}");
    }
    for key in GO_ENTRY_KEYS.split_whitespace().skip(1) {
        let entry = json!({"Notify": [{"Service": "clickhouse", key: some_value(key)}]});
        let translated = legacy::translate(&object(entry));
        let taken = translated.file["Notify"][0].get(key) == Some(&some_value(key));
        let prefix = format!("Notify[0].{key} is ignored: ");
        let ignored = translated.notes().iter().any(|note| {
            note.strip_prefix(&prefix).is_some_and(|reason| !reason.contains("does not know it"))
        });
        assert!(taken != ignored, "{key} taken {taken} ignored {ignored}");
    }
}

#[test]
fn a_go_key_with_a_typing_mistake_is_named_with_the_nearest() {
    let notes = notes(&json!({"ProxyPort": "", "ProxyExceptHTTP": ":1", "MaximumConection": 5}));
    let line = "MaximumConection is ignored: the Go tracker does not know it; did you mean \
                MaximumConnections?";
    assert!(notes.iter().any(|note| note == line), "{notes:#?}");
}

#[test]
fn a_go_file_that_cannot_be_served_still_says_what_became_of_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let text = r#"{"ProxyPort": ":80", "PruneLogsSkip": 0, "Domains": ["a.example"],
        "Notify": [{"Service": "no_such_store", "Hosts": ["127.0.0.1"]}]}"#;
    std::fs::write(&path, text).unwrap();
    let failed = Config::load(&path, &BTreeMap::new()).unwrap_err().to_string();
    assert!(failed.contains("Notify[0].Service"), "{failed}");
    for note in ["taken over as they are: PruneLogsSkip, Domains", "ProxyPort is ignored"] {
        assert!(failed.contains(note), "{note} in {failed}");
    }
}

#[test]
fn one_mistake_is_one_error_and_paths_have_no_dots_in_them() {
    let errors = parse_text(r#"{"ListenHTTP": "${NOT_SET}"}"#).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let config = parse_text(r#"{"DataDirectory": "./x/./y"}"#).unwrap().config;
    assert!(config.server.data_directory.ends_with("x/y"), "{:?}", config.server.data_directory);
    let config = Config::parse("{}", Path::new("."), &BTreeMap::new()).unwrap().config;
    assert_eq!(config.server.data_directory, Path::new("data"));
}

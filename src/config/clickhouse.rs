//! Settings of ClickHouse: where it answers, as whom, and how long it may take.
//!
//! The tracker speaks HTTP. The documentation's `Port` is the port of the native protocol, so the two
//! well-known ones of that are read as their neighbours for HTTP, with a note.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::section::{Bare, Section};
use super::{ClientTlsConfig, LimitsByTable, PruneRule, Secret, certificates};

/// Port of HTTP, and of HTTP over TLS.
const PORTS: (u16, u16) = (8123, 8443);
/// Ports of the native protocol, plain and over TLS.
const NATIVE_PORTS: (u16, u16) = (9000, 9440);
/// More addresses than any cluster has replicas worth naming.
const ADDRESSES_MAX: usize = 64;

/// The primary store of larger installations.
#[derive(Debug, Clone, PartialEq)]
pub struct ClickHouseConfig {
    /// Its name in metrics and `/health`. Default `clickhouse`.
    pub name: String,
    /// `Host`, `Hosts`, `Port`, `HTTPPort`: URLs of the servers, which hold the same data; at least
    /// one. Default `http://localhost:8123`.
    pub addresses: Vec<String>,
    /// `Database`, or `Context` or `Keyspace` as other files call it. Default `sfpla`.
    pub database: String,
    /// `Username`. Default `default`.
    pub username: String,
    /// `Password`. Default none.
    pub password: Option<Secret>,
    /// `CACert`, `Cert`, `Key`.
    pub tls: ClientTlsConfig,
    /// `Cluster`: name of the cluster on which the schema is made; `None` = one server.
    pub cluster: Option<String>,
    /// `Timeout`: to connect, and for each small question. Default 5 s.
    pub question_time_max: Duration,
    /// `InsertTimeout`: for one batch, until its answer. Default 60 s.
    pub insert_time_max: Duration,
    /// `Critical`: no connection at start ends the start with an error.
    pub critical: bool,
    /// `QueryTimeout`: longest query through `tracker query`. Default 30 s.
    pub query_time_max: Duration,
    /// `QueryMaxRows`. Default 100,000.
    pub query_rows_max: usize,
    /// `DataRetentionDays` of the whole file, when `PruneOldData` is on: the server itself drops
    /// older rows.
    pub retention_days: Option<u32>,
    /// `Prune`: what becomes of old rows.
    pub prune: Vec<PruneRule>,
    /// When lanes are due.
    pub limits: LimitsByTable,
}

/// The keys of an entry beside those of batching and those that every store has.
pub(super) const KEYS: [&str; 6] =
    ["Connections", "Retries", "AttemptAll", "Unencrypted", "Filter", "Consumer"];

/// Reads an entry; `name`, `critical`, the bounds of queries and the limits are read by the caller.
pub(super) fn read(
    entry: &mut Section<'_>,
    folder: &Path,
    outgoing: &ClientTlsConfig,
    database: Option<&str>,
) -> ClickHouseConfig {
    // What other files hold and HTTP has no use for: connections are made as needed.
    entry.accept(&KEYS);
    let names = [entry.filled("Database"), entry.filled("Context"), entry.filled("Keyspace")];
    let name = names.into_iter().flatten().next();
    let name = name.as_deref().or(database).unwrap_or("sfpla").to_owned();
    if !is_identifier(&name) {
        entry.error("Database", format!("{name:?}: expected letters, digits and \"_\""));
    }
    let cluster = entry.filled("Cluster");
    if cluster.as_deref().is_some_and(|cluster| !is_cluster(cluster)) {
        entry.error("Cluster", "expected letters, digits, \"_\", \"-\" and \".\"");
    }
    let addresses = addresses(entry);
    ClickHouseConfig {
        name: String::new(),
        addresses,
        database: name,
        username: entry.filled("Username").unwrap_or_else(|| "default".to_owned()),
        password: entry.filled("Password").map(Secret::new),
        tls: certificates::of_entry(entry, folder, outgoing),
        cluster,
        question_time_max: time(entry, "Timeout", Bare::Milliseconds, 100, 60_000)
            .unwrap_or(Duration::from_secs(5)),
        // Below the time after which delivery gives an attempt up by itself.
        insert_time_max: time(entry, "InsertTimeout", Bare::Seconds, 500, 110_000)
            .unwrap_or(Duration::from_secs(60)),
        critical: false,
        query_time_max: Duration::from_secs(30),
        query_rows_max: 100_000,
        retention_days: None,
        prune: Vec::new(),
        limits: LimitsByTable::documented(),
    }
}

fn time(
    entry: &mut Section<'_>,
    key: &'static str,
    bare: Bare,
    least_ms: u64,
    most_ms: u64,
) -> Option<Duration> {
    let range: RangeInclusive<Duration> =
        Duration::from_millis(least_ms)..=Duration::from_millis(most_ms);
    entry.duration(key, bare, range)
}

fn addresses(entry: &mut Section<'_>) -> Vec<String> {
    let port = |entry: &mut Section<'_>, key| {
        entry.number(key, 1..=65_535).and_then(|port| u16::try_from(port).ok())
    };
    let (written, http) = (port(entry, "Port"), port(entry, "HTTPPort"));
    let secure = entry.flag("Secure", matches!(http.or(written), Some(9440 | 8443)));
    let mut hosts = entry.list("Hosts").unwrap_or_default();
    let key = if hosts.is_empty() { "Host" } else { "Hosts" };
    match entry.filled("Host") {
        Some(_) if !hosts.is_empty() => {
            entry.error("Host", "stands beside Hosts; keep one of them");
        }
        Some(host) => hosts.push(host),
        None if hosts.is_empty() => hosts.push("localhost".to_owned()),
        None => {}
    }
    if hosts.len() > ADDRESSES_MAX {
        entry.error(key, format!("more than {ADDRESSES_MAX} addresses"));
    }
    let mut addresses = Vec::with_capacity(hosts.len());
    for host in hosts {
        match address(&host, written, http, secure) {
            Ok((address, native)) => {
                if let Some(native) = native {
                    entry.note(format!(
                        "{}: port {native} is the native protocol's; {address} is asked, by HTTP \
                         (HTTPPort names another)",
                        entry.path_of(key)
                    ));
                }
                if addresses.contains(&address) {
                    entry.error(key, format!("{address} stands there twice"));
                }
                addresses.push(address);
            }
            Err(message) => entry.error(key, format!("{host:?} {message}")),
        }
    }
    addresses
}

/// The URL of `host`, and the port of the native protocol it was written with.
fn address(
    host: &str,
    port: Option<u16>,
    http: Option<u16>,
    secure: bool,
) -> Result<(String, Option<u16>), &'static str> {
    const FORM: &str = "is not a host like \"ch.example.com\", \"10.0.0.1:8123\" or \
                        \"https://ch.example.com:8443\"";
    let with_scheme = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
    let url = url::Url::parse(&with_scheme).map_err(|_| FORM)?;
    let named = host.contains("://").then(|| url.scheme() == "https");
    let is_plain = matches!(url.scheme(), "http" | "https")
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let name = url.host_str().filter(|_| is_plain).ok_or(FORM)?;
    // `url` drops a port that is the scheme's own.
    let own = url.port().or_else(|| {
        let text = host.rsplit(':').next().unwrap_or("");
        text.trim_end_matches('/').parse().ok()
    });
    let written = own.or(port);
    let secure = named.unwrap_or(secure || own == Some(NATIVE_PORTS.1) && http.is_none());
    let standard = if secure { PORTS.1 } else { PORTS.0 };
    let (port, native) = match (http, written) {
        (Some(http), _) => (http, None),
        (None, Some(native)) if native == NATIVE_PORTS.0 => (PORTS.0, Some(native)),
        (None, Some(native)) if native == NATIVE_PORTS.1 => (PORTS.1, Some(native)),
        (None, Some(other)) => (other, None),
        (None, None) => (standard, None),
    };
    let scheme = if secure { "https" } else { "http" };
    Ok((format!("{scheme}://{name}:{port}"), native))
}

fn is_identifier(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

fn is_cluster(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.{}".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{BackendConfig, Config};

    fn read(entry: &Value) -> Result<(ClickHouseConfig, Vec<String>), Vec<String>> {
        let mut file = json!({"Notify": [{"Type": "clickhouse"}]});
        for (key, value) in entry.as_object().unwrap() {
            file["Notify"][0][key] = value.clone();
        }
        let env = BTreeMap::from([("CH_PASSWORD".to_owned(), "hush".to_owned())]);
        let loaded = Config::parse(&file.to_string(), Path::new("/etc/tracker"), &env)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        match loaded.config.backends.into_iter().next() {
            Some(BackendConfig::ClickHouse(config)) => Ok((config, loaded.notes)),
            other => panic!("{other:?}"),
        }
    }

    fn addresses_of(entry: &Value) -> Vec<String> {
        read(entry).unwrap().0.addresses
    }

    #[test]
    fn an_entry_needs_only_its_type() {
        let (config, notes) = read(&json!({})).unwrap();
        assert_eq!(config.name, "clickhouse");
        assert_eq!(config.addresses, ["http://localhost:8123"]);
        assert_eq!((config.database.as_str(), config.username.as_str()), ("sfpla", "default"));
        assert_eq!((config.password, config.cluster), (None, None));
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn the_native_ports_are_read_as_their_neighbours_and_said_so() {
        let (config, notes) = read(&json!({"Host": "localhost", "Port": 9000})).unwrap();
        assert_eq!(config.addresses, ["http://localhost:8123"]);
        assert!(notes[0].contains("port 9000 is the native protocol's"), "{notes:?}");
        let tls = json!({"Hosts": ["a.example:9440", "b.example"], "Secure": true});
        assert_eq!(addresses_of(&tls), ["https://a.example:8443", "https://b.example:8443"]);
        let own = json!({"Host": "localhost", "Port": 9000, "HTTPPort": 18_123});
        let (config, notes) = read(&own).unwrap();
        assert_eq!(config.addresses, ["http://localhost:18123"]);
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn an_address_may_say_its_scheme_and_port() {
        let hosts = json!({"Hosts": ["https://a.example", "http://b.example:80", "[::1]:8124"]});
        let expect = ["https://a.example:8443", "http://b.example:80", "http://[::1]:8124"];
        assert_eq!(addresses_of(&hosts), expect);
    }

    #[test]
    fn secrets_and_names_are_read() {
        let entry = json!({"Password": "${CH_PASSWORD}", "Username": "tracker", "Context": "mine",
            "Timeout": 1500, "InsertTimeout": "2s", "Cluster": "tracker_cluster"});
        let (config, _) = read(&entry).unwrap();
        assert_eq!(config.password.unwrap().reveal(), "hush");
        assert_eq!((config.username.as_str(), config.database.as_str()), ("tracker", "mine"));
        assert_eq!(config.question_time_max, Duration::from_millis(1500));
        assert_eq!(config.insert_time_max, Duration::from_secs(2));
        assert_eq!(config.cluster.as_deref(), Some("tracker_cluster"));
    }

    #[test]
    fn what_cannot_be_an_address_or_a_name_is_an_error() {
        for (entry, key) in [
            (json!({"Host": "http://a.example/path"}), "Host"),
            (json!({"Host": "user:word@a.example"}), "Host"),
            (json!({"Host": "ftp://a.example"}), "Host"),
            (json!({"Hosts": ["a.example", "a.example:8123"]}), "Hosts"),
            (json!({"Host": "a.example", "Hosts": ["b.example"]}), "Host"),
            (json!({"Database": "a-b"}), "Database"),
            (json!({"Cluster": "a b"}), "Cluster"),
            (json!({"Cert": "a.pem"}), "Key"),
        ] {
            let errors = read(&entry).unwrap_err();
            assert_eq!(errors.len(), 1, "{entry}: {errors:?}");
            assert!(errors[0].starts_with(&format!("Notify[0].{key}:")), "{entry}: {errors:?}");
        }
    }
}

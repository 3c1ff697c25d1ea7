//! Settings of the reverse proxy: which requests go to which server behind us, and how.

use std::path::Path;
use std::time::Duration;

use regex::Regex;
use url::Url;

use super::ClientTlsConfig;
use super::certificates;
use super::section::{Bare, Section};

/// Servers behind us; each has a pool and a line in `/health`.
const PROXIES_MAX: usize = 64;
/// Below this stand the tracker's own routes.
const OWN_PATH: &str = "/tr/";

/// One server behind us.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the file")]
pub struct ProxyConfig {
    /// `Name`: in metrics, `/health` and the log. Default host and path.
    pub name: String,
    /// `Host`: only requests for this host, lower case, without port. Default any.
    pub host: Option<String>,
    /// `Path`: only requests to or below this path; begins and ends with `/`. Default `/`.
    pub path: String,
    /// `Url`: scheme, host and port of the server; requests keep their own path and query.
    pub origin: String,
    /// `CACert`, `Cert`, `Key` for an https server.
    pub tls: ClientTlsConfig,
    /// `UrlFilter`: a request whose path does not match is tracked. Default none: nothing is.
    pub url_filter: Option<String>,
    /// `ForceJson`: the request's content type becomes `application/json`. Default false.
    pub forces_json: bool,
    /// `IgnoreOptions`: `OPTIONS` and CORS are the server's affair, not ours. Default false.
    pub leaves_cors: bool,
    /// `KeepHost`: the server sees the client's `Host`, not its own. Default true.
    pub keeps_host: bool,
    /// `MaxConnections`: requests and tunnels at one time; more wait, then get 503. Default 256.
    pub connections_max: usize,
    /// `MaxBodyBytes`: 0 means no bound. Default 0.
    pub body_bytes_max: u64,
    /// `ConnectTimeout`: until a connection stands, TLS included. Default 5 s.
    pub connect_time_max: Duration,
    /// `HeadTimeout`: from the last byte of the request to the head of the answer. Default 60 s.
    pub head_time_max: Duration,
    /// `IdleTimeout`: silence within an answer or a tunnel. Default 2 min.
    pub idle_time_max: Duration,
    /// `HealthPath`: asked every `health_interval`; an answer below 500 is well. Default none: the
    /// requests themselves tell.
    pub health_path: Option<String>,
    /// `ProxyUrl` only, as in the Go tracker: an answer over TLS tells browsers to stay with TLS.
    pub strict_transport: bool,
    /// `HealthInterval`. Default 10 s.
    pub health_interval: Duration,
}

impl ProxyConfig {
    /// Everything below `path` goes to `origin`, with the defaults.
    pub fn new(path: &str, origin: &str) -> Self {
        Self {
            name: path.to_owned(),
            host: None,
            path: path.to_owned(),
            origin: origin.to_owned(),
            tls: ClientTlsConfig::default(),
            url_filter: None,
            forces_json: false,
            leaves_cors: false,
            keeps_host: true,
            connections_max: 256,
            body_bytes_max: 0,
            connect_time_max: Duration::from_secs(5),
            head_time_max: Duration::from_secs(60),
            idle_time_max: Duration::from_secs(120),
            health_path: None,
            strict_transport: false,
            health_interval: Duration::from_secs(10),
        }
    }
}

/// `ProxyUrl` for `/api/`, and the entries of `Proxies`.
pub(super) fn read(
    file: &mut Section<'_>,
    folder: &Path,
    tls: &ClientTlsConfig,
) -> Vec<ProxyConfig> {
    let mut proxies = Vec::new();
    proxies.extend(api(file, tls));
    let entries = file.sections("Proxies");
    if entries.len() > PROXIES_MAX {
        file.error("Proxies", format!("more than {PROXIES_MAX} entries"));
    }
    for mut entry in entries {
        let proxy = one(&mut entry, folder, tls);
        if let Some(proxy) = &proxy {
            let same =
                |other: &&ProxyConfig| (&other.host, &other.path) == (&proxy.host, &proxy.path);
            if proxies.iter().any(|other| same(&other)) {
                entry.error("Path", "another entry already takes this host and path");
            }
            if proxies.iter().any(|other| other.name == proxy.name) {
                entry.error("Name", format!("{:?} is the name of another entry", proxy.name));
            }
        }
        proxies.extend(proxy);
        entry.finish(|_| None);
    }
    proxies
}

/// The Go tracker's own keys.
fn api(file: &mut Section<'_>, tls: &ClientTlsConfig) -> Option<ProxyConfig> {
    let url = file.filled("ProxyUrl");
    let url_filter = filter(file, "ProxyUrlFilter");
    let forces_json = file.flag("ProxyForceJson", false);
    let leaves_cors = file.flag("IgnoreProxyOptions", false);
    let (origin, path) = origin(file, "ProxyUrl", &url?)?;
    if path != "/" {
        file.note(format!("ProxyUrl: the path {path} is not used; requests keep their own"));
    }
    let standard = ProxyConfig::new("/api/", &origin);
    let tls = tls.clone();
    let strict_transport = true;
    Some(ProxyConfig { tls, url_filter, forces_json, leaves_cors, strict_transport, ..standard })
}

fn one(entry: &mut Section<'_>, folder: &Path, tls: &ClientTlsConfig) -> Option<ProxyConfig> {
    let second = Duration::from_secs(1);
    let hour = 3_600 * second;
    let time = |entry: &mut Section<'_>, key| {
        entry.duration(key, Bare::Seconds, Duration::from_millis(10)..=hour)
    };
    let (host, path) = (host(entry), path(entry));
    let url = entry.filled("Url");
    if url.is_none() {
        entry.error("Url", "is missing: the server behind, like \"http://127.0.0.1:3000\"");
    }
    let origin = url.and_then(|url| origin(entry, "Url", &url));
    if origin.as_ref().is_some_and(|(_, path)| path != "/") {
        entry.error("Url", "has a path; requests keep their own, so only scheme, host and port");
    }
    let standard = ProxyConfig::new(&path, origin.as_ref().map_or("", |(origin, _)| origin));
    let name = entry.filled("Name").unwrap_or_else(|| match &host {
        Some(host) => format!("{host}{path}"),
        None => path.clone(),
    });
    let health_path = entry.filled("HealthPath");
    if health_path.as_ref().is_some_and(|path| !path.starts_with('/')) {
        entry.error("HealthPath", "does not begin with /");
    }
    let proxy = ProxyConfig {
        name,
        host,
        url_filter: filter(entry, "UrlFilter"),
        forces_json: entry.flag("ForceJson", false),
        leaves_cors: entry.flag("IgnoreOptions", false),
        keeps_host: entry.flag("KeepHost", true),
        connections_max: entry
            .count("MaxConnections", 1..=65_536)
            .unwrap_or(standard.connections_max),
        body_bytes_max: entry.size("MaxBodyBytes", 0..=1 << 50).unwrap_or(standard.body_bytes_max),
        connect_time_max: time(entry, "ConnectTimeout").unwrap_or(standard.connect_time_max),
        head_time_max: time(entry, "HeadTimeout").unwrap_or(standard.head_time_max),
        idle_time_max: time(entry, "IdleTimeout").unwrap_or(standard.idle_time_max),
        health_path,
        health_interval: time(entry, "HealthInterval").unwrap_or(standard.health_interval),
        tls: certificates::of_entry(entry, folder, tls),
        ..standard
    };
    origin.map(|_| proxy)
}

fn host(entry: &mut Section<'_>) -> Option<String> {
    let host = entry.filled("Host")?.to_ascii_lowercase();
    if host.contains(['/', ' ', '*'])
        || host.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok())
    {
        entry.error("Host", "expected one host without port, like \"shop.example.com\"");
    }
    Some(host)
}

/// The prefix with a slash at both ends.
fn path(entry: &mut Section<'_>) -> String {
    let path = entry.filled("Path").unwrap_or_else(|| "/".to_owned());
    let path = if path.ends_with('/') { path } else { format!("{path}/") };
    let is_plain = path.bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~')
    });
    if !path.starts_with('/') || !is_plain || path.contains("//") || path.contains("/.") {
        entry.error("Path", "expected a path like \"/shop/\"");
    } else if path.starts_with(OWN_PATH) {
        entry.error("Path", "stands below the tracker's own routes, which are never passed on");
    }
    path
}

/// Scheme, host and port of `url`, and its path.
fn origin(section: &Section<'_>, key: &'static str, url: &str) -> Option<(String, String)> {
    let parsed = Url::parse(url).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let Some(parsed) = parsed else {
        // The address itself may hold a password, so it is not shown.
        section.error(
            key,
            "expected an address like \"http://127.0.0.1:3000\", without login or query",
        );
        return None;
    };
    Some((parsed.origin().ascii_serialization(), parsed.path().to_owned()))
}

/// An expression that was compiled once, so that it compiles again.
fn filter(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = section.filled(key)?;
    match Regex::new(&text) {
        Ok(_) => Some(text),
        Err(error) => {
            section.error(key, format!("not a regular expression: {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::Config;

    fn read(value: &Value) -> Result<Vec<ProxyConfig>, Vec<String>> {
        let env = BTreeMap::new();
        let loaded = Config::parse(&value.to_string(), Path::new("/etc/tracker"), &env);
        let words = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect();
        loaded.map(|loaded| loaded.config.server.http.proxies).map_err(words)
    }

    #[test]
    fn the_go_trackers_keys_are_one_entry_for_api() {
        let found =
            read(&json!({"ProxyUrl": "http://localhost:3030", "ProxyUrlFilter": ".*(css|js)",
            "ProxyForceJson": true, "IgnoreProxyOptions": true, "TLSCACert": "ca.pem"}));
        let standard = ProxyConfig::new("/api/", "http://localhost:3030");
        let tls = ClientTlsConfig { ca_cert: Some("/etc/tracker/ca.pem".into()), identity: None };
        let expect = ProxyConfig {
            url_filter: Some(".*(css|js)".into()),
            forces_json: true,
            leaves_cors: true,
            strict_transport: true,
            tls,
            ..standard
        };
        assert_eq!(found.unwrap(), [expect]);
        assert_eq!(read(&json!({"ProxyUrl": ""})).unwrap(), []);
    }

    #[test]
    fn every_key_of_an_entry_is_read() {
        let found = read(&json!({"Proxies": [{
            "Name": "shop", "Host": "Shop.example", "Path": "/v2", "Url": "https://10.0.0.7:8443",
            "CACert": "ca.pem", "Cert": "c.pem", "Key": "k.pem", "UrlFilter": "x", "ForceJson": true,
            "IgnoreOptions": true, "KeepHost": false, "MaxConnections": 9, "MaxBodyBytes": "1MiB",
            "ConnectTimeout": "1s", "HeadTimeout": 2, "IdleTimeout": "3s", "HealthPath": "/up",
            "HealthInterval": "4s",
        }]}));
        let seconds = Duration::from_secs;
        let file = |name: &str| PathBuf::from("/etc/tracker").join(name);
        let expect = ProxyConfig {
            name: "shop".into(),
            host: Some("shop.example".into()),
            path: "/v2/".into(),
            origin: "https://10.0.0.7:8443".into(),
            tls: ClientTlsConfig {
                ca_cert: Some(file("ca.pem")),
                identity: Some((file("c.pem"), file("k.pem"))),
            },
            url_filter: Some("x".into()),
            forces_json: true,
            leaves_cors: true,
            keeps_host: false,
            connections_max: 9,
            body_bytes_max: 1 << 20,
            connect_time_max: seconds(1),
            head_time_max: seconds(2),
            idle_time_max: seconds(3),
            health_path: Some("/up".into()),
            strict_transport: false,
            health_interval: seconds(4),
        };
        assert_eq!(found.unwrap(), [expect]);
        let plain = read(&json!({"Proxies": [{"Url": "http://127.0.0.1:3000"}]})).unwrap();
        assert_eq!(plain, [ProxyConfig::new("/", "http://127.0.0.1:3000")]);
    }

    #[test]
    fn a_mistake_of_an_entry_is_named_with_its_place() {
        let check = |entry: Value, expect: &str| {
            let errors = read(&json!({"Proxies": [entry]})).unwrap_err();
            let keys: Vec<&str> = errors.iter().filter_map(|e| e.split(": ").next()).collect();
            assert_eq!(keys, [format!("Proxies[0].{expect}")], "{errors:?}");
        };
        let url = "http://a.example";
        check(json!({}), "Url");
        check(json!({"Url": "a.example:80"}), "Url");
        check(json!({"Url": "ftp://a.example"}), "Url");
        check(json!({"Url": "http://user:pass@a.example"}), "Url");
        check(json!({"Url": "http://a.example/path"}), "Url");
        check(json!({"Url": url, "Path": "shop/"}), "Path");
        check(json!({"Url": url, "Path": "/a/../b/"}), "Path");
        check(json!({"Url": url, "Path": "/tr/v1/"}), "Path");
        check(json!({"Url": url, "Host": "a.example:80"}), "Host");
        check(json!({"Url": url, "Cert": "c.pem"}), "Key");
        check(json!({"Url": url, "UrlFilter": "("}), "UrlFilter");
        check(json!({"Url": url, "HealthPath": "up"}), "HealthPath");
        check(json!({"Url": url, "IdleTimeout": "2h"}), "IdleTimeout");
        check(json!({"Url": url, "Urls": url}), "Urls");
        let twice = read(&json!({"ProxyUrl": url, "Proxies": [{"Path": "/api", "Url": url}]}));
        assert_eq!(twice.unwrap_err().len(), 2);
        assert_eq!(read(&json!({"ProxyUrl": "nothing"})).unwrap_err().len(), 1);
    }
}

//! Our dialect of the configuration file: each key, its range and its default, read once.
//!
//! A key of a feature that this version lacks is accepted and named in a note; a key that another
//! dialect spells differently is refused with the name to write.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use regex::Regex;
use serde_json::{Map, Value};

use super::section::{Bare, Findings, Section, Shape};
use super::{
    AcmeConfig, BackendConfig, ClientTlsConfig, Config, DntPolicy, Durability, HashMode,
    HttpConfig, IntakeConfig, JournalConfig, LimitsConfig, LinksConfig, LogConfig, LogFormat,
    ServerConfig, TrustedProxy, WebSocketConfig, certificates, keys, notify, proxy, prune,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads the whole file. What is wrong stands in `findings` and is the default in the result.
pub(super) fn read(
    object: &Map<String, Value>,
    folder: &Path,
    findings: &RefCell<Findings>,
) -> Config {
    let mut file = Section::root(object, findings);
    let data_directory = below(folder, &file.filled("DataDirectory").unwrap_or("data".to_owned()));
    let outgoing = certificates::outgoing(&mut file, folder);
    let database = file.filled("Database");
    let server = server(&mut file, folder, &data_directory, &outgoing);
    let intake = intake(&mut file, folder, &data_directory);
    let prune = prune::read(&mut file);
    let config = Config {
        server,
        links: links(&mut file, folder, &data_directory, &intake.domains),
        intake,
        journal: journal(&mut file, &data_directory),
        backends: notify::read(
            &mut file,
            &notify::Around {
                folder,
                data_directory: &data_directory,
                outgoing: &outgoing,
                database: database.as_deref(),
                retention_days: prune.retention_days,
            },
        ),
        prune,
        log: log(&mut file),
    };
    if config.intake.event_bytes_max as u64 > config.journal.segment_bytes / 4 {
        file.error("MaxEventBytes", "is more than a quarter of JournalSegmentBytes");
    }
    // The embedded store's views stand in the schema `sfpla` whatever `Database` says.
    let embedded_only =
        config.backends.iter().all(|backend| matches!(backend, BackendConfig::DuckDb(_)));
    if embedded_only && database.is_some_and(|name| name != "sfpla") {
        file.note("Database is for ClickHouse: the embedded store's views are in sfpla");
    }
    later(&mut file);
    file.finish(renamed);
    config
}

/// A path of the file, which is relative to the file's folder, without `.` in it.
pub(super) fn below(folder: &Path, written: &str) -> PathBuf {
    let is_step = |part: &Component<'_>| *part != Component::CurDir;
    let parts = folder.components().chain(Path::new(written).components()).filter(is_step);
    // An absolute path begins anew, as joining does.
    let path = parts.fold(PathBuf::new(), |path, part| path.join(part));
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

fn server(
    file: &mut Section<'_>,
    folder: &Path,
    data_directory: &Path,
    outgoing: &ClientTlsConfig,
) -> ServerConfig {
    let listen_http = listen(file, "ListenHTTP", 8080);
    let wanted_https = listen(file, "ListenHTTPS", 8443);
    let local_tls = file.flag("UseLocalTLS", true);
    let tls = certificates::local(file, folder, data_directory);
    let acme = certificates::acme(file, folder, data_directory);
    let listen_https = wanted_https.filter(|_| local_tls || acme.is_some());
    if wanted_https.is_some() && listen_https.is_none() {
        file.note("UseLocalTLS is false and LetsEncryptDomains names nothing: no HTTPS");
    }
    if acme.is_some() && listen_https.is_none() {
        file.error(
            "LetsEncryptDomains",
            "ListenHTTPS is off, so a certificate would serve nothing",
        );
    }
    let listen_redirect = file.text("ListenRedirect").filter(|text| !text.is_empty());
    let listen_redirect =
        listen_redirect.and_then(|text| address_at(file, "ListenRedirect", &text));
    let public_host = public_host(file, acme.as_ref(), listen_redirect.is_some());
    if listen_http.is_none() && listen_https.is_none() {
        file.error(
            "ListenHTTP",
            "nothing would be listened on; set ListenHTTP, or ListenHTTPS with UseLocalTLS",
        );
    }
    let taken = [("ListenHTTPS", listen_https), ("ListenRedirect", listen_redirect)];
    for (index, (key, address)) in taken.into_iter().enumerate() {
        let before = std::iter::once(listen_http).chain(taken.iter().take(index).map(|(_, a)| *a));
        let real = address.filter(|address| address.port() != 0);
        if real.is_some() && before.into_iter().any(|other| other == real) {
            file.error(key, "is the address of another listener");
        }
    }
    let stop =
        file.duration("StopDeadline", Bare::Refused, Duration::from_millis(100)..=300 * SECOND);
    let proxies = proxy::read(file, folder, outgoing);
    ServerConfig {
        listen_http,
        listen_https,
        listen_redirect,
        public_host,
        tls,
        acme,
        data_directory: data_directory.to_owned(),
        http: HttpConfig { proxies, ..http(file) },
        stop_deadline: stop.unwrap_or(Duration::from_millis(1_500)),
    }
}

/// Where people are sent on to: `PublicHost`, else the first name of the certificate.
fn public_host(
    file: &mut Section<'_>,
    acme: Option<&AcmeConfig>,
    is_needed: bool,
) -> Option<String> {
    let named = file.filled("PublicHost");
    if let Some(host) = &named {
        let parsed = url::Url::parse(&format!("https://{host}/")).ok();
        let back = parsed.and_then(|url| match (url.host_str(), url.port()) {
            (Some(host), None) => Some(host.to_owned()),
            (Some(host), Some(port)) => Some(format!("{host}:{port}")),
            (None, _) => None,
        });
        if back.as_deref() != Some(host.as_str()) {
            file.error("PublicHost", "expected a host, lower case, with its port unless that is 443, like \"example.com\"");
        }
    }
    let first = acme.and_then(|acme| acme.domains.first().cloned());
    let host = named.or(first);
    if is_needed && host.is_none() {
        file.error("PublicHost", "is missing: where ListenRedirect sends people to");
    }
    host
}

fn http(file: &mut Section<'_>) -> HttpConfig {
    let standard = HttpConfig::default();
    let timeout = file.duration("ConnectionTimeout", Bare::Seconds, SECOND..=HOUR);
    let pixel_wait = file.duration("PixelWait", Bare::Milliseconds, Duration::ZERO..=SECOND);
    let api_version = file.number("ApiVersion", 0..=9_999).and_then(|n| u32::try_from(n).ok());
    HttpConfig {
        api_version: api_version.unwrap_or(standard.api_version),
        allow_origins: allow_origins(file).unwrap_or(standard.allow_origins),
        trusted_proxies: trusted_proxies(file),
        body_bytes_max: bytes(file, "MaxBodyBytes", 1 << 10..=1 << 30, standard.body_bytes_max),
        inflated_bytes_max: bytes(
            file,
            "MaxInflatedBytes",
            1 << 10..=1 << 30,
            standard.inflated_bytes_max,
        ),
        batch_events_max: file
            .count("MaxBatchEvents", 1..=1_000_000)
            .unwrap_or(standard.batch_events_max),
        // The lower bound is the least buffer the HTTP implementation takes.
        header_bytes_max: bytes(
            file,
            "MaxHeaderBytes",
            8 << 10..=1 << 20,
            standard.header_bytes_max,
        ),
        connections_max: file
            .count("MaxConnections", 1..=1_000_000)
            .unwrap_or(standard.connections_max),
        timeout: timeout.unwrap_or(standard.timeout),
        pixel_wait: pixel_wait.unwrap_or(standard.pixel_wait),
        keys: keys::read(file),
        payments_from: file.choice("PaymentsFrom", &keys::KINDS).unwrap_or(standard.payments_from),
        proxies: Vec::new(),
        limits: limits(file),
        websocket: websocket(file),
    }
}

/// A number of things for each second or day; 0 is off.
fn rate(file: &mut Section<'_>, key: &'static str, default: u32) -> u32 {
    file.number(key, 0..=1_000_000_000).and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
}

fn limits(file: &mut Section<'_>) -> LimitsConfig {
    let standard = LimitsConfig::default();
    let burst = file.number("RateLimitBurst", 1..=1_000_000).and_then(|n| u32::try_from(n).ok());
    LimitsConfig {
        address_per_day: rate(file, "RateLimitPerDay", standard.address_per_day),
        address_per_second: rate(file, "RateLimitPerSecond", standard.address_per_second),
        key_per_second: rate(file, "RateLimitKeyPerSecond", standard.key_per_second),
        burst,
        dry_run: file.flag("RateLimitDryRun", standard.dry_run),
        addresses_max: file
            .count("RateLimitAddresses", 64..=16 << 20)
            .unwrap_or(standard.addresses_max),
    }
}

fn websocket(file: &mut Section<'_>) -> WebSocketConfig {
    let standard = WebSocketConfig::default();
    let frame_bytes = 1 << 10..=64 << 20;
    let idle = file.duration("WebSocketIdle", Bare::Seconds, SECOND..=24 * HOUR);
    WebSocketConfig {
        frame_bytes_max: bytes(file, "WebSocketFrameBytes", frame_bytes, standard.frame_bytes_max),
        frames_per_second: rate(file, "WebSocketFramesPerSecond", standard.frames_per_second),
        events_per_second: rate(file, "WebSocketEventsPerSecond", standard.events_per_second),
        idle: idle.unwrap_or(standard.idle),
    }
}

fn bytes(
    file: &mut Section<'_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
    default: usize,
) -> usize {
    file.size(key, range).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
}

/// An address to listen on; loopback at `port` when absent, `None` when `""`.
fn listen(file: &mut Section<'_>, key: &'static str, port: u16) -> Option<SocketAddr> {
    let Some(text) = file.text(key) else {
        return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    };
    if text.is_empty() {
        return None;
    }
    address_at(file, key, &text)
}

fn address_at(file: &Section<'_>, key: &'static str, text: &str) -> Option<SocketAddr> {
    let address = address(text);
    if address.is_none() {
        file.error(key, "expected an address like \"127.0.0.1:8080\", \":8080\" for every interface, or \"\" for off");
    }
    address
}

fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    match host {
        "" => Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.parse().ok()?))),
        "localhost" => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        _ => text.parse().ok(),
    }
}

fn allow_origins(file: &mut Section<'_>) -> Option<Vec<String>> {
    let one = file.filled("AllowOrigin");
    let many = file.list("AllowOrigins");
    if one.is_some() && many.is_some() {
        file.error("AllowOrigin", "stands beside AllowOrigins; keep one of them");
    }
    let key = if many.is_some() { "AllowOrigins" } else { "AllowOrigin" };
    let origins = many.or(one.map(|origin| vec![origin]))?;
    if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
        file.error(key, "\"*\" stands alone: it means every origin, without cookies");
    }
    for origin in origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
        file.error(
            key,
            format!("{origin:?} is not an origin like \"https://example.com\" (no path)"),
        );
    }
    Some(origins)
}

fn is_origin(text: &str) -> bool {
    let url = url::Url::parse(text).ok().filter(|_| !text.contains('*'));
    let web = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    web.is_some_and(|url| url.origin().ascii_serialization() == text)
}

fn trusted_proxies(file: &mut Section<'_>) -> Vec<TrustedProxy> {
    let words = file.list("TrustedProxies").unwrap_or_default();
    let mut proxies = Vec::with_capacity(words.len());
    for word in words {
        match word.as_str() {
            "loopback" => proxies.push(TrustedProxy::Loopback),
            "private" => proxies.push(TrustedProxy::Private),
            "cloudflare" => proxies.push(TrustedProxy::Cloudflare),
            word => match word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from)) {
                Ok(net) => proxies.push(TrustedProxy::Net(net.trunc())),
                Err(_) => file.error(
                    "TrustedProxies",
                    format!("{word:?} is no address, no network and none of loopback, private, cloudflare"),
                ),
            },
        }
    }
    proxies
}

fn intake(file: &mut Section<'_>, folder: &Path, data_directory: &Path) -> IntakeConfig {
    let standard = IntakeConfig::new(data_directory.join("keys"));
    let (url_filter, url_filter_match_group) = url_filter(file);
    let hash_modes = [("keyed", HashMode::Keyed), ("legacy", HashMode::Legacy)];
    let policies = [
        ("ignore", DntPolicy::Ignore),
        ("anonymous", DntPolicy::Anonymous),
        ("drop", DntPolicy::Drop),
    ];
    let cflags = file.number("CFlagsMarketing", 0..=i64::MAX.cast_unsigned());
    IntakeConfig {
        hash_mode: file.choice("HashMode", &hash_modes).unwrap_or_default(),
        prefix_private_hash: file.text("PrefixPrivateHash").unwrap_or_default(),
        account_hash_mixer: file.text("AccountHashMixer").unwrap_or_default(),
        domains: domains(file),
        url_filter,
        url_filter_match_group,
        ignore_query_params_key: file.filled("IgnoreQueryParamsKey"),
        anonymize_ip: file.flag("AnonymizeIP", standard.anonymize_ip),
        remove_ip: file.flag("UseRemoveIP", standard.remove_ip),
        dnt_policy: file.choice("DNTPolicy", &policies).unwrap_or_default(),
        cflags_marketing: cflags.map_or(standard.cflags_marketing, u64::cast_signed),
        cflags_ignore: file.flag("CFlagsIgnore", standard.cflags_ignore),
        geo_ip: file.flag("UseGeoIP", standard.geo_ip),
        geo_ip_database: geo_ip_database(file, folder),
        region_descriptions: file.flag("UseRegionDescriptions", standard.region_descriptions),
        quarantine_raw: file.flag("QuarantineRaw", standard.quarantine_raw),
        event_bytes_max: bytes(file, "MaxEventBytes", 1 << 10..=64 << 20, standard.event_bytes_max),
        // The upper bound is what the JSON reader itself stands.
        nesting_max: file.count("MaxNesting", 1..=100).unwrap_or(standard.nesting_max),
        text_bytes_max: bytes(file, "MaxTextBytes", 64..=1 << 20, standard.text_bytes_max),
        keys_directory: standard.keys_directory,
    }
}

fn domains(file: &mut Section<'_>) -> Vec<String> {
    let domains = file.list("Domains").unwrap_or_default();
    for domain in domains.iter().filter(|domain| domain.contains(['/', ' ']) || domain.is_empty()) {
        file.error("Domains", format!("{domain:?} is not a host like \"example.com\""));
    }
    domains.iter().map(|domain| domain.to_ascii_lowercase()).collect()
}

fn links(
    file: &mut Section<'_>,
    folder: &Path,
    data_directory: &Path,
    domains: &[String],
) -> LinksConfig {
    let default_redirect = file.filled("DefaultRedirect");
    let is_web = |text: &String| {
        url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
    };
    if default_redirect.as_ref().is_some_and(|text| !is_web(text)) {
        file.error("DefaultRedirect", "expected an address like \"https://example.com/\"");
    }
    let hosts = file.list("RedirectHosts");
    for host in hosts.iter().flatten() {
        if host.is_empty() || host.contains(['/', ' ', ':', '@', '*']) {
            file.error(
                "RedirectHosts",
                format!("{host:?} is not a host like \"example.com\" or \".example.com\""),
            );
        }
    }
    LinksConfig {
        default_redirect,
        redirect_hosts: hosts.unwrap_or_else(|| domains.to_vec()),
        domains: domains.to_vec(),
        private_targets: file.flag("AllowPrivateTargets", false),
        static_directory: static_directory(file, folder, data_directory),
    }
}

/// A folder that holds the configuration or the data would publish their secrets.
fn static_directory(
    file: &mut Section<'_>,
    folder: &Path,
    data_directory: &Path,
) -> Option<PathBuf> {
    let path = folder.join(file.filled("StaticDirectory")?);
    // What is not there yet is compared as it is written.
    let real = |path: &Path| {
        path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned())
    };
    let root = real(&path);
    if real(folder).starts_with(&root) || real(data_directory).starts_with(&root) {
        file.error("StaticDirectory", "would publish the configuration or the data folder");
    } else if root.starts_with(real(data_directory)) {
        file.error("StaticDirectory", "is inside the data folder");
    }
    Some(path)
}

fn url_filter(file: &mut Section<'_>) -> (Option<String>, usize) {
    let filter = file.filled("UrlFilter");
    let group = file.count("UrlFilterMatchGroup", 0..=1_000).unwrap_or(0);
    let Some(text) = filter else { return (None, group) };
    match Regex::new(&text) {
        Err(error) => file.error("UrlFilter", format!("not a regular expression: {error}")),
        Ok(filter) if group >= filter.captures_len() => {
            let groups = filter.captures_len() - 1;
            file.error("UrlFilterMatchGroup", format!("UrlFilter has {groups} groups"));
        }
        Ok(_) => {}
    }
    (Some(text), group)
}

fn geo_ip_database(file: &mut Section<'_>, folder: &Path) -> Option<PathBuf> {
    let path = below(folder, &file.filled("GeoIPDatabase")?);
    let extension = path.extension().and_then(|extension| extension.to_str());
    if extension.is_some_and(|extension| extension.eq_ignore_ascii_case("bin")) {
        file.note(
            "GeoIPDatabase: the BIN form cannot be read; `tracker import-geo` makes an MMDB file \
             of IP2Location's CSV form. The built-in country database is used",
        );
        return None;
    }
    Some(path)
}

fn journal(file: &mut Section<'_>, data_directory: &Path) -> JournalConfig {
    let standard = JournalConfig::new(data_directory.join("journal"));
    let words =
        [("disk", Durability::Disk), ("os", Durability::Os), ("memory", Durability::Memory)];
    let durability = file.choice("Durability", &words).unwrap_or_default();
    if durability == Durability::Memory {
        file.note("Durability is \"memory\": acknowledged events are lost when the process dies");
    }
    let segment_bytes = file.size("JournalSegmentBytes", 1 << 20..=1 << 30);
    let journal = JournalConfig {
        durability,
        segment_bytes: segment_bytes.unwrap_or(standard.segment_bytes),
        disk_bytes_max: file
            .size("JournalMaxBytes", 0..=1 << 50)
            .unwrap_or(standard.disk_bytes_max),
        keep: file
            .duration("JournalKeep", Bare::Refused, Duration::ZERO..=366 * DAY)
            .unwrap_or(standard.keep),
        keep_bytes_max: file
            .size("JournalKeepBytes", 0..=1 << 50)
            .unwrap_or(standard.keep_bytes_max),
        queue_records_max: file
            .count("JournalQueueRecords", 1..=1_000_000)
            .unwrap_or(standard.queue_records_max),
        directory: standard.directory,
    };
    // One segment to write, one being read, one ready: less cannot make progress.
    if journal.disk_bytes_max > 0 && journal.disk_bytes_max < 3 * journal.segment_bytes {
        file.error("JournalMaxBytes", "is less than three times JournalSegmentBytes");
    }
    journal
}

fn log(file: &mut Section<'_>) -> LogConfig {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let debug = file.flag("Debug", false);
    let filter = file.filled("LogFilter");
    if filter.as_deref().is_some_and(|filter| !is_filter(filter)) {
        file.error(
            "LogFilter",
            "expected a level (error, warn, info, debug, trace, off) or target=level, after commas",
        );
    }
    let standard = if debug { "info,tracker=debug" } else { "info" };
    LogConfig {
        format: file.choice("LogFormat", &formats).unwrap_or_default(),
        filter: filter.unwrap_or(standard.to_owned()),
    }
}

fn is_filter(text: &str) -> bool {
    text.split(',').all(|directive| {
        let (target, level) = directive.rsplit_once('=').unwrap_or(("", directive));
        let levels = ["error", "warn", "info", "debug", "trace", "off"];
        levels.contains(&level.trim().to_ascii_lowercase().as_str())
            && target.trim().chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
    })
}

/// Keys whose feature is not in this version.
fn later(file: &mut Section<'_>) {
    use Shape::{Number, Text};
    file.later(
        "export to S3",
        &[
            ("S3Bucket", Text),
            ("S3Prefix", Text),
            ("S3Region", Text),
            ("S3AccessKeyID", Text),
            ("S3SecretAccessKey", Text),
            ("InactivityTimeoutSeconds", Number),
            ("MaxShardSizeBytes", Number),
        ],
    );
}

/// What to write instead of a key that other files have.
fn renamed(key: &str) -> Option<String> {
    let ours = match key {
        "MaximumConnections" => "MaxConnections",
        "ProxyDailyLimit" => "RateLimitPerDay",
        "ProxyExceptHTTP" => "ListenHTTP",
        "ProxyPort" => "ListenRedirect",
        "ProxyPortRedirect" => "PublicHost",
        "ProxyPortTLS" => "ListenHTTPS",
        "IdleTimeoutSeconds"
        | "ReadTimeoutSeconds"
        | "ReadHeaderTimeoutSeconds"
        | "WriteTimeoutSeconds" => "ConnectionTimeout",
        "IPv4GeoIPZip" | "IPv6GeoIPZip" | "IPv4GeoIPCSVDest" | "IPv6GeoIPCSVDest" => {
            "GeoIPDatabase"
        }
        _ => return None,
    };
    Some(format!("it is called {ours} here"))
}

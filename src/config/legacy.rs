//! The Go tracker's own `config.json`, turned into ours by one pure function.
//!
//! Every key the Go tracker reads stands in one of two tables below, with its name here or with the
//! reason why nothing corresponds to it, so that an operator is told about each line of the file.
//! Keys match without regard to case, as there.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::certificates::is_host_name;
use super::section::{ConfigError, nearest};

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Same name, same meaning.
    Same,
    /// Same meaning, another name.
    Named(&'static str),
    /// Read together with others by a rule of its own.
    Rule,
    /// Nothing corresponds to it, for this reason.
    Ignored(&'static str),
}

use Fate::{Ignored, Named, Rule, Same};

const GEO_ARCHIVES: &str = "IP2Location archives are not read; GeoIPDatabase names an MMDB file";
const NO_FILES: &str = "nothing is unpacked, so no folder for it is needed";
const MAKES_NO_SENSE: &str = "it had no effect in the Go tracker either";
const DUCKDB_TIMER: &str = "it timed the Go tracker's DuckDB export, which is not in this version";
const OWN_COUNT: &str = "requests are counted in the process, no database is asked";
const NO_COPY: &str = "every sink reads the journal itself; none forwards to another";

/// The keys at the top.
const TOP: [(&str, Fate); 68] = [
    ("AccountHashMixer", Same),
    ("AllowOrigin", Same),
    ("ApiVersion", Rule),
    ("CFlagsIgnore", Same),
    ("CFlagsMarketing", Same),
    ("Consume", Rule),
    ("Debug", Same),
    ("DefaultRedirect", Same),
    ("Domains", Same),
    ("GeoIPVersion", Ignored("the database file's own date says which it is")),
    ("HealthCheckInterval", Ignored(DUCKDB_TIMER)),
    ("IPv4GeoIPCSVDest", Ignored(GEO_ARCHIVES)),
    ("IPv6GeoIPCSVDest", Ignored(GEO_ARCHIVES)),
    ("IPv4GeoIPZip", Ignored(GEO_ARCHIVES)),
    ("IPv6GeoIPZip", Ignored(GEO_ARCHIVES)),
    ("IdleTimeoutSeconds", Rule),
    ("IgnoreInsecureTLS", Ignored(MAKES_NO_SENSE)),
    ("IgnoreProxyOptions", Same),
    ("IgnoreQueryParamsKey", Same),
    ("InactivityTimeoutSeconds", Same),
    ("MaxHeaderBytes", Rule),
    ("MaxShardSizeBytes", Same),
    ("MaximumConnections", Rule),
    ("Notify", Rule),
    ("PrefixPrivateHash", Same),
    ("ProxyDailyLimit", Named("RateLimitPerDay")),
    ("ProxyDailyLimitChecker", Ignored(OWN_COUNT)),
    ("ProxyExceptHTTP", Rule),
    ("ProxyForceJson", Same),
    ("ProxyPort", Rule),
    ("ProxyPortRedirect", Rule),
    ("ProxyPortTLS", Rule),
    ("ProxyUrl", Same),
    ("ProxyUrlFilter", Same),
    ("PruneLimit", Same),
    ("PruneLogsOnly", Same),
    ("PruneLogsPageSize", Same),
    ("PruneLogsSkip", Same),
    ("PruneLogsTTL", Same),
    ("PruneSkipToTimestamp", Same),
    ("PruneUpdateConfig", Same),
    ("ReadHeaderTimeoutSeconds", Rule),
    ("ReadTimeoutSeconds", Rule),
    ("S3AccessKeyID", Same),
    ("S3Bucket", Same),
    ("S3Prefix", Same),
    ("S3Region", Same),
    ("S3SecretAccessKey", Same),
    ("SchemaVersion", Ignored("each store keeps its own schema version")),
    ("StaticDirectory", Same),
    ("TLSCert", Same),
    ("TLSKey", Same),
    ("TempDirectory", Ignored(NO_FILES)),
    ("UrlFilter", Same),
    ("UrlFilterMatchGroup", Same),
    ("UseGeoIP", Same),
    ("UseLocalTLS", Rule),
    ("UseRegionDescriptions", Same),
    ("UseRemoveIP", Same),
    ("WriteTimeoutSeconds", Ignored("answers are small; ConnectionTimeout bounds the connection")),
    // Keys of ours that may be added to a file that is otherwise the Go tracker's.
    ("DataDirectory", Same),
    ("Durability", Same),
    ("HashMode", Same),
    ("Keys", Same),
    ("PaymentsFrom", Same),
    ("LetsEncryptEmail", Same),
    ("Proxies", Same),
    ("PublicHost", Same),
];

/// Booleans that are false there and true here when the file does not say.
const FALSE_WHEN_ABSENT: [&str; 2] = ["UseGeoIP", "UseRegionDescriptions"];

/// The keys of an entry of `Notify` or `Consume`.
const ENTRY: [(&str, Fate); 33] = [
    ("Service", Rule),
    ("Hosts", Same),
    ("Context", Same),
    ("Username", Same),
    ("Password", Same),
    ("Key", Same),
    ("Cert", Same),
    ("CACert", Same),
    ("Secure", Same),
    ("Unencrypted", Same),
    ("Critical", Same),
    ("Skip", Same),
    ("Timeout", Same),
    ("Connections", Same),
    ("Retries", Same),
    ("AttemptAll", Same),
    ("Filter", Same),
    ("Prune", Same),
    ("ProxyRealtimeStorageServiceName", Ignored(NO_COPY)),
    ("ProxyRealtimeStorageServiceTables", Ignored(NO_COPY)),
    ("Format", Ignored(MAKES_NO_SENSE)),
    ("MessageLimit", Ignored(MAKES_NO_SENSE)),
    ("ByteLimit", Ignored(MAKES_NO_SENSE)),
    ("Consumer", Ignored(MAKES_NO_SENSE)),
    ("Ephemeral", Ignored(MAKES_NO_SENSE)),
    ("Note", Same),
    ("BatchingEnabled", Same),
    ("MaxBatchSize", Same),
    ("MaxBatchTime", Same),
    ("BatchFlushInterval", Ignored("the documented MaxBatchTime says how long a batch waits")),
    ("EnableCompression", Same),
    ("Keyspace", Same),
    ("Tables", Same),
];

/// What of an entry means something to the embedded store.
const DUCKDB_KEYS: [&str; 8] = [
    "Critical",
    "Skip",
    "Note",
    "BatchingEnabled",
    "MaxBatchSize",
    "MaxBatchTime",
    "EnableCompression",
    "Tables",
];

/// The file in our dialect, and what happened to each key.
#[derive(Debug, Default)]
pub(super) struct Translated {
    /// What ours reads.
    pub(super) file: Map<String, Value>,
    /// Path of every key that was taken over as it is.
    kept: Vec<String>,
    /// (path there, path here) of every key that was taken over under another name.
    renamed: Vec<(String, String)>,
    /// (path there, reason) of every key that was not taken over.
    ignored: Vec<(String, String)>,
    /// What differs although no key says so.
    remarks: Vec<String>,
}

/// Whether this is the Go tracker's dialect: an entry has `Service`, or `ProxyPort` stands at the top.
pub(super) fn is_go(file: &Map<String, Value>) -> bool {
    let has_service = |entry: &Value| entry.get("Service").is_some();
    let names_service = |key: &str| {
        file.get(key)
            .and_then(Value::as_array)
            .is_some_and(|entries| entries.iter().any(has_service))
    };
    file.contains_key("ProxyPort") || names_service("Notify") || names_service("Consume")
}

/// Turns the Go tracker's file into ours.
pub(super) fn translate(go: &Map<String, Value>) -> Translated {
    let mut translated = Translated::default();
    let mut ruled = BTreeMap::new();
    for (written, value) in go {
        match find(&TOP, written) {
            Some((key, Same)) => translated.take(written, key, value.clone()),
            Some((_, Named(ours))) => translated.take(written, ours, value.clone()),
            Some((key, Rule)) => {
                ruled.insert(key, (written.as_str(), value));
            }
            Some((_, Ignored(reason))) => translated.ignore(written, reason),
            None => translated.unknown(written, &TOP),
        }
    }
    translated.listeners(&ruled);
    translated.bounds(&ruled);
    for key in ["Notify", "Consume"] {
        if let Some((_, entries)) = ruled.get(key) {
            let entries = translated.entries(key, entries);
            translated.file.insert(key.to_owned(), entries);
        }
    }
    for key in FALSE_WHEN_ABSENT {
        if !translated.file.contains_key(key) {
            translated.file.insert(key.to_owned(), Value::Bool(false));
        }
    }
    translated.remarks.push(
        "AnonymizeIP is on: addresses are cut before they are stored, which the Go tracker did not do"
            .to_owned(),
    );
    if translated.file.get("RateLimitPerDay").and_then(Value::as_u64).is_some_and(|limit| limit > 0)
    {
        translated.remarks.push(
            "the daily limit counts requests of event routes as well, not only those of /api/"
                .to_owned(),
        );
    }
    if !translated.file.contains_key("HashMode") {
        translated.remarks.push(
            "hashes are keyed; add \"HashMode\": \"legacy\" to go on with those of existing data"
                .to_owned(),
        );
    }
    translated
}

type Ruled<'g> = BTreeMap<&'static str, (&'g str, &'g Value)>;

fn find(table: &[(&'static str, Fate)], written: &str) -> Option<(&'static str, Fate)> {
    table.iter().copied().find(|(key, _)| key.eq_ignore_ascii_case(written))
}

impl Translated {
    /// What happened to every key: one line for those that kept their name, and one for each other.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes =
            vec!["this is a configuration of the Go tracker; it was translated".to_owned()];
        if !self.kept.is_empty() {
            notes.push(format!("taken over as they are: {}", self.kept.join(", ")));
        }
        let renamed =
            self.renamed.iter().map(|(theirs, ours)| format!("{theirs} is read as {ours}"));
        let ignored =
            self.ignored.iter().map(|(key, reason)| format!("{key} is ignored: {reason}"));
        notes.extend(renamed.chain(ignored));
        notes.extend(self.remarks.iter().cloned());
        notes
    }

    /// Puts the file's own names before the paths of errors.
    pub(super) fn name_errors(&self, errors: &mut [ConfigError]) {
        for error in errors {
            if let Some((theirs, ours)) = self.renamed.iter().find(|(_, ours)| *ours == error.path)
            {
                error.path = format!("{theirs} (read as {ours})");
            }
        }
    }

    fn take(&mut self, written: &str, ours: &str, value: Value) {
        self.file.insert(ours.to_owned(), value);
        if written == ours {
            self.kept.push(written.to_owned());
        } else {
            self.renamed.push((written.to_owned(), ours.to_owned()));
        }
    }

    fn ignore(&mut self, written: &str, reason: &str) {
        self.ignored.push((written.to_owned(), reason.to_owned()));
    }

    fn unknown(&mut self, path: &str, table: &[(&'static str, Fate)]) {
        let known: Vec<&str> = table.iter().map(|(key, _)| *key).collect();
        let key = path.rsplit('.').next().unwrap_or(path);
        let hint =
            nearest(key, &known).map_or(String::new(), |near| format!("; did you mean {near}?"));
        self.ignore(path, &format!("the Go tracker does not know it{hint}"));
    }

    /// There, TLS needs `UseLocalTLS`, the port of `ProxyPortTLS` needs `ProxyPort` beside it, and
    /// plain HTTP exists only where `ProxyExceptHTTP` says so.
    fn listeners(&mut self, ruled: &Ruled<'_>) {
        let text = |key: &str| ruled.get(key).and_then(|(_, v)| v.as_str()).unwrap_or("");
        let local = ruled.get("UseLocalTLS").is_some_and(|(_, value)| **value == Value::Bool(true));
        let (https, http) = (text("ProxyPortTLS"), text("ProxyExceptHTTP"));
        let https = if https.is_empty() { ":https" } else { https };
        self.file.insert("UseLocalTLS".to_owned(), Value::Bool(local));
        if let Some((written, _)) = ruled.get("ProxyPortTLS") {
            self.take(written, "ListenHTTPS", numbered(https).into());
        } else {
            self.file.insert("ListenHTTPS".to_owned(), numbered(https).into());
        }
        if let Some((written, _)) = ruled.get("ProxyExceptHTTP") {
            self.take(written, "ListenHTTP", numbered(http).into());
        } else {
            self.file.insert("ListenHTTP".to_owned(), "".into());
        }
        let domains = self.file.get("Domains").and_then(Value::as_array);
        let hosts: Vec<String> = domains
            .into_iter()
            .flatten()
            .filter_map(|domain| Some(domain.as_str()?.to_ascii_lowercase()))
            .filter(|domain| is_host_name(domain))
            .collect();
        if !local && !hosts.is_empty() {
            self.remarks.push(
                "LetsEncryptDomains is what Domains lists: one certificate, so each must reach us"
                    .to_owned(),
            );
            self.file.insert("LetsEncryptDomains".to_owned(), hosts.clone().into());
        }
        self.redirect(ruled, local, hosts.first());
    }

    /// There, a listener sent everybody on to the host they had named; here, to a host of ours.
    fn redirect(&mut self, ruled: &Ruled<'_>, local: bool, first: Option<&String>) {
        let text = |key: &str| ruled.get(key).and_then(|(_, v)| v.as_str()).unwrap_or("");
        let named = self.file.get("PublicHost").and_then(Value::as_str).map(str::to_owned);
        let (listen, after) = (text("ProxyPort"), text("ProxyPortRedirect"));
        let after = if after.is_empty() { text("ProxyPortTLS") } else { after };
        let port = numbered(after).rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let host = named.or_else(|| {
            first.map(|host| match port.filter(|port| *port != 443) {
                Some(port) => format!("{host}:{port}"),
                None => host.clone(),
            })
        });
        let reason = match (&host, local, listen) {
            (None, ..) => "no entry of Domains is a host that people could be sent on to",
            (_, true, "") => "without ProxyPort nothing sends people on",
            (_, false, "") | (_, true, _) => "",
            (_, false, _) => "it needs UseLocalTLS there; people are sent on from port 80",
        };
        let listen = if local { numbered(listen) } else { ":80".to_owned() };
        let ours = [("ProxyPort", "ListenRedirect"), ("ProxyPortRedirect", "PublicHost")];
        for (theirs, ours) in ours {
            match ruled.get(theirs) {
                Some((written, _)) if reason.is_empty() => {
                    self.renamed.push(((*written).to_owned(), ours.to_owned()));
                }
                Some((written, _)) => self.ignore(written, reason),
                None => {}
            }
        }
        if let Some(host) = host.filter(|_| !listen.is_empty()) {
            self.remarks.push(format!("people are sent on from {listen} to https://{host} only"));
            self.file.insert("PublicHost".to_owned(), host.into());
            self.file.insert("ListenRedirect".to_owned(), listen.into());
        }
    }

    /// Zero means "no limit" or "nothing works" there; here it means the default.
    fn bounds(&mut self, ruled: &Ruled<'_>) {
        let number = |key: &str| ruled.get(key).and_then(|(_, v)| v.as_u64()).unwrap_or(0);
        let pairs = [
            ("MaximumConnections", "MaxConnections"),
            ("MaxHeaderBytes", "MaxHeaderBytes"),
            ("ApiVersion", "ApiVersion"),
        ];
        for (theirs, ours) in pairs {
            let Some((written, value)) = ruled.get(theirs) else { continue };
            if value.as_u64() == Some(0) {
                self.ignore(written, "0 is no usable value; the default is used");
            } else {
                self.take(written, ours, (*value).clone());
            }
        }
        let reads = ["ReadTimeoutSeconds", "ReadHeaderTimeoutSeconds", "IdleTimeoutSeconds"];
        let longest = reads.iter().map(|key| number(key)).max().unwrap_or(0);
        for key in reads {
            let Some((written, _)) = ruled.get(key) else { continue };
            if longest == 0 {
                self.ignore(
                    written,
                    "0 means no limit there; the default of ConnectionTimeout is used",
                );
            } else {
                self.renamed.push(((*written).to_owned(), "ConnectionTimeout".to_owned()));
                self.file.insert("ConnectionTimeout".to_owned(), longest.into());
            }
        }
    }

    fn entries(&mut self, key: &str, entries: &Value) -> Value {
        let Some(entries) = entries.as_array() else { return entries.clone() };
        let translate = |(index, entry): (usize, &Value)| match entry.as_object() {
            Some(entry) => Value::Object(self.entry(&format!("{key}[{index}]"), entry)),
            None => entry.clone(),
        };
        Value::Array(entries.iter().enumerate().map(translate).collect())
    }

    fn entry(&mut self, path: &str, go: &Map<String, Value>) -> Map<String, Value> {
        let service = go.get("Service").and_then(Value::as_str).unwrap_or("");
        // The sample switches an entry off by adding an underscore to the name of its service.
        let kind = service.trim_end_matches('_');
        let mut ours = Map::new();
        ours.insert("Type".to_owned(), kind.into());
        self.renamed.push((format!("{path}.Service"), format!("{path}.Type")));
        for (written, value) in go {
            let place = format!("{path}.{written}");
            match find(&ENTRY, written) {
                Some((key, Same)) if kind == "duckdb" && !DUCKDB_KEYS.contains(&key) => {
                    self.ignore(&place, "it means nothing to the embedded store");
                }
                Some((key, Same)) => {
                    self.kept.push(place);
                    ours.insert(key.to_owned(), value.clone());
                }
                Some((_, Named(name))) => {
                    self.renamed.push((place, format!("{path}.{name}")));
                    ours.insert(name.to_owned(), value.clone());
                }
                Some((_, Rule)) => {}
                Some((_, Ignored(reason))) => self.ignore(&place, reason),
                None => self.unknown(&place, &ENTRY),
            }
        }
        if service.ends_with('_') {
            ours.insert("Skip".to_owned(), Value::Bool(true));
        }
        ours
    }
}

/// The Go tracker also takes names of ports.
fn numbered(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, "http")) => format!("{host}:80"),
        Some((host, "https")) => format!("{host}:443"),
        _ => address.to_owned(),
    }
}

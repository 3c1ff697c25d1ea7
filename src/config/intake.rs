//! Settings of intake: whose events, how they are cleaned, and what privacy forbids.

use std::path::PathBuf;

/// What a `DNT: 1` header does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DntPolicy {
    /// Nothing.
    #[default]
    Ignore,
    /// No identity: no visitor, user, session, address, hashes; no cookie.
    Anonymous,
    /// Not stored at all.
    Drop,
}

/// How hosts, addresses and e-mails are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashMode {
    /// HMAC-SHA-256 with the installation's key, 32 hex characters.
    #[default]
    Keyed,
    /// The Go tracker's FNV and SHA-1 forms, for continuity with old data.
    Legacy,
}

/// Everything between a request's facts and a durable event.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the file")]
pub struct IntakeConfig {
    /// Folder of the installation's keys (`DataDirectory/keys`).
    pub keys_directory: PathBuf,
    /// `HashMode`.
    pub hash_mode: HashMode,
    /// `PrefixPrivateHash`: salt of e-mail, telephone and user-name hashes in legacy mode.
    pub prefix_private_hash: String,
    /// `AccountHashMixer`: reject events whose `acct` is not the hash of host and mixer; empty = off.
    pub account_hash_mixer: String,
    /// `Domains`: the site's own hosts; a referrer among them is no source.
    pub domains: Vec<String>,
    /// `UrlFilter`: expression whose group replaces `url` and `last`.
    pub url_filter: Option<String>,
    /// `UrlFilterMatchGroup`: 0 = the last group.
    pub url_filter_match_group: usize,
    /// `IgnoreQueryParamsKey`: a query with this key is not read.
    pub ignore_query_params_key: Option<String>,
    /// `AnonymizeIP`: cut addresses to /24 and /48 before hashing and before the journal.
    pub anonymize_ip: bool,
    /// `UseRemoveIP`: leave the address out altogether.
    pub remove_ip: bool,
    /// `DNTPolicy`.
    pub dnt_policy: DntPolicy,
    /// `CFlagsMarketing`: bits that allow marketing; 0 = not used.
    pub cflags_marketing: i64,
    /// `CFlagsIgnore`: missing consent flags count as consent.
    pub cflags_ignore: bool,
    /// `UseGeoIP`.
    pub geo_ip: bool,
    /// `GeoIPDatabase`: an MMDB file; the built-in country database otherwise.
    pub geo_ip_database: Option<PathBuf>,
    /// `UseRegionDescriptions`: keep region and city found by address.
    pub region_descriptions: bool,
    /// `QuarantineRaw`: keep the text of malformed input (at most 4 KiB). Default off: privacy
    /// cannot understand raw bytes.
    pub quarantine_raw: bool,
    /// Bytes of one event as JSON; larger ones are rejected. Default 256 KiB.
    pub event_bytes_max: usize,
    /// Nesting of JSON input. Default 64.
    pub nesting_max: usize,
    /// Bytes of one text column; longer texts are cut. Default 8 KiB.
    pub text_bytes_max: usize,
}

impl IntakeConfig {
    /// The defaults, with keys in `keys_directory`.
    pub fn new(keys_directory: PathBuf) -> Self {
        Self {
            keys_directory,
            hash_mode: HashMode::Keyed,
            prefix_private_hash: String::new(),
            account_hash_mixer: String::new(),
            domains: Vec::new(),
            url_filter: None,
            url_filter_match_group: 0,
            ignore_query_params_key: None,
            anonymize_ip: true,
            remove_ip: false,
            dnt_policy: DntPolicy::Ignore,
            cflags_marketing: 0,
            cflags_ignore: false,
            geo_ip: true,
            geo_ip_database: None,
            region_descriptions: true,
            quarantine_raw: false,
            event_bytes_max: 256 << 10,
            nesting_max: 64,
            text_bytes_max: 8 << 10,
        }
    }
}

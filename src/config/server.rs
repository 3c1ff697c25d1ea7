//! Settings of the listeners and of everything a request meets before intake.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::keys::{KeyConfig, KeyKind};
use super::{AcmeConfig, ProxyConfig, TlsConfig};

/// Peers whose forwarding headers are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedProxy {
    /// One network.
    Net(IpNet),
    /// 127.0.0.0/8 and `::1`.
    Loopback,
    /// RFC 1918, RFC 4193 and link-local networks.
    Private,
    /// Cloudflare's published edge networks.
    Cloudflare,
}

/// What a request meets: shared by both listeners.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// `ApiVersion`: the `N` of `/tr/vN/…`. Default 1.
    pub api_version: u32,
    /// `AllowOrigins`: exact origins, or `["*"]` (then without credentials).
    pub allow_origins: Vec<String>,
    /// `TrustedProxies`. Default none.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// `MaxBodyBytes`: as sent. Default 2 MiB.
    pub body_bytes_max: usize,
    /// `MaxInflatedBytes`: after gzip or br. Default 8 MiB.
    pub inflated_bytes_max: usize,
    /// `MaxBatchEvents`: events of one request. Default 10,000.
    pub batch_events_max: usize,
    /// `MaxHeaderBytes`. Default 64 KiB.
    pub header_bytes_max: usize,
    /// `MaxConnections`: open connections; more get 503. Default 10,000.
    pub connections_max: usize,
    /// `ConnectionTimeout`: idle, and to receive a head or a body. Default 30 s.
    pub timeout: Duration,
    /// How long a pixel waits for durability before it is answered anyway. Default 20 ms.
    pub pixel_wait: Duration,
    /// `Keys`: servers and sites. Default none: one tenant, everything open.
    pub keys: Vec<KeyConfig>,
    /// `PaymentsFrom`: whose key tells of payments, once there are keys. Default a server's: the keys
    /// of sites are public, and whoever reads one could make up revenue.
    pub payments_from: KeyKind,
    /// `ProxyUrl` and `Proxies`: requests that go to servers behind us.
    pub proxies: Vec<ProxyConfig>,
    /// How much one client may ask for.
    pub limits: LimitsConfig,
    /// What a WebSocket may send.
    pub websocket: WebSocketConfig,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            api_version: 1,
            allow_origins: vec!["*".to_owned()],
            trusted_proxies: Vec::new(),
            body_bytes_max: 2 << 20,
            inflated_bytes_max: 8 << 20,
            batch_events_max: 10_000,
            header_bytes_max: 64 << 10,
            connections_max: 10_000,
            timeout: Duration::from_secs(30),
            pixel_wait: Duration::from_millis(20),
            keys: Vec::new(),
            payments_from: KeyKind::Server,
            proxies: Vec::new(),
            limits: LimitsConfig::default(),
            websocket: WebSocketConfig::default(),
        }
    }
}

/// How much one client may ask for; 0 is off, and everything is off by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `RateLimitPerDay`: requests of one address in a day of UTC, over event routes and `/api/`.
    pub address_per_day: u32,
    /// `RateLimitPerSecond`: requests of one address in a second, lastingly.
    pub address_per_second: u32,
    /// `RateLimitKeyPerSecond`: the same for the key of a server, whose address then does not count.
    pub key_per_second: u32,
    /// `RateLimitBurst`: requests at once, after a pause. Default: ten seconds' worth.
    pub burst: Option<u32>,
    /// `RateLimitDryRun`: nothing is refused, only counted.
    pub dry_run: bool,
    /// `RateLimitAddresses`: addresses that are told apart at one time. Default 65,536 (1 MiB for
    /// each limit that is on).
    pub addresses_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            address_per_day: 0,
            address_per_second: 0,
            key_per_second: 0,
            burst: None,
            dry_run: false,
            addresses_max: 65_536,
        }
    }
}

/// What a WebSocket may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// `WebSocketFrameBytes`: one frame, or one message of several, as sent. Default 1 MiB.
    pub frame_bytes_max: usize,
    /// `WebSocketFramesPerSecond`: above it a connection is read more slowly; 0 is off.
    /// Default 1,000.
    pub frames_per_second: u32,
    /// `WebSocketEventsPerSecond`: the same for the events in the frames. Default 10,000.
    pub events_per_second: u32,
    /// `WebSocketIdle`: without a sign of life for so long, a connection is closed. The server asks
    /// for one by a ping after a third of it. Default 60 s.
    pub idle: Duration,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            frame_bytes_max: 1 << 20,
            frames_per_second: 1_000,
            events_per_second: 10_000,
            idle: Duration::from_secs(60),
        }
    }
}

/// The listeners and what stands behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// `ListenHTTP`; `None` = off.
    pub listen_http: Option<SocketAddr>,
    /// `ListenHTTPS`; `None` = off.
    pub listen_https: Option<SocketAddr>,
    /// `ListenRedirect`: plain HTTP that only sends people on to HTTPS; `None` = off.
    pub listen_redirect: Option<SocketAddr>,
    /// `PublicHost`: the host, and its port unless it is 443, that people are sent on to. Present
    /// where `listen_redirect` is.
    pub public_host: Option<String>,
    /// The local certificate of the TLS listener.
    pub tls: TlsConfig,
    /// Certificates by ACME, which go before the local one once there are any.
    pub acme: Option<AcmeConfig>,
    /// `DataDirectory`.
    pub data_directory: PathBuf,
    /// What a request meets.
    pub http: HttpConfig,
    /// How long stop waits for requests in flight and for sinks. Default 1.5 s, so that stop takes
    /// at most 2 s.
    pub stop_deadline: Duration,
}

//! How much one client may ask for: requests in a second and in a day, each refusal counted.
//!
//! A client is an address, or the server whose key it presents (a site's key is public and makes nobody
//! a client of its own); of an IPv6 address the first 64 bits, because one customer has all of them.
//! Nobody's address is kept: a client is a hash under a key that lives
//! as long as the process, which also keeps anyone from choosing whom to share a place with.
//!
//! The tables have a fixed size ([`Table`]). When a place is needed, the client that spent least loses
//! its own, and the newcomer takes over **what was spent there**. So whoever is pushed out comes back
//! to at least what it had spent: flooding the table with addresses makes allowances smaller, never
//! larger. (The bound of the space-saving algorithm by Metwally, Agrawal and El Abbadi, 2005, within a
//! set of [`WAYS`] places; it holds because what is spent only grows.)
//!
//! Rates are those of `quota.rs`. Days are those of UTC and are counted from the start of the
//! process: stores know addresses only as privacy left them, so an earlier count cannot be continued.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::facts::Caller;
use super::keys::Presented;
use super::quota::{Quota, nanos};
use super::state::Shared;
use super::track;
use crate::clock::Clock;
use crate::config::{KeyKind, LimitsConfig};
use crate::intake::Refusal;
use crate::telemetry::{Counter, Metrics};

/// Places a client may have in a table: enough that a set is rarely full before the table is.
const WAYS: usize = 8;
const DAY_SECONDS: u64 = 86_400;
/// A burst without a setting of its own, in seconds of the rate.
const BURST_SECONDS: u32 = 10;

/// As in drafts 03 to 07 of the IETF's `RateLimit` header fields, which most clients know.
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Which limit; its word is the label in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests of an address in a second.
    AddressRate,
    /// Requests under a key in a second.
    KeyRate,
    /// Requests of an address in a day.
    AddressDay,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::AddressRate => "address_rate",
            Self::KeyRate => "key_rate",
            Self::AddressDay => "address_day",
        }
    }
}

/// What a route counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Nothing: operators and monitors ask there.
    Free,
    /// The rate.
    Rated,
    /// The rate and the day.
    Daily,
    /// As [`Class::Daily`], and a request that is refused was an event.
    Event,
}

impl Class {
    /// By the label of a route, and by the path where no route of ours took it.
    pub(super) fn of(route: &str, path: &str) -> Self {
        if matches!(route, "/ping" | "/status" | "/health" | "/metrics" | "/clear")
            || route.starts_with("/.well-known")
        {
            return Self::Free;
        }
        let native = route.strip_prefix("/tr/v").and_then(|rest| rest.split('/').nth(1));
        match native {
            Some("ppi" | "rpi") => Self::Rated,
            Some("tr" | "str" | "img" | "ltv" | "rdr" | "xrdr" | "pub") => Self::Event,
            None if !path.starts_with("/api/") => Self::Rated,
            _ => Self::Daily,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    tag: u64,
    is_key: bool,
}

/// What is left of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    limit: u64,
    remaining: u64,
    /// Until all of it is there again.
    reset: Duration,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) kind: Kind,
    /// Until one more request is allowed.
    pub(super) wait: Duration,
    limit: u64,
}

impl Allowance {
    /// Says in `headers` what is left.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(seconds(self.reset)));
    }
}

impl Exceeded {
    /// The refusal as an error.
    pub(super) fn error(self) -> ApiError {
        let message = match self.kind {
            Kind::AddressRate => "too many requests from this address",
            Kind::KeyRate => "too many requests with this key",
            Kind::AddressDay => "the daily limit of this address is reached",
        };
        ApiError::Limited { message, retry_seconds: seconds(self.wait) }
    }
}

/// Whole seconds, at least one: zero would invite a retry that is refused.
fn seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

/// The limits of the configuration and what was spent of them.
pub(super) struct Limits {
    address_rate: Option<Rate>,
    key_rate: Option<Rate>,
    address_day: Option<Day>,
    dry_run: bool,
    hasher: RandomState,
    start: Instant,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

struct Rate {
    kind: Kind,
    quota: Quota,
    spent: Table<u64>,
}

struct Day {
    limit: u32,
    spent: Table<DaySpent>,
}

/// Requests of a day; a later day is more than any count of an earlier one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct DaySpent {
    day: u64,
    count: u32,
}

impl Limits {
    pub(super) fn new(config: &LimitsConfig, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let places = config.addresses_max;
        let rate = |kind, per_second: u32| {
            let burst = config.burst.unwrap_or(per_second.saturating_mul(BURST_SECONDS));
            let spent = || Table::new(places, metrics.limit_inherited.clone());
            Quota::new(per_second, burst).map(|quota| Rate { kind, quota, spent: spent() })
        };
        let address_rate = rate(Kind::AddressRate, config.address_per_second);
        let key_rate = rate(Kind::KeyRate, config.key_per_second);
        let spent = || Table::new(places, metrics.limit_inherited.clone());
        let limit = config.address_per_day;
        let address_day = (limit > 0).then(|| Day { limit, spent: spent() });
        let (hasher, start) = (RandomState::new(), clock.monotonic());
        let dry_run = config.dry_run;
        Self { address_rate, key_rate, address_day, dry_run, hasher, start, clock, metrics }
    }

    /// Whether anything is limited at all.
    pub(super) fn is_on(&self) -> bool {
        self.address_rate.is_some() || self.key_rate.is_some() || self.address_day.is_some()
    }

    /// Who sent a request.
    pub(super) fn client(&self, shared: &Shared, parts: &Parts) -> Client {
        if let Presented::Key(key) = shared.keys.presented(parts)
            && key.kind == KeyKind::Server
        {
            return Client { tag: self.hasher.hash_one(&key.name), is_key: true };
        }
        self.address(shared.trusted.client(Caller::of(parts).peer, &parts.headers))
    }

    fn address(&self, ip: IpAddr) -> Client {
        let network = match ip.to_canonical() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            // Global unicast begins with 001: such a network is never a v4 address.
            IpAddr::V6(ip) => u64::try_from(ip.to_bits() >> 64).unwrap_or_default(),
        };
        Client { tag: self.hasher.hash_one(network), is_key: false }
    }

    /// Spends one request.
    ///
    /// # Errors
    /// When there is none left; the limit that says so is counted. A dry run only counts.
    pub(super) fn spend(
        &self,
        client: Client,
        class: Class,
    ) -> Result<Option<Allowance>, Exceeded> {
        if !self.is_on() {
            return Ok(None);
        }
        let outcome = self.spend_all(client, class);
        let Err(exceeded) = outcome else { return outcome };
        let word = if self.dry_run { "allowed" } else { "refused" };
        self.metrics.limit_exceeded.with_label_values(&[exceeded.kind.as_str(), word]).inc();
        if self.dry_run { Ok(None) } else { outcome }
    }

    /// The allowance that is nearest to its end.
    fn spend_all(&self, client: Client, class: Class) -> Result<Option<Allowance>, Exceeded> {
        if class == Class::Free {
            return Ok(None);
        }
        let rate = if client.is_key { &self.key_rate } else { &self.address_rate };
        let now = self.clock.monotonic().saturating_duration_since(self.start);
        let rate = rate.as_ref().map(|rate| rate.spend(client.tag, nanos(now))).transpose()?;
        let counts = class != Class::Rated && !client.is_key;
        let wall = self.clock.wall().timestamp().try_into().unwrap_or(0);
        let day = self.address_day.as_ref().filter(|_| counts);
        let day = day.map(|day| day.spend(client.tag, wall)).transpose()?;
        Ok([rate, day].into_iter().flatten().min_by_key(|allowance| allowance.remaining))
    }
}

impl Rate {
    fn spend(&self, tag: u64, now: u64) -> Result<Allowance, Exceeded> {
        let (kind, quota, limit) = (self.kind, self.quota, self.quota.burst());
        self.spent.with(tag, now, |paid_off| match quota.spend(paid_off, now, 1) {
            Ok(remaining) => {
                let reset = Duration::from_nanos(paid_off.saturating_sub(now));
                Ok(Allowance { limit, remaining, reset })
            }
            Err(wait) => Err(Exceeded { kind, wait, limit }),
        })
    }
}

impl Day {
    fn spend(&self, tag: u64, wall: u64) -> Result<Allowance, Exceeded> {
        let (kind, limit) = (Kind::AddressDay, u64::from(self.limit));
        let midnight = Duration::from_secs(DAY_SECONDS - wall % DAY_SECONDS);
        let fresh = DaySpent { day: wall / DAY_SECONDS, count: 0 };
        self.spent.with(tag, fresh, |spent| {
            if spent.count >= self.limit {
                return Err(Exceeded { kind, wait: midnight, limit });
            }
            spent.count += 1;
            let remaining = u64::from(self.limit - spent.count);
            Ok(Allowance { limit, remaining, reset: midnight })
        })
    }
}

/// What was spent, by client, in a fixed number of places; see the head of this file.
struct Table<S> {
    sets: Box<[Mutex<[Place<S>; WAYS]>]>,
    inherited: Counter,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place<S> {
    tag: u64,
    spent: S,
}

impl<S: Copy + Default + Ord> Table<S> {
    fn new(places: usize, inherited: Counter) -> Self {
        let sets = places.div_ceil(WAYS).max(1);
        let set = || Mutex::new([Place::default(); WAYS]);
        Self { sets: std::iter::repeat_with(set).take(sets).collect(), inherited }
    }

    /// Lets `spend` change what the client `tag` has spent; `nothing` is what one has spent who never
    /// asked. `spend` must not make it less.
    fn with<R>(&self, tag: u64, nothing: S, spend: impl FnOnce(&mut S) -> R) -> R {
        let mut unlisted = nothing;
        let index = usize::try_from(tag % self.sets.len() as u64).unwrap_or_default();
        // There is always such a set, and in it a place.
        let Some(set) = self.sets.get(index) else { return spend(&mut unlisted) };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let own = set.iter().position(|place| place.tag == tag && place.spent != S::default());
        let least = || set.iter().enumerate().min_by_key(|(_, place)| place.spent).map(|(n, _)| n);
        let Some(place) = own.or_else(least).and_then(|n| set.get_mut(n)) else {
            return spend(&mut unlisted);
        };
        if place.spent <= nothing {
            place.spent = nothing;
        } else if own.is_none() {
            self.inherited.inc();
        }
        place.tag = tag;
        spend(&mut place.spent)
    }
}

/// Spends a request to `route`, before its handler runs.
///
/// # Errors
/// As [`Limits::spend`].
pub(super) fn admit(
    shared: &Shared,
    parts: &Parts,
    route: &str,
) -> Result<Option<Allowance>, Exceeded> {
    shared.limits.spend(shared.limits.client(shared, parts), Class::of(route, parts.uri.path()))
}

/// The answer to a request that [`admit`] refused; where it was an event, it is counted as such.
pub(super) fn refusal(shared: &Shared, parts: &Parts, route: &str, exceeded: Exceeded) -> Response {
    let is_event = Class::of(route, parts.uri.path()) == Class::Event;
    // Other methods record nothing.
    if is_event && [Method::GET, Method::POST, Method::PUT].contains(&parts.method) {
        shared.app.intake.refuse(Refusal::Limited);
    }
    let error = exceeded.error();
    let is_pixel = is_event && route.ends_with("/img");
    let mut response = if is_pixel { track::pixel_of(error) } else { error.into_response() };
    let none_left = Allowance { limit: exceeded.limit, remaining: 0, reset: exceeded.wait };
    none_left.tell(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::ManualClock;

    fn limits(config: &LimitsConfig) -> (Limits, Arc<ManualClock>, Arc<Metrics>) {
        // An hour before midnight.
        let wall = DateTime::from_timestamp(20_000 * 86_400 + 82_800, 0).unwrap();
        let clock = Arc::new(ManualClock::new(wall));
        let metrics = Arc::new(Metrics::new().unwrap());
        (Limits::new(config, clock.clone(), Arc::clone(&metrics)), clock, metrics)
    }

    fn left(limits: &Limits, ip: &str, class: Class) -> Result<Option<u64>, (Kind, Duration)> {
        let outcome = limits.spend(limits.address(ip.parse().unwrap()), class);
        let left = outcome.map(|allowance| allowance.map(|allowance| allowance.remaining));
        left.map_err(|exceeded| (exceeded.kind, exceeded.wait))
    }

    #[test]
    fn a_rate_is_a_burst_and_then_one_at_a_time() {
        let config =
            LimitsConfig { address_per_second: 2, burst: Some(3), ..LimitsConfig::default() };
        let (limits, clock, _) = limits(&config);
        let check = |expect| assert_eq!(left(&limits, "203.0.113.1", Class::Rated), expect);
        let wait = |ms| Err((Kind::AddressRate, Duration::from_millis(ms)));
        check(Ok(Some(2)));
        check(Ok(Some(1)));
        check(Ok(Some(0)));
        check(wait(500));
        clock.advance(Duration::from_millis(400));
        check(wait(100));
        clock.advance(Duration::from_millis(100));
        check(Ok(Some(0)));
        check(wait(500));
        clock.advance(Duration::from_secs(60));
        check(Ok(Some(2)));
    }

    #[test]
    fn a_day_ends_at_midnight_utc_and_is_not_spent_by_what_the_rate_refuses() {
        let config = LimitsConfig {
            address_per_day: 2,
            address_per_second: 1,
            burst: Some(1),
            ..LimitsConfig::default()
        };
        let (limits, clock, _) = limits(&config);
        let check = |expect| assert_eq!(left(&limits, "203.0.113.1", Class::Daily), expect);
        check(Ok(Some(0)));
        for _ in 0..5 {
            check(Err((Kind::AddressRate, Duration::from_secs(1))));
        }
        clock.advance(Duration::from_secs(1));
        check(Ok(Some(0)));
        clock.advance(Duration::from_secs(1));
        check(Err((Kind::AddressDay, Duration::from_secs(3598))));
        clock.advance(Duration::from_secs(3597));
        check(Err((Kind::AddressDay, Duration::from_secs(1))));
        clock.advance(Duration::from_secs(1));
        check(Ok(Some(0)));
    }

    #[test]
    fn routes_are_classed_by_their_label() {
        for (route, class) in [
            ("/ping", Class::Free),
            ("/metrics", Class::Free),
            ("/.well-known/acme-challenge", Class::Free),
            ("/tr/v1/ppi/geoip", Class::Rated),
            ("/tr/v7/rpi/redirect", Class::Rated),
            ("/tr/v1/tr", Class::Event),
            ("/tr/v1/img", Class::Event),
            ("/tr/v1/ltv", Class::Event),
            ("/tr/v1/ws", Class::Daily),
        ] {
            assert_eq!(Class::of(route, "/any"), class, "{route}");
        }
        assert_eq!(Class::of("none", "/api/orders"), Class::Daily);
        assert_eq!(Class::of("none", "/short"), Class::Rated);
    }

    #[test]
    fn a_flood_of_addresses_does_not_give_anyone_a_fresh_allowance() {
        let config =
            LimitsConfig { address_per_day: 3, addresses_max: 64, ..LimitsConfig::default() };
        let (limits, _, metrics) = limits(&config);
        for _ in 0..3 {
            left(&limits, "203.0.113.1", Class::Daily).unwrap();
        }
        for n in 0..5_000_u32 {
            let ip = std::net::Ipv4Addr::from_bits(n + (10 << 24)).to_string();
            let _ = left(&limits, &ip, Class::Daily);
        }
        let refused = left(&limits, "203.0.113.1", Class::Daily).unwrap_err();
        assert_eq!(refused.0, Kind::AddressDay);
        assert!(metrics.limit_inherited.get() > 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn what_a_table_knows_is_never_less_than_what_was_spent(
            asked in prop::collection::vec(1_u64..60, 0..600),
        ) {
            let table: Table<u64> = Table::new(16, Metrics::new().unwrap().limit_inherited);
            let mut spent: HashMap<u64, u64> = HashMap::new();
            for tag in asked {
                let truth = spent.entry(tag).or_default();
                *truth += 1;
                let known = table.with(tag, 0, |spent| { *spent += 1; *spent });
                prop_assert!(known >= *truth);
            }
        }
    }
}

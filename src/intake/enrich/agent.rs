//! With what: browser, system and device by the user agent, the language, and the verdict.
//!
//! The expressions (uap-core, over a thousand) take some tenths of a second to compile, so a thread
//! of its own does it while the server already listens; an agent seen before that has a verdict and
//! a class but no family. What an agent says is kept by its text, because few agents send most events.

use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use flate2::read::GzDecoder;
use moka::sync::Cache;
use ua_parser::{Extractor, Regexes};

use super::super::RequestFacts;
use super::super::fields::cut;
use super::super::keys::{Keys, Purpose};
use super::{bots, fingerprint};
use crate::event::{Event, Verdict};

/// uap-core's expressions as JSON; see `LICENCES.md`.
static EXPRESSIONS: &[u8] = include_bytes!("agents.json.gz");
/// Bytes the expressions have at most when unpacked: six times today's.
const EXPRESSIONS_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an agent that are stored and looked at.
const AGENT_BYTES_MAX: usize = 512;
/// Agents remembered: about 6 MB; a site sees some thousands a day.
const AGENTS_MAX: u64 = 8192;
/// Bytes of a language tag (RFC 5646 recommends room for 35).
const LANGUAGE_BYTES_MAX: usize = 35;
/// The route that speaks for a server's own client, whose agent is the server's.
const SERVER_ROUTE: &str = "str";

/// Knows agents. Cheap to clone: clones share expressions and memory.
#[derive(Clone)]
pub struct Agents {
    extractor: Arc<OnceLock<Extractor<'static>>>,
    loading: Arc<Mutex<Option<JoinHandle<()>>>>,
    known: Cache<String, Arc<Known>>,
}

/// What an agent's text says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Browser family, for example `Mobile Safari`.
    pub browser: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Device.
    pub device: Option<String>,
    /// `desktop`, `mobile`, `tablet`, `tv`, `console`.
    pub class: Option<&'static str>,
    /// What kind of machine it names, if any.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<&'static str>,
    /// Hash of the text in lower case.
    bhash: Option<String>,
}

impl Agents {
    /// Knows verdicts and classes at once, and families as soon as the expressions are compiled.
    pub fn start() -> Self {
        let agents = Self {
            extractor: Arc::default(),
            loading: Arc::default(),
            known: Cache::new(AGENTS_MAX),
        };
        let extractor = Arc::clone(&agents.extractor);
        let load = move || {
            let Some(compiled) = compile() else {
                return tracing::error!("the built-in agent expressions are damaged");
            };
            // Set by this thread only.
            drop(extractor.set(compiled));
        };
        match std::thread::Builder::new().name("agents-load".to_owned()).spawn(load) {
            Ok(handle) => {
                *agents.loading.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
            }
            Err(error) => tracing::error!(%error, "agent expressions are not loaded"),
        }
        agents
    }

    /// Waits until the expressions are compiled.
    pub fn wait(&self) {
        let handle = self.loading.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic in the loader leaves families unknown, which look-ups already tolerate.
        drop(handle.map(JoinHandle::join));
    }

    /// What `agent` says, family and device included once the expressions are compiled.
    pub fn classify(&self, agent: &str) -> Known {
        let (verdict, reason) = bots::of_agent(agent);
        let mut known = Known { class: class(agent), verdict, reason, ..Known::default() };
        if let Some(extractor) = self.extractor.get() {
            let real = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty() && t != "Other");
            known.browser = extractor.ua.extract(agent).and_then(|found| real(&found.family));
            known.os = extractor.os.extract(agent).and_then(|found| real(&found.os));
            known.device = extractor.dev.extract(agent).and_then(|found| real(&found.device));
        }
        known
    }

    /// Fills `event.agent`. What the sender said about system and device wins.
    pub(in super::super) fn apply(&self, event: &mut Event, facts: &RequestFacts, keys: &Keys) {
        let agent = &mut event.agent;
        agent.ja4h = Some(fingerprint::ja4h(facts));
        if facts.route == SERVER_ROUTE {
            return;
        }
        if agent.culture.is_none() {
            agent.culture = facts.language.as_deref().and_then(first_language);
        }
        let mut text = facts.user_agent.as_deref().unwrap_or_default().trim().replace('\0', "");
        cut(&mut text, AGENT_BYTES_MAX);
        let known = self.known(&text, keys);
        agent.browser = known.browser.clone().or(agent.browser.take());
        agent.os = agent.os.take().or_else(|| known.os.clone());
        agent.device = agent.device.take().or_else(|| known.device.clone());
        agent.device_class = known.class.map(str::to_owned);
        agent.bhash.clone_from(&known.bhash);
        (agent.verdict, agent.reasons) = bots::judge(known.verdict, known.reason, &text, facts);
        agent.user_agent = Some(text).filter(|text| !text.is_empty());
    }

    fn known(&self, agent: &str, keys: &Keys) -> Arc<Known> {
        if let Some(known) = self.known.get(agent) {
            return known;
        }
        let is_complete = self.extractor.get().is_some();
        let mut known = self.classify(agent);
        if !agent.is_empty() {
            known.bhash = Some(keys.hash(Purpose::Agent, &agent.to_lowercase()));
        }
        let known = Arc::new(known);
        if is_complete {
            self.known.insert(agent.to_owned(), Arc::clone(&known));
        }
        known
    }
}

fn compile() -> Option<Extractor<'static>> {
    let mut json = Vec::new();
    GzDecoder::new(EXPRESSIONS).take(EXPRESSIONS_BYTES_MAX).read_to_end(&mut json).ok()?;
    let expressions: Regexes<'static> = serde_json::from_slice::<Regexes<'_>>(&json).ok()?;
    expressions.try_into().ok()
}

/// The first language of `Accept-Language`, lower case.
fn first_language(accepted: &str) -> Option<String> {
    let first = accepted.split([',', ';']).next()?.trim();
    let is_tag = first.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_tag && !first.is_empty() && first.len() <= LANGUAGE_BYTES_MAX)
        .then(|| first.to_ascii_lowercase())
}

/// The class of device by words that every such device sends.
fn class(agent: &str) -> Option<&'static str> {
    let agent = agent.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| agent.contains(word));
    if has(&[
        "smart-tv",
        "smarttv",
        "appletv",
        "googletv",
        "android tv",
        "hbbtv",
        "roku",
        "crkey",
        "bravia",
        "netcast",
        "web0s",
        "aftt",
        "aftm",
    ]) {
        Some("tv")
    } else if has(&["playstation", "xbox", "nintendo"]) {
        Some("console")
    } else if has(&["ipad", "tablet", "kindle", "silk/", "playbook"])
        || (agent.contains("android") && !agent.contains("mobile") && agent.starts_with("mozilla"))
    {
        Some("tablet")
    } else if has(&[
        "mobile",
        "iphone",
        "ipod",
        "android",
        "windows phone",
        "blackberry",
        "opera mini",
    ]) {
        Some("mobile")
    } else if has(&["windows nt", "macintosh", "x11", "cros ", "linux x86_64", "linux i686"]) {
        Some("desktop")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_systems_devices_and_classes_are_read_from_the_agent() {
        let agents = Agents::start();
        agents.wait();
        for (agent, browser, os, device, class) in [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
                Some("Chrome"),
                Some("Windows"),
                None,
                Some("desktop"),
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
                Some("Mobile Safari"),
                Some("iOS"),
                Some("iPhone"),
                Some("mobile"),
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:127.0) Gecko/20100101 Firefox/127.0",
                Some("Firefox"),
                Some("Mac OS X"),
                Some("Mac"),
                Some("desktop"),
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/12.1.2 Mobile/15E148 Safari/604.1",
                Some("Mobile Safari"),
                Some("iOS"),
                Some("iPad"),
                Some("tablet"),
            ),
            (
                "Mozilla/5.0 (Linux; Android 13; SM-X906C) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
                Some("Chrome"),
                Some("Android"),
                Some("Samsung SM-X906C"),
                Some("tablet"),
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
                Some("Edge"),
                Some("Windows"),
                None,
                Some("desktop"),
            ),
            ("", None, None, None, None),
        ] {
            let known = agents.classify(agent);
            assert_eq!(known.browser.as_deref(), browser, "{agent}");
            assert_eq!(known.os.as_deref(), os, "{agent}");
            assert_eq!(known.device.as_deref(), device, "{agent}");
            assert_eq!(known.class, class, "{agent}");
        }
    }

    #[test]
    fn the_first_language_is_a_tag_in_lower_case() {
        for (accepted, expect) in [
            ("en-US,en;q=0.9", Some("en-us")),
            ("de", Some("de")),
            ("fr;q=0.5", Some("fr")),
            ("*", None),
            ("", None),
            ("<script>", None),
        ] {
            assert_eq!(first_language(accepted).as_deref(), expect, "{accepted}");
        }
    }
}

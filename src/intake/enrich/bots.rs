//! Human or which kind of machine: rules over the user agent and the coherence of the headers.
//!
//! Nothing is dropped for being a machine; the event carries a verdict and the reasons for it, from
//! a closed set. One plain statement (a machine that names itself, an announced prefetch) decides.
//! Incoherent headers, which an odd but honest client can send as well, decide only in twos. An old
//! browser is only noted: some people have old machines, and logs of old days are imported.

use super::super::RequestFacts;
use crate::event::Verdict;

/// The agent names a machine.
pub(super) const NAMED: &str = "named";
/// The agent calls itself a bot, crawler or spider that is not listed.
pub(super) const GENERIC: &str = "generic";
/// No agent was sent.
pub(super) const NO_AGENT: &str = "no_agent";
/// The agent is too short to be a browser's.
pub(super) const SHORT_AGENT: &str = "short_agent";
/// The browser is so old that the text may be a pretence.
pub(super) const OLD_BROWSER: &str = "old_browser";
/// The browser fetched ahead of its user, or for a preview of the page.
pub(in super::super) const PREFETCH: &str = "prefetch";
const FROM_HEADER: &str = "from_header";
const HEADLESS_HINT: &str = "headless_hint";
const NO_LANGUAGE: &str = "no_language";
const NO_ENCODING: &str = "no_encoding";
const HINT_MISMATCH: &str = "hint_mismatch";
const SITE_MISMATCH: &str = "site_mismatch";

/// Bytes of the shortest agent that any browser sends.
const AGENT_BYTES_MIN: usize = 16;
/// Incoherent headers that together decide.
const SIGNS_MIN: usize = 2;

/// Parts of agents in lower case; the first that is found decides, so proxies stand before the
/// browsers they imitate, and assistants before the search engines of the same house.
static TOKENS: &[(&str, Verdict)] = &[
    ("googleimageproxy", Verdict::ProxyOpen),
    ("yahoomailproxy", Verdict::ProxyOpen),
    ("gmailimageproxy", Verdict::ProxyOpen),
    ("outlookimageproxy", Verdict::ProxyOpen),
    ("yandeximageresizer", Verdict::ProxyOpen),
    ("gptbot", Verdict::AiCrawler),
    ("oai-searchbot", Verdict::AiCrawler),
    ("chatgpt-user", Verdict::AiCrawler),
    ("claudebot", Verdict::AiCrawler),
    ("claude-web", Verdict::AiCrawler),
    ("claude-user", Verdict::AiCrawler),
    ("claude-searchbot", Verdict::AiCrawler),
    ("anthropic-ai", Verdict::AiCrawler),
    ("perplexitybot", Verdict::AiCrawler),
    ("perplexity-user", Verdict::AiCrawler),
    ("google-extended", Verdict::AiCrawler),
    ("googleother", Verdict::AiCrawler),
    ("google-cloudvertexbot", Verdict::AiCrawler),
    ("google-notebooklm", Verdict::AiCrawler),
    ("gemini-deep-research", Verdict::AiCrawler),
    ("ccbot", Verdict::AiCrawler),
    ("bytespider", Verdict::AiCrawler),
    ("amazonbot", Verdict::AiCrawler),
    ("applebot-extended", Verdict::AiCrawler),
    ("meta-externalagent", Verdict::AiCrawler),
    ("meta-externalfetcher", Verdict::AiCrawler),
    ("meta-webindexer", Verdict::AiCrawler),
    ("facebookbot", Verdict::AiCrawler),
    ("cohere-ai", Verdict::AiCrawler),
    ("cohere-training", Verdict::AiCrawler),
    ("diffbot", Verdict::AiCrawler),
    ("youbot", Verdict::AiCrawler),
    ("ai2bot", Verdict::AiCrawler),
    ("mistralai", Verdict::AiCrawler),
    ("timpibot", Verdict::AiCrawler),
    ("imagesiftbot", Verdict::AiCrawler),
    ("omgili", Verdict::AiCrawler),
    ("duckassistbot", Verdict::AiCrawler),
    ("deepseekbot", Verdict::AiCrawler),
    ("pangubot", Verdict::AiCrawler),
    ("kangaroo bot", Verdict::AiCrawler),
    ("img2dataset", Verdict::AiCrawler),
    ("iaskspider", Verdict::AiCrawler),
    ("firecrawl", Verdict::AiCrawler),
    ("grokbot", Verdict::AiCrawler),
    ("andibot", Verdict::AiCrawler),
    ("phindbot", Verdict::AiCrawler),
    ("bedrockbot", Verdict::AiCrawler),
    ("devin/", Verdict::AiCrawler),
    ("novaact", Verdict::AiCrawler),
    ("webzio-extended", Verdict::AiCrawler),
    ("velenpublicwebcrawler", Verdict::AiCrawler),
    ("icc-crawler", Verdict::AiCrawler),
    ("friendlycrawler", Verdict::AiCrawler),
    ("sidetrade", Verdict::AiCrawler),
    ("headlesschrome", Verdict::Headless),
    ("phantomjs", Verdict::Headless),
    ("slimerjs", Verdict::Headless),
    ("puppeteer", Verdict::Headless),
    ("playwright", Verdict::Headless),
    ("selenium", Verdict::Headless),
    ("webdriver", Verdict::Headless),
    ("cypress", Verdict::Headless),
    ("prerender", Verdict::Headless),
    ("rendertron", Verdict::Headless),
    ("htmlunit", Verdict::Headless),
    ("jsdom", Verdict::Headless),
    ("zombie.js", Verdict::Headless),
    ("nightmare", Verdict::Headless),
    ("facebookexternalhit", Verdict::Preview),
    ("facebookcatalog", Verdict::Preview),
    ("facebot", Verdict::Preview),
    ("twitterbot", Verdict::Preview),
    ("linkedinbot", Verdict::Preview),
    ("slackbot", Verdict::Preview),
    ("slack-imgproxy", Verdict::Preview),
    ("discordbot", Verdict::Preview),
    ("telegrambot", Verdict::Preview),
    ("whatsapp", Verdict::Preview),
    ("skypeuripreview", Verdict::Preview),
    ("pinterestbot", Verdict::Preview),
    ("redditbot", Verdict::Preview),
    ("viber", Verdict::Preview),
    ("embedly", Verdict::Preview),
    ("iframely", Verdict::Preview),
    ("vkshare", Verdict::Preview),
    ("tumblr/", Verdict::Preview),
    ("mastodon/", Verdict::Preview),
    ("cardyb", Verdict::Preview),
    ("bluesky", Verdict::Preview),
    ("microsoftpreview", Verdict::Preview),
    ("bitlybot", Verdict::Preview),
    ("quora link preview", Verdict::Preview),
    ("google-pagerenderer", Verdict::Preview),
    ("bufferbot", Verdict::Preview),
    ("outbrain", Verdict::Preview),
    ("flipboardproxy", Verdict::Preview),
    ("nuzzel", Verdict::Preview),
    ("w3c_validator", Verdict::Preview),
    ("zoombot", Verdict::Preview),
    ("uptimerobot", Verdict::Monitor),
    ("pingdom", Verdict::Monitor),
    ("statuscake", Verdict::Monitor),
    ("site24x7", Verdict::Monitor),
    ("better uptime", Verdict::Monitor),
    ("betterstack", Verdict::Monitor),
    ("datadog", Verdict::Monitor),
    ("newrelicpinger", Verdict::Monitor),
    ("newrelicsynthetics", Verdict::Monitor),
    ("nagios", Verdict::Monitor),
    ("check_http", Verdict::Monitor),
    ("zabbix", Verdict::Monitor),
    ("freshping", Verdict::Monitor),
    ("hetrixtools", Verdict::Monitor),
    ("updown.io", Verdict::Monitor),
    ("uptime-kuma", Verdict::Monitor),
    ("gtmetrix", Verdict::Monitor),
    ("catchpoint", Verdict::Monitor),
    ("kube-probe", Verdict::Monitor),
    ("elb-healthchecker", Verdict::Monitor),
    ("googlehc", Verdict::Monitor),
    ("googlestackdrivermonitoring", Verdict::Monitor),
    ("checkly", Verdict::Monitor),
    ("blackbox-exporter", Verdict::Monitor),
    ("blackbox exporter", Verdict::Monitor),
    ("prometheus/", Verdict::Monitor),
    ("uptimia", Verdict::Monitor),
    ("montastic", Verdict::Monitor),
    ("consul health", Verdict::Monitor),
    ("chrome-lighthouse", Verdict::Monitor),
    ("google page speed", Verdict::Monitor),
    ("pagespeed", Verdict::Monitor),
    ("ptst/", Verdict::Monitor),
    ("dotcom-monitor", Verdict::Monitor),
    ("ohdear", Verdict::Monitor),
    ("pulsetic", Verdict::Monitor),
    ("sentryuptimebot", Verdict::Monitor),
    ("cloudflare-healthchecks", Verdict::Monitor),
    ("cloudflare-traffic-manager", Verdict::Monitor),
    ("nmap", Verdict::Scanner),
    ("nikto", Verdict::Scanner),
    ("sqlmap", Verdict::Scanner),
    ("masscan", Verdict::Scanner),
    ("zgrab", Verdict::Scanner),
    ("nuclei", Verdict::Scanner),
    ("censysinspect", Verdict::Scanner),
    ("censys", Verdict::Scanner),
    ("shodan", Verdict::Scanner),
    ("nessus", Verdict::Scanner),
    ("qualys", Verdict::Scanner),
    ("acunetix", Verdict::Scanner),
    ("wpscan", Verdict::Scanner),
    ("dirbuster", Verdict::Scanner),
    ("gobuster", Verdict::Scanner),
    ("feroxbuster", Verdict::Scanner),
    ("openvas", Verdict::Scanner),
    ("netcraft", Verdict::Scanner),
    ("paloaltonetworks", Verdict::Scanner),
    ("expanse", Verdict::Scanner),
    ("internetmeasurement", Verdict::Scanner),
    ("internet-measurement", Verdict::Scanner),
    ("l9explore", Verdict::Scanner),
    ("l9tcpid", Verdict::Scanner),
    ("barracuda", Verdict::Scanner),
    ("mimecast", Verdict::Scanner),
    ("proofpoint", Verdict::Scanner),
    ("bitdefender", Verdict::Scanner),
    ("virustotal", Verdict::Scanner),
    ("netsparker", Verdict::Scanner),
    ("invicti", Verdict::Scanner),
    ("detectify", Verdict::Scanner),
    ("fuzz faster", Verdict::Scanner),
    ("ffuf", Verdict::Scanner),
    ("burpcollaborator", Verdict::Scanner),
    ("arachni", Verdict::Scanner),
    ("wapiti", Verdict::Scanner),
    ("whatweb", Verdict::Scanner),
    ("httpx - open", Verdict::Scanner),
    ("leakix", Verdict::Scanner),
    ("zmeu", Verdict::Scanner),
    ("jorgee", Verdict::Scanner),
    ("project25499", Verdict::Scanner),
    ("odin", Verdict::Scanner),
    ("securitytrails", Verdict::Scanner),
    ("googlebot", Verdict::Crawler),
    ("google-inspectiontool", Verdict::Crawler),
    ("storebot-google", Verdict::Crawler),
    ("adsbot-google", Verdict::Crawler),
    ("mediapartners-google", Verdict::Crawler),
    ("feedfetcher", Verdict::Crawler),
    ("google-read-aloud", Verdict::Crawler),
    ("bingbot", Verdict::Crawler),
    ("adidxbot", Verdict::Crawler),
    ("bingpreview", Verdict::Crawler),
    ("msnbot", Verdict::Crawler),
    ("duckduckbot", Verdict::Crawler),
    ("baiduspider", Verdict::Crawler),
    ("yandex.com/bots", Verdict::Crawler),
    ("yandexbot", Verdict::Crawler),
    ("slurp", Verdict::Crawler),
    ("sogou", Verdict::Crawler),
    ("exabot", Verdict::Crawler),
    ("ahrefs", Verdict::Crawler),
    ("semrush", Verdict::Crawler),
    ("mj12bot", Verdict::Crawler),
    ("dotbot", Verdict::Crawler),
    ("petalbot", Verdict::Crawler),
    ("seznambot", Verdict::Crawler),
    ("applebot", Verdict::Crawler),
    ("ia_archiver", Verdict::Crawler),
    ("archive.org_bot", Verdict::Crawler),
    ("heritrix", Verdict::Crawler),
    ("feedly", Verdict::Crawler),
    ("feedburner", Verdict::Crawler),
    ("feedbin", Verdict::Crawler),
    ("newsblur", Verdict::Crawler),
    ("inoreader", Verdict::Crawler),
    ("theoldreader", Verdict::Crawler),
    ("tiny tiny rss", Verdict::Crawler),
    ("freshrss", Verdict::Crawler),
    ("netnewswire", Verdict::Crawler),
    ("simplepie", Verdict::Crawler),
    ("universalfeedparser", Verdict::Crawler),
    ("magpierss", Verdict::Crawler),
    ("screaming frog", Verdict::Crawler),
    ("sitebulb", Verdict::Crawler),
    ("rogerbot", Verdict::Crawler),
    ("blexbot", Verdict::Crawler),
    ("serpstat", Verdict::Crawler),
    ("dataforseo", Verdict::Crawler),
    ("megaindex", Verdict::Crawler),
    ("linkdex", Verdict::Crawler),
    ("coccocbot", Verdict::Crawler),
    ("qwantify", Verdict::Crawler),
    ("mojeek", Verdict::Crawler),
    ("naver", Verdict::Crawler),
    ("yeti/", Verdict::Crawler),
    ("daum", Verdict::Crawler),
    ("turnitin", Verdict::Crawler),
    ("semanticscholar", Verdict::Crawler),
    ("curl/", Verdict::Crawler),
    ("wget", Verdict::Crawler),
    ("python-requests", Verdict::Crawler),
    ("python-urllib", Verdict::Crawler),
    ("python-httpx", Verdict::Crawler),
    ("python/", Verdict::Crawler),
    ("aiohttp", Verdict::Crawler),
    ("go-http-client", Verdict::Crawler),
    ("java/", Verdict::Crawler),
    ("apache-httpclient", Verdict::Crawler),
    ("jakarta", Verdict::Crawler),
    ("libwww", Verdict::Crawler),
    ("lwp::", Verdict::Crawler),
    ("ruby", Verdict::Crawler),
    ("php/", Verdict::Crawler),
    ("guzzle", Verdict::Crawler),
    ("node-fetch", Verdict::Crawler),
    ("axios", Verdict::Crawler),
    ("undici", Verdict::Crawler),
    ("got (", Verdict::Crawler),
    ("scrapy", Verdict::Crawler),
    ("postmanruntime", Verdict::Crawler),
    ("insomnia", Verdict::Crawler),
    ("httpie", Verdict::Crawler),
    ("httrack", Verdict::Crawler),
    ("mechanize", Verdict::Crawler),
    ("colly", Verdict::Crawler),
    ("winhttp", Verdict::Crawler),
    ("powershell", Verdict::Crawler),
    ("libcurl", Verdict::Crawler),
    ("pycurl", Verdict::Crawler),
    ("http_request", Verdict::Crawler),
    ("http-client", Verdict::Crawler),
    ("httpunit", Verdict::Crawler),
    ("reqwest", Verdict::Crawler),
    ("hyper/", Verdict::Crawler),
    ("rest-client", Verdict::Crawler),
    ("faraday", Verdict::Crawler),
    ("nutch", Verdict::Crawler),
    ("larbin", Verdict::Crawler),
    ("wordpress/", Verdict::Crawler),
    ("drupal", Verdict::Crawler),
    ("magento", Verdict::Crawler),
];

/// What an agent says about itself; the part of the verdict that can be kept by agent.
pub(super) fn of_agent(agent: &str) -> (Verdict, Option<&'static str>) {
    if agent.is_empty() {
        return (Verdict::Crawler, Some(NO_AGENT));
    }
    let agent = agent.to_ascii_lowercase();
    if let Some((_, verdict)) = TOKENS.iter().find(|(token, _)| agent.contains(token)) {
        return (*verdict, Some(NAMED));
    }
    if is_generic(&agent) {
        return (Verdict::Crawler, Some(GENERIC));
    }
    if agent.len() < AGENT_BYTES_MIN {
        return (Verdict::Crawler, Some(SHORT_AGENT));
    }
    (Verdict::Human, is_old(&agent).then_some(OLD_BROWSER))
}

/// The verdict of a request whose agent alone says `own` for `reason`.
pub(super) fn judge(
    own: Verdict,
    reason: Option<&'static str>,
    agent: &str,
    facts: &RequestFacts,
) -> (Verdict, Vec<String>) {
    let hint = |name| facts.hints.get(name).map(String::as_str);
    let mut verdict = own;
    let mut reasons: Vec<&str> = reason.into_iter().collect();
    let mut hard = |found: bool, as_verdict: Verdict, reason| {
        if found {
            reasons.push(reason);
            if verdict == Verdict::Human {
                verdict = as_verdict;
            }
        }
    };
    let is_prefetch = ["sec-purpose", "purpose", "x-purpose", "x-moz"].into_iter().any(|name| {
        hint(name).is_some_and(|text| text.contains("prefetch") || text.contains("preview"))
    });
    hard(is_prefetch, Verdict::Preview, PREFETCH);
    hard(hint("from").is_some(), Verdict::Crawler, FROM_HEADER);
    let brands = hint("sec-ch-ua").unwrap_or_default();
    hard(brands.contains("Headless"), Verdict::Headless, HEADLESS_HINT);
    if verdict == Verdict::Human && agent.starts_with("Mozilla/") {
        let site = hint("sec-fetch-site");
        let mut signs = 0;
        for (found, reason) in [
            (facts.language.is_none(), NO_LANGUAGE),
            (hint("accept-encoding").is_none(), NO_ENCODING),
            (contradicts(agent, hint("sec-ch-ua-platform")), HINT_MISMATCH),
            (site == Some("none") && facts.referer.is_some(), SITE_MISMATCH),
        ] {
            if found {
                reasons.push(reason);
                signs += 1;
            }
        }
        if signs >= SIGNS_MIN {
            verdict = Verdict::Crawler;
        }
    }
    (verdict, reasons.into_iter().map(str::to_owned).collect())
}

/// `…bot/`, `crawler`, `spider` and the like, or a contact as only robots give one. `Cubot` makes
/// telephones.
fn is_generic(agent: &str) -> bool {
    let ends_word = |at: usize| {
        agent.as_bytes().get(at).is_none_or(|next| matches!(next, b'/' | b';' | b')' | b',' | b'-'))
    };
    let is_bot = agent.match_indices("bot").any(|(at, _)| {
        ends_word(at + 3) && !agent.get(..at).is_some_and(|before| before.ends_with("cu"))
    });
    let has_contact = agent.contains("compatible;") && agent.contains(['@', '+']);
    is_bot
        || has_contact
        || ["crawler", "spider", "scraper", "crawl/", "fetcher/", "+http"]
            .iter()
            .any(|t| agent.contains(t))
}

/// Browsers whose last users updated years ago, because the machine they run on forced them to.
fn is_old(agent: &str) -> bool {
    const CHROME_MIN: u32 = 70;
    const FIREFOX_MIN: u32 = 60;
    let major = |name: &str| -> Option<u32> {
        let (_, rest) = agent.split_once(name)?;
        rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
    };
    agent.contains("msie ")
        || major("chrome/").is_some_and(|version| version < CHROME_MIN)
        || major("firefox/").is_some_and(|version| version < FIREFOX_MIN)
}

/// Whether the platform in the hints is not the one in the agent.
fn contradicts(agent: &str, platform: Option<&str>) -> bool {
    let token = match platform.map(|text| text.trim_matches('"')) {
        Some("Windows") => "Windows",
        Some("macOS") => "Mac OS X",
        Some("Android") => "Android",
        Some("iOS") => "like Mac OS X",
        Some("Chrome OS" | "Chromium OS") => "CrOS",
        Some("Linux") => "Linux",
        _ => return false,
    };
    // A telephone that asks for the desktop page says Linux in the agent and Android in the hint.
    let is_desktop_mode = token == "Android" && agent.contains("X11; Linux");
    !agent.contains(token) && !is_desktop_mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_name_themselves_are_known_by_kind() {
        for (agent, expect) in [
            (
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
                Verdict::Crawler,
            ),
            (
                "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
                Verdict::Crawler,
            ),
            ("DuckDuckBot/1.1; (+http://duckduckgo.com/duckduckbot.html)", Verdict::Crawler),
            ("Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)", Verdict::Crawler),
            (
                "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
                Verdict::Crawler,
            ),
            ("Mozilla/5.0 (compatible; Baiduspider/2.0)", Verdict::Crawler),
            ("curl/8.5.0", Verdict::Crawler),
            ("Wget/1.21.4", Verdict::Crawler),
            ("python-requests/2.32.3", Verdict::Crawler),
            ("Go-http-client/2.0", Verdict::Crawler),
            ("Feedly/1.0 (+http://www.feedly.com/fetcher.html; 3 subscribers)", Verdict::Crawler),
            ("UniversalFeedParser/4.2-pre-314-svn +http://feedparser.org/", Verdict::Crawler),
            ("Tiny Tiny RSS/1.11 (http://tt-rss.org/)", Verdict::Crawler),
            ("Mozilla/5.0 (compatible; Ezooms/1.0; help@moz.com)", Verdict::Crawler),
            ("SomeUnheardOfBot/0.1", Verdict::Crawler),
            ("My little crawler (beta) for tests", Verdict::Crawler),
            ("", Verdict::Crawler),
            ("Mozilla", Verdict::Crawler),
            (
                "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
                Verdict::AiCrawler,
            ),
            (
                "Mozilla/5.0 (compatible; ClaudeBot/1.0; +claudebot@anthropic.com)",
                Verdict::AiCrawler,
            ),
            (
                "Mozilla/5.0 (compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)",
                Verdict::AiCrawler,
            ),
            ("CCBot/2.0 (https://commoncrawl.org/faq/)", Verdict::AiCrawler),
            (
                "Mozilla/5.0 (Linux; Android 5.0) AppleWebKit/537.36 (compatible; Bytespider; spider-feedback@bytedance.com)",
                Verdict::AiCrawler,
            ),
            (
                "meta-externalagent/1.1 (+https://developers.facebook.com/docs/sharing/webmasters/crawler)",
                Verdict::AiCrawler,
            ),
            (
                "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
                Verdict::Preview,
            ),
            ("Twitterbot/1.0", Verdict::Preview),
            ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", Verdict::Preview),
            ("Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)", Verdict::Preview),
            ("WhatsApp/2.23.20.0", Verdict::Preview),
            (
                "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
                Verdict::Monitor,
            ),
            ("Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", Verdict::Monitor),
            ("kube-probe/1.29", Verdict::Monitor),
            (
                "Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)",
                Verdict::Scanner,
            ),
            ("sqlmap/1.7#stable (https://sqlmap.org)", Verdict::Scanner),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/126.0.0.0 Safari/537.36",
                Verdict::Headless,
            ),
            (
                "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
                Verdict::ProxyOpen,
            ),
            (
                "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
                Verdict::ProxyOpen,
            ),
        ] {
            assert_eq!(of_agent(agent).0, expect, "{agent}");
        }
    }

    #[test]
    fn people_are_not_taken_for_machines() {
        for agent in [
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:127.0) Gecko/20100101 Firefox/127.0",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
            "Mozilla/5.0 (Linux; Android 12; CUBOT X50) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 Chrome/125.0 Mobile Safari/537.36 [FBAN/EMA;FBAV/400]",
            "MyShop/4.2 (iPhone; iOS 17.5) CFNetwork/1496 Darwin/23.5.0",
            "okhttp/4.12.0 (Android 14)",
        ] {
            assert_eq!(of_agent(agent), (Verdict::Human, None), "{agent}");
        }
    }

    #[test]
    fn an_old_browser_alone_is_only_a_sign() {
        let agent = "Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0.1700.77 Safari/537.36";
        assert_eq!(of_agent(agent), (Verdict::Human, Some(OLD_BROWSER)));
    }
}

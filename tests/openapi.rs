//! `/openapi.json` against the program as built: every route, every example, every answer.
//!
//! The document's own conventions: a request without a body is made of the parameters that have an
//! `example`; an answer is the operation's first success unless `x-status` (at the operation or at the
//! example of a body) names another.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Map, Value, json};
use support::{Answer, Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const KEY: &str = "5e7a1b8d3f6051c2a7e49f2c";
/// The account of the examples that need one: `maker` and its password.
const BASIC: &str = "Basic bWFrZXI6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5";
const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];
/// Headers that say something; an answer that has one documents it.
const TOLD: [&str; 11] = [
    "x-request-id",
    "x-ack",
    "retry-after",
    "set-cookie",
    "location",
    "allow",
    "www-authenticate",
    "clear-site-data",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
];

fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/assets/openapi.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A server with everything that `/health` may tell of, and with limits that are never reached.
fn start(extra: &Value) -> (Site, Server) {
    let mut settings = json!({
        "ListenHTTPS": "127.0.0.1:0",
        "UseLocalTLS": true,
        "RateLimitPerSecond": 100_000,
        "ProxyUrl": "http://127.0.0.1:9",
        "Domains": ["example.com"],
    });
    settings.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let site = Site::new(PROGRAM, settings);
    let mut command = Command::new(PROGRAM)
        .args(["account", "add", "maker", "--password-stdin", "--config"])
        .arg(site.path().join("config.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    command.stdin.take().unwrap().write_all(b"correct horse battery\n").unwrap();
    assert!(command.wait().unwrap().success());
    let server = site.start();
    let deadline = Instant::now() + support::PATIENCE;
    while server.health()["sinks"][0]["state"] != "up" {
        assert!(Instant::now() < deadline, "the store does not open");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    (site, server)
}

/// One request that the document gives as an example.
#[derive(Clone)]
struct Example {
    name: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    status: String,
    responses: Value,
}

impl Example {
    fn send(&self, server: &Server, more: &[(&str, &str)]) -> Answer {
        let mut headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.extend(more);
        let mut client = Client::connect(server.address).unwrap();
        let method = self.method.to_uppercase();
        client.request(&method, &self.path, &headers, self.body.as_bytes()).unwrap()
    }
}

/// The examples, those that store something first.
fn examples(document: &Value) -> Vec<Example> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.extend(examples_of(document, path, method, operation));
        }
    }
    found.sort_by_key(|example| example.method == "get");
    found
}

fn examples_of(document: &Value, path: &str, method: &str, operation: &Value) -> Vec<Example> {
    let responses = operation["responses"].clone();
    let first = responses.as_object().unwrap().keys().next().unwrap();
    let status = operation["x-status"].as_u64().map_or(first.clone(), |status| status.to_string());
    let (mut path, mut query, mut headers) = (path.to_owned(), String::new(), Vec::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolved(document, parameter);
        let Some(value) = parameter["example"].as_str() else { continue };
        let name = parameter["name"].as_str().unwrap();
        match parameter["in"].as_str().unwrap() {
            "path" => path = path.replace(&format!("{{{name}}}"), value),
            "query" => {
                query.push(if query.is_empty() { '?' } else { '&' });
                let coded = url::form_urlencoded::byte_serialize(value.as_bytes());
                query.extend([name, "="].into_iter().chain(coded));
            }
            "header" => headers.push((name.to_owned(), value.to_owned())),
            _ => headers.push(("Cookie".to_owned(), format!("{name}={value}"))),
        }
    }
    if !operation.pointer("/security/0/account").unwrap_or(&Value::Null).is_null() {
        headers.push(("Authorization".to_owned(), BASIC.to_owned()));
    }
    assert!(!path.contains('{'), "{path}: a part of the path has no example");
    let example = |name: &str, headers, body, status| Example {
        name: format!("{method} {path} {name}"),
        method: method.to_owned(),
        path: format!("{path}{query}"),
        headers,
        body,
        status,
        responses: responses.clone(),
    };
    let Some(content) = operation["requestBody"]["content"].as_object() else {
        return vec![example("", headers, String::new(), status)];
    };
    let mut found = Vec::new();
    for (kind, media) in content {
        for (name, sample) in media["examples"].as_object().unwrap() {
            let value = &sample["value"];
            if sample["x-status"].is_null() {
                let errors = errors(document, &media["schema"], value);
                assert!(errors.is_empty(), "{path} {name}: {errors:?}");
            }
            let mut headers = headers.clone();
            headers.push(("Content-Type".to_owned(), kind.clone()));
            let body = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let status = sample["x-status"].as_u64().map_or(status.clone(), |one| one.to_string());
            found.push(example(name, headers, body, status));
        }
    }
    found
}

/// What an answer has that the document does not say.
fn undocumented(document: &Value, example: &Example, answer: &Answer) -> Vec<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let Some(response) = example.responses.get(answer.status.to_string()) else {
        return vec![format!("status {}: {text}", answer.status)];
    };
    let response = resolved(document, response);
    let documented: BTreeSet<String> = response["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(n, _)| n.to_lowercase())
        .collect();
    let mut wrong: Vec<String> = TOLD
        .iter()
        .filter(|name| answer.header(name).is_some() && !documented.contains(**name))
        .map(|name| format!("header {name}"))
        .collect();
    let kind = answer.header("content-type").map(|kind| kind.split(';').next().unwrap().trim());
    match (kind, response["content"].as_object()) {
        (None, _) if answer.body.is_empty() => {}
        (Some(kind), Some(content))
            if content.contains_key(kind) || content.contains_key("*/*") =>
        {
            let schema = &response["content"][kind]["schema"];
            let value = match kind {
                "application/json" => serde_json::from_slice(&answer.body).unwrap(),
                _ => Value::String(text.into_owned()),
            };
            if !schema.is_null() {
                wrong.extend(errors(document, schema, &value));
            }
        }
        _ => wrong.push(format!("content {kind:?}: {text}")),
    }
    wrong
}

fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(pointer) => document.pointer(pointer.trim_start_matches('#')).expect(pointer),
        None => value,
    }
}

/// Where `value` is not as `schema` says; a keyword that is not known here is an error of the test.
fn errors(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let schema = resolved(document, schema);
    let mut wrong = Vec::new();
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let is_good = match keyword.as_str() {
            "description" | "format" => true,
            "required" => value.as_object().is_none_or(|fields| {
                let mut names = rule.as_array().unwrap().iter().filter_map(Value::as_str);
                names.all(|name| fields.contains_key(name))
            }),
            "type" => types(rule).any(|kind| is_of(kind, value)),
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => rule == value,
            "pattern" => value.as_str().is_none_or(|text| {
                regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)
            }),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| text.len() >= count(rule)),
            "maxLength" => value.as_str().is_none_or(|text| text.len() <= count(rule)),
            "minItems" => value.as_array().is_none_or(|items| items.len() >= count(rule)),
            "maxItems" => value.as_array().is_none_or(|items| items.len() <= count(rule)),
            "anyOf" => {
                let mut choices = rule.as_array().unwrap().iter();
                choices.any(|choice| errors(document, choice, value).is_empty())
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    wrong.extend(errors(document, rule, item));
                }
                true
            }
            "properties" | "additionalProperties" => {
                if let (Some(fields), "properties") = (value.as_object(), keyword.as_str()) {
                    wrong.extend(errors_of_fields(document, schema, fields));
                }
                true
            }
            other => panic!("the test knows no keyword {other:?}"),
        };
        if !is_good {
            wrong.push(format!("{value} is not {keyword} {rule}"));
        }
    }
    wrong
}

fn errors_of_fields(document: &Value, schema: &Value, fields: &Map<String, Value>) -> Vec<String> {
    let known = schema["properties"].as_object().unwrap();
    let mut wrong = Vec::new();
    for (name, value) in fields {
        match known.get(name) {
            Some(schema) => wrong.extend(errors(document, schema, value)),
            None if schema["additionalProperties"] == false => wrong.push(format!("{name} is new")),
            None => {}
        }
    }
    wrong
}

fn types(rule: &Value) -> impl Iterator<Item = &str> {
    rule.as_str().into_iter().chain(rule.as_array().into_iter().flatten().filter_map(Value::as_str))
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other:?}"),
    }
}

fn count(rule: &Value) -> usize {
    usize::try_from(rule.as_u64().unwrap()).unwrap()
}

/// A path as the README's table has it: without what follows, and without the slash at its end.
fn route(path: &str) -> String {
    let path = if path.contains("acme") { path } else { path.split('{').next().unwrap() };
    path.trim_end_matches(['/', '*']).to_owned()
}

#[test]
fn the_document_has_the_routes_and_methods_of_the_readmes_table() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in readme.split("\n## Routes").nth(1).unwrap().split("\n## ").next().unwrap().lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let Some(path) = line.strip_prefix("| `/").and(cells[0].split('`').nth(1)) else {
            continue;
        };
        // Where any method will do, the document names the one that people use.
        let methods = if cells[1] == "any" { "GET" } else { cells[1] };
        let methods = methods.split(", ").map(str::to_lowercase).collect();
        told.insert(route(path), methods);
    }
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, item) in document()["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().cloned();
        documented.entry(route(path)).or_default().extend(methods);
    }
    assert_eq!(documented, told);
}

#[test]
fn every_example_is_answered_as_documented() {
    let (document, (_site, server)) = (document(), start(&json!({})));
    let examples = examples(&document);
    assert!(examples.len() > 30, "{}", examples.len());
    let mut is_stored = false;
    for example in &examples {
        if example.method == "get" && !is_stored {
            server.drained();
            is_stored = true;
        }
        let answer = example.send(&server, &[]);
        let wrong = undocumented(&document, example, &answer);
        assert_eq!(wrong, Vec::<String>::new(), "{}", example.name);
        assert_eq!(answer.status.to_string(), example.status, "{}", example.name);
    }
}

#[test]
fn what_needs_a_key_says_401_without_and_answers_with_one() {
    let keys = json!({"Keys": [
        {"Name": "billing", "Key": KEY, "Kind": "server"},
        {"Name": "shop", "Key": "0f6051c2a7e49f2c5e7a1b8d", "Kind": "site", "Hosts": ["shop.example"]},
    ]});
    let (document, (_site, server)) = (document(), start(&keys));
    let mut refused = BTreeSet::new();
    for example in examples(&document) {
        let with_key = example.send(&server, &[("X-Api-Key", KEY)]);
        let without = example.send(&server, &[]);
        for answer in [&with_key, &without] {
            let wrong = undocumented(&document, &example, answer);
            assert_eq!(wrong, Vec::<String>::new(), "{}", example.name);
        }
        assert_ne!(with_key.status, 401, "{}", example.name);
        if without.status == 401 {
            refused.insert(route(example.path.split('?').next().unwrap()));
        }
    }
    for name in ["tr", "str", "img", "ws", "ltv", "ppi/agree", "ppi/geoip"] {
        assert!(refused.iter().any(|path| path.starts_with(&format!("/tr/v1/{name}"))), "{name}");
    }
}

#[test]
fn other_methods_are_refused_only_where_documented() {
    let (document, (_site, server)) = (document(), start(&json!({})));
    for example in examples(&document) {
        if example.method != "get" {
            continue;
        }
        for method in METHODS {
            let other =
                Example { method: method.to_owned(), body: String::new(), ..example.clone() };
            let answer = other.send(&server, &[]);
            if answer.status == 405 {
                assert_eq!(undocumented(&document, &other, &answer), Vec::<String>::new());
                let allow = answer.header("allow").unwrap();
                assert!(allow.contains("GET") && !allow.contains(&method.to_uppercase()));
            }
        }
    }
}

#[test]
fn the_document_is_of_this_version_and_read_from_anywhere() {
    let (_site, server) = start(&json!({"AllowOrigins": ["https://site.example"]}));
    let mut client = Client::connect(server.address).unwrap();
    let headers = [("Origin", "https://docs.example")];
    let answer = client.request("GET", "/openapi.json", &headers, b"").unwrap();
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let found: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(found, document());
    assert_eq!(found["info"]["version"], env!("CARGO_PKG_VERSION"));
    let tag = answer.header("etag").unwrap();
    let again = client.request("GET", "/openapi.json", &[("If-None-Match", tag)], b"").unwrap();
    assert_eq!((again.status, again.body.len()), (304, 0));
}

//! A log in, requests out: against a server made of a few lines.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LOG: &str = "\
203.0.113.9 - - [17/May/2015:10:05:03 +0000] \"GET /a?q=1 HTTP/1.1\" 200 5 \"http://x.example/p?q\" \"Agent \\\"1\\\"\"
- - - [17/May/2015:10:05:04 +0000] \"-\" 408 0 \"-\" \"-\"
name.example - - [17/May/2015:10:05:05 +0000] \"HEAD /b HTTP/1.0\" 404 - \"-\" \"-\"
garbage
";

fn site() -> Site {
    "https://Shop.Example".parse().unwrap()
}

#[test]
fn a_line_becomes_the_request_a_browser_would_have_sent() {
    let hit = hit(1, LOG.lines().next(), &site()).unwrap();
    assert_eq!(hit.host, "shop.example");
    assert_eq!(hit.agent.as_deref(), Some("Agent \"1\""));
    assert_eq!(
        Value::Object(hit.fields),
        json!({
            "eid": hit.id.to_string(), "ename": "page_view", "etyp": "import",
            "url": "https://shop.example/a?q=1", "last": "http://x.example/p?q",
            "ip": "203.0.113.9",
            "created_at": "2015-05-17T10:05:03+00:00",
            "http": {"method": "GET", "status": 200, "bytes": 5},
        })
    );
}

#[test]
fn an_id_depends_on_the_lines_number_and_text_only() {
    let line = LOG.lines().next();
    let id = |number, site: &str| hit(number, line, &site.parse().unwrap()).unwrap().id;
    assert_eq!(id(1, "a.example"), id(1, "b.example"));
    assert_ne!(id(1, "a.example"), id(2, "a.example"));
    assert_eq!(id(1, "localhost").get_version_num(), 5);
}

#[test]
fn sites_are_hosts_with_or_without_a_scheme() {
    assert_eq!(site(), Site { scheme: "https".to_owned(), host: "shop.example".to_owned() });
    for wrong in ["", "ftp://a", "a.example/path", "https://", "user@host"] {
        assert!(wrong.parse::<Site>().is_err(), "{wrong}");
    }
}

/// Answers each request with the next of `answers`, the last one for ever, and keeps what came.
async fn server(answers: Vec<&'static str>) -> (Uri, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, next) = (Arc::clone(&seen), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answers.clone(), Arc::clone(&log), Arc::clone(&next)));
        }
    });
    (url, seen)
}

async fn serve(
    stream: TcpStream,
    answers: Vec<&'static str>,
    log: Arc<Mutex<Vec<String>>>,
    next: Arc<AtomicUsize>,
) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut request, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            request.push_str(&line);
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        log.lock().unwrap().push(request + &String::from_utf8(body).unwrap());
        let index = next.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
        stream.write_all(answers[index].as_bytes()).await.unwrap();
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const LATER: &str = "HTTP/1.1 503 Later\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
const NEVER: &str = "HTTP/1.1 400 No\r\ncontent-length: 6\r\n\r\nno url";

async fn import(log: &str, answers: Vec<&'static str>) -> (Outcome, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access_log");
    std::fs::write(&file, log).unwrap();
    let (url, seen) = server(answers).await;
    let import = Import { file, url, site: site(), in_flight: 2, key: None };
    let mut last = None;
    let outcome = run(&import, &mut |progress| last = Some(progress)).await.unwrap();
    let last = last.unwrap();
    assert_eq!((last.lines, last.sent), (outcome.lines, outcome.sent));
    let seen = seen.lock().unwrap().clone();
    (outcome, seen)
}

#[tokio::test]
async fn every_line_is_sent_or_accounted_for() {
    let (outcome, seen) = import(LOG, vec![OK]).await;
    assert_eq!((outcome.lines, outcome.sent, outcome.refused, outcome.retries), (4, 2, 0, 0));
    assert_eq!(outcome.odd, BTreeMap::from([(Odd::Format, 1), (Odd::NoRequest, 1)]));
    let examples = [(2, "no request".to_owned()), (4, "not in combined format".to_owned())];
    assert_eq!(outcome.examples, examples);
    assert_eq!(seen.len(), 2);
    let first = seen.iter().find(|request| request.contains("x.example")).unwrap();
    for part in [
        "POST /tr/v1/tr/ HTTP/1.1\r\n",
        "host: shop.example\r\n",
        "user-agent: Agent \"1\"\r\n",
        "\"ip\":\"203.0.113.9\"",
        "content-type: application/json\r\n",
    ] {
        assert!(first.contains(part), "{part} in {first}");
    }
    let second = seen.iter().find(|request| request.contains("/b\"")).unwrap();
    assert!(!second.contains("user-agent") && !second.contains("\"ip\""), "{second}");
}

#[tokio::test]
async fn a_server_that_says_later_is_asked_again_and_one_that_says_no_is_not() {
    let line = LOG.lines().next().unwrap();
    let (outcome, seen) = import(line, vec![LATER, LATER, OK]).await;
    assert_eq!((outcome.sent, outcome.retries, seen.len()), (1, 2, 3));
    let (outcome, seen) = import(line, vec![NEVER]).await;
    assert_eq!((outcome.sent, outcome.refused, seen.len()), (0, 1, 1));
    assert_eq!(outcome.examples, [(1, "refused: 400 Bad Request no url".to_owned())]);
}

#[tokio::test]
async fn an_address_that_is_not_plain_http_is_refused() {
    for wrong in ["https://127.0.0.1:1", "/path", "ftp://a"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        std::fs::write(&file, "").unwrap();
        let import =
            Import { file, url: wrong.parse().unwrap(), site: site(), in_flight: 1, key: None };
        assert!(matches!(run(&import, &mut |_| ()).await, Err(ImportError::Url(_))), "{wrong}");
    }
}

mod comparing {
    use std::path::PathBuf;

    use tokio::net::UnixListener;

    use super::*;
    use crate::backends::Rows;

    /// A control socket that answers every query with `rows`.
    fn store(folder: &Path, rows: Vec<Vec<Value>>) -> PathBuf {
        let socket = folder.join("tracker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let rows = Rows { columns: vec![String::new(); 6], rows, truncated: false };
        let body = serde_json::to_string(&rows).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 1 << 16];
                let _ = stream.read(&mut request).await.unwrap();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        socket
    }

    /// What a store has that kept everything.
    fn kept(number: u64) -> Vec<Value> {
        let line = LOG.lines().nth(usize::try_from(number).unwrap() - 1);
        let hit = hit(number, line, &site()).unwrap();
        let id = Value::from(hit.id.to_string());
        let time = hit.created_at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let time = Value::from(time);
        if number == 1 {
            let url = "https://shop.example/a".into();
            let row =
                ["shop.example".into(), url, "http://x.example/p".into(), "Agent \"1\"".into()];
            return [id].into_iter().chain(row).chain([time]).collect();
        }
        let row =
            ["shop.example".into(), "https://shop.example/b".into(), Value::Null, Value::Null];
        [id].into_iter().chain(row).chain([time]).collect()
    }

    async fn compare(rows: Vec<Vec<Value>>) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("access_log");
        std::fs::write(&file, LOG).unwrap();
        let socket = store(folder.path(), rows);
        verify(&socket, &file, &site()).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_kept_as_sent_is_equal() {
        let verdict = compare(vec![kept(1), kept(3)]).await;
        assert!(verdict.is_equal(), "{verdict:#?}");
        assert_eq!(verdict.events, 2);
        let referrers = Comparison { what: "referrers", sent: 1, stored: 1, equal: 2 };
        assert!(verdict.comparisons.contains(&referrers), "{verdict:#?}");
    }

    #[tokio::test]
    async fn a_changed_field_and_a_repeated_row_are_differences() {
        let mut changed = kept(3);
        changed[2] = "https://shop.example/c".into();
        let verdict = compare(vec![kept(1), changed]).await;
        assert!(!verdict.is_equal());
        let url =
            "line 3: urls: sent \"https://shop.example/b\", stored \"https://shop.example/c\"";
        assert_eq!(verdict.differences, [url]);

        let verdict = compare(vec![kept(1), kept(3), kept(3)]).await;
        assert!(!verdict.is_equal());
        assert_eq!(verdict.differences, ["line 3: stored 2 times"]);
    }
}

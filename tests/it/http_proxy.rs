//! The reverse proxy with real servers behind it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::header;
use axum::response::Response;
use axum::routing::{any, get};
use axum::serve::ListenerExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tracker::config::{ClientTlsConfig, KeyConfig, KeyKind, ProxyConfig, Secret, TrustedProxy};

use crate::support::{self, Served, builder, client, until};

/// A server behind; ends with this value.
struct Behind {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Behind {
    /// Answers what it was asked, and serves the pieces some tests need.
    async fn start() -> Self {
        let router = Router::new()
            .route("/api/ws", any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo)))
            .route("/api/hang", any(std::future::pending::<Response>))
            .route("/api/failing", any(async || (axum::http::StatusCode::IM_A_TEAPOT, "teapot")))
            .route("/up", get(async || "up"))
            .fallback(tell);
        Self::with(router).await
    }

    async fn with(router: Router) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let socket = socket.tap_io(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let task = tokio::spawn(async { axum::serve(socket, router).await.unwrap() });
        Self { address, connections, task }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    fn api(&self) -> ProxyConfig {
        ProxyConfig::new("/api/", &self.origin())
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The request as JSON, with a header of one hop and CORS of its own.
async fn tell(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let told = json!({
        "method": parts.method.as_str(), "target": parts.uri.to_string(), "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    Response::builder()
        .header("x-behind", "1")
        .header("connection", "x-secret")
        .header("x-secret", "1")
        .header("access-control-allow-origin", "https://behind.example")
        .header("content-type", "application/json")
        .body(told.to_string().into())
        .unwrap()
}

async fn echo(mut socket: axum::extract::ws::WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, axum::extract::ws::Message::Close(_))
            || socket.send(message).await.is_err()
        {
            return;
        }
    }
}

async fn served(proxies: Vec<ProxyConfig>) -> Served {
    Served::with(|setup| setup.server.http.proxies = proxies).await
}

/// The values of a header as the server behind saw them.
fn seen<'a>(told: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = told["headers"].as_array().unwrap();
    let values = headers.iter().filter(|pair| pair[0] == name);
    values.map(|pair| pair[1].as_str().unwrap()).collect()
}

async fn is_error(response: reqwest::Response, status: u16, code: &str) {
    assert_eq!(response.status().as_u16(), status, "{code}");
    let body = support::json(response).await;
    assert_eq!(body["error"]["code"], code, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_on_as_it_came_and_the_answer_comes_back_as_it_is() {
    let behind = Behind::start().await;
    let served = served(vec![behind.api()]).await;
    let sent = client()
        .patch(served.url("/api/a//b%20c/url/https://x.example/?q=1&Q=%7E"))
        .header("cookie", "vid=1; own=2")
        .header("authorization", "Bearer theirs")
        .header("connection", "X-Drop")
        .header("x-drop", "1")
        .body("{\"A\":1}");
    let response = sent.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-behind"], "1");
    for gone in ["x-secret", "x-content-type-options"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
    let told = support::json(response).await;
    assert_eq!(told["method"], "PATCH");
    assert_eq!(told["target"], "/api/a//b%20c/url/https://x.example/?q=1&Q=%7E");
    assert_eq!(told["body"], "{\"A\":1}");
    assert_eq!(seen(&told, "cookie"), ["vid=1; own=2"]);
    assert_eq!(seen(&told, "authorization"), ["Bearer theirs"]);
    assert_eq!(seen(&told, "x-drop"), [""; 0]);
    let host = served.http.to_string();
    assert_eq!(seen(&told, "host"), [host.as_str()]);
    assert_eq!(seen(&told, "x-forwarded-host"), [host.as_str()]);
    assert_eq!(seen(&told, "x-origin-host"), [behind.address.to_string()]);
    assert_eq!(seen(&told, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen(&told, "x-forwarded-proto"), ["http"]);
    let teapot = client().get(served.url("/api/failing")).send().await.unwrap();
    assert_eq!((teapot.status().as_u16(), teapot.text().await.unwrap().as_str()), (418, "teapot"));
    let count =
        |outcome| served.app.metrics.proxy_requests.with_label_values(&["/api/", outcome]).get();
    assert_eq!((count("answered"), count("refused")), (2, 0));
    assert_eq!(served.names(), [""; 0], "nothing is tracked without a filter");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_addresses_and_hosts_do_not_reach_the_server_behind() {
    let behind = Behind::start().await;
    let forged = |url: String| {
        let names =
            ["x-forwarded-for", "x-real-ip", "cf-connecting-ip", "x-client-ip", "x_forwarded_for"];
        let request = client().get(url).header("forwarded", "for=198.51.100.7;host=evil.example");
        let request =
            names.iter().fold(request, |request, name| request.header(*name, "198.51.100.7"));
        request.header("x-forwarded-host", "evil.example").header("x-forwarded-proto", "https")
    };
    let plain = served(vec![behind.api()]).await;
    let told = support::json(forged(plain.url("/api/x")).send().await.unwrap()).await;
    let text = told["headers"].to_string();
    assert!(!text.contains("198.51.100.7") && !text.contains("evil.example"), "{text}");
    let trusting = Served::with(|setup| {
        setup.server.http.proxies = vec![behind.api()];
        setup.server.http.trusted_proxies = vec![TrustedProxy::Loopback];
    })
    .await;
    let told = support::json(forged(trusting.url("/api/x")).send().await.unwrap()).await;
    assert_eq!(seen(&told, "x-forwarded-for"), ["198.51.100.7"]);
    assert_eq!(seen(&told, "x-forwarded-host"), ["evil.example"]);
    let forwarded = "for=198.51.100.7;proto=https;host=\"evil.example\"";
    assert_eq!(seen(&told, "forwarded"), [forwarded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_leaves_what_is_passed_on() {
    let behind = Behind::start().await;
    let served = served(vec![behind.api()]).await;
    let ask = async |target: &str| {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        served.raw(request.as_bytes()).await
    };
    for target in ["/api/../secret", "/api/%2e%2e/secret", "/api/a/../../secret", "/x/../secret"] {
        assert!(ask(target).await.starts_with("HTTP/1.1 404"), "{target}");
    }
    for target in ["/api/..%2fsecret", "/api/%2e%2e%5csecret", "/api/..;/secret", "/api/../../x"] {
        assert!(ask(target).await.starts_with("HTTP/1.1 400"), "{target}");
    }
    assert_eq!(behind.connections.load(Ordering::Relaxed), 0, "nothing was asked");
    assert!(ask("/api/a/../b?x=../y").await.contains("\"target\":\"/api/b?x=../y\""));
    assert!(ask("http://internal.example/api/x").await.contains("\"target\":\"/api/x\""));
    assert!(ask("/api").await.contains("\"target\":\"/api\""));
}

/// A server behind that keeps every byte it is sent and answers each connection once.
async fn recorder() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
                let mut answered = false;
                while let Ok(Ok(read @ 1..)) =
                    tokio::time::timeout(Duration::from_secs(2), stream.read(&mut buffer)).await
                {
                    all.extend_from_slice(&buffer[..read]);
                    let is_whole = all.ends_with(b"0\r\n\r\n")
                        || all.ends_with(b"\r\n\r\n")
                        || all.ends_with(b"body!");
                    if is_whole && !answered {
                        answered = true;
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        let _ = stream.write_all(answer).await;
                    }
                }
                let _ = sender.send(String::from_utf8_lossy(&all).into_owned());
            });
        }
    });
    (address, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_could_be_read_as_two_reaches_the_server_behind_as_one_or_not_at_all() {
    let smuggled = "GET /api/admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let framed = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    let length = framed.len();
    for (name, reaches, head, body) in [
        (
            "length and chunks",
            true,
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            &framed,
        ),
        (
            "chunks and length",
            true,
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".to_owned(),
            &framed,
        ),
        (
            "two lengths",
            false,
            format!("Content-Length: 0\r\nContent-Length: {}\r\n", smuggled.len()),
            &smuggled.to_owned(),
        ),
        (
            "a list of lengths",
            false,
            format!("Content-Length: 0, {}\r\n", smuggled.len()),
            &smuggled.to_owned(),
        ),
        (
            "an unknown coding last",
            false,
            "Transfer-Encoding: chunked, identity\r\n".to_owned(),
            &framed,
        ),
        ("a hidden coding", false, "Transfer-Encoding: xchunked\r\n".to_owned(), &framed),
        ("a space before the colon", false, "Transfer-Encoding : chunked\r\n".to_owned(), &framed),
        ("a bare line feed", true, "X: a\nTransfer-Encoding: chunked\r\n".to_owned(), &framed),
        (
            "a length that is removed",
            true,
            "Connection: close, Content-Length\r\nContent-Length: 5\r\n".to_owned(),
            &"body!".to_owned(),
        ),
    ] {
        let (address, mut recorded) = recorder().await;
        let served = served(vec![ProxyConfig::new("/api/", &format!("http://{address}"))]).await;
        let request = format!(
            "POST /api/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{head}\r\n{body}"
        );
        let _ = served.raw(request.as_bytes()).await;
        drop(served);
        let seen = tokio::time::timeout(Duration::from_secs(3), recorded.recv()).await;
        assert_eq!(seen.is_ok(), reaches, "{name}");
        let Ok(Some(seen)) = seen else { continue };
        let (head, _) = seen.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        let framings =
            head.matches("content-length:").count() + head.matches("transfer-encoding:").count();
        assert_eq!(framings, 1, "{name}: {seen}");
        assert_eq!(seen.matches(" HTTP/1.1\r\nhost").count(), 1, "{name}: {seen}");
        if head.contains("transfer-encoding: chunked") {
            assert!(seen.ends_with("0\r\n\r\n"), "{name}: {seen}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_or_a_login_in_the_host_are_refused() {
    let behind = Behind::start().await;
    let served = served(vec![behind.api()]).await;
    for hosts in ["Host: a.example\r\nHost: b.example\r\n", "Host: x@a.example\r\n"] {
        let request = format!("GET /api/x HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        assert!(served.raw(request.as_bytes()).await.starts_with("HTTP/1.1 400"), "{hosts}");
    }
    assert_eq!(behind.connections.load(Ordering::Relaxed), 0);
}

/// A certificate for `localhost`, its key, and who signed it: itself.
fn certificate(folder: &Path) -> (rcgen::CertifiedKey, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = folder.join("behind.pem");
    std::fs::write(&path, made.cert.pem()).unwrap();
    (made, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_tls_is_believed_by_its_authority_only_and_sees_our_certificate() {
    drop(client());
    let folder = tempfile::tempdir().unwrap();
    let (made, path) = certificate(folder.path());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
    let shown = rcgen::generate_simple_self_signed(["tracker".to_owned()]).unwrap();
    let (cert, secret) = (folder.path().join("ours.pem"), folder.path().join("ours.key"));
    std::fs::write(&cert, shown.cert.pem()).unwrap();
    std::fs::write(&secret, shown.key_pair.serialize_pem()).unwrap();
    let mut known = rustls::RootCertStore::empty();
    known.add(shown.cert.der().clone()).unwrap();
    let known = rustls::server::WebPkiClientVerifier::builder(Arc::new(known)).build().unwrap();
    let tls = rustls::ServerConfig::builder()
        .with_client_cert_verifier(known)
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let io = hyper_util::rt::TokioIo::new(stream);
                let service = hyper::service::service_fn(async |request: hyper::Request<_>| {
                    Ok::<_, std::convert::Infallible>(tell(request.map(Body::new)).await)
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    let standard = ProxyConfig::new("/api/", &format!("https://localhost:{port}"));
    let strange =
        ProxyConfig { name: "strange".into(), path: "/strange/".into(), ..standard.clone() };
    let tls = ClientTlsConfig { ca_cert: Some(path), identity: Some((cert, secret)) };
    let served = served(vec![ProxyConfig { tls, keeps_host: false, ..standard }, strange]).await;
    let told = client().get(served.url("/api/x")).send().await.unwrap();
    let told = support::json(told).await;
    assert_eq!(seen(&told, "host"), [format!("localhost:{port}")], "its own host, as asked for");
    for _ in 0..3 {
        let response = client().get(served.url("/strange/x")).send().await.unwrap();
        is_error(response, 502, "upstream_unreachable").await;
    }
    let health = support::json(client().get(served.url("/health")).send().await.unwrap()).await;
    assert_eq!(health["status"], "degraded");
    let strange =
        health["upstreams"].as_array().unwrap().iter().find(|up| up["name"] == "strange").unwrap();
    assert_eq!(strange["state"], "down");
    assert!(strange["last_error"].as_str().unwrap().contains("certificate"), "{strange}");
    assert_eq!(served.app.metrics.proxy_up.with_label_values(&["strange"]).get(), 0);
    assert_eq!(served.app.metrics.proxy_up.with_label_values(&["/api/"]).get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_through_and_ends_with_the_server() {
    let behind = Behind::start().await;
    let mut served = served(vec![behind.api()]).await;
    let url = format!("ws://{}/api/ws", served.http);
    let (mut socket, answer) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert_eq!(answer.status(), 101);
    for text in ["one", "two"] {
        send(&mut socket, text).await;
        assert_eq!(receive(&mut socket).await.unwrap(), text);
    }
    let open = served.app.metrics.proxy_open.with_label_values(&["/api/"]);
    assert_eq!(open.get(), 1);
    assert!(served.stop().await < Duration::from_secs(2));
    assert_eq!(receive(&mut socket).await, None);
    assert_eq!(open.get(), 0);
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

async fn send(socket: &mut Socket, text: &str) {
    use futures_util::SinkExt as _;
    socket.send(Message::text(text)).await.unwrap();
}

async fn receive(socket: &mut Socket) -> Option<String> {
    use futures_util::StreamExt as _;
    let next = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap();
    next?.ok()?.into_text().ok().map(|text| text.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_tunnel_is_closed_and_no_other_protocol_is_tunnelled() {
    let behind = Behind::start().await;
    let quiet = ProxyConfig { idle_time_max: Duration::from_millis(300), ..behind.api() };
    let served = served(vec![quiet]).await;
    let url = format!("ws://{}/api/ws", served.http);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert_eq!(receive(&mut socket).await, None);
    let answer = served
        .raw(
            b"GET /api/x HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade, HTTP2-Settings\r\n\
              Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains("h2c") && !answer.contains("http2-settings"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_slow_silent_or_gone_is_named() {
    let behind = Behind::start().await;
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let served = served(vec![
        ProxyConfig { head_time_max: Duration::from_millis(200), ..behind.api() },
        ProxyConfig::new("/gone/", &format!("http://{gone}")),
    ])
    .await;
    let started = Instant::now();
    let response = client().get(served.url("/api/hang")).send().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    is_error(response, 504, "upstream_timeout").await;
    let response = client().get(served.url("/gone/")).send().await.unwrap();
    is_error(response, 502, "upstream_unreachable").await;
    // The client's own slowness is not the server's.
    let head = b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{";
    let answer = served.raw(head).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let count =
        |name, outcome| served.app.metrics.proxy_requests.with_label_values(&[name, outcome]).get();
    assert_eq!(count("/api/", "timeout"), 1);
    assert_eq!(count("/api/", "refused"), 1);
    assert_eq!(count("/gone/", "unreachable"), 1);
}

/// Writes `answer` to whoever comes, and then does what `after` says.
async fn scripted(answer: &'static [u8], stays: bool) -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer).await;
                if stays {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    let part = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    let chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let entry = |path: &str, address| ProxyConfig {
        idle_time_max: Duration::from_millis(300),
        ..ProxyConfig::new(path, &format!("http://{address}"))
    };
    let served = served(vec![
        entry("/cut/", scripted(part, false).await),
        entry("/cut-chunk/", scripted(chunk, false).await),
        entry("/silent/", scripted(chunk, true).await),
        entry("/no-http/", scripted(b"nonsense\r\n\r\n", false).await),
        entry("/nothing/", scripted(b"", false).await),
        entry(
            "/unasked/",
            scripted(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
                true,
            )
            .await,
        ),
    ])
    .await;
    for path in ["/cut/", "/cut-chunk/", "/silent/"] {
        let response = client().get(served.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert!(response.bytes().await.is_err(), "{path}");
    }
    for path in ["/no-http/", "/nothing/", "/unasked/"] {
        let response = client().get(served.url(path)).send().await.unwrap();
        is_error(response, 502, "upstream_broken_off").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_pass_as_they_come_in_both_directions() {
    /// Answers each piece of the request with a piece of the answer.
    async fn back(request: Request) -> Response {
        Response::new(request.into_body())
    }
    let behind = Behind::with(Router::new().fallback(back)).await;
    let served = served(vec![behind.api()]).await;
    let mut stream = TcpStream::connect(served.http).await.unwrap();
    let head = b"POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut seen = String::new();
    for piece in ["first", "again"] {
        stream.write_all(format!("5\r\n{piece}\r\n").as_bytes()).await.unwrap();
        // The answer to this piece, before the next is sent.
        while !seen.contains(piece) {
            let mut buffer = [0; 1024];
            let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer));
            let read = read.await.unwrap().unwrap();
            assert!(read > 0, "closed early: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
    assert!(seen.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_on_bodies_holds_whether_the_length_is_promised_or_not() {
    let behind = Behind::start().await;
    let served = served(vec![ProxyConfig { body_bytes_max: 8, ..behind.api() }]).await;
    let post = async |body: &'static str| {
        client().post(served.url("/api/x")).body(body).send().await.unwrap()
    };
    assert_eq!(post("12345678").await.status(), 200);
    is_error(post("123456789").await, 413, "too_large").await;
    let chunked = "POST /api/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   9\r\n123456789\r\n0\r\n\r\n";
    let answer = served.raw(chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_and_bounded() {
    let behind = Behind::start().await;
    let served = served(vec![ProxyConfig {
        connections_max: 1,
        connect_time_max: Duration::from_millis(200),
        head_time_max: Duration::from_secs(2),
        ..behind.api()
    }])
    .await;
    for _ in 0..20 {
        let response = client().get(served.url("/api/x")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let _ = response.bytes().await.unwrap();
    }
    assert_eq!(behind.connections.load(Ordering::Relaxed), 1, "one connection for all");
    let url = served.url("/api/hang");
    let hanging = tokio::spawn(async move { client().get(url).send().await.unwrap() });
    let open = served.app.metrics.proxy_open.with_label_values(&["/api/"]);
    until("the place is taken", || open.get() == 1).await;
    let response = client().get(served.url("/api/x")).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    is_error(response, 503, "upstream_overloaded").await;
    is_error(hanging.await.unwrap(), 504, "upstream_timeout").await;
    let response = client().get(served.url("/api/x")).send().await.unwrap();
    assert_eq!(response.status(), 200, "the place was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_match_the_filter_is_tracked_as_a_server_event() {
    let behind = Behind::start().await;
    let tracked = ProxyConfig { url_filter: Some("login|css".into()), ..behind.api() };
    let served = served(vec![tracked]).await;
    for (method, path, body) in [
        ("GET", "/api/ename/bought?app=shop", ""),
        ("POST", "/api/ename/posted?app=ignored", "{\"app\":\"ignored\"}"),
        ("GET", "/api/ename/login", ""),
        ("GET", "/api/style.css", ""),
    ] {
        let method = method.parse::<reqwest::Method>().unwrap();
        let response = client().request(method, served.url(path)).body(body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert!(
            !response.headers().contains_key("x-ack")
                && !response.headers().contains_key("set-cookie")
        );
    }
    until("both are stored", || served.app.metrics.events_stored.get() == 2).await;
    assert_eq!(served.names(), ["bought", "posted"]);
    let events = served.events();
    assert!(events.iter().all(|event| event.origin == tracker::event::Origin::Server));
    assert_eq!(served.app.metrics.events_unconfirmed.get(), 2);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_takes_nothing_does_not_touch_what_passes() {
    let behind = Behind::start().await;
    let tracked = ProxyConfig { url_filter: Some("nothing".into()), ..behind.api() };
    let served = Served::with(|setup| {
        setup.server.http.proxies = vec![tracked];
        // Every event is larger than may be.
        setup.intake.event_bytes_max = 8;
    })
    .await;
    let response = client().get(served.url("/api/ename/bought")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(served.app.metrics.rejected(), 1, "and it is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_is_ours_to_say_or_the_servers_behind_never_both() {
    let behind = Behind::start().await;
    let theirs =
        ProxyConfig { leaves_cors: true, ..ProxyConfig::new("/theirs/", &behind.origin()) };
    let served = served(vec![behind.api(), theirs]).await;
    let origins = async |method: reqwest::Method, path: &str| {
        let request =
            client().request(method, served.url(path)).header("origin", "https://a.example");
        let response = request.send().await.unwrap();
        let values = response.headers().get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        let values: Vec<String> =
            values.iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        (values, response.headers().contains_key("x-behind"))
    };
    let (get, options) = (reqwest::Method::GET, reqwest::Method::OPTIONS);
    assert_eq!(origins(get.clone(), "/api/x").await, (vec!["*".to_owned()], true));
    assert_eq!(origins(options.clone(), "/api/x").await, (vec!["*".to_owned()], false));
    let theirs = (vec!["https://behind.example".to_owned()], true);
    assert_eq!(origins(get, "/theirs/x").await, theirs);
    assert_eq!(origins(options, "/theirs/x").await, theirs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_found_by_its_host_and_our_own_routes_go_first() {
    let (shop, rest) = (Behind::start().await, Behind::start().await);
    let shop_entry = ProxyConfig {
        name: "shop".into(),
        host: Some("shop.example".into()),
        ..ProxyConfig::new("/", &shop.origin())
    };
    let served = served(vec![ProxyConfig::new("/", &rest.origin()), shop_entry]).await;
    let ask = async |host: &str, path: &str| {
        let request = client().get(served.url(path)).header("host", host);
        request.send().await.unwrap().text().await.unwrap()
    };
    let origin = |text: &str| {
        let told: Value = serde_json::from_str(text).unwrap();
        seen(&told, "x-origin-host").join("")
    };
    assert_eq!(origin(&ask("shop.example", "/a").await), shop.address.to_string());
    assert_eq!(origin(&ask("SHOP.example:80", "/").await), shop.address.to_string());
    assert_eq!(origin(&ask("other.example", "/a").await), rest.address.to_string());
    assert_eq!(ask("shop.example", "/ping").await, "pong");
    let event = client().post(served.url("/tr/v1/tr/")).body(r#"{"ename":"x"}"#);
    assert_eq!(event.send().await.unwrap().headers()["x-ack"], "durable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_path_finds_out_by_itself() {
    let behind = Behind::start().await;
    let entry = ProxyConfig {
        health_path: Some("/up".into()),
        health_interval: Duration::from_millis(50),
        connect_time_max: Duration::from_millis(500),
        ..behind.api()
    };
    let served = served(vec![entry]).await;
    let up = served.app.metrics.proxy_up.with_label_values(&["/api/"]);
    until("it was asked", || behind.connections.load(Ordering::Relaxed) > 0).await;
    assert_eq!(up.get(), 1);
    let address = behind.address;
    drop(behind);
    until("it is found to be down", || up.get() == 0).await;
    let health = support::json(client().get(served.url("/health")).send().await.unwrap()).await;
    assert_eq!(health["upstreams"][0]["known_by"], "probe");
    assert_eq!(health["upstreams"][0]["state"], "down");
    let socket = TcpListener::bind(address).await.unwrap();
    let again = tokio::spawn(async move {
        let router = Router::new().route("/up", get(async || "up"));
        axum::serve(socket, router).await.unwrap();
    });
    until("it is found to be up again", || up.get() == 1).await;
    again.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_clients_json_and_strict_transport() {
    let behind = Behind::start().await;
    let entry = ProxyConfig { forces_json: true, strict_transport: true, ..behind.api() };
    let served = served(vec![entry]).await;
    let response = client()
        .post(served.tls_url("/api/x"))
        .header("content-type", "text/plain")
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    let strict = "max-age=15768000 ; includeSubDomains";
    assert_eq!(response.headers()["strict-transport-security"], strict);
    let told = support::json(response).await;
    assert_eq!(seen(&told, "content-type"), ["application/json"]);
    assert_eq!(seen(&told, "x-forwarded-proto"), ["https"]);
    assert_eq!(seen(&told, "host"), [format!("localhost:{}", served.https.port())]);
    let plain = builder().http1_only().build().unwrap().head(served.url("/api/x"));
    let plain = plain.send().await.unwrap();
    assert!(!plain.headers().contains_key("strict-transport-security"));
    assert!(plain.headers().contains_key("content-length"), "the length of what GET would get");
    let trace = b"TRACE /api/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(served.raw(trace).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_keys_stay_here_theirs_go_on_and_the_host_says_whose_event_it_is() {
    let behind = Behind::start().await;
    let tracked = ProxyConfig { url_filter: Some("css".into()), ..behind.api() };
    let key = |name: &str, kind, hosts: &[&str]| KeyConfig {
        name: name.to_owned(),
        key: Secret::new(format!("{name}-0123456789abcdef0123456789")),
        kind,
        organization: Some("3f2504e0-4f89-11d3-9a0c-0305e82c3301".to_owned()),
        hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
    };
    let served = Served::with(|setup| {
        setup.server.http.proxies = vec![tracked];
        setup.server.http.keys =
            vec![key("ours", KeyKind::Server, &[]), key("site", KeyKind::Site, &["t.example"])];
    })
    .await;
    let ask = async |host: &str, name: &str, value: &str| {
        let request = client().get(served.url("/api/ename/seen")).header("host", host);
        let response = request.header(name, value).send().await.unwrap();
        assert_eq!(response.status(), 200);
        support::json(response).await
    };
    let ours = "ours-0123456789abcdef0123456789";
    let told = ask("t.example", "authorization", &format!("Bearer {ours}")).await;
    assert_eq!(seen(&told, "authorization"), [""; 0]);
    let told = ask("t.example", "x-api-key", ours).await;
    assert_eq!(seen(&told, "x-api-key"), [""; 0]);
    let told = ask("t.example", "authorization", "Bearer theirs").await;
    assert_eq!(seen(&told, "authorization"), ["Bearer theirs"]);
    let told = ask("other.example", "authorization", "Bearer theirs").await;
    assert_eq!(seen(&told, "authorization"), ["Bearer theirs"]);
    let both = client().get(served.url("/api/style.css")).header("authorization", "Bearer theirs");
    let told = support::json(both.header("x-api-key", ours).send().await.unwrap()).await;
    assert_eq!(seen(&told, "authorization"), ["Bearer theirs"]);
    assert_eq!(seen(&told, "x-api-key"), [""; 0]);
    until("three are stored", || served.app.metrics.events_stored.get() == 3).await;
    let of_ours = |event: &tracker::event::Event| {
        event.who.oid.is_some_and(|oid| oid.to_string() == "3f2504e0-4f89-11d3-9a0c-0305e82c3301")
    };
    assert!(served.events().iter().all(of_ours));
    let refused = served.app.metrics.events_rejected.with_label_values(&["forbidden"]).get();
    assert_eq!(refused, 1, "of a host that is no site");
    served.balance();
}

#[tokio::test]
async fn a_client_that_leaves_gives_back_the_place_at_the_server_behind() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let served = served(vec![ProxyConfig::new("/api/", &format!("http://{address}"))]).await;
    let client = TcpStream::connect(served.http).await.unwrap();
    let (mut read, mut write) = client.into_split();
    write.write_all(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // It is asked, and never answers.
    let (mut asked, _) = upstream.accept().await.unwrap();
    let mut head = [0; 16];
    asked.read_exact(&mut head).await.unwrap();
    drop(write);
    let mut rest = Vec::new();
    let gone = async {
        let _: std::io::Result<usize> = read.read_to_end(&mut rest).await;
        drop(read);
        // The server behind sees its end too.
        while asked.read(&mut head).await.is_ok_and(|bytes| bytes > 0) {}
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the request was dropped");
}

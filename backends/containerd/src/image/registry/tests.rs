//! Challenges and endpoints by table; logging in and hostile answers on a server of a few lines.

use super::*;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[test]
fn challenges_are_read() {
    let text = r#"Bearer realm="https://auth.x/token",service="reg, x",scope="a:b:pull,push""#;
    let challenge = Challenge::bearer(text).unwrap();
    assert_eq!(challenge.realm, "https://auth.x/token");
    assert_eq!(challenge.service.as_deref(), Some("reg, x"));
    let url = challenge.url("ignored").unwrap();
    assert_eq!(url.query(), Some("service=reg%2C+x&scope=a%3Ab%3Apull%2Cpush"));
    let plain = Challenge::bearer("bearer realm=http://t/, service=s").unwrap();
    assert_eq!((plain.realm.as_str(), plain.service.as_deref()), ("http://t/", Some("s")));
    assert_eq!(
        plain.url("a/b").unwrap().query(),
        Some("service=s&scope=repository%3Aa%2Fb%3Apull")
    );
    for bad in ["", "Bearer", "Basic realm=\"x\"", "Bearer service=\"x\"", "Bearer realm=\"x"] {
        assert_eq!(Challenge::bearer(bad), None, "{bad}");
    }
}

#[test]
fn mirrors_come_first_and_may_be_all() {
    let reference = Reference::parse("nginx").unwrap();
    let mirrors = vec![Mirror { url: "http://127.0.0.1:5/".into(), insecure: true }];
    let mut registry = Registry { mirrors, mirrors_only: false };
    let all = Endpoint::of(&reference, Some(&registry)).unwrap();
    let bases: Vec<&str> = all.iter().map(|endpoint| endpoint.base.as_str()).collect();
    assert_eq!(bases, ["http://127.0.0.1:5", "https://registry-1.docker.io"]);
    assert_eq!(all[0].namespace.as_deref(), Some("docker.io"));
    assert!(all[0].allows("http") && !all[1].allows("http"));
    registry.mirrors_only = true;
    assert_eq!(Endpoint::of(&reference, Some(&registry)).unwrap().len(), 1);
    assert_eq!(Endpoint::of(&reference, None).unwrap().len(), 1);
}

/// Answers each request by its path and headers; remembers what was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` gets a request's head and the port, and gives a whole response.
    async fn start(answer: fn(&str, u16) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match socket.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let response = answer(&head, port);
                heads.lock().unwrap().push(head);
                // A client that has read enough hangs up.
                drop(socket.write_all(response.as_bytes()).await);
            }
        });
        Self { port, asked }
    }

    fn repository(&self, credentials: Option<Credentials>) -> Repository {
        drop(rustls::crypto::ring::default_provider().install_default());
        let reference = Reference::parse("docker.io/a/b:c").unwrap();
        let mirror = Mirror { url: format!("http://127.0.0.1:{}", self.port), insecure: true };
        let endpoint = Endpoint::mirror(&mirror, &reference).unwrap();
        Repository::new(endpoint, &reference, credentials).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn locked(head: &str, port: u16, token: &str) -> String {
    if head.starts_with("GET /token") {
        return response("200 OK", "", &format!(r#"{{"token":"{token}"}}"#));
    }
    if head.contains("authorization: Bearer good") {
        return response("200 OK", "content-type: a/b; charset=x\r\n", "{}");
    }
    let realm = format!("http://127.0.0.1:{port}/token");
    let header = format!("www-authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n");
    response("401 Unauthorized", &header, "")
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used() {
    let server = Server::start(|head, port| locked(head, port, "good")).await;
    let credentials = Credentials { username: "u".into(), password: "p".into() };
    let repository = server.repository(Some(credentials));
    let version = Version::Tag("c".into());
    for _ in 0..2 {
        let document = repository.manifest(&version).await.unwrap();
        assert_eq!((document.media_type.as_str(), document.bytes), ("a/b", b"{}".to_vec()));
    }
    let asked = server.asked();
    let lines: Vec<&str> = asked.iter().filter_map(|head| head.lines().next()).collect();
    let manifest = "GET /v2/a/b/manifests/c?ns=docker.io HTTP/1.1";
    let token = "GET /token?service=s&scope=repository%3Aa%2Fb%3Apull HTTP/1.1";
    assert_eq!(lines, [manifest, token, manifest, manifest]);
    assert!(asked[1].contains("authorization: Basic dTpw"), "{}", asked[1]);
    assert!(!asked[0].contains("authorization"), "nothing is sent unasked");
}

#[tokio::test]
async fn hostile_answers_are_errors() {
    type Answer = fn(&str, u16) -> String;
    let cases: [(&str, Answer, ErrorKind, &str); 6] = [
        ("a token with a line break", |h, p| locked(h, p, "a\\nb"), ErrorKind::Internal, "header"),
        ("a wrong token", |h, p| locked(h, p, "bad"), ErrorKind::NotFound, "401"),
        (
            "a manifest without end",
            |_, _| response("200 OK", "", &"x".repeat(5 << 20)),
            ErrorKind::Invalid,
            "larger than",
        ),
        ("an answer that is none", |_, _| "SSH-2.0\r\n\r\n".into(), ErrorKind::Transient, "read"),
        (
            "redirects for ever",
            |_, p| response("307 X", &format!("location: http://127.0.0.1:{p}/\r\n"), ""),
            ErrorKind::Unsupported,
            "cannot be read",
        ),
        ("an overload", |_, _| response("503 X", "", ""), ErrorKind::Transient, "503"),
    ];
    for (what, answer, kind, word) in cases {
        let repository = Server::start(answer).await.repository(None);
        let error = repository.manifest(&Version::Tag("c".into())).await.unwrap_err();
        assert_eq!(error.kind, kind, "{what}: {}", error.chain());
        assert!(error.to_string().contains(word), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_manifest_asked_for_by_digest_has_it() {
    let repository = Server::start(|_, _| response("200 OK", "", "{}")).await.repository(None);
    let right = Version::Digest(crate::image::sha256(b"{}"));
    repository.manifest(&right).await.unwrap();
    let wrong = Version::Digest(crate::image::sha256(b"[]"));
    assert_eq!(repository.manifest(&wrong).await.unwrap_err().kind, ErrorKind::Internal);
}

//! Speaks HTTP with the root, or with a cluster of this machine: one place for addresses,
//! tokens, time limits and refusals.
//!
//! Why apart: every command needs a token that may have just run out, an answer of bounded size
//! and an error that says whether the server refused, was slow or was not there.
//!
//! Invariants: no proxy and no redirect is followed, since either would carry the token
//! elsewhere; a request that was refused for its token is repeated once, with a new one.

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use ureq::http::{Request, Response, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body, Timeout};

use crate::config::{Config, Login};
use crate::error::Error;
use crate::problem::Problem;
use crate::server::Server;
use crate::socket::{SocketConnector, Stream};

/// How long a connection may take to be made: on this machine it takes none.
const CONNECT_SECONDS_MAX: u64 = 5;

/// How long a plain answer may take: what it asks for goes through three tiers at most.
const ANSWER_SECONDS_MAX: u64 = 30;

/// How long operations may take: each tier on the way is given half a minute.
const OPERATE_SECONDS_MAX: u64 = 60;

/// Longest answer: ten thousand instances of a few KiB each.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Speaks with one root; clones share the login.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    server: Server,
    /// Of a cluster, which is spoken to instead of the server, and asks for no token.
    socket: Option<PathBuf>,
    config: Arc<Mutex<Config>>,
}

fn agent_config() -> ureq::config::Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("marram/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
        .build()
}

/// A request that may have to be sent twice.
#[derive(Clone, Copy)]
struct Ask<'a> {
    method: &'static str,
    path: &'a str,
    body: Option<&'a [u8]>,
    /// How long the answer may take; `None` if it goes on for as long as it likes.
    seconds_max: Option<u64>,
}

#[derive(Deserialize)]
struct LoginAnswer {
    token: String,
    refresh_token: String,
}

#[derive(Deserialize)]
struct RefreshAnswer {
    token: String,
}

impl Client {
    /// A client of the server that was given or is configured.
    pub(crate) fn new(config: Config, server: Option<&str>) -> Result<Self, Error> {
        let server = config.server(server)?;
        let agent = agent_config().into();
        Ok(Self { agent, server, socket: None, config: Arc::new(Mutex::new(config)) })
    }

    /// A client of the cluster with this socket.
    pub(crate) fn of_cluster(socket: PathBuf) -> Self {
        let connector = SocketConnector(socket.clone());
        let agent = Agent::with_parts(agent_config(), connector, DefaultResolver::default());
        let config = Arc::new(Mutex::new(Config::none()));
        Self { agent, server: Server::HERE, socket: Some(socket), config }
    }

    /// Whom it speaks to, for messages.
    pub(crate) fn peer(&self) -> String {
        match &self.socket {
            Some(socket) => socket.display().to_string(),
            None => self.server.to_string(),
        }
    }

    /// The same as a host in a URL.
    pub(crate) fn host(&self) -> String {
        self.server.address().to_string()
    }

    /// A connection for what is not plain HTTP.
    pub(crate) fn connect(&self, limit: Duration) -> io::Result<Stream> {
        let stream = match &self.socket {
            Some(socket) => Stream::Unix(UnixStream::connect(socket)?),
            None => Stream::Tcp(TcpStream::connect_timeout(&self.server.address(), limit)?),
        };
        stream.set_timeouts(limit)?;
        Ok(stream)
    }

    /// The configuration with the login.
    pub(crate) fn config(&self) -> MutexGuard<'_, Config> {
        // What panicked elsewhere left a whole configuration: it is replaced in one step.
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches an object.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Error> {
        let ask = Ask { method: "GET", path, body: None, seconds_max: Some(ANSWER_SECONDS_MAX) };
        self.json(self.authorised(|token| self.send(ask, Some(token)))?)
    }

    /// Fetches the `items` of a list.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Value>, Error> {
        self.items(self.get(path)?)
    }

    /// The `items` of an answer.
    pub(crate) fn items(&self, mut answer: Value) -> Result<Vec<Value>, Error> {
        match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(self.foreign("a list without items")),
        }
    }

    /// Sends a document.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Result<Value, Error> {
        let ask =
            Ask { method: "POST", path, body: Some(body), seconds_max: Some(ANSWER_SECONDS_MAX) };
        self.json(self.authorised(|token| self.send(ask, Some(token)))?)
    }

    /// Changes something.
    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Result<Value, Error> {
        let seconds_max = Some(ANSWER_SECONDS_MAX);
        let ask = Ask { method: "PUT", path, body: Some(body), seconds_max };
        self.json(self.authorised(|token| self.send(ask, Some(token)))?)
    }

    /// Sends an operation, which tiers far away may have to answer.
    pub(crate) fn operate(&self, path: &str, body: &[u8]) -> Result<Value, Error> {
        let seconds_max = Some(OPERATE_SECONDS_MAX);
        let ask = Ask { method: "POST", path, body: Some(body), seconds_max };
        self.json(self.authorised(|token| self.send(ask, Some(token)))?)
    }

    /// Deletes something.
    pub(crate) fn delete(&self, path: &str) -> Result<(), Error> {
        let ask = Ask { method: "DELETE", path, body: None, seconds_max: Some(ANSWER_SECONDS_MAX) };
        self.authorised(|token| self.send(ask, Some(token))).map(drop)
    }

    /// Opens an answer that is read as it comes, for as long as it likes.
    pub(crate) fn stream(&self, path: &str) -> Result<impl Read + use<>, Error> {
        let ask = Ask { method: "GET", path, body: None, seconds_max: None };
        let answer = self.authorised(|token| self.send(ask, Some(token)))?;
        Ok(answer.into_body().into_reader())
    }

    /// The version of the server, which it tells to everybody.
    pub(crate) fn version(&self) -> Result<Value, Error> {
        let ask = Ask {
            method: "GET",
            path: "/api/v1/version",
            body: None,
            seconds_max: Some(ANSWER_SECONDS_MAX),
        };
        let login = self.config().login(self.server).cloned();
        self.json(self.send(ask, login.as_ref().map(|login| login.token.as_str()))?)
    }

    /// Logs in and keeps the login as that of the preferred server.
    pub(crate) fn login(&self, username: &str, password: &str) -> Result<(), Error> {
        let body = serde_json::json!({"username": username, "password": password}).to_string();
        let body = Some(body.as_bytes());
        let ask = Ask {
            method: "POST",
            path: "/api/auth/login",
            body,
            seconds_max: Some(ANSWER_SECONDS_MAX),
        };
        let answer: LoginAnswer = self.read(self.send(ask, None)?)?;
        let login = Login {
            username: username.into(),
            token: answer.token,
            refresh_token: answer.refresh_token,
        };
        let mut config = self.config();
        config.keep(self.server, login)?;
        config.prefer(self.server)
    }

    /// Does something with a token, and once more with a new one if the first was refused.
    pub(crate) fn authorised<T>(
        &self,
        attempt: impl Fn(&str) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.socket.is_some() {
            return attempt("");
        }
        let login = self.config().login(self.server).cloned();
        let login = login.ok_or_else(|| self.not_logged_in("not logged in"))?;
        match attempt(&login.token) {
            Err(Error::Server(problem)) if problem.status == 401 => {}
            outcome => return outcome,
        }
        let token = self.refresh(login)?;
        match attempt(&token) {
            Err(Error::Server(problem)) if problem.status == 401 => {
                Err(self.not_logged_in("the login is not accepted any more"))
            }
            outcome => outcome,
        }
    }

    fn refresh(&self, login: Login) -> Result<String, Error> {
        let ask = Ask {
            method: "POST",
            path: "/api/auth/refresh",
            body: Some(b"{}"),
            seconds_max: Some(ANSWER_SECONDS_MAX),
        };
        let answer = match self.send(ask, Some(&login.refresh_token)) {
            // Oakestra's form answers 422 to a token that is none.
            Err(Error::Server(problem)) if matches!(problem.status, 401 | 403 | 422) => {
                return Err(self.not_logged_in("the login has run out"));
            }
            answer => self.read::<RefreshAnswer>(answer?)?,
        };
        let token = answer.token;
        self.config().keep(self.server, Login { token: token.clone(), ..login })?;
        Ok(token)
    }

    fn not_logged_in(&self, why: &str) -> Error {
        Error::Refused(format!(
            "{why} at {server}; run: marram login --server {server}",
            server = self.server
        ))
    }

    fn send(&self, ask: Ask<'_>, token: Option<&str>) -> Result<Response<Body>, Error> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(format!("{}{}", self.server, ask.path))
            .header(header::ACCEPT, "*/*");
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let whole = ask.seconds_max.map(Duration::from_secs);
        let answer_time = whole.unwrap_or(Duration::from_secs(ANSWER_SECONDS_MAX));
        let answer = match ask.body {
            Some(body) => {
                let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
                let request = request.map_err(|error| self.failed(error.into()))?;
                let request = self.agent.configure_request(request);
                self.agent.run(request.timeout_global(Some(answer_time)).build())
            }
            None => {
                let request = request.body(()).map_err(|error| self.failed(error.into()))?;
                let request = self.agent.configure_request(request).timeout_global(whole);
                self.agent.run(request.timeout_recv_response(Some(answer_time)).build())
            }
        };
        let answer = answer.map_err(|error| self.failed(error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = self.bytes(answer)?;
        Err(Error::Server(Problem::read(status.as_u16(), &body)))
    }

    fn bytes(&self, answer: Response<Body>) -> Result<Vec<u8>, Error> {
        let body = answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX);
        body.read_to_vec().map_err(|error| self.failed(error))
    }

    fn json(&self, answer: Response<Body>) -> Result<Value, Error> {
        self.read(answer)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, answer: Response<Body>) -> Result<T, Error> {
        let body = self.bytes(answer)?;
        serde_json::from_slice(&body).map_err(|error| self.foreign(&error.to_string()))
    }

    /// The other side answers, but not as a root does.
    fn foreign(&self, why: &str) -> Error {
        let whose = if self.socket.is_some() { "a cluster's" } else { "a root's" };
        Error::Failed(format!("the answer of {} is not {whose}: {why}", self.peer()))
    }

    fn failed(&self, error: ureq::Error) -> Error {
        let server = self.peer();
        match error {
            ureq::Error::Io(source) => self.lost(&source),
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => Error::Unreachable {
                server,
                reason: format!("no connection within {CONNECT_SECONDS_MAX} s"),
            },
            ureq::Error::Timeout(_) => Error::Timeout(format!(
                "{server} did not answer in full within the time that it has"
            )),
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => {
                Error::Unreachable { server, reason: error.to_string() }
            }
            ureq::Error::BodyExceedsLimit(limit) => {
                self.foreign(&format!("it is longer than {limit} bytes"))
            }
            error => self.foreign(&error.to_string()),
        }
    }

    /// A connection that broke.
    pub(crate) fn lost(&self, source: &io::Error) -> Error {
        Error::Unreachable { server: self.peer(), reason: source.to_string() }
    }
}

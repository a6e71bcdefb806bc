//! Starts a root on free ports of loopback, and speaks HTTP to it.

use marram_root::auth::Users;
use marram_root::config::Config;
use marram_root::root::{Root, STORE_FILE};
use marram_store::RedbStore;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Nothing here takes a second on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Slow passwords are not what is tested here.
pub(crate) const ROUNDS: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// A running root.
pub(crate) struct TestRoot {
    pub(crate) listen: SocketAddr,
    pub(crate) tunnel: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) admin: Client,
}

/// A logged-in client.
#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
    pub(crate) token: String,
}

/// What came back.
#[derive(Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

impl Reply {
    /// Plain JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// JSON in a JSON text.
    pub(crate) fn doubly(&self) -> Value {
        assert_eq!(self.content_type, "application/json", "{self:?}");
        let inner: String = serde_json::from_str(&self.text).unwrap();
        serde_json::from_str(&inner).unwrap()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

impl TestRoot {
    pub(crate) fn start(dir: &Path) -> Self {
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            tunnel_listen: "127.0.0.1:0".parse().unwrap(),
            tunnel_url: None,
            insecure_network: false,
            state_dir: dir.to_owned(),
        };
        let (addresses, bound) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(async move {
                let root = Root::bind(&config, ROUNDS).await.unwrap();
                addresses.send((root.listen(), root.tunnel_listen())).unwrap();
                root.run(async { drop(stopped.await) }).await.unwrap();
            });
        });
        let (listen, tunnel) = bound.recv_timeout(PATIENCE).unwrap();
        let mut root = Self {
            listen,
            tunnel,
            stop: Some(stop),
            thread: Some(thread),
            admin: Client::anonymous(listen),
        };
        root.admin = root.login("Admin", &password(dir));
        root
    }

    pub(crate) fn login(&self, user: &str, password: &str) -> Client {
        let mut client = Client::anonymous(self.listen);
        let login = json!({"username": user, "password": password});
        let reply = client.post("/api/auth/login", login.to_string()).expect(200);
        client.token = reply.json()["token"].as_str().unwrap().to_owned();
        client
    }

    /// As at a SIGTERM. Returns when everything has ended.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

impl Drop for TestRoot {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn password(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("admin-password")).unwrap().trim().to_owned()
}

/// Makes a second user, who provides applications and is no administrator.
pub(crate) fn add_user(dir: &Path, name: &str, password: &str) {
    let store = RedbStore::open(&dir.join(STORE_FILE)).unwrap();
    let (mut users, _) = Users::open(&store, dir, ROUNDS, 0).unwrap();
    users.add(&store, name, password, &["Application_Provider"], ROUNDS, 0).unwrap();
}

impl Client {
    pub(crate) fn anonymous(listen: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE));
        Self {
            agent: config.build().into(),
            base: format!("http://{listen}"),
            token: String::new(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = match self.token.as_str() {
            "" => request,
            token => request.header("Authorization", format!("Bearer {token}")),
        };
        reply(request.call())
    }

    pub(crate) fn delete(&self, path: &str) -> Reply {
        let request = self.agent.delete(format!("{}{path}", self.base));
        reply(request.header("Authorization", format!("Bearer {}", self.token)).call())
    }

    pub(crate) fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("Content-Type", "application/json");
        let request = match self.token.as_str() {
            "" => request,
            token => request.header("Authorization", format!("Bearer {token}")),
        };
        reply(request.send(body.as_ref()))
    }

    pub(crate) fn put(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        let request = self.agent.put(format!("{}{path}", self.base));
        let request = request.header("Content-Type", "application/json");
        let request = request.header("Authorization", format!("Bearer {}", self.token));
        reply(request.send(body.as_ref()))
    }

    /// Asks until the answer is as wanted.
    #[track_caller]
    pub(crate) fn until(&self, path: &str, wanted: impl Fn(&Reply) -> bool) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.get(path);
            if wanted(&reply) {
                return reply;
            }
            assert!(Instant::now() < deadline, "{path} stayed {reply:?}");
            std::thread::yield_now();
        }
    }
}

fn reply(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
    let mut response = answer.unwrap();
    let content_type = response.headers().get("content-type");
    Reply {
        status: response.status().as_u16(),
        content_type: content_type.map_or("", |v| v.to_str().unwrap()).to_owned(),
        text: response.body_mut().read_to_string().unwrap(),
    }
}

/// A document with one application and its services.
pub(crate) fn document(application: &str, services: &[&str]) -> String {
    let services: Vec<Value> = services
        .iter()
        .map(|name| {
            json!({
                "microserviceID": "", "microservice_name": name, "microservice_namespace": "test",
                "virtualization": "container", "code": "docker.io/library/nginx:latest",
                "memory": 100, "vcpus": 1, "x-site": {"floor": 3},
            })
        })
        .collect();
    json!({
        "sla_version": "v2.0", "customerID": "Admin",
        "applications": [{
            "applicationID": "", "application_name": application,
            "application_namespace": "test", "application_desc": "", "microservices": services,
        }],
    })
    .to_string()
}

/// The one that everybody starts with.
pub(crate) const CLIENTSRVR: &str = include_str!("../../../../examples/clientsrvr.json");

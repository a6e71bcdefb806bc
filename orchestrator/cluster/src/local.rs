//! The cluster's own API: a Unix socket for operators at this machine.
//!
//! Why a socket: a site that is cut off has operators too, and no root to log in at. Whoever
//! may open the file may command the cluster; there is no other authentication.
//!
//! Invariant: the socket is never there with more rights than its owner's.

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use marram_orchestrator_core::{Now, Tier};
use marram_protocol::id::{ApplicationId, ChildId, InstanceId};
use marram_protocol::v1::{Missed, OperationEnd};
use marram_rest::calls;
use marram_rest::front::{Front, Gate, Order, Sight};
use marram_rest::link::Link;
use marram_rest::problem::{Problem, ok};
use marram_rest::refusal::Refusal;
use serde_json::json;
use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

/// Longest path of a socket: the kernel takes 107 bytes, and it is made in a folder beside.
pub(crate) const SOCKET_BYTES_MAX: usize = 100;

/// Requests that wait for the owner of the state. A client waits for a place in the queue.
pub(crate) const COMMANDS_MAX: usize = 16;

type Look = Box<dyn FnOnce(&LocalSight<'_>) + Send>;

/// What an operator wants of the owner of the state.
pub(crate) enum Command {
    /// A look at the state.
    Look(Look),
    /// An operation.
    Operate(Order, oneshot::Sender<OperationEnd>),
    /// A child of another tree is to be taken; answered once that is durable.
    Adopt(ChildId, oneshot::Sender<()>),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Look(_) => "Look",
            Self::Operate(..) => "Operate",
            Self::Adopt(..) => "Adopt",
        })
    }
}

/// The state at one moment.
pub(crate) struct LocalSight<'a> {
    pub(crate) tier: &'a Tier,
    pub(crate) now: Now,
    pub(crate) link: &'a Arc<Link>,
}

impl Sight<()> for LocalSight<'_> {
    fn tier(&self) -> &Tier {
        self.tier
    }

    fn now(&self) -> Now {
        self.now
    }

    fn permit(&self, (): &(), _: InstanceId) -> Result<Option<ApplicationId>, Refusal> {
        // A cluster knows no applications.
        Ok(None)
    }

    fn link(&self, child: ChildId) -> Option<Arc<Link>> {
        let child = self.tier.children().get(&child)?;
        child.is_connected().then(|| self.link.clone())
    }

    fn missed(&self, _: InstanceId) -> Vec<Missed> {
        // Who was there all the time has missed nothing.
        Vec::new()
    }
}

/// How handlers speak to the owner of the state.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    commands: mpsc::Sender<Command>,
    gate: Gate,
}

impl Counter {
    pub(crate) fn new(commands: mpsc::Sender<Command>, gate: Gate) -> Self {
        Self { commands, gate }
    }

    /// All paths.
    pub(crate) fn router(self) -> Router {
        let version = async || {
            ok(
                &json!({"name": "marram-cluster", "version": env!("CARGO_PKG_VERSION"), "api": "v1"}),
            )
        };
        let routes = calls::both(calls::routes(), "/api/v1/version", get(version));
        calls::both(routes, "/healthz", get(async || "ok\n"))
            .fallback(unknown_path)
            .method_not_allowed_fallback(unknown_method)
            .with_state(self)
    }

    async fn send(&self, command: Command) -> Result<(), Refusal> {
        self.commands.send(command).await.map_err(|_| stopping())
    }
}

impl Front for Counter {
    type Caller = ();

    const ROLE: &'static str = "cluster";

    fn caller(&self, _: &HeaderMap) -> Result<(), Problem> {
        Ok(())
    }

    fn require_operator(&self, (): &()) -> Result<(), Refusal> {
        Ok(())
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Sight<()>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let look = move |sight: &LocalSight<'_>| {
            // An error says that the reader has gone away.
            drop(reply.send(look(sight)));
        };
        self.send(Command::Look(Box::new(look))).await?;
        answer.await.map_err(|_| stopping())
    }

    async fn operate(&self, order: Order) -> Result<OperationEnd, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Operate(order, reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    async fn adopt(&self, child: ChildId) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Adopt(child, reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }
}

fn stopping() -> Refusal {
    Refusal::Busy("the cluster is stopping".to_owned())
}

async fn unknown_path(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    Problem::from(Refusal::NotFound { what: "path", id: path }).into_response()
}

async fn unknown_method(request: Request) -> Response {
    let why = format!("{} is not possible here", request.method());
    Problem::from(Refusal::Method(why)).into_response()
}

/// A socket in its place; gone when dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Listens. A socket that an earlier run has left is replaced; anything else is not.
    pub(crate) fn bind(path: &Path) -> io::Result<(Self, UnixListener)> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no socket"));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
        // Made where nobody else may look, so that nobody connects before its rights are set.
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let aside = PathBuf::from(aside);
        clear(&aside)?;
        DirBuilder::new().mode(0o700).create(&aside)?;
        let made = aside.join("s");
        let listener = UnixListener::bind(&made)?;
        fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        fs::rename(&made, path)?;
        fs::remove_dir(&aside)?;
        Ok((Self { path: path.to_owned() }, listener))
    }
}

/// What a run that was cut short has left of its preparations.
fn clear(aside: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(fs::remove_file(aside.join("s")))?;
    gone(fs::remove_dir(aside))
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Best effort: the next run replaces what is left.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_and_replaces_only_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        let (socket, _listener) = Socket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        // As after a power cut: it lies there, and so may half of a preparation.
        std::mem::forget(socket);
        fs::create_dir(dir.path().join("c.sock.new")).unwrap();
        let (socket, _listener) = Socket::bind(&path).unwrap();
        tokio::net::UnixStream::connect(&path).await.unwrap();
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(Socket::bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}

//! The whole root: opened, bound, run, ended.
//!
//! The end comes in the order of dependence: clients finish, clusters are let go, and the
//! owner of the state is the last.

use crate::auth::{Auth, Signer, Users, UsersError};
use crate::clock::{Clock, unix_ms};
use crate::config::{Config, ConfigError};
use crate::rest::Rest;
use crate::secret::{self, SecretError};
use crate::shell::{ChildEvent, Handle, Shell, ShellError};
use marram_rest::server;
use marram_store::{RedbStore, Store};
use marram_tunnel::ServeError;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinError;

/// The store's file in the state directory.
pub const STORE_FILE: &str = "root.redb";

/// Why the root cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Files of the state directory.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store(#[from] marram_store::Error),
    /// Users cannot be read.
    #[error("cannot read the users")]
    Users(#[from] UsersError),
    /// The owner of the state.
    #[error("cannot keep the state")]
    Shell(#[from] ShellError),
    /// An address is taken, or not this machine's.
    #[error("cannot listen on {address} ({key})")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Under which key of the configuration.
        key: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The tunnel's server.
    #[error(transparent)]
    Tunnel(#[from] ServeError),
    /// A task of the root panicked.
    #[error("a task of the root ended")]
    Task(#[from] JoinError),
}

/// A root that is bound and not yet serving.
#[derive(Debug)]
pub struct Root {
    shell: Shell,
    handle: Handle,
    children: mpsc::Sender<ChildEvent>,
    auth: Arc<Auth>,
    clock: Clock,
    listener: TcpListener,
    tunnel_listener: TcpListener,
    listen: SocketAddr,
    tunnel_listen: SocketAddr,
    new_password: Option<PathBuf>,
}

impl Root {
    /// Opens the state and binds the addresses. `rounds` is how slow a new password is made.
    pub async fn bind(config: &Config, rounds: NonZeroU32) -> Result<Self, RootError> {
        config.check()?;
        if config.insecure_network {
            tracing::warn!(
                "insecure_network: clusters do not prove who they are and nothing is encrypted; \
                 whoever reaches these addresses can read and pretend everything"
            );
        }
        secret::make_directory(&config.state_dir)?;
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(&config.state_dir.join(STORE_FILE))?);
        let clock = Clock::start();
        let (users, new_password) = Users::open(&*store, &config.state_dir, rounds, unix_ms())?;
        let auth = Arc::new(Auth::new(users, Signer::open(&config.state_dir)?));
        let (listener, listen) = bind(config.listen, "listen").await?;
        let (tunnel_listener, tunnel_listen) = bind(config.tunnel_listen, "tunnel_listen").await?;
        let address = config.tunnel_address(tunnel_listen);
        let (shell, handle, children) = Shell::open(store, clock, address)?;
        Ok(Self {
            shell,
            handle,
            children,
            auth,
            clock,
            listener,
            tunnel_listener,
            listen,
            tunnel_listen,
            new_password,
        })
    }

    /// Where REST is served.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where clusters dial in.
    pub fn tunnel_listen(&self) -> SocketAddr {
        self.tunnel_listen
    }

    /// Where the password of the first user was written, if it was made just now.
    pub fn new_password(&self) -> Option<&PathBuf> {
        self.new_password.as_ref()
    }

    /// Serves until `stop`, or until something fails that nothing can go on without.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), RootError> {
        let (stopping_sender, stopping) = watch::channel(false);
        // Dropping the first of a pair resolves the second.
        let (end_shell, shell_end) = oneshot::channel::<()>();
        let (end_tunnel, tunnel_end) = oneshot::channel::<()>();
        let rest = Rest::new(self.handle, self.auth, self.clock, stopping.clone());
        let mut shell = tokio::spawn(self.shell.run(async { drop(shell_end.await) }));
        let mut http = tokio::spawn(server::serve(self.listener, rest.router(), stopping));
        let (incoming, tunnel) =
            marram_tunnel::serve(self.tunnel_listener, async { drop(tunnel_end.await) });
        let mut tunnel = tokio::spawn(tunnel);
        let clusters = tokio::spawn(marram_tunnel::serve_children(incoming, self.children));

        let (mut shell_ended, mut tunnel_ended) = (None, None);
        // Nothing is lost by giving up to wait; all but the signal is waited for below.
        tokio::select! {
            () = stop => tracing::info!("asked to end"),
            ended = &mut shell => shell_ended = Some(ended),
            ended = &mut tunnel => tunnel_ended = Some(ended),
        }
        stopping_sender.send_replace(true);
        (&mut http).await?;
        clusters.abort();
        drop(end_tunnel);
        let tunnel_ended = match tunnel_ended {
            Some(ended) => ended,
            None => tunnel.await,
        };
        drop(end_shell);
        let shell_ended = match shell_ended {
            Some(ended) => ended,
            None => shell.await,
        };
        shell_ended??;
        Ok(tunnel_ended??)
    }
}

async fn bind(
    address: SocketAddr,
    key: &'static str,
) -> Result<(TcpListener, SocketAddr), RootError> {
    let failed = |source| RootError::Bind { address, key, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

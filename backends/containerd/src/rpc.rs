//! The connection to containerd and what its answers mean.
//!
//! Why apart: every request needs the namespace and a time limit, and the sorting of gRPC
//! codes into [`ErrorKind`]s must be the same everywhere.
//!
//! The channel is made at first use and reconnects by itself from then on, so a containerd
//! that starts later than the engine, or again, needs nothing from us.

use containerd_client::services::v1::{
    containers_client::ContainersClient, content_client::ContentClient, diff_client::DiffClient,
    events_client::EventsClient, images_client::ImagesClient, leases_client::LeasesClient,
    snapshots::snapshots_client::SnapshotsClient, tasks_client::TasksClient,
    version_client::VersionClient,
};
use marram_backend_api::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::OnceCell;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Limit of requests that only touch containerd's database. Long beside the usual
/// milliseconds, because an SD card may stall for seconds.
pub(crate) const QUICK: Duration = Duration::from_secs(30);

/// Limit of requests that make a runtime work: a virtual machine may have to boot.
pub(crate) const RUNTIME: Duration = Duration::from_secs(120);

/// Limit of unpacking one layer: 4 GiB at 4 MiB/s, a slow SD card.
pub(crate) const UNPACK: Duration = Duration::from_secs(1024);

/// Requests of one namespace to one containerd.
#[derive(Debug)]
pub(crate) struct Rpc {
    socket: PathBuf,
    namespace: MetadataValue<Ascii>,
    channel: OnceCell<Channel>,
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)*) => { $(
        $(#[$doc])*
        pub(crate) async fn $name(&self) -> Result<$client<Channel>> {
            Ok($client::new(self.channel().await?))
        }
    )* };
}

impl Rpc {
    pub(crate) fn new(socket: PathBuf, namespace: &str) -> Result<Self> {
        let namespace = namespace.parse().map_err(|_| {
            let why = format!("{namespace:?} cannot be sent as a header");
            Error::new(ErrorKind::Invalid, "choosing the namespace", why)
        })?;
        Ok(Self { socket, namespace, channel: OnceCell::new() })
    }

    async fn channel(&self) -> Result<Channel> {
        let connect = || async {
            containerd_client::connect(&self.socket).await.map_err(|error| {
                let why = format!("no connection to {}", self.socket.display());
                Error::caused(ErrorKind::Transient, "connecting to containerd", why, error)
            })
        };
        self.channel.get_or_try_init(connect).await.cloned()
    }

    /// A request in our namespace with a time limit.
    pub(crate) fn request<T>(&self, limit: Duration, body: T) -> Request<T> {
        let mut request = self.endless(body);
        request.set_timeout(limit);
        request
    }

    /// A request in our namespace that may take for ever: waiting and streaming.
    pub(crate) fn endless<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// Puts what `request` makes under a lease.
    pub(crate) fn leased<T>(mut request: Request<T>, lease: &Lease) -> Request<T> {
        request.metadata_mut().insert("containerd-lease", lease.0.clone());
        request
    }

    clients! {
        containers: ContainersClient;
        content: ContentClient;
        diff: DiffClient;
        events: EventsClient;
        images: ImagesClient;
        leases: LeasesClient;
        snapshots: SnapshotsClient;
        tasks: TasksClient;
        version: VersionClient;
    }
}

/// Id of a lease, fit for a header.
#[derive(Debug, Clone)]
pub(crate) struct Lease(MetadataValue<Ascii>);

impl Lease {
    pub(crate) fn new(id: &str) -> Result<Self> {
        let value = id.parse().map_err(|_| {
            Error::new(ErrorKind::Internal, "naming a lease", format!("{id:?} is no header"))
        })?;
        Ok(Self(value))
    }
}

/// Sorts a refusal of containerd by what the engine should do about it.
pub(crate) fn failed(doing: &'static str, status: Status) -> Error {
    Error::new(kind(&status), doing, status.message().to_owned())
}

/// containerd passes most errors of the kernel and of runtimes as text with the code
/// "unknown", so the few texts that change what to do are looked at first.
fn kind(status: &Status) -> ErrorKind {
    let text = status.message();
    if text.contains("no space left on device") || text.contains("disk quota exceeded") {
        return ErrorKind::Exhausted;
    }
    match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::FailedPrecondition => ErrorKind::Transient,
        // The program is not in the image: another image may come under the same tag.
        _ if (text.contains("executable file") && text.contains("not found"))
            || (text.contains("stat /") || text.contains("failed to load /"))
                && text.contains("no such file or directory") =>
        {
            ErrorKind::NotFound
        }
        _ if text.contains("transport error") || text.contains("error reading from server") => {
            ErrorKind::Transient
        }
        _ => ErrorKind::Internal,
    }
}

/// Turns "not found" into `None`.
pub(crate) fn found<T>(
    doing: &'static str,
    answer: std::result::Result<T, Status>,
) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failed(doing, status)),
    }
}

/// Turns "exists already" into `None`.
pub(crate) fn made<T>(
    doing: &'static str,
    answer: std::result::Result<T, Status>,
) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == Code::AlreadyExists => Ok(None),
        Err(status) => Err(failed(doing, status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_sorted() {
        let cases = [
            (Status::not_found("x"), ErrorKind::NotFound),
            (Status::unavailable("x"), ErrorKind::Transient),
            (Status::deadline_exceeded("x"), ErrorKind::Transient),
            (Status::invalid_argument("x"), ErrorKind::Invalid),
            (Status::unknown("write /a: no space left on device"), ErrorKind::Exhausted),
            (
                Status::unknown("exec: \"x\": executable file not found in $PATH"),
                ErrorKind::NotFound,
            ),
            (Status::unknown("boom"), ErrorKind::Internal),
        ];
        for (status, expected) in cases {
            assert_eq!(kind(&status), expected, "{status}");
        }
    }
}

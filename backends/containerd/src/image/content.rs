//! containerd's content store: reading blobs, writing them, going on with half of one.
//!
//! Why apart: the write call is a conversation (ask, write, commit) whose rules are easy to
//! break: a commit must carry the offset, or containerd throws away what was written.

use crate::rpc::{Lease, QUICK, Rpc, failed, found};
use containerd_client::services::v1::{
    AbortRequest, Info, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use containerd_client::tonic::{Code, Status, Streaming};
use marram_backend_api::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Labels of content and snapshots.
pub(crate) type Labels = HashMap<String, String>;

/// How often an ingest that another writer still holds is asked for again, and how long to
/// wait in between: containerd needs a moment to notice that our last connection is gone.
const LOCKED_TRIES: u32 = 20;
const LOCKED_WAIT: Duration = Duration::from_millis(100);

const DOING: &str = "writing to the content store";

/// What identifies a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

impl Descriptor {
    pub(crate) fn to_proto(&self) -> Result<containerd_client::types::Descriptor> {
        Ok(containerd_client::types::Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: signed(self.size)?,
            annotations: HashMap::new(),
        })
    }
}

/// containerd counts bytes in signed numbers.
pub(crate) fn signed(bytes: u64) -> Result<i64> {
    i64::try_from(bytes).map_err(|_| {
        Error::new(ErrorKind::Invalid, DOING, format!("{bytes} bytes do not fit 63 bits"))
    })
}

/// A blob that is being written. Dropping it keeps what was written for later.
#[derive(Debug)]
pub(crate) struct Ingest {
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    name: String,
    blob: Descriptor,
    /// Bytes that containerd has.
    pub(crate) offset: u64,
}

/// What opening a blob for writing leads to.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It is there, and now belongs to the lease as well.
    Exists,
    /// It is not, or not whole.
    Partial(Box<Ingest>),
}

/// Opens `blob` for writing under `lease`.
pub(crate) async fn open(rpc: &Rpc, lease: &Lease, blob: &Descriptor) -> Result<Opened> {
    let mut tries = 0;
    loop {
        match try_open(rpc, lease, blob).await? {
            Ok(opened) => return Ok(opened),
            Err(status) => {
                tries += 1;
                if tries == LOCKED_TRIES || status.code() != Code::Unavailable {
                    return Err(failed(DOING, status));
                }
                tokio::time::sleep(LOCKED_WAIT).await;
            }
        }
    }
}

async fn try_open(
    rpc: &Rpc,
    lease: &Lease,
    blob: &Descriptor,
) -> Result<std::result::Result<Opened, Status>> {
    let name = format!("marram-{}", blob.digest);
    let (requests, receiver) = mpsc::channel(1);
    let first = WriteContentRequest {
        action: WriteAction::Stat.into(),
        r#ref: name.clone(),
        total: signed(blob.size)?,
        expected: blob.digest.clone(),
        ..Default::default()
    };
    // The channel holds one message, so this never waits.
    requests.send(first).await.map_err(|_| gone())?;
    let stream = Rpc::leased(rpc.endless(ReceiverStream::new(receiver)), lease);
    let answer = async {
        let mut answers = rpc.content().await?.write(stream).await.map(|r| r.into_inner());
        let first = match &mut answers {
            Ok(answers) => answers.message().await,
            Err(status) => Err(status.clone()),
        };
        Ok::<_, Error>((answers, first))
    };
    let late = |_| Error::new(ErrorKind::Transient, DOING, "containerd does not answer");
    let (answers, first) = tokio::time::timeout(QUICK, answer).await.map_err(late)??;
    match (answers, first) {
        (Ok(answers), Ok(Some(first))) => {
            let offset = u64::try_from(first.offset).unwrap_or(0);
            let blob = blob.clone();
            let ingest = Ingest { requests, answers, name, blob, offset };
            Ok(Ok(Opened::Partial(Box::new(ingest))))
        }
        (_, Err(status)) if status.code() == Code::AlreadyExists => Ok(Ok(Opened::Exists)),
        (_, Err(status)) | (Err(status), _) => Ok(Err(status)),
        (Ok(_), Ok(None)) => Err(gone()),
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Transient, DOING, "containerd ended the conversation")
}

impl Ingest {
    async fn say(&mut self, request: WriteContentRequest) -> Result<()> {
        // On a closed channel the reason is in the answers.
        let sent = self.requests.send(request).await.is_ok();
        let answer = tokio::time::timeout(QUICK, self.answers.message()).await;
        let answer = answer
            .map_err(|_| Error::new(ErrorKind::Transient, DOING, "containerd does not answer"))?;
        match answer {
            Ok(Some(answer)) if sent => {
                self.offset = u64::try_from(answer.offset).unwrap_or(self.offset);
                Ok(())
            }
            Ok(_) => Err(gone()),
            // A commit of something other than was promised.
            Err(status) if status.code() == Code::FailedPrecondition => {
                Err(Error::new(ErrorKind::Internal, DOING, status.message()))
            }
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(failed(DOING, status)),
        }
    }

    /// Appends. `restart` throws away what was there: the first write after a server that
    /// cannot go on in the middle.
    pub(crate) async fn write(&mut self, data: Vec<u8>, restart: bool) -> Result<()> {
        let offset = if restart { 0 } else { signed(self.offset)? };
        let request = WriteContentRequest {
            action: WriteAction::Write.into(),
            r#ref: self.name.clone(),
            offset,
            data,
            ..Default::default()
        };
        self.say(request).await
    }

    /// Has containerd check size and digest and keep the blob.
    pub(crate) async fn commit(&mut self, labels: Labels) -> Result<()> {
        let request = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: self.name.clone(),
            total: signed(self.blob.size)?,
            expected: self.blob.digest.clone(),
            offset: signed(self.offset)?,
            labels,
            ..Default::default()
        };
        self.say(request).await
    }

    /// Forgets what was written, so that the next attempt begins anew.
    pub(crate) async fn abort(self, rpc: &Rpc) -> Result<()> {
        let name = self.name.clone();
        // containerd refuses while the conversation holds the ingest.
        drop(self);
        let mut tries = 0;
        loop {
            let request = rpc.request(QUICK, AbortRequest { r#ref: name.clone() });
            let answer = found(DOING, rpc.content().await?.abort(request).await);
            tries += 1;
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if tries == LOCKED_TRIES => return Err(error),
                Err(_) => tokio::time::sleep(LOCKED_WAIT).await,
            }
        }
    }
}

/// Sets labels of a blob that is there already.
pub(crate) async fn label(rpc: &Rpc, digest: &str, labels: Labels) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let info = Info { digest: digest.into(), labels, ..Default::default() };
    let mask = prost_types::FieldMask { paths };
    let request = UpdateRequest { info: Some(info), update_mask: Some(mask) };
    let answer = rpc.content().await?.update(rpc.request(QUICK, request)).await;
    answer.map(drop).map_err(|status| failed("labelling content", status))
}

/// A whole blob of at most `limit` bytes; `None` if it is not there.
pub(crate) async fn read(rpc: &Rpc, digest: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    const DOING: &str = "reading from the content store";
    let request = ReadContentRequest { digest: digest.into(), offset: 0, size: 0 };
    let answer = rpc.content().await?.read(rpc.request(QUICK, request)).await;
    let Some(answer) = found(DOING, answer)? else { return Ok(None) };
    let mut stream = answer.into_inner();
    let mut bytes = Vec::new();
    loop {
        let Some(part) = found(DOING, stream.message().await)? else { return Ok(None) };
        let Some(part) = part else { return Ok(Some(bytes)) };
        if bytes.len() as u64 + part.data.len() as u64 > limit {
            let why = format!("{digest} is larger than {limit} bytes");
            return Err(Error::new(ErrorKind::Invalid, DOING, why));
        }
        bytes.extend_from_slice(&part.data);
    }
}

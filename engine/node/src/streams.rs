//! Logs and exec for whoever asks through the cluster.
//!
//! Each stream is a task with a bounded mailbox. It sends no more than it was granted, so a
//! slow reader slows the stream and nothing else.

use crate::convert;
use crate::link::Sender;
use marram_backend_api::{
    Backend, Cursor, Error, ErrorKind, ExecEvent, ExecInput, ExecOutput, ExecRequest, ExecSession,
    Stream, WorkloadId,
};
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{
    CHUNK_BYTES_MAX, CREDIT_BYTES, Down, Output, STREAMS_MAX, StreamEnd, StreamFault, StreamId,
    StreamRequest, Up,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Messages that wait for a stream: input of a person's hands, and grants.
const MAILBOX_MAX: usize = 64;

/// The streams that are open.
#[derive(Debug)]
pub(crate) struct Streams {
    link: Sender,
    open: BTreeMap<StreamId, mpsc::Sender<Down>>,
    tasks: JoinSet<StreamId>,
}

impl Streams {
    pub(crate) fn new(link: Sender) -> Self {
        Self { link, open: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Takes a message about streams. `find` tells the backend that has an instance.
    pub(crate) fn handle(
        &mut self,
        message: Down,
        find: impl FnOnce(InstanceId) -> Option<Arc<dyn Backend>>,
    ) {
        match message {
            Down::StreamOpen { stream, request } => self.start(stream, request, find),
            Down::StreamData { stream, .. }
            | Down::StreamCredit { stream, .. }
            | Down::StreamResize { stream, .. } => {
                let Some(mailbox) = self.open.get(&stream) else { return };
                // Who sends more than the mailbox takes does not keep to the protocol.
                if mailbox.try_send(message).is_err() {
                    self.open.remove(&stream);
                }
            }
            Down::StreamClose { stream } => drop(self.open.remove(&stream)),
            Down::Welcome { .. }
            | Down::Rejected { .. }
            | Down::Change { .. }
            | Down::Manifest { .. }
            | Down::Specs { .. } => {}
        }
    }

    /// The link is gone, and with it everybody who listened.
    pub(crate) fn close_all(&mut self) {
        self.open.clear();
    }

    /// Waits for a stream to end; never returns while none is open.
    pub(crate) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(stream)) => drop(self.open.remove(&stream)),
            Some(Err(error)) => tracing::error!(%error, "a stream broke"),
            None => std::future::pending().await,
        }
    }

    fn start(
        &mut self,
        stream: StreamId,
        request: StreamRequest,
        find: impl FnOnce(InstanceId) -> Option<Arc<dyn Backend>>,
    ) {
        let link = self.link.clone();
        let job = match self.accept(stream, request, find) {
            Ok(job) => job,
            Err((fault, why)) => {
                let end = StreamEnd::Fault(fault, why);
                self.tasks.spawn(async move {
                    finish(&link, stream, end).await;
                    stream
                });
                return;
            }
        };
        let (sender, mailbox) = mpsc::channel(MAILBOX_MAX);
        self.open.insert(stream, sender);
        self.tasks.spawn(async move {
            // The opener grants the first bytes as well.
            let credit = Semaphore::new(0);
            let out = Out { stream, link: &link, credit: &credit };
            if let Some(end) = serve(job, &out, mailbox).await {
                finish(&link, stream, end).await;
            }
            stream
        });
    }

    fn accept(
        &self,
        stream: StreamId,
        request: StreamRequest,
        find: impl FnOnce(InstanceId) -> Option<Arc<dyn Backend>>,
    ) -> Result<Job, (StreamFault, String)> {
        if self.open.len() >= STREAMS_MAX {
            let why = format!("{STREAMS_MAX} streams are the most that a node serves at once");
            return Err((StreamFault::TooMany, why));
        }
        if self.open.contains_key(&stream) {
            return Err((StreamFault::Failed, format!("stream {} is open", stream.0)));
        }
        let (StreamRequest::Logs { instance, .. } | StreamRequest::Exec { instance, .. }) = request
        else {
            return Err((StreamFault::Unsupported, "a node has no children".into()));
        };
        let nothing = "nothing of this instance is on the node now";
        let backend = find(instance).ok_or((StreamFault::NotFound, nothing.to_owned()))?;
        let workload = convert::workload_id(instance)
            .map_err(|error| (StreamFault::Failed, error.to_string()))?;
        Ok(Job { backend, workload, request })
    }
}

/// What a stream is about.
struct Job {
    backend: Arc<dyn Backend>,
    workload: WorkloadId,
    request: StreamRequest,
}

/// The way out of a stream.
struct Out<'a> {
    stream: StreamId,
    link: &'a Sender,
    /// Bytes that may be sent. Closed when nobody listens any more.
    credit: &'a Semaphore,
}

impl Out<'_> {
    /// Sends all of `bytes`, as far as was granted; waits for more grants.
    async fn send(&self, output: Output, bytes: &[u8]) -> Result<(), Error> {
        for piece in bytes.chunks(CHUNK_BYTES_MAX) {
            let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let granted = self.credit.acquire_many(count).await;
            granted.map_err(|error| broken("nobody listens", error))?.forget();
            let bytes = piece.to_vec();
            let message = Up::StreamData { stream: self.stream, output, bytes };
            self.link.send(&message).await.map_err(|error| broken("no link", error))?;
        }
        Ok(())
    }
}

fn broken(why: &str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::caused(ErrorKind::Transient, "sending a stream", why, cause)
}

async fn finish(link: &Sender, stream: StreamId, end: StreamEnd) {
    if let Err(error) = link.send(&Up::StreamEnd { stream, end }).await {
        tracing::debug!(%error, stream = stream.0, "the end of a stream was not sent");
    }
}

/// Runs a stream to its end; `None` if nobody listens any more.
async fn serve(job: Job, out: &Out<'_>, mut mailbox: mpsc::Receiver<Down>) -> Option<StreamEnd> {
    let result = match job.request {
        StreamRequest::Logs { tail_lines, follow, .. } => tokio::select! {
            result = logs(&job, out, tail_lines, follow) => result,
            () = listen(&mut mailbox, out, None) => return None,
        },
        StreamRequest::Exec { ref argv, terminal, .. } => {
            match open_exec(&job, argv.clone(), terminal).await {
                Ok(ExecSession { mut input, output }) => tokio::select! {
                    result = exec(output, out) => result,
                    () = listen(&mut mailbox, out, Some(&mut *input)) => return None,
                },
                Err(error) => Err(error),
            }
        }
        StreamRequest::Children => Ok(StreamEnd::Done),
    };
    Some(result.unwrap_or_else(|error| {
        let fault = match error.kind {
            ErrorKind::NotFound => StreamFault::NotFound,
            ErrorKind::Unsupported => StreamFault::Unsupported,
            ErrorKind::Invalid
            | ErrorKind::Transient
            | ErrorKind::Exhausted
            | ErrorKind::Internal => StreamFault::Failed,
        };
        StreamEnd::Fault(fault, error.chain())
    }))
}

/// Takes grants and input until nobody speaks any more.
async fn listen(
    mailbox: &mut mpsc::Receiver<Down>,
    out: &Out<'_>,
    mut input: Option<&mut dyn ExecInput>,
) {
    while let Some(message) = mailbox.recv().await {
        let written = match (message, &mut input) {
            (Down::StreamCredit { bytes, .. }, _) => {
                // What was granted beyond the window is the parent's mistake, and harmless
                // up to the semaphore's own limit.
                let room = (CREDIT_BYTES as usize).saturating_sub(out.credit.available_permits());
                out.credit.add_permits(room.min(bytes as usize));
                Ok(())
            }
            (Down::StreamData { bytes, .. }, Some(input)) => input.write(&bytes).await,
            (Down::StreamResize { rows, columns, .. }, Some(input)) => {
                input.resize(rows, columns).await
            }
            _ => Ok(()),
        };
        if let Err(error) = written {
            // The program no longer reads; what it still writes is wanted all the same.
            tracing::debug!(error = error.chain(), "input of an exec was lost");
            input = None;
        }
    }
}

async fn logs(
    job: &Job,
    out: &Out<'_>,
    tail_lines: Option<u32>,
    follow: bool,
) -> Result<StreamEnd, Error> {
    let logs = job.backend.as_logs().ok_or_else(|| unable("logs"))?;
    let mut cursor = match tail_lines {
        Some(lines) => logs.tail(&job.workload, lines).await?,
        None => Cursor::default(),
    };
    loop {
        let chunk = logs.read(&job.workload, cursor, CHUNK_BYTES_MAX).await?;
        cursor = chunk.next;
        if !chunk.bytes.is_empty() {
            out.send(Output::Stdout, &chunk.bytes).await?;
        } else if !follow || !logs.wait(&job.workload, cursor).await? {
            return Ok(StreamEnd::Done);
        }
    }
}

async fn open_exec(
    job: &Job,
    argv: Vec<String>,
    terminal: Option<(u16, u16)>,
) -> Result<ExecSession, Error> {
    let exec = job.backend.as_exec().ok_or_else(|| unable("exec"))?;
    let request = ExecRequest { argv, environment: Vec::new(), terminal };
    exec.exec(&job.workload, &request).await
}

async fn exec(mut output: Box<dyn ExecOutput>, out: &Out<'_>) -> Result<StreamEnd, Error> {
    loop {
        match output.next().await? {
            ExecEvent::Output(Stream::Stdout, bytes) => out.send(Output::Stdout, &bytes).await?,
            ExecEvent::Output(Stream::Stderr, bytes) => out.send(Output::Stderr, &bytes).await?,
            ExecEvent::Exited(exit) => return Ok(StreamEnd::Exited(convert::exit_cause(&exit))),
        }
    }
}

fn unable(what: &str) -> Error {
    let why = format!("this backend has no {what}");
    Error::new(ErrorKind::Unsupported, "opening a stream", why)
}

//! Logs and exec for whoever asks through the cluster.
//!
//! Each stream is a task with an [`Intake`] for what comes. Neither side sends more than it was
//! granted, so a slow reader slows the stream and nothing else.

mod intake;

use crate::convert;
use crate::link::Sender;
use intake::{Intake, feed};
use marram_backend_api::{
    Backend, Cursor, Error, ErrorKind, ExecEvent, ExecOutput, ExecRequest, ExecSession, Stream,
    WorkloadId,
};
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{
    CHUNK_BYTES_MAX, Down, Output, STREAMS_MAX, StreamEnd, StreamFault, StreamId, StreamRequest, Up,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The streams that are open.
#[derive(Debug)]
pub(crate) struct Streams {
    link: Sender,
    open: BTreeMap<StreamId, Arc<Intake>>,
    tasks: JoinSet<(StreamId, Arc<Intake>)>,
}

impl Streams {
    pub(crate) fn new(link: Sender) -> Self {
        Self { link, open: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Takes a message about streams. `find` tells the backend that has an instance, `explain`
    /// what the node has to say of one.
    pub(crate) fn handle(
        &mut self,
        message: Down,
        find: impl FnOnce(InstanceId) -> Option<Arc<dyn Backend>>,
        explain: impl FnOnce(InstanceId) -> Option<Vec<u8>>,
    ) {
        match message {
            Down::StreamOpen { stream, request } => {
                let job = self.accept(stream, request, find, explain);
                self.start(stream, job);
            }
            // What comes for a stream that is over crossed its end on the way.
            Down::StreamData { stream, bytes } => {
                self.open.get(&stream).inspect(|intake| intake.put(&bytes));
            }
            Down::StreamCredit { stream, bytes } => {
                self.open.get(&stream).inspect(|intake| intake.grant_output(bytes));
            }
            Down::StreamResize { stream, rows, columns } => {
                self.open.get(&stream).inspect(|intake| intake.resize(rows, columns));
            }
            Down::StreamClose { stream } => {
                self.open.remove(&stream).inspect(|intake| intake.close());
            }
            Down::Welcome { .. }
            | Down::Rejected { .. }
            | Down::Change { .. }
            | Down::Manifest { .. }
            | Down::Specs { .. }
            | Down::Kin(_)
            | Down::Disown(_)
            | Down::Operate { .. }
            | Down::Peers(_) => {}
        }
    }

    /// The link is gone, and with it everybody who listened.
    pub(crate) fn close_all(&mut self) {
        for intake in std::mem::take(&mut self.open).into_values() {
            intake.close();
        }
    }

    /// Waits for a stream to end; never returns while none is open.
    pub(crate) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok((stream, intake))) => {
                // The number may have been given to another stream since this one was closed.
                if self.open.get(&stream).is_some_and(|open| Arc::ptr_eq(open, &intake)) {
                    self.open.remove(&stream);
                }
            }
            Some(Err(error)) => tracing::error!(%error, "a stream broke"),
            None => std::future::pending().await,
        }
    }

    fn start(&mut self, stream: StreamId, job: Result<Job, (StreamFault, String)>) {
        let link = self.link.clone();
        let intake = Arc::new(Intake::default());
        let job = match job {
            Ok(job) => job,
            Err((fault, why)) => {
                let end = StreamEnd::Fault(fault, why);
                self.tasks.spawn(async move {
                    finish(&link, stream, end).await;
                    (stream, intake)
                });
                return;
            }
        };
        self.open.insert(stream, intake.clone());
        self.tasks.spawn(async move {
            let out = Out { stream, link: &link, intake: &intake };
            if let Some(end) = serve(job, &out).await {
                finish(&link, stream, end).await;
            }
            (stream, intake)
        });
    }

    fn accept(
        &self,
        stream: StreamId,
        request: StreamRequest,
        find: impl FnOnce(InstanceId) -> Option<Arc<dyn Backend>>,
        explain: impl FnOnce(InstanceId) -> Option<Vec<u8>>,
    ) -> Result<Job, (StreamFault, String)> {
        if self.open.len() >= STREAMS_MAX {
            let why = format!("{STREAMS_MAX} streams are the most that a node serves at once");
            return Err((StreamFault::TooMany, why));
        }
        if self.open.contains_key(&stream) {
            return Err((StreamFault::Failed, format!("stream {} is open", stream.0)));
        }
        let nothing = || {
            let why = "nothing of this instance is on the node now";
            (StreamFault::NotFound, why.to_owned())
        };
        let instance = match request {
            StreamRequest::Logs { instance, .. } | StreamRequest::Exec { instance, .. } => instance,
            StreamRequest::Explain { instance } => {
                return explain(instance).map(Job::Tell).ok_or_else(nothing);
            }
            StreamRequest::Children | StreamRequest::ChildrenOf { .. } => {
                return Err((StreamFault::Unsupported, "a node has no children".into()));
            }
        };
        let backend = find(instance).ok_or_else(nothing)?;
        let workload = convert::workload_id(instance)
            .map_err(|error| (StreamFault::Failed, error.to_string()))?;
        Ok(Job::Ask(Asked { backend, workload, request }))
    }
}

/// What a stream is about.
enum Job {
    /// This text.
    Tell(Vec<u8>),
    /// Something that a backend has.
    Ask(Asked),
}

struct Asked {
    backend: Arc<dyn Backend>,
    workload: WorkloadId,
    request: StreamRequest,
}

/// The way out of a stream.
struct Out<'a> {
    stream: StreamId,
    link: &'a Sender,
    intake: &'a Intake,
}

impl Out<'_> {
    /// Sends all of `bytes`, as far as was granted; waits for more grants.
    async fn send(&self, output: Output, bytes: &[u8]) -> Result<(), Error> {
        for piece in bytes.chunks(CHUNK_BYTES_MAX) {
            let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let granted = self.intake.output.acquire_many(count).await;
            granted.map_err(|error| broken("nobody listens", error))?.forget();
            let bytes = piece.to_vec();
            let message = Up::StreamData { stream: self.stream, output, bytes };
            self.link.send(&message).await.map_err(|error| broken("no link", error))?;
        }
        Ok(())
    }

    /// Tells that the program takes so much input more.
    async fn grant(&self, bytes: u32) {
        let message = Up::StreamCredit { stream: self.stream, bytes };
        if let Err(error) = self.link.send(&message).await {
            tracing::debug!(%error, stream = self.stream.0, "a grant of input was not sent");
        }
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
async fn serve(job: Job, out: &Out<'_>) -> Option<StreamEnd> {
    let job = match job {
        Job::Ask(job) => job,
        Job::Tell(text) => {
            return tokio::select! {
                sent = out.send(Output::Stdout, &text) => Some(ending(sent.map(|()| StreamEnd::Done))),
                end = out.intake.over() => end,
            };
        }
    };
    let result = match job.request {
        StreamRequest::Logs { tail_lines, follow, .. } => tokio::select! {
            result = logs(&job, out, tail_lines, follow) => result,
            end = out.intake.over() => return end,
        },
        StreamRequest::Exec { ref argv, terminal, .. } => {
            match open_exec(&job, argv.clone(), terminal).await {
                Ok(ExecSession { mut input, output }) => tokio::select! {
                    result = exec(output, out) => result,
                    () = feed(out.intake, &mut *input, move |bytes| out.grant(bytes)) => {
                        Ok(StreamEnd::Done)
                    }
                    end = out.intake.over() => return end,
                },
                Err(error) => Err(error),
            }
        }
        // Answered without a backend.
        StreamRequest::Children
        | StreamRequest::ChildrenOf { .. }
        | StreamRequest::Explain { .. } => Ok(StreamEnd::Done),
    };
    Some(ending(result))
}

fn ending(result: Result<StreamEnd, Error>) -> StreamEnd {
    result.unwrap_or_else(|error| {
        let fault = match error.kind {
            ErrorKind::NotFound => StreamFault::NotFound,
            ErrorKind::Unsupported => StreamFault::Unsupported,
            ErrorKind::Invalid
            | ErrorKind::Transient
            | ErrorKind::Exhausted
            | ErrorKind::Internal => StreamFault::Failed,
        };
        StreamEnd::Fault(fault, error.chain())
    })
}

async fn logs(
    job: &Asked,
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
    job: &Asked,
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

//! Freezing and thawing.

use crate::backend::{Containerd, Inner};
use crate::rpc::{RUNTIME, failed};
use crate::task;
use containerd_client::services::v1::{PauseTaskRequest, ResumeTaskRequest};
use containerd_client::types::v1::Status;
use marram_backend_api::{BoxFuture, Error, ErrorKind, Pause, Result, WorkloadId};

impl Pause for Containerd {
    fn pause<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        Box::pin(set(self.inner(), id, true))
    }

    fn resume<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        Box::pin(set(self.inner(), id, false))
    }
}

async fn set(inner: &Inner, id: &WorkloadId, frozen: bool) -> Result<()> {
    const DOING: &str = "freezing or thawing the container";
    let _guard = inner.lock(id).await;
    let task = task::get(inner, id).await?;
    match (task.map(|task| task.status()), frozen) {
        (Some(Status::Paused), true) | (Some(Status::Running), false) => return Ok(()),
        (Some(Status::Running | Status::Paused | Status::Pausing), _) => {}
        (Some(Status::Unknown), _) => {
            let why = format!("the shim of {id} does not answer");
            return Err(Error::new(ErrorKind::Transient, DOING, why));
        }
        (None | Some(Status::Created | Status::Stopped), _) => {
            return Err(Error::new(ErrorKind::NotFound, DOING, format!("{id} does not run")));
        }
    }
    let mut client = inner.rpc.tasks().await?;
    let container_id = id.as_str().to_owned();
    let answer = match frozen {
        true => client.pause(inner.rpc.request(RUNTIME, PauseTaskRequest { container_id })).await,
        false => {
            client.resume(inner.rpc.request(RUNTIME, ResumeTaskRequest { container_id })).await
        }
    };
    answer.map(drop).map_err(|status| failed(DOING, status))
}

//! A workload's record in containerd: made, found, compared, removed.
//!
//! Order on the way in: container, snapshot, folder. Order on the way out: task, snapshot,
//! folder, container. So whatever exists of a workload, its container exists too, and `list`
//! shows it; a snapshot whose container is gone is garbage to containerd.

use crate::backend::{Inner, digest};
use crate::image::content::Labels;
use crate::image::info::Image;
use crate::oci::{self, user};
use crate::rpc::{QUICK, failed, found, made};
use crate::runtime;
use containerd_client::services::v1::container::Runtime as RuntimeRecord;
use containerd_client::services::v1::snapshots::{
    MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest,
    ListContainersRequest,
};
use containerd_client::types::Mount;
use marram_backend_api::{Error, ErrorKind, Result, Spec, WorkloadId};
use tonic::Code;

/// Label with the digest of the specification: what is ours, and what it was made of.
pub(crate) const SPEC_LABEL: &str = "marram/spec";

/// Label with the image's stop signal.
pub(crate) const SIGNAL_LABEL: &str = "marram/stop-signal";

/// Type of a container's description, as containerd's own clients write it.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// The container of a workload, if it has one.
pub(crate) async fn get(inner: &Inner, id: &WorkloadId) -> Result<Option<Container>> {
    let request = GetContainerRequest { id: id.as_str().into() };
    let answer = inner.rpc.containers().await?.get(inner.rpc.request(QUICK, request)).await;
    let answer = found("asking for the container", answer)?;
    Ok(answer.and_then(|answer| answer.into_inner().container))
}

/// Ids of all workloads. As a stream: descriptions are 20 KiB each, and one answer with 512
/// of them would not fit a message.
pub(crate) async fn list(inner: &Inner) -> Result<Vec<WorkloadId>> {
    const DOING: &str = "listing containers";
    let request = ListContainersRequest { filters: Vec::new() };
    let answer = inner.rpc.containers().await?.list_stream(inner.rpc.request(QUICK, request)).await;
    let mut stream = answer.map_err(|status| failed(DOING, status))?.into_inner();
    let mut all = Vec::new();
    while let Some(one) = stream.message().await.map_err(|status| failed(DOING, status))? {
        let Some(container) = one.container else { continue };
        if container.labels.contains_key(SPEC_LABEL)
            && let Ok(id) = WorkloadId::new(container.id)
        {
            all.push(id);
        }
    }
    Ok(all)
}

/// Refuses another specification for an id that exists.
pub(crate) fn same(container: &Container, spec: &Spec) -> Result<()> {
    if container.labels.get(SPEC_LABEL) == Some(&digest(spec)) {
        return Ok(());
    }
    let why = format!("{} exists with another specification", container.id);
    Err(Error::new(ErrorKind::Invalid, "preparing the container", why))
}

/// The record to create, without touching anything.
pub(crate) async fn record(
    inner: &Inner,
    id: &WorkloadId,
    spec: &Spec,
    name: &str,
    image: &Image,
) -> Result<Container> {
    let config = &inner.config;
    let runtime = runtime::choose(config, spec.runtime.as_deref())?;
    runtime.ready()?;
    let who = spec.user.as_deref().unwrap_or(&image.user);
    let accounts = match user::is_root(who) {
        true => user::Accounts::default(),
        false => crate::accounts::read(inner, image).await?,
    };
    let who = user::resolve(who, &accounts)?;
    let host =
        oci::Host { cgroups: &inner.cgroups, cgroup: inner.cgroup(id), limits: &config.limits };
    let description = oci::describe(id, spec, image, &who, &host)?;
    let value = serde_json::to_vec(&description).map_err(|error| {
        let why = "the description is no JSON";
        Error::caused(ErrorKind::Internal, "describing the container", why, error)
    })?;
    let mut labels = Labels::from([(SPEC_LABEL.to_owned(), digest(spec))]);
    if let Some(signal) = &image.stop_signal {
        labels.insert(SIGNAL_LABEL.into(), signal.clone());
    }
    Ok(Container {
        id: id.as_str().into(),
        labels,
        image: name.into(),
        runtime: Some(RuntimeRecord { name: runtime.handler, options: runtime.options }),
        spec: Some(prost_types::Any { type_url: SPEC_TYPE.into(), value }),
        snapshotter: config.snapshotter.clone(),
        snapshot_key: id.as_str().into(),
        ..Default::default()
    })
}

/// Creates the record; an equal one may be there.
pub(crate) async fn create(inner: &Inner, container: Container) -> Result<()> {
    let request = CreateContainerRequest { container: Some(container) };
    let answer = inner.rpc.containers().await?.create(inner.rpc.request(QUICK, request)).await;
    made("creating the container", answer).map(drop)
}

/// Makes the root file system on top of the image's. `false`: the image is not unpacked.
pub(crate) async fn create_root(inner: &Inner, id: &WorkloadId, image: &Image) -> Result<bool> {
    let request = PrepareSnapshotRequest {
        snapshotter: inner.config.snapshotter.clone(),
        key: id.as_str().into(),
        parent: image.chain_id.clone(),
        labels: Labels::new(),
    };
    match inner.rpc.snapshots().await?.prepare(inner.rpc.request(QUICK, request)).await {
        Ok(answer) => {
            inner.keep_mounts(id, answer.into_inner().mounts);
            Ok(true)
        }
        Err(status) if status.code() == Code::AlreadyExists => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(failed("making the root file system", status)),
    }
}

/// How the root file system is mounted.
pub(crate) async fn mounts(inner: &Inner, id: &WorkloadId) -> Result<Vec<Mount>> {
    if let Some(mounts) = inner.take_mounts(id) {
        return Ok(mounts);
    }
    let request =
        MountsRequest { snapshotter: inner.config.snapshotter.clone(), key: id.as_str().into() };
    let answer = inner.rpc.snapshots().await?.mounts(inner.rpc.request(QUICK, request)).await;
    let answer = answer.map_err(|status| failed("asking for the root file system", status))?;
    Ok(answer.into_inner().mounts)
}

/// Removes the root file system. Absent is success.
pub(crate) async fn remove_root(inner: &Inner, id: &WorkloadId) -> Result<()> {
    let request = RemoveSnapshotRequest {
        snapshotter: inner.config.snapshotter.clone(),
        key: id.as_str().into(),
    };
    let answer = inner.rpc.snapshots().await?.remove(inner.rpc.request(QUICK, request)).await;
    found("removing the root file system", answer).map(drop)
}

/// Removes the record. Absent is success.
pub(crate) async fn remove(inner: &Inner, id: &WorkloadId) -> Result<()> {
    let request = DeleteContainerRequest { id: id.as_str().into() };
    let answer = inner.rpc.containers().await?.delete(inner.rpc.request(QUICK, request)).await;
    found("removing the container", answer).map(drop)
}

//! Layers become snapshots: one per layer, each named by what it holds (its chain id).
//!
//! A layer is applied to a snapshot with a name of this attempt only and committed under
//! its chain id when it is whole, so a half-applied layer is never mistaken for a layer.

use super::content::{Descriptor, Labels};
use super::info::{Image, chain_ids};
use crate::rpc::{Lease, QUICK, Rpc, UNPACK, failed, found, made};
use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::types::Mount;
use marram_backend_api::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const DOING: &str = "unpacking the image";

/// Makes the snapshots of `layers` that are not there yet.
pub(crate) async fn unpack(
    rpc: &Rpc,
    snapshotter: &str,
    lease: &Lease,
    image: &Image,
    layers: &[Descriptor],
) -> Result<()> {
    if exists(rpc, snapshotter, &image.chain_id).await? {
        return Ok(());
    }
    let chain = chain_ids(&image.diff_ids);
    let mut parent = String::new();
    for ((layer, diff_id), chain_id) in layers.iter().zip(&image.diff_ids).zip(chain) {
        if !exists(rpc, snapshotter, &chain_id).await? {
            let work = Work { rpc, snapshotter, lease, key: attempt(&chain_id) };
            work.layer(&parent, layer, diff_id, &chain_id).await?;
        }
        parent = chain_id;
    }
    Ok(())
}

/// Whether a snapshot is there.
pub(crate) async fn exists(rpc: &Rpc, snapshotter: &str, key: &str) -> Result<bool> {
    let request = StatSnapshotRequest { snapshotter: snapshotter.into(), key: key.into() };
    let answer = rpc.snapshots().await?.stat(rpc.request(QUICK, request)).await;
    Ok(found(DOING, answer)?.is_some())
}

/// A name that no other attempt has had: time tells processes apart, a count attempts.
fn attempt(chain_id: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("marram-unpack-{now}-{count} {chain_id}")
}

struct Work<'a> {
    rpc: &'a Rpc,
    snapshotter: &'a str,
    lease: &'a Lease,
    key: String,
}

impl Work<'_> {
    async fn layer(
        &self,
        parent: &str,
        layer: &Descriptor,
        diff_id: &str,
        chain_id: &str,
    ) -> Result<()> {
        let mounts = self.prepare(parent).await?;
        let done = match self.apply(layer, mounts, diff_id).await {
            Ok(()) => self.commit(chain_id).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            // The lease would take it away as well, but perhaps a week later.
            if let Err(error) = self.remove().await {
                tracing::debug!(error = error.chain(), "a half-unpacked layer stays for now");
            }
        }
        done
    }

    async fn prepare(&self, parent: &str) -> Result<Vec<Mount>> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.into(),
            key: self.key.clone(),
            parent: parent.into(),
            labels: Labels::new(),
        };
        let request = Rpc::leased(self.rpc.request(QUICK, request), self.lease);
        let answer = self.rpc.snapshots().await?.prepare(request).await;
        Ok(answer.map_err(|status| failed(DOING, status))?.into_inner().mounts)
    }

    async fn apply(&self, layer: &Descriptor, mounts: Vec<Mount>, diff_id: &str) -> Result<()> {
        let request = ApplyRequest { diff: Some(layer.to_proto()?), mounts, ..Default::default() };
        let request = Rpc::leased(self.rpc.request(UNPACK, request), self.lease);
        let answer = self.rpc.diff().await?.apply(request).await;
        let applied = answer.map_err(|status| failed(DOING, status))?.into_inner().applied;
        let got = applied.map(|applied| applied.digest).unwrap_or_default();
        if got != diff_id {
            let why = format!("layer {} unpacks to {got}, not to {diff_id}", layer.digest);
            return Err(Error::new(ErrorKind::Invalid, DOING, why));
        }
        Ok(())
    }

    async fn commit(&self, chain_id: &str) -> Result<()> {
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter.into(),
            name: chain_id.into(),
            key: self.key.clone(),
            labels: Labels::new(),
        };
        let request = Rpc::leased(self.rpc.request(QUICK, request), self.lease);
        let answer = self.rpc.snapshots().await?.commit(request).await;
        if made(DOING, answer)?.is_none() {
            // Somebody else was faster; ours is of no use any more.
            self.remove().await?;
        }
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        let request =
            RemoveSnapshotRequest { snapshotter: self.snapshotter.into(), key: self.key.clone() };
        let answer = self.rpc.snapshots().await?.remove(self.rpc.request(QUICK, request)).await;
        found(DOING, answer).map(drop)
    }
}

//! Makes an image usable: from containerd if it is there, from a registry if not.
//!
//! Invariants:
//! - one pull of an image at a time in this process; others wait and find it there;
//! - a pull that is cut at any point goes on where it was: finished blobs and halves of
//!   blobs are kept by a lease, which ends with the pull or after [`LEASE_SECONDS`].

use super::content::{self, Descriptor, Labels, Opened};
use super::info::{self, Image, Manifest, Parsed};
use super::reference::{Reference, Version};
use super::registry::{Endpoint, Repository};
use super::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX, credentials, unpack};
use crate::config::Config;
use crate::rpc::{Lease, QUICK, Rpc, failed, found, made};
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, GetImageRequest, Image as Record,
    UpdateImageRequest,
};
use marram_backend_api::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long an unfinished pull is kept for the next attempt: a week of bad connection.
const LEASE_SECONDS: u64 = 7 * 24 * 3600;

/// Images whose descriptions are kept in memory, some kilobytes each; a node runs at most
/// 512 instances, mostly of few images.
const CACHED_MAX: usize = 64;

/// Pieces in which a blob is handed to containerd. Each is held some five times on its way, and
/// on a small board that is what a pull costs; larger ones are no faster over a socket.
const PIECE_BYTES: usize = 64 << 10;

/// Cuts in a row without a single new byte before a server is given up.
const STUCK_MAX: u32 = 3;

/// Pause after a cut, times the number of cuts in a row.
const CUT_WAIT: Duration = Duration::from_millis(200);

/// Steps in which progress is told.
const PROGRESS_STEPS: u64 = 100;

const DOING: &str = "pulling the image";

/// Told about bytes done and bytes in all.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// The images of one namespace.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// By digest of what the name refers to.
    cache: Mutex<BTreeMap<String, Arc<Image>>>,
    /// One lock for each of a few groups of names.
    pulling: [tokio::sync::Mutex<()>; 8],
}

/// Everything a pull needs.
struct Pull<'a> {
    rpc: &'a Rpc,
    config: &'a Config,
    reference: &'a Reference,
    lease: Lease,
    progress: Progress<'a>,
}

impl Images {
    /// The image called `name`, pulled if it is not there.
    pub(crate) async fn ensure(
        &self,
        rpc: &Rpc,
        config: &Config,
        reference: &Reference,
        progress: Progress<'_>,
    ) -> Result<Arc<Image>> {
        if let Some(image) = self.present(rpc, reference).await? {
            return Ok(image);
        }
        self.pull(rpc, config, reference, progress).await
    }

    /// Pulls although something of that name may be there, after its parts were found gone.
    pub(crate) async fn pull(
        &self,
        rpc: &Rpc,
        config: &Config,
        reference: &Reference,
        progress: Progress<'_>,
    ) -> Result<Arc<Image>> {
        let name = reference.to_string();
        let group = name.bytes().fold(0usize, |sum, b| (sum + usize::from(b)) % 8);
        let _one_at_a_time = self.pulling[group].lock().await;
        if let Some(image) = self.unpacked(rpc, config, reference).await? {
            return Ok(image);
        }
        let lease = lease(rpc, &name).await?;
        let pull = Pull { rpc, config, reference, lease, progress };
        let image = Arc::new(pull.run().await?);
        release(rpc, &name).await?;
        Ok(image)
    }

    /// The image if its record and description are there. Whether it is unpacked shows when
    /// a container's snapshot is made on top of it.
    async fn present(&self, rpc: &Rpc, reference: &Reference) -> Result<Option<Arc<Image>>> {
        let request = GetImageRequest { name: reference.to_string() };
        let answer = rpc.images().await?.get(rpc.request(QUICK, request)).await;
        let Some(answer) = found("looking for the image", answer)? else { return Ok(None) };
        let Some(target) = answer.into_inner().image.and_then(|image| image.target) else {
            return Ok(None);
        };
        if let Some(image) = self.cached(&target.digest) {
            return Ok(Some(image));
        }
        let Some((image, _)) = described(rpc, &target.digest, &target.media_type).await? else {
            return Ok(None);
        };
        let image = Arc::new(image);
        self.keep(target.digest, image.clone());
        Ok(Some(image))
    }

    /// The image if a container could be made of it at once.
    async fn unpacked(
        &self,
        rpc: &Rpc,
        config: &Config,
        reference: &Reference,
    ) -> Result<Option<Arc<Image>>> {
        let Some(image) = self.present(rpc, reference).await? else { return Ok(None) };
        let there = unpack::exists(rpc, &config.snapshotter, &image.chain_id).await?;
        Ok(there.then_some(image))
    }

    fn cached(&self, digest: &str) -> Option<Arc<Image>> {
        self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(digest).cloned()
    }

    fn keep(&self, digest: String, image: Arc<Image>) {
        let mut cache = self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if cache.len() >= CACHED_MAX {
            cache.clear();
        }
        cache.insert(digest, image);
    }
}

/// Reads an image's description out of the content store, `None` if a part is missing.
async fn described(rpc: &Rpc, digest: &str, media_type: &str) -> Result<Option<(Image, Manifest)>> {
    let Some(bytes) = content::read(rpc, digest, MANIFEST_BYTES_MAX).await? else {
        return Ok(None);
    };
    let manifest = match info::parse(&bytes, media_type)?.0 {
        Parsed::Manifest(manifest) => manifest,
        Parsed::Index(entry) => {
            let Some(bytes) = content::read(rpc, &entry.digest, MANIFEST_BYTES_MAX).await? else {
                return Ok(None);
            };
            only_manifest(info::parse(&bytes, &entry.media_type)?.0)?
        }
    };
    let config = content::read(rpc, &manifest.config.digest, CONFIG_BYTES_MAX).await?;
    let Some(config) = config else { return Ok(None) };
    Ok(Some((info::configuration(&config, manifest.layers.len())?, manifest)))
}

fn only_manifest(parsed: Parsed) -> Result<Manifest> {
    match parsed {
        Parsed::Manifest(manifest) => Ok(manifest),
        Parsed::Index(_) => {
            Err(Error::new(ErrorKind::Unsupported, DOING, "an index inside an index"))
        }
    }
}

fn lease_id(name: &str) -> String {
    format!("marram-pull-{}", &super::sha256(name.as_bytes())["sha256:".len()..][..24])
}

/// The lease of this image's pulls: made now, or the one that an earlier attempt left.
async fn lease(rpc: &Rpc, name: &str) -> Result<Lease> {
    let id = lease_id(name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expires = crate::time::rfc3339(now.saturating_add(LEASE_SECONDS));
    let labels = Labels::from([
        ("containerd.io/gc.expire".to_owned(), expires),
        ("marram/image".to_owned(), super::sha256(name.as_bytes())),
    ]);
    let request = CreateRequest { id: id.clone(), labels };
    let answer = rpc.leases().await?.create(rpc.request(QUICK, request)).await;
    made("making a lease", answer)?;
    Lease::new(&id)
}

async fn release(rpc: &Rpc, name: &str) -> Result<()> {
    let request = DeleteRequest { id: lease_id(name), sync: false };
    let answer = rpc.leases().await?.delete(rpc.request(QUICK, request)).await;
    found("ending a lease", answer).map(drop)
}

impl Pull<'_> {
    async fn run(&self) -> Result<Image> {
        let known = self.config.registries.get(&self.reference.registry);
        let endpoints = Endpoint::of(self.reference, known)?;
        let mut failure: Option<Error> = None;
        for endpoint in endpoints {
            match self.from(endpoint).await {
                Ok(image) => return Ok(image),
                Err(error) => {
                    tracing::info!(image = %self.reference, error = error.chain(), "pull failed");
                    // Full disks and wrong images are the same from everywhere.
                    if matches!(error.kind, ErrorKind::Exhausted | ErrorKind::Invalid) {
                        return Err(error);
                    }
                    failure = Some(worse(failure, error));
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            let why = format!("{} has no mirror, and only mirrors may be asked", self.reference);
            Error::new(ErrorKind::NotFound, DOING, why)
        }))
    }

    async fn from(&self, endpoint: Endpoint) -> Result<Image> {
        let credentials = match &self.config.credentials_file {
            Some(file) => credentials::find(file, &endpoint.host)?,
            None => None,
        };
        let repository = Repository::new(endpoint, self.reference, credentials)?;
        let top = repository.manifest(&self.reference.version).await?;
        let (parsed, media_type) = info::parse(&top.bytes, &top.media_type)?;
        let target = describe(&top.bytes, media_type);
        let manifest = match parsed {
            Parsed::Manifest(manifest) => {
                self.keep(&target, top.bytes, manifest.references()).await?;
                manifest
            }
            Parsed::Index(entry) => {
                let version = Version::Digest(entry.digest.clone());
                let inner = repository.manifest(&version).await?;
                let (parsed, media_type) = info::parse(&inner.bytes, &entry.media_type)?;
                let manifest = only_manifest(parsed)?;
                let inner_blob = describe(&inner.bytes, media_type);
                self.keep(&inner_blob, inner.bytes, manifest.references()).await?;
                let label = ("containerd.io/gc.ref.content.m.0".to_owned(), entry.digest);
                self.keep(&target, top.bytes, Labels::from([label])).await?;
                manifest
            }
        };
        let image = self.blobs(&repository, &manifest).await?;
        self.record(target).await?;
        Ok(image)
    }

    /// Configuration, layers, snapshots.
    async fn blobs(&self, repository: &Repository, manifest: &Manifest) -> Result<Image> {
        let total = manifest.layers.iter().map(|layer| layer.size).sum();
        (self.progress)(0, total);
        self.blob(repository, &manifest.config, &|_| {}).await?;
        let config = content::read(self.rpc, &manifest.config.digest, CONFIG_BYTES_MAX).await?;
        let config = config.ok_or_else(|| {
            Error::new(ErrorKind::Transient, DOING, "the configuration vanished again")
        })?;
        let image = info::configuration(&config, manifest.layers.len())?;
        let key = format!("containerd.io/gc.ref.snapshot.{}", self.config.snapshotter);
        let labels = Labels::from([(key, image.chain_id.clone())]);
        content::label(self.rpc, &manifest.config.digest, labels).await?;
        let step = (total / PROGRESS_STEPS).max(1);
        let mut done = 0;
        for layer in &manifest.layers {
            let told = std::sync::atomic::AtomicU64::new(0);
            let tell = |bytes: u64| {
                let now = (done + bytes) / step;
                if told.swap(now, std::sync::atomic::Ordering::Relaxed) != now {
                    (self.progress)(done + bytes, total);
                }
            };
            self.blob(repository, layer, &tell).await?;
            done += layer.size;
        }
        (self.progress)(total, total);
        let snapshotter = &self.config.snapshotter;
        unpack::unpack(self.rpc, snapshotter, &self.lease, &image, &manifest.layers).await?;
        Ok(image)
    }

    /// Keeps a manifest or index that was fetched whole.
    async fn keep(&self, blob: &Descriptor, bytes: Vec<u8>, labels: Labels) -> Result<()> {
        match content::open(self.rpc, &self.lease, blob).await? {
            Opened::Exists => content::label(self.rpc, &blob.digest, labels).await,
            Opened::Partial(mut ingest) => {
                ingest.write(bytes, true).await?;
                ingest.commit(labels).await
            }
        }
    }

    /// Fetches a blob, going on where an earlier attempt or a cut connection left it.
    async fn blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        tell: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let mut ingest = match content::open(self.rpc, &self.lease, blob).await? {
            Opened::Exists => {
                tell(blob.size);
                return Ok(());
            }
            Opened::Partial(ingest) => ingest,
        };
        let mut stuck = 0;
        while ingest.offset < blob.size || blob.size == 0 {
            let before = ingest.offset;
            match stream(repository, blob, &mut ingest, tell).await {
                Ok(()) => break,
                Err(error) if error.kind != ErrorKind::Transient => return Err(error),
                Err(error) => {
                    stuck = if ingest.offset > before { 0 } else { stuck + 1 };
                    if stuck == STUCK_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(CUT_WAIT * (stuck + 1)).await;
                }
            }
        }
        match ingest.commit(Labels::new()).await {
            Err(error) if error.kind == ErrorKind::Internal => {
                // Wrong bytes: the next attempt must not go on from them.
                ingest.abort(self.rpc).await?;
                let why = format!("{}: {} has wrong contents", repository.server(), blob.digest);
                Err(Error::caused(ErrorKind::Internal, DOING, why, error))
            }
            done => done,
        }
    }

    /// Makes the name refer to what was fetched.
    async fn record(&self, target: Descriptor) -> Result<()> {
        let image = Record {
            name: self.reference.to_string(),
            target: Some(target.to_proto()?),
            ..Default::default()
        };
        let request = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
        let request = Rpc::leased(self.rpc.request(QUICK, request), &self.lease);
        let answer = self.rpc.images().await?.create(request).await;
        if made("recording the image", answer)?.is_none() {
            let request = UpdateImageRequest { image: Some(image), ..Default::default() };
            let request = self.rpc.request(QUICK, request);
            let answer = self.rpc.images().await?.update(request).await;
            answer.map_err(|status| failed("recording the image", status))?;
        }
        Ok(())
    }
}

/// Hands the rest of a blob from the registry to containerd, piece by piece.
async fn stream(
    repository: &Repository,
    blob: &Descriptor,
    ingest: &mut content::Ingest,
    tell: &(dyn Fn(u64) + Send + Sync),
) -> Result<()> {
    let mut opened = repository.blob(&blob.digest, ingest.offset).await?;
    let mut restart = opened.offset < ingest.offset;
    let mut at = opened.offset;
    let mut piece: Vec<u8> = Vec::with_capacity(PIECE_BYTES);
    loop {
        let chunk = opened.response.chunk().await;
        if let Ok(Some(chunk)) = &chunk {
            at = at.saturating_add(chunk.len() as u64);
            if at > blob.size {
                let why = format!("{} sends more of {}", repository.server(), blob.digest);
                return Err(Error::new(ErrorKind::Internal, DOING, why));
            }
            piece.extend_from_slice(chunk);
        }
        let more = matches!(chunk, Ok(Some(_)));
        // What came before a cut is kept as well.
        if !piece.is_empty() && (!more || piece.len() >= PIECE_BYTES) {
            ingest.write(std::mem::take(&mut piece), restart).await?;
            restart = false;
            tell(ingest.offset);
        }
        match chunk {
            Ok(Some(_)) => {}
            Ok(None) if at == blob.size => return Ok(()),
            Ok(None) => {
                let why = format!("{} ended after {at} of {}", repository.server(), blob.size);
                return Err(Error::new(ErrorKind::Transient, DOING, why));
            }
            Err(error) => {
                let why = format!("{} was cut after {at}", repository.server());
                return Err(Error::caused(ErrorKind::Transient, DOING, why, error));
            }
        }
    }
}

fn describe(bytes: &[u8], media_type: String) -> Descriptor {
    Descriptor { media_type, digest: super::sha256(bytes), size: bytes.len() as u64 }
}

/// Of the failures of two servers the one that leaves more hope: a server that could not be
/// reached may have the image that another lacks.
fn worse(first: Option<Error>, second: Error) -> Error {
    let hope = |error: &Error| match error.kind {
        ErrorKind::Transient => 2,
        ErrorKind::Internal => 1,
        _ => 0,
    };
    match first {
        Some(first) if hope(&first) >= hope(&second) => first,
        _ => second,
    }
}

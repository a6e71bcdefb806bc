//! What an image says about itself: its manifest for this host and its configuration.
//!
//! Why apart: parsing is pure and takes hostile input, so it is tested without containerd.

use super::content::{Descriptor, Labels};
use super::{IMAGE_BYTES_MAX, LAYERS_MAX, is_digest, sha256};
use marram_backend_api::{Error, ErrorKind, Result};

const DOING: &str = "reading the image";

/// A manifest or an index; both formats of both kinds share these fields.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Entry>,
    config: Option<Entry>,
    #[serde(default)]
    layers: Vec<Entry>,
}

#[derive(serde::Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(serde::Deserialize, Clone, Debug, PartialEq, Eq)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// A parsed manifest or index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Several platforms; this is the entry for this host.
    Index(Descriptor),
    /// One platform.
    Manifest(Manifest),
}

/// An image of one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What a container takes from its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Name of the snapshot with all layers.
    pub(crate) chain_id: String,
    /// Uncompressed digests of the layers, from the bottom.
    pub(crate) diff_ids: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) working_dir: String,
    pub(crate) user: String,
    pub(crate) stop_signal: Option<String>,
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, DOING, why)
}

/// Reads a manifest or an index. Its own `mediaType` must agree with the server's, or one
/// digest could mean two things.
pub(crate) fn parse(bytes: &[u8], media_type: &str) -> Result<(Parsed, String)> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| invalid(format!("no manifest or index: {error}")))?;
    if document.schema_version != 2 {
        return Err(Error::new(
            ErrorKind::Unsupported,
            DOING,
            format!("manifest schema {}, only 2 is known", document.schema_version),
        ));
    }
    let own = document.media_type.as_deref().unwrap_or(media_type);
    if !media_type.is_empty() && media_type != own {
        return Err(invalid(format!("a {own} was served as {media_type}")));
    }
    let parsed = match (document.config, document.manifests) {
        (Some(config), entries) if entries.is_empty() => {
            Parsed::Manifest(manifest(config, document.layers)?)
        }
        (None, entries) => Parsed::Index(choose(&entries, &host())?),
        (Some(_), _) => return Err(invalid("both an index and a manifest")),
    };
    let fallback = match parsed {
        Parsed::Index(_) => "application/vnd.oci.image.index.v1+json",
        Parsed::Manifest(_) => "application/vnd.oci.image.manifest.v1+json",
    };
    let own = if own.is_empty() { fallback } else { own };
    Ok((parsed, own.to_owned()))
}

fn manifest(config: Entry, layers: Vec<Entry>) -> Result<Manifest> {
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        return Err(invalid(format!("{} layers, 1 to {LAYERS_MAX} are allowed", layers.len())));
    }
    for layer in &layers {
        let kind = layer.media_type.as_str();
        let known = kind.starts_with("application/vnd.oci.image.layer.v1.tar")
            || kind.starts_with("application/vnd.docker.image.rootfs.diff.tar");
        if !known {
            let why = format!("a layer of type {kind}");
            return Err(Error::new(ErrorKind::Unsupported, DOING, why));
        }
    }
    let layers = layers.iter().map(descriptor).collect::<Result<Vec<_>>>()?;
    let total = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
    if total.is_none_or(|total| total > IMAGE_BYTES_MAX) {
        return Err(invalid(format!("larger than {IMAGE_BYTES_MAX} bytes")));
    }
    let config = descriptor(&config)?;
    if config.size > super::CONFIG_BYTES_MAX {
        return Err(invalid(format!("a configuration of {} bytes", config.size)));
    }
    Ok(Manifest { config, layers })
}

fn descriptor(entry: &Entry) -> Result<Descriptor> {
    if !is_digest(&entry.digest) {
        let why = format!("digest {:?}, only sha256 is known", entry.digest);
        return Err(Error::new(ErrorKind::Unsupported, DOING, why));
    }
    let Entry { media_type, digest, size, .. } = entry.clone();
    Ok(Descriptor { media_type, digest, size })
}

/// This host in the image format's words.
fn host() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", None),
        "x86" => ("386", None),
        "aarch64" => ("arm64", Some("v8")),
        // Built for hardware floats (armhf, armv7) unless told otherwise.
        "arm" => ("arm", Some(if cfg!(target_feature = "v7") { "v7" } else { "v6" })),
        other => (other, None),
    };
    let variant = variant.map(str::to_owned);
    Platform { os: "linux".into(), architecture: architecture.into(), variant }
}

/// The best entry of an index: same system and architecture, and the highest variant that
/// does not exceed the host's. Entries without a platform are no images (attestations).
fn choose(entries: &[Entry], host: &Platform) -> Result<Descriptor> {
    let level = |variant: &Option<String>| -> u32 {
        let digits = variant.as_deref().and_then(|text| text.strip_prefix('v'));
        digits.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let fits = |platform: &Platform| {
        platform.os == host.os
            && platform.architecture == host.architecture
            && level(&platform.variant) <= level(&host.variant)
    };
    let best = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref().map(|platform| (platform, entry)))
        .filter(|(platform, _)| fits(platform))
        // `max_by_key` takes the last of equals, the format says the first.
        .rev()
        .max_by_key(|(platform, _)| level(&platform.variant));
    match best {
        Some((_, entry)) => descriptor(entry),
        None => {
            let Platform { os, architecture, .. } = host;
            let why = format!("the image has no manifest for {os}/{architecture}");
            Err(Error::new(ErrorKind::Unsupported, DOING, why))
        }
    }
}

/// Reads a configuration and names the snapshot of all its layers.
pub(crate) fn configuration(bytes: &[u8], layers: usize) -> Result<Image> {
    let parsed: oci_spec::image::ImageConfiguration = serde_json::from_slice(bytes)
        .map_err(|error| invalid(format!("no image configuration: {error}")))?;
    let diff_ids = parsed.rootfs().diff_ids();
    if diff_ids.len() != layers || !diff_ids.iter().all(|id| is_digest(id)) {
        let why = format!("{} uncompressed digests for {layers} layers", diff_ids.len());
        return Err(invalid(why));
    }
    let chain_id = chain_ids(diff_ids).pop().ok_or_else(|| invalid("an image without layers"))?;
    let config = parsed.config().clone().unwrap_or_default();
    Ok(Image {
        chain_id,
        diff_ids: diff_ids.clone(),
        environment: config.env().clone().unwrap_or_default(),
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        command: config.cmd().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone(),
    })
}

/// Names of the snapshots after each layer: a snapshot is what lies below plus one layer.
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        let next = match chain.last() {
            None => id.clone(),
            Some(below) => sha256(format!("{below} {id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

impl Manifest {
    /// Labels that make the garbage collector keep what the manifest refers to.
    pub(crate) fn references(&self) -> Labels {
        let layers = self.layers.iter().enumerate();
        let mut labels: Labels = layers
            .map(|(i, layer)| (format!("containerd.io/gc.ref.content.l.{i}"), layer.digest.clone()))
            .collect();
        labels.insert("containerd.io/gc.ref.content.config".into(), self.config.digest.clone());
        labels
    }
}

#[cfg(test)]
mod tests;

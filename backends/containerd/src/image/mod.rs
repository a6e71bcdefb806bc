//! Images: their names, where they come from and how they become root file systems.
//!
//! ```text
//!  name ──► registry ──► content store ──► snapshots ──► image record
//!  (reference) (registry)    (content)       (unpack)       (pull)
//! ```
//!
//! Invariants:
//! - an image that is there is used without any network, whatever its tag: `:latest` is not
//!   looked up again (remove the image to have it pulled anew);
//! - everything fetched is checked against its digest by containerd before it is kept;
//! - what a pull has made so far is under a lease until the image record refers to it.

pub(crate) mod content;
pub(crate) mod credentials;
pub(crate) mod info;
pub(crate) mod pull;
pub(crate) mod reference;
pub(crate) mod registry;
pub(crate) mod unpack;

/// Most layers of an image: overlayfs mounts of containerd take about as many before the
/// mount options no longer fit into a page.
pub(crate) const LAYERS_MAX: usize = 127;

/// Largest manifest or index: the OCI distribution specification's own advice.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// Largest image configuration: ten times the longest build histories seen.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Largest sum of an image's compressed layers: more than any edge image, less than a disk.
pub(crate) const IMAGE_BYTES_MAX: u64 = 32 << 30;

/// SHA-256 of `bytes` as an OCI digest.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    format!("sha256:{}", hex(digest.as_ref()))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

/// Whether `text` is a digest we can check: `sha256:` and 64 hexadecimal digits. It becomes
/// part of URLs and of names in containerd, so nothing else passes.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_exact() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        assert!(is_digest(empty));
        for bad in ["sha256:", "sha512:00", &empty[..70], &empty.to_uppercase(), "sha256:../x"] {
            assert!(!is_digest(bad), "{bad}");
        }
    }
}

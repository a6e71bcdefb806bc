//! Names of images, as people write them, made whole.
//!
//! Why our own: the grammar is small, and the parsers at hand compile regular expressions
//! that cost a board more memory than everything else here.

use super::is_digest;
use marram_backend_api::{Error, ErrorKind, Result};
use std::fmt;

/// Longest name: hosts end at 253 bytes, repositories at 255, a tag or digest adds 129.
const NAME_BYTES_MAX: usize = 512;

/// Longest tag, by the distribution specification.
const TAG_BYTES_MAX: usize = 128;

/// A whole name: `docker.io/library/nginx:latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Host and port as written: `docker.io`.
    pub(crate) registry: String,
    /// Path below it: `library/nginx`.
    pub(crate) repository: String,
    /// What is asked for.
    pub(crate) version: Version,
}

/// Which of a repository's manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    /// By a name that may move.
    Tag(String),
    /// By content. A tag beside a digest says nothing and is dropped.
    Digest(String),
}

impl Reference {
    /// Completes and checks a name.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::read(text).ok_or_else(|| {
            let why = format!("{text:?} is not [host[:port]/]path[:tag][@sha256:digest]");
            Error::new(ErrorKind::Invalid, "reading the image's name", why)
        })
    }

    fn read(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return None;
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag, one before it a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) || digest.is_some_and(|digest| !is_digest(digest)) {
            return None;
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if host == "localhost" || host.contains(['.', ':']) => (host, path),
            _ => ("docker.io", name),
        };
        // Docker Hub's two other names.
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        let official = registry == "docker.io" && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        if !is_host(registry) || !repository.split('/').all(is_component) {
            return None;
        }
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest.to_owned()),
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Some(Self { registry: registry.to_owned(), repository, version })
    }

    /// As it stands in a URL after `/manifests/`.
    pub(crate) fn version(&self) -> &str {
        match &self.version {
            Version::Tag(text) | Version::Digest(text) => text,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        write!(f, "{}/{}{mark}{}", self.registry, self.repository, self.version())
    }
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= TAG_BYTES_MAX
        && word(bytes[0])
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(&first, &last)| plain(first) && plain(last))
        && bytes.iter().all(|&b| plain(b) || b"._-".contains(&b))
        && !text.contains("..")
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    good && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed() {
        let by_digest = format!("nginx:1.2@{DIGEST}");
        let whole = format!("docker.io/library/nginx@{DIGEST}");
        let cases = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
            ("curlimages/curl:7.82.0", "docker.io/curlimages/curl:7.82.0"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("ghcr.io/a_b/c-d.e:V1.2-3", "ghcr.io/a_b/c-d.e:V1.2-3"),
            (by_digest.as_str(), whole.as_str()),
        ];
        for (text, expected) in cases {
            assert_eq!(Reference::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(600);
        let bad = [
            "",
            " ",
            "a b",
            "A",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:b/c:",
            "../a",
            "a@sha256:12",
            "a:.x",
            "host.x:0/a",
            "host.x:99999/a",
            "[::z]:1/a",
            "a?x",
            "a#x",
            "a%2f",
            "ä",
            &long,
            "a@",
            "x.y/a..b",
            "http://x.y/a",
        ];
        for text in bad {
            let error = Reference::parse(text).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{text}");
        }
    }
}

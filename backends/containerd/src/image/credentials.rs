//! Names and passwords of registries, from a file in the form of Docker's `config.json`.
//!
//! Only its `auths` table is read: entries with `auth` (base64 of `name:password`) or with
//! `username` and `password`. Credential helpers are programs that a node should not run,
//! and identity tokens need a login service; an entry with only those is an error.
//!
//! Invariant: the credentials of a host are sent to that host and to no mirror of it.

use base64::Engine as _;
use marram_backend_api::{Credentials, Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest credentials file: a thousand registries.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Docker Hub's entry is filed under this old address.
const HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(serde::Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(serde::Deserialize, Default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// What `file` holds for `host`. A file that is named and not there is an error: silence
/// would show up as a refused pull far from its cause.
pub(crate) fn find(file: &Path, host: &str) -> Result<Option<Credentials>> {
    let fail = |kind, why: String| {
        Error::new(kind, "reading registry credentials", format!("{}: {why}", file.display()))
    };
    let length = std::fs::metadata(file).map_err(|e| fail(ErrorKind::NotFound, e.to_string()))?;
    if length.len() > FILE_BYTES_MAX {
        return Err(fail(ErrorKind::Invalid, format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read(file).map_err(|e| fail(ErrorKind::NotFound, e.to_string()))?;
    parse(&text, host).map_err(|why| fail(ErrorKind::Invalid, why))
}

fn parse(text: &[u8], host: &str) -> std::result::Result<Option<Credentials>, String> {
    // serde_json's own message could repeat a part of the file, and with it a password.
    let file: File = serde_json::from_slice(text)
        .map_err(|e| format!("no valid JSON of the expected form at line {}", e.line()))?;
    let matches = |key: &str| {
        let bare = key.trim_start_matches("https://").trim_start_matches("http://");
        bare.split('/').next() == Some(host) || (host == "docker.io" && key == HUB_KEY)
    };
    let Some((key, entry)) = file.auths.into_iter().find(|(key, _)| matches(key)) else {
        return Ok(None);
    };
    match entry {
        Entry { auth: Some(auth), .. } if !auth.is_empty() => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(auth.trim())
                .map_err(|_| format!("auth of {key:?} is no base64"))?;
            let text =
                String::from_utf8(bytes).map_err(|_| format!("auth of {key:?}: no UTF-8"))?;
            let (username, password) = text
                .split_once(':')
                .ok_or_else(|| format!("auth of {key:?} is not name:password"))?;
            Ok(Some(Credentials { username: username.into(), password: password.into() }))
        }
        Entry { username: Some(username), password: Some(password), .. } => {
            Ok(Some(Credentials { username, password }))
        }
        _ => Err(format!("{key:?} has neither auth nor username and password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"auths":{
        "https://index.docker.io/v1/":{"auth":"aHViOnB3OjE="},
        "127.0.0.1:5000":{"username":"u","password":"p"},
        "https://helper.example":{}},
        "credsStore":"x"}"#;

    #[test]
    fn entries_are_found_by_host_only() {
        let find = |host| parse(FILE.as_bytes(), host).unwrap();
        let hub = find("docker.io").unwrap();
        assert_eq!((hub.username.as_str(), hub.password.as_str()), ("hub", "pw:1"));
        assert_eq!(find("127.0.0.1:5000").unwrap().username, "u");
        assert_eq!(find("127.0.0.1:5001"), None);
        assert_eq!(find("127.0.0.1"), None);
        assert!(parse(FILE.as_bytes(), "helper.example").unwrap_err().contains("neither"));
    }

    #[test]
    fn errors_never_repeat_the_file() {
        let text = parse(br#"{"auths":{"a":{"auth":7, "password":"secret"}}}"#, "a").unwrap_err();
        assert!(!text.contains("secret") && text.contains("line 1"), "{text}");
        assert!(parse(br#"{"auths":{"a":{"auth":"c2VjcmV0"}}}"#, "a").is_err());
    }
}

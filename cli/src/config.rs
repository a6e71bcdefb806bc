//! The operator's configuration: which server, and the logins.
//!
//! Why apart: it holds tokens, so how the file is opened and written is a matter of safety.
//!
//! Invariants: the file is mode 0600 in a folder of mode 0700, and replaced whole; a token is
//! kept under the server that gave it and handed out for no other.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::server::{self, Server};

/// Longest configuration file: hundreds of servers with their tokens.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    /// The server used when none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    /// Logins by server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    logins: BTreeMap<String, Login>,
}

/// What logging in gave.
#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// Who.
    pub(crate) username: String,
    /// Shown with each request; lives minutes.
    pub(crate) token: String,
    /// Gets a new token; lives days.
    pub(crate) refresh_token: String,
}

/// The file and where it is.
pub(crate) struct Config {
    path: PathBuf,
    file: File,
}

impl Config {
    /// No configuration, for what needs no login. It cannot be written.
    pub(crate) fn none() -> Self {
        Self { path: PathBuf::new(), file: File::default() }
    }

    /// Reads the file at `path`, or at its usual place. None there is an empty configuration.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, Error> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => usual_path()?,
        };
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { path, file: File::default() });
            }
            Err(error) => return Err(Error::io("read", path, error)),
        };
        if !meta.is_file() || meta.len() > CONFIG_BYTES_MAX {
            return Err(Error::Usage(format!(
                "{}: not a file of at most {CONFIG_BYTES_MAX} bytes",
                path.display()
            )));
        }
        if meta.permissions().mode() & 0o077 != 0 {
            // It holds tokens: closed at once, whoever opened it.
            std::fs::set_permissions(&path, Permissions::from_mode(0o600))
                .map_err(|error| Error::io("close to others", &path, error))?;
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let file = toml::from_str(&text).map_err(|error| wrong(&path, &text, &error))?;
        Ok(Self { path, file })
    }

    /// The server to speak to: what was given, else what is configured, else the usual one.
    pub(crate) fn server(&self, given: Option<&str>) -> Result<Server, Error> {
        Server::parse(given.or(self.file.server.as_deref()).unwrap_or(server::DEFAULT))
    }

    /// The login at a server.
    pub(crate) fn login(&self, server: Server) -> Option<&Login> {
        self.file.logins.get(&server.to_string())
    }

    /// Keeps a login and writes the file.
    pub(crate) fn keep(&mut self, server: Server, login: Login) -> Result<(), Error> {
        self.file.logins.insert(server.to_string(), login);
        self.save()
    }

    /// Makes this the server used when none is named, and writes the file.
    pub(crate) fn prefer(&mut self, server: Server) -> Result<(), Error> {
        self.file.server = Some(server.to_string());
        self.save()
    }

    /// Forgets a server and its login, and writes the file.
    pub(crate) fn forget(&mut self, server: Server) -> Result<(), Error> {
        let name = server.to_string();
        let known = self.file.logins.remove(&name).is_some();
        let preferred = self.file.server.as_ref() == Some(&name);
        if preferred {
            self.file.server = None;
        }
        if known || preferred { self.save() } else { Ok(()) }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn save(&self) -> Result<(), Error> {
        let text = toml::to_string(&self.file)
            .map_err(|error| Error::Failed(format!("the configuration: {error}")))?;
        write_private(&self.path, text.as_bytes())
    }
}

/// The place only: the parser's words may repeat a token.
fn wrong(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    Error::Usage(format!(
        "{}: line {line} is not what marram writes there; without this file, `marram login` \
         makes a new one",
        path.display()
    ))
}

fn usual_path() -> Result<PathBuf, Error> {
    let folder = std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty());
    let folder =
        folder.map(PathBuf::from).or_else(|| std::env::home_dir().map(|h| h.join(".config")));
    let folder = folder.ok_or_else(|| {
        Error::Usage("there is no home folder for the configuration; name a file: --config".into())
    })?;
    Ok(folder.join("marram/config.toml"))
}

/// Replaces a file whole, readable by its owner only, in a folder made likewise if missing.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |error| Error::io("write", path, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    // One left by a process of our id that was killed in between: nobody else uses the name.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        // Best effort: the error that counts is the first.
        std::fs::remove_file(&temporary).ok();
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(token: &str) -> Login {
        Login { username: "Admin".into(), token: token.into(), refresh_token: "r".into() }
    }

    #[test]
    fn logins_are_kept_by_server_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/config.toml");
        let here = Server::parse("127.0.0.1:1").unwrap();
        let there = Server::parse("127.0.0.1:2").unwrap();
        let mut config = Config::load(Some(&path)).unwrap();
        config.keep(here, login("a")).unwrap();
        config.prefer(here).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut config = Config::load(Some(&path)).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(config.login(here).unwrap().token, "a");
        assert!(config.login(there).is_none());
        assert_eq!(config.server(None).unwrap(), here);
        assert_eq!(config.server(Some("127.0.0.1:2")).unwrap(), there);
        config.forget(here).unwrap();
        let config = Config::load(Some(&path)).unwrap();
        assert!(config.login(here).is_none());
        assert_eq!(config.server(None).unwrap().to_string(), server::DEFAULT);
    }

    #[test]
    fn a_broken_file_is_named_without_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        for bad in ["secret-token", "sevrer = \"x\"", "server = 7", "logins = \"secret-token\""] {
            std::fs::write(&path, bad).unwrap();
            let Err(error) = Config::load(Some(&path)) else { panic!("{bad} was read") };
            let text = error.to_string();
            assert!(text.contains("config.toml") && !text.contains("secret-token"), "{text}");
            assert_eq!(error.code(), 2);
        }
    }
}

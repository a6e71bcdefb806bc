//! A registry of the test's own: Debian's docker-registry on a free port of this machine.

use super::image::{Builder, Built};
use super::{run, until};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Name and password of a registry with a lock, and the line that `htpasswd` makes of them.
pub(crate) const USER: &str = "user";
pub(crate) const PASSWORD: &str = "secret";
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    dir: PathBuf,
    child: Child,
}

impl Server {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::with(dir, "")
    }

    /// One that wants [`USER`] and [`PASSWORD`].
    pub(crate) fn locked(dir: &Path) -> Self {
        let file = dir.join("htpasswd");
        std::fs::write(&file, HTPASSWD).unwrap();
        let path = file.display();
        Self::with(dir, &format!("auth:\n  htpasswd:\n    realm: test\n    path: {path}\n"))
    }

    fn with(dir: &Path, more: &str) -> Self {
        let dir = dir.join("registry");
        std::fs::create_dir_all(&dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = dir.display();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    \
             rootdirectory: {root}\nhttp:\n  addr: 127.0.0.1:{port}\n{more}"
        );
        std::fs::write(dir.join("config.yml"), config).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(dir.join("config.yml"))
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("docker-registry: run `make setup`");
        until("the registry to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, dir, child }
    }

    /// Puts an image into it as `repository:tag`.
    pub(crate) fn push(&self, image: &Builder, repository: &str, tag: &str) -> Built {
        let layout = tempfile::tempdir().unwrap();
        let built = image.layout(layout.path(), &format!("{repository}:{tag}"));
        let from = format!("oci:{}:latest", layout.path().display());
        let to = format!("docker://127.0.0.1:{}/{repository}:{tag}", self.port);
        let who = format!("{USER}:{PASSWORD}");
        let arguments =
            ["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", &who, &from, &to];
        run("skopeo", &arguments);
        built
    }

    /// Where a blob lies, to be spoiled.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let digits = digest.strip_prefix("sha256:").unwrap();
        let below = format!("docker/registry/v2/blobs/sha256/{}/{digits}/data", &digits[..2]);
        self.dir.join(below)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

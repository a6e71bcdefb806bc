//! Small images, made by hand out of busybox.

use super::run;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What goes into an image.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    /// Path inside to contents.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The `config` part of its configuration.
    pub(crate) config: serde_json::Value,
}

/// Digests of what was built.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) layer: String,
    pub(crate) layer_bytes: u64,
}

impl Builder {
    /// A shell and its tools.
    pub(crate) fn busybox() -> Self {
        let files = [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n"),
            ("etc/group", "root:x:0:\nweb:x:34:\naudio:x:29:web\n"),
            ("tmp/.keep", ""),
            ("srv/.keep", ""),
        ];
        let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
        let config = serde_json::json!({
            "Cmd": ["sh", "-c", "echo from-the-image"],
            "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
        });
        Self { files: files.into(), config }
    }

    /// Adds a file that does not compress, to have something to transfer.
    pub(crate) fn with_noise(mut self, bytes: usize) -> Self {
        // A small generator suffices: the same bytes each time, and no compressor's friend.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        });
        self.files.insert("noise".into(), noise.take(bytes).collect());
        self
    }

    /// Writes an OCI layout whose only image is called `name`.
    pub(crate) fn layout(&self, dir: &Path, name: &str) -> Built {
        let root = dir.join("rootfs");
        for (path, contents) in &self.files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox"))
            .expect("busybox-static is not installed: run `make setup`");
        for tool in ["sh", "sleep", "cat", "echo", "id", "test", "ls", "grep", "mount", "hostname"]
        {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
        let layer = dir.join("layer.tar");
        run("tar", &["--owner=0", "--group=0", "-C", path(&root), "-cf", path(&layer), "."]);
        std::fs::remove_dir_all(&root).unwrap();
        let blobs = Blobs::new(dir);
        let diff_id = blobs.add(&std::fs::read(&layer).unwrap());
        let diff_id = diff_id["digest"].as_str().unwrap().to_owned();
        run("gzip", &["-1", path(&layer)]);
        let layer = blobs.typed(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            &std::fs::read(dir.join("layer.tar.gz")).unwrap(),
        );
        std::fs::remove_file(blobs.path(&diff_id)).unwrap();
        let config = serde_json::json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "history": [],
        });
        let config = blobs.typed(
            "application/vnd.oci.image.config.v1+json",
            &serde_json::to_vec(&config).unwrap(),
        );
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer],
        });
        let mut manifest = blobs.typed(kind, &serde_json::to_vec(&manifest).unwrap());
        manifest["annotations"] = serde_json::json!({
            "org.opencontainers.image.ref.name": "latest",
            "io.containerd.image.name": name,
        });
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
        std::fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Built {
            layer: layer["digest"].as_str().unwrap().to_owned(),
            layer_bytes: layer["size"].as_u64().unwrap(),
        }
    }

    /// The same as one file, as `ctr image import` takes it.
    pub(crate) fn archive(&self, dir: &Path, name: &str, archive: &Path) -> Built {
        let built = self.layout(dir, name);
        run("tar", &["-C", path(dir), "-cf", path(archive), "blobs", "index.json", "oci-layout"]);
        built
    }
}

struct Blobs(PathBuf);

impl Blobs {
    fn new(dir: &Path) -> Self {
        let dir = dir.join("blobs/sha256");
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.0.join(digest.strip_prefix("sha256:").unwrap())
    }

    fn add(&self, bytes: &[u8]) -> serde_json::Value {
        self.typed("application/octet-stream", bytes)
    }

    fn typed(&self, media_type: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        std::fs::write(self.path(&digest), bytes).unwrap();
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

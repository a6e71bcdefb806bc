//! Reads an image's `passwd` and `group`, for images and requests that name users.
//!
//! Why without mounting: a mount of our own could outlive us. The snapshotters of our hosts
//! keep layers as folders, so the file is looked for in them from the top down, each opened
//! so that no link leads out of its layer. Only the first container of an image with a named
//! user does this; the two files are then kept in memory.

use crate::backend::Inner;
use crate::image::content::Labels;
use crate::image::info::Image;
use crate::oci::user::Accounts;
use crate::rpc::{Lease, QUICK, Rpc, failed, found, made};
use containerd_client::services::v1::snapshots::{RemoveSnapshotRequest, ViewSnapshotRequest};
use containerd_client::services::v1::{CreateRequest, DeleteRequest};
use containerd_client::types::Mount;
use marram_backend_api::{Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read: tens of thousands of users.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How long a lease may outlive a crash in the middle.
const LEASE_SECONDS: u64 = 300;

const DOING: &str = "reading the image's users";

/// The files of `image`, which must be unpacked.
pub(crate) async fn read(inner: &Inner, image: &Image) -> Result<Accounts> {
    if let Some(known) = inner.accounts(&image.chain_id) {
        return Ok(known);
    }
    let mounts = view(inner, image).await?;
    let layers = layers(&mounts).ok_or_else(|| {
        let why = format!(
            "the {} snapshotter keeps no folders; give the user as a number, uid:gid",
            inner.config.snapshotter
        );
        Error::new(ErrorKind::Unsupported, DOING, why)
    })?;
    let accounts =
        Accounts { passwd: file(&layers, "etc/passwd")?, group: file(&layers, "etc/group")? };
    inner.keep_accounts(&image.chain_id, accounts.clone());
    Ok(accounts)
}

/// Where the image's files are: a read-only view is made for the question and removed.
async fn view(inner: &Inner, image: &Image) -> Result<Vec<Mount>> {
    let rpc = &inner.rpc;
    let now = crate::time::now_unix_ms();
    let key = format!("marram-view-{now} {}", image.chain_id);
    let id = format!("marram-view-{now}-{}", &image.chain_id["sha256:".len()..][..12]);
    let expires = crate::time::rfc3339(now / 1000 + LEASE_SECONDS);
    let labels = Labels::from([("containerd.io/gc.expire".to_owned(), expires)]);
    let request = rpc.request(QUICK, CreateRequest { id: id.clone(), labels });
    made(DOING, rpc.leases().await?.create(request).await)?;
    let request = ViewSnapshotRequest {
        snapshotter: inner.config.snapshotter.clone(),
        key: key.clone(),
        parent: image.chain_id.clone(),
        labels: Labels::new(),
    };
    let request = Rpc::leased(rpc.request(QUICK, request), &Lease::new(&id)?);
    let answer = rpc.snapshots().await?.view(request).await;
    let mounts = answer.map(|answer| answer.into_inner().mounts);
    let request = RemoveSnapshotRequest { snapshotter: inner.config.snapshotter.clone(), key };
    found(DOING, rpc.snapshots().await?.remove(rpc.request(QUICK, request)).await)?;
    let request = rpc.request(QUICK, DeleteRequest { id, sync: false });
    found(DOING, rpc.leases().await?.delete(request).await)?;
    mounts.map_err(|status| failed(DOING, status))
}

/// The folders of a mount from the top down; `None` if it is of another kind.
fn layers(mounts: &[Mount]) -> Option<Vec<PathBuf>> {
    let [mount] = mounts else { return None };
    let option = |key: &str| mount.options.iter().find_map(|option| option.strip_prefix(key));
    match mount.r#type.as_str() {
        "bind" => Some(vec![PathBuf::from(&mount.source)]),
        "overlay" => {
            let upper = option("upperdir=").map(PathBuf::from);
            let lower = option("lowerdir=")?.split(':').map(PathBuf::from);
            Some(upper.into_iter().chain(lower).collect())
        }
        _ => None,
    }
}

/// A file of the topmost layer that has it; empty if none has.
fn file(layers: &[PathBuf], path: &str) -> Result<String> {
    let fail = |error: std::io::Error| {
        Error::caused(ErrorKind::Internal, DOING, format!("{path} cannot be read"), error)
    };
    for layer in layers {
        let Some(file) = open(layer, path).map_err(fail)? else { continue };
        let kind = file.metadata().map_err(fail)?;
        if !kind.is_file() {
            // A layer above says that the file is gone by a device of its name.
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let why = format!("the image's {path} is larger than {FILE_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::Invalid, DOING, why));
        }
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(String::new())
}

fn open(layer: &Path, path: &str) -> std::io::Result<Option<File>> {
    let folder = File::open(layer)?;
    // Not blocking: a hostile image may hold a fifo of that name.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(folder, path, flags, Mode::empty(), inside) {
        Ok(file) => Ok(Some(file.into())),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        // A whiteout is a device that exists nowhere: opening it fails, and hides the rest.
        Err(rustix::io::Errno::NXIO | rustix::io::Errno::NODEV) => {
            Ok(Some(File::open("/dev/null")?))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(typ: &str, source: &str, options: &[&str]) -> Vec<Mount> {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        vec![Mount { r#type: typ.into(), source: source.into(), options, ..Default::default() }]
    }

    #[test]
    fn folders_are_found_in_overlays_and_binds() {
        let paths = |mounts: &[Mount]| layers(mounts).map(|all| all.len());
        assert_eq!(paths(&mount("bind", "/a", &["ro"])), Some(1));
        assert_eq!(paths(&mount("overlay", "overlay", &["lowerdir=/a:/b"])), Some(2));
        let full = ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/a:/b"];
        assert_eq!(layers(&mount("overlay", "overlay", &full)).unwrap()[0], PathBuf::from("/u"));
        assert_eq!(paths(&mount("ext4", "/dev/x", &[])), None);
        assert_eq!(paths(&[]), None);
    }

    #[test]
    fn the_topmost_file_counts_and_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<PathBuf> = ["top", "middle", "bottom"].map(|l| dir.path().join(l)).to_vec();
        for layer in &all {
            std::fs::create_dir_all(layer.join("etc")).unwrap();
        }
        std::fs::write(dir.path().join("outside"), "host").unwrap();
        std::fs::write(all[2].join("etc/passwd"), "bottom").unwrap();
        assert_eq!(file(&all, "etc/passwd").unwrap(), "bottom");
        std::fs::write(all[1].join("etc/passwd"), "middle").unwrap();
        assert_eq!(file(&all, "etc/passwd").unwrap(), "middle");
        let target = dir.path().join("outside");
        std::os::unix::fs::symlink(target, all[0].join("etc/passwd")).unwrap();
        assert_eq!(file(&all, "etc/passwd").unwrap(), "middle", "a link out of the layer");
        assert_eq!(file(&all, "etc/group").unwrap(), "");
    }
}

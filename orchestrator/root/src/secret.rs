//! Files that only their owner may read, and randomness.
//!
//! Why apart: both the password and the key of tokens are made at the first start, and must
//! never exist half-written or readable by others, not even for a moment.

use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest secret file; keys and passwords are far shorter.
const SECRET_BYTES_MAX: u64 = 4096;

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file system refuses.
    #[error("{doing} {} failed", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what this program wrote.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        why: &'static str,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> Result<[u8; N], SecretError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SecretError::Random)?;
    Ok(bytes)
}

/// Makes a directory that only its owner may enter; one that exists is left as it is.
pub fn make_directory(path: &Path) -> Result<(), SecretError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| io("making directory", path, source))
}

/// The content of a secret file, or `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, SecretError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| io("opening", path, source))?,
    };
    let mut bytes = Vec::new();
    let mut limited = file.take(SECRET_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes).map_err(|source| io("reading", path, source))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > SECRET_BYTES_MAX) {
        return Err(SecretError::Damaged { path: path.to_path_buf(), why: "it is too long" });
    }
    Ok(Some(bytes))
}

/// Writes a file that only its owner may read: whole, or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // A rest of an interrupted start would keep the mode it was made with.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io("removing", &new, error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(|source| io("creating", &new, source))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|source| io("writing", &new, source))?;
    std::fs::rename(&new, path).map_err(|source| io("renaming", &new, source))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| io("syncing", parent, source))
}

fn io(doing: &'static str, path: &Path, source: std::io::Error) -> SecretError {
    SecretError::Io { doing, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_whole_private_and_replaced_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert_eq!(read(&path).unwrap(), None);
        // What an interrupted start may have left.
        std::fs::write(dir.path().join("secret.new"), b"half").unwrap();
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"second");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!dir.path().join("secret.new").exists());
        std::fs::write(&path, vec![0; 5000]).unwrap();
        assert!(matches!(read(&path), Err(SecretError::Damaged { .. })));
    }
}

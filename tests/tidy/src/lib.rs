//! Reads the repository as text and as a crate graph, for the rules that no compiler checks.
//!
//! Apart from the tests that use it (`tests/`), so that the readers themselves can be tested on
//! small inputs: a rule whose reader finds nothing would hold for ever.
//!
//! Invariant: nothing here changes a file.

pub mod graph;
pub mod markdown;
pub mod rust;

use std::io;
use std::path::{Path, PathBuf};

/// Folders that hold what is built or generated, never what somebody wrote.
const GENERATED: [&str; 4] = ["target", "corpus", "artifacts", "node_modules"];

/// The top of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root.pop();
    root
}

/// A text file of the repository.
#[derive(Debug)]
pub struct File {
    /// Relative to the top, with `/` between the parts.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl File {
    /// Whether the name ends in `.extension`.
    #[must_use]
    pub fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

/// Every text file below the top, in order of path; binary files are left out.
///
/// # Errors
/// When a folder or a file cannot be read.
pub fn files() -> io::Result<Vec<File>> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && name != ".git" && !GENERATED.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let Ok(text) = String::from_utf8(std::fs::read(&path)?) else { continue };
                let relative = path.strip_prefix(&root).unwrap_or(&path);
                found.push(File { path: relative.to_string_lossy().into_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

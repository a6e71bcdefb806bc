//! What a child knows of parents, as it is kept on disk.
//!
//! Why text: an operator who wonders where a child has gone reads it.

use crate::v1::{ALTERNATES_MAX, Alternate};
use serde::{Deserialize, Serialize};

/// Longest text that [`Known::from_text`] reads: all alternates with the longest names.
pub const KNOWN_BYTES_MAX: usize = 64 * 1024;

/// What outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The preferred parent, once it has said who it is.
    pub preferred: Option<Alternate>,
    /// Others that it has named.
    pub learned: Vec<Alternate>,
    /// Others that the parent has named where the child is a guest.
    pub elsewhere: Vec<Alternate>,
}

impl Known {
    /// As text, for a small file.
    pub fn to_text(&self) -> String {
        // Strings and lists of them: nothing that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Known::to_text`] wrote.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn from_text(text: &str) -> Result<Self, String> {
        if text.len() > KNOWN_BYTES_MAX {
            return Err(format!("at most {KNOWN_BYTES_MAX} bytes are read, got {}", text.len()));
        }
        let mut known: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        known.learned.truncate(ALTERNATES_MAX);
        known.elsewhere.truncate(ALTERNATES_MAX);
        Ok(known)
    }
}

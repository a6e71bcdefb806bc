//! Users, and how the first one comes to be.
//!
//! At the first start there is nobody: the user `Admin` is made with a generated password
//! that is left in a file for the operator. The file is written before the user, so that a
//! start cut short between the two uses the same password the next time.

use super::password::{PasswordHash, generate};
use crate::secret::{self, SecretError, random};
use crate::storage::{self, Key, StorageError};
use marram_store::{Store, Txn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// The first user.
pub const ADMIN: &str = "Admin";

/// Where its password is left, in the state directory.
pub const ADMIN_PASSWORD_FILE: &str = "admin-password";

/// All roles, which the first user has; names are Oakestra's.
pub const ROLES: [&str; 4] =
    ["Admin", "Organization_Admin", "Application_Provider", "Infrastructure_Provider"];

/// Users of one root: operators and teams of a site, held in memory.
const USERS_MAX: usize = 10_000;

/// Longest user name.
const NAME_BYTES_MAX: usize = 64;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Unique, and the owner's name on what they make.
    pub name: String,
    /// Some of [`ROLES`].
    pub roles: Vec<String>,
    /// Of the password.
    pub password: PasswordHash,
    /// For people.
    pub created_unix_ms: u64,
}

/// Why users cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A secret file, or randomness.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The password file holds no password.
    #[error("{} is damaged: it holds no text", path.display())]
    PasswordFile {
        /// Which file.
        path: PathBuf,
    },
    /// A name that is no name.
    #[error("a user name has 1 to {NAME_BYTES_MAX} letters, digits or -_.@, got {0:?}")]
    Name(String),
    /// Somebody has that name.
    #[error("there is a user {0:?} already")]
    Taken(String),
    /// [`USERS_MAX`] are there.
    #[error("there are {USERS_MAX} users already, no more are allowed")]
    TooMany,
}

/// All users.
#[derive(Debug)]
pub struct Users {
    organization: String,
    users: BTreeMap<String, User>,
    /// What an unknown name is compared with.
    nobody: PasswordHash,
}

impl Users {
    /// Reads all users, and makes the first one if there is none. Says where the password
    /// of a new one lies.
    pub fn open(
        store: &dyn Store,
        state_dir: &Path,
        rounds: NonZeroU32,
        now_unix_ms: u64,
    ) -> Result<(Self, Option<PathBuf>), UsersError> {
        let mut users = BTreeMap::new();
        for (key, bytes) in storage::load(store, storage::USER_PREFIX)? {
            let user: User = storage::decode(&key, &bytes)?;
            users.insert(user.name.clone(), user);
        }
        let organization = match storage::read(store, &Key::Organization)? {
            Some(id) => id,
            None => {
                let id = marram_protocol::id::ApplicationId(random()?).to_string();
                storage::put(store, &Key::Organization, &id)?;
                id
            }
        };
        let nobody = PasswordHash::of_nobody(rounds)?;
        let mut all = Self { organization, users, nobody };
        let made = if all.users.is_empty() {
            Some(all.make_admin(store, state_dir, rounds, now_unix_ms)?)
        } else {
            None
        };
        Ok((all, made))
    }

    fn make_admin(
        &mut self,
        store: &dyn Store,
        state_dir: &Path,
        rounds: NonZeroU32,
        now_unix_ms: u64,
    ) -> Result<PathBuf, UsersError> {
        let path = state_dir.join(ADMIN_PASSWORD_FILE);
        let password = match secret::read(&path)? {
            Some(bytes) => {
                let text = String::from_utf8(bytes).unwrap_or_default();
                let text = text.trim().to_owned();
                if text.is_empty() {
                    return Err(UsersError::PasswordFile { path });
                }
                text
            }
            None => {
                let password = generate()?;
                secret::write(&path, format!("{password}\n").as_bytes())?;
                password
            }
        };
        self.add(store, ADMIN, &password, &ROLES, rounds, now_unix_ms)?;
        Ok(path)
    }

    /// Makes a user; durable when it returns.
    pub fn add(
        &mut self,
        store: &dyn Store,
        name: &str,
        password: &str,
        roles: &[&str],
        rounds: NonZeroU32,
        now_unix_ms: u64,
    ) -> Result<(), UsersError> {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(letter) {
            return Err(UsersError::Name(name.chars().take(NAME_BYTES_MAX).collect()));
        }
        if self.users.contains_key(name) {
            return Err(UsersError::Taken(name.to_owned()));
        }
        if self.users.len() >= USERS_MAX {
            return Err(UsersError::TooMany);
        }
        let user = User {
            name: name.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            password: PasswordHash::new(password, rounds)?,
            created_unix_ms: now_unix_ms,
        };
        let key = Key::User(name.to_owned()).encode();
        let txn = Txn::new().put(key, storage::encode(&user));
        store.txn(&txn).map_err(StorageError::from)?;
        self.users.insert(user.name.clone(), user);
        Ok(())
    }

    /// A user by name.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Id of the organization `root`, made at the first start.
    pub fn organization(&self) -> &str {
        &self.organization
    }

    pub(super) fn nobody(&self) -> &PasswordHash {
        &self.nobody
    }
}

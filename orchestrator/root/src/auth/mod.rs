//! Who may do what: users, passwords, tokens, and the one rule of ownership.
//!
//! Users are read at start and held in memory; only what changes is written. The key that
//! signs tokens and the first password lie in files of the state directory that nobody else
//! may read.
//!
//! Invariant: [`Access`] is made from a verified token and nothing else, and whatever
//! belongs to somebody is reached only through [`Access::may`].

mod password;
mod throttle;
mod token;
mod users;

pub use password::{PASSWORD_BYTES_MAX, PasswordHash, ROUNDS, generate};
pub use throttle::Throttle;
pub use token::{ACCESS_S, Claims, REFRESH_S, Signer, TOKEN_BYTES_MAX, TokenError, TokenKind};
pub use users::{ADMIN, ADMIN_PASSWORD_FILE, ROLES, User, Users, UsersError};

use crate::refusal::Refusal;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// Passwords being hashed at once: one core is left for the rest on the smallest board.
const HASHING_MAX: usize = 1;

/// Logins that wait for that: with a tenth of a second each, nobody waits long.
const LOGINS_MAX: usize = 16;

/// The role that sees everything.
pub const ROLE_ADMIN: &str = "Admin";

/// What a caller may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    user: String,
    admin: bool,
}

impl Access {
    /// The caller's name, which is the owner of what they make.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether what belongs to `owner` may be seen and changed. There is no other rule.
    pub fn may(&self, owner: &str) -> bool {
        self.admin || self.user == owner
    }

    /// For what spans all owners.
    pub fn require_admin(&self) -> Result<(), Refusal> {
        if self.admin { Ok(()) } else { Err(Refusal::Forbidden(ROLE_ADMIN)) }
    }

    #[cfg(test)]
    pub(crate) fn of(user: &str, admin: bool) -> Self {
        Self { user: user.to_owned(), admin }
    }
}

/// What a login gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// For every call.
    pub access: String,
    /// For new access tokens.
    pub refresh: String,
}

/// Logs users in and recognises them.
#[derive(Debug)]
pub struct Auth {
    users: Users,
    signer: Signer,
    throttle: Arc<Mutex<Throttle>>,
    waiting: Arc<Semaphore>,
    hashing: Arc<Semaphore>,
}

impl Auth {
    /// Over users that were read already.
    pub fn new(users: Users, signer: Signer) -> Self {
        Self {
            users,
            signer,
            throttle: Arc::default(),
            waiting: Arc::new(Semaphore::new(LOGINS_MAX)),
            hashing: Arc::new(Semaphore::new(HASHING_MAX)),
        }
    }

    /// Tokens for a user name and a password.
    pub async fn login(
        &self,
        from: IpAddr,
        user: &str,
        password: &str,
        now_ms: u64,
        now_s: u64,
    ) -> Result<Tokens, Refusal> {
        let busy = || Refusal::Busy(format!("{LOGINS_MAX} logins are waiting already"));
        let _waiting = self.waiting.clone().try_acquire_owned().map_err(|_| busy())?;
        let found = self.users.get(user).cloned();
        // A name that nobody has takes as long as a wrong password.
        let hash = found.as_ref().map_or(self.users.nobody(), |user| &user.password).clone();
        let (name, password) = (user.to_owned(), password.to_owned());
        let permit = self.hashing.clone().acquire_owned().await.map_err(|_| busy())?;
        let throttle = self.throttle.clone();
        // One attempt after the other, so the failure of each counts for the next.
        lock(&throttle)
            .check(from, user, now_ms)
            .map_err(|wait_ms| Refusal::Throttled(wait_ms.div_ceil(1000)))?;
        let right = tokio::task::spawn_blocking(move || {
            let right = hash.verify(&password);
            // Noted here, so that hanging up early hides no failure.
            if right {
                lock(&throttle).succeed(from, &name);
            } else {
                lock(&throttle).fail(from, &name, now_ms);
            }
            drop(permit);
            right
        });
        let right = right.await.map_err(|error| Refusal::Internal(error.to_string()))?;
        match found {
            Some(found) if right => Ok(Tokens {
                access: self.sign(TokenKind::Access, &found, now_s)?,
                refresh: self.sign(TokenKind::Refresh, &found, now_s)?,
            }),
            _ => Err(Refusal::Credentials),
        }
    }

    /// A new access token for a refresh token.
    pub fn refresh(&self, bearer: Option<&str>, now_s: u64) -> Result<String, RefreshError> {
        let user = self.user(bearer, TokenKind::Refresh, now_s)?;
        Ok(self.sign(TokenKind::Access, user, now_s)?)
    }

    /// Who calls, by the value of the `Authorization` header.
    pub fn access(&self, bearer: Option<&str>, now_s: u64) -> Result<Access, TokenError> {
        let user = self.user(bearer, TokenKind::Access, now_s)?;
        let admin = user.roles.iter().any(|role| role == ROLE_ADMIN);
        Ok(Access { user: user.name.clone(), admin })
    }

    /// The organization that every user belongs to.
    pub fn organization(&self) -> &str {
        self.users.organization()
    }

    fn user(&self, bearer: Option<&str>, kind: TokenKind, now_s: u64) -> Result<&User, TokenError> {
        let bearer = bearer.ok_or(TokenError::Missing)?;
        let (scheme, token) = bearer.split_once(' ').ok_or(TokenError::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(TokenError::Missing);
        }
        let claims = self.signer.verify(token.trim(), kind, now_s)?;
        // Roles are those of now, not those of when the token was made.
        self.users.get(&claims.sub).ok_or(TokenError::NoUser)
    }

    fn sign(&self, kind: TokenKind, user: &User, now_s: u64) -> Result<String, Refusal> {
        self.signer
            .sign(kind, &user.name, &user.roles, self.users.organization(), now_s)
            .map_err(|error| Refusal::Internal(error.to_string()))
    }
}

/// Counting is whole after each call, so a panic elsewhere spoils nothing.
fn lock(throttle: &Mutex<Throttle>) -> MutexGuard<'_, Throttle> {
    throttle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why no new access token is given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The refresh token is not taken.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Signing failed.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

#[cfg(test)]
mod tests;

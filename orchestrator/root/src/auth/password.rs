//! Passwords: how they are kept, compared and made.
//!
//! PBKDF2 with HMAC-SHA-512, the slow hash that the kept crypto library has. The number of
//! rounds is stored beside each hash, so that it can rise without locking anybody out.

use crate::secret::{SecretError, random};
use ring::pbkdf2;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// Rounds for new passwords: OWASP's figure of 2023 for this hash. About a tenth of a second
/// on a desktop and half a second on a small board, on a thread of its own.
pub const ROUNDS: NonZeroU32 = NonZeroU32::new(210_000).expect("the literal is not zero");

/// Rounds that a stored record may ask for: a damaged one must not stall the root.
const ROUNDS_MAX: u32 = 10_000_000;

/// Longest password that is looked at.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Letters of generated passwords: those that nobody mistakes for others, 5 bits each.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

static ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA512;

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash {
    rounds: u32,
    salt: [u8; SALT_BYTES],
    hash: [u8; HASH_BYTES],
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PasswordHash({} rounds)", self.rounds)
    }
}

impl PasswordHash {
    /// Hashes a new password. Slow on purpose: keep it off a runtime's thread.
    pub fn new(password: &str, rounds: NonZeroU32) -> Result<Self, SecretError> {
        let salt = random()?;
        let mut hash = [0; HASH_BYTES];
        pbkdf2::derive(ALGORITHM, rounds, &salt, password.as_bytes(), &mut hash);
        Ok(Self { rounds: rounds.get(), salt, hash })
    }

    /// What no password fits, and takes as long to find out.
    pub fn of_nobody(rounds: NonZeroU32) -> Result<Self, SecretError> {
        Ok(Self { rounds: rounds.get(), salt: random()?, hash: random()? })
    }

    /// Whether it is the password. Slow on purpose, and as slow when it is not.
    pub fn verify(&self, password: &str) -> bool {
        let Some(rounds) = NonZeroU32::new(self.rounds.min(ROUNDS_MAX)) else { return false };
        password.len() <= PASSWORD_BYTES_MAX
            && pbkdf2::verify(ALGORITHM, rounds, &self.salt, password.as_bytes(), &self.hash)
                .is_ok()
    }
}

/// A password nobody guesses: 130 random bits.
pub fn generate() -> Result<String, SecretError> {
    let bytes: [u8; 26] = random()?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: NonZeroU32 = NonZeroU32::new(10).unwrap();

    #[test]
    fn only_the_password_verifies() {
        let kept = PasswordHash::new("geheim", FEW).unwrap();
        assert!(kept.verify("geheim"));
        for wrong in ["", "Geheim", "geheim ", &"x".repeat(100_000)] {
            assert!(!kept.verify(wrong));
        }
        assert_ne!(kept, PasswordHash::new("geheim", FEW).unwrap(), "salts differ");
        assert!(!PasswordHash { rounds: 0, ..kept.clone() }.verify("geheim"));
        assert_eq!(format!("{kept:?}"), "PasswordHash(10 rounds)");
    }

    #[test]
    fn generated_passwords_differ_and_can_be_typed() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 26);
        assert!(one.bytes().all(|b| LETTERS.contains(&b)), "{one}");
    }
}

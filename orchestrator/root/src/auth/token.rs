//! Tokens: JSON Web Tokens, signed by Ed25519.
//!
//! Claims are Oakestra's, since its clients read them; the algorithm is not (RS256 there):
//! clients do not verify, and an Ed25519 key is made at once on the smallest board.
//!
//! Invariant: nothing of a token is believed, not even its header, before the signature has
//! been verified; the header is compared with the only one that is ever written.

use crate::secret::{self, SecretError, random};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Lifetime of an access token, as Oakestra's.
pub const ACCESS_S: u64 = 600;

/// Lifetime of a refresh token, as Oakestra's.
pub const REFRESH_S: u64 = 30 * 24 * 3600;

/// Longest token that is looked at: ours have some 700 bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The only header there is; another algorithm is another program's token.
const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

/// File of the key, in the state directory.
const KEY_FILE: &str = "token-key";

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// For every call.
    Access,
    /// For new access tokens only.
    Refresh,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Always false; Oakestra's library writes it.
    pub fresh: bool,
    /// Made at, in seconds.
    pub iat: u64,
    /// Id of the token.
    pub jti: String,
    /// Kind.
    #[serde(rename = "type")]
    pub kind: TokenKind,
    /// User name.
    pub sub: String,
    /// Good from.
    pub nbf: u64,
    /// Random; Oakestra's library writes it.
    pub csrf: String,
    /// Good until.
    pub exp: u64,
    /// User name once more.
    pub user: String,
    /// Roles.
    pub roles: Vec<String>,
    /// Id of the organization.
    pub organization: String,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No `Authorization` header.
    #[error("an Authorization header with a bearer token is needed")]
    Missing,
    /// Not three parts of base64url, or not our header or claims.
    #[error("the token is malformed")]
    Malformed,
    /// Not signed by this root.
    #[error("the token's signature does not verify")]
    Signature,
    /// Was good once.
    #[error("the token has expired")]
    Expired,
    /// An access token where a refresh token is needed.
    #[error("only refresh tokens are allowed")]
    NotRefresh,
    /// A refresh token where an access token is needed.
    #[error("only access tokens are allowed")]
    NotAccess,
    /// The user is gone.
    #[error("the token's user does not exist")]
    NoUser,
}

/// Signs and verifies.
#[derive(Debug)]
pub struct Signer {
    key: Ed25519KeyPair,
}

impl Signer {
    /// Takes the key in that directory, and makes one if there is none.
    pub fn open(state_dir: &Path) -> Result<Self, SecretError> {
        let path = state_dir.join(KEY_FILE);
        let bytes = match secret::read(&path)? {
            Some(bytes) => bytes,
            None => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                    .map_err(|_| SecretError::Random)?;
                secret::write(&path, made.as_ref())?;
                made.as_ref().to_vec()
            }
        };
        let damaged = |_| SecretError::Damaged { path, why: "it holds no Ed25519 key in PKCS#8" };
        Ok(Self { key: Ed25519KeyPair::from_pkcs8(&bytes).map_err(damaged)? })
    }

    /// A token for a user.
    pub fn sign(
        &self,
        kind: TokenKind,
        user: &str,
        roles: &[String],
        organization: &str,
        now_s: u64,
    ) -> Result<String, SecretError> {
        let lifetime_s = match kind {
            TokenKind::Access => ACCESS_S,
            TokenKind::Refresh => REFRESH_S,
        };
        let claims = Claims {
            fresh: false,
            iat: now_s,
            jti: uuid()?,
            kind,
            sub: user.to_owned(),
            nbf: now_s,
            csrf: uuid()?,
            exp: now_s.saturating_add(lifetime_s),
            user: user.to_owned(),
            roles: roles.to_vec(),
            organization: organization.to_owned(),
        };
        let body = serde_json::to_vec(&claims).expect("texts and numbers are always JSON");
        let mut token = URL_SAFE_NO_PAD.encode(HEADER);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(body, &mut token);
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// What a token says, if it is ours, of that kind and good now.
    ///
    /// `nbf` is not looked at: this root wrote it, and on a board whose clock was set back
    /// by its time server a token made just before would be refused for nothing.
    pub fn verify(&self, token: &str, kind: TokenKind, now_s: u64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let bytes = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed);
        let signature = bytes(signature)?;
        let public = ring::signature::UnparsedPublicKey::new(
            &ring::signature::ED25519,
            self.key.public_key().as_ref(),
        );
        public.verify(signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
        if bytes(header)? != HEADER.as_bytes() {
            return Err(TokenError::Malformed);
        }
        let claims: Claims =
            serde_json::from_slice(&bytes(body)?).map_err(|_| TokenError::Malformed)?;
        if claims.exp <= now_s {
            return Err(TokenError::Expired);
        }
        match (kind, claims.kind) {
            (TokenKind::Access, TokenKind::Refresh) => Err(TokenError::NotAccess),
            (TokenKind::Refresh, TokenKind::Access) => Err(TokenError::NotRefresh),
            _ => Ok(claims),
        }
    }
}

/// 128 random bits in the form of a UUID.
fn uuid() -> Result<String, SecretError> {
    let bytes: [u8; 16] = random()?;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> (tempfile::TempDir, Signer) {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::open(dir.path()).unwrap();
        (dir, signer)
    }

    fn sign(signer: &Signer, kind: TokenKind) -> String {
        signer.sign(kind, "Admin", &["Admin".into()], "6b02c146095d85ec50ef2ebc", 1000).unwrap()
    }

    #[test]
    fn claims_come_back_until_they_expire_and_after_a_restart() {
        let (dir, first) = signer();
        let token = sign(&first, TokenKind::Access);
        let again = Signer::open(dir.path()).unwrap();
        let claims = again.verify(&token, TokenKind::Access, 1599).unwrap();
        assert_eq!((claims.sub.as_str(), claims.exp), ("Admin", 1600));
        let json = serde_json::to_value(&claims).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "csrf",
                "exp",
                "fresh",
                "iat",
                "jti",
                "nbf",
                "organization",
                "roles",
                "sub",
                "type",
                "user"
            ]
        );
        assert_eq!(json["type"], "access");
        assert_eq!(again.verify(&token, TokenKind::Access, 1600), Err(TokenError::Expired));
    }

    #[test]
    fn kinds_are_not_mixed_up() {
        let (_dir, signer) = signer();
        let access = sign(&signer, TokenKind::Access);
        let refresh = sign(&signer, TokenKind::Refresh);
        assert_eq!(signer.verify(&access, TokenKind::Refresh, 0), Err(TokenError::NotRefresh));
        assert_eq!(signer.verify(&refresh, TokenKind::Access, 0), Err(TokenError::NotAccess));
    }

    #[test]
    fn foreign_and_changed_tokens_are_refused() {
        let (_dir, ours) = signer();
        let (_other_dir, theirs) = signer();
        let token = sign(&ours, TokenKind::Access);
        assert_eq!(
            ours.verify(&sign(&theirs, TokenKind::Access), TokenKind::Access, 0),
            Err(TokenError::Signature)
        );
        let parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"Admin","type":"access"}"#);
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        for bad in [
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            String::new(),
            "...".into(),
            "ä.ä.ä".into(),
            "a".repeat(TOKEN_BYTES_MAX + 1),
        ] {
            assert!(ours.verify(&bad, TokenKind::Access, 0).is_err(), "{bad}");
        }
        // A header that was signed, but is not ours.
        let body = format!("{none}.{}", parts[1]);
        let signature = URL_SAFE_NO_PAD.encode(ours.key.sign(body.as_bytes()));
        let odd = format!("{body}.{signature}");
        assert_eq!(ours.verify(&odd, TokenKind::Access, 0), Err(TokenError::Malformed));
    }

    #[test]
    fn a_damaged_key_is_an_error_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(KEY_FILE), b"rubbish").unwrap();
        assert!(matches!(Signer::open(dir.path()), Err(SecretError::Damaged { .. })));
        assert_eq!(std::fs::read(dir.path().join(KEY_FILE)).unwrap(), b"rubbish");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_as_a_token_is_refused(text in ".*", parts in proptest::array::uniform3("[A-Za-z0-9_-]{0,40}")) {
            let (_dir, signer) = signer();
            for kind in [TokenKind::Access, TokenKind::Refresh] {
                proptest::prop_assert!(signer.verify(&text, kind, 0).is_err());
                proptest::prop_assert!(signer.verify(&parts.join("."), kind, 0).is_err());
            }
        }
    }
}

//! Speaks the OCI distribution protocol: manifests and blobs of one repository on one server.
//!
//! Why on reqwest directly: see docs/decisions/0004-registry-client.md. In short, the
//! ready-made client holds whole manifests of any size in memory and panics on a hostile
//! token or where no certificates are installed.
//!
//! Invariants:
//! - plain HTTP only to a mirror that the operator named insecure, redirects and token
//!   servers included;
//! - credentials go to the server they are filed under and to the token server it names;
//! - no answer is read beyond a limit.

use super::reference::{Reference, Version};
use super::{MANIFEST_BYTES_MAX, is_digest};
use crate::config::{Mirror, Registry};
use marram_backend_api::{Credentials, Error, ErrorKind, Result};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode};
use std::sync::OnceLock;
use std::time::Duration;

/// How long a connection may take to come up before the next server is tried.
const CONNECT: Duration = Duration::from_secs(10);

/// Longest silence in the middle of an answer. Slow links are fine, dead ones are not.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection that waits for the next layer this long is closed: it keeps the buffer of its
/// fastest moment, 400 KiB and more.
const IDLE: Duration = Duration::from_secs(2);

/// Redirects to follow: registry, storage, edge cache, and one to spare.
const REDIRECTS_MAX: usize = 4;

/// Largest answer of a token server; tokens with long grant lists reach some 10 KiB.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// Every kind of manifest that can be unpacked here.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const DOING: &str = "asking the registry";

/// A server that may hold a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `https://host[:port]` without a slash at its end.
    base: String,
    /// What credentials are filed under.
    pub(crate) host: String,
    /// The registry it stands in for; mirrors of several registries tell them apart by it.
    namespace: Option<String>,
    insecure: bool,
}

impl Endpoint {
    /// Where `reference` can be had: its mirrors in order, then the registry itself.
    pub(crate) fn of(reference: &Reference, known: Option<&Registry>) -> Result<Vec<Self>> {
        let origin = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let origin = Self {
            base: format!("https://{origin}"),
            host: reference.registry.clone(),
            namespace: None,
            insecure: false,
        };
        let Some(known) = known else { return Ok(vec![origin]) };
        let mirrors = known.mirrors.iter().map(|mirror| Self::mirror(mirror, reference));
        let mut all = mirrors.collect::<Result<Vec<_>>>()?;
        if !known.mirrors_only {
            all.push(origin);
        }
        Ok(all)
    }

    fn mirror(mirror: &Mirror, reference: &Reference) -> Result<Self> {
        let host = mirror.host().map_err(|why| Error::new(ErrorKind::Invalid, DOING, why))?;
        let itself = host == reference.registry;
        Ok(Self {
            base: mirror.url.trim_end_matches('/').to_owned(),
            host: host.to_owned(),
            namespace: (!itself).then(|| reference.registry.clone()),
            insecure: mirror.insecure,
        })
    }
}

/// One repository on one server, with what was learnt about logging in.
#[derive(Debug)]
pub(crate) struct Repository {
    client: Client,
    endpoint: Endpoint,
    path: String,
    credentials: Option<Credentials>,
    authorization: tokio::sync::Mutex<Option<HeaderValue>>,
}

/// A manifest or index as it came.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// The beginning of a blob's bytes.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) response: Response,
    /// Where the bytes begin: the offset asked for, or 0 if the server ignores ranges.
    pub(crate) offset: u64,
}

impl Repository {
    pub(crate) fn new(
        endpoint: Endpoint,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Self> {
        Ok(Self {
            client: client(endpoint.insecure)?,
            endpoint,
            path: reference.repository.clone(),
            credentials,
            authorization: tokio::sync::Mutex::new(None),
        })
    }

    /// The server's name, for errors and logs.
    pub(crate) fn server(&self) -> &str {
        &self.endpoint.base
    }

    /// Fetches a manifest or index and checks its digest if asked for by one.
    pub(crate) async fn manifest(&self, version: &Version) -> Result<Document> {
        let (Version::Tag(name) | Version::Digest(name)) = version;
        let response = self.get(&format!("manifests/{name}"), Some(MANIFESTS), 0).await?;
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
        let media_type = media_type.trim().to_owned();
        let bytes = self.bounded(response, MANIFEST_BYTES_MAX, "manifest").await?;
        if let Version::Digest(expected) = version {
            let got = super::sha256(&bytes);
            if got != *expected {
                let why = format!("{}: manifest {expected} has digest {got}", self.server());
                return Err(Error::new(ErrorKind::Internal, DOING, why));
            }
        }
        Ok(Document { media_type, bytes })
    }

    /// Opens a blob from `offset` on.
    pub(crate) async fn blob(&self, digest: &str, offset: u64) -> Result<Blob> {
        if !is_digest(digest) {
            let why = format!("{digest:?} is no sha256 digest");
            return Err(Error::new(ErrorKind::Unsupported, DOING, why));
        }
        let response = self.get(&format!("blobs/{digest}"), None, offset).await?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        Ok(Blob { response, offset: if partial { offset } else { 0 } })
    }

    /// GET below the repository, logging in when the server asks for it.
    async fn get(&self, what: &str, accept: Option<&str>, offset: u64) -> Result<Response> {
        let mut url = format!("{}/v2/{}/{what}", self.endpoint.base, self.path);
        if let Some(namespace) = &self.endpoint.namespace {
            // Names passed the reference grammar: nothing in them needs escaping in a query.
            url.push_str(&format!("?ns={namespace}"));
        }
        let mut tried = false;
        loop {
            let mut request = self.client.get(&url);
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            if let Some(value) = self.authorization.lock().await.clone() {
                request = request.header(AUTHORIZATION, value);
            }
            let response = request.send().await.map_err(|error| self.broken(error))?;
            if response.status() != StatusCode::UNAUTHORIZED || tried {
                return self.accepted(response, what);
            }
            tried = true;
            let value = self.log_in(&response).await?;
            *self.authorization.lock().await = Some(value);
        }
    }

    fn accepted(&self, response: Response, what: &str) -> Result<Response> {
        let status = response.status();
        let kind = match status.as_u16() {
            200 | 206 => return Ok(response),
            // Docker Hub says 401 of repositories that do not exist.
            401 | 403 | 404 => ErrorKind::NotFound,
            408 | 425 | 429 | 500..=599 => ErrorKind::Transient,
            _ => ErrorKind::Internal,
        };
        let why = format!("{}/{} answers {status} for {what}", self.server(), self.path);
        Err(Error::new(kind, DOING, why))
    }

    fn broken(&self, error: reqwest::Error) -> Error {
        let refused = error.is_redirect();
        let kind = if refused { ErrorKind::Unsupported } else { ErrorKind::Transient };
        Error::caused(kind, DOING, format!("{} cannot be read", self.server()), error)
    }

    /// The rest of an answer, as long as it keeps to `limit`.
    async fn bounded(&self, mut response: Response, limit: u64, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                let why = format!("{}: {what} larger than {limit} bytes", self.server());
                return Err(Error::new(ErrorKind::Invalid, DOING, why));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Answers a server's challenge with the value of an `Authorization` header.
    async fn log_in(&self, response: &Response) -> Result<HeaderValue> {
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<&str> = challenges.filter_map(|value| value.to_str().ok()).collect();
        let bearer = challenges.iter().find_map(|text| Challenge::bearer(text));
        let value = match (bearer, &self.credentials) {
            (Some(challenge), _) => format!("Bearer {}", self.token(&challenge).await?),
            (None, Some(credentials)) => basic(credentials),
            (None, None) => {
                let why = format!("{} wants credentials, none are configured", self.server());
                return Err(Error::new(ErrorKind::NotFound, DOING, why));
            }
        };
        let mut value = HeaderValue::try_from(value).map_err(|_| {
            let why = format!("{}: the token is no header value", self.server());
            Error::new(ErrorKind::Internal, DOING, why)
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn token(&self, challenge: &Challenge) -> Result<String> {
        let url = challenge.url(&self.path).filter(|url| self.endpoint.allows(url.scheme()));
        let Some(url) = url else {
            let why = format!("{}: bad token server {:?}", self.server(), challenge.realm);
            return Err(Error::new(ErrorKind::Internal, DOING, why));
        };
        let mut request = self.client.get(url);
        if let Some(credentials) = &self.credentials {
            request = request.basic_auth(&credentials.username, Some(&credentials.password));
        }
        let response = request.send().await.map_err(|error| self.broken(error))?;
        let response = self.accepted(response, "a token")?;
        let bytes = self.bounded(response, TOKEN_BYTES_MAX, "token").await?;
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
        answer.and_then(|answer| answer.token.or(answer.access_token)).ok_or_else(|| {
            let why = format!("{}: the token server's answer holds no token", self.server());
            Error::new(ErrorKind::Internal, DOING, why)
        })
    }
}

impl Endpoint {
    fn allows(&self, scheme: &str) -> bool {
        scheme == "https" || (scheme == "http" && self.insecure)
    }
}

fn basic(credentials: &Credentials) -> String {
    use base64::Engine as _;
    let pair = format!("{}:{}", credentials.username, credentials.password);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// `Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    fn bearer(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim_start().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut challenge = Self::default();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "realm" => challenge.realm = value.to_owned(),
                "service" => challenge.service = Some(value.to_owned()),
                "scope" => challenge.scope = Some(value.to_owned()),
                _ => {}
            }
            rest = next.trim_start_matches([',', ' ']);
        }
        (!challenge.realm.is_empty()).then_some(challenge)
    }

    fn url(&self, repository: &str) -> Option<reqwest::Url> {
        let mut url = reqwest::Url::parse(&self.realm).ok()?;
        let pull = format!("repository:{repository}:pull");
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", self.scope.as_deref().unwrap_or(&pull));
        }
        Some(url)
    }
}

/// One client for all encrypted servers and one for all others: a client holds the host's
/// certificates in memory, and a pull should not read them anew.
fn client(insecure: bool) -> Result<Client> {
    static SECURE: OnceLock<Client> = OnceLock::new();
    static PLAIN: OnceLock<Client> = OnceLock::new();
    let cell = if insecure { &PLAIN } else { &SECURE };
    if let Some(client) = cell.get() {
        return Ok(client.clone());
    }
    let redirects = || {
        reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error(format!("more than {REDIRECTS_MAX} redirects"))
            } else if attempt.url().scheme() != "https" && !insecure {
                attempt.error("redirected to plain http")
            } else {
                attempt.follow()
            }
        })
    };
    let builder = || {
        Client::builder()
            .user_agent(concat!("marram/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .pool_idle_timeout(IDLE)
            .https_only(!insecure)
            .redirect(redirects())
    };
    // A mirror on the site's own network: a proxy for the world is not for it. And a host that
    // speaks to nobody else may have no certificates installed at all.
    let built = match insecure {
        true => {
            let known = builder().no_proxy().build();
            known.or_else(|_| builder().no_proxy().tls_certs_only([]).build())
        }
        false => builder().build(),
    };
    let client = built.map_err(|error| {
        let why = "no TLS client; are certificates of authorities (ca-certificates) installed?";
        Error::caused(ErrorKind::Unsupported, DOING, why, error)
    })?;
    Ok(cell.get_or_init(|| client).clone())
}

#[cfg(test)]
mod tests;

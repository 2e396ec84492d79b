// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The distribution protocol (OCI distribution specification 1.1): manifests and blobs of one
//! repository.

mod certificates;
mod challenge;
mod credentials;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod http;
mod proxy;
mod token;
mod upload;

pub use credentials::Credentials;
pub use http::HttpError;
pub(crate) use upload::{BegunUpload, Upload};

use crate::registries_conf::Endpoint;
use challenge::Challenge;
use credentials::Login;
use http::{Body, Http, Method, Request, Response, Url};
use oci_image::Digest;
use std::sync::Mutex;

/// A manifest, an index or a configuration, in bytes.
pub(crate) const MAX_DOCUMENT_SIZE: u64 = 4 << 20;
/// Of a message in an answer.
const MAX_MESSAGE_CHARS: usize = 200;
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("not found in registry {registry}{detail}")]
    NotFound { registry: String, detail: String },
    #[error(
        "access denied by registry {registry}{detail}; log in with `docker login` or `podman login`, or check the name"
    )]
    Denied { registry: String, detail: String },
    #[error("registry {registry} limits the rate of requests{detail}")]
    TooManyRequests { registry: String, detail: String },
    #[error("registry {registry} answers with status {status}{detail}")]
    Status { registry: String, status: u16, detail: String },
    #[error("the answer of registry {registry} is malformed: {detail}")]
    Malformed { registry: String, detail: &'static str },
    #[error("registry {registry} sends {actual} in place of {expected}")]
    Digest { registry: String, expected: String, actual: String },
    #[error("cannot use the credentials for {registry}")]
    Credentials { registry: String, source: credentials::CredentialsError },
}

/// One repository of a registry, with what authorises this client there.
pub(crate) struct Repository {
    http: Http,
    base: Url,
    registry: String,
    repository: String,
    login: Option<Login>,
    /// What a push needs to be permitted; a pull takes what the registry asks for.
    push_scopes: Vec<String>,
    /// Value of the header Authorization, once the registry asked for it.
    authorization: Mutex<Option<String>>,
}

/// A document of a registry.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub media_type: String,
}

impl Repository {
    /// Finds out how a registry is reached. With `verify` false a certificate is not checked, and plain
    /// HTTP is accepted; a registry on this host may always use that.
    pub(crate) fn connect(endpoint: &Endpoint, credentials: &Credentials, verify: bool) -> Result<Self, ClientError> {
        let verify = verify && !endpoint.insecure;
        let Endpoint { registry, repository, .. } = endpoint.clone();
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { &endpoint.registry };
        let https = Url::parse(&format!("https://{host}/"))?;
        let http = Http::new(&https, verify);
        let login = credentials
            .find(&registry, &repository)
            .map_err(|source| ClientError::Credentials { registry: registry.clone(), source })?;
        let mut connected = Self {
            http,
            base: https.clone(),
            registry,
            repository,
            login,
            push_scopes: Vec::new(),
            authorization: Mutex::new(None),
        };
        if !verify || https.is_loopback() {
            let reached = connected.http.send(&Request::get(https.join("/v2/")?));
            if reached.is_err_and(|error| error.is_no_tls()) {
                connected.base = Url::parse(&format!("http://{host}/"))?;
            }
        }
        Ok(connected)
    }

    /// Returns the manifest or index with this tag or digest.
    pub(crate) fn manifest(&self, reference: &str) -> Result<Manifest, ClientError> {
        let mut request = self.request(&format!("manifests/{reference}"))?;
        request.accept = &MANIFEST_TYPES;
        let mut response = self.send(&request)?;
        let media_type = response.header("content-type").unwrap_or_default().to_owned();
        let declared = response.header("docker-content-digest").map(str::to_owned);
        let bytes = response.read_all(MAX_DOCUMENT_SIZE)?;
        // The digest that was asked for, or the one that the registry declares.
        let expected = Digest::parse(reference).ok().or_else(|| declared.and_then(|text| Digest::parse(&text).ok()));
        let mut hasher = expected.as_ref().map_or_else(|| Digest::of(b"").hasher(), Digest::hasher);
        hasher.update(&bytes);
        let digest = hasher.finish();
        match expected {
            Some(expected) if expected != digest => Err(ClientError::Digest {
                registry: self.registry.clone(),
                expected: expected.to_string(),
                actual: digest.to_string(),
            }),
            _ => Ok(Manifest { bytes, digest, media_type }),
        }
    }

    /// Returns the bytes of a blob from `start`, and where they start: a registry may begin again.
    pub(crate) fn blob(&self, digest: &Digest, start: u64) -> Result<(Body, u64), ClientError> {
        let mut request = self.request(&format!("blobs/{digest}"))?;
        request.start = start;
        let response = self.send(&request)?;
        let start = match response.status {
            206 => response.range_start().ok_or_else(|| self.malformed("the part of a blob has no place"))?,
            _ => 0,
        };
        Ok((response.into_body(), start))
    }

    fn malformed(&self, detail: &'static str) -> ClientError {
        ClientError::Malformed { registry: self.registry.clone(), detail }
    }

    fn request(&self, path: &str) -> Result<Request, ClientError> {
        Ok(Request::get(self.base.join(&format!("/v2/{}/{path}", self.repository))?))
    }

    /// Sends a request; if the registry asks for it, once more with a token or a password. Any other status
    /// is an answer.
    fn exchange(&self, request: &Request) -> Result<Response, ClientError> {
        let mut request = request.clone();
        // An upload may go elsewhere, with a URL that permits it.
        if !request.url.is_same_server(&self.base) {
            return Ok(self.http.send(&request)?);
        }
        request.authorization = self.authorization.lock().expect("no thread panics with it").clone();
        let mut response = self.http.send(&request)?;
        if response.status == 401 {
            let challenges = Challenge::parse_all(response.headers("www-authenticate"));
            // Another thread may have had the same answer, and a token since.
            let mut authorization = self.authorization.lock().expect("no thread panics with it");
            if *authorization == request.authorization {
                *authorization = self.authorize(&challenges)?;
            }
            request.authorization = authorization.clone();
            drop(authorization);
            if request.authorization.is_some() {
                response = self.http.send(&request)?;
            }
        }
        Ok(response)
    }

    /// Sends a request whose answer is a document or a blob.
    fn send(&self, request: &Request) -> Result<Response, ClientError> {
        let response = self.exchange(request)?;
        match response.status {
            200 | 206 => Ok(response),
            // Nothing is left to send, or the part that is here already is not one of this blob.
            416 if request.start > 0 => self.send(&Request { start: 0, ..request.clone() }),
            _ => Err(self.rejection(response)),
        }
    }

    fn authorize(&self, challenges: &[Challenge]) -> Result<Option<String>, ClientError> {
        for challenge in challenges {
            match challenge {
                Challenge::Bearer(bearer) => {
                    let pull = format!("repository:{}:pull", self.repository);
                    let scopes = match self.push_scopes.is_empty() {
                        true => vec![bearer.scope.as_deref().unwrap_or(&pull)],
                        false => self.push_scopes.iter().map(String::as_str).collect(),
                    };
                    let token = token::fetch(&self.http, &self.base, bearer, &scopes, self.login.as_ref())?;
                    return Ok(Some(format!("Bearer {}", token.ok_or_else(|| self.malformed("no token"))?)));
                }
                Challenge::Basic => {
                    if let Some(basic) = self.login.as_ref().and_then(Login::basic) {
                        return Ok(Some(format!("Basic {basic}")));
                    }
                }
            }
        }
        Ok(None)
    }

    fn rejection(&self, mut response: Response) -> ClientError {
        let registry = self.registry.clone();
        let status = response.status;
        let body = response.read_all(MAX_DOCUMENT_SIZE).unwrap_or_default();
        let detail = message(&body).map(|message| format!(" ({message})")).unwrap_or_default();
        match status {
            404 => ClientError::NotFound { registry, detail },
            401 | 403 => ClientError::Denied { registry, detail },
            429 => ClientError::TooManyRequests { registry, detail },
            _ => ClientError::Status { registry, status, detail },
        }
    }
}

impl ClientError {
    /// Whether the same request may succeed later: the connection broke, or the server is busy.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Http(error) => error.is_temporary(),
            Self::TooManyRequests { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

/// The first message of an error document, as one short line.
fn message(body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = document.get("errors")?.get(0)?;
    let text = error.get("message").or_else(|| error.get("code"))?.as_str()?;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect();
    (!line.is_empty()).then_some(line)
}

/// What a request may do.
impl Request {
    fn get(url: Url) -> Self {
        Self { method: Method::Get, url, accept: &[], authorization: None, start: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_of_an_error_is_one_short_line() {
        let body = br#"{"errors":[{"code":"DENIED","message":"requested access\nis denied"},{"code":"X"}]}"#;
        assert_eq!(message(body).as_deref(), Some("requested access is denied"));
        assert_eq!(message(br#"{"errors":[{"code":"DENIED"}]}"#).as_deref(), Some("DENIED"));
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "m".repeat(5000));
        assert_eq!(message(long.as_bytes()).unwrap().len(), MAX_MESSAGE_CHARS);
        for other in [&b"<html>"[..], b"{}", br#"{"errors":[]}"#, br#"{"errors":{"0":1}}"#] {
            assert_eq!(message(other), None);
        }
    }
}

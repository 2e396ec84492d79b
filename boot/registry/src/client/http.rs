// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests over HTTP and TLS, with redirects of our own: credentials go to the host that they are
//! for and to no other, nothing goes from HTTPS to HTTP, and a redirect from elsewhere does not reach
//! this host's own network. Every wait and every length has a bound.

use super::certificates;
use super::proxy::proxy_for;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, BodyReader, Proxy, SendBody};

const MAX_REDIRECTS: usize = 5;
const MAX_HEADER_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Until an answer begins, and between two pieces of it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// For a whole document.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(120);
const READ_BUF_SIZE: usize = 16 << 10;
pub(super) const OCTET_STREAM: &str = "application/octet-stream";

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("invalid URL {0}")]
    Url(String),
    #[error("cannot fetch {url}")]
    Transport { url: String, source: ureq::Error },
    #[error("cannot read {path}")]
    Upload { path: PathBuf, source: std::io::Error },
    #[error("cannot read the answer of {url}")]
    Read { url: String, source: std::io::Error },
    #[error("invalid proxy {0}")]
    Proxy(String),
    #[error("{url} answers with more than {limit} bytes")]
    TooLong { url: String, limit: u64 },
    #[error("the answer of {url} takes longer than {} s", DOCUMENT_TIMEOUT.as_secs())]
    TooSlow { url: String },
    #[error("{url} redirects more than {MAX_REDIRECTS} times")]
    TooManyRedirects { url: String },
    #[error("{url} redirects to no valid URL")]
    Location { url: String },
    #[error("redirected from HTTPS to {url}")]
    Downgrade { url: String },
    #[error("redirected to {url}, an address of this host's own network")]
    OwnNetwork { url: String },
}

impl HttpError {
    /// Whether a server may not speak TLS. A certificate that is not trusted shows that it does.
    pub(super) fn is_no_tls(&self) -> bool {
        match self {
            Self::Transport { source: ureq::Error::Rustls(rustls::Error::InvalidCertificate(_)), .. } => false,
            Self::Transport { source, .. } => !is_certificate(source),
            _ => false,
        }
    }

    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Transport { source, .. } => {
                matches!(source, ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed)
                    && !is_certificate(source)
            }
            Self::Read { .. } => true,
            _ => false,
        }
    }
}

/// A rejected certificate may come as an I/O error.
fn is_certificate(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else { return false };
    let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    matches!(source, Some(rustls::Error::InvalidCertificate(_)))
}

/// An absolute URL of HTTP or HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url(Uri);

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, HttpError> {
        let invalid = || HttpError::Url(text.chars().take(200).filter(|c| !c.is_control()).collect());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        // A user name before the host is how a host is disguised.
        let has_host =
            uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
        if is_http && has_host { Ok(Self(uri)) } else { Err(invalid()) }
    }

    /// Another path on the same server.
    pub(crate) fn join(&self, path: &str) -> Result<Self, HttpError> {
        Self::parse(&format!("{}://{}{path}", self.scheme(), self.authority()))
    }

    pub(crate) fn with_query(&self, query: &str) -> Result<Self, HttpError> {
        let separator = if self.0.query().is_some() { '&' } else { '?' };
        Self::parse(&format!("{}{separator}{query}", self.0))
    }

    fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or_default()
    }

    fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    pub(crate) fn is_https(&self) -> bool {
        self.scheme() == "https"
    }

    pub(crate) fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    fn address(&self) -> Option<IpAddr> {
        self.host().trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether the host is this one, by its name or address.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host() == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }

    /// Whether the address is only meaningful on this host or its link, where services trust every
    /// client that reaches them: the metadata of a cloud, for example.
    fn is_own_network(&self) -> bool {
        let link_local = match self.address() {
            Some(IpAddr::V4(address)) => address.is_link_local() || address.is_unspecified(),
            Some(IpAddr::V6(address)) => {
                address.is_unicast_link_local() || address.is_unspecified() || address.to_ipv4_mapped().is_some()
            }
            None => false,
        };
        link_local || self.is_loopback()
    }

    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        (self.scheme(), self.host(), self.port()) == (other.scheme(), other.host(), other.port())
    }

    /// Without the query, which may hold a signature.
    pub(crate) fn shown(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority(), self.0.path())
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    /// With this document as its body.
    Put {
        content_type: String,
        body: Vec<u8>,
    },
    /// With a file of this length as its body, which is read while it is sent.
    PutFile {
        path: PathBuf,
        length: u64,
    },
    /// With the rest of such a file, from the byte `start` on.
    PatchFile {
        path: PathBuf,
        start: u64,
        length: u64,
    },
    /// With this form as its body.
    PostForm(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub method: Method,
    pub url: Url,
    /// Media types, best first.
    pub accept: &'static [&'static str],
    /// Value of the header, for the server of `url` only.
    pub authorization: Option<String>,
    /// Skips this many bytes of the answer.
    pub start: u64,
}

pub(crate) struct Response {
    pub status: u16,
    url: Url,
    headers: ureq::http::HeaderMap,
    body: BodyReader<'static>,
}

/// The bytes of an answer.
pub(crate) struct Body(BodyReader<'static>);

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Response {
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Bytes of an upload that the server has (`Range: 0-LAST`). Servers write `0-0` for none, too.
    pub(crate) fn uploaded(&self) -> u64 {
        let last = || self.header("range")?.trim().trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok();
        last().filter(|last| *last > 0).map_or(0, |last: u64| last.saturating_add(1))
    }

    /// First byte of the part in the answer (`Content-Range: bytes FIRST-LAST/SIZE`).
    pub(crate) fn range_start(&self) -> Option<u64> {
        self.header("content-range")?.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
    }

    pub(crate) fn into_body(self) -> Body {
        Body(self.body)
    }

    /// Reads a document of at most `limit` bytes.
    pub(crate) fn read_all(&mut self, limit: u64) -> Result<Vec<u8>, HttpError> {
        let began = Instant::now();
        let mut bytes = Vec::new();
        let mut buffer = [0; READ_BUF_SIZE];
        loop {
            let url = || self.url.shown();
            match self.body.read(&mut buffer) {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(source) => return Err(HttpError::Read { url: url(), source }),
            }
            if bytes.len() as u64 > limit {
                return Err(HttpError::TooLong { url: url(), limit });
            }
            if began.elapsed() > DOCUMENT_TIMEOUT {
                return Err(HttpError::TooSlow { url: url() });
            }
        }
    }
}

/// Connections to the servers of one registry.
pub(crate) struct Http {
    /// Whether the registry is on this host: then it may redirect to this host.
    is_loopback: bool,
    /// The one server whose certificate is not checked.
    unverified: Option<String>,
    /// By authority: each may have certificates of its own.
    agents: Mutex<HashMap<String, Agent>>,
}

impl Http {
    pub(crate) fn new(registry: &Url, verify: bool) -> Self {
        Self {
            is_loopback: registry.is_loopback(),
            unverified: (!verify).then(|| registry.authority().to_owned()),
            agents: Mutex::default(),
        }
    }

    /// Sends `request` and follows redirects. Any final status is an answer.
    pub(crate) fn send(&self, request: &Request) -> Result<Response, HttpError> {
        let mut request = request.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(&request)?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let next = self.location(&response)?;
            if !next.is_same_server(&request.url) {
                request.authorization = None;
                // A form holds credentials, too.
                if matches!(request.method, Method::PostForm(_)) {
                    return Err(HttpError::Location { url: request.url.shown() });
                }
            }
            if response.status == 303 {
                request.method = Method::Get;
            }
            request.url = next;
        }
        Err(HttpError::TooManyRedirects { url: request.url.shown() })
    }

    /// The URL that an answer names, if a client of its server may go there.
    pub(crate) fn location(&self, response: &Response) -> Result<Url, HttpError> {
        let location = response.header("location").unwrap_or_default();
        let next = match location.starts_with('/') && !location.starts_with("//") {
            true => response.url.join(location),
            false => Url::parse(location),
        };
        let next = next.map_err(|_| HttpError::Location { url: response.url.shown() })?;
        if response.url.is_https() && !next.is_https() {
            return Err(HttpError::Downgrade { url: next.shown() });
        }
        if next.is_own_network() && !self.is_loopback {
            return Err(HttpError::OwnNetwork { url: next.shown() });
        }
        Ok(next)
    }

    fn send_once(&self, request: &Request) -> Result<Response, HttpError> {
        let url = &request.url;
        let agent = self.agent(url)?;
        let mut builder = ureq::http::Request::builder().uri(url.0.clone());
        for kind in request.accept {
            builder = builder.header("accept", *kind);
        }
        if let Some(authorization) = &request.authorization {
            builder = builder.header("authorization", authorization);
        }
        if request.start > 0 {
            builder = builder.header("range", format!("bytes={}-", request.start));
        }
        let invalid = |_| HttpError::Url(url.shown());
        let answer = match &request.method {
            Method::Get => agent.run(builder.method("GET").body(()).map_err(invalid)?),
            Method::Head => agent.run(builder.method("HEAD").body(()).map_err(invalid)?),
            Method::Post => agent.run(builder.method("POST").body(Vec::new()).map_err(invalid)?),
            Method::Put { content_type, body } => {
                let builder = builder.method("PUT").header("content-type", content_type);
                agent.run(builder.body(body.clone()).map_err(invalid)?)
            }
            Method::PutFile { path, length } => {
                let builder = builder.method("PUT").header("content-length", length.to_string());
                let builder = builder.header("content-type", OCTET_STREAM);
                agent.run(builder.body(file_body(path, 0)?).map_err(invalid)?)
            }
            Method::PatchFile { path, start, length } => {
                let builder = builder.method("PATCH").header("content-length", (length - start).to_string());
                let builder = builder.header("content-type", OCTET_STREAM);
                // The specification of the protocol has no unit here.
                let builder = builder.header("content-range", format!("{start}-{}", length - 1));
                agent.run(builder.body(file_body(path, *start)?).map_err(invalid)?)
            }
            Method::PostForm(form) => {
                let builder = builder.method("POST").header("content-type", "application/x-www-form-urlencoded");
                agent.run(builder.body(form.clone()).map_err(invalid)?)
            }
        };
        let (parts, body) = answer.map_err(|source| HttpError::Transport { url: url.shown(), source })?.into_parts();
        log::debug!("{}: status {}", url.shown(), parts.status);
        Ok(Response {
            status: parts.status.as_u16(),
            url: url.clone(),
            headers: parts.headers,
            body: body.into_reader(),
        })
    }

    /// The agent for a server: its certificates, its proxy.
    fn agent(&self, url: &Url) -> Result<Agent, HttpError> {
        let key = format!("{}://{}", url.scheme(), url.authority());
        let mut agents = self.agents.lock().expect("no thread panics with it");
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let proxy = proxy_for(url, |name| std::env::var(name).ok());
        let proxy = proxy.map(|text| Proxy::new(&text).map_err(|_| HttpError::Proxy(without_password(&text))));
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MAX_HEADER_BYTES)
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .accept("")
            .accept_encoding("")
            .proxy(proxy.transpose()?)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(IDLE_TIMEOUT))
            .timeout_per_read(Some(IDLE_TIMEOUT))
            .timeout_per_write(Some(IDLE_TIMEOUT));
        if url.is_https() {
            let roots = Arc::new(certificates::trusted(url.authority()));
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::Specific(roots))
                .disable_verification(self.unverified.as_deref() == Some(url.authority()))
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
            config = config.tls_config(tls.build());
        }
        let agent = config.build().new_agent();
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

/// A file from the byte `start` on, which is read while it is sent.
fn file_body(path: &Path, start: u64) -> Result<SendBody<'static>, HttpError> {
    let opened = File::open(path).and_then(|mut file| file.seek(SeekFrom::Start(start)).map(|_| file));
    let file = opened.map_err(|source| HttpError::Upload { path: path.to_owned(), source })?;
    Ok(SendBody::from_owned_reader(file))
}

/// A proxy's URL for a message.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_absolute_and_shows_no_query() {
        let url = Url::parse("https://R.example:5000/v2/?a=secret").unwrap();
        assert_eq!(url.shown(), "https://R.example:5000/v2/");
        assert_eq!((url.host(), url.port(), url.is_https()), ("R.example", 5000, true));
        assert_eq!(url.join("/x?y=z").unwrap().0.to_string(), "https://R.example:5000/x?y=z");
        for text in ["/v2/", "ftp://x/", "https://", "https:///x", "https://user@x/", "https://user:p@x/", "x", ""] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_the_own_network_are_known() {
        let own = |text: &str| Url::parse(text).unwrap().is_own_network();
        for text in [
            "http://localhost/",
            "http://127.0.0.1:80/",
            "http://127.8.8.8/",
            "http://169.254.169.254/latest/",
            "http://0.0.0.0/",
            "http://[::1]/",
            "http://[fe80::1]/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert!(own(text), "{text}");
        }
        assert!(!own("http://10.0.0.1/") && !own("https://r.example/") && !own("https://[2001:db8::1]/"));
    }

    #[test]
    fn password_of_a_proxy_is_not_shown() {
        assert_eq!(without_password("http://user:secret@proxy:1"), "http://proxy:1");
    }
}

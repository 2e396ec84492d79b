// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Uploads (OCI distribution specification 1.1, "Push"): blobs in one request each, or mounted from
//! another repository of the registry; then manifests. Where a request broke off, the next one goes on, with
//! registries that keep what they have received.

use super::http::{Method, OCTET_STREAM, Request, Response, Url};
use super::{ClientError, MAX_DOCUMENT_SIZE, Repository};
use oci_image::{Digest, Reference};
use std::path::Path;

/// How a blob came to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    Present,
    Mounted,
    Sent,
}

/// An upload whose request broke off, so that the next attempt can go on with it.
#[derive(Debug, Default)]
pub(crate) struct BegunUpload {
    location: Option<Url>,
    /// Bytes that the registry had when it was asked.
    received: u64,
}

impl BegunUpload {
    pub(crate) fn received(&self) -> u64 {
        self.received
    }
}

impl Repository {
    /// Asks for permission to push with the next request that needs one, and to read `from`.
    pub(crate) fn for_push(mut self, from: Option<&str>) -> Self {
        self.push_scopes = vec![format!("repository:{}:pull,push", self.repository)];
        self.push_scopes.extend(from.map(|from| format!("repository:{from}:pull")));
        self
    }

    /// Brings a blob, which is in the file `path`, to the registry: from its repository `from`, if that has it, or from
    /// where an earlier attempt stopped.
    pub(crate) fn upload(
        &self,
        blob: &Reference,
        path: &Path,
        from: Option<&str>,
        begun: &mut BegunUpload,
    ) -> Result<Upload, ClientError> {
        if let Some(location) = begun.location.take() {
            match self.go_on(blob, path, location, begun)? {
                Some(upload) => return Ok(upload),
                None => log::debug!("{}: the registry has nothing of it; beginning again", blob.digest),
            }
        }
        *begun = BegunUpload::default();
        let digest = &blob.digest;
        let head = Request { method: Method::Head, ..self.request(&format!("blobs/{digest}"))? };
        let response = self.exchange(&head)?;
        match response.status {
            200 => return Ok(Upload::Present),
            404 => {}
            _ => return Err(self.rejection(response)),
        }
        let mount = from.map(|from| format!("?mount={digest}&from={from}")).unwrap_or_default();
        let begin = Request { method: Method::Post, ..self.request(&format!("blobs/uploads/{mount}"))? };
        let mut response = self.exchange(&begin)?;
        match response.status {
            201 if from.is_some() => return Ok(Upload::Mounted),
            202 => {}
            _ => return Err(self.rejection(response)),
        }
        response.read_all(MAX_DOCUMENT_SIZE)?;
        let location = self.http.location(&response)?;
        let url = location.with_query(&format!("digest={digest}"))?;
        begun.location = Some(location);
        let method = Method::PutFile { path: path.to_owned(), length: blob.size };
        let response = self.exchange(&Request { method, ..Request::get(url) })?;
        match response.status {
            201 | 204 => Ok(Upload::Sent),
            _ => Err(self.rejection(response)),
        }
    }

    /// Asks how much of a begun upload the registry has, and sends the rest. None if the upload has to begin again: the registry
    /// has nothing of it, or rejects what follows.
    fn go_on(
        &self,
        blob: &Reference,
        path: &Path,
        location: Url,
        begun: &mut BegunUpload,
    ) -> Result<Option<Upload>, ClientError> {
        // It stays, if this attempt fails, too.
        begun.location = Some(location.clone());
        let response = self.exchange(&Request::get(location.clone()))?;
        let Some((mut location, start)) = self.accepted(response, location)? else { return Ok(None) };
        if start == 0 || start > blob.size {
            return Ok(None);
        }
        begun.received = start;
        log::debug!("{}: going on at byte {start} of {}", blob.digest, blob.size);
        if start < blob.size {
            begun.location = Some(location.clone());
            let method = Method::PatchFile { path: path.to_owned(), start, length: blob.size };
            let response = self.exchange(&Request { method, ..Request::get(location.clone()) })?;
            match self.accepted(response, location)? {
                Some((next, _)) => location = next,
                None => return Ok(None),
            }
        }
        begun.location = Some(location.clone());
        let method = Method::Put { content_type: OCTET_STREAM.to_owned(), body: Vec::new() };
        let url = location.with_query(&format!("digest={}", blob.digest))?;
        let response = self.exchange(&Request { method, ..Request::get(url) })?;
        Ok(self.accepted(response, location)?.map(|_| Upload::Sent))
    }

    /// Where an upload goes on, and how much of it the registry has. None if the registry rejects the request for good.
    fn accepted(&self, mut response: Response, before: Url) -> Result<Option<(Url, u64)>, ClientError> {
        match response.status {
            200..=299 => {
                response.read_all(MAX_DOCUMENT_SIZE)?;
                let named = response.header("location").is_some();
                let location = if named { self.http.location(&response)? } else { before };
                Ok(Some((location, response.uploaded())))
            }
            _ => match self.rejection(response) {
                error if error.is_temporary() => Err(error),
                error => {
                    log::debug!("{error}");
                    Ok(None)
                }
            },
        }
    }

    /// Stores a manifest or an index under a tag or its digest.
    pub(crate) fn put_manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<(), ClientError> {
        let method = Method::Put { content_type: media_type.to_owned(), body: bytes.to_owned() };
        let request = Request { method, ..self.request(&format!("manifests/{reference}"))? };
        let response = self.exchange(&request)?;
        if !matches!(response.status, 200 | 201) {
            return Err(self.rejection(response));
        }
        let digest = Digest::of(bytes);
        match response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok()) {
            Some(actual) if actual.algorithm() == digest.algorithm() && actual != digest => Err(ClientError::Digest {
                registry: self.registry.clone(),
                expected: digest.to_string(),
                actual: actual.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

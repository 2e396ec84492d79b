// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Uploads (OCI distribution specification 1.1, "Push"): blobs in one request each, or mounted from
//! another repository of the registry; then manifests.

use super::http::{Method, Request};
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

impl Repository {
    /// Asks for permission to push with the next request that needs one, and to read `from`.
    pub(crate) fn for_push(mut self, from: Option<&str>) -> Self {
        self.push_scopes = vec![format!("repository:{}:pull,push", self.repository)];
        self.push_scopes.extend(from.map(|from| format!("repository:{from}:pull")));
        self
    }

    /// Brings a blob, which is in the file `path`, to the registry: from its repository `from`, if that
    /// has it.
    pub(crate) fn upload(&self, blob: &Reference, path: &Path, from: Option<&str>) -> Result<Upload, ClientError> {
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
        let url = self.http.location(&response)?.with_query(&format!("digest={digest}"))?;
        let method = Method::PutFile { path: path.to_owned(), length: blob.size };
        let response = self.exchange(&Request { method, ..Request::get(url) })?;
        match response.status {
            201 | 204 => Ok(Upload::Sent),
            _ => Err(self.rejection(response)),
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

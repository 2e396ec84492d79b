// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The certificates that are trusted: the host's, and those that docker's and podman's directories
//! have for one registry. Read at the first use.

use std::fs;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, PemItem, parse_pem};

/// Bundles of the distributions, the first that exists.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Directories with one directory for each registry, named HOST or HOST:PORT.
const REGISTRY_DIRECTORIES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// The certificates for the server at `authority`.
pub(super) fn trusted(authority: &str) -> Vec<Certificate<'static>> {
    let bundle = match std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        Some(path) => Some(PathBuf::from(path)),
        None => BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()),
    };
    let mut certificates = bundle.map(|path| read(&path)).unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/containers/certs.d"));
    let directories = home.into_iter().chain(REGISTRY_DIRECTORIES.iter().map(PathBuf::from));
    for directory in directories {
        let Ok(entries) = fs::read_dir(directory.join(authority)) else { continue };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "crt")) {
            certificates.extend(read(&path));
        }
    }
    certificates
}

/// The certificates in a file; what is not one is passed over.
fn read(path: &Path) -> Vec<Certificate<'static>> {
    let pem = fs::read(path).unwrap_or_else(|error| {
        log::warn!("cannot read the certificates in {}: {error}", path.display());
        Vec::new()
    });
    let items = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    items.collect()
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--metadata FILE`: the instance metadata service of a cloud, at 169.254.169.254 on the guest's first interface, in EC2's shape
//! with session tokens (IMDSv2). It is a part of the process: no other machine reaches it, and no network has to.
//!
//! | file | what |
//! |---|---|
//! | `document.rs` | the JSON document as a tree of paths |
//! | `service.rs` | requests and answers, session tokens |
//! | `host.rs` | the host on the guest's link: ARP, IPv4 and TCP by smoltcp |

mod document;
mod host;
mod service;

#[cfg(test)]
mod host_tests;

use document::{Document, DocumentError};
use host::{ADDRESS, MetadataHost};
use service::Service;

use crate::host::bounded_read;
use devices::virtio::net::InternalHost;
use guest_protocol::run_spec::{Address, Interface, Route};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

const MAX_FILE_BYTES: u64 = 64 << 10;
/// Of an interface without an IPv4 address of its own (RFC 3927).
const LINK_LOCAL: Address = Address { address: IpAddr::V4(Ipv4Addr::new(169, 254, 0, 2)), prefix: 16 };

#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("--metadata {0}")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("--metadata {0}: larger than {MAX_FILE_BYTES} bytes")]
    Size(PathBuf),
    #[error("--metadata {0}: {1}")]
    Document(PathBuf, DocumentError),
}

/// The service for the document at `path`.
pub(super) fn open(path: &Path) -> Result<Box<dyn InternalHost>, MetadataError> {
    let read = |error| MetadataError::Read(path.to_owned(), error);
    let too_large = || MetadataError::Size(path.to_owned());
    let bytes = bounded_read::read_file(path, MAX_FILE_BYTES).map_err(read)?.ok_or_else(too_large)?;
    let document = Document::parse(&bytes).map_err(|error| MetadataError::Document(path.to_owned(), error))?;
    Ok(Box::new(MetadataHost::new(Service::new(document))))
}

/// Adds the way to the service to the guest's side of its interface.
pub(super) fn add_route(guest: &mut Interface) {
    if guest.dhcp.is_some() || guest.addresses.iter().any(|own| own.address.is_ipv4()) {
        let destination = Address { address: ADDRESS.into(), prefix: 32 };
        guest.routes.push(Route { destination, gateway: None });
    } else {
        guest.addresses.push(LINK_LOCAL);
    }
}

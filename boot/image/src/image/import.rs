// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An image of one layer from a tar archive of a root file system.

use super::contents::{CONFIG_TYPE, ContainedImage, Contents, LAYER_TYPE, MANIFEST_TYPE, Origin, descriptor, spooled};
use super::{ImageError, Reference};
use crate::digest::{Digest, Hasher};
use crate::name::ImageName;
use crate::source::{Blob, Source, SourceError};
use crate::tar::Reader;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

const READ_BUF_SIZE: usize = 256 << 10;

/// What the documents of an imported image say.
#[derive(Debug)]
pub struct ImportedConfig<'a> {
    /// The object `config` of the image's configuration.
    pub config: Value,
    /// RFC 3339.
    pub created: &'a str,
    /// The comment of the layer in the history.
    pub comment: &'a str,
    /// Of the image, in the store.
    pub name: Option<ImageName>,
}

impl Contents {
    /// Reads a tar archive from `input`, named `name` in messages, through a file without a name in
    /// `scratch`; a compressed one is unpacked. All headers are read, the files' data is not.
    pub fn import(
        input: impl Read,
        name: &Path,
        scratch: &Path,
        imported: &ImportedConfig<'_>,
    ) -> Result<Self, ImageError> {
        let layer = Source::plain(spooled(input, name, scratch)?, name, scratch)?;
        let mut reader = Reader::new(layer.section(READ_BUF_SIZE));
        let failed = |source| SourceError::Archive { path: name.to_owned(), source };
        while reader.next_entry().map_err(failed)?.is_some() {}
        let reference = Reference { digest: digest_of(&layer, name)?, size: layer.length };

        let ImportedConfig { config, created, comment, name: image_name } = imported;
        let history = json!([{ "created": created, "comment": comment }]);
        let mut origins = BTreeMap::from([(reference.digest.clone(), Origin::Blob(layer))]);
        let mut document = |document: Value| {
            let bytes = document.to_string().into_bytes();
            let reference = Reference { digest: Digest::of(&bytes), size: bytes.len() as u64 };
            origins.insert(reference.digest.clone(), Origin::Document(bytes));
            reference
        };
        let config = document(json!({
            "created": created,
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [reference.digest.to_string()] },
            "history": history,
        }));
        let image = document(json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(&config, CONFIG_TYPE),
            "layers": [descriptor(&reference, LAYER_TYPE)],
        }));
        let blobs = vec![reference, config, image.clone()];
        let names = image_name.iter().cloned().collect();
        let images = vec![ContainedImage { names, image, media_type: MANIFEST_TYPE.to_owned(), blobs }];
        Ok(Self { source: Source::Directory(scratch.to_owned()), images, origins })
    }
}

fn digest_of(layer: &Blob, name: &Path) -> Result<Digest, SourceError> {
    let mut hasher = Hasher::sha256();
    let (mut section, mut buffer) = (layer.section(READ_BUF_SIZE), vec![0; READ_BUF_SIZE]);
    loop {
        match section.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SourceError::Read { name: name.display().to_string(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(bytes: &[u8]) -> Result<Contents, ImageError> {
        let scratch = tempfile::tempdir().unwrap();
        let imported = ImportedConfig {
            config: json!({ "Cmd": ["/x"] }),
            created: "2026-11-26T00:00:00Z",
            comment: "imported",
            name: ImageName::parse("a:1").ok(),
        };
        Contents::import(bytes, Path::new("x.tar"), scratch.path(), &imported)
    }

    #[test]
    fn imported_image_leads_to_its_layer() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        tar.append_data(&mut header, "etc/x", &b"abc"[..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        let contents = import(&bytes).unwrap();
        let [image] = contents.images() else { panic!("one image") };
        let text = |blob: &Reference| {
            let mut bytes = Vec::new();
            contents.blob(blob, 0).unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (blob.digest.clone(), blob.size));
            bytes
        };
        assert_eq!(text(&image.blobs[0]), bytes);
        let config: Value = serde_json::from_slice(&text(&image.blobs[1])).unwrap();
        assert_eq!(config["config"]["Cmd"][0], "/x");
        assert_eq!(config["rootfs"]["diff_ids"][0], image.blobs[0].digest.to_string());
        text(&image.blobs[2]);
        assert_eq!(image.names[0].to_string(), "docker.io/library/a:1");
        // An empty archive is an empty root.
        assert!(import(&[0; 1024]).is_ok());
    }

    #[test]
    fn what_is_no_tar_archive_is_rejected() {
        for bytes in [&b"#!/bin/sh\n"[..], &[7; 2048], b"\x1f\x8bnot really"] {
            assert!(import(bytes).is_err(), "{bytes:?}");
        }
        let mut cut = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3000);
        cut.append_data(&mut header, "x", &[1; 3000][..]).unwrap();
        assert!(import(&cut.into_inner().unwrap()[..1000]).is_err());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An image of one layer from a tar archive of a root file system.

use super::contents::{
    ContainedImage, Contents, LAYER_TYPE, MANIFEST_TYPE, Origin, READ_BUF_SIZE, descriptor, digest_of, manifest,
    spooled,
};
use super::{ImageError, Reference};
use crate::decompress::UnpackError;
use crate::limits;
use crate::name::ImageName;
use crate::source::{Source, SourceError};
use crate::tar::Reader;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek as _;
use std::path::Path;

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
    /// Reads a tar archive from `input`, which may be a pipe and is named `name` in messages; a compressed one is unpacked to a
    /// file without a name in `scratch`. All headers are read, the files' data is not.
    pub fn import(
        mut input: File,
        name: &Path,
        scratch: &Path,
        imported: &ImportedConfig<'_>,
    ) -> Result<Self, ImageError> {
        let file = if needs_no_copy(&mut input, name)? { input } else { spooled(input, name, scratch)? };
        let layer = Source::plain(file, name, scratch)?;
        let mut reader = Reader::new(layer.section(READ_BUF_SIZE));
        let failed = |source| SourceError::Archive { path: name.to_owned(), source };
        while reader.next_entry().map_err(failed)?.is_some() {}
        let read = |source| SourceError::Read { name: name.display().to_string(), source };
        let digest = digest_of(layer.section(READ_BUF_SIZE)).map_err(read)?;
        let reference = Reference { digest, size: layer.length };

        let ImportedConfig { config, created, comment, name: image_name } = imported;
        let history = json!([{ "created": created, "comment": comment }]);
        let mut origins = BTreeMap::from([(reference.digest.clone(), Origin::Blob(layer))]);
        let mut document = |bytes: Vec<u8>| {
            let reference = Reference::of(&bytes);
            origins.insert(reference.digest.clone(), Origin::Document(bytes));
            reference
        };
        let config = json!({
            "created": created,
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [reference.digest.to_string()] },
            "history": history,
        });
        let config = document(config.to_string().into_bytes());
        let image = document(manifest(&config, vec![descriptor(&reference, LAYER_TYPE)]));
        let blobs = vec![reference, config, image.clone()];
        let names = image_name.iter().cloned().collect();
        let images = vec![ContainedImage { names, image, media_type: MANIFEST_TYPE.to_owned(), blobs }];
        Ok(Self { source: Source::Directory(scratch.to_owned()), images, origins })
    }
}

/// Whether `input` is a regular file that is read from its start.
fn needs_no_copy(input: &mut File, name: &Path) -> Result<bool, SourceError> {
    let metadata = input.metadata().map_err(|source| SourceError::Open { path: name.to_owned(), source })?;
    if !metadata.is_file() || input.stream_position().unwrap_or(1) != 0 {
        return Ok(false);
    }
    if metadata.len() > limits::MAX_UNCOMPRESSED_BYTES {
        return Err(SourceError::Unpack { path: name.to_owned(), source: UnpackError::TooLarge });
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use std::io::{Read as _, Write as _};

    /// From a file, and from a pipe, which has to have the same outcome.
    fn import(bytes: &[u8]) -> Result<Contents, ImageError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let written = bytes.to_owned();
        std::thread::spawn(move || writer.write_all(&written));
        let of_pipe = import_from(File::from(std::os::fd::OwnedFd::from(reader)));
        let of_file = import_from(file);
        assert_eq!(of_file.as_ref().map(Contents::images).ok(), of_pipe.as_ref().map(Contents::images).ok());
        of_file
    }

    fn import_from(input: File) -> Result<Contents, ImageError> {
        let scratch = tempfile::tempdir().unwrap();
        let imported = ImportedConfig {
            config: json!({ "Cmd": ["/x"] }),
            created: "2026-11-26T00:00:00Z",
            comment: "imported",
            name: ImageName::parse("a:1").ok(),
        };
        Contents::import(input, Path::new("x.tar"), scratch.path(), &imported)
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

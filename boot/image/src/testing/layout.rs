// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OCI layouts in a temporary directory, valid unless a test changes them.

use crate::digest::Digest;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A layout directory, removed on drop.
pub(crate) struct Layout(tempfile::TempDir);

/// How a layer is packed.
pub(crate) type Compress = fn(&[u8]) -> Vec<u8>;

impl Layout {
    /// A layout without images.
    pub(crate) fn new() -> Self {
        let layout = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
        std::fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        layout.index(&[]);
        layout
    }

    /// A layout with one image of these layers.
    pub(crate) fn of(layers: &[Vec<u8>], compress: Compress) -> Self {
        let layout = Self::new();
        let image = layout.image(layers, compress, json!({}));
        layout.index(&[image]);
        layout
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        self.path().join("blobs").join(digest.replace(':', "/"))
    }

    /// Writes a blob and returns its descriptor.
    pub(crate) fn blob(&self, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_string();
        std::fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({"mediaType": "application/octet-stream", "digest": digest, "size": bytes.len()})
    }

    pub(crate) fn document(&self, document: &Value) -> Value {
        self.blob(document.to_string().as_bytes())
    }

    /// Writes an image and returns the descriptor of its manifest. `more` is merged into the
    /// configuration document.
    pub(crate) fn image(&self, layers: &[Vec<u8>], compress: Compress, more: Value) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let mut config = json!({
            "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(&compress(layer))).collect();
        self.document(&json!({"schemaVersion": 2, "config": self.document(&config), "layers": layers}))
    }

    pub(crate) fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        std::fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    gzip_with(bytes, flate2::Compression::fast())
}

pub(crate) fn gzip_best(bytes: &[u8]) -> Vec<u8> {
    gzip_with(bytes, flate2::Compression::best())
}

fn gzip_with(bytes: &[u8], level: flate2::Compression) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

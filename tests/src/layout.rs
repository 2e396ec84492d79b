// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Container images with one fault: an OCI layout directory, written field by field.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A JSON document of a layout.
#[must_use]
pub fn document(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the layout is complete")).expect("it is JSON")
}

/// The file of the blob that `descriptor` describes.
#[must_use]
pub fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    layout.join("blobs").join(descriptor["digest"].as_str().expect("a digest is a string").replace(':', "/"))
}

/// An OCI layout directory with one image of one layer. The default is valid, but its command does not exist.
pub struct Layout {
    directory: PathBuf,
    /// The layer as it is stored.
    pub layer: Vec<u8>,
    /// The digest of the uncompressed layer in the image's configuration, in place of the correct one.
    pub diff_id: Option<String>,
    /// `config` of the image configuration.
    pub config: Value,
    /// `architecture` of the image.
    pub architecture: &'static str,
    /// `org.opencontainers.image.ref.name` of the image.
    pub tag: &'static str,
}

impl Layout {
    /// A small image with a command, not written to `directory` yet.
    #[must_use]
    pub fn new(directory: PathBuf) -> Layout {
        // A layer of its own: one that was converted before is in the cache, whatever became of its file.
        let layer = tar_with("etc/motd", directory.as_os_str().as_encoded_bytes());
        let config = json!({ "Cmd": ["/nothing-here"] });
        Layout { directory, layer, diff_id: None, config, architecture: "amd64", tag: "latest" }
    }

    /// Writes it and returns the reference to it.
    #[must_use]
    pub fn write(&self) -> String {
        fs::create_dir_all(self.directory.join("blobs/sha256")).expect("the test's directory is writable");
        fs::write(self.directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writable");
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", &self.layer);
        let diff_id = self.diff_id.clone().unwrap_or_else(|| format!("sha256:{}", sha256(&self.layer)));
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer] });
        let mut manifest = self.blob(manifest_type, manifest.to_string().as_bytes());
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": self.tag });
        manifest["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs::write(self.directory.join("index.json"), index.to_string()).expect("writable");
        format!("oci:{}", self.directory.display())
    }

    #[must_use]
    pub fn layer_path(&self) -> PathBuf {
        self.directory.join("blobs/sha256").join(sha256(&self.layer))
    }

    /// Archives the written directory and returns the reference to the archive.
    #[must_use]
    pub fn archive(&self, path: &Path) -> String {
        let mut archive = tar::Builder::new(File::create(path).expect("the test's directory is writable"));
        archive
            .append_dir_all(".", &self.directory)
            .and_then(|()| archive.finish())
            .expect("the directory can be archived");
        format!("oci-archive:{}", path.display())
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.directory.join("blobs/sha256").join(&digest), bytes).expect("the test's directory is writable");
        json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
    }
}

/// A layer with one file.
fn tar_with(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, contents).expect("a vector can be written to");
    archive.into_inner().expect("a vector can be written to")
}

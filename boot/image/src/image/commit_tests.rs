// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images above those of layouts, stores and docker archives.

use super::*;
use crate::testing::overlay::Layer as Overlay;
use crate::testing::{Archive, Layout, Member, gzip, image_of, read_back};
use flate2::read::GzDecoder;

const IMAGE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

fn files() -> Archive {
    Archive::of([Member::directory("etc"), Member::file("etc/passwd", "root"), Member::file("gone", "")])
}

/// A machine in which `/gone` is removed and `/new` written.
fn machine(changes: &str) -> Option<MachineTree> {
    let layer = Overlay::of(&files(), changes)?;
    Some(layer.tree("layer.ext4").unwrap())
}

fn commit<'a>(digest: &'a str, tree: &'a MachineTree) -> Commit<'a> {
    Commit {
        image_digest: digest,
        tree,
        edit: &|config| drop(config.insert("Cmd".into(), json!(["cat", "/new"]))),
        created: "2026-11-27T00:00:00Z",
        author: Some("me"),
        created_by: "sh -c x",
        comment: None,
        name: ImageName::parse("x:1").ok(),
        progress: &|| {},
    }
}

fn read(contents: &Contents, blob: &Reference) -> Vec<u8> {
    let mut bytes = Vec::new();
    contents.blob(blob, 0).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (blob.digest.clone(), blob.size));
    bytes
}

/// A layout with one image, and the digest of its manifest.
fn layout(more: Value, media_type: &str) -> (Layout, String) {
    let layout = Layout::new();
    let image = layout.image(&[files().bytes()], gzip, more);
    let path = layout.blob_path(image["digest"].as_str().unwrap());
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    manifest["layers"][0]["mediaType"] = media_type.into();
    let image = layout.document(&manifest);
    layout.index(std::slice::from_ref(&image));
    (layout, image["digest"].as_str().unwrap().to_owned())
}

fn of_layout(layout: &Layout) -> ImageReference {
    ImageReference::OciLayout { path: layout.path().to_owned(), tag: None }
}

#[test]
fn committed_image_is_its_base_and_one_more_layer() {
    let Some(tree) = machine("rm gone; echo hi > new") else { return };
    let more = json!({
        "author": "other", "container": "x", "variant": "v2", "config": {"Cmd": ["sh"], "Env": ["A=b"]},
        "history": [{"empty_layer": true, "comment": "kept"}],
    });
    let (layout, digest) = layout(more, IMAGE);
    let contents = Contents::commit(&of_layout(&layout), layout.path(), &commit(&digest, &tree)).unwrap();
    let [image] = contents.images() else { panic!("one image") };
    let [base, layer, config, manifest] = &image.blobs[..] else { panic!("{:?}", image.blobs) };
    let mut plain = Vec::new();
    GzDecoder::new(&read(&contents, layer)[..]).read_to_end(&mut plain).unwrap();
    let of_image = read_back(&image_of(&[files().bytes(), plain.clone()]).unwrap());
    assert_eq!(of_image.keys().map(String::as_str).collect::<Vec<_>>(), ["", "/etc", "/etc/passwd", "/new"]);

    let config: Value = serde_json::from_slice(&read(&contents, config)).unwrap();
    let expected = json!({
        "architecture": "amd64", "os": "linux", "variant": "v2", "author": "me", "created": "2026-11-27T00:00:00Z",
        "config": {"Cmd": ["cat", "/new"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&files().bytes()).to_string(), Digest::of(&plain).to_string()]},
        "history": [{"empty_layer": true, "comment": "kept"}, {},
            {"created": "2026-11-27T00:00:00Z", "created_by": "sh -c x", "author": "me"}],
    });
    assert_eq!(config, expected);
    let manifest: Value = serde_json::from_slice(&read(&contents, manifest)).unwrap();
    let layers = [base, layer].map(|blob| descriptor(blob, "application/vnd.oci.image.layer.v1.tar+gzip"));
    assert_eq!(manifest["layers"], json!(layers));
    assert_eq!(image.names[0].to_string(), "docker.io/library/x:1");
}

#[test]
fn unchanged_machine_adds_no_layer() {
    let Some(tree) = machine("true") else { return };
    let (layout, digest) = layout(json!({}), IMAGE);
    let contents = Contents::commit(&of_layout(&layout), layout.path(), &commit(&digest, &tree)).unwrap();
    let blobs = &contents.images()[0].blobs;
    let config: Value = serde_json::from_slice(&read(&contents, &blobs[1])).unwrap();
    assert_eq!((blobs.len(), config["history"][1]["empty_layer"].as_bool()), (3, Some(true)));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(1));
}

#[test]
fn image_of_a_docker_archive_is_found_by_its_configuration() {
    let Some(tree) = machine("echo hi > new") else { return };
    let layer = files().bytes();
    let config = json!({"config": {}, "rootfs": {"diff_ids": [Digest::of(&layer).to_string()]}}).to_string();
    let digest = Digest::of(config.as_bytes());
    let name = format!("{}.json", digest.hex());
    let manifest = json!([{"Config": name, "RepoTags": ["a:1"], "Layers": ["l/layer.tar"]}]).to_string();
    let members =
        [Member::file("manifest.json", manifest), Member::file(&name, config), Member::file("l/layer.tar", layer)];
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.tar");
    std::fs::write(&path, Archive::of(members).bytes()).unwrap();
    let base = ImageReference::DockerArchive { path, tag: None };
    let contents = Contents::commit(&base, scratch.path(), &commit(&digest.to_string(), &tree)).unwrap();
    assert_eq!(contents.images()[0].blobs.len(), 4);
    contents.images()[0].blobs.iter().for_each(|blob| drop(read(&contents, blob)));
    let other = Digest::of(b"").to_string();
    let error = Contents::commit(&base, scratch.path(), &commit(&other, &tree)).err().unwrap();
    assert!(error.is_missing_image(), "{error}");
}

#[test]
fn missing_or_damaged_image_is_an_error() {
    let Some(tree) = machine("true") else { return };
    let (layout, digest) = layout(json!({}), IMAGE);
    let other = Digest::of(b"").to_string();
    let error = Contents::commit(&of_layout(&layout), layout.path(), &commit(&other, &tree)).err().unwrap();
    assert!(error.is_missing_image() && error.to_string().contains(&other[7..]), "{error}");
    std::fs::write(layout.blob_path(&digest), "{}").unwrap();
    let error = Contents::commit(&of_layout(&layout), layout.path(), &commit(&digest, &tree)).err().unwrap();
    assert!(!error.is_missing_image() && error.to_string().contains("damaged"), "{error}");
}

#[test]
fn media_types_of_docker_become_those_of_oci() {
    for (given, expected) in [
        (None, "application/vnd.oci.image.layer.v1.tar"),
        (Some(IMAGE), "application/vnd.oci.image.layer.v1.tar+gzip"),
        (Some("application/vnd.docker.image.rootfs.diff.tar.zstd"), "application/vnd.oci.image.layer.v1.tar+zstd"),
        (
            Some("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ),
        (Some("application/x.gzip"), "application/x.gzip"),
        (Some("application/vnd.oci.image.layer.v1.tar+zstd"), "application/vnd.oci.image.layer.v1.tar+zstd"),
    ] {
        assert_eq!(layer_type(given), expected);
    }
}

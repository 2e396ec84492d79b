// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Documents of images: selection of an image, and invalid documents.

use super::*;
use crate::testing::{Archive, Layout, Member};
use serde_json::{Value, json};

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn layer(name: &str) -> Vec<u8> {
    Archive::of([Member::file(name, name)]).bytes()
}

fn open(layout: &Layout, tag: Option<&str>) -> Result<Image, ImageError> {
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: tag.map(Into::into) };
    Image::open(&reference, &Platform::default())
}

fn message(layout: &Layout, tag: Option<&str>) -> String {
    open(layout, tag).err().expect("the image must be rejected").to_string()
}

fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    descriptor
}

#[test]
fn single_image_needs_no_tag() {
    let layout = Layout::of(&[layer("a"), layer("b")], plain);
    let image = open(&layout, None).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.layers[1].diff_id, Digest::of(&layer("b")));
}

#[test]
fn tag_selects_and_latest_is_the_default() {
    let layout = Layout::new();
    let images = ["one", "two"].map(|name| layout.image(&[layer(name)], plain, json!({})));
    layout.index(&[tagged(images[0].clone(), "one"), tagged(images[1].clone(), "two")]);
    assert_eq!(open(&layout, Some("two")).unwrap().digest.to_string(), images[1]["digest"].as_str().unwrap());
    assert_eq!(message(&layout, Some("three")), "no image tagged `three` (there is: one, two)");
    assert_eq!(message(&layout, None), "several images and no tag given (there is: one, two)");
    layout.index(&[tagged(images[0].clone(), "one"), tagged(images[1].clone(), "latest")]);
    assert_eq!(open(&layout, None).unwrap().digest.to_string(), images[1]["digest"].as_str().unwrap());
    layout.index(&[tagged(images[0].clone(), "one"), tagged(images[0].clone(), "uno")]);
    assert!(open(&layout, None).is_ok(), "one image under two tags");
    layout.index(&[]);
    assert!(message(&layout, None).ends_with("holds no image"));
}

#[test]
fn nested_index_is_searched_for_the_platform() {
    let layout = Layout::new();
    let other = layout.image(&[layer("arm")], plain, json!({"architecture": "arm64"}));
    let ours = layout.image(&[layer("amd")], plain, json!({}));
    let with = |mut image: Value, os: &str, architecture: &str| {
        image["platform"] = json!({"os": os, "architecture": architecture});
        image
    };
    let images = [
        with(other.clone(), "unknown", "unknown"),
        with(other.clone(), "linux", "arm64"),
        with(ours.clone(), "linux", "amd64"),
    ];
    let inner = layout.document(&json!({"manifests": images}));
    layout.index(&[tagged(layout.document(&json!({"manifests": [inner]})), "multi")]);
    assert_eq!(open(&layout, Some("multi")).unwrap().digest.to_string(), ours["digest"].as_str().unwrap());
    layout.index(&[with(other.clone(), "linux", "arm64")]);
    assert_eq!(message(&layout, None), "no image for linux/amd64 (there is: linux/arm64)");
    layout.index(&[other]);
    assert_eq!(message(&layout, None), "no image for linux/amd64 (there is: linux/arm64)", "from the configuration");
}

#[test]
fn index_nesting_is_bounded() {
    let layout = Layout::new();
    let mut inner = layout.image(&[], plain, json!({}));
    for _ in 0..4 {
        inner = layout.document(&json!({"manifests": [inner]}));
    }
    layout.index(&[inner.clone()]);
    assert!(open(&layout, None).is_ok());
    layout.index(&[layout.document(&json!({"manifests": [inner]}))]);
    assert!(matches!(open(&layout, None), Err(ImageError::IndexTooDeep)));
    let many: Vec<Value> = (0..300).map(|n| layout.document(&json!({"manifests": [], "n": n}))).collect();
    layout.index(&many);
    assert!(matches!(open(&layout, None), Err(ImageError::IndexTooDeep)));
}

#[test]
fn changed_or_truncated_document_is_detected() {
    for (part, cut) in [("manifest", false), ("config", false), ("manifest", true), ("config", true)] {
        let layout = Layout::new();
        let image = layout.image(&[layer("a")], plain, json!({}));
        layout.index(std::slice::from_ref(&image));
        let manifest_path = layout.blob_path(image["digest"].as_str().unwrap());
        let manifest: Value = serde_json::from_slice(&std::fs::read(&manifest_path).unwrap()).unwrap();
        let digest = if part == "manifest" { &image["digest"] } else { &manifest["config"]["digest"] };
        let path = layout.blob_path(digest.as_str().unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        if cut {
            bytes.truncate(10)
        } else {
            bytes[5] ^= 1
        }
        std::fs::write(&path, bytes).unwrap();
        let message = message(&layout, None);
        assert!(message.contains(digest.as_str().unwrap()), "{message}");
        assert!(message.contains(if cut { "its descriptor says" } else { "damaged" }), "{message}");
    }
}

#[test]
fn invalid_digest_never_becomes_a_path() {
    for digest in ["sha256:../../x", "sha256:", "../../etc/passwd", "md5:00", ""] {
        let layout = Layout::new();
        layout.index(&[json!({"digest": digest, "size": 1})]);
        assert!(matches!(open(&layout, None), Err(ImageError::Digest(_))), "{digest}");
        let config = layout.document(&json!({"rootfs": {"diff_ids": [digest]}}));
        let layers = [layout.blob(b"x")];
        layout.index(&[layout.document(&json!({"config": config, "layers": layers}))]);
        assert!(matches!(open(&layout, None), Err(ImageError::Digest(_))), "diff id {digest}");
    }
}

#[test]
fn documents_of_the_wrong_type_are_rejected() {
    let layout = Layout::new();
    let config = layout.document(&json!({"rootfs": {"type": "layers", "diff_ids": []}}));
    let cases = [
        (json!({"manifests": [], "layers": []}), "ambiguous"),
        (json!({"schemaVersion": 1, "fsLayers": []}), "schema version 1"),
        (json!({"config": config}), "neither an image index nor an image manifest"),
        (json!({"layers": []}), "neither"),
        (json!([1, 2]), "malformed"),
        (json!({"config": layout.document(&json!({})), "layers": []}), "lists no diff ids"),
        (json!({"config": layout.document(&json!({"rootfs": {}})), "layers": []}), "lists no diff ids"),
        (json!({"config": config, "layers": [layout.blob(b"x")]}), "1 layers and the configuration 0 diff ids"),
        (json!({"config": config, "layers": vec![layout.blob(b"x"); 1001]}), "lists 1001 layers"),
        (
            json!({"config": {"digest": format!("sha256:{}", "0".repeat(64)), "size": 3}, "layers": []}),
            "has no blobs/sha256/000",
        ),
    ];
    for (document, expected) in cases {
        layout.index(&[layout.document(&document)]);
        let message = message(&layout, None);
        assert!(message.contains(expected) && !message.contains('\n'), "{expected}: {message}");
    }
    std::fs::write(layout.path().join("index.json"), b"{\"manifests\": [] } trailing").unwrap();
    assert!(message(&layout, None).contains("index.json is malformed"));
    std::fs::write(layout.path().join("index.json"), "[".repeat(100_000)).unwrap();
    assert!(message(&layout, None).contains("malformed"));
    std::fs::write(layout.path().join("index.json"), vec![b' '; 5 << 20]).unwrap();
    assert!(message(&layout, None).contains("too large"));
}

#[test]
fn fifo_is_rejected_without_blocking() {
    let layout = Layout::new();
    std::fs::remove_file(layout.path().join("index.json")).unwrap();
    assert!(message(&layout, None).contains("has no index.json"));
    let path = layout.path().join("index.json");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(message(&layout, None).contains("is not a regular file"));
}

fn docker(members: impl IntoIterator<Item = Member>, tag: Option<&str>) -> Result<Image, ImageError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    std::fs::write(&path, Archive::of(members).bytes()).unwrap();
    Image::open(&ImageReference::DockerArchive { path, tag: tag.map(Into::into) }, &Platform::default())
}

#[test]
fn old_docker_archive_with_linked_layers_is_read() {
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"diff_ids": [Digest::of(&layer("a")).to_string(), Digest::of(&layer("a")).to_string()]}});
    let name = format!("{}.json", Digest::of(config.to_string().as_bytes()).hex());
    let manifest = json!([{"Config": name,
        "RepoTags": ["busybox:1.36", "reg.example:5000/x/busybox:old"],
        "Layers": ["one/layer.tar", "two/layer.tar"]}]);
    let members = [
        Member::file("one/layer.tar", layer("a")),
        Member::symlink("two/layer.tar", "../one/layer.tar"),
        Member::file(&name, config.to_string()),
        Member::file("manifest.json", manifest.to_string()),
    ];
    for tag in [None, Some("1.36"), Some("busybox:1.36"), Some("docker.io/library/busybox:1.36"), Some("old")] {
        let image = docker(members.clone(), tag).unwrap();
        assert_eq!(image.config.cmd, ["sh"]);
        assert_eq!(image.digest, Digest::of(config.to_string().as_bytes()));
        assert_eq!(image.open_layer(&image.layers[1]).unwrap().length, layer("a").len() as u64);
    }
    let message = docker(members.clone(), Some("2")).err().unwrap().to_string();
    assert!(message.contains("there is: busybox:1.36, reg.example"), "{message}");
    let mut changed = members.to_vec();
    changed[2].data[3] ^= 1;
    assert!(matches!(
        docker(changed, None),
        Err(ImageError::Source(SourceError::Digest { .. }) | ImageError::Json { .. })
    ));
}

#[test]
fn docker_archive_members_never_leave_the_archive() {
    let config = json!({"rootfs": {"diff_ids": [Digest::of(b"").to_string()]}}).to_string();
    for target in ["/etc/passwd", "../../../../etc/passwd", "l"] {
        let manifest = json!([{"Config": "config.json", "Layers": ["l"]}]).to_string();
        let members = [
            Member::symlink("l", target),
            Member::file("config.json", &config),
            Member::file("manifest.json", manifest),
        ];
        let image = docker(members, None).unwrap();
        assert!(matches!(image.open_layer(&image.layers[0]), Err(SourceError::Missing { .. })), "{target}");
    }
    let manifest = json!([{"Config": "/etc/passwd", "Layers": []}]).to_string();
    assert!(matches!(
        docker([Member::file("manifest.json", manifest)], None),
        Err(ImageError::Source(SourceError::Missing { .. }))
    ));
    assert!(matches!(docker([Member::file("manifest.json", "[]")], None), Err(ImageError::Empty(_))));
    assert!(matches!(docker([], None), Err(ImageError::Source(SourceError::Missing { .. }))));
}

#[test]
fn missing_layout_and_file_have_their_own_errors() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let path = directory.path().join(name);
        Image::open(&ImageReference::OciLayout { path, tag: None }, &Platform::default()).err().unwrap().to_string()
    };
    std::fs::write(directory.path().join("file"), "").unwrap();
    assert!(open("none").starts_with("cannot open"));
    assert!(open("file").contains("is not a directory"));
    assert!(open("").ends_with("has no index.json"));
}

#[test]
fn compressed_or_truncated_archive_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    let open = || Image::open(&ImageReference::OciArchive { path: path.clone(), tag: None }, &Platform::default());
    std::fs::write(&path, crate::testing::gzip(&layer("a"))).unwrap();
    assert!(open().err().unwrap().to_string().contains("compressed with gzip; decompress it first"));
    std::fs::write(&path, &Archive::of([Member::file("index.json", vec![b' '; 9000])]).bytes()[..4000]).unwrap();
    assert!(matches!(open(), Err(ImageError::Source(SourceError::Archive { .. }))));
    std::fs::write(&path, "not a tar, and long enough ".repeat(100)).unwrap();
    assert!(matches!(open(), Err(ImageError::Source(SourceError::Archive { .. }))));
}

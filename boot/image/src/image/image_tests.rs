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
    open_reference(&reference)
}

fn open_reference(reference: &ImageReference) -> Result<Image, ImageError> {
    Image::open(reference, &Platform::default(), &std::env::temp_dir(), &Budget::default())
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
        (json!({"config": config, "artifactType": "application/x", "layers": []}), "lists no diff ids"),
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
    open_reference(&ImageReference::DockerArchive { path, tag: tag.map(Into::into) })
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
        open_reference(&ImageReference::OciLayout { path, tag: None }).err().unwrap().to_string()
    };
    std::fs::write(directory.path().join("file"), "").unwrap();
    assert!(open("none").starts_with("cannot open"));
    assert!(open("file").contains("is not a directory"));
    assert!(open("").ends_with("has no index.json"));
}

#[test]
fn archive_that_cannot_be_unpacked_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    let open = || open_reference(&ImageReference::OciArchive { path: path.clone(), tag: None });
    std::fs::write(&path, b"BZh91AY").unwrap();
    let error = open().err().unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "unknown compression (bzip2 is not supported)");
    std::fs::write(&path, &crate::testing::gzip(&layer("a"))[..40]).unwrap();
    assert!(matches!(open(), Err(ImageError::Source(SourceError::Unpack { .. }))));
    let bomb = crate::testing::gzip_best(&vec![0; 3 << 20]);
    std::fs::write(&path, bomb).unwrap();
    let error = open().err().unwrap();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "unpacks to more than 200 times its size");
    std::fs::write(&path, &Archive::of([Member::file("index.json", vec![b' '; 9000])]).bytes()[..4000]).unwrap();
    assert!(matches!(open(), Err(ImageError::Source(SourceError::Archive { .. }))));
    std::fs::write(&path, "not a tar, and long enough ".repeat(100)).unwrap();
    assert!(matches!(open(), Err(ImageError::Source(SourceError::Archive { .. }))));
}

fn named(mut descriptor: Value, full: &str, tag: &str) -> Value {
    descriptor["annotations"] = json!({
        "io.containerd.image.name": full, "org.opencontainers.image.ref.name": tag,
    });
    descriptor
}

#[test]
fn images_that_share_a_tag_are_told_apart_by_their_names() {
    let layout = Layout::new();
    let images = ["a", "b"].map(|name| layout.image(&[layer(name)], plain, json!({})));
    let [a, b] = ["a", "b"].map(|name| format!("docker.io/library/{name}:latest"));
    layout.index(&[named(images[0].clone(), &a, "latest"), named(images[1].clone(), &b, "latest")]);
    let digest = |tag: &str| open(&layout, Some(tag)).map(|image| image.digest.to_string());
    for (wanted, index) in [("a", 0), ("a:latest", 0), ("b", 1), ("docker.io/library/b:latest", 1), ("library/b", 1)] {
        assert_eq!(digest(wanted).unwrap(), images[index]["digest"].as_str().unwrap(), "{wanted}");
    }
    let by_digest = format!("b@{}", images[1]["digest"].as_str().unwrap());
    assert_eq!(digest(&by_digest).unwrap(), images[1]["digest"].as_str().unwrap());
    assert_eq!(message(&layout, None), format!("several images and no tag given (there is: {a}, {b})"));
    assert_eq!(message(&layout, Some("latest")), format!("several images are named `latest`: {a}, {b}"));
    assert_eq!(message(&layout, Some("c")), format!("no image tagged `c` (there is: {a}, {b})"));
    layout.index(&images);
    let digests = |digit: usize| images[digit]["digest"].as_str().unwrap();
    let message = message(&layout, None);
    assert!(message.contains(digests(0)) && message.contains(digests(1)), "{message}");
}

#[test]
fn artifacts_beside_an_image_are_passed_over() {
    let layout = Layout::new();
    let image = layout.image(&[layer("a")], plain, json!({}));
    let config = layout.document(&json!({}));
    let of_type = |mut descriptor: Value, key: &str, value: Value| {
        descriptor[key] = value;
        descriptor
    };
    let signature_layer = of_type(layout.blob(b"{}"), "mediaType", json!("application/vnd.in-toto+json"));
    let image_config = layout.document(&json!({"rootfs": {"diff_ids": [Digest::of(b"{}").to_string()]}}));
    let artifacts = [
        layout.document(&json!({"artifactType": "application/x", "config": config, "layers": []})),
        layout.document(&json!({"config": config, "layers": [layout.blob(b"chart")]})),
        layout.document(&json!({"config": image_config, "layers": [signature_layer]})),
        layout.document(&json!({"spdxVersion": "2.3"})),
        layout.blob(b"not JSON"),
        of_type(layout.document(&json!({"manifests": []})), "artifactType", json!("application/x")),
        of_type(image.clone(), "platform", json!({"os": "unknown", "architecture": "unknown"})),
        of_type(image.clone(), "annotations", json!({"vnd.docker.reference.type": "attestation-manifest"})),
        json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 3}),
    ];
    for artifact in artifacts {
        for list in [[&artifact, &image], [&image, &artifact]] {
            let inner = layout.document(&json!({"manifests": list}));
            layout.index(&[inner]);
            let found = open(&layout, None).unwrap();
            assert_eq!(found.digest.to_string(), image["digest"].as_str().unwrap(), "{artifact}");
        }
    }
}

#[test]
fn best_variant_of_the_processor_is_chosen() {
    let layout = Layout::new();
    let with = |name: &str, variant: &str| {
        let mut image = layout.image(&[layer(name)], plain, json!({}));
        image["platform"] = json!({"os": "linux", "architecture": "amd64", "variant": variant});
        image
    };
    let images = [with("one", "v1"), with("three", "v3"), with("two", "v2")];
    let found = |images: &[Value], platform: &str| {
        layout.index(&[layout.document(&json!({"manifests": images}))]);
        let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
        let platform = platform.parse().unwrap();
        Image::open(&reference, &platform, &std::env::temp_dir(), &Budget::default())
            .map(|image| image.digest.to_string())
    };
    for (platform, index) in
        [("linux/amd64/v1", 0), ("linux/amd64/v2", 2), ("linux/amd64/v3", 1), ("linux/amd64/v4", 1)]
    {
        assert_eq!(found(&images, platform).unwrap(), images[index]["digest"].as_str().unwrap(), "{platform}");
    }
    let only = &images[1..2];
    assert_eq!(found(only, "linux/amd64/v3").unwrap(), images[1]["digest"].as_str().unwrap());
    let message = found(only, "linux/amd64/v2").unwrap_err().to_string();
    assert_eq!(message, "no image for linux/amd64 (there is: linux/amd64/v3)");
}

/// An archive as docker 25 writes it: an OCI layout with `manifest.json`.
fn docker25(index: &Value, tags: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let layout = Layout::new();
    let mut members = vec![Member::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)];
    let mut images = Vec::new();
    let mut manifests = Vec::new();
    for (name, tag) in tags {
        let descriptor = layout.image(&[layer(name)], plain, json!({}));
        let bytes = std::fs::read(layout.blob_path(descriptor["digest"].as_str().unwrap())).unwrap();
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        let path = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        for blob in [&descriptor, &manifest["config"], &manifest["layers"][0]] {
            let content = std::fs::read(layout.blob_path(blob["digest"].as_str().unwrap())).unwrap();
            members.push(Member::file(path(&blob["digest"]), content));
        }
        images.push(json!({"Config": path(&manifest["config"]["digest"]), "RepoTags": [tag],
            "Layers": [path(&manifest["layers"][0]["digest"])]}));
        let short = tag.rsplit(':').next().unwrap();
        manifests.push(named(descriptor, &format!("docker.io/library/{tag}"), short));
    }
    let index = match index {
        Value::Null => json!({"schemaVersion": 2, "manifests": null}),
        Value::Number(count) => json!({"manifests": &manifests[..count.as_u64().unwrap() as usize]}),
        other => other.clone(),
    };
    members.push(Member::file("index.json", index.to_string()));
    members.push(Member::file("manifest.json", json!(images).to_string()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("two.tar");
    std::fs::write(&path, Archive::of(members).bytes()).unwrap();
    (directory, path)
}

#[test]
fn index_that_lists_less_than_the_archive_is_not_used() {
    let both = [("a", "a:latest"), ("b", "b:latest")];
    let diff_id = |name: &str| Digest::of(&layer(name));
    for index in [json!(2), json!(1), json!(0), Value::Null, json!({"no": "index"})] {
        let (_directory, path) = docker25(&index, &both);
        let open = |tag: Option<&str>| {
            open_reference(&ImageReference::OciArchive { path: path.clone(), tag: tag.map(Into::into) })
        };
        for (wanted, name) in [("a", "a"), ("b", "b"), ("b:latest", "b"), ("docker.io/library/b", "b")] {
            assert_eq!(open(Some(wanted)).unwrap().layers[0].diff_id, diff_id(name), "{index}: {wanted}");
        }
        let message = open(Some("latest")).err().unwrap().to_string();
        assert!(message.contains("a:latest") && message.contains("b:latest"), "{index}: {message}");
        let message = open(None).err().unwrap().to_string();
        assert!(message.contains("a:latest") && message.contains("b:latest"), "{index}: {message}");
    }
}

#[test]
fn compressed_archive_is_read() {
    let (_directory, path) = docker25(&json!(1), &[("a", "a:latest")]);
    let plain = std::fs::read(&path).unwrap();
    for compressed in [crate::testing::gzip(&plain), crate::testing::zstd(&plain)] {
        std::fs::write(&path, compressed).unwrap();
        for reference in [
            ImageReference::OciArchive { path: path.clone(), tag: None },
            ImageReference::DockerArchive { path: path.clone(), tag: Some("a".into()) },
        ] {
            let image = open_reference(&reference).unwrap();
            assert_eq!(image.open_layer(&image.layers[0]).unwrap().length, layer("a").len() as u64);
        }
    }
}

#[test]
fn memory_for_members_and_descriptors_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    let long = "n".repeat(4000);
    let members = (0..4000).map(|number| Member::file(format!("{number}{long}"), ""));
    std::fs::write(&path, Archive::of(members).bytes()).unwrap();
    let error = open_reference(&ImageReference::OciArchive { path, tag: None }).err().unwrap();
    assert_eq!(error.to_string(), OverBudget.to_string());
    let layout = Layout::new();
    let digest = Digest::of(b"").to_string();
    layout.index(&vec![json!({"digest": digest, "size": 0}); 20_001]);
    assert!(message(&layout, None).contains("index.json is malformed"));
    let big = json!({"config": {"Env": vec![""; 500_000]}});
    layout.index(&[layout.image(&[], plain, big)]);
    assert_eq!(message(&layout, None), OverBudget.to_string());
}

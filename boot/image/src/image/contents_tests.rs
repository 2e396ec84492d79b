// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::testing::{Archive, Layout, Member, gzip};

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// An archive of the files of a layout, with `more` members.
fn archive_of(layout: &Layout, more: Vec<Member>) -> Vec<u8> {
    let mut members = more;
    for file in ["oci-layout", "index.json"] {
        members.push(Member::file(file, std::fs::read(layout.path().join(file)).unwrap()));
    }
    for entry in std::fs::read_dir(layout.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let place = format!("blobs/sha256/{}", path.file_name().unwrap().to_str().unwrap());
        members.push(Member::file(place, std::fs::read(path).unwrap()));
    }
    Archive::of(members).bytes()
}

fn contents(archive: &[u8]) -> Result<Contents, ImageError> {
    let scratch = tempfile::tempdir().unwrap();
    Contents::read(archive, Path::new("standard input"), scratch.path())
}

/// Reads every blob of every image, and checks their digests.
fn assert_complete(contents: &Contents) {
    for blob in contents.images().iter().flat_map(|image| &image.blobs) {
        let mut bytes = Vec::new();
        contents.blob(blob, 0).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (blob.digest.clone(), blob.size));
        let mut rest = Vec::new();
        contents.blob(blob, 3).unwrap().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, bytes[3..]);
    }
}

#[test]
fn archive_of_docker_25_has_complete_names() {
    let layout = Layout::new();
    let mut entries = Vec::new();
    for which in ["a", "b"] {
        let layer = Archive::of([Member::file("which", which)]).bytes();
        let mut entry = layout.image(&[layer], gzip, json!({}));
        let full = format!("docker.io/library/{which}:latest");
        entry["annotations"] = json!({"io.containerd.image.name": full, "org.opencontainers.image.ref.name": "latest"});
        entries.push(entry);
    }
    entries.push(json!({"digest": Digest::of(b"gone").to_string(), "size": 4, "artifactType": "x/y"}));
    layout.index(&entries);
    for packed in [archive_of(&layout, vec![]), gzip(&archive_of(&layout, vec![]))] {
        let contents = contents(&packed).unwrap();
        let names: Vec<_> = contents.images().iter().map(|image| image.names.clone()).collect();
        assert_eq!(names, [[name("a")], [name("b")]]);
        assert_complete(&contents);
    }
    let scratch = tempfile::tempdir().unwrap();
    assert_eq!(Contents::open(layout.path(), scratch.path()).unwrap().images().len(), 2);
}

#[test]
fn archive_of_old_docker_gets_manifests() {
    let layers = [Archive::of([Member::file("x", "1")]).bytes(), Archive::of([Member::file("y", "2")]).bytes()];
    let ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let image =
        |tags: Value| json!({"Config": config_name, "RepoTags": tags, "Layers": ["one/layer.tar", "two/layer.tar"]});
    let manifest = json!([image(json!(["app:1", "reg.example/app:2"])), image(Value::Null)]).to_string();
    let archive = |second: &[u8]| {
        Archive::of([
            Member::file(&config_name, &config),
            Member::file("one/layer.tar", &layers[0]),
            Member::file("shared.tar", second),
            Member::symlink("two/layer.tar", "../shared.tar"),
            Member::file("manifest.json", &manifest),
        ])
        .bytes()
    };
    for second in [layers[1].clone(), gzip(&layers[1])] {
        let contents = contents(&archive(&second)).unwrap();
        let [image] = contents.images() else { panic!("it is one image") };
        assert_eq!(image.names, [name("app:1"), name("reg.example/app:2")]);
        assert_complete(&contents);
        let mut bytes = Vec::new();
        contents.blob(&image.image, 0).unwrap().read_to_end(&mut bytes).unwrap();
        let Ok(References::Blobs(blobs)) = references(&bytes, "m", None) else { panic!("it is a manifest") };
        assert_eq!(blobs, image.blobs[..3]);
    }
    let unknown = contents(&archive(b"BZh91AY")).err().unwrap().to_string();
    assert!(unknown.contains("two/layer.tar"), "{unknown}");
}

#[test]
fn images_of_an_index_for_other_platforms_may_be_missing() {
    let layout = Layout::new();
    let here = layout.image(&[Archive::of([Member::file("x", "1")]).bytes()], gzip, json!({}));
    let elsewhere = json!({"digest": Digest::of(b"elsewhere").to_string(), "size": 9});
    let index = layout.document(&json!({"manifests": [elsewhere, here]}));
    let tag_alone = json!({"org.opencontainers.image.ref.name": "1.36"});
    let mut entry = index.clone();
    entry["annotations"] = tag_alone;
    layout.index(&[entry.clone()]);
    let found = contents(&archive_of(&layout, vec![])).unwrap();
    assert_eq!((found.images()[0].names.len(), found.images()[0].blobs.len()), (0, 4));
    assert_complete(&found);

    let nothing = layout.document(&json!({"manifests": [elsewhere]}));
    layout.index(&[nothing]);
    assert!(contents(&archive_of(&layout, vec![])).err().unwrap().to_string().contains("has no blobs/sha256/"));
    layout.index(&[]);
    assert!(matches!(contents(&archive_of(&layout, vec![])), Err(ImageError::Empty(_))));
}

#[test]
fn manifest_without_a_layer_is_rejected() {
    let layout = Layout::of(&[Archive::of([Member::file("x", "1")]).bytes()], gzip);
    let bytes = gzip(&Archive::of([Member::file("x", "1")]).bytes());
    std::fs::remove_file(layout.blob_path(&Digest::of(&bytes).to_string())).unwrap();
    assert!(contents(&archive_of(&layout, vec![])).err().unwrap().to_string().contains("has no blobs/sha256/"));
}

#[test]
fn documents_of_an_archive_are_bounded() {
    let mut left = Bounds { documents: 2, bytes: 100 };
    left.charge(60).unwrap();
    assert!(matches!(left.charge(41), Err(ImageError::IndexTooDeep)));
    left.charge(40).unwrap();
    assert!(matches!(left.charge(0), Err(ImageError::IndexTooDeep)));
}

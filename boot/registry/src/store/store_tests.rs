// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The store: names, partial blobs, removal, concurrent users.

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("images"));
    store.create().unwrap();
    (directory, store)
}

fn put(store: &Store, bytes: &[u8]) -> Reference {
    let digest = Digest::of(bytes);
    store.put_document(&digest, bytes).unwrap();
    Reference { digest, size: bytes.len() as u64 }
}

fn image(store: &Store, layer: &[u8]) -> (Reference, Reference) {
    let descriptor = |blob: &Reference| format!(r#"{{"digest":"{}","size":{}}}"#, blob.digest, blob.size);
    let layer = put(store, layer);
    let config = put(store, b"{}");
    let manifest = format!(r#"{{"config":{},"layers":[{}]}}"#, descriptor(&config), descriptor(&layer));
    (put(store, manifest.as_bytes()), layer)
}

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

#[test]
fn missing_store_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("none"));
    assert_eq!(store.images().unwrap(), []);
    assert_eq!(store.collect().unwrap(), Some(Freed::default()));
    assert!(!store.remove_name("docker.io/library/a:latest").unwrap());
    assert!(!store.directory().exists());
}

#[test]
fn name_is_moved_and_removed() {
    let (_directory, store) = store();
    let (one, two) = (image(&store, b"1").0, image(&store, b"2").0);
    store.set_name(&name("a"), &one, "").unwrap();
    store.set_name(&name("b"), &one, "").unwrap();
    store.set_name(&name("a"), &two, "type").unwrap();
    let found = store.find(&name("docker.io/library/a")).unwrap().unwrap();
    assert_eq!((found.reference, found.media_type.as_str()), (two, "type"));
    assert_eq!(store.find(&name("b")).unwrap().unwrap().reference, one);
    assert!(store.remove_name("docker.io/library/b:latest").unwrap());
    assert!(!store.remove_name("docker.io/library/b:latest").unwrap());
    assert_eq!(store.images().unwrap().len(), 1);
}

#[test]
fn fields_of_other_tools_are_kept() {
    let (_directory, store) = store();
    let digest = Digest::of(b"x");
    let index = format!(
        r#"{{"schemaVersion":2,"x":1,"manifests":[{{"digest":"{digest}","size":1,"platform":{{"os":"linux"}}}},{{"digest":"bad"}}]}}"#
    );
    fs::write(store.directory().join("index.json"), index).unwrap();
    store.set_name(&name("a"), &image(&store, b"1").0, "").unwrap();
    let text = fs::read_to_string(store.directory().join("index.json")).unwrap();
    assert!(
        text.contains(r#""x":1"#) && text.contains(r#""platform":{"os":"linux"}"#) && text.contains("bad"),
        "{text}"
    );
    let names: Vec<String> = store.images().unwrap().into_iter().map(|image| image.name).collect();
    assert_eq!(names, [format!("@{digest}"), "docker.io/library/a:latest".to_owned()]);
    fs::write(store.directory().join("index.json"), "{").unwrap();
    assert!(matches!(store.images(), Err(StoreError::Index { .. })));
    fs::write(store.directory().join("index.json"), vec![b' '; 5 << 20]).unwrap();
    assert!(matches!(store.images(), Err(StoreError::IndexTooLarge { .. })));
}

#[test]
fn unreferenced_blobs_are_removed() {
    let (_directory, store) = store();
    let (one, one_layer) = image(&store, b"first layer");
    let (two, two_layer) = image(&store, b"second layer");
    let (three, three_layer) = image(&store, b"third layer");
    let index = format!(r#"{{"manifests":[{{"digest":"{}","size":{}}}]}}"#, two.digest, two.size);
    store.set_name(&name("a"), &one, "").unwrap();
    store.set_name(&name("b"), &put(&store, index.as_bytes()), "").unwrap();
    fs::write(store.directory().join(partial::DIRECTORY).join("sha256-00"), b"12345").unwrap();
    let freed = store.collect().unwrap().unwrap();
    assert_eq!(freed, Freed { blobs: 2, bytes: 5 + three.size + three_layer.size });
    assert!(store.has(&one) && store.has(&one_layer) && store.has(&two) && store.has(&two_layer));
    assert!(!store.has(&three) && !store.has(&three_layer));
    store.remove_name("docker.io/library/b:latest").unwrap();
    let in_use = store.in_use().unwrap();
    assert_eq!(store.collect().unwrap(), None, "the store is in use");
    drop(in_use);
    store.collect().unwrap().unwrap();
    assert!(store.has(&one_layer) && !store.has(&two_layer));
}

#[test]
fn partial_blob_is_continued_by_the_next_process() {
    let (_directory, store) = store();
    let bytes = b"some bytes of a blob";
    let blob = Reference { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let claim = || match store.claim(&blob).unwrap() {
        Claim::Held(partial) => partial,
        Claim::Complete => panic!("it is not complete"),
    };
    let mut partial = claim();
    partial.append(&bytes[..7]).unwrap();
    drop(partial);
    let mut partial = claim();
    assert_eq!(partial.length(), 7);
    partial.append(&bytes[7..]).unwrap();
    assert_eq!(partial.publish().unwrap(), Ok(()));
    assert!(matches!(store.claim(&blob).unwrap(), Claim::Complete));
    assert_eq!(fs::read(store.blob_path(&blob.digest)).unwrap(), bytes);

    let other = Reference { digest: Digest::of(b"other"), size: 5 };
    let Claim::Held(mut partial) = store.claim(&other).unwrap() else { panic!("it is missing") };
    partial.append(b"wrong").unwrap();
    assert_eq!(partial.publish().unwrap(), Err(Digest::of(b"wrong")));
    let Claim::Held(partial) = store.claim(&other).unwrap() else { panic!("it is missing") };
    assert_eq!(partial.length(), 0, "nothing of a wrong blob is kept");
}

#[test]
fn blob_is_written_by_one_process_at_a_time() {
    let (_directory, store) = store();
    let blob = Reference { digest: Digest::of(b"blob"), size: 4 };
    let written = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                if let Claim::Held(mut partial) = store.claim(&blob).unwrap() {
                    written.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    partial.append(b"blob").unwrap();
                    partial.publish().unwrap().unwrap();
                }
            });
        }
    });
    assert_eq!(written.into_inner(), 1);
}

#[test]
fn image_of_a_running_machine_stays() {
    let (_directory, store) = store();
    let (one, layer) = image(&store, b"layer one");
    let (two, _) = image(&store, b"layer two");
    store.keep(&one, "").unwrap();
    store.keep(&one, "").unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
    assert_eq!(store.images().unwrap()[0].name, format!("@{}", one.digest));
    let machine = store.image_in_use(&one).unwrap();
    assert!(store.is_in_use(&one) && !store.is_in_use(&two));
    assert!(store.remove_name(&format!("@{}", one.digest)).unwrap());
    assert_eq!(store.collect().unwrap().unwrap().blobs, 2, "only the other image is removed");
    assert!(store.has(&one) && store.has(&layer) && !store.has(&two));
    drop(machine);
    assert_eq!(store.collect().unwrap().unwrap().blobs, 3);
}

#[test]
fn usage_tells_shared_blobs_from_own_ones() {
    let (_directory, store) = store();
    let (one, _) = image(&store, b"layer");
    let (two, layer) = image(&store, b"layer of two");
    for (text, image) in [("a", &one), ("b", &one), ("c", &two)] {
        store.set_name(&name(text), image, "").unwrap();
    }
    let usage = store.usage().unwrap();
    assert_eq!(usage[&one.digest], Usage { shared: 2, own: one.size + 5 });
    assert_eq!(usage[&two.digest], Usage { shared: 2, own: two.size + layer.size });
}

#[test]
fn check_finds_what_is_wrong_and_nothing_else() {
    let (_directory, store) = store();
    let (one, layer) = image(&store, b"layer one");
    let problems = || {
        let checked = store.check(&|done, total| assert!(done <= total)).unwrap();
        checked
            .problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.subject, problem.detail))
            .collect::<Vec<_>>()
    };
    store.set_name(&name("a"), &one, "").unwrap();
    let elsewhere = format!(r#"{{"digest":"{}","size":9}}"#, Digest::of(b"elsewhere"));
    let index = format!(r#"{{"manifests":[{elsewhere},{{"digest":"{}","size":{}}}]}}"#, one.digest, one.size);
    store.set_name(&name("b"), &put(&store, index.as_bytes()), "").unwrap();
    put(&store, b"no name leads here");
    let sound = store.check(&|_, _| {}).unwrap();
    assert_eq!((sound.names, sound.blobs, sound.unreferenced, sound.unreferenced_bytes), (2, 5, 1, 18));
    assert_eq!(sound.problems, []);

    let path = store.blob_path(&layer.digest);
    fs::write(&path, b"layer two").unwrap();
    let damaged = problems();
    assert_eq!(damaged.len(), 3, "{damaged:?}");
    assert!(damaged.iter().any(|line| line.starts_with(&format!("{}: is damaged", layer.digest))), "{damaged:?}");
    fs::write(&path, b"layer").unwrap();
    assert!(problems().iter().any(|line| line.ends_with("has 5 bytes in place of 9")), "{:?}", problems());
    fs::remove_file(&path).unwrap();
    let missing = problems();
    let expected = ["a", "b"].map(|name| format!("docker.io/library/{name}:latest: {} is missing", layer.digest));
    assert_eq!(missing, expected);
    put(&store, b"layer one");
    assert_eq!(problems(), [""; 0]);

    let stray = store.directory().join("blobs/sha256/notes.txt");
    fs::write(&stray, "").unwrap();
    assert_eq!(problems(), ["blobs/sha256/notes.txt: is not named by a digest"]);
    fs::remove_file(stray).unwrap();
    fs::remove_file(store.directory().join("oci-layout")).unwrap();
    assert_eq!(problems(), ["oci-layout: is missing or malformed"]);
    store.create().unwrap();
    fs::write(store.directory().join("index.json"), "{").unwrap();
    assert!(problems()[0].starts_with("index.json: "), "{:?}", problems());
    let twice = format!(
        r#"{{"manifests":[{{"digest":"{0}","size":{1},"annotations":{{"org.opencontainers.image.ref.name":"x"}}}},
            {{"digest":"{0}","size":{1},"annotations":{{"org.opencontainers.image.ref.name":"x"}}}},{{"digest":"?"}}]}}"#,
        one.digest, one.size
    );
    fs::write(store.directory().join("index.json"), twice).unwrap();
    assert_eq!(problems(), ["index.json: entry 3 has no valid digest and size", "x: stands for several images"]);
}

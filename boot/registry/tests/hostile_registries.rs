// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pulls from registries that break connections, redirect, lie about digests and sizes, or want
//! credentials.

mod server;
mod uploads;

use oci_image::{Digest, ImageName, Platform};
use registry::{Credentials, Pull, PullError, Pulled, Registries, Store, pull};
use server::{Answer, Received, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An image of one layer.
#[derive(Clone)]
struct Image {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Image {
    fn new() -> Self {
        let layer: Vec<u8> =
            (0..300_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 8).to_le_bytes()).collect();
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
        let descriptor = |bytes: &[u8]| format!(r#"{{"digest":"{}","size":{}}}"#, Digest::of(bytes), bytes.len());
        let manifest = format!(r#"{{"config":{},"layers":[{}]}}"#, descriptor(&config), descriptor(&layer));
        Self { manifest: manifest.into_bytes(), config, layer }
    }

    /// What a registry without faults answers.
    fn answer(&self, request: &Received) -> Answer {
        let path = request.path.as_str();
        let blobs = [&self.config, &self.layer].map(|blob| (format!("/v2/x/y/blobs/{}", Digest::of(blob)), blob));
        match blobs.iter().find(|(of_blob, _)| of_blob == path) {
            Some((_, blob)) => Answer::part(blob, request),
            None if path == "/v2/x/y/manifests/latest" => Answer::new(200, self.manifest.clone())
                .header("content-type", "application/vnd.oci.image.manifest.v1+json"),
            None => Answer::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}"#),
        }
    }

    fn is_layer(&self, request: &Received) -> bool {
        request.path.ends_with(&Digest::of(&self.layer).to_string())
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("images"));
    (directory, store)
}

fn pull_from(server: &Server, store: &Store, credentials: &Credentials) -> Result<Pulled, PullError> {
    let name = ImageName::parse(&format!("{}/x/y", server.authority())).unwrap();
    let platform = Platform::default();
    pull(&Pull {
        name: &name,
        store,
        platform: &platform,
        credentials,
        registries: &Registries::default(),
        verify: true,
        cache: None,
        progress: None,
    })
}

/// Pulls into a new store, and returns the error and its causes in one line.
fn failure(answer: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> String {
    let (_directory, store) = store();
    let error = pull_from(&Server::start(answer), &store, &Credentials::default()).unwrap_err();
    assert_eq!(store.images().unwrap(), [], "a failed pull gives no name");
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

fn layer_in(store: &Store, image: &Image) -> Vec<u8> {
    std::fs::read(store.directory().join("blobs/sha256").join(Digest::of(&image.layer).hex())).unwrap()
}

#[test]
fn second_pull_fetches_only_the_manifest() {
    let (image, (_directory, store)) = (Image::new(), store());
    let served = image.clone();
    let server = Server::start(move |request| served.answer(request));
    let first = pull_from(&server, &store, &Credentials::default()).unwrap();
    assert_eq!((first.digest, first.changed), (Digest::of(&image.manifest).to_string(), true));
    assert_eq!(layer_in(&store, &image), image.layer);
    let before = server.received().len();
    assert!(!pull_from(&server, &store, &Credentials::default()).unwrap().changed);
    let again: Vec<String> = server.received()[before..].iter().map(|request| request.path.clone()).collect();
    assert!(again.iter().all(|path| !path.contains("blobs")), "{again:?}");
}

#[test]
fn blob_is_continued_after_broken_connections() {
    let (image, (_directory, store)) = (Image::new(), store());
    let served = image.clone();
    let server = Server::start(move |request| {
        let mut answer = served.answer(request);
        let rest = served.layer.len() - request.start();
        if served.is_layer(request) && rest > 300_000 {
            // 300 kB of what is declared.
            let part = &served.layer[request.start()..][..300_000];
            let range = format!("bytes {}-{}/{}", request.start(), served.layer.len() - 1, served.layer.len());
            answer = Answer::new(if request.start() == 0 { 200 } else { 206 }, part).header("content-range", range);
            answer.declared = Some(rest as u64);
        }
        answer
    });
    pull_from(&server, &store, &Credentials::default()).unwrap();
    assert_eq!(layer_in(&store, &image), image.layer);
    let starts: Vec<usize> =
        server.received().iter().filter(|request| image.is_layer(request)).map(Received::start).collect();
    assert_eq!(starts, [0, 300_000, 600_000, 900_000]);
}

#[test]
fn blob_is_continued_by_the_next_pull() {
    let (image, (_directory, store)) = (Image::new(), store());
    let broken = image.clone();
    let server = Server::start(move |request| match broken.is_layer(request) {
        true if request.start() == 0 => {
            let mut answer = Answer::new(200, &broken.layer[..500_000]);
            answer.declared = Some(broken.layer.len() as u64);
            answer
        }
        true => Answer::new(503, ""),
        false => broken.answer(request),
    });
    pull_from(&server, &store, &Credentials::default()).unwrap_err();
    let name = server.authority();
    let whole = image.clone();
    let server = Server::start(move |request| whole.answer(request));
    assert_ne!(name, server.authority());
    pull_from(&server, &store, &Credentials::default()).unwrap();
    assert_eq!(layer_in(&store, &image), image.layer);
    let starts: Vec<usize> =
        server.received().iter().filter(|request| image.is_layer(request)).map(Received::start).collect();
    assert_eq!(starts, [500_000]);
}

#[test]
fn registry_without_ranges_begins_again() {
    let (image, (_directory, store)) = (Image::new(), store());
    let (served, requests) = (image.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        if !served.is_layer(request) {
            return served.answer(request);
        }
        let mut answer = Answer::new(200, served.layer.clone());
        if requests.fetch_add(1, Ordering::SeqCst) == 0 {
            answer = Answer::new(200, &served.layer[..200_000]);
            answer.declared = Some(served.layer.len() as u64);
        }
        answer
    });
    pull_from(&server, &store, &Credentials::default()).unwrap();
    assert_eq!(layer_in(&store, &image), image.layer);
}

#[test]
fn wrong_bytes_are_rejected_and_not_kept() {
    let image = Image::new();
    let served = image.clone();
    let wrong_layer = failure(move |request| {
        let mut layer = served.layer.clone();
        layer[1000] ^= 1;
        if served.is_layer(request) { Answer::part(&layer, request) } else { served.answer(request) }
    });
    assert!(wrong_layer.contains("the registry sends a blob with digest sha256:"), "{wrong_layer}");
    let served = image.clone();
    let longer = failure(move |request| match served.is_layer(request) {
        true => Answer::new(200, [&served.layer[..], b"x"].concat()),
        false => served.answer(request),
    });
    assert!(longer.contains("more than the 1200000 bytes"), "{longer}");
    let served = image.clone();
    let declared = failure(move |request| {
        served.answer(request).header("docker-content-digest", Digest::of(b"another").to_string())
    });
    assert!(declared.contains("in place of"), "{declared}");
    let served = image.clone();
    let shorter = failure(move |request| match served.is_layer(request) {
        true if request.start() == 0 => Answer::new(200, &served.layer[..7]),
        true => Answer::new(206, "").header("content-range", format!("bytes {}-", request.start())),
        false => served.answer(request),
    });
    assert!(shorter.contains("the connection broke"), "{shorter}");
}

#[test]
fn endless_answers_end() {
    let served = Image::new();
    let manifest = failure(|_| Answer { endless: true, ..Answer::new(200, vec![b' '; 1 << 16]) });
    assert!(manifest.contains("more than 4194304 bytes"), "{manifest}");
    let blob = failure(move |request| match served.is_layer(request) {
        true => Answer { endless: true, ..Answer::new(200, vec![1; 1 << 16]) },
        false => served.answer(request),
    });
    assert!(blob.contains("more than the 1200000 bytes"), "{blob}");
    let header = failure(|_| Answer::new(200, "{}").header("x", "y".repeat(1 << 20)));
    assert!(header.contains("cannot fetch"), "{header}");
}

#[test]
fn redirects_are_bounded() {
    let circle = failure(|request| Answer::redirect(request.path.clone()));
    assert!(circle.contains("redirects more than 5 times"), "{circle}");
    for location in ["", "ftp://x/", "//host/path", "http://user@host/", "relative", "http://[::1"] {
        let invalid = failure(move |_| Answer::redirect(location));
        assert!(invalid.contains("redirects to no valid URL"), "{location}: {invalid}");
    }
}

#[test]
fn other_answers_are_errors_of_one_line() {
    for (answer, expected) in [
        (Answer::new(404, r#"{"errors":[{"message":"manifest\nunknown"}]}"#), "not found in registry"),
        (Answer::new(403, ""), "access denied"),
        (Answer::new(401, "").header("www-authenticate", r#"Basic realm="x""#), "access denied"),
        (Answer::new(418, "<html>"), "answers with status 418"),
        (Answer::new(200, "<html>"), "malformed"),
        (Answer::new(200, r#"{"manifests":[]}"#), "no image for linux/amd64"),
        (Answer::new(200, r#"{"schemaVersion":1,"fsLayers":[]}"#), "schema version 1"),
        (Answer::new(200, r#"{"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#), "is malformed"),
    ] {
        let line = failure(move |_| answer.clone());
        assert!(line.starts_with("cannot pull 127.0.0.1:") && line.contains(expected), "{expected}: {line}");
        assert!(!line.contains('\n'), "{line}");
    }
    let total = format!(
        r#"{{"config":{{"digest":"{0}","size":2}},"layers":[{{"digest":"{0}","size":{1}}}]}}"#,
        Digest::of(b"{}"),
        u64::MAX
    );
    let other = Digest::of(b"other").to_string();
    let total = total.replacen(&Digest::of(b"{}").to_string(), &other, 1);
    let line = failure(move |_| Answer::new(200, total.clone()));
    assert!(line.contains("more than 128 GiB"), "{line}");
}

#[test]
fn image_for_another_platform_is_rejected_before_its_layers() {
    let mut image = Image::new();
    let config = String::from_utf8(image.config.clone()).unwrap().replace("amd64", "arm64");
    let manifest = String::from_utf8(image.manifest.clone()).unwrap();
    let manifest = manifest.replace(&Digest::of(&image.config).to_string(), &Digest::of(config.as_bytes()).to_string());
    (image.config, image.manifest) = (config.into_bytes(), manifest.into_bytes());
    let fetched = Arc::new(AtomicUsize::new(0));
    let layers = fetched.clone();
    let line = failure(move |request| {
        layers.fetch_add(usize::from(image.is_layer(request)), Ordering::SeqCst);
        image.answer(request)
    });
    assert!(line.ends_with("no image for linux/amd64 (there is: linux/arm64)"), "{line}");
    assert_eq!(fetched.load(Ordering::SeqCst), 0);
}

/// Credentials of `user` for a server.
fn credentials(directory: &tempfile::TempDir, server: &Server) -> Credentials {
    let path = directory.path().join("auth.json");
    // user:secret
    std::fs::write(&path, format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, server.authority()))
        .unwrap();
    Credentials::in_files(vec![path])
}

#[test]
fn password_is_sent_when_it_is_asked_for() {
    let (image, (directory, store)) = (Image::new(), store());
    let served = image.clone();
    let server = Server::start(move |request| match request.header("authorization") {
        Some("Basic dXNlcjpzZWNyZXQ=") => served.answer(request),
        _ => Answer::new(401, "").header("www-authenticate", r#"Basic realm="Registry Realm""#),
    });
    pull_from(&server, &store, &Credentials::default()).unwrap_err();
    pull_from(&server, &store, &credentials(&directory, &server)).unwrap();
    assert_eq!(layer_in(&store, &image), image.layer);
}

#[test]
fn token_is_had_once_and_stays_with_its_registry() {
    let (image, (directory, store)) = (Image::new(), store());
    let served = image.clone();
    // Blobs are on another host, as with a registry in a cloud.
    let storage = Server::start(move |request| Answer::part(&served.layer, request));
    let (served, elsewhere) = (image.clone(), storage.authority());
    let server = Server::start(move |request| {
        let own = request.header("host").expect("HTTP/1.1 has one").to_owned();
        let challenge = format!(r#"Bearer realm="http://{own}/token",service="s",scope="repository:x/y:pull""#);
        match request.header("authorization") {
            Some("Basic dXNlcjpzZWNyZXQ=") if request.path.starts_with("/token?") => {
                Answer::new(200, r#"{"token":"t0k3n"}"#)
            }
            Some("Bearer t0k3n") if served.is_layer(request) => {
                Answer::redirect(format!("http://{elsewhere}/blob?sig=1"))
            }
            Some("Bearer t0k3n") => served.answer(request),
            _ => Answer::new(401, "").header("www-authenticate", challenge),
        }
    });
    pull_from(&server, &store, &credentials(&directory, &server)).unwrap();
    assert_eq!(layer_in(&store, &image), image.layer);
    let received = server.received();
    let tokens: Vec<&str> =
        received.iter().map(|request| request.path.as_str()).filter(|path| path.starts_with("/token")).collect();
    assert_eq!(tokens, ["/token?scope=repository%3Ax%2Fy%3Apull&service=s"]);
    assert!(storage.received().iter().all(|request| request.header("authorization").is_none()));
    assert!(!storage.received().is_empty());
}

#[test]
fn concurrent_pulls_share_the_download() {
    let (image, (_directory, store)) = (Image::new(), store());
    let served = image.clone();
    let server = Server::start(move |request| served.answer(request));
    std::thread::scope(|scope| {
        let pulls: Vec<_> =
            (0..6).map(|_| scope.spawn(|| pull_from(&server, &store, &Credentials::default()))).collect();
        for pull in pulls {
            pull.join().unwrap().unwrap();
        }
    });
    let layers = server.received().iter().filter(|request| image.is_layer(request)).count();
    assert_eq!((layers, store.images().unwrap().len()), (1, 1));
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers that a pull converts while others are still downloaded.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod server;

use oci_image::{Digest, ImageName, Platform, TarWriter};
use registry::{Credentials, Pull, PullError, PullProgress, Pulled, Registries, Store, pull};
use server::{Answer, Received, Server};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// An image whose layers are archives.
#[derive(Clone)]
struct Image {
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

impl Image {
    fn of(layers: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!(r#""{}""#, Digest::of(layer))).collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let blobs: Vec<Vec<u8>> = [config.into_bytes()].into_iter().chain(layers.iter().cloned()).collect();
        let descriptors: Vec<String> =
            blobs.iter().map(|blob| format!(r#"{{"digest":"{}","size":{}}}"#, Digest::of(blob), blob.len())).collect();
        let manifest = format!(r#"{{"config":{},"layers":[{}]}}"#, descriptors[0], descriptors[1..].join(","));
        Self { manifest: manifest.into_bytes(), blobs }
    }

    fn answer(&self, request: &Received) -> Answer {
        let blob = self.blobs.iter().find(|blob| request.path.ends_with(&Digest::of(blob).to_string()));
        match blob {
            Some(blob) => Answer::part(blob, request),
            None if request.path.contains("/manifests/") => Answer::new(200, self.manifest.clone())
                .header("content-type", "application/vnd.oci.image.manifest.v1+json"),
            None => Answer::new(404, ""),
        }
    }
}

fn layer(name: &str, size: usize) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    let bytes: Vec<u8> = (0..size as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    writer.file(name, &bytes).unwrap();
    writer.finish().unwrap()
}

fn directory_of(cache: &Path, layer: &[u8]) -> PathBuf {
    cache.join("layers/v1").join(Digest::of(layer).to_string().replace(':', "-"))
}

/// Names in the directory of converted layers.
fn converted(cache: &Path) -> usize {
    std::fs::read_dir(cache.join("layers/v1")).map_or(0, Iterator::count)
}

struct Host {
    directory: tempfile::TempDir,
    store: Store,
    steps: Mutex<Vec<PullProgress>>,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("images"));
        Self { directory, store, steps: Mutex::default() }
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn pull(&self, server: &Server) -> Result<Pulled, PullError> {
        let name = ImageName::parse(&format!("{}/x/y", server.authority())).unwrap();
        pull(&Pull {
            name: &name,
            store: &self.store,
            platform: &Platform::default(),
            credentials: &Credentials::default(),
            registries: &Registries::default(),
            verify: true,
            cache: Some(&self.cache()),
            progress: Some(&|step| self.steps.lock().unwrap().push(step)),
        })
    }
}

#[test]
fn layer_is_converted_while_another_is_downloaded() {
    let host = Host::new();
    let layers = [layer("small", 5000), layer("large", 500_000)];
    let image = Image::of(&layers);
    let (of_small, large) = (directory_of(&host.cache(), &layers[0]), Digest::of(&layers[1]).to_string());
    let served = image.clone();
    let server = Server::start(move |request| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while request.path.ends_with(&large) && !of_small.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // After the deadline there is no layer: the pull fails.
        if request.path.ends_with(&large) && !of_small.exists() { Answer::new(404, "") } else { served.answer(request) }
    });
    host.pull(&server).unwrap();
    assert!(layers.iter().all(|layer| directory_of(&host.cache(), layer).join("entries").exists()));
    assert_eq!(converted(&host.cache()), 2);
    let total = image.blobs.iter().map(|blob| blob.len() as u64).sum();
    let steps = host.steps.lock().unwrap();
    assert!(steps.contains(&PullProgress::Downloading { bytes: total, total }), "{steps:?}");
    let of_layers = layers.iter().map(|layer| layer.len() as u64).sum();
    assert_eq!(steps.last(), Some(&PullProgress::Unpacking { bytes: of_layers, total }));
}

#[test]
fn stored_layers_are_converted_by_the_next_pull() {
    let host = Host::new();
    let layers = [layer("a", 5000), layer("b", 6000)];
    let image = Image::of(&layers);
    let server = Server::start(move |request| image.answer(request));
    host.pull(&server).unwrap();
    std::fs::remove_dir_all(host.cache()).unwrap();
    assert!(!host.pull(&server).unwrap().changed);
    assert_eq!(converted(&host.cache()), 2);
}

#[test]
fn converted_layers_outlive_a_pull_that_fails() {
    let host = Host::new();
    let layers = [layer("a", 5000), layer("b", 6000)];
    let image = Image::of(&layers);
    let (missing, of_first) = (Digest::of(&layers[1]).to_string(), directory_of(&host.cache(), &layers[0]));
    let (served, first) = (image.clone(), of_first.clone());
    let broken = Server::start(move |request| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while request.path.ends_with(&missing) && !first.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if request.path.ends_with(&missing) { Answer::new(404, "") } else { served.answer(request) }
    });
    host.pull(&broken).unwrap_err();
    assert_eq!((converted(&host.cache()), of_first.exists()), (1, true));
    let server = Server::start(move |request| image.answer(request));
    host.pull(&server).unwrap();
    assert_eq!(converted(&host.cache()), 2);
}

#[test]
fn layer_that_cannot_be_converted_is_no_error_of_the_pull() {
    let host = Host::new();
    let image = Image::of(&[layer("../outside", 5000), layer("b", 6000), b"no archive at all".to_vec()]);
    let server = Server::start(move |request| image.answer(request));
    assert!(host.pull(&server).unwrap().changed);
    assert!(converted(&host.cache()) <= 2, "nothing half is left");
    assert!(directory_of(&host.cache(), &layer("b", 6000)).exists());
}

#[test]
fn concurrent_pulls_of_images_with_one_base_share_its_conversion() {
    let host = Host::new();
    let base = layer("base", 400_000);
    let [one, two] = ["one", "two"].map(|name| Image::of(&[base.clone(), layer(name, 5000)]));
    let servers = [one, two].map(|image| Server::start(move |request| image.answer(request)));
    std::thread::scope(|scope| {
        let pulls: Vec<_> = servers.iter().map(|server| scope.spawn(|| host.pull(server))).collect();
        for pull in pulls {
            pull.join().unwrap().unwrap();
        }
    });
    assert_eq!(converted(&host.cache()), 3);
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whatever makes an image, damaged: documents, archives, layers, the entries of a converted layer, answers of a registry. The first
//! byte chooses, as a digit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_image::fuzzing::{convert, damaged, decompress, entries, layers, list};
use oci_image::{Contents, Digest, ImageReference, Platform, describe, references};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A directory of this process, in memory.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = Path::new("/dev/shm").join(format!("coracle-fuzz-{}", std::process::id()));
    fs::create_dir_all(directory.join("layout/blobs/sha256")).expect("there is memory");
    fs::write(directory.join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("there is memory");
    directory
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let (first, second) = rest.split_at(rest.len() / 2);
    match choice % 8 {
        0 => convert(&layers(rest)),
        1 => convert(&layers(first).into_iter().map(|layer| damaged(layer, second)).collect::<Vec<_>>()),
        2 => entries(rest),
        3 => entries(&damaged(list(&layers(first).concat()), second)),
        4 => decompress(rest),
        5 => documents(rest),
        6 => archive(rest),
        _ => registry::fuzzing::answer(rest),
    }
});

/// Fails unless each level of an error is one line.
fn check<T, E: Error + 'static>(result: Result<T, E>) {
    let Err(error) = result else { return };
    for level in std::iter::successors(Some(&error as &(dyn Error + 'static)), |&error| error.source()) {
        let message = level.to_string();
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
}

/// A layout: its configuration, its manifest and its index, with an empty line between them. `CONFIG` and `MANIFEST` stand for the
/// digests and sizes of the documents before.
fn documents(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.splitn(3, "\n\n");
    let mut part = || parts.next().unwrap_or_default();
    let layout = DIRECTORY.join("layout");
    let mut blobs = Vec::new();
    let mut blob = |document: &str| {
        let digest = Digest::of(document.as_bytes());
        let path = layout.join("blobs/sha256").join(digest.hex());
        fs::write(&path, document).expect("there is memory");
        blobs.push(path);
        format!(r#""digest":"{digest}","size":{}"#, document.len())
    };
    let config = blob(part());
    let manifest = part().replace("CONFIG", &config);
    let index = part().replace("MANIFEST", &blob(&manifest));
    fs::write(layout.join("index.json"), &index).expect("there is memory");
    check(references(manifest.as_bytes(), "manifest", None));
    check(references(index.as_bytes(), "index", Some(&Platform::default())));
    let reference = ImageReference::OciLayout { path: layout.clone(), tag: None };
    check(describe(&reference, &Platform::default(), &DIRECTORY));
    check(Contents::open(&layout, &DIRECTORY));
    for path in blobs {
        // Two documents may be equal.
        let _ = fs::remove_file(path);
    }
}

/// An archive of `docker save`: its configuration and its list, with an empty line between them; then what is damaged in the archive.
fn archive(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == 0xff).unwrap_or(input.len());
    let text = String::from_utf8_lossy(&input[..end]);
    let (config, list) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut writer = oci_image::TarWriter::new(Vec::new());
    for (name, content) in [("config.json", config), ("manifest.json", list), ("layer.tar", "")] {
        writer.file(name, content.as_bytes()).expect("a vector takes all");
    }
    let bytes = damaged(writer.finish().expect("a vector takes all"), input.get(end + 1..).unwrap_or_default());
    let path = DIRECTORY.join("archive");
    fs::write(&path, bytes).expect("there is memory");
    let reference = ImageReference::OciArchive { path: path.clone(), tag: None };
    check(describe(&reference, &Platform::default(), &DIRECTORY));
    check(Contents::open(&path, &DIRECTORY));
}

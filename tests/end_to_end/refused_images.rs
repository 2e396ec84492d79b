// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images that are missing, damaged or of an unknown kind: reason `image-error`, and one line that names the fault.

use coracle_tests::{Case, Finished, Layout, TestDir, case, sha256};
use serde_json::json;
use std::fs;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm], missing_images_are_rejected),
        case!(Quick[Kvm], layer_with_a_wrong_digest_is_rejected),
        case!(Quick[Kvm], layer_missing_or_short_is_rejected),
        case!(Quick[Kvm], layer_that_differs_from_the_config_is_rejected),
        case!(Quick[Kvm], layer_of_unknown_compression_is_rejected),
        case!(Quick[Kvm], truncated_archive_is_rejected),
        case!(Quick[Kvm], invalid_index_is_rejected),
        case!(Quick[Kvm], missing_tag_or_platform_is_rejected_with_the_present_ones),
        case!(Quick[Kvm], image_without_a_command_needs_one),
    ]
}

fn refuse(run: &Finished, objects: &[&str]) {
    run.assert_status(125).assert_reason("image-error").assert_one_line_naming(objects);
}

fn missing_images_are_rejected() {
    let dir = TestDir::new();
    let empty = dir.path().join("home").display().to_string();
    for (reference, object) in [
        ("oci:/nowhere/at/all".to_owned(), "/nowhere/at/all"),
        ("oci-archive:/nowhere/a.tar".to_owned(), "/nowhere/a.tar"),
        ("docker-archive:/nowhere/b.tar".to_owned(), "/nowhere/b.tar"),
        (format!("oci:{empty}"), empty.as_str()),
        ("oci-archive:/dev/null".to_owned(), "/dev/null"),
    ] {
        refuse(&dir.run(&[&reference, "true"]), &[object]);
    }
    // A name that the store does not have, and that may not be pulled.
    refuse(
        &dir.run(&["--pull", "never", "alpine", "true"]),
        &["alpine:latest: not in the local store", "coracle pull"],
    );
    refuse(&dir.run(&["Alpine", "true"]), &["Alpine", "lower case"]);
}

fn layer_with_a_wrong_digest_is_rejected() {
    let dir = TestDir::new();
    let layout = Layout::new(dir.file("image"));
    let reference = layout.write();
    let mut bytes = layout.layer.clone();
    bytes[0] ^= 1;
    fs::write(layout.layer_path(), bytes).expect("just written");
    refuse(&dir.run(&[&reference]), &[&sha256(&layout.layer)]);
}

fn layer_missing_or_short_is_rejected() {
    let dir = TestDir::new();
    let layout = Layout::new(dir.file("image"));
    let reference = layout.write();
    fs::write(layout.layer_path(), &layout.layer[..700]).expect("just written");
    refuse(&dir.run(&[&reference]), &[&sha256(&layout.layer)]);
    fs::remove_file(layout.layer_path()).expect("just written");
    refuse(&dir.run(&[&reference]), &[&sha256(&layout.layer)]);
}

fn layer_that_differs_from_the_config_is_rejected() {
    let dir = TestDir::new();
    let mut layout = Layout::new(dir.file("image"));
    layout.diff_id = Some(format!("sha256:{}", "0".repeat(64)));
    refuse(&dir.run(&[&layout.write()]), &[&"0".repeat(64)]);
}

fn layer_of_unknown_compression_is_rejected() {
    let dir = TestDir::new();
    // The first bytes of bzip2 and xz streams.
    for (name, magic) in [("bzip2", &b"BZh91AY&SY"[..]), ("xz", b"\xfd7zXZ\x00\x00\x04")] {
        let mut layout = Layout::new(dir.file(name));
        layout.layer = [magic, &[0x5a; 2000]].concat();
        refuse(&dir.run(&[&layout.write()]), &[&sha256(&layout.layer)]);
    }
}

fn truncated_archive_is_rejected() {
    let dir = TestDir::new();
    let layout = Layout::new(dir.file("image"));
    let _ = layout.write();
    let reference = layout.archive(&dir.file("complete.tar"));
    let complete = fs::read(dir.file("complete.tar")).expect("just written");
    assert!(reference.ends_with("complete.tar"));
    for length in [100, 600, complete.len() / 3, complete.len() / 2, complete.len() - 2000] {
        let cut = dir.write("cut.tar", &complete[..length]);
        refuse(&dir.run(&[format!("oci-archive:{}", cut.display())]), &["cut.tar"]);
    }
}

fn invalid_index_is_rejected() {
    let dir = TestDir::new();
    let layout = Layout::new(dir.file("image"));
    let reference = layout.write();
    let index = dir.file("image/index.json");
    let loop_to_itself = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": "sha256:../../../../etc/passwd",
        "size": 100,
    }] });
    for contents in ["", "{", "[]", "{\"schemaVersion\":2,\"manifests\":[]}", &loop_to_itself.to_string()] {
        fs::write(&index, contents).expect("just written");
        refuse(&dir.run(&[&reference]), &[]);
    }
}

fn missing_tag_or_platform_is_rejected_with_the_present_ones() {
    let dir = TestDir::new();
    let mut layout = Layout::new(dir.file("image"));
    layout.tag = "v1";
    let reference = layout.write();
    refuse(&dir.run(&[format!("{reference}:v2")]), &["v2", "v1"]);
    let mut layout = Layout::new(dir.file("foreign"));
    layout.architecture = "riscv64";
    refuse(&dir.run(&[&layout.write()]), &["amd64"]);
}

fn image_without_a_command_needs_one() {
    let dir = TestDir::new();
    let mut layout = Layout::new(dir.file("image"));
    layout.config = json!({});
    let run = dir.run(&[&layout.write()]);
    run.assert_status(125).assert_one_line_naming(&["command"]);
    assert!(matches!(run.result_at("/end/reason").as_str(), Some("config-error" | "image-error")), "{}", run.report());
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images that are not there, damaged or of an unknown kind: reason `image-error`, one line that names what is wrong.

use coracle_tests::{Case, Finished, Layout, Place, case, sha256};
use serde_json::json;
use std::fs;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm], references_to_nothing_are_refused),
        case!(Quick[Kvm], a_layer_whose_digest_is_wrong_is_refused),
        case!(Quick[Kvm], a_layer_that_is_missing_or_short_is_refused),
        case!(Quick[Kvm], a_layer_whose_contents_differ_from_the_config_is_refused),
        case!(Quick[Kvm], a_layer_in_an_unknown_compression_is_refused),
        case!(Quick[Kvm], a_truncated_archive_is_refused),
        case!(Quick[Kvm], an_index_that_is_no_index_is_refused),
        case!(Quick[Kvm], a_tag_or_platform_that_is_not_there_is_refused_with_what_is),
        case!(Quick[Kvm], an_image_without_a_command_is_refused_when_none_is_given),
    ]
}

fn refuse(run: &Finished, objects: &[&str]) {
    run.assert_status(125).assert_reason("image-error").assert_one_line_naming(objects);
}

fn references_to_nothing_are_refused() {
    let place = Place::new();
    let empty = place.path().join("home").display().to_string();
    for (reference, object) in [
        ("oci:/nowhere/at/all".to_owned(), "/nowhere/at/all"),
        ("oci-archive:/nowhere/a.tar".to_owned(), "/nowhere/a.tar"),
        ("docker-archive:/nowhere/b.tar".to_owned(), "/nowhere/b.tar"),
        (format!("oci:{empty}"), empty.as_str()),
        ("oci-archive:/dev/null".to_owned(), "/dev/null"),
    ] {
        refuse(&place.run(&[&reference, "true"]), &[object]);
    }
    // Not an image that is missing, but a request that this version cannot serve.
    for reference in ["docker://registry.example/name:tag", "name-in-no-store"] {
        place.run(&[reference, "true"]).assert_status(125).assert_one_line_naming(&[reference]);
    }
}

fn a_layer_whose_digest_is_wrong_is_refused() {
    let place = Place::new();
    let layout = Layout::new(place.file("image"));
    let reference = layout.write();
    let mut bytes = layout.layer.clone();
    bytes[0] ^= 1;
    fs::write(layout.layer_path(), bytes).expect("just written");
    refuse(&place.run(&[&reference]), &[&sha256(&layout.layer)]);
}

fn a_layer_that_is_missing_or_short_is_refused() {
    let place = Place::new();
    let layout = Layout::new(place.file("image"));
    let reference = layout.write();
    fs::write(layout.layer_path(), &layout.layer[..700]).expect("just written");
    refuse(&place.run(&[&reference]), &[&sha256(&layout.layer)]);
    fs::remove_file(layout.layer_path()).expect("just written");
    refuse(&place.run(&[&reference]), &[&sha256(&layout.layer)]);
}

fn a_layer_whose_contents_differ_from_the_config_is_refused() {
    let place = Place::new();
    let mut layout = Layout::new(place.file("image"));
    layout.diff_id = Some(format!("sha256:{}", "0".repeat(64)));
    refuse(&place.run(&[&layout.write()]), &[&"0".repeat(64)]);
}

fn a_layer_in_an_unknown_compression_is_refused() {
    let place = Place::new();
    // The first bytes of bzip2 and xz streams.
    for (name, magic) in [("bzip2", &b"BZh91AY&SY"[..]), ("xz", b"\xfd7zXZ\x00\x00\x04")] {
        let mut layout = Layout::new(place.file(name));
        layout.layer = [magic, &[0x5a; 2000]].concat();
        refuse(&place.run(&[&layout.write()]), &[&sha256(&layout.layer)]);
    }
}

fn a_truncated_archive_is_refused() {
    let place = Place::new();
    let layout = Layout::new(place.file("image"));
    let _ = layout.write();
    let reference = layout.archive(&place.file("whole.tar"));
    let whole = fs::read(place.file("whole.tar")).expect("just written");
    assert!(reference.ends_with("whole.tar"));
    for length in [100, 600, whole.len() / 3, whole.len() / 2, whole.len() - 2000] {
        let cut = place.write("cut.tar", &whole[..length]);
        refuse(&place.run(&[format!("oci-archive:{}", cut.display())]), &["cut.tar"]);
    }
}

fn an_index_that_is_no_index_is_refused() {
    let place = Place::new();
    let layout = Layout::new(place.file("image"));
    let reference = layout.write();
    let index = place.file("image/index.json");
    let loop_to_itself = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": "sha256:../../../../etc/passwd",
        "size": 100,
    }] });
    for contents in ["", "{", "[]", "{\"schemaVersion\":2,\"manifests\":[]}", &loop_to_itself.to_string()] {
        fs::write(&index, contents).expect("just written");
        refuse(&place.run(&[&reference]), &[]);
    }
}

fn a_tag_or_platform_that_is_not_there_is_refused_with_what_is() {
    let place = Place::new();
    let mut layout = Layout::new(place.file("image"));
    layout.tag = "v1";
    let reference = layout.write();
    refuse(&place.run(&[format!("{reference}:v2")]), &["v2", "v1"]);
    let mut layout = Layout::new(place.file("foreign"));
    layout.architecture = "riscv64";
    refuse(&place.run(&[&layout.write()]), &["amd64"]);
}

fn an_image_without_a_command_is_refused_when_none_is_given() {
    let place = Place::new();
    let mut layout = Layout::new(place.file("image"));
    layout.config = json!({});
    let run = place.run(&[&layout.write()]);
    run.assert_status(125).assert_one_line_naming(&["command"]);
    assert!(matches!(run.result_at("/end/reason").as_str(), Some("config-error" | "image-error")), "{}", run.report());
}

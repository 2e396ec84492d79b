// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;
use crate::state::end::EndReason;
use serde_json::Value;
use std::fs;
use std::io::Read as _;

fn document() -> ResultDocument {
    ResultDocument::new("0123456789ab", End::failed(EndReason::ImageError, "no such image"), Stages::start())
}

#[test]
fn document_has_every_field_of_the_contract() {
    let value = serde_json::to_value(document()).unwrap();
    let pointers = [
        ("/version", Value::from(1)),
        ("/id", "0123456789ab".into()),
        ("/end/reason", "image-error".into()),
        ("/end/status", 125.into()),
        ("/end/signal", Value::Null),
        ("/end/detail", "no such image".into()),
        ("/counters/cpu_vcpu_ns", 0.into()),
        ("/counters/disks", Value::Array(Vec::new())),
        ("/digests/root_disk", Value::Null),
        ("/host/completions", Value::Object(serde_json::Map::new())),
        ("/sandbox", Value::Object(serde_json::Map::new())),
        ("/boot", Value::Object(serde_json::Map::new())),
    ];
    for (pointer, expected) in pointers {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
    for pointer in ["/started", "/ended"] {
        assert!(value.pointer(pointer).and_then(Value::as_str).is_some_and(|time| time.ends_with('Z')), "{pointer}");
    }
}

#[test]
fn write_replaces_a_file_and_leaves_nothing_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("result.json");
    fs::write(&path, "old").unwrap();
    document().write(&[ResultDestination::File(path.clone())]).unwrap();
    let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(value["id"], "0123456789ab");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn write_serves_all_destinations_though_one_fails() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("result.json");
    let (mut reader, writer) = io::pipe().unwrap();
    let missing = directory.path().join("missing/result.json");
    let destinations = [
        ResultDestination::File(missing.clone()),
        ResultDestination::File(path.clone()),
        ResultDestination::Descriptor(writer.into(), 9),
    ];
    let error = document().write(&destinations).unwrap_err();
    assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
    drop(destinations);
    let mut piped = Vec::new();
    reader.read_to_end(&mut piped).unwrap();
    assert_eq!(piped, fs::read(path).unwrap());
}

#[test]
fn write_does_not_replace_a_device() {
    document().write(&[ResultDestination::File("/dev/null".into())]).unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let full = document().write(&[ResultDestination::File("/dev/full".into())]).unwrap_err();
    assert_eq!(full.to_string(), "cannot write the result to /dev/full");
}

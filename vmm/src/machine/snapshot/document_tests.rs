// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::machine::snapshot::testing::document;

#[test]
fn state_survives_its_bytes() {
    let bytes = document().to_bytes();
    let parsed = SnapshotDocument::parse(&bytes).unwrap();
    assert_eq!(parsed.to_bytes(), bytes);
    assert!(bytes.starts_with(b"coracle-snapshot 2 "));
}

#[test]
fn truncated_state_is_rejected_at_every_length() {
    let bytes = document().to_bytes();
    for length in 0..bytes.len() {
        assert!(SnapshotDocument::parse(&bytes[..length]).is_err(), "{length}");
    }
    assert!(SnapshotDocument::parse(&[&bytes[..], b" "].concat()).is_err());
}

#[test]
fn state_with_any_changed_byte_is_rejected() {
    let mut bytes = document().to_bytes();
    for index in 0..bytes.len() {
        for change in [0x01, 0x20, 0x80] {
            bytes[index] ^= change;
            assert!(SnapshotDocument::parse(&bytes).is_err(), "byte {index} ^ {change:#x}");
            bytes[index] ^= change;
        }
    }
}

#[test]
fn state_of_another_version_is_named() {
    let message = |bytes: &[u8]| SnapshotDocument::parse(bytes).unwrap_err().to_string();
    assert!(message(b"coracle-snapshot 1 5 sha256:00\n{}").starts_with("version 1 of the format"));
    assert_eq!(message(b"something else\n"), "not the state of a snapshot");
    let other = SnapshotDocument { coracle: "0.0.1".into(), ..document() };
    assert!(message(&other.to_bytes()).starts_with("made by coracle 0.0.1"));
    let other = SnapshotDocument { protocol: 1, ..document() };
    assert!(message(&other.to_bytes()).starts_with("version 1 of the protocol"));
}

#[test]
fn state_with_an_unknown_key_is_rejected() {
    let bytes = document().to_bytes();
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let mut body: Value = serde_json::from_slice(&bytes[end..]).unwrap();
    body["extra"] = Value::Null;
    let body = serde_json::to_vec(&body).unwrap();
    let error = SnapshotDocument::parse(&[SNAPSHOT.header(&body).as_bytes(), &body].concat()).unwrap_err();
    assert!(matches!(error, DocumentError::Content(_)), "{error}");
}

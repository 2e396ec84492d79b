// SPDX-License-Identifier: Apache-2.0 OR MIT
//! References and their meaning.

use super::*;

fn layout(path: &str, tag: Option<&str>) -> ImageReference {
    ImageReference::OciLayout { path: path.into(), tag: tag.map(Into::into) }
}

#[test]
fn parse_splits_prefix_path_and_tag() {
    let cases = [
        ("oci:images/busybox", "oci:images/busybox"),
        ("oci:images/busybox:", "oci:images/busybox"),
        ("oci:images/busybox:1.36", "oci:images/busybox:1.36"),
        ("oci-archive:/a/b.tar", "oci-archive:/a/b.tar"),
        ("docker-archive:b.tar:docker.io/library/x:1", "docker-archive:b.tar:docker.io/library/x:1"),
    ];
    for (text, shown) in cases {
        assert_eq!(ImageReference::parse(text).unwrap().to_string(), shown);
    }
    assert_eq!("oci:d:t".parse::<ImageReference>().unwrap(), layout("d", Some("t")));
    assert_eq!(ImageReference::parse("docker-archive:b.tar:x/y:1").unwrap().tag(), Some("x/y:1"));
}

#[test]
fn directory_with_a_colon_in_its_name_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a:b");
    std::fs::create_dir(&path).unwrap();
    let text = path.to_str().unwrap();
    assert_eq!(ImageReference::parse(&format!("oci:{text}")).unwrap(), layout(text, None));
    assert_eq!(ImageReference::parse(text).unwrap(), layout(text, None));
}

#[test]
fn unsupported_reference_lists_the_supported_ones() {
    for text in ["docker-daemon:x:y", "no name", "a//b", "docker:x/y/", "oci:", ""] {
        let message = ImageReference::parse(text).unwrap_err().to_string();
        assert!(message.contains("oci:DIR[:TAG]"), "{text}: {message}");
        assert!(!message.contains('\n'));
    }
    let message = ImageReference::parse("dir:x").unwrap_err().to_string();
    assert!(message.contains("not supported yet"), "{message}");
}

#[test]
fn name_is_completed_as_in_docker() {
    for (text, full) in [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("docker://alpine", "docker.io/library/alpine:latest"),
        ("docker://ghcr.io/x/y:1", "ghcr.io/x/y:1"),
    ] {
        let Ok(ImageReference::Name(name)) = ImageReference::parse(text) else { panic!("{text}") };
        assert_eq!(name.to_string(), full);
    }
    assert_eq!(ImageReference::parse("docker://alpine").unwrap().to_string(), "alpine:latest");
    for text in ["Busybox", "busybox:a/b:", "busybox@sha256:0a"] {
        let error = ImageReference::parse(text).unwrap_err();
        assert!(matches!(error, ReferenceError::InvalidName { .. }), "{text}: {error}");
    }
}

#[test]
fn missing_path_and_nul_byte_are_rejected() {
    assert!(matches!(ImageReference::parse("./no/such/thing"), Err(ReferenceError::Missing(_))));
    assert!(matches!(ImageReference::parse("oci:a\0b"), Err(ReferenceError::Nul)));
}

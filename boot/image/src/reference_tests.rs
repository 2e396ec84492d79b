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
    for text in ["docker-daemon:x:y", "no name", "a//b", "oci:", ""] {
        let message = ImageReference::parse(text).unwrap_err().to_string();
        assert!(message.contains("oci:DIR[:TAG]"), "{text}: {message}");
        assert!(!message.contains('\n'));
    }
    let message = ImageReference::parse("dir:x").unwrap_err().to_string();
    assert!(message.contains("not supported yet"), "{message}");
}

#[test]
fn registry_name_is_rejected_with_a_copy_command() {
    for (text, source, layout) in [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("ghcr.io/x/y@sha256:0a", "ghcr.io/x/y@sha256:0a", "y"),
        ("localhost:5000/x", "localhost:5000/x", "x"),
        ("docker://alpine", "docker.io/library/alpine", "alpine"),
        ("docker://docker.io/library/busybox:latest", "docker.io/library/busybox:latest", "busybox:latest"),
    ] {
        let message = ImageReference::parse(text).unwrap_err().to_string();
        let copy = format!("\"skopeo copy docker://{source} oci:{layout}\"");
        assert!(message.starts_with(&format!("{text}: not a local image: ")), "{message}");
        assert!(message.contains(&copy), "{text}: {message}");
        assert!(message.contains(&format!("\"coracle run oci:{layout}\"")), "{text}: {message}");
    }
}

#[test]
fn missing_path_and_nul_byte_are_rejected() {
    assert!(matches!(ImageReference::parse("./no/such/thing"), Err(ReferenceError::Missing(_))));
    assert!(matches!(ImageReference::parse("oci:a\0b"), Err(ReferenceError::Nul)));
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Valid and malformed PAX records.

use super::*;

/// Prepends its length to a record.
fn record(text: &[u8]) -> Vec<u8> {
    let mut length = text.len() + 3;
    while length != format!("{length} ").len() + text.len() + 1 {
        length = format!("{length} ").len() + text.len() + 1;
    }
    [format!("{length} ").as_bytes(), text, b"\n"].concat()
}

#[test]
fn value_may_contain_newlines_and_equals_signs() {
    let bytes = [record(b"SCHILY.xattr.security.capability=\x01\n=\x00\n"), record(b"path=a=b\nc")].concat();
    let pax = parse(&bytes).unwrap();
    assert_eq!(pax.xattrs[&b"security.capability"[..]], b"\x01\n=\x00\n");
    assert_eq!(pax.path.unwrap(), b"a=b\nc");
}

#[test]
fn empty_value_removes_the_record() {
    let pax = parse(&[record(b"path=a"), record(b"size=7"), record(b"path="), record(b"size=")].concat()).unwrap();
    assert_eq!((pax.path, pax.size), (None, None));
}

#[test]
fn time_may_have_a_fraction_and_be_before_1970() {
    let at = |text: &[u8]| parse(&record(&[b"mtime=", text].concat())).unwrap().mtime.unwrap();
    assert_eq!(at(b"12.5"), Time { seconds: 12, nanoseconds: 500_000_000 });
    assert_eq!(at(b"12.1234567891"), Time { seconds: 12, nanoseconds: 123_456_789 });
    assert_eq!(at(b"-1"), Time { seconds: -1, nanoseconds: 0 });
    assert_eq!(at(b"-0.25"), Time { seconds: -1, nanoseconds: 750_000_000 });
}

#[test]
fn libarchive_attributes_are_decoded() {
    let pax = parse(&record(b"LIBARCHIVE.xattr.user.a%20b=AP/+")).unwrap();
    assert_eq!(pax.xattrs[&b"user.a b"[..]], [0x00, 0xff, 0xfe]);
    assert_eq!(base64_decoded(b"YQ==").unwrap(), b"a");
    assert_eq!(base64_decoded(b"YWI=").unwrap(), b"ab");
    assert_eq!(base64_decoded(b"YWJ"), Some(b"ab".to_vec()));
    assert_eq!(base64_decoded(b"Y"), None);
}

#[test]
fn malformed_records_are_rejected() {
    let cases: [&[u8]; 12] = [
        b"path=a\n",
        b"x path=a\n",
        b"99 path=a\n",
        b"5 a\n",
        b"0 \n",
        b"3 \n",
        b"9 path=ab",
        b"99999999999999999999999 path=a\n",
        b"18446744073709551615 path=a\n",
        &record(b"size=-1"),
        &record(b"path=a\0b"),
        &record(b"mtime=1.5x"),
    ];
    for bytes in cases {
        assert!(parse(bytes).is_err(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn sparse_maps_of_versions_0_0_and_0_1_are_read() {
    let zero =
        [&b"GNU.sparse.offset=0"[..], b"GNU.sparse.numbytes=5", b"GNU.sparse.offset=9", b"GNU.sparse.numbytes=1"];
    let zero: Vec<u8> = zero.iter().flat_map(|text| record(text)).collect();
    assert_eq!(parse(&zero).unwrap().sparse.map, Some(vec![0, 5, 9, 1]));
    assert_eq!(parse(&record(b"GNU.sparse.map=0,5,9,1")).unwrap().sparse.map, Some(vec![0, 5, 9, 1]));
    assert!(parse(&record(b"GNU.sparse.numbytes=5")).is_err());
    assert!(parse(&record(b"GNU.sparse.map=1,,2")).is_err());
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Merging: semantics of layers, and hostile names and links.

use super::*;
use crate::layer_files::WriteLayerError;
use crate::testing::{Archive, Member, files_of, layer_files, merged, names};

fn fault(layers: &[Archive]) -> Fault {
    match files_of(layers) {
        Err(MergeError::Entry { fault, .. }) => fault,
        other => panic!("{:?}", other.map(|files| files.into_keys().collect::<Vec<_>>())),
    }
}

#[test]
fn whiteout_hides_entries_of_lower_layers() {
    let lower =
        Archive::of([Member::file("a", "1"), Member::directory("d"), Member::file("d/x", ""), Member::file("d/y", "")]);
    let upper = Archive::of([
        Member::file(".wh.a", ""),
        Member::file("d/.wh.x", ""),
        Member::file(".wh.none", ""),
        Member::file("no/.wh.e", ""),
    ]);
    assert_eq!(names(&files_of(&[lower, upper]).unwrap()), ["", "/d", "/d/y"]);
}

#[test]
fn opaque_directory_hides_lower_entries_in_either_order() {
    let lower = Archive::of([Member::file("d/old", ""), Member::file("d/s/old", ""), Member::file("d/both", "1")]);
    let own = [Member::file("d/new", ""), Member::file("d/s/new", ""), Member::file("d/both", "2")];
    let opaque = Member::file("d/.wh..wh..opq", "");
    let first = Archive::of(std::iter::once(opaque.clone()).chain(own.clone()));
    let last = Archive::of(own.into_iter().chain([opaque]));
    for upper in [first, last] {
        let files = files_of(&[lower.clone(), upper]).unwrap();
        assert_eq!(names(&files), ["", "/d", "/d/both", "/d/new", "/d/s", "/d/s/new"]);
        assert_eq!(files["/d/both"].content, b"2");
    }
}

#[test]
fn whiteout_spares_its_own_layer() {
    let lower = Archive::of([Member::file("d/old", "")]);
    let upper = Archive::of([Member::directory("d"), Member::file("d/new", ""), Member::file(".wh.d", "")]);
    assert_eq!(names(&files_of(&[lower, upper]).unwrap()), ["", "/d", "/d/new"]);
    let alone = Archive::of([Member::file("a", ""), Member::file(".wh.a", "")]);
    assert_eq!(names(&files_of(&[alone]).unwrap()), ["", "/a"]);
}

#[test]
fn later_entry_replaces_and_directories_keep_children() {
    let lower = Archive::of([Member::directory("d").mode(0o700), Member::file("d/x", "1"), Member::file("f", "1")]);
    let again = Archive::of([Member::directory("d").mode(0o1777), Member::file("d/x", "22"), Member::file("f", "")]);
    let files = files_of(&[lower.clone(), again]).unwrap();
    assert_eq!((files["/d"].mode, files["/d/x"].content.as_slice(), files["/f"].size), (0o041777, &b"22"[..], 0));
    let over = Archive::of([Member::symlink("d", "f"), Member::directory("f")]);
    let files = files_of(&[lower, over]).unwrap();
    assert_eq!(names(&files), ["", "/d", "/f"]);
    assert_eq!((files["/d"].mode >> 12, files["/f"].mode >> 12), (0o12, 0o4));
}

#[test]
fn missing_parents_are_created() {
    let files = files_of(&[Archive::of([Member::file("a/b/c", "x")])]).unwrap();
    assert_eq!((files["/a/b"].mode, files["/a/b"].owner, files["/a/b"].mtime), (0o040755, (0, 0), (0, 0)));
}

#[test]
fn hard_links_share_a_file_across_layers() {
    let lower = Archive::of([Member::file("a", "data"), Member::hard_link("b", "./a"), Member::symlink("s", "a")]);
    let upper = Archive::of([Member::hard_link("d/c", "/a"), Member::hard_link("t", "s"), Member::file("a", "new")]);
    let files = files_of(&[lower, upper]).unwrap();
    assert_eq!(files["/b"].nid, files["/d/c"].nid);
    assert_eq!((files["/b"].nlink, files["/b"].content.as_slice()), (2, &b"data"[..]));
    assert_eq!((files["/a"].nlink, files["/a"].content.as_slice()), (1, &b"new"[..]));
    assert_eq!(
        (files["/t"].mode >> 12, files["/t"].nlink),
        (0o12, 2),
        "a link to a symbolic link is another name of it"
    );
}

#[test]
fn hard_link_to_itself_needs_an_existing_file() {
    let files = files_of(&[Archive::of([Member::file("a", "x"), Member::hard_link("a", "a")])]).unwrap();
    assert_eq!((files["/a"].nlink, files["/a"].content.as_slice()), (1, &b"x"[..]));
    assert_eq!(fault(&[Archive::of([Member::hard_link("a", "a")])]), Fault::TargetMissing("a".into()));
}

#[test]
fn symlinked_parents_are_followed_inside_the_image() {
    let layer = Archive::of([
        Member::directory("usr/bin"),
        Member::symlink("bin", "usr/bin"),
        Member::symlink("usr/up", "../../../../../etc"),
        Member::file("bin/sh", ""),
        Member::file("usr/up/passwd", "x"),
        Member::hard_link("h", "bin/sh"),
    ]);
    let files = files_of(&[layer]).unwrap();
    let all = ["", "/bin", "/etc", "/etc/passwd", "/h", "/usr", "/usr/bin", "/usr/bin/sh", "/usr/up"];
    assert_eq!(names(&files), all);
    assert_eq!(files["/h"].nid, files["/usr/bin/sh"].nid);
}

#[test]
fn symlink_cycles_are_rejected() {
    // Resolved inside the image, the link named proc leads through itself, not to the host.
    let proc = [Member::symlink("proc", "/proc/self/root/etc"), Member::file("proc/shadow", "")];
    assert_eq!(fault(&[Archive::of(proc)]), Fault::SymlinkLoop);
    let cycle = [Member::symlink("a", "b"), Member::symlink("b", "a"), Member::file("a/x", "")];
    assert_eq!(fault(&[Archive::of(cycle)]), Fault::SymlinkLoop);
    let chain = |length: usize| {
        let links = (0..length).map(|n| Member::symlink(format!("l{n}"), format!("l{}", n + 1)));
        Archive::of(links.chain([Member::directory(format!("l{length}")), Member::file("l0/x", "")]))
    };
    assert!(files_of(&[chain(40)]).is_ok());
    assert_eq!(fault(&[chain(41)]), Fault::SymlinkLoop);
}

#[test]
fn whiteout_follows_symlinked_parents_inside_the_image() {
    let lower = Archive::of([Member::file("etc/passwd", ""), Member::symlink("e", "/etc")]);
    let upper = Archive::of([Member::file("e/.wh.passwd", ""), Member::file(".wh.e", "")]);
    assert_eq!(names(&files_of(&[lower, upper]).unwrap()), ["", "/etc"]);
}

#[test]
fn name_with_dot_dot_is_rejected_for_every_type() {
    for kind in *b"0123456" {
        for name in ["../x", "a/../../x", "/../x", "..", "a/..", "./../x"] {
            let member = Member::new(kind, name, "a", "").device(1, 3);
            assert_eq!(fault(&[Archive::of([member])]), Fault::DotDot, "{name} of type {}", kind as char);
        }
    }
    let files = files_of(&[Archive::of([Member::file("/abs", ""), Member::file("./b//c", "")])]).unwrap();
    assert_eq!(names(&files), ["", "/abs", "/b", "/b/c"]);
}

#[test]
fn root_can_only_be_a_directory() {
    for name in ["/", ".", "./", "//"] {
        let files = files_of(&[Archive::of([Member::directory(name).mode(0o711).owner(5, 6)])]).unwrap();
        assert_eq!((files[""].mode, files[""].owner), (0o040711, (5, 6)), "{name}");
        for kind in *b"012346" {
            assert_eq!(fault(&[Archive::of([Member::new(kind, name, "a", "")])]), Fault::RootNotADirectory);
        }
    }
    assert_eq!(fault(&[Archive::of([Member::file("", "")])]), Fault::NoName);
}

#[test]
fn hard_link_to_an_invalid_target_is_rejected() {
    let with = |link: &str| {
        fault(&[Archive::of([Member::directory("d"), Member::hard_link("a", link), Member::file("z", "")])])
    };
    assert_eq!(with("z"), Fault::TargetMissing("z".into()), "a later entry");
    assert_eq!(with("../../etc/passwd"), Fault::DotDot);
    assert_eq!(with("/etc/passwd"), Fault::TargetMissing("/etc/passwd".into()));
    assert_eq!(with("d"), Fault::TargetIsDirectory("d".into()));
    assert_eq!(with("/"), Fault::TargetIsDirectory("/".into()));
    assert_eq!(with(""), Fault::NoTarget);
    assert_eq!(with("no/such"), Fault::TargetMissing("no/such".into()));
}

#[test]
fn malformed_whiteouts_are_rejected_and_aufs_ignored() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", ".wh.x/file"] {
        for kind in *b"0125" {
            assert_eq!(fault(&[Archive::of([Member::new(kind, name, "a", "")])]), Fault::Whiteout, "{name}");
        }
    }
    let aufs =
        [Member::directory(".wh..wh.plnk"), Member::file(".wh..wh.plnk/12.34", "x"), Member::file(".wh..wh.aufs", "")];
    assert_eq!(names(&files_of(&[Archive::of(aufs)]).unwrap()), [""]);
}

#[test]
fn whiteout_may_have_any_type() {
    let lower = Archive::of([Member::file("a", ""), Member::file("d/x", "")]);
    for kind in *b"012356" {
        let upper = Archive::of([Member::new(kind, ".wh.a", "q", ""), Member::new(kind, "d/.wh..wh..opq", "q", "")]);
        assert_eq!(names(&files_of(&[lower.clone(), upper]).unwrap()), ["", "/d"]);
    }
}

#[test]
fn file_cannot_be_a_parent() {
    let layer = Archive::of([Member::file("a", ""), Member::file("a/b", "")]);
    assert_eq!(fault(&[layer]), Fault::ParentNotADirectory("a".into()));
}

#[test]
fn names_paths_and_depth_are_bounded() {
    let name = |length: usize| "n".repeat(length);
    assert!(files_of(&[Archive::of([Member::file(name(255), "")])]).is_ok());
    assert_eq!(fault(&[Archive::of([Member::file(name(256), "")])]), Fault::NameTooLong);
    for length in 251..=255 {
        let upper = Archive::of([Member::file(format!(".wh.{}", name(length)), "")]);
        let files = files_of(&[Archive::of([Member::file(name(length), "")]), upper]).unwrap();
        assert_eq!(names(&files), [""], "whiteout of a name of {length} bytes");
    }
    assert_eq!(fault(&[Archive::of([Member::file(format!(".wh.{}", name(256)), "")])]), Fault::NameTooLong);
    assert_eq!(fault(&[Archive::of([Member::file("a/".repeat(2048), "")])]), Fault::PathTooLong);
    assert_eq!(fault(&[Archive::of([Member::file(name(65536), "")])]), Fault::PathTooLong);
    assert_eq!(fault(&[Archive::of([Member::file("a/".repeat(1500) + "x", "")])]), Fault::TooDeep);
    // Deeper than one path can name, by links to the deepest directory so far.
    let deep = "d/".repeat(900);
    let stairs = [Member::directory(&deep), Member::symlink("s", &deep), Member::directory(format!("s/{deep}"))];
    assert_eq!(fault(&[Archive::of(stairs)]), Fault::TooDeep);
    assert_eq!(fault(&[Archive::of([Member::symlink("a", name(4096))])]), Fault::PathTooLong);
    let long = Archive::of([Member::symlink("s", name(300)), Member::file("s/x", "")]);
    assert_eq!(fault(&[long]), Fault::NameTooLong, "made by following a link");
}

#[test]
fn device_number_out_of_range_is_rejected() {
    let files = files_of(&[Archive::of([Member::new(b'3', "c", "", "").device(0xfff, 0xfffff)])]).unwrap();
    assert_eq!((files["/c"].mode >> 12, files["/c"].device), (0o02, 0xffff_ffff));
    assert_eq!(fault(&[Archive::of([Member::new(b'4', "b", "", "").device(0x1000, 0)])]), Fault::Device);
    assert_eq!(fault(&[Archive::of([Member::new(b'4', "b", "", "").device(0, 0x10_0000)])]), Fault::Device);
}

#[test]
fn attributes_are_bounded_and_unknown_namespaces_dropped() {
    let with = |key: &str, length: usize| Member::file("a", "").pax(&format!("SCHILY.xattr.{key}"), vec![1; length]);
    let files = files_of(&[Archive::of([with("user.a", 65535)
        .pax("SCHILY.xattr.trusted.overlay.opaque", "y")
        .pax("SCHILY.xattr.com.apple.x", "y")])])
    .unwrap();
    assert_eq!(files["/a"].xattrs, [(1, b"a".to_vec(), vec![1; 65535])]);
    assert!(matches!(fault(&[Archive::of([with("user.a", 65536)])]), Fault::Xattr(_)));
    assert!(matches!(fault(&[Archive::of([with(&format!("user.{}", "n".repeat(251)), 1)])]), Fault::Xattr(_)));
    let many =
        (0..3).fold(Member::file("a", ""), |member, n| member.pax(&format!("SCHILY.xattr.user.{n}"), vec![1; 60_000]));
    assert_eq!(fault(&[Archive::of([many])]), Fault::TooManyXattrs);
}

#[test]
fn number_of_entries_is_bounded() {
    let member = Archive::of([Member::file("a", "")]);
    let one = member.bytes()[..512].to_vec();
    let bytes = one.repeat(limits::MAX_ENTRIES as usize + 1);
    assert!(matches!(layer_files(&bytes), Err(WriteLayerError::Entries)));
    let half = one.repeat(limits::MAX_ENTRIES as usize / 2 + 1);
    let layers = [half.clone(), half].map(|layer| layer_files(&layer).unwrap());
    let result = merged(&layers).map(drop);
    assert!(matches!(result, Err(MergeError::Entry { fault: Fault::TooManyEntries, .. })), "{result:?}");
}

#[test]
fn steps_of_links_and_whiteouts_are_bounded() {
    let long = "x/../".repeat(800);
    let links = (0..39).map(|n| Member::symlink(format!("l{n}"), format!("{long}l{}", n + 1)));
    let files = (0..1000).map(|n| Member::file(format!("l0/{n}"), ""));
    let slow = [Member::directory("x"), Member::directory("l39")].into_iter().chain(links).chain(files);
    assert_eq!(fault(&[Archive::of(slow)]), Fault::TooManySteps);
    let files = (0..2000).map(|n| Member::file(format!("d/{n}"), ""));
    let whiteouts = (0..2000).map(|_| Member::file("d/.wh..wh..opq", ""));
    assert_eq!(fault(&[Archive::of(files.chain(whiteouts))]), Fault::TooManySteps);
}

#[test]
fn error_is_one_line_that_names_the_entry() {
    let error = files_of(&[Archive::of([Member::file("a\n\x1b[31mb/../x", "")])]).unwrap_err().to_string();
    assert_eq!(error, r"entry `a\n\x1b[31mb/../x`: its name contains `..`");
}

#[test]
fn mode_of_a_symbolic_link_is_that_of_linux() {
    let files = files_of(&[Archive::of([Member::symlink("l", "t").mode(0o600)])]).unwrap();
    assert_eq!(files["/l"].mode, 0o120_777);
}

#[test]
fn memory_is_bounded_by_what_entries_imply() {
    let over = Fault::Memory(crate::OverBudget);
    // Each entry implies many directories.
    let deep = (0..200).map(|n| Member::file(format!("{n}/{}x", "d/".repeat(1000)), ""));
    assert_eq!(fault(&[Archive::of(deep)]), over);
    // Each has many attributes, all of them different.
    let attributes = (0..200).map(|n| {
        (0..2000)
            .fold(Member::file(format!("{n}"), ""), |member, k| member.pax(&format!("SCHILY.xattr.user.{n}.{k}"), "x"))
    });
    assert_eq!(fault(&[Archive::of(attributes)]), over);
    let same = (0..400).map(|n| {
        (0..200).fold(Member::file(format!("{n}"), ""), |member, k| member.pax(&format!("SCHILY.xattr.user.{k}"), "x"))
    });
    assert!(files_of(&[Archive::of(same)]).is_ok(), "equal sets of attributes are stored once");
    let links = (0..4000).map(|n| Member::symlink(format!("{n}"), "t".repeat(4000)));
    assert_eq!(fault(&[Archive::of(links)]), over);
    let names = (0..9000).map(|n| Member::file(format!("{n:0255}"), ""));
    assert!(files_of(&[Archive::of(names)]).is_ok());
    let names = (0..19_000).map(|n| Member::file(format!("{n:0255}"), ""));
    assert_eq!(fault(&[Archive::of(names)]), over);
}

#[test]
fn zeros_read_back_and_take_no_space() {
    let mut content = vec![0; 3 << 20];
    content[1 << 20] = 7;
    let layers = [Archive::of([Member::file("a", &content), Member::file("z", vec![0; 2 << 20])]).bytes()];
    let image = crate::testing::image_of(&layers).unwrap();
    assert!(image.len() < 150_000, "{}", image.len());
    let files = crate::testing::read_back(&image);
    assert_eq!((files["/a"].content == content, files["/z"].content == vec![0; 2 << 20]), (true, true));
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers that the kernel wrote, and damaged ones.

use super::*;
use crate::tar::{Reader, TarWriter};
use crate::testing::overlay::Layer;
use crate::testing::{Archive, Found as FoundFile, Member, image_of, read_back};
use std::collections::BTreeMap;

/// An image with a file of each kind.
fn image() -> Archive {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Archive::of([
        Member::directory("bin"),
        Member::file("bin/ping", "ping").mode(0o755).pax("SCHILY.xattr.security.capability", capability),
        Member::file("bin/sh", vec![7; 100_000]).mode(0o755),
        Member::hard_link("bin/ash", "bin/sh"),
        Member::directory("etc"),
        Member::file("etc/passwd", "root:x:0:0\n").pax("mtime", "1700000000.123456789"),
        Member::file("etc/hosts", "of the image\n"),
        Member::file("etc/group", "root:x:0:\n").pax("mtime", "1700000000.5"),
        Member::directory("old"),
        Member::file("old/a", "a"),
        Member::file("old/b", "b").pax("mtime", "1700000000"),
        Member::directory("old/sub"),
        Member::file("old/sub/c", "c"),
        Member::directory("a"),
        Member::file("a/x", "x"),
        Member::file("a-b", "between a and a/x for a sort by bytes"),
        Member::symlink("link", "etc/passwd"),
        Member::new(b'3', "null", "", "").device(1, 3),
        Member::new(b'6', "fifo", "", ""),
    ])
}

fn lines(tree: &MachineTree) -> Vec<String> {
    let mut lines = Vec::new();
    tree.changes(&mut |kind, path| {
        let letter = match kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        lines.push(format!("{letter} /{}", String::from_utf8_lossy(path)));
        Ok(())
    })
    .unwrap();
    lines
}

/// Commands in the merged tree, and what `docker diff` lists after them.
const CHANGES: &[(&str, &[&str])] = &[
    ("true", &[]),
    ("cat etc/passwd bin/sh > /dev/null; ls -lR > /dev/null", &[]),
    ("rm etc/passwd; echo hi > new; mkdir -p made/b", &["C /etc", "D /etc/passwd", "A /made", "A /made/b", "A /new"]),
    ("chmod 0644 etc/passwd; chown 0:0 etc/passwd", &[]),
    ("chmod 0600 etc/passwd", &["C /etc", "C /etc/passwd"]),
    ("touch etc/passwd", &["C /etc", "C /etc/passwd"]),
    // The content alone is another one.
    (
        "touch -r etc/group t; printf 'root:y:0:\\n' > etc/group; touch -r t etc/group; rm t",
        &["C /etc", "C /etc/group"],
    ),
    ("setcap -r bin/ping 2> /dev/null || setfattr -x security.capability bin/ping", &["C /bin", "C /bin/ping"]),
    ("rm -r old", &["D /old"]),
    ("rm -r old; mkdir old; echo > old/new", &["C /old", "D /old/a", "D /old/b", "A /old/new", "D /old/sub"]),
    ("cp -p old/b k; rm -r old; mkdir old; mv k old/b", &["C /old", "D /old/a", "D /old/sub"]),
    ("rm -r old; echo > old", &["C /old"]),
    ("rm a-b; mkdir -p a-b/c", &["C /a-b", "A /a-b/c"]),
    ("rm a/x; touch a-b", &["C /a", "D /a/x", "C /a-b"]),
    ("echo > new; rm new; mkdir d; rmdir d", &[]),
    ("mv etc/passwd etc/moved", &["C /etc", "A /etc/moved", "D /etc/passwd"]),
    ("ln etc/passwd linked", &["A /linked"]),
    ("ln -s x y; mknod n c 1 5; mkfifo f", &["A /f", "A /n", "A /y"]),
    ("rm null fifo link", &["D /fifo", "D /link", "D /null"]),
    ("rm link; ln -s etc/shadow link", &["C /link"]),
    ("chmod 0700 old", &["C /old"]),
    ("touch old; touch .", &[]),
    // What PID 1 does.
    ("echo > etc/hosts; echo > etc/hostname; ln -s /proc/mounts etc/mtab; mkdir proc sys dev", &[]),
    ("rm -r etc; mkdir etc; echo > etc/hosts", &["C /etc", "D /etc/group", "D /etc/passwd"]),
    ("mkdir proc; echo > proc/file; rm etc/hosts", &["C /etc", "D /etc/hosts", "A /proc", "A /proc/file"]),
];

#[test]
fn changes_are_those_of_docker() {
    for (changes, expected) in CHANGES {
        let Some(layer) = Layer::of(&image(), changes) else { return };
        for file in ["layer.ext4", "dirty.ext4"] {
            assert_eq!(lines(&layer.tree(file).unwrap()), *expected, "{changes}, {file}");
        }
    }
}

/// Commands of which a layer has to have more than a list of changes shows.
const LAYER_CHANGES: &[&str] = &[
    "ln etc/passwd linked; ln linked old/linked; echo x >> linked",
    "chmod 0755 bin/ash; ln bin/sh a/sh",
    "rm bin/sh; echo > bin/sh",
    "rm -r old; mkdir -p old/sub/c; echo > old/sub/c/d; chown 70000:3000000000 old; chmod 2711 old",
    "rm -r old; mkdir old; rmdir old; ln -s a old",
    "rm -r old a etc bin; mkdir a",
    "rm link; mkdir link; echo > link/x; rm -r a; echo > a",
    "truncate -s 3M sparse; echo end >> sparse; truncate -s 2000 etc/passwd; : > etc/hosts",
    // setxattr(2)
    "perl -e 'sub set { my ($p, $n, $v) = @_; syscall(188, $p, $n, $v, length $v, 0) == 0 or die $! } \
        set(\"a\", \"user.a\", \"b\"); set(\"a/x\", \"trusted.t\", \"c\\0\\n\"); set(\"etc/hosts\", \"user.l\", \"x\" x 2000)'",
    "touch -d @-1.5 early; touch -d @5000000000.000000001 late; touch -d '1901-12-14 UTC' first",
    "n=$(printf %0255d 1); echo > $n; rm -r old/sub; mkdir old/$n; echo > old/$n/$n",
    "echo > 'a new\nline'; echo > $(printf '\\001\\377'); mkdir $(printf '\\303\\274')",
    "chmod 0700 .; rm a-b; chown 5:6 .",
    "mknod a/n b 7 300000; mkfifo -m 0600 fifo2; rm null; mknod null c 1 3",
    "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"s\", Listen => 1)'; rm a/x; perl -MIO::Socket::UNIX -e \
        'IO::Socket::UNIX->new(Local => \"a/x\", Listen => 1)'",
];

/// What the files of both have to have in common: not their places, nor the times of directories, of which a layer has not all.
fn comparable(archives: &[Vec<u8>], with_times: bool) -> BTreeMap<String, FoundFile> {
    let mut files = read_back(&image_of(archives).unwrap());
    for file in files.values_mut() {
        file.nid = 0;
        if !with_times && file.mode >> 12 == 0o4 {
            file.mtime = (0, 0);
        }
    }
    files
}

/// What GNU tar sees of the merged tree.
#[test]
fn archives_give_the_files_of_the_machine() {
    for changes in CHANGES.iter().map(|(changes, _)| changes).chain(LAYER_CHANGES) {
        let Some(layer) = Layer::of(&image(), changes) else { return };
        let tree = layer.whole_tree("dirty.ext4").unwrap();
        let kernels = std::fs::read(layer.path("all.tar")).unwrap();
        let (mut of_layer, mut of_all) = (Vec::new(), Vec::new());
        tree.write_layer(&mut of_layer).unwrap();
        tree.write_archive(&mut of_all).unwrap();
        let expected = comparable(std::slice::from_ref(&kernels), false);
        assert_eq!(comparable(&[image().bytes(), of_layer], false), expected, "layer of {changes}");
        assert_eq!(comparable(&[of_all], true), comparable(&[kernels], true), "all of {changes}");
    }
}

#[test]
fn files_are_found_and_copied_by_their_paths() {
    let changes = "mkdir -p d/e; echo > d/e/new; ln d/e/new d/hard; ln -s ../etc d/link; ln -s /d/link/passwd out; ln -s loop loop; \
        ln -s ../../../d up; rm -r old; mkdir old; rm etc/group";
    let Some(layer) = Layer::of(&image(), changes) else { return };
    let tree = layer.tree("layer.ext4").unwrap();
    let copied = |path: &str, follows, name: &str| {
        let location = tree.find_path(path.as_bytes(), follows).unwrap();
        let mut tar = TarWriter::new(Vec::new());
        tree.copy(&location, name.as_bytes(), &mut tar).unwrap();
        let bytes = tar.finish().unwrap();
        let mut reader = Reader::new(&bytes[..]);
        let entries = std::iter::from_fn(|| reader.next_entry().unwrap());
        entries
            .map(|entry| String::from_utf8([&entry.path[..], b" ", &entry.link].concat()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(copied("/d", false, "x"), ["x/ ", "x/e/ ", "x/e/new ", "x/hard x/e/new", "x/link ../etc"]);
    assert_eq!(copied("d/e/.", false, "."), ["./ ", "./new "]);
    assert_eq!(copied("//d/../d/./e//new", false, "n"), ["n "]);
    assert_eq!(copied("/old", false, "old"), ["old/ "]);
    assert_eq!(copied("/out", false, "out"), ["out /d/link/passwd"]);
    for (path, follows) in
        [("/out", true), ("/d/link/passwd", false), ("/up/link/../etc/passwd", false), ("../../out", true)]
    {
        let location = tree.find_path(path.as_bytes(), follows).unwrap();
        assert_eq!((location.name(), location.kind()), (Some(&b"passwd"[..]), FileKind::Regular), "{path}");
    }
    assert_eq!(copied("/d/link/", false, "l")[..2], ["l/ ", "l/hosts "]);
    assert_eq!(tree.find_path(b"/..", false).unwrap().name(), None);
    assert_eq!(copied("/", false, "").len(), copied("", false, ".").len());
    for (path, expected) in [
        ("/nowhere", "/nowhere: no such file or directory"),
        ("/etc/group", "/etc/group: no such file or directory"),
        ("/old/a", "/old/a: no such file or directory"),
        ("/etc/passwd/", "/etc/passwd/: not a directory"),
        ("/loop", "/loop: too many symbolic links"),
    ] {
        assert_eq!(tree.find_path(path.as_bytes(), true).unwrap_err().to_string(), expected);
    }
    assert!(tree.find_path("/d/..".repeat(3000).as_bytes(), false).unwrap_err().to_string().contains("too long"));
}

#[test]
fn layer_of_an_unchanged_machine_has_no_entries() {
    let Some(layer) = Layer::of(&image(), "cat bin/sh > /dev/null; mkdir proc; echo > etc/hosts") else { return };
    let mut bytes = Vec::new();
    assert_eq!(layer.tree("layer.ext4").unwrap().write_layer(&mut bytes).unwrap(), 0);
    assert_eq!(bytes, [0; 1024]);
}

#[test]
fn files_that_a_layer_cannot_have_are_rejected() {
    for (changes, expected) in [
        ("echo > old/.wh.a", "/old/.wh.a: a name that begins with `.wh.` has another meaning in a layer"),
        ("truncate -s 9T a/large", "/a/large: the files have more than 128 GiB, holes included"),
        (
            "perl -e 'for (1..21) { $d = \"d\" x 200; mkdir $d; chdir $d or die $! }'",
            "the path is too long for an archive",
        ),
    ] {
        let Some(layer) = Layer::of(&image(), changes) else { return };
        let error = layer.tree("layer.ext4").unwrap().write_layer(std::io::sink()).unwrap_err();
        assert!(error.to_string().ends_with(expected) && !error.is_host(), "{error}");
    }
}

/// Any byte of the image's inodes and directories, with any value: the comparison ends, with an error or not.
#[test]
fn comparison_survives_a_damaged_root_disk() {
    let changes = "rm -r old; mkdir old; cp -p a-b k; rm a-b; mv k a-b; chmod 0644 etc/passwd";
    let Some(layer) = Layer::of(&image(), changes) else { return };
    let path = layer.path("lower.erofs");
    let sound = std::fs::read(&path).unwrap();
    let (mut rejected, mut bytes) = (0, sound.clone());
    for place in (1024..sound.len().min(8192)).step_by(3) {
        for value in [0, 0xff, sound[place] ^ 0x10] {
            bytes[place] = value;
            std::fs::write(&path, &bytes).unwrap();
            rejected += match layer.tree("layer.ext4") {
                Err(_) => 1,
                Ok(tree) => u32::from(tree.changes(&mut |_, _| Ok(())).is_err()),
            };
        }
        bytes[place] = sound[place];
    }
    assert!(rejected > 50, "{rejected}");
}

#[test]
fn layer_is_rejected_where_a_directory_is_redirected_or_nested_too_deeply() {
    let deep = "n=0; while [ $n -lt 1030 ]; do mkdir d; cd d; n=$((n + 1)); done";
    let Some(layer) = Layer::of(&image(), deep) else { return };
    let error = layer.tree("layer.ext4").unwrap().changes(&mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("nested too deeply"), "{error}");
    let Some(layer) = Layer::of(&image(), "mkdir new") else { return };
    let mut debugfs = std::process::Command::new("debugfs");
    debugfs.args(["-w", "-R", "ea_set overlay/upper/new trusted.overlay.redirect old"]).arg(layer.path("layer.ext4"));
    assert!(debugfs.output().unwrap().status.success());
    let error = layer.tree("layer.ext4").unwrap().changes(&mut |_, _| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "/new: a redirected directory is not supported");
}

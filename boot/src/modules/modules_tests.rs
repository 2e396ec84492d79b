// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A small tree of modules, as `depmod` writes it, and the modules loaded from it.

use super::*;
use crate::compression::tests::pack;
use tempfile::TempDir;

const RELEASE: &str = "6.12.117+deb12-cloud-amd64";
const DEP: &str = "\
kernel/virtio_mmio.ko.xz:
kernel/erofs.ko.zst: kernel/libcrc32c.ko
kernel/libcrc32c.ko:
kernel/crc32c-intel.ko:
kernel/virtio_net.ko.gz: kernel/net_failover.ko kernel/failover.ko
kernel/net_failover.ko: kernel/failover.ko
kernel/failover.ko:
";

/// `ROOT/boot/vmlinuz` and its modules in `ROOT/lib/modules/RELEASE`.
fn tree() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("lib/modules").join(RELEASE);
    fs::create_dir_all(directory.join("kernel")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.join(name), bytes).unwrap();
    write("modules.dep", DEP.as_bytes());
    write("modules.builtin", b"kernel/drivers/char/virtio_console.ko\nkernel/fs/ext4/ext4.ko\n");
    write("modules.softdep", b"softdep libcrc32c pre: crc32c\n");
    write("modules.alias", b"alias crc32c crc32c_intel\nalias acpi*:LNRO0005:* virtio_mmio\n");
    write("kernel/virtio_mmio.ko.xz", &pack(Compression::Xz, b"\x7fELF virtio_mmio"));
    write("kernel/erofs.ko.zst", &pack(Compression::Zstd, b"\x7fELF erofs"));
    write("kernel/virtio_net.ko.gz", &pack(Compression::Gzip, b"\x7fELF virtio_net"));
    for name in ["libcrc32c", "crc32c-intel", "net_failover", "failover"] {
        write(&format!("kernel/{name}.ko"), format!("\x7fELF {name}").as_bytes());
    }
    (root, directory)
}

fn find(root: &Path) -> Result<Option<ModuleTree>, ModulesError> {
    ModuleTree::find(&root.join("boot/vmlinuz"), RELEASE, None)
}

fn required(name: &str) -> WantedModule<'_> {
    WantedModule { name, required: true }
}

fn names(modules: &[Module]) -> Vec<(&str, bool)> {
    modules.iter().map(|module| (&*module.name, module.required)).collect()
}

#[test]
fn load_returns_unpacked_modules_once_in_load_order() {
    let (root, _) = tree();
    let tree = find(root.path()).unwrap().unwrap();
    let wanted = [required("virtio_mmio"), required("virtio_net"), required("erofs"), required("failover")];
    let modules = tree.load(&wanted).unwrap();
    let expected = [
        ("virtio_mmio", true),
        ("failover", true),
        ("net_failover", true),
        ("virtio_net", true),
        ("crc32c_intel", false),
        ("libcrc32c", true),
        ("erofs", true),
    ];
    assert_eq!(names(&modules), expected);
    assert_eq!((&*modules[0].object, &*modules[6].object), (&b"\x7fELF virtio_mmio"[..], &b"\x7fELF erofs"[..]));
}

#[test]
fn builtin_modules_are_skipped_and_optional_may_be_missing() {
    let (root, directory) = tree();
    let optional = WantedModule { name: "virtio_rng", required: false };
    let tree = find(root.path()).unwrap().unwrap();
    assert_eq!(tree.load(&[required("virtio_console"), required("ext4"), optional]).unwrap(), []);
    assert!(tree.has("ext4") && tree.has("erofs") && !tree.has("virtio_rng"));
    // An alias of a built-in module needs no module either.
    fs::write(directory.join("modules.builtin.modinfo"), b"crc32c_generic.alias=crc32c\0").unwrap();
    let modules = find(root.path()).unwrap().unwrap().load(&[required("libcrc32c")]).unwrap();
    assert_eq!(names(&modules), [("libcrc32c", true)]);
}

#[test]
fn missing_driver_is_named_with_the_directory() {
    let (root, directory) = tree();
    let error = find(root.path()).unwrap().unwrap().load(&[required("overlay")]).unwrap_err();
    let directory = directory.display();
    assert_eq!(
        error.to_string(),
        format!("kernel {RELEASE} has no overlay: it is neither built in nor in {directory}")
    );
}

#[test]
fn find_searches_beside_the_kernel_and_in_the_option() {
    let (root, directory) = tree();
    let elsewhere = tempfile::tempdir().unwrap();
    let kernel = elsewhere.path().join("a/b/vmlinuz");
    assert!(ModuleTree::find(&kernel, RELEASE, None).unwrap().is_none());
    assert!(ModuleTree::find(&root.path().join("vmlinuz"), RELEASE, None).unwrap().is_some());
    for named in [root.path(), &root.path().join("lib/modules"), &directory] {
        let found = ModuleTree::find(&kernel, RELEASE, Some(named)).unwrap().unwrap();
        assert_eq!(found.directory(), directory);
    }
    let error = ModuleTree::find(&kernel, RELEASE, Some(elsewhere.path())).unwrap_err().to_string();
    assert!(error.starts_with("--modules ") && error.contains(RELEASE), "{error}");
}

#[test]
fn damaged_modules_and_tables_are_named() {
    let (root, directory) = tree();
    let load = |name| find(root.path()).unwrap().unwrap().load(&[required(name)]).unwrap_err();
    fs::write(directory.join("kernel/virtio_mmio.ko.xz"), "\u{fd}7zXZ").unwrap();
    assert!(load("virtio_mmio").to_string().contains("virtio_mmio.ko.xz is not a kernel module"));
    fs::write(directory.join("kernel/virtio_mmio.ko.xz"), &pack(Compression::Xz, b"\x7fELF")[..20]).unwrap();
    assert!(matches!(load("virtio_mmio"), ModulesError::Unpack { .. }));
    fs::remove_file(directory.join("kernel/virtio_mmio.ko.xz")).unwrap();
    assert!(matches!(load("virtio_mmio"), ModulesError::Read { .. }));
    fs::write(directory.join("modules.dep"), b"\xff\xfe").unwrap();
    assert!(matches!(find(root.path()).unwrap_err(), ModulesError::Table { .. }));
}

#[test]
fn cycle_of_dependencies_ends() {
    let (root, directory) = tree();
    fs::write(
        directory.join("modules.dep"),
        "kernel/failover.ko: kernel/libcrc32c.ko\nkernel/libcrc32c.ko: kernel/failover.ko\n",
    )
    .unwrap();
    let modules = find(root.path()).unwrap().unwrap().load(&[required("failover")]).unwrap();
    assert_eq!(names(&modules), [("libcrc32c", true), ("failover", true)]);
}

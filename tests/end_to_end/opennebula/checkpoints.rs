// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `save` and `restore`, with a script in the place of coracle: what it is called with, and what is left after a failure.

use super::driver::Driver;
use super::{MEMORY, element, nic, vm};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

pub(super) fn opennebula_save_leaves_the_machine_or_its_checkpoint() {
    let driver = Driver::with_stub();
    let (dir, machine) = (&driver.dir, driver.state.join("coracle/one-41"));
    let checkpoint = dir.file("datastores/0/41/checkpoint");
    let path = checkpoint.display().to_string();
    let save = |file: &str| driver.action("save", &["one-41", file], "");
    save(&path).assert_failure("one-41: no such machine");
    fs::create_dir_all(&machine).expect("the directory is writable");
    for directory in ["datastores/0/42", "datastores/x/41", "outside/0/41"] {
        fs::create_dir_all(dir.file(directory)).expect("the directory is writable");
    }
    symlink(dir.file("outside/0"), dir.file("datastores/9")).expect("the directory is writable");
    let expected = format!("expected {}/DATASTORE_ID/41/checkpoint", dir.file("datastores").display());
    for file in ["", "checkpoint", "/etc/passwd", "/"] {
        save(file).assert_failure(&format!("one-41: checkpoint '{file}': {expected}"));
    }
    for file in [
        "0/42/checkpoint",
        "x/41/checkpoint",
        "0/41/disk.0",
        "0/41/",
        "9/41/checkpoint",
        "5/41/checkpoint",
        "0/41/../41",
    ] {
        let file = dir.file("datastores").join(file).display().to_string();
        save(&file).assert_failure(&format!("one-41: checkpoint '{file}': {expected}"));
    }
    assert_eq!(driver.words(), [""; 0]);
    for (verb, words) in [
        ("pause", &["pause one-41", "resume one-41"][..]),
        ("snapshot", &["pause one-41", "snapshot one-41", "resume one-41"]),
        ("rm", &["pause one-41", "snapshot one-41", "rm -f one-41", "resume one-41"]),
    ] {
        let fails = driver.state.join(format!("fail-{verb}"));
        fs::write(&fails, "").expect("the directory is writable");
        save(&path).assert_failure("no");
        assert_eq!(driver.words(), words);
        assert!(machine.exists() && !checkpoint.exists(), "{verb}");
        fs::remove_file(fails).expect("it was written");
    }
    // What an earlier save left is in the way of nothing, whatever it is.
    fs::write(&checkpoint, "old").expect("the directory is writable");
    save(&path).assert_success("");
    assert_eq!(driver.words(), ["pause one-41", "snapshot one-41", "rm -f one-41"]);
    assert!(!machine.exists() && checkpoint.is_dir());
    // The same by another path of the datastores.
    fs::create_dir_all(&machine).expect("the directory is writable");
    symlink(dir.file("datastores/0"), dir.file("datastores/8")).expect("the directory is writable");
    save(&dir.file("datastores/8/41/checkpoint").display().to_string()).assert_success("");
    assert!(!machine.exists() && checkpoint.is_dir());
}

pub(super) fn opennebula_restore_leaves_the_machine_or_its_checkpoint() {
    let driver = Driver::with_stub();
    let machine = driver.state.join("coracle/one-41");
    let checkpoint = driver.dir.file("datastores/0/41/checkpoint");
    let path = checkpoint.display().to_string();
    let document = vm(MEMORY, &element("CORACLE_IMAGE", "redis"));
    let action = format!("<VMM_DRIVER_ACTION_DATA><HOST>host</HOST>{document}</VMM_DRIVER_ACTION_DATA>");
    let canonical = checkpoint.parent().and_then(|parent| parent.canonicalize().ok()).expect("it was made");
    let missing = format!("{}: not a snapshot", canonical.join("checkpoint").display());
    driver.restore(&path, "one-41", &action).assert_failure(&missing);
    fs::write(&checkpoint, "of libvirt").expect("the directory is writable");
    driver.restore(&path, "one-41", &action).assert_failure(&missing);
    fs::remove_file(&checkpoint).expect("it was written");
    fs::create_dir(&checkpoint).expect("the directory is writable");
    for (file, id, document, expected) in [
        (&*path, "one-42", &*action, "VM XML: /VM/ID 41: the call is for one-42"),
        (&path, "../x", &action, "deploy id '../x': expected one-NUMBER"),
        (&path, "", &action, "deploy id '': expected one-NUMBER"),
        (&path, "one-41", "", "VM XML: not well-formed"),
        (&path, "one-41", &action.replace("256", "x"), "one-41: MEMORY 'x': not a number of MiB"),
        (
            &path,
            "one-41",
            &vm(&format!("{MEMORY}{}", nic(&[("TARGET", "eth0")])), &element("CORACLE_IMAGE", "redis")),
            "one-41: NIC 0: TARGET 'eth0': expected one-41-0",
        ),
    ] {
        driver.restore(file, id, document).assert_failure(expected);
    }
    assert_eq!(driver.words(), [""; 0]);
    let fails = driver.state.join("fail-run");
    fs::write(&fails, "").expect("the directory is writable");
    driver.restore(&path, "one-41", &action).assert_failure("no");
    assert_eq!(driver.words(), ["run -d --from", "rm -f one-41"]);
    assert!(!machine.exists() && checkpoint.is_dir());
    fs::remove_file(fails).expect("it was written");
    // What runs is not replaced.
    let fails = driver.state.join("fail-rm");
    fs::write(&fails, "").expect("the directory is writable");
    fs::create_dir(&machine).expect("the directory is writable");
    driver.restore(&path, "one-41", &action).assert_failure("no");
    assert_eq!(driver.words(), ["rm one-41"]);
    assert!(machine.exists() && checkpoint.is_dir());
    fs::remove_file(fails).expect("it was written");
    driver.restore(&path, "one-41", &action).assert_success("");
    assert_eq!(driver.words(), ["rm one-41", "run -d --from"]);
    assert_eq!(driver.machine(), json!({ "version": 1, "name": "one-41", "network": ["none"] }));
    assert!(machine.exists() && !checkpoint.exists());
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The OpenNebula driver, installed among files that stand for OpenNebula's, and called as OpenNebula calls it: with a VM's XML on
//! standard input. Most tests put a script in the place of coracle, which shows what it would be given.

mod checkpoints;
mod driver;

use checkpoints::{
    opennebula_restore_leaves_the_machine_or_its_checkpoint, opennebula_save_leaves_the_machine_or_its_checkpoint,
};
use coracle_tests::{Case, NetworkNamespace, case, coracle, image, images, iso_image};
use driver::Driver;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full[Root, Xmllint], opennebula_deploys_resets_saves_restores_and_shuts_down),
        case!(Quick[Xmllint], opennebula_machine_is_what_the_vm_says),
        case!(Quick[Xmllint], opennebula_disks_are_files_of_the_datastore),
        case!(Quick[Xmllint], opennebula_rejects_a_tenants_values),
        case!(Quick[Xmllint], opennebula_actions_name_one_machine_exactly),
        case!(Quick[Xmllint], opennebula_restarts_from_the_document_of_the_action),
        case!(Quick[Xmllint], opennebula_save_leaves_the_machine_or_its_checkpoint),
        case!(Quick[Xmllint], opennebula_restore_leaves_the_machine_or_its_checkpoint),
    ]
}

/// A VM in the shape of OpenNebula's own, with `template` in its TEMPLATE and `user` in its USER_TEMPLATE.
fn vm(template: &str, user: &str) -> String {
    format!(
        "<VM><ID>41</ID><UID>2</UID><GID>100</GID><UNAME>tenant</UNAME><GNAME>users</GNAME><NAME>web</NAME>\
         <PERMISSIONS><OWNER_U>1</OWNER_U><OWNER_M>1</OWNER_M><OWNER_A>0</OWNER_A></PERMISSIONS>\
         <LAST_POLL>0</LAST_POLL><STATE>3</STATE><LCM_STATE>2</LCM_STATE><RESCHED>0</RESCHED><STIME>1795770000</STIME>\
         <ETIME>0</ETIME><DEPLOY_ID/><MONITORING/>\
         <TEMPLATE><AUTOMATIC_REQUIREMENTS><![CDATA[(\"CLUSTERS/ID\" @> 0)]]></AUTOMATIC_REQUIREMENTS>\
         <CPU><![CDATA[0.5]]></CPU>{template}<TEMPLATE_ID><![CDATA[3]]></TEMPLATE_ID><VMID><![CDATA[41]]></VMID></TEMPLATE>\
         <USER_TEMPLATE>{user}<LOGO><![CDATA[images/logos/linux.png]]></LOGO></USER_TEMPLATE>\
         <HISTORY_RECORDS><HISTORY><OID>41</OID><SEQ>0</SEQ><HOSTNAME>host</HOSTNAME><HID>1</HID><DS_ID>0</DS_ID>\
         <VM_MAD><![CDATA[coracle]]></VM_MAD><TM_MAD><![CDATA[ssh]]></TM_MAD></HISTORY></HISTORY_RECORDS></VM>"
    )
}

fn element(name: &str, value: &str) -> String {
    format!("<{name}><![CDATA[{value}]]></{name}>")
}

/// An element of elements.
fn vector(name: &str, pairs: &[(&str, &str)]) -> String {
    let inside: String = pairs.iter().map(|(name, value)| element(name, value)).collect();
    format!("<{name}>{inside}</{name}>")
}

const MEMORY: &str = "<MEMORY><![CDATA[256]]></MEMORY>";

fn nic(changed: &[(&str, &str)]) -> String {
    let mut pairs = vec![
        ("AR_ID", "0"),
        ("BRIDGE", "onebr0"),
        ("BRIDGE_TYPE", "linux"),
        ("IP", "10.9.0.5"),
        ("MAC", "02:00:0a:09:00:05"),
        ("NETWORK", "private"),
        ("NIC_ID", "0"),
        ("SECURITY_GROUPS", "0"),
        ("TARGET", "one-41-0"),
        ("VN_MAD", "bridge"),
    ];
    pairs.retain(|(name, _)| changed.iter().all(|(other, _)| name != other));
    vector("NIC", &[&*pairs, changed].concat())
}

fn opennebula_deploys_resets_saves_restores_and_shuts_down() {
    let driver = Driver::install(&coracle().display().to_string());
    let (dir, remotes, state) = (&driver.dir, &driver.remotes, &driver.state);
    // The image is in the store: its registry is not asked.
    let store = state.join("data");
    let verb = |verb, words: &[&str]| dir.invocation(words).verb(verb).env("XDG_DATA_HOME", &store).finish();
    let loaded = verb("load", &["-i", image("redis").strip_prefix("oci:").expect("it is a layout"), "--json"]);
    let loaded: Value = serde_json::from_str(&loaded.stdout_text()).expect("it prints JSON");
    verb("tag", &[loaded[0]["digest"].as_str().expect("it has one"), "docker.io/team/redis:1"]).assert_status(0);

    let network = NetworkNamespace::empty(dir, "");
    let mount = network.command("mount").args(["-t", "sysfs", "none", "/sys"]).status().expect("mount(8) starts");
    assert!(mount.success(), "its /sys shows its interfaces");
    for words in ["link add onebr0 type bridge", "address add 10.9.0.1/24 dev onebr0", "link set onebr0 up"] {
        let _ = network.ip(words);
    }
    let inside = |script: &str, words: &[&str], document: &str| {
        let mut command = network.command(&remotes.join(script).display().to_string());
        command.args(words).args(["host", "41", "0"]);
        driver.script(command, document)
    };
    let exec = |words: &[&str]| {
        let mut command = Command::new(coracle());
        command.arg("exec").args(words).env("XDG_RUNTIME_DIR", state).stdin(Stdio::null());
        String::from_utf8(command.output().expect("coracle starts").stdout).expect("it prints text")
    };
    let context = vector(
        "CONTEXT",
        &[
            ("DISK_ID", "1"),
            ("ETH0_IP", "10.9.0.5"),
            ("ETH0_MASK", "255.255.255.0"),
            ("ETH0_MAC", "02:00:0a:09:00:05"),
            ("GREETING", "a < b & \"c\"\n'd' \\$HOME"),
            ("NETWORK", "YES"),
            ("SET_HOSTNAME", "web"),
            ("SSH_PUBLIC_KEY", "ssh-ed25519 A me"),
            ("START_SCRIPT", "echo \"on $HOSTNAME\" > /data/started"),
        ],
    );
    // What OpenNebula makes of it.
    let script = "SSH_PUBLIC_KEY='ssh-ed25519 A me'\nSTART_SCRIPT='echo \"on $HOSTNAME\" > /data/started'\n";
    fs::write(dir.file("datastores/0/41/disk.1"), iso_image("CONTEXT.SH;1", script.as_bytes()))
        .expect("it is writable");
    let image = element("CORACLE_IMAGE", "team/redis:1");
    let document = vm(&format!("<MEMORY>128</MEMORY>{context}{}", nic(&[])), &image);
    let status = || driver.probe("vm/status/state.sh");
    let running = "VM = [ ID=\"41\", DEPLOY_ID=\"one-41\", STATE=\"RUNNING\" ]\n";

    inside("vmm/coracle/deploy", &["/var/lib/one/datastores/0/41/deployment.0"], &document).assert_success("one-41\n");
    assert!(status().ends_with(running), "{}", status());
    assert_eq!(exec(&["-u", "root", "one-41", "cat", "/root/.ssh/authorized_keys"]), "ssh-ed25519 A me\n");
    assert_eq!(exec(&["one-41", "sh", "-c", "hostname; echo \"$GREETING\""]), "web\na < b & \"c\"\n'd' \\$HOME\n");
    // The image's command runs, and the machine has the address of CONTEXT.
    let listening = "until redis-cli ping > /dev/null 2>&1; do sleep 0.1; done; redis-cli set k v";
    assert_eq!(exec(&["one-41", "sh", "-c", listening]), "OK\n");
    assert_eq!(exec(&["one-41", "cat", "/data/started"]), "on web\n");
    let ping = || {
        network.enter(|| {
            let mut stream = TcpStream::connect("10.9.0.5:6379").expect("the bridge reaches the machine");
            stream.write_all(b"PING\r\n").expect("it is connected");
            let mut answer = [0; 7];
            stream.read_exact(&mut answer).map(|()| answer).expect("it answers")
        })
    };
    assert_eq!(&ping(), b"+PONG\r\n");
    assert_eq!(exec(&["one-41", "sh", "-c", "echo kept > /data/kept; sync"]), "");
    let usage = driver.probe("vm/monitor/usage.sh");
    let usage = usage.trim_end().strip_prefix("VM = [ ID=\"41\", DEPLOY_ID=\"one-41\", MONITOR=\"");
    let usage = usage.and_then(|usage| usage.strip_suffix("\" ]")).expect("it is one machine");
    let decoded = Command::new("base64").arg("-d").arg(dir.write("usage", usage)).output().expect("a coreutil");
    let decoded = String::from_utf8(decoded.stdout).expect("it is text");
    let read = decoded.lines().find_map(|line| line.strip_prefix("DISKRDBYTES=\"")?.strip_suffix('"')?.parse().ok());
    assert!(read.is_some_and(|bytes: u64| bytes > 0), "{decoded}");

    let action = format!("<VMM_DRIVER_ACTION_DATA><HOST>host</HOST>{document}</VMM_DRIVER_ACTION_DATA>");
    inside("vmm/coracle/reset", &["one-41"], &action).assert_success("");
    assert_eq!(exec(&["one-41", "sh", "-c", "cat /data/kept; hostname"]), "kept\nweb\n");

    // OpenNebula moves the directory of the VM while it is saved, to another datastore or host.
    assert_eq!(exec(&["one-41", "sh", "-c", &listening.replace("set k v", "set k saved")]), "OK\n");
    let checkpoint = dir.file("datastores/0/41/checkpoint");
    let words = ["one-41", &checkpoint.display().to_string()];
    inside("vmm/coracle/save", &words, &action).assert_success("");
    assert_eq!(status(), "SYNC_STATE=yes\nMISSING_STATE=POWEROFF\n");
    assert!(!network.ip("link").contains("one-41-0"), "the tap is left");
    fs::create_dir(dir.file("datastores/7")).expect("it is writable");
    fs::rename(dir.file("datastores/0/41"), dir.file("datastores/7/41")).expect("it is writable");
    let moved = dir.file("datastores/7/41/checkpoint");
    let mut restore = network.command(&remotes.join("vmm/coracle/restore").display().to_string());
    restore.args([&*moved.display().to_string(), "host", "one-41", "41", "7"]);
    driver.script(restore, &action).assert_success("");
    assert!(status().ends_with(running) && !moved.exists(), "{}", status());
    let script = "redis-cli get k; hostname; cat /data/kept /sys/class/net/eth0/address";
    assert_eq!(exec(&["one-41", "sh", "-c", script]), "saved\nweb\nkept\n02:00:0a:09:00:05\n");
    assert_eq!(&ping(), b"+PONG\r\n");

    inside("vmm/coracle/shutdown", &["one-41"], &action).assert_success("");
    assert_eq!(status(), "SYNC_STATE=yes\nMISSING_STATE=POWEROFF\n");
    assert!(!network.ip("link").contains("one-41-0"), "the tap is left");
    for end in ["shutdown", "cancel"] {
        inside(&format!("vmm/coracle/{end}"), &["one-41"], &action).assert_success("");
    }
    let left = fs::read_dir(store.join("coracle/machines")).expect("there was one").count();
    assert_eq!(left, 0, "a layer is left");
}

fn opennebula_machine_is_what_the_vm_says() {
    let driver = Driver::with_stub();
    let disk = driver.dir.file("datastores/0/41/disk.1");
    fs::write(&disk, [0; 512]).expect("the directory is writable");
    let context = vector(
        "CONTEXT",
        &[
            ("DISK_ID", "1"),
            ("DNS", "10.0.0.53"),
            ("EMPTY", ""),
            ("SSH_PUBLIC_KEY", "ssh-ed25519 A one\nssh-ed25519 B two"),
            ("QUOTED", "\\ \" ' \t $(id) `id` &amp; \u{e9}"),
            ("NETWORK", "YES"),
            ("SEARCH_DOMAIN", "example.org, example.com"),
            ("SET_HOSTNAME", "web.example.org"),
        ],
    );
    let image = element("CORACLE_IMAGE", "registry.example:5000/team/app:2@sha256:00");
    let document = vm(&format!("{MEMORY}<VCPU><![CDATA[2]]></VCPU>{context}"), &image);
    driver.deploy(&document).assert_success("one-41\n");
    assert_eq!(driver.words(), ["run -d --config"]);
    assert_eq!(
        driver.machine(),
        json!({
            "version": 1,
            "name": "one-41",
            "image": "docker://registry.example:5000/team/app:2@sha256:00",
            "context": disk.canonicalize().expect("it is there").display().to_string(),
            "memory": "256m",
            "cpus": 2,
            "disk": [],
            "network": ["none"],
            "dns": ["10.0.0.53"],
            "dns-search": ["example.org", "example.com"],
            "hostname": "web.example.org",
            "env": [
                "DISK_ID=1",
                "DNS=10.0.0.53",
                "EMPTY=",
                "SSH_PUBLIC_KEY=ssh-ed25519 A one\nssh-ed25519 B two",
                "QUOTED=\\ \" ' \t $(id) `id` &amp; \u{e9}",
                "NETWORK=YES",
                "SEARCH_DOMAIN=example.org, example.com",
                "SET_HOSTNAME=web.example.org",
            ],
        })
    );
    // A machine that ended by itself is in the way of nothing.
    driver.deploy(&document).assert_success("one-41\n");
    assert_eq!(driver.words(), ["rm one-41", "run -d --config"]);
    for (name, complete) in [
        ("redis", "docker.io/library/redis"),
        ("redis:7", "docker.io/library/redis:7"),
        ("docker://team/app", "docker.io/team/app"),
        ("docker.io/team/app@sha256:00", "docker.io/team/app@sha256:00"),
    ] {
        driver.deploy(&vm(MEMORY, &element("CORACLE_IMAGE", name))).assert_success("one-41\n");
        assert_eq!(driver.machine()["image"], format!("docker://{complete}"), "{name}");
    }
}

fn opennebula_disks_are_files_of_the_datastore() {
    let driver = Driver::with_stub();
    let datastores = driver.dir.file("datastores");
    let file = |name: &str| datastores.join(name);
    fs::create_dir(file("1")).expect("the directory is writable");
    for name in ["1/persistent", "0/41/disk.1", "0/41/disk.2"] {
        fs::write(file(name), [0; 512]).expect("the directory is writable");
    }
    symlink(file("1/persistent"), file("0/41/disk.0")).expect("the directory is writable");
    let disk = |number: &str, rest: &[(&str, &str)]| {
        vector("DISK", &[&[("DISK_ID", number), ("TYPE", "FILE"), ("DRIVER", "raw")], rest].concat())
    };
    let context = vector("CONTEXT", &[("DISK_ID", "2"), ("START_SCRIPT", "echo\nhello"), ("TARGET", "hda")]);
    let two = format!("{}{}", disk("0", &[]), vector("DISK", &[("DISK_ID", "1"), ("TYPE", "CDROM")]));
    let path = |name: &str| file(name).canonicalize().expect("it is there").display().to_string();
    let second = format!("path={},serial=disk.1,ro", path("0/41/disk.1"));

    driver.deploy(&vm(&format!("{MEMORY}{context}{two}"), "")).assert_success("one-41\n");
    let iso = format!("path={},serial=CONTEXT,ro", path("0/41/disk.2"));
    let machine = driver.machine();
    assert_eq!((&machine["rootfs"], &machine["system"]), (&json!(path("1/persistent")), &json!(true)));
    assert_eq!(machine["disk"], json!([second, iso]));
    assert_eq!(machine.get("env"), None, "the root's own init reads the CONTEXT disk");

    driver.deploy(&vm(&format!("{MEMORY}{two}"), &element("CORACLE_IMAGE", "redis"))).assert_success("one-41\n");
    let first = format!("path={},serial=disk.0", path("1/persistent"));
    assert_eq!(driver.machine()["disk"], json!([first, second]));

    let outside = driver.dir.write("outside", [0; 512]).canonicalize().expect("it is there");
    symlink(&outside, file("0/41/disk.3")).expect("the directory is writable");
    symlink("/dev/null", file("0/41/disk.4")).expect("the directory is writable");
    for (disk, expected) in [
        (disk("3", &[]), format!("one-41: disk.3: {}: not in {}", outside.display(), datastores.display())),
        (disk("4", &[]), format!("one-41: disk.4: /dev/null: not in {}", datastores.display())),
        (disk("5", &[]), format!("one-41: disk.5: {}: not there", file("0/41/disk.5").display())),
        (disk("../1/x", &[]), "one-41: DISK 1: DISK_ID '../1/x': not a number".into()),
        (disk("0", &[("FORMAT", "qcow2")]), "one-41: disk.0: format 'qcow2': only raw disks are supported".into()),
        (
            vector("DISK", &[("DISK_ID", "0"), ("TYPE", "BLOCK")]),
            "one-41: disk.0: TYPE 'BLOCK': only files are supported".into(),
        ),
        (disk("1", &[("READONLY", "YES")]), "one-41: neither CORACLE_IMAGE nor a DISK with a root file system".into()),
    ] {
        driver.deploy(&vm(&format!("{MEMORY}{disk}"), "")).assert_failure(&expected);
    }
}

fn opennebula_rejects_a_tenants_values() {
    let driver = Driver::with_stub();
    driver.deploy("").assert_failure("VM XML: not well-formed");
    driver.deploy(&" ".repeat(1 << 21)).assert_failure("VM XML: more than 1048576 bytes");
    driver.deploy("<VM><ID>x</ID></VM>").assert_failure("VM XML: /VM/ID 'x': not a number");
    driver.deploy("<VM><ID>42</ID></VM>").assert_failure("VM XML: /VM/ID 42: the call is for 41");

    let own = driver.dir.write("own", "a secret");
    let entity = format!(
        "<!DOCTYPE VM [<!ENTITY e SYSTEM \"{}\">]><VM><ID>41</ID><TEMPLATE><MEMORY>&e;</MEMORY></TEMPLATE></VM>",
        own.display()
    );
    driver.deploy(&entity).assert_failure("one-41: MEMORY '': not a number of MiB");

    let layout = images().join("busybox").display().to_string();
    for name in [
        &*layout,
        &format!("oci:{layout}"),
        "docker-archive:/etc/passwd",
        "./x",
        "../x",
        "a/../b",
        "-d",
        "a b",
        "a//b",
        "a/",
    ] {
        let expected = format!("one-41: CORACLE_IMAGE '{name}': not the name of an image in a registry");
        driver.deploy(&vm(MEMORY, &element("CORACLE_IMAGE", name))).assert_failure(&expected);
    }
    for (name, repository) in [
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x"),
        ("docker.io.evil.example/x:1", "docker.io.evil.example/x"),
        ("registry.example:5000/other/app", "registry.example:5000/other/app"),
        ("localhost/docker.io/x", "localhost/docker.io/x"),
    ] {
        let expected = format!(
            "one-41: CORACLE_IMAGE '{name}': {repository} is not allowed by IMAGES of coraclerc (docker.io/* registry.example:5000/team/*)"
        );
        driver.deploy(&vm(MEMORY, &element("CORACLE_IMAGE", name))).assert_failure(&expected);
    }
    let named = element("CORACLE_IMAGE", "redis");
    let context = |name: &str, value: &str| format!("{}{}", vector("CONTEXT", &[(name, value)]), nic(&[]));
    for (template, expected) in [
        ("<MEMORY>1m --privileged</MEMORY>".into(), "MEMORY '1m --privileged': not a number of MiB"),
        (format!("{MEMORY}<VCPU>1,</VCPU>"), "VCPU '1,': not a number"),
        (format!("{MEMORY}{}", nic(&[("TARGET", "eth0")])), "NIC 0: TARGET 'eth0': expected one-41-0"),
        (format!("{MEMORY}{}", nic(&[("TARGET", "one-42-0")])), "NIC 0: TARGET 'one-42-0': expected one-41-0"),
        (format!("{MEMORY}{}", nic(&[("BRIDGE", "../x")])), "NIC 0: BRIDGE '../x': not an interface name"),
        (format!("{MEMORY}{}", nic(&[("BRIDGE", "lo")])), "lo: not a bridge of this host"),
        (
            format!("{MEMORY}{}", nic(&[("MAC", "02:00:0a:09:00:05,ip=dhcp")])),
            "NIC 0: MAC '02:00:0a:09:00:05,ip=dhcp': not an Ethernet address",
        ),
        (format!("{MEMORY}<PCI><TYPE>NIC</TYPE></PCI>"), "PCI: not supported"),
        (
            format!("{MEMORY}{}", context("ETH0_IP", "10.9.0.5/24,tap=eth0")),
            "CONTEXT/ETH0_IP: invalid value '10.9.0.5/24,tap=eth0'",
        ),
        (format!("{MEMORY}{}", context("SET_HOSTNAME", "a b")), "CONTEXT/SET_HOSTNAME: invalid value 'a b'"),
        (format!("{MEMORY}{}", context("A.B", "1")), "CONTEXT/A.B: not the name of an environment variable"),
        (format!("{MEMORY}{}", context("START_SCRIPT", "id")), "CONTEXT/START_SCRIPT: there is no CONTEXT disk"),
    ] {
        driver.deploy(&vm(&template, &named)).assert_failure(&format!("one-41: {expected}"));
    }
    assert_eq!(driver.words(), [""; 0], "nothing of it reached coracle");
}

fn opennebula_actions_name_one_machine_exactly() {
    let driver = Driver::with_stub();
    // coracle takes a beginning of a name: one-4 is gone, one-41 is not.
    fs::create_dir_all(driver.state.join("coracle/one-41")).expect("the directory is writable");
    for action in ["shutdown", "cancel"] {
        driver.action(action, &["one-4"], "").assert_success("");
    }
    driver.action("reboot", &["one-4"], "").assert_failure("one-4: no such machine");
    assert_eq!(driver.words(), [""; 0]);
    driver.action("shutdown", &["one-41"], "").assert_success("");
    assert_eq!(driver.words(), ["stop one-41", "rm -f one-41"]);
    fs::create_dir_all(driver.state.join("coracle/one-41")).expect("the directory is writable");
    driver.action("cancel", &["one-41"], "").assert_success("");
    assert_eq!(driver.words(), ["rm -f one-41"]);
    for id in ["", "one-", "41", "../x", "one-4 one-5", "one-041", "--all"] {
        driver.action("cancel", &[id], "").assert_failure(&format!("deploy id '{id}': expected one-NUMBER"));
    }
    for action in ["migrate", "attach_disk", "snapshot_create", "exec", "exec_cancel"] {
        driver.action(action, &["one-41"], "").assert_failure(&format!("{action}: not supported"));
    }
    for link in ["im/coracle.d/monitord-client.rb", "im/coracle-probes.d/host/beacon/date.sh"] {
        assert!(driver.remotes.join(link).is_file(), "{link}: OpenNebula's own is not found");
    }
    let capacity = driver.probe("host/system/capacity.sh") + &driver.probe("host/monitor/usage.sh");
    for name in
        ["TOTALCPU", "CPUSPEED", "TOTALMEMORY", "USEDMEMORY", "FREEMEMORY", "FREECPU", "USEDCPU", "NETRX", "NETTX"]
    {
        let value = capacity.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        assert!(value.is_some_and(|value| value.parse::<u64>().is_ok()), "{name}: {capacity}");
    }
}

fn opennebula_restarts_from_the_document_of_the_action() {
    let driver = Driver::with_stub();
    let machine = driver.state.join("coracle/one-41");
    let layer = driver.state.join("data/coracle/machines/one-41");
    fs::create_dir_all(&machine).expect("the directory is writable");
    let document = vm(MEMORY, &element("CORACLE_IMAGE", "redis"));
    let action = format!("<VMM_DRIVER_ACTION_DATA><HOST>host</HOST>{document}</VMM_DRIVER_ACTION_DATA>");
    // Without a layer it is made anew.
    driver.action("reboot", &["one-41"], &action).assert_success("");
    assert_eq!(driver.words(), ["stop one-41", "rm one-41", "run -d --config"]);
    assert_eq!(driver.machine()["image"], "docker://docker.io/library/redis");
    // What cannot be started again is not stopped.
    let broken = document.replace("256", "x");
    driver.action("reset", &["one-41"], &broken).assert_failure("one-41: MEMORY 'x': not a number of MiB");
    assert_eq!(driver.words(), [""; 0]);
    // With one it goes on, and the user sees why if it does not.
    fs::create_dir_all(&layer).expect("the directory is writable");
    driver.action("reset", &["one-41"], &action).assert_failure("no");
    assert_eq!(driver.words(), ["stop -t 0 one-41", "start one-41"]);
}

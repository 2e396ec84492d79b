// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver as OpenNebula has it installed, and calls of its actions and probes.

use coracle_tests::{TestDir, workspace};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Stands for coracle: keeps its words and the document that it gets, and has a run directory for each machine. `start` fails, and
/// each verb with a file `fail-VERB`, `run` after it made the run directory.
const STUB: &str = r#"#!/bin/sh
echo "$*" >> "$XDG_RUNTIME_DIR/words"
for last; do :; done
if [ "$1" = run ]; then
    cp "$last" "$XDG_RUNTIME_DIR/machine.json"
    mkdir -p "$XDG_RUNTIME_DIR/coracle/one-41"
fi
if [ "$1" = start ] || [ -e "$XDG_RUNTIME_DIR/fail-$1" ]; then
    echo 'coracle: no' >&2
    exit 125
fi
case $1 in
    rm) rm -r "$XDG_RUNTIME_DIR/coracle/$last" ;;
    snapshot) mkdir "$last" ;;
esac
"#;

/// OpenNebula's directory of remotes with the driver, and a datastore.
pub(super) struct Driver {
    pub(super) dir: TestDir,
    pub(super) remotes: PathBuf,
    pub(super) state: PathBuf,
}

impl Driver {
    /// With `coracle` as the program.
    pub(super) fn install(program: &str) -> Driver {
        let dir = TestDir::new();
        let (remotes, state) = (dir.file("remotes"), dir.file("state"));
        for path in ["im/kvm.d/monitord-client.rb", "im/kvm-probes.d/host/beacon/date.sh"] {
            let file = remotes.join(path);
            fs::create_dir_all(file.parent().expect("it has one")).expect("a new directory is writable");
            fs::write(file, "").expect("a new directory is writable");
        }
        fs::create_dir_all(dir.file("datastores/0/41")).expect("a new directory is writable");
        fs::create_dir_all(&state).expect("a new directory is writable");
        let make = Command::new("make")
            .args(["-s", "install-opennebula"])
            .arg(format!("REMOTES={}", remotes.display()))
            .current_dir(workspace())
            .output()
            .expect("make starts");
        assert!(make.status.success(), "{}", String::from_utf8_lossy(&make.stderr));
        let settings = format!(
            "IMAGES='docker.io/* registry.example:5000/team/*'\nDATASTORES={}\nSTATE={}\nCORACLE={program}\nSUDO=\n",
            dir.file("datastores").display(),
            state.display(),
        );
        fs::write(remotes.join("etc/vmm/coracle/coraclerc"), settings).expect("it was installed");
        Driver { dir, remotes, state }
    }

    pub(super) fn with_stub() -> Driver {
        let driver = Driver::install("\"${0%/vmm/*}/stub\"");
        let stub = driver.remotes.join("stub");
        fs::write(&stub, STUB).expect("the directory is writable");
        fs::set_permissions(stub, fs::Permissions::from_mode(0o755)).expect("it is the test's own");
        driver
    }

    /// A script of the driver's, to be given `document`.
    pub(super) fn script(&self, mut command: Command, document: &str) -> Answer {
        let input = self.dir.write("stdin.xml", document);
        command.stdin(fs::File::open(input).expect("it was written"));
        command.env("TMPDIR", self.dir.temporary()).env("XDG_CACHE_HOME", self.dir.cache());
        let Output { status, stdout, stderr } = command.output().expect("the script starts");
        let text = |bytes| String::from_utf8(bytes).expect("it prints text");
        Answer { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Calls an action as OpenNebula does, which adds the IDs of the VM and of its datastore.
    pub(super) fn action(&self, action: &str, words: &[&str], document: &str) -> Answer {
        let mut command = Command::new(self.remotes.join("vmm/coracle").join(action));
        command.args(words).args(["host", "41", "0"]);
        self.script(command, document)
    }

    /// Calls `restore`, whose words have another order.
    pub(super) fn restore(&self, file: &str, deploy_id: &str, document: &str) -> Answer {
        let mut command = Command::new(self.remotes.join("vmm/coracle/restore"));
        command.args([file, "host", deploy_id, "41", "0"]);
        self.script(command, document)
    }

    pub(super) fn deploy(&self, document: &str) -> Answer {
        self.action("deploy", &["/var/lib/one/datastores/0/41/deployment.0"], document)
    }

    pub(super) fn probe(&self, path: &str) -> String {
        let answer = self.script(Command::new(self.remotes.join("im/coracle-probes.d").join(path)), "");
        assert_eq!((answer.status, &*answer.stderr), (Some(0), ""), "{path}");
        answer.stdout
    }

    /// The document that the stub was given.
    pub(super) fn machine(&self) -> Value {
        serde_json::from_slice(&fs::read(self.state.join("machine.json")).expect("it was run")).expect("it is JSON")
    }

    /// The command lines that the stub was given since the last call, without the paths of documents.
    pub(super) fn words(&self) -> Vec<String> {
        let path = self.state.join("words");
        let words = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        words.lines().map(|line| line.split("/").next().expect("there is a first part").trim_end().to_owned()).collect()
    }
}

impl Drop for Driver {
    /// A test that failed may have left its machine.
    fn drop(&mut self) {
        let _ = self.action("cancel", &["one-41"], "");
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Answer {
    #[track_caller]
    pub(super) fn assert_success(&self, stdout: &str) {
        assert_eq!((self.status, &*self.stdout, &*self.stderr), (Some(0), stdout, ""));
    }

    /// One line for the user, between OpenNebula's marks.
    #[track_caller]
    pub(super) fn assert_failure(&self, message: &str) {
        let expected = format!("ERROR MESSAGE --8<------\ncoracle: {message}\nERROR MESSAGE ------>8--\n");
        assert_eq!((self.status, &*self.stdout, &*self.stderr), (Some(1), "", &*expected));
    }
}

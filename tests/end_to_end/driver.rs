// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The scripts of `tests/driver`, called like a virtual machine manager's driver; help and completion scripts.

use coracle_tests::{Case, TestDir, case, coracle, image, workspace};
use std::process::{Command, Output};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, driver_deploys_polls_shuts_down_and_cancels),
        case!(Quick, help_of_every_verb_has_an_example_in_80_columns),
        case!(Quick, completion_scripts_are_read_by_their_shells),
    ]
}

fn driver_deploys_polls_shuts_down_and_cancels() {
    let dir = TestDir::new();
    let script = |name: &str, argument: &str| {
        let run = Command::new(workspace().join("tests/driver").join(name))
            .arg(argument)
            .env("CORACLE", coracle())
            .env("XDG_RUNTIME_DIR", dir.path().join("files"))
            .env("TMPDIR", dir.temporary())
            .env("XDG_CACHE_HOME", dir.cache())
            .output();
        let Output { status, stdout, stderr } = run.expect("the script starts");
        assert!(status.success(), "{name}: {status}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("text").trim_end().to_owned()
    };
    let deployment = |name: &str| {
        let document = serde_json::json!({
            "version": 1, "name": name, "image": image("busybox"), "memory": "96m",
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"],
        });
        dir.write(&format!("{name}.json"), document.to_string()).display().to_string()
    };
    for (name, end) in [("one-7", "shutdown"), ("one-8", "cancel")] {
        assert_eq!(script("deploy", &deployment(name)), name);
        let polled = script("poll", name);
        let values: Vec<(&str, &str)> = polled.split(' ').filter_map(|pair| pair.split_once('=')).collect();
        assert_eq!(values[0], ("STATE", "a"), "{polled}");
        assert!(values[1..].iter().all(|(_, value)| value.parse::<u64>().is_ok_and(|value| value > 0)), "{polled}");
        script(end, name);
        assert_eq!(script("poll", name), "STATE=d");
    }
    assert_eq!(script("shutdown", "one-8"), "", "what is gone is a success");
}

fn help_of_every_verb_has_an_example_in_80_columns() {
    let dir = TestDir::new();
    let main = dir.invocation::<&str>(&[]).verb("--help").finish();
    assert!(main.stdout_text().lines().all(|line| line.chars().count() <= 80), "{}", main.report());
    for verb in [
        "run",
        "check",
        "exec",
        "attach",
        "ps",
        "status",
        "logs",
        "events",
        "stats",
        "wait",
        "stop",
        "kill",
        "pause",
        "resume",
        "rm",
        "completion",
    ] {
        let help = dir.invocation(&["--help"]).verb(verb).finish();
        help.assert_status(0).assert_stderr("");
        let text = help.stdout_text();
        assert!(text.contains(&format!("\n  coracle {verb} ")), "no example\n{}", help.report());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns\n{}", help.report());
        assert!(!text.contains('\u{1b}'), "colours are for terminals\n{}", help.report());
    }
}

fn completion_scripts_are_read_by_their_shells() {
    let dir = TestDir::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = dir.invocation(&[shell]).verb("completion").finish();
        script.assert_status(0).assert_stderr("");
        let text = script.stdout_text();
        assert!(
            ["resume", "--stop-timeout", "--no-stream"].iter().all(|word| text.contains(word.trim_start_matches('-')))
        );
        if shell == "bash" {
            let words = "COMP_WORDS=(coracle resu); COMP_CWORD=1; _coracle coracle resu coracle; echo ${COMPREPLY[@]}";
            // A file: the script is longer than one argument may be.
            let file = dir.write("completion", format!("{text}\n{words}\n"));
            let output = Command::new("bash").arg(file).output().expect("bash is there");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "resume\n", "{output:?}");
        }
    }
    dir.invocation(&["tcsh"]).verb("completion").finish().assert_status(125).assert_one_line_naming(&["tcsh"]);
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Help and completion scripts.

use coracle_tests::{Case, TestDir, case};
use std::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick, help_of_every_verb_has_an_example_in_80_columns),
        case!(Quick, completion_scripts_are_read_by_their_shells),
    ]
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

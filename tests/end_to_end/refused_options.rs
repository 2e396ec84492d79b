// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Invalid requests are rejected before anything else is done: status 125, and one line that names the fault.

use coracle_tests::{Case, TestDir, case, image};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick, invalid_options_are_rejected_by_name),
        case!(Quick, result_in_a_missing_directory_is_rejected_before_the_run),
        case!(Quick, options_that_conflict_are_rejected),
        case!(Quick, host_variable_that_is_not_text_is_rejected_by_name),
        case!(Quick, invalid_configuration_documents_are_rejected),
        case!(Quick, misspelled_words_get_a_tip),
        case!(Quick, help_and_version_succeed),
        case!(Quick, closed_standard_input_and_error_do_no_harm),
    ]
}

/// Arguments before the image, and what the line must name.
const INVALID: &[(&[&str], &str)] = &[
    (&["--no-such-option"], "--no-such-option"),
    (&["-Z"], "-Z"),
    (&["-m"], "-m"),
    (&["-m", "0"], "0"),
    (&["-m", "1m"], "1m"),
    (&["-m", "63m"], "63m"),
    (&["-m", "-5m"], "-5m"),
    (&["-m", "128q"], "128q"),
    (&["-m", "16eib"], "16eib"),
    (&["-m", "99999999999999999999"], "99999999999999999999"),
    (&["-m", "18446744073709551615"], "18446744073709551615"),
    (&["-m", ""], "memory"),
    (&["--cpus", "0"], "0"),
    (&["--vsock", "v,cid=2"], "cid"),
    (&["--vsock", "v,port=2"], "port=2"),
    (&["--vsock", ",cid=3"], "no path"),
    (&["--cpus", "33"], "33"),
    (&["--cpus", "1.5"], "1.5"),
    (&["--cpus", "-1"], "-1"),
    (&["--cpus", "many"], "many"),
    (&["-e", "=value"], "=value"),
    (&["-e", ""], "env"),
    (&["--env-file", "/nowhere/environment"], "/nowhere/environment"),
    (&["-w", "relative/path"], "relative/path"),
    (&["-h", "no spaces"], "no spaces"),
    (&["-h", "-leading"], "-leading"),
    (&["--name", "a/b"], "a/b"),
    (&["--name", ".."], ".."),
    (&["--id", "../escape"], "../escape"),
    (&["--stop-signal", "SIGNOSUCH"], "SIGNOSUCH"),
    (&["--stop-signal", "0"], "0"),
    (&["--stop-signal", "99"], "99"),
    (&["--stop-timeout", "soon"], "soon"),
    (&["--timeout", "1.5"], "a whole number of seconds"),
    (&["--ready-port", "70000"], "from 1 to 65535"),
    (&["--timeout", "-3"], "-3"),
    (&["--ulimit", "nofile"], "nofile"),
    (&["--ulimit", "nofile=2:1"], "above the hard limit"),
    (&["--ulimit", "files=1"], "files"),
    (&["--cap-add", "FLY"], "FLY"),
    (&["--cap-drop", ""], "cap-drop"),
    (&["--security-opt", "seccomp=unconfined"], "no-new-privileges"),
    (&["--oom-score-adj", "1001"], "-1000 to 1000"),
    (&["--tmpfs", "relative"], "relative"),
    (&["--tmpfs", ""], "tmpfs"),
    (&["--scratch", "some"], "some"),
    (&["--scratch", "0"], "0"),
    (&["--disk", "file.img"], "file.img"),
    (&["--disk", "path="], "path"),
    (&["--disk", "path=x,colour=red"], "colour"),
    (&["--disk", "path=x,path=y"], "path"),
    (&["--network", "nonsense"], "nonsense"),
    (&["--network", "tap="], "tap"),
    (&["--network", "fd=77"], "77"),
    (&["--mac-address", "00:11:22"], "00:11:22"),
    (&["--sandbox", "perhaps"], "perhaps"),
    (&["--log-level", "loud"], "loud"),
];

fn invalid_options_are_rejected_by_name() {
    let dir = TestDir::new();
    for (options, object) in INVALID {
        let arguments = [*options, &["oci:/nowhere", "true"]].concat();
        let run = dir.run(&arguments);
        run.assert_status(125).assert_one_line_naming(&[object]);
        // Until the options are parsed, coracle has no path for the result.
        if run.result.is_some() {
            run.assert_reason("config-error");
        }
    }
}

fn result_in_a_missing_directory_is_rejected_before_the_run() {
    let dir = TestDir::new();
    let directory = dir.path().display().to_string();
    let file = dir.write("file", "").display().to_string();
    for result in ["/nowhere/result.json", &directory, &format!("{file}/result.json")] {
        let run = dir.verb("run", &["--result", result, &image("busybox"), "echo", "it ran"]).finish();
        run.assert_status(125).assert_stdout("").assert_one_line_naming(&["--result", result]);
    }
}

fn options_that_conflict_are_rejected() {
    let dir = TestDir::new();
    let disk = dir.write("disk.img", vec![0; 4096]).display().to_string();
    let conflicts: &[(&[&str], &[&str])] = &[
        (&["--read-only", "--scratch", "8g", "--scratch", "tmpfs", "oci:/nowhere"], &["--scratch"]),
        (&["--name", "one", "--id", "other", "oci:/nowhere"], &["--name", "--id"]),
        (&["--network", "none", "--mac-address", "02:00:00:00:00:01", "oci:/nowhere"], &["--mac-address"]),
        (&[], &["IMAGE"]),
        (&["--rootfs", &disk], &["command"]),
    ];
    for (arguments, objects) in conflicts {
        dir.run(arguments).assert_status(125).assert_one_line_naming(objects);
    }
}

fn host_variable_that_is_not_text_is_rejected_by_name() {
    let dir = TestDir::new();
    let run = dir
        .invocation(&["-e", "LATIN1", &image("busybox"), "true"])
        .env("LATIN1", OsString::from_vec(vec![0xe9]))
        .finish();
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["LATIN1", "UTF-8"]);
}

fn invalid_configuration_documents_are_rejected() {
    let dir = TestDir::new();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let documents: &[(&str, &[u8])] = &[
        ("empty", b""),
        ("half", b"{\"version\": 1, \"image\": "),
        ("not-an-object", b"[1, 2, 3]"),
        ("unknown-key", b"{\"version\": 1, \"image\": \"oci:/nowhere\", \"colour\": \"red\"}"),
        ("twice", b"{\"version\": 1, \"image\": \"oci:/nowhere\", \"image\": \"oci:/elsewhere\"}"),
        ("future", b"{\"version\": 999, \"image\": \"oci:/nowhere\"}"),
        ("trailing", b"{\"version\": 1, \"image\": \"oci:/nowhere\"} more"),
        ("binary", b"\xff\xfe\x00\x01"),
        ("deep", deep.as_bytes()),
    ];
    for (name, contents) in documents {
        let file = dir.write(name, contents).display().to_string();
        dir.run(&["--config", &file]).assert_status(125).assert_one_line_naming(&[name]);
    }
    dir.run(&["--config", "/nowhere/config.json"]).assert_status(125).assert_one_line_naming(&["/nowhere/config.json"]);
}

fn misspelled_words_get_a_tip() {
    let dir = TestDir::new();
    let option = dir.run(&["--memroy", "1g", "oci:/nowhere"]);
    option.assert_status(125).assert_one_line_naming(&["'--memroy'", "'--memory'"]);
    let verb = dir.invocation::<&str>(&[]).verb("runn").finish();
    verb.assert_status(125).assert_one_line_naming(&["'runn'", "'run'"]);
}

fn help_and_version_succeed() {
    let dir = TestDir::new();
    for (verb, argument, expected) in
        [("--version", None, env!("CARGO_PKG_VERSION")), ("--help", None, "run"), ("run", Some("--help"), "--memory")]
    {
        let arguments: Vec<&str> = argument.into_iter().collect();
        let run = dir.invocation(&arguments).verb(verb).finish();
        run.assert_status(0).assert_stderr("");
        assert!(run.stdout_text().contains(expected), "{}", run.report());
    }
}

fn closed_standard_input_and_error_do_no_harm() {
    let dir = TestDir::new();
    // The first file that a program opens gets the lowest free number. It must not become a standard stream.
    let closed = ["sh", "-c", "exec \"$@\" <&- 2>&-", "sh"];
    let run = dir.invocation(&["oci:/nowhere", "true"]).wrapped(&closed).finish();
    run.assert_status(125).assert_reason("image-error").assert_stdout("").assert_stderr("");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("the host has /dev/full");
    let run = dir.invocation(&["oci:/nowhere", "true"]).stderr(full).finish();
    run.assert_status(125).assert_reason("image-error");
    // An empty argv[0].
    let error = std::process::Command::new(coracle_tests::coracle()).arg0("").output().expect("it starts");
    assert_eq!(error.status.code(), Some(125));
}

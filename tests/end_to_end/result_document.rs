// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The result document: complete, correct, and the same in both places.

use coracle_tests::{Case, Finished, TestDir, case, image};
use serde_json::Value;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, result_has_all_that_the_contract_names),
        case!(Full, named_machine_keeps_its_result_in_the_run_directory),
        case!(Full, result_goes_to_an_inherited_descriptor),
        case!(Quick, rejected_request_has_a_result),
    ]
}

fn assert_complete(run: &Finished) {
    for pointer in ["/version", "/id", "/end/reason", "/end/status", "/started", "/ended", "/boot", "/host", "/sandbox"]
    {
        assert!(!run.result_at(pointer).is_null(), "{pointer} is missing\n{}", run.report());
    }
    for pointer in ["/started", "/ended"] {
        let time = run.result_at(pointer).as_str().unwrap_or_default();
        let shape = time.len() >= 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z');
        assert!(shape, "{pointer} is not RFC 3339 in UTC: {time}");
    }
}

fn result_has_all_that_the_contract_names() {
    let dir = TestDir::new();
    let run = dir.run(&["--timings", &image("busybox"), "sh", "-c", "exit 3"]);
    run.assert_status(3).assert_reason("exited");
    assert_complete(&run);
    let Value::Object(boot) = run.result_at("/boot") else { panic!("boot is no object\n{}", run.report()) };
    let mut stages: Vec<u64> = boot.values().map(|value| value.as_u64().expect("microseconds")).collect();
    assert!(stages.len() >= 6, "six stages\n{}", run.report());
    stages.sort_unstable();
    assert!(stages[0] > 0 && u128::from(stages[stages.len() - 1]) <= run.elapsed.as_micros(), "{}", run.report());
    for digest in ["/digests/image", "/digests/root_disk", "/digests/kernel"] {
        let text = run.result_at(digest).as_str().unwrap_or_default();
        assert!(text.len() == 71 && text.starts_with("sha256:"), "{digest}\n{}", run.report());
    }
    for counter in ["/counters/cpu_vcpu_ns", "/counters/disks/0/read_bytes"] {
        assert!(run.result_at(counter).as_u64().is_some_and(|count| count > 0), "{counter}\n{}", run.report());
    }
    // --timings prints the stages to stderr, after the workload's output.
    assert!(run.stderr.lines().count() >= 6 && run.stderr.contains("ms"), "{}", run.report());
}

fn named_machine_keeps_its_result_in_the_run_directory() {
    let dir = TestDir::new().keeping_machines();
    let run = dir.run(&["--name", "kept", &image("busybox"), "true"]);
    run.assert_status(0);
    let kept = std::fs::read(dir.run_directory().join("kept/result.json")).expect("the machine's directory is kept");
    let kept: Value = serde_json::from_slice(&kept).expect("it is JSON");
    assert_eq!(Some(kept), run.result, "both documents are the same");
}

fn result_goes_to_an_inherited_descriptor() {
    let dir = TestDir::new();
    let file = dir.file("through-a-descriptor.json");
    let shell = format!("exec \"$@\" 9> {}", file.display());
    let wrapper = ["sh", "-c", &shell, "sh"];
    let run = dir.invocation(&[&image("busybox"), "true"]).result("fd:9").wrapped(&wrapper).finish();
    assert_eq!(run.status.code(), Some(0), "{}", run.report());
    let result: Value = serde_json::from_slice(&std::fs::read(file).expect("the shell made it")).expect("it is JSON");
    assert_eq!(result["end"]["reason"], "exited");
}

fn rejected_request_has_a_result() {
    let dir = TestDir::new();
    let run = dir.run(&["oci:/nowhere/at/all", "true"]);
    run.assert_status(125).assert_reason("image-error");
    assert_complete(&run);
    let detail = run.result_at("/end/detail").as_str().unwrap_or_default();
    assert!(detail.contains("/nowhere/at/all"), "{}", run.report());
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Health checks, as `status` and `ps` show them.

use coracle_tests::{Case, TestDir, case};
use serde_json::Value;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, health_falls_and_recovers),
        case!(Full, health_check_beyond_its_timeout_fails),
        case!(Full, health_is_absent_without_a_check),
        case!(Quick, health_options_with_invalid_values_are_rejected),
    ]
}

fn verb(dir: &TestDir, verb: &'static str, arguments: &[&str]) -> String {
    let run = dir.verb(verb, arguments).finish();
    run.assert_status(0);
    run.stdout_text()
}

/// Waits until `status` shows this health, and returns it.
pub(crate) fn wait_for_health(dir: &TestDir, wanted: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status: Value = serde_json::from_str(&verb(dir, "status", &["--json", "m"])).expect("status is JSON");
        if status["health"]["status"] == wanted {
            return status["health"].clone();
        }
        assert!(Instant::now() < deadline, "no health {wanted}: {status}");
    }
}

fn health_falls_and_recovers() {
    let dir = TestDir::new().keeping_machines();
    let check = "echo looked; test -e /tmp/well";
    let run = dir.start_idle(&["--health-cmd", check, "--health-interval", "300ms", "--health-retries", "2"]);
    let health = wait_for_health(&dir, "unhealthy");
    assert_eq!((health["exit"].as_i64(), health["output"].as_str()), (Some(1), Some("looked\n")), "{health}");
    assert!(verb(&dir, "ps", &[]).contains("(unhealthy)"));
    let _ = verb(&dir, "exec", &["m", "touch", "/tmp/well"]);
    assert_eq!(wait_for_health(&dir, "healthy")["failing_streak"], 0);
    assert!(verb(&dir, "ps", &[]).contains("(healthy)"));
    run.stop_idle();
}

fn health_check_beyond_its_timeout_fails() {
    let dir = TestDir::new().keeping_machines();
    let options = ["--health-cmd", "exec sleep 1000", "--health-interval", "100ms", "--health-timeout", "500ms"];
    let run = dir.start_idle(&[&options[..], &["--health-retries", "1"]].concat());
    let health = wait_for_health(&dir, "unhealthy");
    assert_eq!(health["exit"], -1);
    assert!(health["output"].as_str().is_some_and(|output| output.contains("timeout")), "{health}");
    run.stop_idle();
}

fn health_is_absent_without_a_check() {
    let dir = TestDir::new().keeping_machines();
    let run = dir.start_idle(&["--no-healthcheck"]);
    let status: Value = serde_json::from_str(&verb(&dir, "status", &["--json", "m"])).expect("status is JSON");
    assert_eq!((&status["health"], &status["ready"]), (&Value::Null, &Value::Bool(true)), "{status}");
    run.stop_idle();
}

fn health_options_with_invalid_values_are_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["--health-retries", "many", "oci:x"]);
    run.assert_status(125).assert_one_line_naming(&["--health-retries", "many"]);
    let run = dir.run(&["--health-timeout", "5", "oci:x"]);
    run.assert_status(125).assert_one_line_naming(&["--health-timeout", "30s"]);
}

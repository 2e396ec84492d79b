// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Health checks: run inside, shown by `status` and `ps`.

use coracle_tests::{Case, Place, case};
use serde_json::Value;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, a_workload_falls_ill_and_recovers),
        case!(Full, a_check_that_takes_too_long_has_failed),
        case!(Full, without_a_check_there_is_no_health),
        case!(Quick, options_that_make_no_check_are_named),
    ]
}

fn verb(place: &Place, verb: &'static str, arguments: &[&str]) -> String {
    let run = place.verb(verb, arguments).finish();
    run.assert_status(0);
    run.stdout_text()
}

/// Waits until `status` shows this health, and returns it.
fn wait_for_health(place: &Place, wanted: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status: Value = serde_json::from_str(&verb(place, "status", &["--json", "m"])).expect("status is JSON");
        if status["health"]["status"] == wanted {
            return status["health"].clone();
        }
        assert!(Instant::now() < deadline, "no health {wanted}: {status}");
    }
}

fn a_workload_falls_ill_and_recovers() {
    let place = Place::new().keeping_run_entries();
    let check = "echo looked; test -e /tmp/well";
    let run = place.start_idle(&["--health-cmd", check, "--health-interval", "300ms", "--health-retries", "2"]);
    let health = wait_for_health(&place, "unhealthy");
    assert_eq!((health["exit"].as_i64(), health["output"].as_str()), (Some(1), Some("looked\n")), "{health}");
    assert!(verb(&place, "ps", &[]).contains("(unhealthy)"));
    let _ = verb(&place, "exec", &["m", "touch", "/tmp/well"]);
    assert_eq!(wait_for_health(&place, "healthy")["failing_streak"], 0);
    assert!(verb(&place, "ps", &[]).contains("(healthy)"));
    run.stop_idle();
}

fn a_check_that_takes_too_long_has_failed() {
    let place = Place::new().keeping_run_entries();
    let options = ["--health-cmd", "exec sleep 1000", "--health-interval", "100ms", "--health-timeout", "500ms"];
    let run = place.start_idle(&[&options[..], &["--health-retries", "1"]].concat());
    let health = wait_for_health(&place, "unhealthy");
    assert_eq!(health["exit"], -1);
    assert!(health["output"].as_str().is_some_and(|output| output.contains("timeout")), "{health}");
    run.stop_idle();
}

fn without_a_check_there_is_no_health() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&["--no-healthcheck"]);
    let status: Value = serde_json::from_str(&verb(&place, "status", &["--json", "m"])).expect("status is JSON");
    assert_eq!((&status["health"], &status["ready"]), (&Value::Null, &Value::Bool(true)), "{status}");
    run.stop_idle();
}

fn options_that_make_no_check_are_named() {
    let place = Place::new();
    let run = place.run(&["--health-retries", "many", "oci:x"]);
    run.assert_status(125).assert_one_line_naming(&["--health-retries", "many"]);
    let run = place.run(&["--health-timeout", "5", "oci:x"]);
    run.assert_status(125).assert_one_line_naming(&["--health-timeout", "30s"]);
}

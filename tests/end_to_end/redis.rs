// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A server that forks and serves a socket inside. How it saves and ends at a signal is in `ready.rs`.

use coracle_tests::{Case, TestDir, case, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(Full, redis_daemonizes_and_answers_inside)]
}

fn redis_daemonizes_and_answers_inside() {
    let dir = TestDir::new();
    let script = "redis-server --daemonize yes > /dev/null; until redis-cli ping; do :; done; \
                  redis-cli set a b; redis-cli get a";
    let run = dir.run(&[&image("redis"), "sh", "-c", script]);
    run.assert_status(0);
    // redis-cli fails until the server listens.
    let lines: Vec<String> = run.stdout_text().lines().map(str::to_owned).collect();
    assert!(lines.ends_with(&["PONG".into(), "OK".into(), "b".into()]), "{}", run.report());
}

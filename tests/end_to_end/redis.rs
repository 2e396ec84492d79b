// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A server: it forks, serves a socket inside, saves to its scratch disk and handles signals.

use coracle_tests::{Case, TestDir, case, image};
use rustix::process::Signal;

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(Full, redis_daemonizes_and_answers_inside), case!(Full, redis_saves_and_ends_with_0_at_term)]
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

fn redis_saves_and_ends_with_0_at_term() {
    let dir = TestDir::new();
    let mut run = dir.start(&[&image("redis")]);
    run.wait_for_stdout("Ready");
    run.signal(Signal::TERM);
    let run = run.finish();
    run.assert_status(0).assert_reason("stopped");
    let output = run.stdout_text();
    for sentence in ["Received SIGTERM", "Saving the final RDB snapshot", "DB saved on disk"] {
        assert!(output.contains(sentence), "`{sentence}` is missing\n{}", run.report());
    }
}

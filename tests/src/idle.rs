// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Machines that only wait, for tests of verbs on a running machine: one of a test's own, and one that tests share which leave it
//! as it is.

use crate::{Invocation, Running, TestDir, image};
use rustix::process::Signal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The shared machine runs as long as the tests do.
const MAX_SHARED: Duration = Duration::from_secs(3600);

static SHARED: Mutex<Option<(Arc<TestDir>, Running)>> = Mutex::new(None);

/// The directory of the shared machine, which is named `m`. The first caller starts it.
#[must_use]
pub fn shared_machine() -> Arc<TestDir> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let (dir, _) = shared.get_or_insert_with(|| {
        let dir = TestDir::new().keeping_machines();
        let run = started(dir.idle(&[]).limit(MAX_SHARED));
        (Arc::new(dir), run)
    });
    Arc::clone(dir)
}

/// Stops the shared machine, if it was started, when all tests have ended. Panics if it was not as they found it.
pub fn stop_shared_machine() {
    if let Some((_dir, run)) = SHARED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        run.stop_idle();
    }
}

impl TestDir {
    /// Starts a machine named `m` with these options of `run`, and waits until its workload runs. It runs until it is stopped.
    #[must_use]
    pub fn start_idle(&self, options: &[&str]) -> Running {
        started(self.idle(options))
    }

    fn idle(&self, options: &[&str]) -> Invocation {
        let image = image("busybox");
        let words = [&["--name", "m", "--init"], options, &[&image, "sh", "-c", "echo up; exec sleep 10000"]].concat();
        self.invocation(&words)
    }
}

fn started(invocation: Invocation) -> Running {
    let mut run = invocation.start();
    run.wait_for_stdout("up\n");
    run
}

impl Running {
    /// Stops a machine that [`TestDir::start_idle`] started.
    pub fn stop_idle(self) {
        self.signal(Signal::TERM);
        self.finish().assert_status(143).assert_reason("stopped");
    }
}

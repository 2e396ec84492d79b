// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine that only waits, for tests of verbs on a running machine.

use crate::{Running, TestDir, image};
use rustix::process::Signal;

impl TestDir {
    /// Starts a machine named `m` with these options of `run`, and waits until its workload runs. It runs until it is stopped.
    #[must_use]
    pub fn start_idle(&self, options: &[&str]) -> Running {
        let image = image("busybox");
        let words = [&["--name", "m", "--init"], options, &[&image, "sh", "-c", "echo up; exec sleep 10000"]].concat();
        let mut run = self.start(&words);
        run.wait_for_stdout("up\n");
        run
    }
}

impl Running {
    /// Stops a machine that [`TestDir::start_idle`] started.
    pub fn stop_idle(self) {
        self.signal(Signal::TERM);
        self.finish().assert_status(143).assert_reason("stopped");
    }
}

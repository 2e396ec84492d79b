// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output of the workload that PID 1 has counted, and the host has written: the run ends once they agree. Part of the supervisor.

use super::{State, Supervisor};

/// Output that can be on its way from PID 1's count to the host's: more than a queue of the console
/// device holds.
const MAX_OUTPUT_IN_FLIGHT: u64 = 64 << 20;

/// Standard output and error on the host, as last reported.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) stdout: u64,
    pub(super) stderr: u64,
    pub(super) stdout_closed: bool,
    pub(super) stderr_closed: bool,
}

impl Supervisor {
    pub(super) fn on_output_written(&mut self, stdout: u64, stderr: u64) {
        (self.outputs.stdout, self.outputs.stderr) = (stdout, stderr);
        if let State::Draining { stdout: stdout_total, stderr: stderr_total, .. } = self.state {
            // Everything that PID 1 has written by now is in the queues or on the host.
            let is_possible = |total: u64, written: u64| total.saturating_sub(written) <= MAX_OUTPUT_IN_FLIGHT;
            if !is_possible(stdout_total, stdout) || !is_possible(stderr_total, stderr) {
                return self.on_fault(&format!(
                    "{stdout_total} and {stderr_total} bytes of output reported, {stdout} and {stderr} received"
                ));
            }
        }
        self.end_if_drained();
    }

    /// Once the workload has ended and all its output is written, nothing can be lost.
    pub(super) fn end_if_drained(&mut self) {
        let State::Draining { end, stdout, stderr } = &self.state else { return };
        let stdout_drained = self.outputs.stdout_closed || self.outputs.stdout >= *stdout;
        let stderr_drained = self.outputs.stderr_closed || self.outputs.stderr >= *stderr;
        if stdout_drained && stderr_drained {
            let end = end.clone();
            self.cut_power(end);
        }
    }
}

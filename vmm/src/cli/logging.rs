// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages of the `log` facade on stderr, one line each. The terminal belongs to the workload, so few pass by default.

use crate::config::request::LogLevel;
use log::{Log, Metadata, Record};

struct ToStderr;

impl Log for ToStderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            crate::run::failure::print_error(&format!("{level}: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Shows messages from `level` on. Called once.
pub(super) fn start(level: LogLevel) {
    log::set_max_level(level.into());
    // There is one logger already only if this is called twice, and then it is the same.
    let _ = log::set_logger(&ToStderr);
}

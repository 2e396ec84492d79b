// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `log` facade's messages on stderr, one line each. The terminal belongs to the workload, so few are shown by default.

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

/// Shows messages of `level` and above.
pub(super) fn start(level: LogLevel) {
    log::set_max_level(level.into());
    // Fails only if it is called twice, with the same logger.
    let _ = log::set_logger(&ToStderr);
}

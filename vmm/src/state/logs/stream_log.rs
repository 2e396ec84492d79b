// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes the output of a detached workload to its logs. Used by the `io` event loop. A full disk costs records; it never stops the
//! workload.

use super::log_notifier::LogNotifier;
use super::record::{Record, Stream};
use crate::state::rotated_file::RotatedFile;
use devices::log_sink::LogSink;
use std::io::Result;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Text of a record.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// The log of one stream.
#[derive(Debug)]
pub(crate) struct StreamLog {
    stream: Stream,
    inner: Mutex<Inner>,
    clock: Arc<Clock>,
    notifier: Arc<LogNotifier>,
}

#[derive(Debug)]
struct Inner {
    file: RotatedFile,
    warned: bool,
}

/// Gives each record of both streams a time of its own.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Clock {
    fn next(&self) -> SystemTime {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let after = |last: u64| now.max(last.saturating_add(1));
        let last = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(after(last)));
        UNIX_EPOCH + Duration::from_micros(after(last.unwrap_or_default()))
    }
}

impl StreamLog {
    /// Creates the logs of standard output and standard error in `run_directory`. Each keeps up to `limit` bytes.
    ///
    /// # Errors
    /// A file cannot be created.
    pub(crate) fn create(run_directory: &Path, limit: u64, notifier: &Arc<LogNotifier>) -> Result<[Arc<Self>; 2]> {
        let clock = Arc::<Clock>::default();
        let create = |stream: Stream| -> Result<Arc<Self>> {
            let file = RotatedFile::create(&run_directory.join(stream.file_name()), limit)?;
            let inner = Mutex::new(Inner { file, warned: false });
            Ok(Arc::new(Self { stream, inner, clock: Arc::clone(&clock), notifier: Arc::clone(notifier) }))
        };
        Ok([create(Stream::Stdout)?, create(Stream::Stderr)?])
    }
}

impl LogSink for StreamLog {
    fn write(&self, bytes: &[u8]) {
        let mut records = Vec::with_capacity(bytes.len() + 128);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, full) = match line.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (line, false),
            };
            let mut parts = text.chunks(MAX_TEXT_BYTES).peekable();
            if parts.peek().is_none() {
                Record::write(self.clock.next(), self.stream, full, b"", &mut records);
            }
            while let Some(part) = parts.next() {
                Record::write(self.clock.next(), self.stream, full && parts.peek().is_none(), part, &mut records);
            }
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.file.append(&records)
            && !std::mem::replace(&mut inner.warned, true)
        {
            log::warn!("output is missing from {}: {error}", self.stream.file_name());
        }
        drop(inner);
        self.notifier.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogReader;
    use super::*;

    fn create(directory: &Path, limit: u64) -> [Arc<StreamLog>; 2] {
        StreamLog::create(directory, limit, &Arc::new(LogNotifier::new().unwrap())).unwrap()
    }

    /// The bytes of each stream, and the stream of each record.
    fn read(directory: &Path) -> (Vec<u8>, Vec<u8>, Vec<Stream>) {
        let mut reader = LogReader::open(directory).unwrap();
        let (mut stdout, mut stderr, mut order) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(record) = reader.next().unwrap() {
            match record.stream {
                Stream::Stdout => stdout.extend(record.bytes()),
                Stream::Stderr => stderr.extend(record.bytes()),
            }
            order.push(record.stream);
        }
        (stdout, stderr, order)
    }

    #[test]
    fn bytes_are_read_exactly_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let [stdout, stderr] = create(directory.path(), 1 << 20);
        let long = [vec![b'x'; 40_000], b"\n\n\xff\0".to_vec()].concat();
        stdout.write(b"a prompt> ");
        stderr.write(b"oops\n");
        stdout.write(b"answer\n");
        stdout.write(&long);
        let (out, err, order) = read(directory.path());
        assert_eq!(out, [b"a prompt> answer\n", &*long].concat());
        assert_eq!(err, b"oops\n");
        assert_eq!(order[..3], [Stream::Stdout, Stream::Stderr, Stream::Stdout]);
        let text = std::fs::read_to_string(directory.path().join("stderr.log")).unwrap();
        assert!(text.ends_with("Z stderr F oops\n"), "{text}");
    }

    #[test]
    fn order_of_the_streams_holds_at_any_rate() {
        let directory = tempfile::tempdir().unwrap();
        let [stdout, stderr] = create(directory.path(), 1 << 20);
        for _ in 0..1000 {
            stdout.write(b"o\n");
            stderr.write(b"e\n");
        }
        let order = read(directory.path()).2;
        assert!(order.chunks(2).all(|pair| pair == [Stream::Stdout, Stream::Stderr]));
    }

    #[test]
    fn log_is_bounded_and_ends_with_the_last_line() {
        let directory = tempfile::tempdir().unwrap();
        let [stdout, _] = create(directory.path(), 10_000);
        (0..1000).for_each(|number| stdout.write(format!("line {number}\n").as_bytes()));
        let (out, ..) = read(directory.path());
        assert!(out.ends_with(b"line 998\nline 999\n") && out.len() < 10_000, "{}", out.len());
    }
}

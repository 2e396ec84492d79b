// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`], on logs that grow meanwhile.

use super::*;
use crate::api::frame::FrameReader;
use crate::state::logs::{LogNotifier, StreamLog};
use devices::log_sink::LogSink as _;
use std::sync::Arc;
use tempfile::TempDir;

fn logs(limit: u64) -> (TempDir, [Arc<StreamLog>; 2]) {
    let entry = tempfile::tempdir().unwrap();
    let logs = StreamLog::create(entry.path(), limit, &Arc::new(LogNotifier::new().unwrap())).unwrap();
    (entry, logs)
}

fn open(entry: &TempDir, change: impl FnOnce(&mut LogsQuery)) -> LogFrames {
    let mut query = LogsQuery {
        follow: false,
        stdout: true,
        stderr: true,
        timestamps: false,
        since: None,
        until: None,
        tail: None,
    };
    change(&mut query);
    LogFrames::open(entry.path(), query).unwrap()
}

/// All frames that there are now, and what `next` returned after them.
fn rest(frames: &mut LogFrames) -> (Vec<(u8, String)>, Next) {
    let (mut reader, mut all) = (FrameReader::default(), Vec::new());
    loop {
        match frames.next().unwrap() {
            Next::Frames(bytes) => {
                assert!(bytes.len() <= MAX_FRAMES_SIZE, "{}", bytes.len());
                reader.push(&bytes);
            }
            Next::More => {}
            last => {
                while let Some((stream, bytes)) = reader.next_frame().unwrap() {
                    all.push((stream, String::from_utf8(bytes).unwrap()));
                }
                return (all, last);
            }
        }
    }
}

fn text(frames: &mut LogFrames) -> String {
    rest(frames).0.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn lines_of_one_stream_share_a_frame() {
    let (entry, [stdout, stderr]) = logs(1 << 20);
    stdout.write(b"one\ntwo\n");
    stderr.write(b"oops\n");
    stdout.write(b"no end");
    let expected = [(1, "one\ntwo\n"), (2, "oops\n"), (1, "no end")].map(|(stream, text)| (stream, text.to_owned()));
    assert_eq!(rest(&mut open(&entry, |_| {})), (expected.to_vec(), Next::End));
    assert_eq!(text(&mut open(&entry, |query| query.stdout = false)), "oops\n");
}

#[test]
fn later_output_reaches_followers_only() {
    let (entry, [stdout, _]) = logs(1 << 20);
    stdout.write(b"before\n");
    let [mut once, mut follower] = [false, true].map(|follow| open(&entry, |query| query.follow = follow));
    let mut late = LogFrames::from_now(entry.path()).unwrap();
    assert_eq!(rest(&mut late), (vec![], Next::Later));
    assert_eq!(rest(&mut follower), (vec![(1, "before\n".to_owned())], Next::Later));
    stdout.write(b"after\n");
    assert_eq!(rest(&mut once), (vec![(1, "before\n".to_owned())], Next::End), "even if it has not read yet");
    assert_eq!(text(&mut follower), "after\n");
    assert_eq!(text(&mut late), "after\n");
}

#[test]
fn tail_counts_lines_over_their_parts() {
    let (entry, [stdout, stderr]) = logs(1 << 20);
    stdout.write(b"one\n");
    stdout.write(b"tw");
    stdout.write(b"o\n");
    stderr.write(b"three\n");
    for (lines, expected) in [(0, ""), (1, "three\n"), (2, "two\nthree\n"), (9, "one\ntwo\nthree\n")] {
        assert_eq!(text(&mut open(&entry, |query| query.tail = Some(lines))), expected);
    }
    let last_of_stdout = |query: &mut LogsQuery| (query.tail, query.stderr) = (Some(1), false);
    assert_eq!(text(&mut open(&entry, last_of_stdout)), "two\n");
}

#[test]
fn timestamps_begin_lines_and_bound_them() {
    let (entry, [stdout, _]) = logs(1 << 20);
    for part in ["a", "b\n", "c\n"] {
        stdout.write(part.as_bytes());
    }
    let stamped = text(&mut open(&entry, |query| query.timestamps = true));
    let lines: Vec<_> = stamped.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(lines.iter().map(|(_, text)| *text).collect::<Vec<_>>(), ["ab", "c"]);
    let [first, second] = [0, 1].map(|line| rfc3339::parse(lines[line].0));
    assert_eq!(text(&mut open(&entry, |query| query.since = second)), "c\n");
    assert_eq!(text(&mut open(&entry, |query| query.until = first)), "a");
}

#[test]
fn long_logs_come_in_bounded_parts_and_complete() {
    let (entry, [stdout, stderr]) = logs(64 << 20);
    let line = [vec![b'x'; 200_000], b"\n".to_vec()].concat();
    stdout.write(&line);
    (0..2000).for_each(|_| [&stdout, &stderr].iter().for_each(|log| log.write(b"\n")));
    let (frames, _) = rest(&mut open(&entry, |_| {}));
    let bytes =
        |wanted| frames.iter().filter(|(stream, _)| *stream == wanted).map(|(_, text)| text.len()).sum::<usize>();
    assert_eq!((bytes(1), bytes(2)), (line.len() + 2000, 2000));
}

#[test]
fn double_rotation_is_reported() {
    let (entry, [stdout, _]) = logs(10_000);
    let mut slow = LogFrames::from_now(entry.path()).unwrap();
    (0..100).for_each(|number| stdout.write(format!("line {number}\n").as_bytes()));
    assert!(!text(&mut slow).is_empty() && !slow.fell_behind());
    (0..1000).for_each(|number| stdout.write(format!("line {number}\n").as_bytes()));
    assert!(!text(&mut slow).is_empty() && slow.fell_behind());
}

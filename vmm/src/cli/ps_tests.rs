// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;
use crate::host::process::ProcessId;
use crate::state::counters::Counters;
use crate::state::end::End;
use crate::state::lifecycle::Lifecycle;
use crate::state::run_dir::RunDirectory;
use crate::state::status::State;
use clap::Parser;
use std::path::Path;

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    arguments: PsArguments,
}

fn shown(base: &Path, words: &[&str]) -> String {
    let base = base.to_str().unwrap();
    let words = [&["ps", "--run-dir", base], words].concat();
    list(&Words::parse_from(words).arguments).unwrap()
}

/// Three machines: one runs, one has ended with 3, one was killed together with its process.
fn run_directory() -> (tempfile::TempDir, RunDirectory) {
    let base = tempfile::tempdir().unwrap();
    let begin = |id: &str, started: u64| {
        let run = RunDirectory::claim(base.path(), id, true).unwrap();
        let now = SystemTime::now();
        let status = serde_json::json!({
            "version": 1, "sequence": 0, "id": id, "state": "starting", "pid": ProcessId::own().pid,
            "pid_started": started, "ready": true, "image": "oci:/images/busybox",
            "command": ["sh", "-c", "echo a very long command\u{1b}[2J"], "detached": true, "terminal": false, "cpus": 1,
            "memory_bytes": 1, "addresses": [], "counters": Counters::default(),
            "since": crate::config::rfc3339::format(now), "created": crate::config::rfc3339::format(now),
        });
        let mut lifecycle = Lifecycle::begin(run.path(), serde_json::from_value(status).unwrap(), None);
        lifecycle.enter(State::Running, Counters::default());
        (run, lifecycle)
    };
    let (running, _) = begin("web", ProcessId::own().started);
    let (_ended, mut lifecycle) = begin("job", ProcessId::own().started);
    lifecycle.end(&End { status: 3, ..End::killed("") }, Counters::default());
    drop(begin("old", 1));
    (base, running)
}

fn names(text: &str) -> Vec<&str> {
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    names
}

#[test]
fn the_table_has_dockers_columns_and_no_control_characters() {
    let (base, _running) = run_directory();
    let text = shown(base.path(), &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let titles: Vec<&str> = lines[0].split("   ").map(str::trim).filter(|title| !title.is_empty()).collect();
    assert_eq!(titles, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert!(lines[1].starts_with("web ") && lines[1].contains("\"sh -c echo a very l…\""), "{text}");
    assert!(lines[1].contains("Up Less than a second"), "{text}");
    assert!(!shown(base.path(), &["--no-trunc"]).contains('\u{1b}'));
}

#[test]
fn what_has_ended_is_shown_with_all_and_how() {
    let (base, _running) = run_directory();
    let text = shown(base.path(), &["-a"]);
    assert!(text.contains("Exited (3) Less than a second ago") && text.contains("Dead"), "{text}");
    assert_eq!(names(&shown(base.path(), &["-aq"])), ["job", "old", "web"]);
    assert_eq!(names(&shown(base.path(), &["-q"])), ["web"]);
}

#[test]
fn filters_of_one_key_add_up_and_those_of_several_all_have_to_fit() {
    let (base, _running) = run_directory();
    let names_with = |words: &[&str]| {
        let words = [&["-q"], words].concat();
        names(&shown(base.path(), &words)).iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names_with(&["-f", "status=exited"]), ["job"]);
    assert_eq!(names_with(&["-f", "status=exited", "-f", "status=dead"]), ["job", "old"]);
    assert_eq!(names_with(&["-f", "status=exited", "-f", "name=e"]), [""; 0]);
    assert_eq!(names_with(&["-a", "-f", "name=o"]), ["job", "old"]);
    assert_eq!(names_with(&["-a", "-f", "id=o"]), ["old"]);
    for text in ["", "status", "status=up", "colour=red"] {
        assert!(text.parse::<Filter>().is_err(), "{text}");
    }
}

#[test]
fn the_document_tells_the_state_as_it_is_seen_from_outside() {
    let (base, _running) = run_directory();
    let documents: Value = serde_json::from_str(&shown(base.path(), &["-a", "--json"])).unwrap();
    let state = |id: &str| {
        let document = documents.as_array().unwrap().iter().find(|document| document["id"] == id).unwrap();
        document["state"].clone()
    };
    assert_eq!([state("web"), state("job"), state("old")], ["running", "exited", "dead"]);
}

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
fn three_machines() -> (tempfile::TempDir, RunDirectory) {
    let base = tempfile::tempdir().unwrap();
    let begin = |id: &str, digits: &str, started: u64| {
        let directory = RunDirectory::claim(base.path(), id, true).unwrap();
        let now = SystemTime::now();
        let status = Status {
            id: id.into(),
            container_id: digits.repeat(32),
            since: now,
            created: now,
            pid: ProcessId::own().pid,
            pid_started: started,
            ready: true,
            image: Some("oci:/images/busybox".into()),
            command: ["sh", "-c", "echo a very long command\u{1b}[2J"].map(str::to_owned).into(),
            ports: ["80/tcp", "443/tcp"].map(str::to_owned).into(),
            published: Vec::new(),
            ..Status::sample()
        };
        let mut lifecycle = Lifecycle::begin(directory.path(), status, None);
        lifecycle.enter(State::Running, Counters::default());
        (directory, lifecycle)
    };
    let (running, _) = begin("web", "a1", ProcessId::own().started);
    let (_ended, mut lifecycle) = begin("job", "b2", ProcessId::own().started);
    lifecycle.end(&End { status: 3, ..End::killed("") }, Counters::default());
    drop(begin("old", "c3", 1));
    (base, running)
}

fn names(text: &str) -> Vec<&str> {
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    names
}

#[test]
fn table_has_dockers_columns_and_no_control_characters() {
    let (base, _running) = three_machines();
    let text = shown(base.path(), &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let titles: Vec<&str> = lines[0].split("   ").map(str::trim).filter(|title| !title.is_empty()).collect();
    assert_eq!(titles, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    let cells: Vec<&str> = lines[1].split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        cells,
        [
            "a1a1a1a1a1a1",
            "oci:/images/busybox",
            "\"sh -c echo a very l…\"",
            "Less than a second ago",
            "Up Less than a second",
            "80/tcp, 443/tcp",
            "web"
        ]
    );
    let whole = shown(base.path(), &["--no-trunc"]);
    assert!(whole.contains(&"a1".repeat(32)) && !whole.contains('\u{1b}'), "{whole}");
}

#[test]
fn ended_machines_are_shown_with_their_status_by_all() {
    let (base, _running) = three_machines();
    let text = shown(base.path(), &["-a"]);
    assert!(text.contains("Exited (3) Less than a second ago") && text.contains("Dead"), "{text}");
    assert_eq!(names(&shown(base.path(), &["-aq"])), ["job", "old", "web"]);
    assert_eq!(names(&shown(base.path(), &["-q"])), ["web"]);
}

#[test]
fn filters_of_one_key_add_up_and_keys_restrict() {
    let (base, _running) = three_machines();
    let names_with = |words: &[&str]| {
        let words = [&["-q"], words].concat();
        names(&shown(base.path(), &words)).iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names_with(&["-f", "status=exited"]), ["job"]);
    assert_eq!(names_with(&["-f", "status=exited", "-f", "status=dead"]), ["job", "old"]);
    assert_eq!(names_with(&["-f", "status=exited", "-f", "name=e"]), [""; 0]);
    assert_eq!(names_with(&["-a", "-f", "name=o"]), ["job", "old"]);
    assert_eq!(names_with(&["-a", "-f", "id=o"]), ["old"]);
    assert_eq!(names_with(&["-a", "-f", "id=b2b2"]), ["job"]);
    for text in ["", "status", "status=up", "colour=red"] {
        assert!(text.parse::<Filter>().is_err(), "{text}");
    }
}

#[test]
fn document_has_the_state_as_seen_from_outside() {
    let (base, _running) = three_machines();
    let documents: Value = serde_json::from_str(&shown(base.path(), &["-a", "--json"])).unwrap();
    let state = |id: &str| {
        let document = documents.as_array().unwrap().iter().find(|document| document["id"] == id).unwrap();
        document["state"].clone()
    };
    assert_eq!([state("web"), state("job"), state("old")], ["running", "exited", "dead"]);
}

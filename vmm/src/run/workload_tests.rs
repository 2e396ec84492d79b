// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of the precedence of what runs: the table of the contract.

use super::*;

fn strings(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

fn image() -> ImageConfig {
    ImageConfig {
        entrypoint: strings("entry e1"),
        cmd: strings("cmd c1"),
        env: strings("PATH=/bin A=image"),
        working_dir: "/srv".into(),
        user: "app".into(),
        stop_signal: Some("SIGQUIT".into()),
        ..ImageConfig::default()
    }
}

fn decide(image: &ImageConfig, request: &Request) -> Result<Workload, WorkloadError> {
    Workload::decide(image, request, &[], |_| None)
}

#[test]
fn entrypoint_and_command_take_the_place_of_the_images_as_docker_has_it() {
    // Image's Entrypoint and Cmd, --entrypoint, COMMAND: what runs.
    let table = [
        ("entry e1", "cmd c1", None, "", "entry e1 cmd c1"),
        ("entry e1", "cmd c1", None, "x y", "entry e1 x y"),
        ("entry e1", "cmd c1", Some("own"), "", "own"),
        ("entry e1", "cmd c1", Some("own"), "x y", "own x y"),
        ("entry e1", "cmd c1", Some(""), "x y", "x y"),
        ("", "cmd c1", None, "", "cmd c1"),
        ("", "cmd c1", None, "x", "x"),
        ("entry", "", None, "", "entry"),
        ("", "", None, "x", "x"),
        ("", "", Some("own"), "", "own"),
    ];
    for (entrypoint, cmd, own, command, expected) in table {
        let image = ImageConfig { entrypoint: strings(entrypoint), cmd: strings(cmd), ..image() };
        let request = Request { entrypoint: own.map(str::to_owned), command: strings(command), ..Request::default() };
        let workload = decide(&image, &request).unwrap();
        assert_eq!(workload.arguments, strings(expected), "{entrypoint:?} {cmd:?} {own:?} {command:?}");
    }
}

#[test]
fn nothing_to_run_is_an_error() {
    let bare = ImageConfig { entrypoint: Vec::new(), cmd: Vec::new(), ..image() };
    assert_eq!(decide(&bare, &Request::default()), Err(WorkloadError::NoCommand { rootfs: false }));
    let cleared = Request { entrypoint: Some(String::new()), ..Request::default() };
    assert_eq!(decide(&image(), &cleared), Err(WorkloadError::NoCommand { rootfs: false }));
    let empty = Request { command: vec![String::new()], ..Request::default() };
    assert_eq!(decide(&bare, &empty), Err(WorkloadError::EmptyCommand));
}

#[test]
fn the_image_decides_where_the_request_is_silent() {
    let workload = decide(&image(), &Request::default()).unwrap();
    assert_eq!((&*workload.working_directory, &*workload.user), ("/srv", "app"));
    assert_eq!(workload.stop_signal.to_string(), "SIGQUIT");
    assert_eq!(workload.environment, strings("PATH=/bin A=image"));
    let plain = decide(&ImageConfig { cmd: strings("x"), ..ImageConfig::default() }, &Request::default()).unwrap();
    assert_eq!((&*plain.working_directory, &*plain.user, plain.stop_signal.get()), ("/", "", 15));
}

#[test]
fn the_request_decides_where_it_speaks() {
    let request = Request {
        workdir: Some("/w".into()),
        user: Some("1:2".into()),
        stop_signal: Some("USR1".parse().unwrap()),
        env: vec!["A=option".parse().unwrap()],
        ..Request::default()
    };
    let files = ["A=file".parse().unwrap(), "B=file".parse().unwrap()];
    let workload = Workload::decide(&image(), &request, &files, |_| None).unwrap();
    assert_eq!((&*workload.working_directory, &*workload.user), ("/w", "1:2"));
    assert_eq!(workload.stop_signal.to_string(), "SIGUSR1");
    assert_eq!(workload.environment, strings("PATH=/bin A=option B=file"));
}

#[test]
fn what_no_process_can_have_is_refused() {
    let with = |request: Request| decide(&image(), &request).unwrap_err();
    let command = |command: &str| Request { command: vec![command.to_owned()], ..Request::default() };
    assert_eq!(with(command("a\0b")), WorkloadError::Nul("the command"));
    assert!(matches!(with(command(&"x".repeat(3 << 20))), WorkloadError::TooLong(_)));
    let relative = Request { workdir: Some("relative/path".into()), ..Request::default() };
    assert_eq!(with(relative), WorkloadError::WorkingDirectory("relative/path".into()));
    let odd = ImageConfig { stop_signal: Some("NOSUCH".into()), ..image() };
    assert!(matches!(decide(&odd, &Request::default()), Err(WorkloadError::StopSignal(_))));
}

#[test]
fn a_system_is_its_own_init_whatever_the_image_runs() {
    let request = Request { system: true, env: vec!["container=lxc".parse().unwrap()], ..Request::default() };
    let workload = decide(&image(), &request).unwrap();
    assert_eq!(workload.arguments, ["/sbin/init"]);
    assert_eq!((&*workload.working_directory, &*workload.user), ("/", ""));
    assert_eq!(workload.environment, strings("PATH=/bin A=image container=coracle TERM=dumb"));
    let own = Request { command: strings("/lib/systemd/systemd --log-level=debug"), ..request.clone() };
    assert_eq!(decide(&image(), &own).unwrap().arguments, own.command);
    let terminal = Request { tty: true, ..request.clone() };
    assert!(!decide(&image(), &terminal).unwrap().environment.contains(&"TERM=dumb".to_owned()));
    let empty = Request { command: vec![String::new()], ..request };
    assert_eq!(decide(&image(), &empty), Err(WorkloadError::EmptyCommand));
}

#[test]
fn a_system_is_asked_to_power_off_unless_image_or_request_know_better() {
    let signal = |image: &ImageConfig, stop_signal: Option<&str>| {
        let stop_signal = stop_signal.map(|signal| signal.parse().unwrap());
        let request = Request { system: true, stop_signal, ..Request::default() };
        decide(image, &request).unwrap().stop_signal.to_string()
    };
    assert_eq!(signal(&ImageConfig::default(), None), "SIGRTMIN+4");
    assert_eq!(signal(&image(), None), "SIGQUIT");
    assert_eq!(signal(&image(), Some("PWR")), "SIGPWR");
}

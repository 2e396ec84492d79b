// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: what docker does when it merges options with an image's configuration (`merge` in moby's
//! `daemon/commit.go`, `getProbe` and `getShell` in `daemon/health.go`).

use super::*;

fn strings(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// The same, where `''` is an empty string.
fn quoted(words: &str) -> Vec<String> {
    strings(words).into_iter().map(|word| word.replace("''", "")).collect()
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
    Workload::decide(image, request, &[], |_| Ok(None))
}

#[test]
fn entrypoint_and_command_replace_the_images() {
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
        ("''", "cmd c1", None, "", "cmd c1"),
        ("''", "cmd c1", None, "x y", "x y"),
        ("''", "cmd c1", Some("own"), "", "own"),
        ("'' e1", "x", None, "", "an error"),
        ("entry", "''", None, "", "entry ''"),
        ("entry", "cmd", None, "''", "entry ''"),
        ("entry e1", "cmd c1", Some(""), "", "an error"),
        ("", "''", None, "", "an error"),
        ("", "", None, "", "an error"),
    ];
    for (entrypoint, cmd, own, command, expected) in table {
        let image = ImageConfig { entrypoint: quoted(entrypoint), cmd: quoted(cmd), ..image() };
        let request = Request { entrypoint: own.map(str::to_owned), command: quoted(command), ..Request::default() };
        let arguments = decide(&image, &request).map_or_else(|_| strings("an error"), |workload| workload.arguments);
        assert_eq!(arguments, quoted(expected), "{entrypoint:?} {cmd:?} {own:?} {command:?}");
    }
}

#[test]
fn no_command_is_an_error() {
    let bare = ImageConfig { entrypoint: Vec::new(), cmd: Vec::new(), ..image() };
    assert_eq!(decide(&bare, &Request::default()), Err(WorkloadError::NoCommand { rootfs: false }));
    let cleared = Request { entrypoint: Some(String::new()), ..Request::default() };
    assert_eq!(decide(&image(), &cleared), Err(WorkloadError::NoCommand { rootfs: false }));
    let empty = Request { command: vec![String::new()], ..Request::default() };
    assert_eq!(decide(&bare, &empty), Err(WorkloadError::EmptyCommand));
}

#[test]
fn image_decides_what_no_option_does() {
    let workload = decide(&image(), &Request::default()).unwrap();
    assert_eq!((&*workload.working_directory, &*workload.user), ("/srv", "app"));
    assert_eq!(workload.stop_signal.to_string(), "SIGQUIT");
    assert_eq!(workload.environment, strings("PATH=/bin A=image"));
    let plain = decide(&ImageConfig { cmd: strings("x"), ..ImageConfig::default() }, &Request::default()).unwrap();
    assert_eq!((&*plain.working_directory, &*plain.user, plain.stop_signal.get()), ("/", "", 15));
}

#[test]
fn options_replace_the_images_values() {
    let request = Request {
        workdir: Some("/w".into()),
        user: Some("1:2".into()),
        stop_signal: Some("USR1".parse().unwrap()),
        env: vec!["A=option".parse().unwrap()],
        ..Request::default()
    };
    let files = ["A=file".parse().unwrap(), "B=file".parse().unwrap()];
    let workload = Workload::decide(&image(), &request, &files, |_| Ok(None)).unwrap();
    assert_eq!((&*workload.working_directory, &*workload.user), ("/w", "1:2"));
    assert_eq!(workload.stop_signal.to_string(), "SIGUSR1");
    assert_eq!(workload.environment, strings("PATH=/bin A=option B=file"));
}

#[test]
fn values_that_no_process_can_have_are_rejected() {
    let with = |request: Request| decide(&image(), &request).unwrap_err();
    let command = |command: &str| Request { command: vec![command.to_owned()], ..Request::default() };
    assert_eq!(with(command("a\0b")), WorkloadError::Nul("the command"));
    assert!(matches!(with(command(&"x".repeat(3 << 20))), WorkloadError::TooLong(_)));
    let relative = Request { workdir: Some("relative/path".into()), ..Request::default() };
    assert_eq!(with(relative), WorkloadError::WorkingDirectory("relative/path".into()));
}

#[test]
fn system_runs_its_own_init() {
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
fn system_stops_by_power_off_by_default() {
    let signal = |image: &ImageConfig, stop_signal: Option<&str>| {
        let stop_signal = stop_signal.map(|signal| signal.parse().unwrap());
        let request = Request { system: true, stop_signal, ..Request::default() };
        decide(image, &request).unwrap().stop_signal.to_string()
    };
    assert_eq!(signal(&ImageConfig::default(), None), "SIGRTMIN+4");
    assert_eq!(signal(&image(), None), "SIGQUIT");
    assert_eq!(signal(&image(), Some("PWR")), "SIGPWR");
}

#[test]
fn empty_values_are_not_given() {
    let empty = || Some(String::new());
    let request = Request {
        user: empty(),
        workdir: empty(),
        health_cmd: empty(),
        stop_signal: Some("".parse().unwrap()),
        ..Request::default()
    };
    assert_eq!(decide(&image(), &request), decide(&image(), &Request::default()));
    // User, WorkingDir, StopSignal and Healthcheck of the image; --user and --workdir; user, directory and signal that count.
    let table = [
        ("", "", None, None, ("", "/", "SIGTERM")),
        ("app", "/srv", None, None, ("app", "/srv", "SIGTERM")),
        ("app", "/srv", Some(""), Some(""), ("app", "/srv", "SIGTERM")),
        ("app", "/srv", Some("1:2"), Some("/w"), ("1:2", "/w", "SIGTERM")),
        ("", "srv/x", None, None, ("", "/srv/x", "SIGTERM")),
    ];
    for (user, working_dir, option_user, option_workdir, expected) in table {
        let image = ImageConfig { user: user.into(), working_dir: working_dir.into(), stop_signal: None, ..image() };
        let request = Request {
            user: option_user.map(str::to_owned),
            workdir: option_workdir.map(str::to_owned),
            ..Request::default()
        };
        let workload = decide(&image, &request).unwrap();
        let signal = workload.stop_signal.to_string();
        assert_eq!((&*workload.user, &*workload.working_directory, &*signal), expected);
    }
}

#[test]
fn invalid_stop_signal_of_the_image_is_a_warning() {
    let odd = ImageConfig { stop_signal: Some("NOSUCH".into()), ..image() };
    let workload = decide(&odd, &Request::default()).unwrap();
    assert_eq!(workload.stop_signal.to_string(), "SIGTERM");
    assert!(workload.warnings[0].contains("StopSignal") && workload.warnings[0].contains("NOSUCH"));
}

#[test]
fn shell_form_runs_with_the_images_shell() {
    let healthcheck = serde_json::json!({"Test": ["CMD-SHELL", "a || b"]});
    let image = ImageConfig { healthcheck: Some(healthcheck), shell: strings("/bin/bash -ec"), ..image() };
    let option = Request { health_cmd: Some("c".into()), ..Request::default() };
    let arguments = |request: &Request| decide(&image, request).unwrap().health.unwrap().arguments;
    assert_eq!(arguments(&Request::default()), ["/bin/bash", "-ec", "a || b"]);
    assert_eq!(arguments(&option), ["/bin/bash", "-ec", "c"]);
}

#[test]
fn host_variable_that_is_not_text_is_an_error() {
    let request = Request { env: vec!["LATIN1".parse().unwrap()], ..Request::default() };
    let host = |name: &str| Err(HostValueError::of(name));
    let error = Workload::decide(&image(), &request, &[], host).unwrap_err().to_string();
    assert!(error.contains("LATIN1") && error.contains("UTF-8"), "{error}");
}

#[test]
fn user_with_an_impossible_id_is_rejected() {
    let with = |user: &str| {
        let request = Request { user: Some(user.to_owned()), ..Request::default() };
        decide(&image(), &request).map(|workload| workload.user)
    };
    for user in ["0", "2147483647", "1:2", ":5", "app:", "app:wheel", "1a", "-x", "+1"] {
        assert_eq!(with(user).as_deref(), Ok(user));
    }
    for user in ["-1", "2147483648", "4294967295:1", "1:-1", "app:99999999999999999999999"] {
        assert_eq!(with(user), Err(WorkloadError::UserId(user.to_owned())));
    }
}

/// Variables of the image, `--env-file` and `-e`, of a host that has only `HOST=host`; what the workload gets.
#[test]
fn environment_is_merged_by_name() {
    let table = [
        ("A=image", "", "", "A=image"),
        ("A=image", "A=file", "", "A=file"),
        ("A=image", "A=file", "A=option", "A=option"),
        ("A=image", "", "A=", "A="),
        ("A=image B=image", "", "A=1 A=2", "A=2 B=image"),
        ("A=1 A=2", "", "", "A=2"),
        ("A=image", "", "HOST", "A=image HOST=host"),
        ("HOST=image", "HOST", "", "HOST=host"),
        ("GONE=image", "GONE", "", "GONE=image"),
        ("GONE=image", "", "GONE", ""),
        ("", "GONE", "GONE", ""),
        ("A=b=c", "", "D==", "A=b=c D=="),
        ("NOVALUE A=image", "", "", "A=image"),
        ("a=1 A=2", "", "a=3", "a=3 A=2"),
    ];
    for (of_image, file, option, expected) in table {
        let image = ImageConfig { env: strings(of_image), ..image() };
        let variables = |words: &str| strings(words).iter().map(|word| word.parse().unwrap()).collect::<Vec<EnvVar>>();
        let request = Request { env: variables(option), ..Request::default() };
        let host = |name: &str| Ok((name == "HOST").then(|| "host".to_owned()));
        let workload = Workload::decide(&image, &request, &variables(file), host).unwrap();
        assert_eq!(workload.environment, strings(expected), "{of_image:?} {file:?} {option:?}");
    }
}

#[test]
fn expected_program_begins_relative_paths_at_the_working_directory() {
    let expected = |directory: &str, entrypoint: &str, path: &str| {
        let env = vec![format!("PATH={path}")];
        let image = ImageConfig { working_dir: directory.into(), entrypoint: strings(entrypoint), env, ..image() };
        let program = expected_program(&image).unwrap();
        (program.command, program.path.unwrap())
    };
    let table = [
        ("/srv", "./app", "/bin", "/srv/./app", "/bin"),
        ("srv/", "bin/app", "/bin::lib", "/srv/bin/app", "/bin:/srv/:/srv/lib"),
        ("", "./app", "", "/./app", "/"),
        ("/srv", "app", "/bin", "app", "/bin"),
        ("/srv", "/app", "/bin", "/app", "/bin"),
    ];
    for (directory, entrypoint, path, command, directories) in table {
        assert_eq!(expected(directory, entrypoint, path), (command.to_owned(), directories.to_owned()));
    }
}

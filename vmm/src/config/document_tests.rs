// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;
use clap::{Args as _, FromArgMatches as _};

fn options(arguments: &[&str]) -> Request {
    let command = Request::augment_args(clap::Command::new("run").disable_help_flag(true).no_binary_name(true));
    Request::from_arg_matches(&command.try_get_matches_from(arguments).unwrap()).unwrap()
}

fn parse(text: &str) -> Result<Request, DocumentError> {
    Request::parse(text.as_bytes(), Path::new("x.json"))
}

/// Every option with a value that is not its default.
const EVERYTHING: &[&str] = &[
    "-eA=1",
    "-eB",
    "--env-file=f",
    "--context=c.iso",
    "--entrypoint=-x",
    "--workdir=/w",
    "--user=u:g",
    "--system",
    "--init",
    "-i",
    "-t",
    "--stop-signal=USR1",
    "--stop-timeout=3",
    "--timeout=4",
    "--health-cmd=true",
    "--health-interval=1s",
    "--health-timeout=2s",
    "--health-retries=3",
    "--health-start-period=4s",
    "--health-start-interval=500ms",
    "--no-healthcheck",
    "--ready-port=80",
    "--ready-exec=true",
    "--ready-notify",
    "-m256m",
    "--cpus=2",
    "--kernel=k",
    "--modules=m",
    "--init-binary=i",
    "--append=a b",
    "--rootfs=r",
    "--pull=never",
    "--platform=linux/amd64/v2",
    "--root-format=squashfs",
    "--scratch=16m",
    "--read-only",
    "--keep-etc",
    "--privileged",
    "--group-add=wheel",
    "--ulimit=nofile=1024:4096",
    "--cap-drop=ALL",
    "--cap-add=KILL",
    "--security-opt=no-new-privileges",
    "--oom-score-adj=-5",
    "--tmpfs=/t:size=1m",
    "--volume=./d:/d:ro",
    "--volume=v:/v:ro",
    "--mount=type=tmpfs,target=/m",
    "--disk=path=d,ro",
    "--hostname=h",
    "--network=tap=t0",
    "--mac-address=02:00:00:00:00:01",
    "--network-alias=db",
    "--publish=8080:80/tcp",
    "--publish-all",
    "--dns=1.1.1.1",
    "--dns-search=lan",
    "--dns-option=ndots:2",
    "--add-host=db:10.0.0.2",
    "--metadata=m.json",
    "--sysctl=net.ipv4.ip_forward=1",
    "--vsock=v,cid=4",
    "--name=n",
    "--rm",
    "--run-dir=rd",
    "--cidfile=c",
    "--result=fd:5",
    "--events=fd:8",
    "--detach",
    "--log-size=1m",
    "--timings",
    "--sandbox=off",
    "--template=auto",
    "--log-level=debug",
    "--console=c",
    "--profile=p",
];

#[test]
fn document_holds_every_option() {
    let request = Request { version: VERSION, ..options(EVERYTHING) };
    let document = request.to_document().unwrap();
    assert_eq!(parse(&document).unwrap(), request);
}

#[test]
fn document_has_a_key_for_every_option() {
    let command = Request::augment_args(clap::Command::new("run").disable_help_flag(true));
    let request = Request { id: Some("i".parse().unwrap()), ..options(EVERYTHING) };
    let document = request.to_map().unwrap();
    for option in command.get_arguments().filter_map(clap::Arg::get_long).filter(|option| *option != "help") {
        assert!(document.contains_key(option), "--{option}");
    }
}

#[test]
fn document_has_only_what_was_given() {
    let expected = "{\n  \"memory\": \"256m\",\n  \"version\": 1\n}";
    assert_eq!(options(&["-m", "256m"]).to_document().unwrap(), expected);
}

#[test]
fn options_override_the_document_and_append_to_lists() {
    let document = r#"{"version":1,"image":"oci:x","memory":"64m","cpus":2,"env":["A=document"],"init":true}"#;
    let merged = parse(document).unwrap().overridden_by(&options(&["-m128m", "-eA=option", "--rm"])).unwrap();
    let expected = options(&["-m128m", "--cpus=2", "-eA=document", "-eA=option", "--init", "--rm"]);
    assert_eq!(merged, Request { image: Some("oci:x".into()), ..expected });
}

#[test]
fn invalid_documents_are_rejected() {
    for (text, object) in [
        ("", "not a JSON object"),
        ("[1, 2, 3]", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("\u{feff}{\"version\":1}", "not a JSON object"),
        ("{}", "no version"),
        (r#"{"version":999,"colour":"red"}"#, "version 999"),
        (r#"{"version":"1"}"#, "version \"1\""),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(object) && error.contains("x.json"), "{text}: {error}");
    }
    for (text, object) in [
        (r#"{"version":1,"image":"#, "EOF"),
        (r#"{"version":1,"image":"x"} more"#, "trailing"),
        (r#"{"version":1,"colour":"red"}"#, "colour"),
        (r#"{"version":1,"image":"x","image":"y"}"#, "duplicate"),
        (r#"{"version":1,"memory":"63m"}"#, "invalid value '63m': the minimum is 64m"),
        (r#"{"version":1,"cpus":33}"#, "33"),
        (r#"{"version":1,"env":"A=b"}"#, "sequence"),
        (&format!(r#"{{"version":1,"image":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)), "sequence"),
    ] {
        let DocumentError::Content { source, .. } = parse(text).unwrap_err() else { panic!("{text}") };
        assert!(source.to_string().contains(object), "{text:.100}: {source}");
    }
    assert!(Request::parse(b"{\"version\":1,\"image\":\"\xff\"}", Path::new("x")).is_err());
}

#[test]
fn empty_values_are_not_given() {
    let empty = [
        "--name=",
        "--hostname=",
        "--user=",
        "--workdir=",
        "--stop-signal=",
        "--mac-address=",
        "--vsock=",
        "--health-cmd=",
        "--ready-exec=",
        "--append=",
        "--kernel=",
        "--modules=",
        "--init-binary=",
        "--rootfs=",
        "--run-dir=",
        "--cidfile=",
        "--result=",
        "--events=",
        "--console=",
        "--profile=",
    ];
    assert_eq!(options(&empty).without_empty(), Request::default());
    assert_eq!(options(&["--entrypoint="]).without_empty().entrypoint.as_deref(), Some(""));
    let document = parse(r#"{"version":1,"name":"web","hostname":"","user":"app"}"#).unwrap();
    let merged = document.overridden_by(&options(&["--name=", "--user="])).unwrap();
    assert_eq!(merged, options(&["--name=web", "--user=app"]));
}

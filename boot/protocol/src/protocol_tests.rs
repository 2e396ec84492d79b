// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frames of the control port: complete, split, too long, malformed.

use super::*;
use crate::attributes::{Capabilities, ProcessAttributes, ResourceLimit};
use crate::exec::ExecSpec;
use crate::run_spec::{
    Address, Dhcp, ExpectedProgram, Host, Interface, Resolver, Root, Route, ShareMount, System, TmpfsMount, Upper,
};
use alloc::format;
use alloc::vec;
use core::net::{IpAddr, Ipv6Addr};
use proptest::prelude::*;

fn spec() -> impl Strategy<Value = RunSpec> {
    let text = || ".{0,20}";
    let texts = || prop::collection::vec(".{0,20}", 0..6);
    let root =
        (text(), texts(), text(), any::<bool>(), 0..5).prop_map(|(disk, file_systems, scratch, read_only, upper)| {
            Root {
                share: read_only.then(|| disk.clone()),
                disk_serial: disk,
                file_systems,
                upper: match upper {
                    0 => Upper::None,
                    1 => Upper::Tmpfs,
                    2 => Upper::Disk(scratch),
                    3 => Upper::Kept(scratch),
                    _ => Upper::InPlace,
                },
                read_only,
            }
        });
    let address = (any::<IpAddr>(), any::<u8>()).prop_map(|(address, prefix)| Address { address, prefix });
    let interface = (any::<[u8; 6]>(), text(), any::<Option<u16>>(), address, any::<Option<IpAddr>>()).prop_map(
        |(mac, name, mtu, address, gateway)| Interface {
            mac,
            name,
            mtu,
            addresses: vec![address; usize::from(mac[0] % 3)],
            routes: vec![Route { destination: address, gateway }],
            dhcp: (mac[1] > 127).then_some(Dhcp { search: mac[2] > 127 }),
        },
    );
    let window =
        prop::option::of((any::<u16>(), any::<u16>()).prop_map(|(rows, columns)| WindowSize { rows, columns }));
    (texts(), texts(), text(), text(), window, any::<(bool, bool)>(), root, prop::collection::vec(interface, 0..3))
        .prop_map(|(arguments, environment, user, hostname, terminal, (stdin, init), root, interfaces)| RunSpec {
            tmpfs: arguments.iter().map(|path| TmpfsMount { path: path.clone(), options: user.clone() }).collect(),
            shares: environment
                .iter()
                .map(|path| ShareMount {
                    tag: user.clone(),
                    path: path.clone(),
                    file: stdin.then(|| hostname.clone()),
                    read_only: init,
                })
                .collect(),
            extra_hosts: environment
                .iter()
                .map(|names| Host { address: Ipv6Addr::LOCALHOST.into(), names: names.clone() })
                .collect(),
            resolver: Resolver {
                servers: interfaces.iter().flat_map(|interface| &interface.addresses).map(|a| a.address).collect(),
                search: arguments.clone(),
                options: environment.clone(),
            },
            sysctls: environment.iter().map(|name| (name.clone(), hostname.clone())).collect(),
            working_directory: user.clone(),
            arguments,
            environment,
            user,
            hostname,
            terminal,
            stdin,
            init,
            system: stdin.then_some(System { explicit_hostname: init }),
            root,
            interfaces,
            attributes: ProcessAttributes {
                limits: vec![ResourceLimit { resource: 7, soft: Some(1), hard: None }],
                umask: stdin.then_some(0o27),
                capabilities: if init { Capabilities::Bounded(5) } else { Capabilities::default() },
                ..ProcessAttributes::default()
            },
            seccomp: if stdin { vec![6, u64::MAX] } else { Vec::new() },
            ..RunSpec::default()
        })
}

fn to_guest() -> impl Strategy<Value = ToGuest> {
    prop_oneof![
        spec().prop_map(ToGuest::Spec),
        any::<u8>().prop_map(ToGuest::Signal),
        any::<(u16, u16)>().prop_map(|(rows, columns)| ToGuest::Resize(WindowSize { rows, columns })),
        any::<u64>().prop_map(|bytes| ToGuest::StdinEnd { bytes }),
        any::<bool>().prop_map(|stderr| ToGuest::OutputClosed { stderr }),
        (any::<u32>(), exec_request()).prop_map(|(id, request)| ToGuest::Exec { id, request }),
        spec().prop_map(|spec| ToGuest::PrepareRoot(RootPreparation {
            expected: spec.init.then(|| ExpectedProgram { command: spec.user, path: spec.arguments.first().cloned() }),
            root: spec.root,
        })),
    ]
}

fn exec_request() -> impl Strategy<Value = ExecRequest> {
    prop_oneof![
        spec().prop_map(|spec| ExecRequest::Start(ExecSpec {
            arguments: spec.arguments,
            environment: spec.environment,
            working_directory: spec.working_directory,
            user: spec.user,
            terminal: spec.terminal,
            stdin: spec.stdin,
            detached: spec.init,
            attributes: spec.init.then_some(spec.attributes),
            writes_files: spec.init,
        })),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(ExecRequest::Input),
        Just(ExecRequest::InputEnd),
        any::<u32>().prop_map(ExecRequest::Credit),
        Just(ExecRequest::HangUp),
    ]
}

proptest! {
    #[test]
    fn messages_arrive_in_order_for_every_split_of_the_stream(
        messages in prop::collection::vec(to_guest(), 1..5),
        read_size in 1_usize..100,
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(encode).collect();
        let mut reader = FrameReader::new(MAX_TO_GUEST);
        let mut arrived = Vec::new();
        for bytes in stream.chunks(read_size) {
            reader.push(bytes);
            while let Some(message) = reader.next::<ToGuest>().unwrap() {
                arrived.push(message);
            }
        }
        prop_assert_eq!(arrived, messages);
    }

    #[test]
    fn reader_accepts_any_bytes_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut reader = FrameReader::new(MAX_TO_GUEST);
        reader.push(&bytes);
        while let Ok(Some(_)) = reader.next::<ToGuest>() {}
    }

    #[test]
    fn frame_with_a_surplus_or_missing_byte_is_malformed(message in to_guest(), longer in any::<bool>()) {
        let mut payload = encode(&message).split_off(4);
        if longer { payload.push(0); } else { payload.pop(); }
        let mut reader = FrameReader::new(MAX_TO_GUEST);
        reader.push(&(payload.len() as u32).to_le_bytes());
        reader.push(&payload);
        prop_assert_eq!(reader.next::<ToGuest>(), Err(FrameError::Malformed));
    }
}

#[test]
fn length_above_the_maximum_is_rejected_before_the_payload() {
    let mut reader = FrameReader::new(MAX_TO_GUEST);
    reader.push(&(MAX_TO_GUEST + 1).to_le_bytes());
    assert_eq!(reader.next::<ToHost>(), Err(FrameError::TooLong(MAX_TO_GUEST + 1)));
}

#[test]
fn empty_frame_is_malformed() {
    let mut reader = FrameReader::new(MAX_TO_GUEST);
    reader.push(&[0; 4]);
    assert_eq!(reader.next::<ToHost>(), Err(FrameError::Malformed));
}

/// `tests/guest/flooding_init.c` sends these bytes, from the outside of this workspace.
#[test]
fn flooding_init_of_the_tests_has_the_messages_of_this_version() {
    let source = include_str!("../../../tests/guest/flooding_init.c");
    let health =
        HealthReport { status: crate::health::HealthStatus::Healthy, output: "well".into(), ..HealthReport::default() };
    for (name, message) in [("running", ToHost::Running), ("health", ToHost::Health(health))] {
        let bytes = encode(&message).into_iter().map(|byte| match byte {
            b'a'..=b'z' => format!("'{}'", char::from(byte)),
            _ => format!("{byte}"),
        });
        let array = format!("{name}[] = {{{}}};", bytes.collect::<Vec<_>>().join(", "));
        assert!(source.contains(&array), "{array}");
    }
}

#[test]
fn every_message_to_the_host_survives_a_round_trip() {
    let end = |end| ToHost::Ended { end, stdout_bytes: u64::MAX, stderr_bytes: 0 };
    let messages = [
        ToHost::Hello { version: VERSION },
        ToHost::Running,
        ToHost::Failed { kind: FailureKind::Setup, step: "mount".into(), detail: "x".into(), errno: -22 },
        end(WorkloadEnd::Exited(255)),
        end(WorkloadEnd::Signalled { signal: 9, out_of_memory: true }),
        end(WorkloadEnd::Reboot),
        end(WorkloadEnd::Poweroff),
    ];
    let mut reader = FrameReader::new(MAX_TO_GUEST);
    messages.iter().for_each(|message| reader.push(&encode(message)));
    for message in messages {
        assert_eq!(reader.next::<ToHost>(), Ok(Some(message)));
    }
    assert_eq!(reader.next::<ToHost>(), Ok(None));
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The end-to-end tests, as one binary: the list of tests, and how many run at a time.

mod adopted_network;
mod attach;
mod bridge_network;
mod caller_state;
mod campaigns;
mod check;
mod containerd;
mod contexts;
mod detached;
mod dhcp;
mod disks;
mod docker_defaults;
mod ends;
mod engines;
mod exec;
mod faults;
mod foreign_kernels;
mod health;
mod help_texts;
mod hostile_clients;
mod hostile_files;
mod hostile_guests;
mod image_archives;
mod image_crashes;
mod inherited_sockets;
mod kept_machines;
mod life_cycle;
mod matrix;
mod metadata;
mod network_links;
mod opennebula;
mod options;
mod package;
mod private_registries;
mod progress;
mod python_image;
mod ready;
mod redis;
mod refused_hosts;
mod refused_images;
mod refused_kernels;
mod refused_options;
mod registries;
mod result_document;
mod root_directory;
mod root_formats;
mod sandbox;
mod saved_layers;
mod share_conformance;
mod shares;
mod signals;
mod snapshots;
mod status;
mod stream_sockets;
mod streams;
mod system_images;
mod templates;
mod terminal;
mod user_network;
mod vectors;
mod volumes;

use coracle_tests::{Case, Host, slowest, stop_shared_machine};
use libtest_mimic::Arguments;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::ExitCode;

/// Tests that run at a time. More guests gain nothing where two processors emulate them.
const AT_ONCE: usize = 2;

/// Lines of a failed assertion that are printed at once: what was expected, status, result, command.
const LINES: usize = 5;

/// Slowest tests that are printed.
const SHOWN: usize = 20;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    // Tests run at the same time, and one holds a thousand connections.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum.map(|most| most.min(4096)), maximum })
        .expect("it is permitted");
    let host = Host::detect();
    // The runner prints complete messages when all tests have ended, so that a run that is killed has none of them.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let message = payload.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
        let lines: Vec<&str> = message.lines().take(LINES).collect();
        eprintln!("assertion failed at {location}\n{}", lines.join("\n"));
    }));
    if !arguments.list {
        println!("end to end: {host}{}", if host.root { ", as root" } else { "" });
    }
    let trials = all().into_iter().map(|case| case.into_trial(host)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let slowest: Vec<_> =
        slowest(SHOWN).iter().map(|(name, time)| format!("{name} {:.1} s", time.as_secs_f32())).collect();
    if !slowest.is_empty() {
        println!("slowest: {}", slowest.join(", "));
    }
    if std::panic::catch_unwind(stop_shared_machine).is_err() {
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn all() -> Vec<Case> {
    let modules = [
        refused_options::cases(),
        refused_kernels::cases(),
        refused_images::cases(),
        refused_hosts::cases(),
        registries::cases(),
        caller_state::cases(),
        campaigns::cases(),
        check::cases(),
        stream_sockets::cases(),
        streams::cases(),
        status::cases(),
        python_image::cases(),
        redis::cases(),
        vectors::cases(),
        shares::cases(),
        share_conformance::cases(),
        volumes::cases(),
        signals::cases(),
        snapshots::cases(),
        terminal::cases(),
        options::cases(),
        package::cases(),
        docker_defaults::cases(),
        disks::cases(),
        system_images::cases(),
        templates::cases(),
        root_directory::cases(),
        root_formats::cases(),
        sandbox::cases(),
        saved_layers::cases(),
        faults::cases(),
        foreign_kernels::cases(),
        matrix::cases(),
        metadata::cases(),
        network_links::cases(),
        bridge_network::cases(),
        user_network::cases(),
        adopted_network::cases(),
        kept_machines::cases(),
        life_cycle::cases(),
        detached::cases(),
        dhcp::cases(),
        help_texts::cases(),
        opennebula::cases(),
        hostile_clients::cases(),
        hostile_files::cases(),
        hostile_guests::cases(),
        image_archives::cases(),
        image_crashes::cases(),
        inherited_sockets::cases(),
        ends::cases(),
        engines::cases(),
        containerd::cases(),
        contexts::cases(),
        exec::cases(),
        attach::cases(),
        health::cases(),
        ready::cases(),
        result_document::cases(),
        private_registries::cases(),
        progress::cases(),
    ];
    modules.into_iter().flatten().collect()
}

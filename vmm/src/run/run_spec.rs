// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The message to PID 1: the workload and its environment in the guest. Pure.

use super::health;
use super::volumes::requested_tmpfs;
use super::workload::Workload;
use crate::config::disk::{ROOT_SERIAL, SCRATCH_SERIAL};
use crate::config::name::MachineName;
use crate::config::request::Request;
use crate::config::size::Scratch;
use crate::config::text_form::Given;
use crate::config::tmpfs::Tmpfs;
use crate::network::GuestNetwork;
use guest_protocol::attributes::ResourceLimit;
use guest_protocol::notification;
use guest_protocol::run_spec::{Readiness, Root, RunSpec, System, Upper, WindowSize};
use oci_image::RootFormat;
use std::time::Duration;

/// Tried by PID 1 on the user's root disk.
const ROOT_FILE_SYSTEMS: [&str; 3] = ["erofs", "squashfs", "ext4"];
/// Tried on a root disk that is written in place.
const WRITABLE_ROOT_FILE_SYSTEMS: [&str; 1] = ["ext4"];

/// Builds the message to PID 1, to which volumes, shares and keys are added later. `made` is the format of a root disk that was made from
/// an image; without it the root disk is the user's. `watchdog` is the service manager's watchdog interval, passed on to a workload
/// with `--ready-notify`.
#[must_use]
pub(crate) fn run_spec(
    request: &Request,
    network: GuestNetwork,
    terminal: Option<WindowSize>,
    workload: Workload,
    id: &MachineName,
    made: Option<RootFormat>,
    watchdog: Option<Duration>,
) -> RunSpec {
    let given_hostname = request.hostname.as_ref().and_then(Given::get);
    let hostname = given_hostname.map_or_else(|| id.to_string(), ToString::to_string);
    let mut environment = workload.environment;
    // With --system the host name may change later.
    if !request.system && !environment.iter().any(|variable| variable.starts_with("HOSTNAME=")) {
        environment.push(format!("HOSTNAME={hostname}"));
    }
    let readiness = match (request.ready_port, &request.ready_exec) {
        (Some(port), _) => Readiness::Listening { ports: vec![port.get()], or_idle: false },
        (None, Some(command)) => Readiness::Command(health::in_shell(&workload.shell, std::slice::from_ref(command))),
        (None, None) if request.ready_notify => Readiness::Notified,
        (None, None) if !network.published.is_empty() => {
            Readiness::Listening { ports: network.published, or_idle: true }
        }
        (None, None) => Readiness::Executed,
    };
    if readiness == Readiness::Notified {
        set(&mut environment, "NOTIFY_SOCKET", notification::SOCKET);
        if let Some(time) = watchdog {
            set(&mut environment, "WATCHDOG_USEC", &time.as_micros().to_string());
            // Without it the watchdog applies to any process of the workload (sd_watchdog_enabled(3)).
            unset(&mut environment, "WATCHDOG_PID");
        }
    }
    let in_place = request.writes_in_place();
    let file_systems = match made {
        Some(format) => &[format.file_system()][..],
        None if in_place => &WRITABLE_ROOT_FILE_SYSTEMS,
        None => &ROOT_FILE_SYSTEMS,
    };
    let attributes = request.attributes();
    let sysctls = request.sysctl.iter().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()));
    let sysctls = sysctls.chain(open_files_maximum(&attributes.limits)).collect();
    RunSpec {
        arguments: workload.arguments,
        environment,
        working_directory: workload.working_directory,
        user: workload.user,
        hostname,
        terminal,
        stdin: request.interactive,
        init: request.init,
        system: request.system.then(|| System { explicit_hostname: given_hostname.is_some() }),
        root: Root {
            disk_serial: ROOT_SERIAL.to_owned(),
            share: None,
            file_systems: file_systems.iter().map(|&name| name.to_owned()).collect(),
            upper: match request.scratch() {
                _ if in_place => Upper::InPlace,
                Scratch::Disk(_) => Upper::Disk(SCRATCH_SERIAL.to_owned()),
                Scratch::Tmpfs => Upper::Tmpfs,
                Scratch::None => Upper::None,
            },
            read_only: request.read_only,
        },
        tmpfs: requested_tmpfs(request).map(Tmpfs::mount).collect(),
        volumes: Vec::new(),
        shares: Vec::new(),
        resolver: network.resolver,
        extra_hosts: network.hosts,
        sysctls,
        interfaces: network.interfaces,
        readiness,
        health: workload.health,
        privileged: request.privileged || request.system,
        keep_etc: request.keep_etc,
        restricted_paths: request.restricted_paths.clone(),
        attributes,
        seccomp: request.seccomp.clone(),
        authorized_keys: Vec::new(),
    }
}

/// The kernel parameter above which no process can raise its limit of open files, for a limit that is above its default.
fn open_files_maximum(limits: &[ResourceLimit]) -> Option<(String, String)> {
    const DEFAULT: u64 = 1 << 20;
    /// The kernel's own bound of the parameter.
    const MAX: u64 = i32::MAX as u64 & !63;
    let limits = limits.iter().filter(|limit| limit.resource == ResourceLimit::OPEN_FILES);
    let largest = limits.filter_map(|limit| limit.hard).max()?;
    (DEFAULT + 1..=MAX).contains(&largest).then(|| ("fs.nr_open".to_owned(), largest.to_string()))
}

fn set(environment: &mut Vec<String>, name: &str, value: &str) {
    unset(environment, name);
    environment.push(format!("{name}={value}"));
}

fn unset(environment: &mut Vec<String>, name: &str) {
    environment.retain(|variable| variable.strip_prefix(name).is_none_or(|rest| !rest.starts_with('=')));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::signal::SignalNumber;

    fn build(request: &Request, environment: &[&str]) -> RunSpec {
        build_whole(request, GuestNetwork::default(), environment, None)
    }

    fn build_whole(
        request: &Request,
        network: GuestNetwork,
        environment: &[&str],
        watchdog: Option<Duration>,
    ) -> RunSpec {
        let workload = Workload {
            arguments: vec!["sh".into()],
            environment: environment.iter().map(|&variable| variable.to_owned()).collect(),
            working_directory: "/".into(),
            user: "app".into(),
            stop_signal: SignalNumber::TERM,
            health: None,
            shell: vec!["/bin/bash".into(), "-c".into()],
            warnings: Vec::new(),
        };
        run_spec(request, network, None, workload, &"web".parse().unwrap(), Some(RootFormat::Squashfs), watchdog)
    }

    #[test]
    fn hostname_is_the_machines_name_by_default() {
        let spec = build(&Request::default(), &["A=b"]);
        assert_eq!(spec.hostname, "web");
        assert_eq!(spec.environment, ["A=b", "HOSTNAME=web"]);
        let own = Request { hostname: Some("own".parse().unwrap()), ..Request::default() };
        let spec = build(&own, &["HOSTNAME=image"]);
        assert_eq!((&*spec.hostname, &*spec.environment), ("own", &["HOSTNAME=image".to_owned()][..]));
    }

    #[test]
    fn scratch_decides_the_upper_layer() {
        let upper = |text: Option<&str>| {
            let scratch = text.map(|text| text.parse().unwrap());
            build(&Request { scratch, ..Request::default() }, &[]).root.upper
        };
        assert_eq!(upper(None), Upper::Disk("scratch".into()));
        assert_eq!(upper(Some("1g")), Upper::Disk("scratch".into()));
        assert_eq!(upper(Some("tmpfs")), Upper::Tmpfs);
        assert_eq!(upper(Some("none")), Upper::None);
    }

    #[test]
    fn limit_of_open_files_raises_the_kernels_maximum() {
        let sysctls =
            |ulimit: &str| build(&Request { ulimit: vec![ulimit.parse().unwrap()], ..Request::default() }, &[]).sysctls;
        assert_eq!(sysctls("nofile=1073741816"), [("fs.nr_open".to_owned(), "1073741816".to_owned())]);
        for small in ["nofile=1048576", "nofile=-1", "nproc=1073741816"] {
            assert!(sysctls(small).is_empty(), "{small}");
        }
    }

    #[test]
    fn privileged_is_set_by_its_option_and_by_system() {
        assert!(!build(&Request::default(), &[]).privileged);
        assert!(build(&Request { privileged: true, ..Request::default() }, &[]).privileged);
        assert!(build(&Request { system: true, ..Request::default() }, &[]).privileged);
    }

    #[test]
    fn system_on_its_own_disk_writes_in_place_by_default() {
        let system = |more: Request| {
            let request = Request { system: true, rootfs: Some("disk".into()), ..more };
            build(&request, &[]).root.upper
        };
        assert_eq!(system(Request::default()), Upper::InPlace);
        assert_eq!(system(Request { read_only: true, ..Request::default() }), Upper::Tmpfs);
        let scratch = |text: &str| system(Request { scratch: Some(text.parse().unwrap()), ..Request::default() });
        assert_eq!(scratch("1g"), Upper::Disk("scratch".into()));
        assert_eq!(scratch("none"), Upper::None);
        let image = build(&Request { system: true, ..Request::default() }, &[]);
        assert_eq!(image.root.file_systems, ["squashfs"]);
        assert_eq!(image.root.upper, Upper::Disk("scratch".into()));
    }

    #[test]
    fn system_gets_an_explicit_hostname_only_if_given() {
        let spec = build(&Request { system: true, ..Request::default() }, &["A=b"]);
        assert_eq!((&*spec.hostname, &*spec.environment), ("web", &["A=b".to_owned()][..]));
        assert_eq!(spec.system, Some(System { explicit_hostname: false }));
        let named = Request { system: true, hostname: Some("own".parse().unwrap()), ..Request::default() };
        assert_eq!(build(&named, &[]).system, Some(System { explicit_hostname: true }));
        assert_eq!(build(&Request::default(), &[]).system, None);
    }

    #[test]
    fn ready_options_decide_readiness() {
        let port = Request { ready_port: "6379".parse().ok(), ..Request::default() };
        assert_eq!(build(&port, &[]).readiness, Readiness::Listening { ports: vec![6379], or_idle: false });
        let published = GuestNetwork { published: vec![80, 443], ..GuestNetwork::default() };
        let listening = Readiness::Listening { ports: vec![80, 443], or_idle: true };
        assert_eq!(build_whole(&Request::default(), published, &[], None).readiness, listening);
        let command = Request { ready_exec: Some("redis-cli ping".into()), ..Request::default() };
        assert_eq!(
            build(&command, &[]).readiness,
            Readiness::Command(["/bin/bash", "-c", "redis-cli ping"].map(str::to_owned).to_vec())
        );
        let spec = build(&Request { ready_notify: true, ..Request::default() }, &["NOTIFY_SOCKET=/old"]);
        assert_eq!(spec.readiness, Readiness::Notified);
        assert!(spec.environment.contains(&"NOTIFY_SOCKET=@coracle-notify".to_owned()), "{:?}", spec.environment);
        assert!(!spec.environment.contains(&"NOTIFY_SOCKET=/old".to_owned()));
    }

    #[test]
    fn watchdog_is_passed_on_with_ready_notify_only() {
        let image = ["WATCHDOG_USEC=7", "WATCHDOG_PID=1", "WATCHDOG_USECS=8"];
        let watched =
            |request: &Request, watchdog| build_whole(request, GuestNetwork::default(), &image, watchdog).environment;
        let notify = Request { ready_notify: true, hostname: Some("h".parse().unwrap()), ..Request::default() };
        let environment = watched(&notify, Some(Duration::from_secs(30)));
        let ours = ["HOSTNAME=h", "NOTIFY_SOCKET=@coracle-notify", "WATCHDOG_USEC=30000000"];
        assert_eq!(environment, [&image[2..], &ours].concat());
        assert_eq!(watched(&notify, None)[..3], image);
        assert_eq!(watched(&Request::default(), Some(Duration::from_secs(30)))[..3], image);
    }

    #[test]
    fn sysctls_are_split_into_name_and_value() {
        let sysctl = vec!["net.ipv4.ip_forward=1".parse().unwrap()];
        let spec = build(&Request { sysctl, ..Request::default() }, &[]);
        assert_eq!(spec.sysctls, [("net.ipv4.ip_forward".to_owned(), "1".to_owned())]);
    }
}

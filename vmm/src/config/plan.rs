// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What depends on several options at once, or on what the host has: contradictions, disks, taps, the terminal. After
//! this only kernel, image and scratch are missing. Runs on the thread that prepares the machine.

use super::disk::{self, OpenError};
use super::environment::Variable;
use super::network::{Interface, MacAddress, Network, Tap};
use super::request::Request;
use super::workload::{Workload, WorkloadError};
use crate::host::descriptor::{self, DescriptorError};
use crate::host::terminal;
use boot::CommandLine;
use boot::cmdline::CommandLineError;
use devices::virtio::block::BlockConfig;
use guest_protocol::run_spec;
use oci_image::ImageConfig;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Options that cannot be followed together, or on this host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// Neither of the two sources.
    #[error("no IMAGE is given; `coracle run --help` explains")]
    NoImage,
    /// Both.
    #[error("--rootfs takes the place of an image, and the configuration names one")]
    ImageAndRootfs,
    /// The address of nothing, or of several.
    #[error("--mac-address is for exactly one network device, and --network gives {0}")]
    MacAddress(usize),
    /// Two addresses of one device.
    #[error("--mac-address and the `mac=` of --network contradict each other")]
    TwoMacAddresses,
    /// A network besides none.
    #[error("--network none contradicts another --network")]
    NoneAndNetwork,
    /// Two ends of one wire.
    #[error("--network names {0} twice")]
    SameTap(String),
    /// Two machines' worth of hardware address in one.
    #[error("two network devices have the address {0}")]
    SameMac(MacAddress),
    /// An init is root's, starts at `/` and is PID 1.
    #[error("--system starts the root's own init, which {0} is not for")]
    System(&'static str),
    /// A disk that cannot be written in place.
    #[error("--system writes to {path}, unless --scratch or --read-only is given; cannot open it for writing")]
    InPlace {
        /// The disk.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Two mounts at one place.
    #[error("--tmpfs names {0} twice")]
    SameTmpfs(String),
    /// Keys cannot come from what is no terminal.
    #[error("-i with -t needs a terminal as standard input")]
    NoTerminal,
    /// An inherited descriptor.
    #[error("--network fd={0}")]
    Descriptor(i32, #[source] DescriptorError),
    /// Words for the kernel.
    #[error("--append")]
    Append(#[source] CommandLineError),
    /// The user's disks.
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// Ready can mean one thing.
    #[error("{0} contradicts {1}: ready is one or the other")]
    Readiness(&'static str, &'static str),
    /// No random number for an address.
    #[error("cannot choose a MAC address")]
    Random(#[source] std::io::Error),
    /// The command.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

/// Where a network device's frames go.
#[derive(Debug)]
pub(crate) enum TapSource {
    /// An existing interface, by name.
    Name(String),
    /// An open one.
    Descriptor(OwnedFd),
}

/// A network device of the machine.
#[derive(Debug)]
pub(crate) struct InterfaceConfig {
    /// Where its frames go.
    pub(crate) tap: TapSource,
    /// Hardware address.
    pub(crate) mac: [u8; 6],
}

/// Where the root disk comes from.
#[derive(Debug)]
pub(crate) enum RootSource {
    /// An image, as it was named.
    Image(String),
    /// A file of the user's, open, and what runs in it.
    Disk(BlockConfig, Workload),
}

/// A request that makes sense on this host.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The root disk's source.
    pub(crate) root: RootSource,
    /// The user's disks, open.
    pub(crate) disks: Vec<BlockConfig>,
    /// Network devices of the machine.
    pub(crate) interfaces: Vec<InterfaceConfig>,
    /// What PID 1 is told of all this.
    pub(crate) inside: Inside,
}

/// The part of a plan that is PID 1's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    /// Network devices and their addresses.
    pub(crate) interfaces: Vec<run_spec::Interface>,
    /// The guest's terminal, with its size.
    pub(crate) terminal: Option<run_spec::WindowSize>,
}

impl Plan {
    /// Checks `request` and opens what it names. `files` are the variables of `--env-file`.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub(crate) fn new(request: &Request, files: &[Variable]) -> Result<Self, PlanError> {
        if let Some(path) = request.workdir.as_ref().filter(|path| !path.starts_with('/')) {
            return Err(WorkloadError::WorkingDirectory(path.clone()).into());
        }
        check_tmpfs(request)?;
        check_system(request)?;
        check_readiness(request)?;
        CommandLine::new().append(request.append.as_deref().unwrap_or_default()).map_err(PlanError::Append)?;
        let terminal = if request.tty { Some(terminal_size(request.interactive && !request.detach)?) } else { None };
        let root = root_source(request, files)?;
        let root_disk = match &root {
            RootSource::Disk(disk, _) => Some(disk),
            RootSource::Image(_) => None,
        };
        let disks = disk::open_all(&request.disk, root_disk)?;
        let (interfaces, inside) = interfaces(request)?;
        Ok(Self { root, disks, interfaces, inside: Inside { interfaces: inside, terminal } })
    }
}

fn check_tmpfs(request: &Request) -> Result<(), PlanError> {
    let paths: Vec<&str> = request.tmpfs.iter().map(|tmpfs| tmpfs.path().trim_end_matches('/')).collect();
    match paths.iter().enumerate().find(|(index, path)| paths[..*index].contains(path)) {
        Some((_, path)) => Err(PlanError::SameTmpfs((*path).to_owned())),
        None => Ok(()),
    }
}

fn check_system(request: &Request) -> Result<(), PlanError> {
    let contradictions = [
        ("--user", request.user.is_some()),
        ("--workdir", request.workdir.is_some()),
        ("--entrypoint", request.entrypoint.is_some()),
        ("--init", request.init),
    ];
    match contradictions.iter().find(|(_, given)| *given) {
        Some((option, _)) if request.system => Err(PlanError::System(option)),
        _ => Ok(()),
    }
}

fn check_readiness(request: &Request) -> Result<(), PlanError> {
    let given = [
        ("--ready-port", request.ready_port.is_some()),
        ("--ready-exec", request.ready_exec.is_some()),
        ("--ready-notify", request.ready_notify),
    ];
    let mut names = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
    match (names.next(), names.next()) {
        (Some(one), Some(other)) => Err(PlanError::Readiness(one, other)),
        _ => Ok(()),
    }
}

fn terminal_size(interactive: bool) -> Result<run_spec::WindowSize, PlanError> {
    if interactive && !terminal::is_terminal(std::io::stdin()) {
        return Err(PlanError::NoTerminal);
    }
    Ok(terminal::standard_window_size())
}

fn root_source(request: &Request, files: &[Variable]) -> Result<RootSource, PlanError> {
    match (&request.image, &request.rootfs) {
        (Some(_), Some(_)) => Err(PlanError::ImageAndRootfs),
        (None, None) => Err(PlanError::NoImage),
        (Some(image), None) => Ok(RootSource::Image(image.clone())),
        (None, Some(path)) => {
            let workload = Workload::decide(&ImageConfig::default(), request, files, |name| std::env::var(name).ok())?;
            let serial = disk::ROOT_SERIAL.to_owned();
            let disk = match request.writes_in_place() {
                true => disk::open(path, false, serial).map_err(in_place)?,
                false => disk::open(path, true, serial)?,
            };
            Ok(RootSource::Disk(disk, workload))
        }
    }
}

/// Why a disk is to be written at all is not obvious to who gave a file that may only be read.
fn in_place(error: OpenError) -> PlanError {
    use ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match error {
        OpenError::Open { path, source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem) => {
            PlanError::InPlace { path, source }
        }
        other => other.into(),
    }
}

fn interfaces(request: &Request) -> Result<(Vec<InterfaceConfig>, Vec<run_spec::Interface>), PlanError> {
    let wanted = wanted_interfaces(request)?;
    let (mut interfaces, mut inside) = (Vec::<InterfaceConfig>::new(), Vec::new());
    for Interface { tap, mac, address, gateway } in wanted {
        let mac = match mac.or(request.mac_address) {
            Some(mac) => mac,
            None => MacAddress::random().map_err(PlanError::Random)?,
        };
        if interfaces.iter().any(|other| other.mac == mac.octets()) {
            return Err(PlanError::SameMac(mac));
        }
        let tap = match tap {
            Tap::Name(name) => TapSource::Name(name),
            Tap::Descriptor(number) => TapSource::Descriptor(
                descriptor::inherited(number).map_err(|source| PlanError::Descriptor(number, source))?,
            ),
        };
        let mac = mac.octets();
        interfaces.push(InterfaceConfig { tap, mac });
        let address = address.map(|(address, prefix)| (address.octets(), prefix));
        inside.push(run_spec::Interface { mac, address, gateway: gateway.map(|gateway| gateway.octets()) });
    }
    Ok((interfaces, inside))
}

fn wanted_interfaces(request: &Request) -> Result<Vec<Interface>, PlanError> {
    let mut wanted: Vec<Interface> = Vec::new();
    for network in &request.network {
        match network {
            Network::None if request.network.len() > 1 => return Err(PlanError::NoneAndNetwork),
            Network::None => {}
            Network::Interface(interface) => {
                if wanted.iter().any(|other| other.tap == interface.tap) {
                    return Err(PlanError::SameTap(network.to_string()));
                }
                wanted.push(interface.clone());
            }
        }
    }
    match (request.mac_address, &*wanted) {
        (Some(_), [one]) if one.mac.is_some() => Err(PlanError::TwoMacAddresses),
        (None, _) | (Some(_), [_]) => Ok(wanted),
        (Some(_), _) => Err(PlanError::MacAddress(wanted.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(image: &str) -> Request {
        Request { image: Some(image.to_owned()), ..Request::default() }
    }

    fn refusal(request: &Request) -> String {
        Plan::new(request, &[]).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_image_needs_nothing_else() {
        let plan = Plan::new(&request("oci:x"), &[]).unwrap();
        assert!(matches!(plan.root, RootSource::Image(image) if image == "oci:x"));
        assert!(plan.disks.is_empty() && plan.interfaces.is_empty() && plan.inside.terminal.is_none());
    }

    #[test]
    fn contradictions_are_named() {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let mac = Some("02:00:00:00:00:01".parse().unwrap());
        let image = request("oci:x");
        let table = [
            (Request::default(), "IMAGE"),
            (Request { rootfs: Some("/dev/null".into()), ..image.clone() }, "--rootfs"),
            (Request { rootfs: Some("/dev/null".into()), ..Request::default() }, "command"),
            (Request { workdir: Some("relative".into()), ..image.clone() }, "relative"),
            (Request { mac_address: mac, network: networks(&["none"]), ..image.clone() }, "--mac-address"),
            (Request { mac_address: mac, ..image.clone() }, "--mac-address"),
            (
                Request { mac_address: mac, network: networks(&["tap=a,mac=02:00:00:00:00:02"]), ..image.clone() },
                "mac=",
            ),
            (Request { network: networks(&["none", "tap=a"]), ..image.clone() }, "none"),
            (Request { network: networks(&["tap=a", "tap=a"]), ..image.clone() }, "tap=a"),
            (Request { network: networks(&["fd=777"]), ..image.clone() }, "777"),
            (Request { system: true, user: Some("app".into()), ..image.clone() }, "--user"),
            (Request { system: true, workdir: Some("/srv".into()), ..image.clone() }, "--workdir"),
            (Request { system: true, entrypoint: Some("sh".into()), ..image.clone() }, "--entrypoint"),
            (Request { system: true, init: true, ..image.clone() }, "--init"),
            (Request { ready_exec: Some("x".into()), ready_notify: true, ..image.clone() }, "--ready-notify"),
            (Request { append: Some("two\nlines".into()), ..image.clone() }, "--append"),
            (
                Request { tmpfs: vec!["/a".parse().unwrap(), "/a/:size=1m".parse().unwrap()], ..image.clone() },
                "--tmpfs names /a twice",
            ),
        ];
        for (request, object) in table {
            let refusal = refusal(&request);
            assert!(refusal.contains(object), "{object}: {refusal}");
        }
    }

    #[test]
    fn a_lone_device_takes_the_address_and_one_without_gets_its_own() {
        let mac: MacAddress = "02:00:00:00:00:01".parse().unwrap();
        let network = |text: &str| vec![text.parse().unwrap()];
        let given = Request { mac_address: Some(mac), network: network("tap=a,ip=10.0.0.2/24"), ..request("oci:x") };
        let plan = Plan::new(&given, &[]).unwrap();
        assert_eq!(plan.interfaces[0].mac, mac.octets());
        let told = run_spec::Interface { mac: mac.octets(), address: Some(([10, 0, 0, 2], 24)), gateway: None };
        assert_eq!(plan.inside.interfaces, [told]);
        let plan = Plan::new(&Request { network: network("tap=a"), ..request("oci:x") }, &[]).unwrap();
        assert_eq!(plan.interfaces[0].mac[0] & 3, 2);
    }
}

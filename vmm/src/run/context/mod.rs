// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--context`: host name, addresses, name servers, SSH keys, environment and a start script from what a cloud gives to a machine, as an
//! ISO 9660 image, a VFAT disk or a directory. Read here, before the start, so that whatever is wrong with it is one line, and PID 1 and
//! the guest's kernel need not know the formats. Nothing of it is executed on the host.

mod fat;
mod iso9660;
mod nocloud;
mod opennebula;
mod openstack;
#[cfg(test)]
mod tests;
mod yaml;

use super::failure::{FailsAs as _, Failure};
use crate::config::environment::{self, EnvVar};
use crate::config::mac_address::MacAddress;
use crate::config::network::{Interface, Ipv4Setting, Network, NetworkError, NetworkKind};
use crate::config::request::Request;
use crate::config::text_form::Given;
use crate::host::bounded_read;
use crate::state::end::EndReason;
use fat::{Fat, FatError};
use iso9660::{Iso, IsoError};
use rustix::fs::{Mode, OFlags, open};
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const MAX_FILE_BYTES: u64 = 256 << 10;
/// Of one argument of a Linux process, with its zero byte.
const MAX_SCRIPT_BYTES: usize = (128 << 10) - 1;
const MAX_KEY_BYTES: usize = 16 << 10;
const MAX_KEYS: usize = 256;
/// Runs the script in a process of its own, so that it can end in any way, and then becomes the workload.
const RUN_SCRIPT: &str = "(eval \"$1\")\nshift\nexec \"$@\"";
const DEFAULT_SHELL: &str = "/bin/sh";
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

#[derive(Debug, thiserror::Error)]
enum ContextError {
    #[error("cannot open")]
    Open(#[source] std::io::Error),
    #[error("cannot read {0}")]
    Read(&'static str, #[source] std::io::Error),
    #[error("{0} has more than {MAX_FILE_BYTES} bytes")]
    TooLarge(&'static str),
    #[error(transparent)]
    Iso(#[from] IsoError),
    #[error(transparent)]
    Fat(#[from] FatError),
    #[error("{0} is not UTF-8 text")]
    NotText(&'static str),
    #[error(
        "no `context.sh` (OpenNebula), `{}` (config-2) or `{}` (cidata) in it",
        openstack::META_DATA,
        nocloud::META_DATA
    )]
    Unknown,
    #[error("{0}, line {1}: not a variable with a quoted value")]
    Syntax(&'static str, usize),
    #[error("{0}: {1}")]
    Document(&'static str, String),
    #[error("{0}: {1}: {2}")]
    Value(&'static str, String, String),
    #[error("the start script has {0} bytes; the maximum is {MAX_SCRIPT_BYTES}")]
    LongScript(usize),
    #[error("the start script needs {0}; only shells are supported")]
    Interpreter(String),
    #[error("the start script has a NUL byte")]
    NulScript,
    #[error("an SSH key is not one line of at most {MAX_KEY_BYTES} bytes, or there are more than {MAX_KEYS}")]
    Key,
    #[error("host name `{0}`: {1}")]
    HostName(String, String),
    #[error("search list: `{0}`: {1}")]
    Search(String, String),
    #[error("no --network has the MAC address {0}, and none is left that has no address")]
    NoNetwork(String),
    #[error("interface {0}")]
    Network(String, #[source] NetworkError),
    #[error("--system starts an init that reads such a disk itself (--disk path=FILE,ro)")]
    System,
}

#[derive(Debug, thiserror::Error)]
#[error("--context {path}")]
struct OptionError {
    path: PathBuf,
    source: ContextError,
}

/// A start script and the shell that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Script {
    shell: String,
    text: String,
}

/// What a context says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Context {
    hostname: Option<String>,
    variables: Vec<EnvVar>,
    interfaces: Vec<ContextInterface>,
    servers: Vec<IpAddr>,
    search: Vec<String>,
    keys: Vec<String>,
    script: Option<Script>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ContextInterface {
    mac: Option<MacAddress>,
    mtu: Option<u16>,
    dhcp4: bool,
    addresses: Vec<(IpAddr, u8)>,
    gateways: Vec<IpAddr>,
}

/// What a request reads besides its image: variables for the workload, and what else its context says.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs {
    /// Of the context, then those of `--env-file`, which replace them.
    pub(super) variables: Vec<EnvVar>,
    context: Option<(PathBuf, Context)>,
}

impl Inputs {
    /// Reads the files of `request`. Blocks if one of them is a pipe.
    pub(super) fn read(request: &Request) -> Result<Self, Failure> {
        let files = environment::read_files(&request.env_file).fails_as(EndReason::ConfigError)?;
        let Some(path) = request.context.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(Self { variables: files, context: None });
        };
        let failed = |source| OptionError { path: path.clone(), source };
        let context = if request.system { Err(ContextError::System) } else { Context::read(path) };
        let context = context.map_err(failed).fails_as(EndReason::ConfigError)?;
        Ok(Self { variables: [context.variables.clone(), files].concat(), context: Some((path.clone(), context)) })
    }

    /// The request with what the context says where no option says it.
    pub(super) fn complete(&self, request: &Request) -> Result<Request, Failure> {
        let mut request = request.clone();
        if let Some((path, context)) = &self.context {
            let failed = |source| OptionError { path: path.clone(), source };
            context.apply(&mut request).map_err(failed).fails_as(EndReason::ConfigError)?;
        }
        Ok(request)
    }

    /// Lines for `authorized_keys` of root.
    pub(super) fn authorized_keys(&self) -> Vec<String> {
        self.context.as_ref().map(|(_, context)| context.keys.clone()).unwrap_or_default()
    }

    /// The command, behind the start script if there is one.
    pub(super) fn command(&self, arguments: Vec<String>) -> Vec<String> {
        match self.context.as_ref().and_then(|(_, context)| context.script.as_ref()) {
            None => arguments,
            Some(Script { shell, text }) => {
                let words = [shell, "-c", RUN_SCRIPT, "start-script", text].map(str::to_owned);
                words.into_iter().chain(arguments).collect()
            }
        }
    }
}

/// An image or a directory.
enum Source {
    Iso(Iso),
    Fat(Fat),
    Directory(PathBuf),
}

impl Source {
    fn open(path: &Path) -> Result<Self, ContextError> {
        // Without waiting for the other end of a FIFO.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open(path, flags, Mode::empty()).map_err(|error| ContextError::Open(error.into()))?;
        let file = File::from(file);
        match file.metadata().map_err(ContextError::Open)?.is_dir() {
            true => Ok(Self::Directory(path.to_owned())),
            false => match Fat::open(file) {
                Ok(fat) => Ok(Self::Fat(fat)),
                Err(file) => Ok(Self::Iso(Iso::open(file)?)),
            },
        }
    }

    fn read(&self, name: &'static str) -> Result<Option<Vec<u8>>, ContextError> {
        let path = match self {
            Self::Iso(iso) => return Ok(iso.read(name, MAX_FILE_BYTES)?),
            Self::Fat(fat) => return Ok(fat.read(name, MAX_FILE_BYTES)?),
            Self::Directory(directory) => directory.join(name),
        };
        match bounded_read::read_file(&path, MAX_FILE_BYTES) {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err(ContextError::TooLarge(name)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ContextError::Read(name, error)),
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, ContextError> {
        let text = self.read(name)?.map(String::from_utf8).transpose();
        text.map_err(|_| ContextError::NotText(name))
    }
}

impl Context {
    fn read(path: &Path) -> Result<Self, ContextError> {
        let source = Source::open(path)?;
        let mut context = if let Some(text) = source.text("context.sh")? {
            opennebula::parse(&text)?
        } else if let Some(meta_data) = source.read(openstack::META_DATA)? {
            let network_data = source.read(openstack::NETWORK_DATA)?;
            let context = openstack::parse(&meta_data, network_data.as_deref())?;
            context.with_user_data(openstack::USER_DATA, source.text(openstack::USER_DATA)?)?
        } else if let Some(meta_data) = source.text(nocloud::META_DATA)? {
            let network_config = source.text(nocloud::NETWORK_CONFIG)?;
            let context = nocloud::parse(&meta_data, network_config.as_deref())?;
            context.with_user_data(nocloud::USER_DATA, source.text(nocloud::USER_DATA)?)?
        } else {
            return Err(ContextError::Unknown);
        };
        context.keys.retain(|key| !key.trim().is_empty());
        let is_line = |key: &String| key.len() <= MAX_KEY_BYTES && !key.contains(char::is_control);
        if context.keys.len() > MAX_KEYS || !context.keys.iter().all(is_line) {
            return Err(ContextError::Key);
        }
        Ok(context)
    }

    /// User data that is a script is run; other kinds are for programs that the image may have.
    fn with_user_data(mut self, name: &str, text: Option<String>) -> Result<Self, ContextError> {
        match text.filter(|text| !text.trim().is_empty()) {
            Some(text) if text.starts_with("#!") => self.script = Some(script_of(text)?),
            Some(_) => log::warn!("--context: {name} is not a script, and is not used"),
            None => {}
        }
        Ok(self)
    }

    /// Completes `request` where no option says something else.
    fn apply(&self, request: &mut Request) -> Result<(), ContextError> {
        if let Some(name) = &self.hostname
            && request.hostname.as_ref().and_then(Given::get).is_none()
        {
            let invalid = |error| ContextError::HostName(name.clone(), format!("{error}"));
            request.hostname = Some(name.parse().map_err(invalid)?);
        }
        if request.dns.is_empty() {
            request.dns.clone_from(&self.servers);
        }
        if request.dns_search.is_empty() {
            for name in &self.search {
                let invalid = |error| ContextError::Search(name.clone(), format!("{error}"));
                request.dns_search.push(name.parse().map_err(invalid)?);
            }
        }
        self.apply_interfaces(request)
    }

    /// By their MAC addresses; those that no option names are for the networks without one, in order. Only networks that assign no
    /// addresses themselves take them.
    fn apply_interfaces(&self, request: &mut Request) -> Result<(), ContextError> {
        use NetworkKind::{Descriptor, Socket, Tap};
        let option = request.mac_address.as_ref().and_then(Given::get).copied();
        let networks = request.network.iter_mut().filter_map(Given::get_mut);
        let mut free: Vec<&mut Interface> = networks
            .filter_map(|network| match network {
                Network::Interface(interface) => Some(interface),
                Network::None => None,
            })
            .filter(|interface| matches!(interface.kind, Tap(_) | Descriptor(_) | Socket(_)))
            .collect();
        if free.is_empty() {
            return Ok(());
        }
        let mac_of = |interface: &Interface| interface.mac.or(option);
        let named: Vec<_> = free.iter().filter_map(|interface| mac_of(interface)).collect();
        let is_named = |own: &ContextInterface| own.mac.is_some_and(|mac| named.contains(&mac));
        let (first, others): (Vec<_>, Vec<_>) = self.interfaces.iter().partition(|own| is_named(own));
        for own in first.into_iter().chain(others) {
            let position = match is_named(own) {
                true => free.iter().position(|interface| mac_of(interface) == own.mac),
                false => free.iter().position(|interface| mac_of(interface).is_none()),
            };
            let name = own.mac.map_or_else(|| "without a MAC address".to_owned(), |mac| mac.to_string());
            let Some(position) = position else { return Err(ContextError::NoNetwork(name)) };
            let interface = free.remove(position);
            if option.is_none() {
                interface.mac = interface.mac.or(own.mac);
            }
            own.apply(interface).map_err(|error| ContextError::Network(name, error))?;
        }
        Ok(())
    }
}

impl ContextInterface {
    fn apply(&self, to: &mut Interface) -> Result<(), NetworkError> {
        to.mtu = to.mtu.or(self.mtu);
        if to.ipv4.is_some() || to.ipv6.is_some() {
            return Ok(());
        }
        if self.dhcp4 {
            to.ipv4 = Some(Ipv4Setting::Dhcp);
        }
        for (address, prefix) in &self.addresses {
            let is_taken = match address {
                IpAddr::V4(own) if to.ipv4.is_none() => {
                    to.ipv4 = Some(Ipv4Setting::Static(*own, *prefix));
                    false
                }
                IpAddr::V6(own) if to.ipv6.is_none() => {
                    to.ipv6 = Some((*own, *prefix));
                    false
                }
                _ => true,
            };
            if is_taken {
                log::warn!("--context: an interface has one address of each family; {address} is not used");
            }
        }
        for gateway in &self.gateways {
            match gateway {
                // With DHCP the server gives it.
                IpAddr::V4(gateway) if to.ipv4 != Some(Ipv4Setting::Dhcp) => {
                    let _ = to.gateway4.get_or_insert(*gateway);
                }
                IpAddr::V6(gateway) => {
                    let _ = to.gateway6.get_or_insert(*gateway);
                }
                IpAddr::V4(_) => {}
            }
        }
        to.check()
    }
}

/// The shell is that of the first line (`#!/bin/bash -e`), without its options.
fn script_of(text: String) -> Result<Script, ContextError> {
    if text.len() > MAX_SCRIPT_BYTES {
        return Err(ContextError::LongScript(text.len()));
    }
    if text.contains('\0') {
        return Err(ContextError::NulScript);
    }
    let mut words = text.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap_or("").split_whitespace();
    let mut shell = words.next().unwrap_or(DEFAULT_SHELL);
    if shell.rsplit('/').next() == Some("env") {
        shell = words.next().unwrap_or(shell);
    }
    match shell.rsplit('/').next() {
        Some(name) if SHELLS.contains(&name) => Ok(Script { shell: shell.to_owned(), text }),
        _ => Err(ContextError::Interpreter(shell.to_owned())),
    }
}

/// A list separated by blanks or commas.
fn words<T: FromStr>(file: &'static str, name: &str, text: Option<&str>) -> Result<Vec<T>, ContextError> {
    let separators = |c: char| c.is_whitespace() || c == ',';
    let words = text.unwrap_or_default().split(separators).filter(|word| !word.is_empty());
    let parse = |word: &str| {
        let invalid = || ContextError::Value(file, name.to_owned(), format!("invalid value '{word}'"));
        word.parse().map_err(|_| invalid())
    };
    words.map(parse).collect()
}

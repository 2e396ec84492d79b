// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Confinement of this process, before the guest's first instruction: each thread confines itself, by the layers that `--sandbox`
//! wants and the host has. `vmm/docs/security.md` says what each is good for.

mod calls;
mod files;
mod filter;
mod privileges;
mod thread;

pub(crate) use files::{Grant, Right};
pub(crate) use thread::Thread;

use crate::config::request::SandboxMode;
use crate::host::forbidden_call;
use crate::host::signals;
use rustix::thread::CapabilitySet;
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::hash::RandomState;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// In the order in which they are applied: the later ones need an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Limits,
    Capabilities,
    NoNewPrivileges,
    Landlock,
    Seccomp,
}

impl Layer {
    const ALL: [Self; 5] = [Self::Limits, Self::Capabilities, Self::NoNewPrivileges, Self::Landlock, Self::Seccomp];

    /// In the result document, and in messages.
    fn name(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }

    fn is_supported(self) -> bool {
        match self {
            Self::Limits | Self::Capabilities | Self::NoNewPrivileges => true,
            Self::Landlock => files::is_supported(),
            Self::Seccomp => filter::is_supported(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    On,
    /// On, for every thread but `main`.
    OnWithoutMain,
    Off,
    Unavailable(String),
}

impl State {
    fn text(&self) -> String {
        match self {
            Self::On => "on".to_owned(),
            Self::OnWithoutMain => "on, without main".to_owned(),
            Self::Off => "off".to_owned(),
            Self::Unavailable(why) => format!("unavailable: {why}"),
        }
    }
}

/// A layer that `--sandbox require` asks for and that is missing.
#[derive(Debug, thiserror::Error)]
#[error("--sandbox require: {layer}: {why}")]
pub(crate) struct SandboxError {
    layer: &'static str,
    why: String,
}

/// What threads need after the start, besides what their kind needs.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Of `main`.
    pub(crate) files: Vec<Grant>,
    /// Processes that `main` ends, which may have another user.
    pub(crate) helpers: Vec<u32>,
    /// `main` gives back an interface of the network namespace.
    pub(crate) restores_network: bool,
    /// `main` executes programs of the host at the end, which need what it has now: it is exempt from all layers but the limits.
    pub(crate) executes_programs: bool,
    /// Of an event loop, by its name.
    pub(crate) of_event_loops: HashMap<String, Vec<Grant>>,
    /// Event loops of interfaces, by their names.
    pub(crate) networks: HashMap<String, Thread>,
    /// Names of event loops whose share the guest cannot change.
    pub(crate) read_only: Vec<String>,
    /// TCP ports that a thread of the network connects to.
    ports: Vec<u16>,
}

impl Needs {
    fn capabilities(&self) -> CapabilitySet {
        let when = |needed, capability| if needed { capability } else { CapabilitySet::empty() };
        when(!self.helpers.is_empty(), CapabilitySet::KILL) | when(self.restores_network, CapabilitySet::NET_ADMIN)
    }
}

/// The layers of one process.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    mode: SandboxMode,
    states: Mutex<BTreeMap<Layer, State>>,
}

impl Sandbox {
    /// Asks the host what it has.
    ///
    /// # Errors
    /// `mode` is `require`, and a layer is missing.
    pub(crate) fn new(mode: SandboxMode) -> Result<Self, SandboxError> {
        // The first use of a clock finds the vDSO, by a call that no thread has later.
        let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let state = |layer: Layer| match mode {
            SandboxMode::Off => State::Off,
            _ if layer.is_supported() => State::On,
            _ => State::Unavailable("not supported by this kernel".to_owned()),
        };
        let states: BTreeMap<_, _> = Layer::ALL.into_iter().map(|layer| (layer, state(layer))).collect();
        for (layer, state) in &states {
            if let (SandboxMode::Require, State::Unavailable(why)) = (mode, state) {
                return Err(SandboxError { layer: layer.name(), why: why.clone() });
            }
        }
        Ok(Self { mode, states: Mutex::new(states) })
    }

    /// Each layer and its state, for the result document.
    #[must_use]
    pub(crate) fn report(&self) -> BTreeMap<String, String> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().map(|(layer, state)| (layer.name().to_owned(), state.text())).collect()
    }

    /// Confines the calling thread for good.
    ///
    /// # Errors
    /// The mode is `require`, and the host refuses a layer.
    pub(crate) fn confine(&self, thread: Thread, name: &str, needs: &Needs) -> Result<(), SandboxError> {
        if self.mode == SandboxMode::Off {
            return Ok(());
        }
        let (grants, helpers) = match thread {
            Thread::Main => (needs.files.as_slice(), needs.helpers.as_slice()),
            _ => (needs.of_event_loops.get(name).map_or(&[][..], Vec::as_slice), &[][..]),
        };
        let is_exempt = thread == Thread::Main && needs.executes_programs;
        for layer in Layer::ALL.into_iter().filter(|&layer| self.is_on(layer)) {
            if is_exempt && layer != Layer::Limits {
                self.set(layer, State::OnWithoutMain);
                continue;
            }
            let applied: Result<(), Box<dyn Error>> = match layer {
                Layer::Limits if thread == Thread::Main => privileges::limit_resources().map_err(Into::into),
                Layer::Limits => Ok(()),
                Layer::Capabilities => {
                    let extra = if thread == Thread::Main { needs.capabilities() } else { CapabilitySet::empty() };
                    let usable = || grants.iter().all(Grant::is_usable);
                    privileges::drop_capabilities(thread, extra, usable).map_err(Into::into)
                }
                Layer::NoNewPrivileges => privileges::forbid_new_privileges().map_err(Into::into),
                Layer::Landlock => files::restrict(grants.iter(), &needs.ports).map_err(Into::into),
                Layer::Seccomp => filter_calls(thread, name, helpers),
            };
            if let Err(error) = applied {
                self.refused(layer, error.as_ref())?;
            }
        }
        Ok(())
    }

    /// Confines the calling thread, which computes a digest, to `directory`, where it stores it. It sees nothing of the guest: that it
    /// is not confined as required is found by the other threads.
    pub(crate) fn confine_digest(&self, directory: Option<&Path>) {
        let grants = directory.and_then(|directory| Grant::new(directory, Right::Replace).ok());
        let of_event_loops = HashMap::from([("digest".to_owned(), grants.into_iter().collect())]);
        let _ = self.confine(Thread::Digest, "digest", &Needs { of_event_loops, ..Needs::default() });
    }

    /// Confines the calling thread, one of the network with this name, to `files` and to connections to the TCP ports `ports`.
    ///
    /// # Errors
    /// The mode is `require`, and the host refuses a layer.
    pub(crate) fn confine_network(
        &self,
        thread: Thread,
        name: &str,
        files: Vec<Grant>,
        ports: Vec<u16>,
    ) -> Result<(), SandboxError> {
        let of_event_loops = HashMap::from([(name.to_owned(), files)]);
        self.confine(thread, name, &Needs { of_event_loops, ports, ..Needs::default() })
    }

    fn is_on(&self, layer: Layer) -> bool {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).get(&layer) == Some(&State::On)
    }

    /// The other layers are applied all the same, unless this one is required.
    fn refused(&self, layer: Layer, error: &dyn Error) -> Result<(), SandboxError> {
        let why = error.to_string();
        if self.mode == SandboxMode::Require {
            return Err(SandboxError { layer: layer.name(), why });
        }
        log::debug!("sandbox: {}: {why}", layer.name());
        self.set(layer, State::Unavailable(why));
        Ok(())
    }

    fn set(&self, layer: Layer, state: State) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(layer, state);
    }
}

/// The sandbox of a machine, with what its threads need.
#[derive(Debug)]
pub(crate) struct Confinement {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) needs: Needs,
}

impl Confinement {
    /// Confines the calling thread for good.
    ///
    /// # Errors
    /// The mode is `require`, and the host refuses a layer.
    pub(crate) fn confine(&self, thread: Thread, name: &str) -> Result<(), SandboxError> {
        self.sandbox.confine(thread, name, &self.needs)
    }

    /// Confines the calling thread, an event loop of this name.
    ///
    /// # Errors
    /// As of [`confine`](Self::confine).
    pub(crate) fn confine_event_loop(&self, name: &str) -> Result<(), SandboxError> {
        let thread = match Thread::of_event_loop(name) {
            thread @ Thread::Stream => self.needs.networks.get(name).copied().unwrap_or(thread),
            Thread::Share if self.needs.read_only.iter().any(|read_only| read_only == name) => Thread::ReadOnlyShare,
            thread => thread,
        };
        self.confine(thread, name)
    }
}

fn filter_calls(thread: Thread, name: &str, helpers: &[u32]) -> Result<(), Box<dyn Error>> {
    let program = filter::program(thread, helpers)?;
    match thread {
        // They handle the signals of terminals, and what other processes send.
        Thread::Main | Thread::Io => {}
        Thread::Vcpu => signals::block_all_but(&[kvm::kick_signal()]),
        _ => signals::block_all_but(&[]),
    }
    // Seeds the hash maps of this thread.
    let _ = RandomState::new();
    forbidden_call::name_thread(name);
    if let Some(missing) = filter::missing(thread)? {
        seccompiler::apply_filter(&missing)?;
    }
    Ok(seccompiler::apply_filter(&program)?)
}

/// The line for a call that a filter refused.
pub(crate) fn describe(call: &forbidden_call::ForbiddenCall) -> String {
    let name = usize::try_from(call.number).ok().and_then(syscalls::Sysno::new).map(|call| call.name());
    let name = name.map_or_else(|| format!("number {}", call.number), str::to_owned);
    format!("the thread {} made the system call {name}, which its filter does not allow", call.thread)
}

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;

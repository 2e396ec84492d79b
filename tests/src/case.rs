// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One test: a sentence, what it costs, what it needs, and its body.

use crate::artifacts::foreign_kernels;
use crate::world::{Kvm, World};
use libtest_mimic::{Completion, Trial};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long each test took that has ended, passed or failed.
static TIMES: Mutex<Vec<(&str, Duration)>> = Mutex::new(Vec::new());

/// What a test costs, which decides where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Ends before a machine is built: runs everywhere.
    Quick,
    /// Boots a microVM, and is worth its seconds on a KVM that emulates guest kernel mode too.
    Smoke,
    /// Boots microVMs; only where that is cheap.
    Full,
}

/// What a test cannot do without, besides what its level says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A `/dev/kvm` that opens, for a test that does not boot.
    Kvm,
    /// Root, to change users or to make a mount namespace.
    Root,
    /// Kernels that others built (`CORACLE_KERNELS`).
    Kernels,
}

/// One test.
pub struct Case {
    name: &'static str,
    level: Level,
    needs: &'static [Need],
    body: fn(),
}

impl Case {
    /// A test whose body panics if the sentence in `name` does not hold.
    #[must_use]
    pub const fn new(name: &'static str, level: Level, needs: &'static [Need], body: fn()) -> Case {
        Case { name, level, needs, body }
    }

    /// Why this machine cannot run it, if so.
    fn reason_to_skip(&self, world: World) -> Option<&'static str> {
        let boots = self.level != Level::Quick || self.needs.contains(&Need::Kvm);
        if boots && world.kvm == Kvm::None {
            return Some("needs a /dev/kvm that opens");
        }
        if self.level == Level::Full && world.kvm != Kvm::Native && !world.all {
            return Some("too slow where guest kernel mode is emulated; the nested world runs it");
        }
        if self.needs.contains(&Need::Kernels) && foreign_kernels().is_none() {
            return Some("needs foreign kernels (CORACLE_KERNELS); the nested world has them");
        }
        (self.needs.contains(&Need::Root) && !world.root).then_some("needs root")
    }

    /// For the runner.
    #[must_use]
    pub fn into_trial(self, world: World) -> Trial {
        let skip = self.reason_to_skip(world);
        // The first segment is the test binary's own name.
        let name = self.name.split_once("::").map_or(self.name, |(_, rest)| rest);
        Trial::ignorable_test(name, move || {
            if let Some(reason) = skip {
                return Ok(Completion::ignored_with(reason));
            }
            let _clock = Clock { name, started: Instant::now() };
            (self.body)();
            Ok(Completion::Completed)
        })
    }
}

/// Notes the time of a test when that ends, however it does.
struct Clock {
    name: &'static str,
    started: Instant,
}

impl Drop for Clock {
    fn drop(&mut self) {
        TIMES.lock().unwrap_or_else(PoisonError::into_inner).push((self.name, self.started.elapsed()));
    }
}

/// The tests that took longest, the longest first.
#[must_use]
pub fn slowest(count: usize) -> Vec<(&'static str, Duration)> {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    times.truncate(count);
    times
}

/// A [`Case`] named by its function and module: `case!(Smoke, streams_stay_apart)`, `case!(Quick[Root], ...)`.
#[macro_export]
macro_rules! case {
    ($level:ident $([$($need:ident),+])?, $body:ident) => {
        $crate::Case::new(
            concat!(module_path!(), "::", stringify!($body)),
            $crate::Level::$level,
            &[$($($crate::Need::$need),+)?],
            $body,
        )
    };
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images on this host by name: a store, which is an OCI layout that other tools read in place, and
//! what fills it: a client of registries ([`pull`]), archives ([`load`], [`save`]).
//!
//! Runs on the caller's thread; a pull uses a few more, one for each blob that it downloads at the
//! same time. Nothing here is done before it is needed: certificates are read at the first request
//! that needs them.
#![forbid(unsafe_code)]

mod client;
mod load;
mod parallel;
mod pull;
mod push;
mod registries_conf;
mod save;
mod store;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use client::fuzzing;
pub use client::{ClientError, Credentials, HttpError};
pub use load::{LoadError, Loaded, load};
pub use pull::{Pull, PullError, PullProgress, Pulled, pull};
pub use push::{Push, PushError, Pushed, push};
pub use registries_conf::{Registries, RegistriesError};
pub use save::{SaveError, save};
pub use store::{Checked, DescribeError, Description, Freed, InUse, Problem, Store, StoreError, StoredImage, Usage};

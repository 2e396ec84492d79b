// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verbs `snapshot ls` and `snapshot rm`: the snapshots that have a name.

use super::list::{ListArguments, Listed};
use super::machines::{self, print_each};
use super::snapshot_inspect::image;
use super::{table, words};
use crate::config::name::MachineName;
use crate::config::rfc3339;
use crate::host::directories::Directories;
use crate::machine::snapshot::{OpenSnapshot, SnapshotDocument};
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::snapshots::{SnapshotStoreError, Snapshots, StoredSnapshot};
use clap::Args;
use serde_json::{Value, json};

/// Remove snapshots from the store; machines that started from them run on
#[derive(Debug, Args)]
pub(super) struct RmArguments {
    /// The snapshots
    #[arg(required = true, value_name = "NAME")]
    names: Vec<MachineName>,
}

/// A snapshot, and its document if that can be read.
type Described = (StoredSnapshot, Option<SnapshotDocument>);

pub(super) fn open() -> Result<Snapshots, Failure> {
    Snapshots::of(&Directories::from_environment()).fails_as(EndReason::ConfigError)
}

pub(super) fn fails(error: SnapshotStoreError) -> Failure {
    let reason = match error {
        SnapshotStoreError::File { .. } => EndReason::HostError,
        _ => EndReason::ConfigError,
    };
    Failure::new(reason, error)
}

/// Prints the snapshots and returns the exit status.
pub(super) fn ls(arguments: &ListArguments) -> u8 {
    let described = |snapshot: StoredSnapshot| {
        let inspected = OpenSnapshot::inspect(&snapshot.path).ok();
        (snapshot, inspected.map(|inspected| inspected.document))
    };
    let listed = open().and_then(|snapshots| snapshots.list().map_err(fails));
    machines::status(listed.map(|snapshots| {
        let snapshots: Vec<Described> = snapshots.into_iter().map(described).collect();
        arguments.print(&snapshots);
    }))
}

impl Listed<5> for Described {
    const TITLES: [&'static str; 5] = ["NAME", "MACHINE", "IMAGE", "CREATED", "SIZE"];

    fn name(&self) -> String {
        self.0.name.to_string()
    }

    fn row(&self) -> [String; 5] {
        let (snapshot, document) = self;
        let shown =
            |text: fn(&SnapshotDocument) -> String| document.as_ref().map_or_else(|| "damaged".to_owned(), text);
        [
            snapshot.name.to_string(),
            shown(|document| table::cell(&document.machine, None)),
            shown(|document| table::cell(image(document), Some(table::MAX_IMAGE_CHARACTERS))),
            shown(|document| rfc3339::format(document.created)),
            words::decimal_size(snapshot.bytes),
        ]
    }

    fn describe(&self) -> Value {
        let (snapshot, document) = self;
        json!({
            "name": snapshot.name,
            "path": snapshot.path.display().to_string(),
            "bytes": snapshot.bytes,
            "machine": document.as_ref().map(|document| &document.machine),
            "image": document.as_ref().map(image),
            "created": document.as_ref().map(|document| rfc3339::format(document.created)),
        })
    }
}

/// Removes the snapshots and returns the exit status.
pub(super) fn rm(arguments: &RmArguments) -> u8 {
    let snapshots = match open() {
        Ok(snapshots) => snapshots,
        Err(failure) => return failure::fail(&failure),
    };
    print_each(
        arguments.names.iter().map(|name| snapshots.remove(name).map(|()| Some(name.to_string())).map_err(fails)),
    )
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `template`: the saved starts from which machines of `run --template` begin.

use super::list::{ListArguments, Listed};
use super::machines::{print, print_each};
use super::prune::confirm;
use super::{table, words};
use crate::config::rfc3339;
use crate::host::bounded_read;
use crate::host::directories::Directories;
use crate::machine::template::TemplateDocument;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::template_maker;
use crate::state::end::EndReason;
use crate::state::template_failures::TemplateFailure;
use crate::state::templates::{StoredTemplate, TemplateError, Templates};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// An order has some hundred bytes, and a path.
const MAX_ORDER_BYTES: u64 = 1 << 20;

/// Manage templates, the saved starts of `run --template`
#[derive(Debug, Args)]
pub(super) struct TemplateArguments {
    #[command(subcommand)]
    verb: TemplateVerb,
}

#[derive(Debug, Subcommand)]
enum TemplateVerb {
    /// List templates, those that were used last first, and those that could not be made
    #[command(visible_alias = "list")]
    Ls(ListArguments),
    #[command(visible_alias = "remove")]
    Rm(RmArguments),
    Prune(PruneArguments),
    /// Internal: make the template that standard input describes
    #[command(hide = true)]
    Make,
}

/// Remove templates; machines that started from them run on
#[derive(Debug, Args)]
struct RmArguments {
    /// The templates
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

/// Remove templates that no machine can start from any more, and what killed makers left
#[derive(Debug, Args)]
struct PruneArguments {
    /// Remove all templates
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Executes the verb and returns the exit status.
pub(super) fn template(arguments: &TemplateArguments) -> u8 {
    let templates = Templates::of(&Directories::from_environment()).fails_as(EndReason::ConfigError);
    let outcome = templates.and_then(|templates| match &arguments.verb {
        TemplateVerb::Ls(arguments) => ls(&templates, arguments),
        TemplateVerb::Rm(arguments) => Ok(rm(&templates, &arguments.keys)),
        TemplateVerb::Prune(arguments) => prune(&templates, arguments),
        TemplateVerb::Make => make(),
    });
    outcome.unwrap_or_else(|failure| failure::fail(&failure))
}

fn make() -> Result<u8, Failure> {
    // The end of the input comes when the making may begin.
    let order = bounded_read::read(std::io::stdin(), MAX_ORDER_BYTES).fails_as(EndReason::HostError)?;
    template_maker::make(&order.unwrap_or_default())?;
    Ok(0)
}

/// A template, and its document if that can be read.
type Described = (StoredTemplate, Option<TemplateDocument>);

/// What `template ls` lists.
enum Listable {
    Stored(Box<Described>),
    Failed(TemplateFailure),
}

fn described(templates: &Templates) -> Result<Vec<Described>, Failure> {
    let described = |template: StoredTemplate| {
        let document = TemplateDocument::read(&template.path).ok();
        (template, document)
    };
    Ok(templates.list().map_err(fails)?.into_iter().map(described).collect())
}

fn ls(templates: &Templates, arguments: &ListArguments) -> Result<u8, Failure> {
    let stored = described(templates)?.into_iter().map(|described| Listable::Stored(Box::new(described)));
    let failed = templates.failures().map_err(fails)?.into_iter().map(Listable::Failed);
    arguments.print(&stored.chain(failed).collect::<Vec<_>>());
    Ok(0)
}

impl Listed<8> for Listable {
    const TITLES: [&'static str; 8] =
        ["TEMPLATE KEY", "LEVEL", "IMAGE", "CPUS", "MEMORY", "DEVICES", "LAST USED", "SIZE"];

    fn name(&self) -> String {
        match self {
            Self::Stored(described) => described.0.key.clone(),
            Self::Failed(failure) => failure.key.clone(),
        }
    }

    fn row(&self) -> [String; 8] {
        let image = |name: Option<&str>| table::cell(name.unwrap_or("-"), Some(table::MAX_IMAGE_CHARACTERS));
        let (template, document) = match self {
            Self::Stored(described) => &**described,
            Self::Failed(failure) => {
                let none = || "-".to_owned();
                let reason = table::cell(&format!("failed: {}", failure.reason), None);
                let (level, image) = (level(failure.is_of_image).to_owned(), image(failure.image.as_deref()));
                let time = rfc3339::format(failure.time);
                return [failure.key.clone(), level, image, none(), none(), none(), time, reason];
            }
        };
        let or_damaged = |text: Option<String>| text.unwrap_or_else(|| "damaged".to_owned());
        let shape = document.as_ref().map(|document| &document.shape);
        [
            template.key.clone(),
            or_damaged(shape.map(|shape| level(shape.image.is_some()).to_owned())),
            or_damaged(document.as_ref().map(|document| image(document.image_name.as_deref()))),
            or_damaged(shape.map(|shape| shape.cpus.to_string())),
            or_damaged(shape.map(|shape| format!("{} MiB", shape.memory_bytes >> 20))),
            or_damaged(shape.map(|shape| format!("{} disks, {} networks", shape.disks.len(), shape.nets.len()))),
            rfc3339::format(template.used),
            words::decimal_size(template.bytes),
        ]
    }

    fn describe(&self) -> Value {
        let (template, document) = match self {
            Self::Stored(described) => &**described,
            Self::Failed(failure) => {
                return json!({
                    "key": failure.key,
                    "level": level(failure.is_of_image),
                    "image": failure.image,
                    "failed": rfc3339::format(failure.time),
                    "reason": failure.reason,
                });
            }
        };
        json!({
            "key": template.key,
            "path": template.path.display().to_string(),
            "bytes": template.bytes,
            "used": rfc3339::format(template.used),
            "created": document.as_ref().map(|document| rfc3339::format(document.created)),
            "level": document.as_ref().map(|document| level(document.shape.image.is_some())),
            "image": document.as_ref().and_then(|document| document.image_name.as_ref()),
            "shape": document.as_ref().map(|document| &document.shape),
        })
    }
}

fn level(is_of_image: bool) -> &'static str {
    if is_of_image { "image" } else { "shape" }
}

fn rm(templates: &Templates, keys: &[String]) -> u8 {
    let remove = |key: &String| match templates.remove(key) {
        Err(TemplateError::Missing(_)) if templates.forget_failure(key)? => Ok(()),
        removed => removed.map(drop),
    };
    print_each(keys.iter().map(|key| remove(key).map(|()| Some(key.clone())).map_err(fails)))
}

fn prune(templates: &Templates, arguments: &PruneArguments) -> Result<u8, Failure> {
    let what = if arguments.all { "all templates" } else { "all templates that no machine can start from any more" };
    if !confirm(arguments.force, "template prune", what)? {
        return Ok(0);
    }
    let mut space = templates.remove_left().map_err(fails)?;
    templates.forget_failures(arguments.all).map_err(fails)?;
    for (template, document) in described(templates)? {
        if !arguments.all && document.is_some_and(|document| document.shape.is_current()) {
            continue;
        }
        match templates.remove(&template.key) {
            Ok(bytes) => {
                space += bytes;
                print(&format!("{}\n", template.key));
            }
            // Another process removed it.
            Err(TemplateError::Missing(_)) => {}
            Err(error) => return Err(fails(error)),
        }
    }
    print(&format!("Total reclaimed space: {}\n", words::decimal_size(space)));
    Ok(0)
}

fn fails(error: TemplateError) -> Failure {
    let reason = match error {
        TemplateError::Missing(_) | TemplateError::Directory(_) => EndReason::ConfigError,
        TemplateError::File { .. } => EndReason::HostError,
    };
    Failure::new(reason, error)
}

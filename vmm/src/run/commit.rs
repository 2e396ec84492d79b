// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes an image of a machine: its image, one more layer, and the options that it was made with as the image's
//! defaults, as docker does.

use super::failure::{FailsAs as _, Failure};
use super::machine_files::{self, MachineFiles};
use super::progress::ProgressLine;
use super::stored_image;
use crate::config::environment::{self, EnvVar, HostValueError};
use crate::config::image_change::ImageChange;
use crate::config::request::Request;
use crate::config::rfc3339;
use crate::config::text_form::Given;
use crate::host::directories::Directories;
use crate::host::system_error::Cannot as _;
use crate::state::end::EndReason;
use crate::state::machines::MachineInfo;
use oci_image::{Commit, CommitError, Contents, Digest, ImageConfig, ImageError, ImageName, ImageReference};
use registry::{LoadError, Store};
use serde_json::{Map, Value};
use std::error::Error;
use std::path::Path;
use std::time::SystemTime;

/// What is given besides the machine.
#[derive(Debug)]
pub(crate) struct CommitOptions<'a> {
    pub(crate) name: Option<ImageName>,
    pub(crate) changes: &'a [ImageChange],
    pub(crate) message: Option<&'a str>,
    pub(crate) author: Option<&'a str>,
    /// A machine that runs is held while its files are copied.
    pub(crate) pauses: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot commit {machine}")]
struct MachineCommitError {
    machine: String,
    source: Box<dyn Error + Send + Sync>,
}

/// Adds the image to the store and returns its digest.
pub(crate) fn commit(base: &Path, machine: &MachineInfo, options: CommitOptions<'_>) -> Result<Digest, Failure> {
    let failed = |reason, source: Box<dyn Error + Send + Sync>| {
        Failure::new(reason, MachineCommitError { machine: machine.name.clone(), source })
    };
    let MachineFiles { tree, request, directory, image } = machine_files::open(base, machine, options.pauses)?;
    // Where relative paths of the request begin.
    let entered = std::env::set_current_dir(&directory);
    entered.cannot(format!("enter {}", directory.display())).fails_as(EndReason::ConfigError)?;
    let env_files = environment::read_files(&request.env_file).fails_as(EndReason::ConfigError)?;
    let defaults =
        defaults(&request, &image.config, &env_files, environment::host_value).fails_as(EndReason::ConfigError)?;
    let edit = |config: &mut Map<String, Value>| {
        config.extend(defaults.clone());
        options.changes.iter().for_each(|change| change.apply(config));
    };
    let command = if request.command.is_empty() { &image.config.cmd } else { &request.command };
    let store = stored_image::store(&Directories::from_environment())?;
    store.create().fails_as(EndReason::HostError)?;
    let _in_use = store.in_use().fails_as(EndReason::HostError)?;
    let progress = ProgressLine::new();
    let commit = Commit {
        image_digest: &image.digest,
        tree: &tree,
        edit: &edit,
        created: &rfc3339::format(SystemTime::now()),
        author: options.author,
        created_by: &command.join(" "),
        comment: options.message,
        name: options.name,
        progress: &|| progress.show("writing the layer", None),
    };
    let contents = contents(&store, request.image.as_deref(), &commit)
        .map_err(|error| failed(EndReason::of_image(error.is_host()), error.into()))?;
    let show = |done, total| progress.show("storing the image", Some((done, total)));
    let loaded = registry::load(&store, &contents, &show);
    let loaded = loaded.map_err(|error: LoadError| failed(EndReason::of_image(error.is_host()), error.into()))?;
    Ok(loaded.into_iter().next().expect("one image was made").digest)
}

/// The image is made above the one in the store, else above the one where the machine's was.
fn contents(store: &Store, reference: Option<&str>, commit: &Commit<'_>) -> Result<Contents, CommitError> {
    let stored = ImageReference::OciLayout { path: store.directory().to_owned(), tag: None };
    let missing = match Contents::commit(&stored, &store.scratch(), commit) {
        Err(error) if error.is_missing_image() => error,
        made => return made,
    };
    match reference.map(ImageReference::parse) {
        Some(Ok(ImageReference::Name(name))) => {
            let name = format!("{}@{}", name.short_repository(), commit.image_digest);
            Err(ImageError::NotStored(name).into())
        }
        Some(Ok(reference)) => Contents::commit(&reference, &store.scratch(), commit),
        _ => Err(missing),
    }
}

/// The fields of an image's configuration that the options of a machine replace.
fn defaults(
    request: &Request,
    image: &ImageConfig,
    env_files: &[EnvVar],
    host: impl Fn(&str) -> Result<Option<String>, HostValueError>,
) -> Result<Map<String, Value>, HostValueError> {
    let given = |option: &Option<String>| option.clone().filter(|value| !value.is_empty()).map(Value::from);
    let list = |words: &[String]| if words.is_empty() { Value::Null } else { words.into() };
    let mut fields = vec![
        ("User", given(&request.user)),
        ("WorkingDir", given(&request.workdir)),
        ("StopSignal", request.stop_signal.as_ref().and_then(Given::get).map(|signal| signal.to_string().into())),
    ];
    if !request.env.is_empty() || !env_files.is_empty() {
        let environment = environment::complete(&image.env, env_files, &request.env, host)?;
        fields.push(("Env", Some(list(&environment))));
    }
    match &request.entrypoint {
        // The command is the init's.
        _ if request.system => {}
        Some(entrypoint) => {
            let words: Vec<String> = Some(entrypoint).filter(|word| !word.is_empty()).into_iter().cloned().collect();
            fields.extend([("Entrypoint", Some(list(&words))), ("Cmd", Some(list(&request.command)))]);
        }
        None if request.command.is_empty() => {}
        None => fields.push(("Cmd", Some(list(&request.command)))),
    }
    Ok(fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(request: &Request) -> Value {
        let image = ImageConfig { env: vec!["A=image".into(), "B=image".into()], ..ImageConfig::default() };
        Value::Object(defaults(request, &image, &[], |_| Ok(Some("host".into()))).unwrap())
    }

    #[test]
    fn options_of_the_machine_are_the_images_defaults() {
        assert_eq!(of(&Request::default()), json!({}));
        let request = Request {
            command: vec!["sh".into(), "-c".into(), "x".into()],
            env: vec!["A=option".parse().unwrap(), "C".parse().unwrap()],
            user: Some("app".into()),
            workdir: Some(String::new()),
            stop_signal: Some("INT".parse().unwrap()),
            ..Request::default()
        };
        let expected = json!({
            "Cmd": ["sh", "-c", "x"], "Env": ["A=option", "B=image", "C=host"], "User": "app", "StopSignal": "SIGINT",
        });
        assert_eq!(of(&request), expected);
    }

    #[test]
    fn entrypoint_of_the_machine_replaces_entrypoint_and_command() {
        let request = |entrypoint: &str, command: &[&str]| Request {
            entrypoint: Some(entrypoint.into()),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..Request::default()
        };
        assert_eq!(of(&request("/x", &[])), json!({ "Entrypoint": ["/x"], "Cmd": null }));
        assert_eq!(of(&request("", &["a"])), json!({ "Entrypoint": null, "Cmd": ["a"] }));
        assert_eq!(of(&Request { system: true, ..request("/x", &["a"]) }), json!({}));
    }
}

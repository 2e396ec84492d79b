// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `check`: tries every step of a start that needs no machine. One line a step, with the reason where it fails; later
//! steps are tried nevertheless.

use super::arguments::CheckArguments;
use super::machines::print;
use crate::config::disk::SCRATCH_SERIAL;
use crate::config::environment;
use crate::config::request::Request;
use crate::config::size::Scratch;
use crate::host::directories::Directories;
use crate::host::scratch;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::prepare::{open_kernel, read_init};
use crate::run::progress::ProgressLine;
use crate::run::resolve::{ResolvedRequest, RootSource};
use crate::run::workload::Workload;
use crate::state::end::{EndReason, STATUS_FAILED};
use boot::Kernel;
use boot::layout::MAX_CPUS;
use kvm::KvmHost;
use oci_image::{ImageConfig, ImageDescription, ImageReference};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Findings {
    ok: bool,
    steps: Vec<Step>,
}

/// Prints the findings and returns the exit status.
pub(super) fn check(arguments: CheckArguments) -> u8 {
    let json = arguments.json;
    let request = match arguments.request() {
        Ok(request) => request,
        Err(failure) => return failure::fail(&failure),
    };
    super::logging::start(request.log_level.unwrap_or_default());
    let steps = check_all(&request);
    let findings = Findings { ok: steps.iter().all(|step| step.ok), steps };
    let text = if json {
        serde_json::to_string_pretty(&findings).expect("the findings are strings and booleans") + "\n"
    } else {
        findings.steps.iter().map(line).collect()
    };
    print(&text);
    if findings.ok { 0 } else { STATUS_FAILED }
}

fn line(step: &Step) -> String {
    let mark = if step.ok { "ok  " } else { "FAIL" };
    format!("{mark}  {:<14} {}\n", step.name, step.detail)
}

fn check_all(request: &Request) -> Vec<Step> {
    let directories = Directories::from_environment();
    let mut steps = vec![
        step("kvm", check_kvm()),
        step("kernel", open_kernel(request, &directories, &ProgressLine::new()).map(|kernel| describe_kernel(&kernel))),
        step("PID 1", read_init(request, &directories).map(|init| format!("{} KiB", init.len() >> 10))),
        step("scratch", check_scratch(request, &directories)),
    ];
    // Without an image only the host is checked.
    if request.image.is_some() || request.rootfs.is_some() {
        let resolved = resolve(request);
        let mut workload = Ok(());
        if let Ok(ResolvedRequest { root: RootSource::Image(image), .. }) = &resolved {
            let described = check_image(image, request, &directories);
            if let Ok(description) = &described {
                workload = check_workload(&description.config, request);
            }
            steps.push(step("image", described.map(|description| describe_image(image, &description))));
        }
        let configured = resolved.and(workload);
        steps.push(step("configuration", configured.map(|()| "options, disks and network go together".to_owned())));
    }
    steps
}

fn step(name: &'static str, outcome: Result<String, Failure>) -> Step {
    match outcome {
        Ok(detail) => Step { name, ok: true, detail },
        Err(failure) => Step { name, ok: false, detail: failure.message() },
    }
}

fn describe_kernel(kernel: &Kernel) -> String {
    let form = if kernel.is_bzimage() { "bzImage" } else { "vmlinux" };
    let release = kernel.features().release().unwrap_or("of unknown release");
    let modules = kernel.modules().map(|modules| format!(", modules in {}", modules.directory().display()));
    format!("{}, {form} {release}, {}{}", kernel.path().display(), kernel.description(), modules.unwrap_or_default())
}

fn check_kvm() -> Result<String, Failure> {
    let host = KvmHost::open().fails_as(EndReason::HostError)?;
    let max_cpus = host.max_cpus().min(MAX_CPUS.into());
    Ok(format!("/dev/kvm, {}, up to {max_cpus} vCPUs", host.kind().name()))
}

fn check_scratch(request: &Request, directories: &Directories) -> Result<String, Failure> {
    match request.scratch() {
        Scratch::Disk(size) => {
            scratch::create(size, directories, SCRATCH_SERIAL).fails_as(EndReason::HostError)?;
            Ok(format!("a disk in {}", directories.large_temporary().display()))
        }
        other => Ok(other.to_string()),
    }
}

fn resolve(request: &Request) -> Result<ResolvedRequest, Failure> {
    let files = environment::read_files(&request.env_file).fails_as(EndReason::ConfigError)?;
    Ok(ResolvedRequest::new(request, &files)?)
}

/// As far as its documents: the tag, the platform, the layers' presence. Their content is checked when it is converted.
fn check_image(
    reference: &ImageReference,
    request: &Request,
    directories: &Directories,
) -> Result<ImageDescription, Failure> {
    let scratch = directories.large_temporary();
    let description = oci_image::describe(reference, &request.platform(), &scratch).fails_as(EndReason::ImageError)?;
    match description.layer_file_bytes {
        Some(_) => Ok(description),
        None => Err(Failure::new(EndReason::ImageError, format!("image {reference}: a layer is missing"))),
    }
}

fn describe_image(reference: &ImageReference, description: &ImageDescription) -> String {
    let layers = if description.layers == 1 { "layer" } else { "layers" };
    format!("{reference}, {} {layers}, {}", description.layers, description.image_digest)
}

/// Whether the image and the options together say what to run.
fn check_workload(image: &ImageConfig, request: &Request) -> Result<(), Failure> {
    let files = environment::read_files(&request.env_file).fails_as(EndReason::ConfigError)?;
    Workload::decide(image, request, &files, environment::host_value).fails_as(EndReason::ConfigError)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_shows_the_reason_on_its_line() {
        let failed = step("kernel", Err(Failure::new(EndReason::KernelError, "no guest kernel")));
        assert_eq!(line(&failed), "FAIL  kernel         no guest kernel\n");
        let fine = step("kvm", Ok("/dev/kvm".into()));
        assert_eq!(line(&fine), "ok    kvm            /dev/kvm\n");
    }

    #[test]
    fn check_reports_a_missing_image() {
        let request = Request { image: Some("oci:/nowhere".into()), ..Request::default() };
        let steps = check_all(&request);
        let image = steps.iter().find(|step| step.name == "image").unwrap();
        assert!(!image.ok && image.detail.contains("/nowhere"), "{image:?}");
        assert!(steps.iter().any(|step| step.name == "configuration" && step.ok), "{steps:?}");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The options of `run` and their two forms, on the command line and in the configuration document. Each value is checked by
//! itself when it is parsed. What depends on several options, or on the host, is checked in [`run`](crate::run).

pub(crate) mod bind_mount;
pub(crate) mod capability;
pub(crate) mod cpus;
pub(crate) mod destination;
pub(crate) mod disk;
pub(crate) mod dns_word;
pub(crate) mod document;
pub(crate) mod environment;
pub(crate) mod guest_path;
pub(crate) mod host_entry;
pub(crate) mod image_change;
pub(crate) mod interval;
pub(crate) mod limits;
pub(crate) mod mac_address;
pub(crate) mod moment;
pub(crate) mod name;
pub(crate) mod network;
pub(crate) mod number;
pub(crate) mod platform;
pub(crate) mod publish;
pub(crate) mod pull_policy;
mod rate;
pub(crate) mod request;
pub(crate) mod rfc3339;
pub(crate) mod root_format;
pub(crate) mod security_option;
pub(crate) mod signal;
pub(crate) mod size;
pub(crate) mod sysctl;
pub(crate) mod template_use;
pub(crate) mod text_form;
pub(crate) mod tmpfs;
pub(crate) mod ulimit;
pub(crate) mod volume;
pub(crate) mod vsock;

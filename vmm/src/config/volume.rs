// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--volume` and `--mount`: what is mounted in the guest besides its root.

use super::bind_mount::{BindMount, BindMountError};
use super::guest_path;
use super::name::{NameError, VolumeName};
use super::size::{SizeError, parse_bytes};
use super::text_form::text_form;
use super::tmpfs::{Tmpfs, TmpfsError};
use std::fmt;
use std::str::FromStr;

/// File systems of the kernel's that a volume would hide.
const KERNEL_DIRECTORIES: [&str; 2] = ["proc", "sys"];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("expected [NAME:]PATH[:ro]")]
    Form,
    #[error("volume name")]
    Name(#[from] NameError),
    #[error("`{0}` is a path of the host, which type=bind mounts")]
    HostPath(String),
    #[error("no source; expected source=HOST_PATH")]
    NoSource,
    #[error(transparent)]
    Bind(#[from] BindMountError),
    #[error("expected an absolute path below / without `..`, and not in /proc or /sys")]
    Path,
    #[error("unknown option `{0}`; expected ro, rw or nocopy")]
    Option(String),
    #[error(
        "unknown word `{0}`; expected type=volume|bind|tmpfs, source=SOURCE, target=PATH, readonly, volume-nocopy, tmpfs-size=SIZE \
             or tmpfs-mode=MODE"
    )]
    Word(String),
    #[error("`{0}` does not belong to type={1}")]
    Foreign(String, &'static str),
    #[error("no target; expected target=PATH")]
    NoTarget,
    #[error("more than one `{0}`")]
    Twice(&'static str),
    #[error("`{0}`: expected true or false")]
    Truth(String),
    #[error("tmpfs-size")]
    Size(#[from] SizeError),
    #[error("tmpfs-mode `{0}`: expected octal digits")]
    Mode(String),
    #[error(transparent)]
    Tmpfs(#[from] TmpfsError),
}

/// A volume at a path of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Without one the volume ends with the machine.
    pub(crate) name: Option<VolumeName>,
    pub(crate) path: String,
    pub(crate) read_only: bool,
    /// An empty volume gets what the image has at the path.
    pub(crate) copy: bool,
}

impl Volume {
    /// Of the image's `VOLUME`s; `None` if it cannot be one.
    #[must_use]
    pub(crate) fn of_image(path: &str) -> Option<Self> {
        let path = parse_path(path).ok().filter(|path| !is_in(path, &["dev"]))?;
        Some(Self { name: None, path, read_only: false, copy: true })
    }
}

fn parse_path(text: &str) -> Result<String, VolumeError> {
    let path =
        guest_path::normal(text).filter(|path| !text.contains(['\0', '\n']) && !is_in(path, &KERNEL_DIRECTORIES));
    path.ok_or(VolumeError::Path)
}

/// Whether a normal path is one of these directories of the root, or below one.
fn is_in(path: &str, directories: &[&str]) -> bool {
    path.split('/').nth(1).is_some_and(|first| directories.contains(&first))
}

/// What cannot be the name of a volume.
fn is_host_path(source: &str) -> bool {
    source.starts_with(['/', '.'])
}

impl FromStr for Volume {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let fields: Vec<&str> = text.split(':').collect();
        let (source, path, options) = match *fields {
            [path] => (None, path, ""),
            [source, path] => (Some(source), path, ""),
            [source, path, options] => (Some(source), path, options),
            _ => return Err(VolumeError::Form),
        };
        if path.is_empty() || source == Some("") {
            return Err(VolumeError::Form);
        }
        let name = source.map(str::parse).transpose()?;
        let mut volume = Self { name, path: parse_path(path)?, read_only: false, copy: true };
        for option in options.split(',').filter(|_| !options.is_empty()) {
            match option {
                "ro" => volume.read_only = true,
                "rw" => volume.read_only = false,
                "nocopy" => volume.copy = false,
                _ => return Err(VolumeError::Option(option.to_owned())),
            }
        }
        Ok(volume)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, path, read_only, copy } = self;
        if let Some(name) = name {
            write!(f, "{name}:")?;
        }
        f.write_str(path)?;
        f.write_str(match (read_only, copy) {
            (false, true) => "",
            (true, true) => ":ro",
            (false, false) => ":nocopy",
            (true, false) => ":ro,nocopy",
        })
    }
}

/// What is mounted; in docker's words the value of `--mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mount {
    Volume(Volume),
    Bind(BindMount),
    Tmpfs(Tmpfs),
}

impl Mount {
    /// Where it is mounted in the guest.
    #[must_use]
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Volume(volume) => &volume.path,
            Self::Bind(bind) => &bind.target,
            Self::Tmpfs(tmpfs) => tmpfs.path(),
        }
    }
}

/// The value of `--volume`: never a tmpfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeOption(pub(crate) Mount);

impl FromStr for VolumeOption {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        match text.split_once(':') {
            Some((source, _)) if is_host_path(source) => Ok(Self(Mount::Bind(text.parse()?))),
            _ => Ok(Self(Mount::Volume(text.parse()?))),
        }
    }
}

impl fmt::Display for VolumeOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Mount::Volume(volume) => volume.fmt(f),
            Mount::Bind(bind) => bind.fmt(f),
            Mount::Tmpfs(tmpfs) => tmpfs.fmt(f),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Volume,
    Bind,
    Tmpfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Bind => "bind",
            Self::Tmpfs => "tmpfs",
        }
    }

    /// Whether a word that only some kinds have belongs to this one.
    fn has(self, word: &str) -> bool {
        match word {
            "source" => self != Self::Tmpfs,
            "volume-nocopy" => self == Self::Volume,
            _ => self == Self::Tmpfs,
        }
    }
}

/// The words of a `--mount`.
#[derive(Default)]
struct Words {
    kind: Option<Kind>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    no_copy: Option<bool>,
    size: Option<u64>,
    mode: Option<u32>,
}

impl Words {
    fn parse(text: &str) -> Result<Self, VolumeError> {
        let mut words = Self::default();
        for word in text.split(',') {
            let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
            let unknown = || VolumeError::Word(word.to_owned());
            let text = || value.filter(|value| !value.is_empty()).map(str::to_owned).ok_or_else(unknown);
            let truth = || match value {
                None | Some("true" | "1") => Ok(true),
                Some("false" | "0") => Ok(false),
                Some(_) => Err(VolumeError::Truth(word.to_owned())),
            };
            match key {
                "type" => {
                    let kinds = [Kind::Volume, Kind::Bind, Kind::Tmpfs];
                    let kind = kinds.into_iter().find(|kind| value == Some(kind.name())).ok_or_else(unknown)?;
                    once(&mut words.kind, "type", kind)?;
                }
                "source" | "src" => once(&mut words.source, "source", text()?)?,
                "target" | "dst" | "destination" => once(&mut words.target, "target", text()?)?,
                "readonly" | "ro" => once(&mut words.read_only, "readonly", truth()?)?,
                "volume-nocopy" => once(&mut words.no_copy, "volume-nocopy", truth()?)?,
                "tmpfs-size" => once(&mut words.size, "tmpfs-size", parse_bytes(&text()?)?)?,
                "tmpfs-mode" => {
                    let mode = text()?;
                    let mode = u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o7777).ok_or(mode);
                    once(&mut words.mode, "tmpfs-mode", mode.map_err(VolumeError::Mode)?)?;
                }
                _ => return Err(unknown()),
            }
        }
        Ok(words)
    }
}

fn once<T>(field: &mut Option<T>, key: &'static str, value: T) -> Result<(), VolumeError> {
    if field.replace(value).is_some() { Err(VolumeError::Twice(key)) } else { Ok(()) }
}

impl FromStr for Mount {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let Words { kind, source, target, read_only, no_copy, size, mode } = Words::parse(text)?;
        let kind = kind.unwrap_or_default();
        let given = [
            ("source", source.is_some()),
            ("volume-nocopy", no_copy.is_some()),
            ("tmpfs-size", size.is_some()),
            ("tmpfs-mode", mode.is_some()),
        ];
        if let Some((word, _)) = given.iter().find(|(word, is_given)| *is_given && !kind.has(word)) {
            return Err(VolumeError::Foreign((*word).to_owned(), kind.name()));
        }
        let path = parse_path(&target.ok_or(VolumeError::NoTarget)?)?;
        let read_only = read_only.unwrap_or(false);
        match kind {
            Kind::Tmpfs => {
                let read_only = read_only.then(|| "ro".to_owned());
                let (size, mode) = (size.map(|size| format!("size={size}")), mode.map(|mode| format!("mode={mode:o}")));
                let options: Vec<String> = [read_only, size, mode].into_iter().flatten().collect();
                Ok(Self::Tmpfs(format!("{path}:{}", options.join(",")).parse()?))
            }
            Kind::Bind => {
                let source = source.ok_or(VolumeError::NoSource)?;
                if !is_host_path(&source) {
                    return Err(BindMountError::Source(source).into());
                }
                Ok(Self::Bind(BindMount { source: source.into(), target: path, read_only }))
            }
            Kind::Volume => {
                if let Some(source) = source.as_ref().filter(|source| is_host_path(source)) {
                    return Err(VolumeError::HostPath(source.clone()));
                }
                let name = source.as_deref().map(str::parse).transpose()?;
                Ok(Self::Volume(Volume { name, path, read_only, copy: !no_copy.unwrap_or(false) }))
            }
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(Volume { name, path, read_only, copy }) => {
                f.write_str("type=volume")?;
                if let Some(name) = name {
                    write!(f, ",source={name}")?;
                }
                write!(f, ",target={path}")?;
                f.write_str(if *read_only { ",readonly" } else { "" })?;
                f.write_str(if *copy { "" } else { ",volume-nocopy" })
            }
            Self::Bind(BindMount { source, target, read_only }) => {
                write!(f, "type=bind,source={},target={target}", source.display())?;
                f.write_str(if *read_only { ",readonly" } else { "" })
            }
            Self::Tmpfs(tmpfs) => {
                write!(f, "type=tmpfs,target={}", tmpfs.path())?;
                for option in tmpfs.mount().options.split(',').filter(|option| !option.is_empty()) {
                    f.write_str(if option == "ro" { ",readonly" } else { ",tmpfs-" })?;
                    f.write_str(if option == "ro" { "" } else { option })?;
                }
                Ok(())
            }
        }
    }
}

text_form!(VolumeOption, Mount);

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Volume>().unwrap_err().to_string()
    }

    #[test]
    fn volume_is_a_name_a_path_and_options() {
        for (text, name, path) in
            [("data:/data", Some("data"), "/data"), ("/var/lib/x", None, "/var/lib/x"), ("d:/a//b/", Some("d"), "/a/b")]
        {
            let volume: Volume = text.parse().unwrap();
            assert_eq!((volume.name.as_ref().map(VolumeName::as_str), &*volume.path), (name, path));
        }
        for text in ["data:/data", "/data", "d:/a:ro", "d:/a:nocopy", "d:/a:ro,nocopy"] {
            assert_eq!(text.parse::<Volume>().unwrap().to_string(), text);
        }
        assert_eq!("d:/a:rw".parse::<Volume>().unwrap().to_string(), "d:/a");
    }

    #[test]
    fn invalid_volumes_are_rejected() {
        for text in ["", ":/a", "a:", "a:/b:ro:rw", "d::ro"] {
            assert_eq!(error(text), VolumeError::Form.to_string(), "{text}");
        }
        for text in ["d:/", "d:relative", "relative", "/a/../b", "d:/proc/x", "/sys", "/", "d:/a\n"] {
            assert_eq!(error(text), VolumeError::Path.to_string(), "{text}");
        }
        for text in ["d:/a:z", "d:/a:ro,", "d:/a:RO"] {
            assert!(error(text).contains("unknown option"), "{text}");
        }
        for text in ["-d:/a", "a b:/c", "~/x:/data", "./x:/data", &format!("{}:/c", "x".repeat(129)), "é:/c"] {
            assert_eq!(error(text), "volume name", "{text}");
        }
    }

    #[test]
    fn source_of_a_volume_option_is_a_name_or_a_path() {
        let parse = |text: &str| text.parse::<VolumeOption>().map(|option| option.0);
        assert!(matches!(parse("data:/d"), Ok(Mount::Volume(volume)) if volume.name.is_some()));
        assert!(matches!(parse("/d"), Ok(Mount::Volume(volume)) if volume.name.is_none()));
        for text in ["/srv:/d", "./x:/d:ro", "..:/d"] {
            assert!(matches!(parse(text), Ok(Mount::Bind(_))), "{text}");
            assert_eq!(text.parse::<VolumeOption>().unwrap().to_string(), text);
        }
        assert!(matches!(parse("/srv:/d:nocopy"), Err(VolumeError::Bind(_))));
    }

    #[test]
    fn mount_is_written_as_it_is_read() {
        for (text, written) in [
            ("type=volume,source=d,target=/a", None),
            ("src=d,dst=/a,ro", Some("type=volume,source=d,target=/a,readonly")),
            ("type=volume,target=/a,readonly=false,volume-nocopy=true", Some("type=volume,target=/a,volume-nocopy")),
            ("type=tmpfs,target=/a", None),
            ("type=bind,source=/a,target=/b", None),
            ("type=bind,src=./a,dst=/b,ro", Some("type=bind,source=./a,target=/b,readonly")),
            (
                "type=tmpfs,destination=/a,tmpfs-size=16m,tmpfs-mode=1777,ro",
                Some("type=tmpfs,target=/a,readonly,tmpfs-size=16777216,tmpfs-mode=1777"),
            ),
        ] {
            let mount: Mount = text.parse().unwrap();
            assert_eq!(mount.to_string(), written.unwrap_or(text));
            assert_eq!(mount.to_string().parse::<Mount>(), Ok(mount));
        }
    }

    #[test]
    fn invalid_mounts_are_rejected() {
        for (text, object) in [
            ("", "unknown word"),
            ("type=volume", "no target"),
            ("type=bind,source=a,target=/b", "not a path of the host"),
            ("type=bind,target=/b", "no source"),
            ("type=bind,source=/a,target=/b,volume-nocopy", "volume-nocopy"),
            ("type=npipe,target=/a", "type=npipe"),
            ("source=/a,target=/b", "/a"),
            ("target=/a,target=/b", "more than one `target`"),
            ("target=/a,readonly=maybe", "readonly=maybe"),
            ("target=/a,colour=red", "colour=red"),
            ("target=/a,tmpfs-size=1m", "tmpfs-size"),
            ("type=tmpfs,target=/a,source=d", "source"),
            ("type=tmpfs,target=/a,tmpfs-mode=9", "tmpfs-mode"),
            ("type=tmpfs,target=/a,tmpfs-size=x", "tmpfs-size"),
            ("target=a", "absolute path"),
        ] {
            let error = text.parse::<Mount>().unwrap_err().to_string();
            assert!(error.contains(object), "{text}: {error}");
        }
    }

    #[test]
    fn paths_of_the_image_that_are_the_kernels_are_no_volumes() {
        assert_eq!(Volume::of_image("/data/").unwrap().path, "/data");
        for path in ["/sys/fs/cgroup", "/dev/shm", "/proc", "/", "data", "/a/../b"] {
            assert_eq!(Volume::of_image(path), None, "{path}");
        }
    }
}

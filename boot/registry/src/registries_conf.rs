// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `registries.conf` of the containers tools (containers-registries.conf(5), version 2): other places,
//! mirrors, registries without certificates, blocked ones. Short names are docker's, so that
//! `unqualified-search-registries` and aliases are not used.

use oci_image::ImageName;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Table};

const MAX_FILE_SIZE: u64 = 1 << 20;
const SYSTEM_FILE: &str = "/etc/containers/registries.conf";

#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is malformed: {detail}")]
    Malformed { path: PathBuf, detail: String },
    #[error("{path} blocks {prefix}")]
    Blocked { path: PathBuf, prefix: String },
}

/// What is configured, the last file first.
#[derive(Clone, Debug, Default)]
pub struct Registries(Vec<Registry>);

#[derive(Clone, Debug, Default)]
struct Registry {
    file: PathBuf,
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
    mirrors_by_digest_only: bool,
}

#[derive(Clone, Debug, Default)]
struct Mirror {
    location: String,
    insecure: bool,
    /// `all`, `digest-only` or `tag-only`.
    pulls: String,
}

/// Where a name is pulled from or pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host, with its port if it has one.
    pub registry: String,
    pub repository: String,
    /// Its certificate is not checked, and plain HTTP is accepted.
    pub insecure: bool,
}

impl Registries {
    /// `$CONTAINERS_REGISTRIES_CONF`, or the user's file, or the system's; then the files in the
    /// directories beside these.
    pub fn from_environment() -> Result<Self, RegistriesError> {
        let variable =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = variable("CONTAINERS_REGISTRIES_CONF") {
            return Self::read(&[path], true);
        }
        let user = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
        let user = user.map(|config| config.join("containers/registries.conf"));
        let system = PathBuf::from(SYSTEM_FILE);
        let main = user.clone().filter(|path| path.exists()).unwrap_or_else(|| system.clone());
        let mut files = vec![main];
        for path in [Some(system), user].into_iter().flatten() {
            files.extend(drop_ins(&path.with_extension("conf.d")));
        }
        Self::read(&files, false)
    }

    /// Of two entries with one prefix that of the later file counts.
    fn read(files: &[PathBuf], required: bool) -> Result<Self, RegistriesError> {
        let mut all: Vec<Registry> = Vec::new();
        for path in files {
            let failed = |source| RegistriesError::Read { path: path.clone(), source };
            let mut text = String::new();
            match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !required => continue,
                file => file.map_err(failed)?.take(MAX_FILE_SIZE).read_to_string(&mut text).map_err(failed)?,
            };
            for registry in parse(&text, path)? {
                all.retain(|known| known.prefix != registry.prefix);
                all.push(registry);
            }
        }
        Ok(Self(all))
    }

    /// Where a name is pulled from: mirrors first.
    pub(crate) fn for_pull(&self, name: &ImageName) -> Result<Vec<Endpoint>, RegistriesError> {
        let Some((registry, rest)) = self.find(name)? else { return Ok(vec![own(name, false)]) };
        let by_digest = name.digest().is_some();
        let fits = |mirror: &&Mirror| match mirror.pulls.as_str() {
            "digest-only" => by_digest,
            "tag-only" => !by_digest,
            _ => by_digest || !registry.mirrors_by_digest_only,
        };
        let mirrors = registry.mirrors.iter().filter(fits);
        let mut endpoints: Vec<Endpoint> =
            mirrors.filter_map(|mirror| endpoint(&mirror.location, &rest, mirror.insecure)).collect();
        endpoints.push(registry.endpoint(name, &rest));
        Ok(endpoints)
    }

    pub(crate) fn for_push(&self, name: &ImageName) -> Result<Endpoint, RegistriesError> {
        Ok(self.find(name)?.map_or_else(|| own(name, false), |(registry, rest)| registry.endpoint(name, &rest)))
    }

    /// The entry with the longest prefix of a name, and the rest of the name.
    fn find(&self, name: &ImageName) -> Result<Option<(&Registry, String)>, RegistriesError> {
        let full = format!("{}/{}", name.registry(), name.repository());
        let matching = self.0.iter().filter_map(|registry| Some((registry, rest_behind(&registry.prefix, &full)?)));
        match matching.max_by_key(|(registry, _)| registry.prefix.len()) {
            Some((registry, _)) if registry.blocked => {
                Err(RegistriesError::Blocked { path: registry.file.clone(), prefix: registry.prefix.clone() })
            }
            found => Ok(found.map(|(registry, rest)| (registry, rest.to_owned()))),
        }
    }
}

impl Registry {
    fn endpoint(&self, name: &ImageName, rest: &str) -> Endpoint {
        endpoint(&self.location, rest, self.insecure).unwrap_or_else(|| own(name, self.insecure))
    }
}

fn own(name: &ImageName, insecure: bool) -> Endpoint {
    Endpoint { registry: name.registry().to_owned(), repository: name.repository().to_owned(), insecure }
}

/// `None` if the location and the rest are not a name.
fn endpoint(location: &str, rest: &str, insecure: bool) -> Option<Endpoint> {
    if location.is_empty() {
        return None;
    }
    let name = ImageName::parse(&format!("{location}{rest}")).ok()?;
    Some(own(&name, insecure))
}

/// What follows `prefix` in `name`, if it ends there at a component: `*.example.org` stands for a host.
fn rest_behind<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let end = name.find('/').unwrap_or(name.len());
        return name[..end].ends_with(domain).then(|| &name[end..]);
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn drop_ins(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "conf")).collect();
    files.sort();
    files
}

fn parse(text: &str, path: &Path) -> Result<Vec<Registry>, RegistriesError> {
    let malformed = |detail: String| RegistriesError::Malformed { path: path.to_owned(), detail };
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        malformed(error.message().lines().next().unwrap_or_default().to_owned())
    })?;
    let Some(tables) = document.get("registry") else { return Ok(Vec::new()) };
    let tables = tables.as_array_of_tables().ok_or_else(|| malformed("`registry` is not a list of tables".into()))?;
    let string = |table: &Table, key: &str| match table.get(key) {
        None => Ok(String::new()),
        Some(value) => value.as_str().map(str::to_owned).ok_or_else(|| malformed(format!("`{key}` is not a string"))),
    };
    let flag = |table: &Table, key: &str| match table.get(key) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| malformed(format!("`{key}` is neither true nor false"))),
    };
    let mut registries = Vec::new();
    for table in tables {
        let (prefix, location) = (string(table, "prefix")?, string(table, "location")?);
        if prefix.is_empty() && location.is_empty() {
            return Err(malformed("a registry has neither `prefix` nor `location`".into()));
        }
        let mut mirrors = Vec::new();
        for mirror in table.get("mirror").and_then(|mirrors| mirrors.as_array_of_tables()).into_iter().flatten() {
            mirrors.push(Mirror {
                location: string(mirror, "location")?,
                insecure: flag(mirror, "insecure")?,
                pulls: string(mirror, "pull-from-mirror")?,
            });
        }
        registries.push(Registry {
            file: path.to_owned(),
            prefix: if prefix.is_empty() { location.clone() } else { prefix },
            location,
            insecure: flag(table, "insecure")?,
            blocked: flag(table, "blocked")?,
            mirrors,
            mirrors_by_digest_only: flag(table, "mirror-by-digest-only")?,
        });
    }
    Ok(registries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(text: &str, name: &str) -> Vec<String> {
        let registries = Registries(parse(text, Path::new("registries.conf")).unwrap());
        let found = registries.for_pull(&ImageName::parse(name).unwrap()).unwrap();
        let shown = |endpoint: &Endpoint| {
            format!("{}{}/{}", if endpoint.insecure { "!" } else { "" }, endpoint.registry, endpoint.repository)
        };
        found.iter().map(shown).collect()
    }

    #[test]
    fn name_is_found_in_mirrors_and_then_in_its_location() {
        let text = r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.example/hub"
            insecure = true
            [[registry.mirror]]
            location = "digests.example"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "r.example/team"
            location = "other.example:5000/x"
            [[registry]]
            prefix = "r.example"
            insecure = true
            [[registry]]
            prefix = "*.wide.example"
        "#;
        assert_eq!(endpoints(text, "alpine"), ["!mirror.example/hub/library/alpine", "docker.io/library/alpine"]);
        let digest = format!("alpine@sha256:{}", "0".repeat(64));
        assert_eq!(endpoints(text, &digest).len(), 3);
        assert_eq!(endpoints(text, "r.example/team/app:1"), ["other.example:5000/x/app"]);
        assert_eq!(endpoints(text, "r.example/teams/app"), ["!r.example/teams/app"]);
        assert_eq!(endpoints(text, "a.wide.example/app"), ["a.wide.example/app"]);
        assert_eq!(endpoints(text, "quay.io/x/y"), ["quay.io/x/y"]);
        let push = Registries(parse(text, Path::new("x")).unwrap());
        let push = push.for_push(&ImageName::parse("alpine").unwrap()).unwrap();
        assert_eq!((push.registry.as_str(), push.insecure), ("docker.io", false));
    }

    #[test]
    fn blocked_registry_is_an_error() {
        let text = "[[registry]]\nprefix='r.example'\n[[registry]]\nprefix='r.example/bad'\nblocked=true";
        let registries = Registries(parse(text, Path::new("/f")).unwrap());
        let error = registries.for_pull(&ImageName::parse("r.example/bad/x").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "/f blocks r.example/bad");
        assert!(registries.for_pull(&ImageName::parse("r.example/x").unwrap()).is_ok());
    }

    #[test]
    fn malformed_files_are_errors() {
        for text in
            ["[", "registry=1", "[[registry]]", "[[registry]]\nprefix=1", "[[registry]]\nprefix='a'\nblocked='x'"]
        {
            assert!(matches!(parse(text, Path::new("f")), Err(RegistriesError::Malformed { .. })), "{text}");
        }
        assert!(parse("[registries.search]\nregistries=['docker.io']", Path::new("f")).unwrap().is_empty());
    }
}

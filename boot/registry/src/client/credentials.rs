// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Credentials of a registry, from the files that `docker login` and `podman login` write, and from
//! the helper programs that these files name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MAX_FILE_SIZE: u64 = 4 << 20;
/// The key of docker's own registry in docker's file.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is malformed")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{path} has a malformed `auth`")]
    Auth { path: PathBuf },
    #[error("invalid credential helper `{0}`")]
    HelperName(String),
    #[error("cannot run credential helper {program}")]
    Helper { program: String, source: io::Error },
    #[error("credential helper {program} fails: {message}")]
    HelperFails { program: String, message: String },
    #[error("the answer of credential helper {program} is malformed")]
    HelperAnswer { program: String },
}

/// The files that may have credentials, in the order in which they are looked at.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<PathBuf>,
    /// Whether the first file must exist.
    required: bool,
}

/// What is sent for one registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// `user:password`, in base64.
    Basic(String),
    /// An OAuth2 refresh token.
    IdentityToken(String),
}

impl Login {
    pub(crate) fn basic(&self) -> Option<&str> {
        match self {
            Self::Basic(basic) => Some(basic),
            Self::IdentityToken(_) => None,
        }
    }
}

/// Secrets are not printed.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

impl Credentials {
    /// Looks in `files`, in their order.
    #[must_use]
    pub fn in_files(files: Vec<PathBuf>) -> Self {
        Self { files, required: false }
    }

    /// `$REGISTRY_AUTH_FILE`, or podman's and docker's files.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::of(|name| std::env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty()))
    }

    fn of(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        if let Some(file) = variable("REGISTRY_AUTH_FILE") {
            return Self { files: vec![file], required: true };
        }
        let home = variable("HOME");
        let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let files = [
            variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
            variable("XDG_CONFIG_HOME").or_else(|| below_home(".config")).map(|path| path.join("containers/auth.json")),
            variable("DOCKER_CONFIG").or_else(|| below_home(".docker")).map(|directory| directory.join("config.json")),
        ];
        Self::in_files(files.into_iter().flatten().collect())
    }

    /// Returns the first credentials for a repository, or none.
    pub(crate) fn find(&self, registry: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        for path in &self.files {
            let Some(document) = self.read(path)? else { continue };
            if let Some(login) = document.find(path, registry, repository)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    fn read(&self, path: &Path) -> Result<Option<Document>, CredentialsError> {
        let read = |source| CredentialsError::Read { path: path.to_owned(), source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.required => return Ok(None),
            // Another user's home, as with sudo.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !self.required => return Ok(None),
            other => other.map_err(read)?,
        };
        let mut text = Vec::new();
        file.take(MAX_FILE_SIZE).read_to_end(&mut text).map_err(read)?;
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| CredentialsError::Json { path: path.to_owned(), source })
    }
}

impl Document {
    fn find(&self, path: &Path, registry: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        let keys = keys(registry, repository);
        if let Some((key, helper)) = keys.iter().find_map(|key| Some((key, self.cred_helpers.get(key)?))) {
            return run_helper(helper, key);
        }
        let matching = |key: &String| self.auths.iter().find(|(name, _)| *name == key || host_of(name) == *key);
        for (name, entry) in keys.iter().filter_map(matching) {
            if let Some(login) = entry.login(path)? {
                return Ok(Some(login));
            }
            // An empty entry says that the store has it.
            if !self.creds_store.is_empty() {
                return run_helper(&self.creds_store, name);
            }
        }
        if self.creds_store.is_empty() {
            return Ok(None);
        }
        let key = if registry == "docker.io" { DOCKER_HUB_KEY } else { registry };
        run_helper(&self.creds_store, key)
    }
}

/// The keys of a repository, the most specific one first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = Some(repository);
    while let Some(here) = path {
        keys.push(format!("{registry}/{here}"));
        path = here.rsplit_once('/').map(|(parent, _)| parent);
    }
    keys.push(registry.to_owned());
    if registry == "docker.io" {
        keys.extend([DOCKER_HUB_KEY.to_owned(), "index.docker.io".to_owned(), "registry-1.docker.io".to_owned()]);
    }
    keys
}

/// The host of a key in the form of a URL, as old versions of docker wrote it.
fn host_of(key: &str) -> &str {
    match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => key,
    }
}

impl Entry {
    fn login(&self, path: &Path) -> Result<Option<Login>, CredentialsError> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::IdentityToken(self.identitytoken.clone())));
        }
        if !self.auth.is_empty() {
            let auth = self.auth.trim();
            let decoded = BASE64.decode(auth).ok().filter(|decoded| decoded.contains(&b':'));
            decoded.ok_or_else(|| CredentialsError::Auth { path: path.to_owned() })?;
            return Ok(Some(Login::Basic(auth.to_owned())));
        }
        let has_password = !self.username.is_empty() && !self.password.is_empty();
        Ok(has_password.then(|| Login::of_password(&self.username, &self.password)))
    }
}

impl Login {
    fn of_password(user: &str, password: &str) -> Self {
        Self::Basic(BASE64.encode(format!("{user}:{password}")))
    }
}

/// Asks `docker-credential-NAME` for the credentials of `server`.
fn run_helper(name: &str, server: &str) -> Result<Option<Login>, CredentialsError> {
    // A name is searched in PATH, and is no path.
    if name.contains('/') {
        return Err(CredentialsError::HelperName(name.to_owned()));
    }
    let program = format!("docker-credential-{name}");
    let failed = |source| CredentialsError::Helper { program: program.clone(), source };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut input = child.stdin.take().expect("it is piped");
    // A helper that ends without reading says why in its answer.
    let _ = input.write_all(server.as_bytes());
    drop(input);
    let mut answer = Vec::new();
    let output = child.stdout.take().expect("it is piped");
    let read = output.take(MAX_FILE_SIZE).read_to_end(&mut answer);
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    if !status.success() {
        let message = String::from_utf8_lossy(answer.trim_ascii()).chars().take(200).collect::<String>();
        // The protocol's own words for an unknown server.
        if message.contains("credentials not found") {
            return Ok(None);
        }
        let message = if message.is_empty() { status.to_string() } else { message };
        return Err(CredentialsError::HelperFails { program, message });
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&answer).map_err(|_| CredentialsError::HelperAnswer { program: program.clone() })?;
    Ok(match answer.username.as_str() {
        "" => None,
        "<token>" => Some(Login::IdentityToken(answer.secret)),
        user => Some(Login::of_password(user, &answer.secret)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, registry: &str, repository: &str) -> Option<Login> {
        let document: Document = serde_json::from_str(json).unwrap();
        document.find(Path::new("auth.json"), registry, repository).unwrap()
    }

    #[test]
    fn most_specific_entry_is_used() {
        let auth = |user: &str| BASE64.encode(format!("{user}:p"));
        let json = format!(
            r#"{{"auths":{{"r.example":{{"auth":"{}"}},"r.example/team":{{"auth":"{}"}},"r.example/team/x":{{"auth":"{}"}},
                "https://old.example/v1/":{{"auth":"{}"}},"https://index.docker.io/v1/":{{"auth":"{}"}},
                "plain":{{"username":"u","password":"p"}},"token":{{"identitytoken":"t","auth":"{}"}}}}}}"#,
            auth("host"),
            auth("team"),
            auth("x"),
            auth("old"),
            auth("hub"),
            auth("ignored"),
        );
        let basic = |user: &str| Some(Login::Basic(auth(user)));
        assert_eq!(find(&json, "r.example", "team/x"), basic("x"));
        assert_eq!(find(&json, "r.example", "team/y/z"), basic("team"));
        assert_eq!(find(&json, "r.example", "teams/y"), basic("host"));
        assert_eq!(find(&json, "old.example", "a"), basic("old"));
        assert_eq!(find(&json, "docker.io", "library/alpine"), basic("hub"));
        assert_eq!(find(&json, "plain", "a"), basic("u"));
        assert_eq!(find(&json, "token", "a"), Some(Login::IdentityToken("t".into())));
        assert_eq!(find(&json, "other.example", "a"), None);
    }

    #[test]
    fn files_are_those_of_podman_and_docker() {
        let of = |variables: &'static [(&str, &str)]| {
            Credentials::of(move |name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
            })
        };
        let usual = of(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/u")]);
        let expected = ["/run/u/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"];
        assert_eq!(usual.files, expected.map(PathBuf::from));
        let given = of(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a")]);
        assert_eq!((given.files, given.required), (vec![PathBuf::from("/a")], true));
        assert_eq!(of(&[("DOCKER_CONFIG", "/d")]).files, [PathBuf::from("/d/config.json")]);
    }

    #[test]
    fn malformed_files_are_errors_and_missing_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.json");
        let find = || Credentials::in_files(vec![path.clone()]).find("r", "x");
        assert_eq!(find().unwrap(), None);
        std::fs::write(&path, "").unwrap();
        assert_eq!(find().unwrap(), None);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(find(), Err(CredentialsError::Json { .. })));
        for auth in ["not base64!", "bm9jb2xvbg=="] {
            std::fs::write(&path, format!(r#"{{"auths":{{"r":{{"auth":"{auth}"}}}}}}"#)).unwrap();
            assert!(matches!(find(), Err(CredentialsError::Auth { .. })), "{auth}");
        }
        std::fs::write(&path, r#"{"credHelpers":{"r":"../../bin/sh"}}"#).unwrap();
        assert!(matches!(find(), Err(CredentialsError::HelperName(_))));
        std::fs::write(&path, r#"{"credsStore":"no-such-helper-of-coracle"}"#).unwrap();
        assert!(matches!(find(), Err(CredentialsError::Helper { .. })));
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Login::IdentityToken("secret".into())), "Login");
    }
}

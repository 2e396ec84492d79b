// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Debian's docker-registry behind TLS with a CA of the test's own and with a password: certificates, credentials from files and
//! from a helper program, a proxy, and one that breaks a connection.

use crate::registries::{Options, Registry};
use coracle_tests::{Case, Finished, TestDir, case, images};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Registry], registry_with_a_private_ca_and_a_password_is_used),
        case!(Quick[Registry], registry_behind_a_proxy_is_reached),
        case!(Quick[Registry], push_is_completed_after_a_broken_connection),
    ]
}

/// `user` with the password `secret`, as htpasswd writes it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
/// `user:secret` in base64.
const AUTH: &str = "dXNlcjpzZWNyZXQ=";

/// A CA, and a certificate of it for `localhost` and `registry.test`, in a directory.
struct Certificates(PathBuf);

impl Certificates {
    fn make(directory: PathBuf) -> Certificates {
        fs::create_dir_all(&directory).expect("the test's directory is writable");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30";
        let ca = format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=test-ca");
        let server = format!(
            "req -x509 {key} -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt -subj /CN=localhost \
             -addext subjectAltName=DNS:localhost,DNS:registry.test -addext basicConstraints=critical,CA:FALSE"
        );
        for words in [ca, server] {
            let made = Command::new("openssl").args(words.split_whitespace()).current_dir(&directory).output();
            let made = made.expect("openssl is installed");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        Certificates(directory)
    }

    fn ca(&self) -> PathBuf {
        self.0.join("ca.crt")
    }

    /// A registry with these certificates that wants a password.
    fn registry(&self, dir: &TestDir) -> Registry {
        let htpasswd = dir.write("htpasswd", HTPASSWD);
        let path = |name: &str| self.0.join(name).display().to_string();
        let tls = format!(", tls: {{certificate: {}, key: {}}}", path("server.crt"), path("server.key"));
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", htpasswd.display());
        Registry::start_with(dir, &Options { http: &tls, more: &auth })
    }
}

struct Client<'a> {
    dir: &'a TestDir,
    environment: Vec<(&'static str, String)>,
}

impl Client<'_> {
    fn verb(&self, data: &str, verb: &'static str, arguments: &[&str]) -> Finished {
        let invocation = self.dir.invocation(arguments).verb(verb).env("XDG_DATA_HOME", self.dir.file(data));
        self.environment.iter().fold(invocation, |invocation, (name, value)| invocation.env(name, value)).finish()
    }

    /// Loads the test image under `name`.
    fn load(&self, name: &str) {
        let layout = images().join("busybox").display().to_string();
        let loaded = self.verb("data", "load", &["-i", &layout, "--json"]);
        let loaded: serde_json::Value = serde_json::from_str(&loaded.stdout_text()).expect("it prints JSON");
        self.verb("data", "tag", &[loaded[0]["digest"].as_str().expect("a string"), name]).assert_status(0);
    }
}

fn write_below(directory: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    fs::create_dir_all(directory).expect("the test's directory is writable");
    let path = directory.join(name);
    fs::write(&path, content).expect("the test's directory is writable");
    path
}

fn auth_file(dir: &TestDir, registry: &str) -> String {
    let document = format!(r#"{{"auths":{{"{registry}":{{"auth":"{AUTH}"}}}}}}"#);
    dir.write("auth.json", document).display().to_string()
}

fn registry_with_a_private_ca_and_a_password_is_used() {
    let dir = TestDir::new();
    let certificates = Certificates::make(dir.file("certificates"));
    let registry = certificates.registry(&dir);
    let (authority, name) = (registry.authority(), registry.name("team/one:1"));
    let mut client = Client { dir: &dir, environment: Vec::new() };
    client.load(&name);
    client.verb("data", "push", &[&name]).assert_status(125).assert_one_line_naming(&[&name, "certificate"]);
    let trusted = dir.path().join("home/.config/containers/certs.d").join(&authority);
    fs::create_dir_all(&trusted).expect("the test's directory is writable");
    fs::copy(certificates.ca(), trusted.join("ca.crt")).expect("it was written");
    client.verb("data", "push", &[&name]).assert_status(125).assert_one_line_naming(&[
        &name,
        "access denied",
        "log in",
    ]);

    // A helper of docker's file, which prints what it was asked for in its own words if that is unknown.
    let helper = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = 'get {authority}' ] || {{ echo unexpected $1 $server; exit 1; }}\n\
         echo '{{\"ServerURL\":\"{authority}\",\"Username\":\"user\",\"Secret\":\"secret\"}}'\n"
    );
    let helper = write_below(&dir.file("bin"), "docker-credential-test", helper);
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("it is the test's own");
    let config = format!(r#"{{"credHelpers":{{"{authority}":"test"}}}}"#);
    write_below(&dir.file("docker"), "config.json", config);
    let path = format!("{}:{}", dir.file("bin").display(), std::env::var("PATH").unwrap_or_default());
    client.environment = vec![("DOCKER_CONFIG", dir.file("docker").display().to_string()), ("PATH", path)];
    client.verb("data", "push", &[&name]).assert_status(0);

    client.environment = vec![("REGISTRY_AUTH_FILE", auth_file(&dir, &authority))];
    client.verb("other", "pull", &[&name]).assert_status(0);
    let wrong = format!(r#"{{"auths":{{"{authority}":{{"username":"user","password":"wrong"}}}}}}"#);
    client.environment = vec![("REGISTRY_AUTH_FILE", dir.write("wrong.json", wrong).display().to_string())];
    client.verb("third", "pull", &[&name]).assert_status(125).assert_one_line_naming(&[&name, "access denied"]);
    // Another file of trusted certificates in place of the host's; and none checked.
    fs::remove_dir_all(trusted).expect("it is the test's own");
    let auth = auth_file(&dir, &authority);
    client.environment = vec![("REGISTRY_AUTH_FILE", auth), ("SSL_CERT_FILE", certificates.ca().display().to_string())];
    client.verb("third", "pull", &[&name]).assert_status(0);
    client.environment.pop();
    client.verb("fourth", "pull", &[&name]).assert_status(125).assert_one_line_naming(&[&name, "certificate"]);
    client.verb("fourth", "pull", &["--tls-verify=false", &name]).assert_status(0);

    // Another place, by a mirror and after one that does not answer.
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let conf = format!(
        "[[registry]]\nprefix = 'registry.test/apps'\nlocation = 'no.such.host.test/apps'\n\
         [[registry.mirror]]\nlocation = '{gone}/x'\n\
         [[registry.mirror]]\nlocation = '{authority}/team'\ninsecure = true\n\
         [[registry]]\nprefix = 'moved.test'\nlocation = '{authority}/team'\ninsecure = true\n\
         [[registry]]\nlocation = 'blocked.test'\nblocked = true\n"
    );
    let conf = dir.write("registries.conf", conf).display().to_string();
    client.environment.push(("CONTAINERS_REGISTRIES_CONF", conf.clone()));
    client.verb("fifth", "pull", &["registry.test/apps/one:1"]).assert_status(0);
    client.verb("fifth", "pull", &["moved.test/one:1"]).assert_status(0);
    client.verb("fifth", "push", &["moved.test/one:1", "moved.test/two:1"]).assert_status(0);
    client.verb("fifth", "pull", &["moved.test/two:1"]).assert_status(0);
    let blocked = client.verb("fifth", "pull", &["blocked.test/one:1"]);
    blocked.assert_status(125).assert_one_line_naming(&["blocked.test/one:1", &conf, "blocks"]);
    fs::write(&conf, "[[registry]").expect("it is the test's own");
    client
        .verb("fifth", "pull", &["moved.test/one:1"])
        .assert_status(125)
        .assert_one_line_naming(&[&conf, "malformed"]);
}

/// Serves each connection with `relay`, until the test process ends.
fn listen(relay: impl Fn(&TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let relay = Arc::new(relay);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let relay = relay.clone();
            // Either side closes connections as it likes.
            std::thread::spawn(move || drop(relay(&client)));
        }
    });
    address
}

/// A proxy that connects every host to `target`, and records what it is asked for.
fn proxy(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = requests.clone();
    (listen(move |client| relay(client, target, &log)), requests)
}

fn relay(mut client: &TcpStream, target: SocketAddr, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    // Unbuffered behind the head: what follows is TLS.
    let mut head = BufReader::with_capacity(1, client);
    let mut first = String::new();
    head.read_line(&mut first)?;
    log.lock().expect("no thread panics with it").push(first.trim_end().to_owned());
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    pass_on(client, &server, u64::MAX, || false)
}

/// Passes bytes on in both directions. Once the client has sent `limit` bytes, the connection ends if `breaks`.
fn pass_on(
    mut client: &TcpStream,
    mut server: &TcpStream,
    limit: u64,
    breaks: impl FnOnce() -> bool + Send,
) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let passed = copy(&mut client.take(limit), &mut &*server);
            if passed.is_ok_and(|bytes| bytes == limit) {
                if breaks() {
                    let _ = client.shutdown(Shutdown::Both);
                    return server.shutdown(Shutdown::Both);
                }
                copy(&mut &*client, &mut &*server)?;
            }
            server.shutdown(Shutdown::Write)
        });
        copy(&mut server, &mut client)?;
        client.shutdown(Shutdown::Write)
    })
}

fn registry_behind_a_proxy_is_reached() {
    let dir = TestDir::new();
    let certificates = Certificates::make(dir.file("certificates"));
    let registry = certificates.registry(&dir);
    let (address, requests) = proxy(registry.address());
    // A name that only the proxy resolves.
    let name = "registry.test/team/one:1";
    let mut client = Client {
        dir: &dir,
        environment: vec![
            ("REGISTRY_AUTH_FILE", auth_file(&dir, "registry.test")),
            ("SSL_CERT_FILE", certificates.ca().display().to_string()),
            ("HTTPS_PROXY", format!("http://{address}")),
        ],
    };
    client.load(name);
    client.verb("data", "push", &[name]).assert_status(0);
    client.verb("other", "pull", &[name]).assert_status(0);
    let seen = requests.lock().expect("no thread panics with it").clone();
    assert!(!seen.is_empty() && seen.iter().all(|line| line.starts_with("CONNECT registry.test:443 ")), "{seen:?}");
    client.environment.push(("NO_PROXY", "other.test,.test".into()));
    client.verb("third", "pull", &[name]).assert_status(125).assert_one_line_naming(&[name]);
    assert_eq!(requests.lock().expect("no thread panics with it").len(), seen.len(), "no request goes to the proxy");
}

/// The registry keeps nothing of a request that breaks off (docker's before version 3). One that does is in
/// `boot/registry/tests/uploads`.
fn push_is_completed_after_a_broken_connection() {
    /// Less than the image's layer has.
    const LIMIT: u64 = 100_000;
    let dir = TestDir::new();
    let registry = Registry::start(&dir);
    let (target, breaks) = (registry.address(), Arc::new(AtomicU32::new(0)));
    let broken = breaks.clone();
    let address = listen(move |client| {
        let is_first = || broken.fetch_add(1, Ordering::SeqCst) == 0;
        pass_on(client, &TcpStream::connect(target)?, LIMIT, is_first)
    });
    let name = format!("localhost:{}/team/one:1", address.port());
    let client = Client { dir: &dir, environment: Vec::new() };
    client.load(&name);
    client.verb("data", "push", &[&name]).assert_status(0);
    assert!(breaks.load(Ordering::SeqCst) > 1, "a connection was broken, and its bytes were sent again");
    client.verb("other", "pull", &[&name]).assert_status(0);
    client.verb("other", "image", &["check"]).assert_status(0);
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--metadata`: what the guest finds at 169.254.169.254, and documents that cannot be served.

use coracle_tests::{Case, TestDir, case, image};
use std::fs;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, metadata_is_served_by_token_without_a_network),
        case!(Quick[Kvm], metadata_that_cannot_be_served_is_rejected),
    ]
}

/// Prints the text at a path of the metadata, with a new token: busybox has no PUT but in `nc`.
pub(crate) const GET: &str = r#"get() {
    token=$(printf 'PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n' |
        nc 169.254.169.254 80 | tail -n 1)
    wget -qO- --header "X-aws-ec2-metadata-token: $token" "http://169.254.169.254$1"
}
"#;

fn metadata_is_served_by_token_without_a_network() {
    let dir = TestDir::new();
    let file = dir.file("metadata.json");
    let data = "a line of user data\n".repeat(2000);
    let document = format!(
        r#"{{"latest": {{"meta-data": {{"instance-id": "i-7", "security-groups": ["web", "db"], "placement": {{"zone": "a"}}}},
        "user-data": {}}}}}"#,
        serde_json::to_string(&data).expect("text is JSON")
    );
    fs::write(&file, document).expect("the directory is writable");
    // 20 requests in a row are more than the service has sockets; two at a time share it.
    let script = GET.to_owned()
        + r#"get /latest/meta-data/; echo; get /latest/meta-data/security-groups; echo
        get /latest/user-data > /tmp/one & get /latest/user-data > /tmp/two; wait
        cmp /tmp/one /tmp/two && sort -u /tmp/two && wc -l < /tmp/two
        wget -qO- http://169.254.169.254/latest/ 2>&1 | grep -o 401
        for i in $(seq 20); do wget -qO- http://169.254.169.254/ || echo $i; done 2> /dev/null | tail -n 1"#;
    let options = ["--network", "none", "--metadata", &file.to_string_lossy(), &image("busybox"), "sh", "-c", &script];
    let run = dir.invocation(&options).verb("run").finish();
    run.assert_status(0);
    let listing = "instance-id\nplacement/\nsecurity-groups\nweb\ndb\n";
    run.assert_stdout(&format!("{listing}a line of user data\n2000\n401\n20\n"));
}

fn metadata_that_cannot_be_served_is_rejected() {
    let dir = TestDir::new();
    for (name, text, message) in [
        ("absent", None, "No such file"),
        ("text", Some("hello".to_owned()), "not JSON"),
        ("array", Some("[]".to_owned()), "not a JSON object"),
        ("key", Some(r#"{"latest": {"a/b": 1}}"#.to_owned()), "key `a/b`"),
        ("nested", Some(r#"{"a": [{}]}"#.to_owned()), "`a`: an array"),
        ("large", Some(format!(r#"{{"a": "{}"}}"#, "x".repeat(64 << 10))), "larger than 65536 bytes"),
    ] {
        let file = dir.file(name);
        if let Some(text) = text {
            fs::write(&file, text).expect("the directory is writable");
        }
        let path = file.to_string_lossy();
        let options = ["--network", "none", "--metadata", &path, &image("busybox"), "true"];
        for verb in ["run", "check"] {
            let finished = dir.invocation(&options).verb(verb).finish();
            finished.assert_status(125);
            let named = format!("coracle: --metadata {path}: ");
            let lines: Vec<_> = finished.stderr.lines().filter(|line| line.starts_with(&named)).collect();
            assert!(matches!(&*lines, [line] if line.contains(message)), "{}", finished.report());
        }
    }
}

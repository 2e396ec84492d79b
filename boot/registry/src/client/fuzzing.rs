// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What must hold for every answer of a registry: the fuzz target `image` (tests/fuzz) feeds this. No part of the product.

use super::challenge::Challenge;
use super::http::Url;

/// Reads `bytes` as the header WWW-Authenticate, as a URL and as a document with an error.
///
/// # Panics
/// Something is not as it must be.
pub fn answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    check_url(&text);
    for challenge in Challenge::parse_all([&*text]) {
        if let Challenge::Bearer(bearer) = challenge {
            check_url(&bearer.realm);
        }
    }
    if let Some(message) = super::message(bytes) {
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
}

fn check_url(text: &str) {
    let Ok(url) = Url::parse(text) else { return };
    assert!(!url.shown().chars().any(char::is_control), "{url:?}");
    let joined = url.join("/v2/").expect("only the path differs");
    assert!(joined.is_same_server(&url) && joined.is_loopback() == url.is_loopback(), "{url:?}");
    if let Ok(queried) = url.with_query("scope=a%3Ab") {
        assert!(queried.is_same_server(&url), "{url:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::answer;

    #[test]
    fn answers_that_end_anywhere_are_read() {
        for text in [
            r#"Bearer realm="https://a.example:5000/token?x=\"y\"",service="s",scope="repository:a/b:pull", Basic realm=x"#,
            r#"{"errors":[{"code":"DENIED","message":"requested\naccess"}]}"#,
            "http://[::ffff:127.0.0.1]:5000/v2/a/manifests/latest?x=y#z",
        ] {
            (0..=text.len()).for_each(|end| answer(&text.as_bytes()[..end]));
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header WWW-Authenticate (RFC 9110, section 11.6.1) as registries use it. Pure.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Bearer(Bearer),
    Basic,
}

/// Where a token is had, and what for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub realm: String,
    pub service: Option<String>,
    pub scope: Option<String>,
}

impl Challenge {
    /// Returns the challenges that are known, in their order. A header may hold several.
    pub(crate) fn parse_all<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        headers.into_iter().flat_map(parse).collect()
    }
}

fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header.trim();
    while let Some((scheme, after)) = word(rest) {
        let (parameters, more) = parameters(after.trim_start());
        rest = more.trim_start_matches([',', ' ', '\t']);
        let find = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        match &*scheme {
            "basic" => challenges.push(Challenge::Basic),
            "bearer" => challenges.extend(
                find("realm")
                    .map(|realm| Challenge::Bearer(Bearer { realm, service: find("service"), scope: find("scope") })),
            ),
            _ => {}
        }
    }
    challenges
}

/// A token, in lower case, and the text behind it.
fn word(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_ascii_lowercase(), &text[end..]))
}

/// `name=value` pairs, separated by commas, and the text behind them.
fn parameters(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let Some((name, after)) = word(text) else { return (found, text) };
        let Some(value) = after.trim_start().strip_prefix('=') else { return (found, text) };
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => match quoted_string(quoted) {
                Some(parsed) => parsed,
                None => return (found, ""),
            },
            None => {
                let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        found.push((name, value));
        text = match after.trim_start().strip_prefix(',') {
            Some(more) => more.trim_start(),
            None => return (found, after),
        };
    }
}

/// The content of a quoted string, and the text behind it.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &text[at + 1..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer(Bearer { realm: realm.to_owned(), service: own(service), scope: own(scope) })
    }

    #[test]
    fn challenges_of_registries_are_read() {
        let docker =
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b:pull,push""#;
        let with_scope = bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("a:b:pull,push"));
        for (header, expected) in [
            (docker, vec![with_scope]),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            ("BEARER realm=https://x/t", vec![bearer("https://x/t", None, None)]),
            (
                r#"Negotiate, Basic realm="a, b", Bearer realm="r\"q""#,
                vec![Challenge::Basic, bearer("r\"q", None, None)],
            ),
            ("Bearer service=x", vec![]),
            (r#"Bearer realm="open"#, vec![]),
            ("", vec![]),
            ("=,=\"\"", vec![]),
        ] {
            assert_eq!(Challenge::parse_all([header]), expected, "{header}");
        }
    }
}

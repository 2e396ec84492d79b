// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which proxy a request takes, by the environment, as Go's programs decide it: `HTTPS_PROXY` or
//! `HTTP_PROXY` by the scheme, then `ALL_PROXY`, each in lower case too; `NO_PROXY` lists exceptions; a
//! host's own addresses never take one. Pure but for the environment.

use super::http::Url;

/// Returns the proxy for `url`.
pub(super) fn proxy_for(url: &Url, environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    let value = |name: &str| {
        let lower = environment(&name.to_ascii_lowercase()).filter(|value| !value.is_empty());
        environment(name).filter(|value| !value.is_empty()).or(lower)
    };
    if url.is_loopback() || value("NO_PROXY").is_some_and(|list| excludes(&list, url)) {
        return None;
    }
    let scheme = if url.is_https() { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let proxy = value(scheme).or_else(|| value("ALL_PROXY"))?;
    Some(if proxy.contains("://") { proxy } else { format!("http://{proxy}") })
}

/// Whether `list` has the host: `*`, a host, or a domain with all hosts in it; each with a port or
/// for any.
fn excludes(list: &str, url: &Url) -> bool {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let (entry, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (host, Some(port))
            }
            _ => (entry, None),
        };
        let domain = entry.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
        let host = url.host().to_ascii_lowercase();
        let inside = host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'));
        let is_host = entry == "*" || host == domain || inside;
        is_host && port.is_none_or(|port| port.parse() == Ok(url.port()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        proxy_for(&Url::parse(url).unwrap(), find)
    }

    #[test]
    fn proxy_is_chosen_by_the_scheme() {
        let both = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2")];
        assert_eq!(proxy("https://x.example/", &both).as_deref(), Some("http://s:1"));
        assert_eq!(proxy("http://x.example/", &both).as_deref(), Some("http://p:2"));
        assert_eq!(proxy("https://x.example/", &[("ALL_PROXY", "a:3")]).as_deref(), Some("http://a:3"));
        assert_eq!(proxy("https://x.example/", &[("HTTPS_PROXY", "")]), None);
        assert_eq!(proxy("https://localhost:5000/", &both), None);
        assert_eq!(proxy("http://127.0.0.2:5000/", &both), None);
        assert_eq!(proxy("http://[::1]:5000/", &both), None);
    }

    #[test]
    fn no_proxy_lists_hosts_and_domains() {
        for (list, excluded) in [
            ("*", true),
            ("r.x.example", true),
            ("x.example", true),
            (".x.example", true),
            ("*.x.example", true),
            ("R.X.example:443", true),
            ("r.x.example:444", false),
            ("other, x.example", true),
            ("example.org", false),
            ("r.x.exam", false),
            ("x.exampl", false),
            ("", false),
        ] {
            let found = proxy("https://r.x.example/", &[("HTTPS_PROXY", "p:1"), ("no_proxy", list)]);
            assert_eq!(found.is_none(), excluded, "{list}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tokens of a registry's authorization service (distribution project, "Token Authentication
//! Specification" and "Oauth2 Token Authentication").

use super::challenge::Bearer;
use super::credentials::Login;
use super::http::{Http, HttpError, Method, Request, Url};
use super::{ClientError, MAX_DOCUMENT_SIZE};
use serde::Deserialize;

const CLIENT_ID: &str = "coracle";

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// Gets a token for `scopes`. Credentials go to the service that the registry names, which must not
/// be less protected than the registry.
pub(super) fn fetch(
    http: &Http,
    registry: &Url,
    bearer: &Bearer,
    scopes: &[&str],
    login: Option<&Login>,
) -> Result<Option<String>, ClientError> {
    let realm = Url::parse(&bearer.realm)?;
    if registry.is_https() && !realm.is_https() {
        return Err(HttpError::Downgrade { url: realm.shown() }.into());
    }
    let mut fields: Vec<(&str, &str)> = scopes.iter().map(|scope| ("scope", *scope)).collect();
    let all = scopes.join(" ");
    if matches!(login, Some(Login::IdentityToken(_))) {
        fields = vec![("scope", &all)];
    }
    fields.extend(bearer.service.as_deref().map(|service| ("service", service)));
    let request = match login {
        Some(Login::IdentityToken(token)) => {
            fields.extend([("client_id", CLIENT_ID), ("grant_type", "refresh_token"), ("refresh_token", token)]);
            let method = Method::PostForm(encode(&fields));
            Request { method, url: realm, accept: &[], authorization: None, start: 0 }
        }
        login => {
            let authorization = login.and_then(Login::basic).map(|basic| format!("Basic {basic}"));
            let url = realm.with_query(&encode(&fields))?;
            Request { method: Method::Get, url, accept: &[], authorization, start: 0 }
        }
    };
    let mut response = http.send(&request)?;
    let host = request.url.host().to_owned();
    let status = response.status;
    let body = response.read_all(MAX_DOCUMENT_SIZE)?;
    let detail = super::message(&body).map(|message| format!(" ({message})")).unwrap_or_default();
    match status {
        200 => {}
        401 | 403 => return Err(ClientError::Denied { registry: host, detail }),
        429 => return Err(ClientError::TooManyRequests { registry: host, detail }),
        status => return Err(ClientError::Status { registry: host, status, detail }),
    }
    let malformed = |detail| ClientError::Malformed { registry: host.clone(), detail };
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| malformed("the token is not JSON"))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    // It becomes a header.
    match token {
        Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => Err(malformed("the token is no header")),
        token => Ok(token),
    }
}

/// Fields of a form or a query.
fn encode(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                byte => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_percent_encoded() {
        let fields = [("scope", "repository:a/b:pull"), ("service", "x&y=z"), ("o", "é")];
        assert_eq!(encode(&fields), "scope=repository%3Aa%2Fb%3Apull&service=x%26y%3Dz&o=%C3%A9");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OpenNebula's context.sh: assignments of quoted values to variables. It is read and never executed. Pure.

use super::{Context, ContextError, ContextInterface, script_of, words};
use crate::config::environment::EnvVar;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const FILE: &str = "context.sh";

pub(super) fn parse(text: &str) -> Result<Context, ContextError> {
    let variables = assignments(text)?;
    let value = |name: &str| variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let mut context = Context { hostname: value("SET_HOSTNAME").map(str::to_owned), ..Context::default() };
    context.servers.extend(words::<IpAddr>(FILE, "DNS", value("DNS"))?);
    context.search.extend(words::<String>(FILE, "SEARCH_DOMAIN", value("SEARCH_DOMAIN"))?);
    let mut numbers: Vec<u16> = variables.keys().filter_map(|name| interface_number(name)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        context.interfaces.push(interface(number, &value)?);
        let [servers, search] = ["DNS", "SEARCH_DOMAIN"].map(|name| format!("ETH{number}_{name}"));
        context.servers.extend(words::<IpAddr>(FILE, &servers, value(&servers))?);
        context.search.extend(words::<String>(FILE, &search, value(&search))?);
    }
    context.keys = value("SSH_PUBLIC_KEY").into_iter().flat_map(str::lines).map(str::to_owned).collect();
    let encoded = value("START_SCRIPT_BASE64").map(|text| text.split_whitespace().collect::<String>());
    context.script = match encoded {
        Some(encoded) => {
            let invalid = || ContextError::Value(FILE, "START_SCRIPT_BASE64".into(), "not base64".into());
            let bytes = STANDARD.decode(encoded).map_err(|_| invalid())?;
            Some(script_of(String::from_utf8(bytes).map_err(|_| invalid())?)?)
        }
        None => value("START_SCRIPT").map(|script| script_of(script.to_owned())).transpose()?,
    };
    for (name, value) in variables {
        let variable: EnvVar =
            format!("{name}={value}").parse().map_err(|error| ContextError::Value(FILE, name, format!("{error}")))?;
        context.variables.push(variable);
    }
    Ok(context)
}

/// 7 of `ETH7_MAC`.
fn interface_number(name: &str) -> Option<u16> {
    let (number, _) = name.strip_prefix("ETH")?.split_once('_')?;
    number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn interface<'a>(number: u16, value: &impl Fn(&str) -> Option<&'a str>) -> Result<ContextInterface, ContextError> {
    let name = |suffix: &str| format!("ETH{number}_{suffix}");
    let get = |suffix: &str| value(&name(suffix));
    let invalid = |suffix: &str| {
        let given = get(suffix).unwrap_or_default();
        ContextError::Value(FILE, name(suffix), format!("invalid value '{given}'"))
    };
    let mut interface = ContextInterface {
        mac: get("MAC").map(|text| text.parse().map_err(|_| invalid("MAC"))).transpose()?,
        mtu: get("MTU").map(|text| text.parse().map_err(|_| invalid("MTU"))).transpose()?,
        ..ContextInterface::default()
    };
    match get("METHOD") {
        Some("dhcp") => interface.dhcp4 = true,
        Some("skip") => {}
        _ => {
            if let Some(text) = get("IP") {
                let address: Ipv4Addr = text.parse().map_err(|_| invalid("IP"))?;
                let mask = get("MASK").unwrap_or("255.255.255.0");
                let prefix = prefix_length(mask).ok_or_else(|| invalid("MASK"))?;
                interface.addresses.push((address.into(), prefix));
                if let Some(text) = get("GATEWAY") {
                    let gateway: Ipv4Addr = text.parse().map_err(|_| invalid("GATEWAY"))?;
                    interface.gateways.push(gateway.into());
                }
            }
        }
    }
    if let Some(text) = get("IP6") {
        let address: std::net::Ipv6Addr = text.parse().map_err(|_| invalid("IP6"))?;
        let prefix = get("IP6_PREFIX_LENGTH").unwrap_or("64");
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 128).ok_or_else(|| invalid("IP6_PREFIX_LENGTH"))?;
        interface.addresses.push((address.into(), prefix));
        let suffix = if get("IP6_GATEWAY").is_some() { "IP6_GATEWAY" } else { "GATEWAY6" };
        if let Some(text) = get(suffix) {
            let gateway: std::net::Ipv6Addr = text.parse().map_err(|_| invalid(suffix))?;
            interface.gateways.push(gateway.into());
        }
    }
    Ok(interface)
}

/// Of a dotted mask.
pub(super) fn prefix_length(mask: &str) -> Option<u8> {
    let bits = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    let ones = bits.leading_ones();
    (bits.count_ones() == ones).then_some(ones as u8)
}

/// The variables of `NAME='VALUE'` lines. A value may have several lines; `'\''` is a quote in it. Nothing else of a shell's syntax is
/// known but comments, `export`, double quotes without expansions, and plain words.
fn assignments(text: &str) -> Result<BTreeMap<String, String>, ContextError> {
    let mut variables = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(variables);
        }
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let invalid = || ContextError::Syntax(FILE, line);
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        let (name, after) = rest.split_once('=').ok_or_else(invalid)?;
        let name = name.strip_prefix("export ").unwrap_or(name).trim_start();
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(invalid());
        }
        let (value, after) = word(after).ok_or_else(invalid)?;
        variables.insert(name.to_owned(), value);
        rest = after;
    }
}

/// A word of a shell up to the end of its line, without expansions, and what follows it.
fn word(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let Some(first) = rest.chars().next() else { return Some((value, "")) };
        rest = &rest[first.len_utf8()..];
        match first {
            '\'' => {
                let (quoted, after) = rest.split_once('\'')?;
                value.push_str(quoted);
                rest = after;
            }
            '"' => loop {
                let next = rest.chars().next()?;
                rest = &rest[next.len_utf8()..];
                match next {
                    '"' => break,
                    '$' | '`' => return None,
                    '\\' => {
                        let escaped = rest.chars().next()?;
                        rest = &rest[escaped.len_utf8()..];
                        if !matches!(escaped, '"' | '\\' | '$' | '`') {
                            value.push('\\');
                        }
                        value.push(escaped);
                    }
                    other => value.push(other),
                }
            },
            '\\' => {
                let escaped = rest.chars().next().filter(|c| *c != '\n')?;
                rest = &rest[escaped.len_utf8()..];
                value.push(escaped);
            }
            ' ' | '\t' | '\r' | '\n' => {
                let (end, after) = rest.split_once('\n').unwrap_or((rest, ""));
                return match first {
                    '\n' => Some((value, rest)),
                    _ => end.trim().is_empty().then_some((value, after)),
                };
            }
            c if c.is_alphanumeric() || "_./:@%+,-=".contains(c) => value.push(c),
            _ => return None,
        }
    }
}

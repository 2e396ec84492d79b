// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The query of `GET /v1/logs`: docker's parameters, with docker's forms of their values. RFC 3986,
//! 2.1 and 3.4. Pure.

use super::connection::Response;
use crate::config::moment::Moment;
use crate::config::number::Tail;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bound of `tail`: the times of so many lines are kept while the log is searched.
const MAX_TAIL_LINES: usize = 1 << 16;

/// Which records of the logs, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogsQuery {
    /// Continue until the machine ends.
    pub(crate) follow: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Each line begins with the time of its first byte.
    pub(crate) timestamps: bool,
    /// Lines before this time are left out.
    pub(crate) since: Option<SystemTime>,
    /// Lines after this time are left out.
    pub(crate) until: Option<SystemTime>,
    /// Begin so many lines before the end.
    pub(crate) tail: Option<usize>,
}

impl LogsQuery {
    /// An empty query means the complete log.
    pub(super) fn parse(text: &str) -> Result<Self, Response> {
        let error = |message: String| Response::error(400, &message);
        let Some(pairs) = pairs(text) else {
            return Err(error(format!("query `{text}`: invalid percent-escape")));
        };
        let (mut stdout, mut stderr) = (None, None);
        let mut logs =
            Self { follow: false, stdout: true, stderr: true, timestamps: false, since: None, until: None, tail: None };
        for (name, value) in pairs {
            let not = |form: &str| error(format!("{name}: `{}` is not {form}", value.as_deref().unwrap_or_default()));
            let flag = || match value.as_deref() {
                None | Some("1" | "true") => Ok(true),
                Some("0" | "false") => Ok(false),
                Some(_) => Err(not("true or false")),
            };
            // Docker's clients send 0 for "not given".
            let moment = || match value.as_deref().unwrap_or_default().parse::<Moment>().map(Moment::time) {
                Ok(UNIX_EPOCH) => Ok(None),
                Ok(time) => Ok(Some(time)),
                Err(cause) => Err(error(format!("{name}: {cause}"))),
            };
            match &*name {
                "follow" => logs.follow = flag()?,
                "stdout" => stdout = Some(flag()?),
                "stderr" => stderr = Some(flag()?),
                "timestamps" => logs.timestamps = flag()?,
                "since" => logs.since = moment()?,
                "until" => logs.until = moment()?,
                "tail" => {
                    let tail = value.as_deref().unwrap_or_default().parse().ok().map(Tail::lines);
                    logs.tail = tail
                        .filter(|lines| lines.is_none_or(|lines| lines <= MAX_TAIL_LINES))
                        .ok_or_else(|| not(&format!("all or a number up to {MAX_TAIL_LINES}")))?;
                }
                other => return Err(error(format!("unknown parameter `{other}`"))),
            }
        }
        // As in docker, naming one stream selects it alone; naming none selects both.
        if stdout.is_some() || stderr.is_some() {
            (logs.stdout, logs.stderr) = (stdout.unwrap_or(false), stderr.unwrap_or(false));
        }
        match &logs {
            Self { stdout: false, stderr: false, .. } => Err(error("stdout or stderr must be true".into())),
            Self { follow: true, until: Some(_), .. } => Err(error("until cannot be used with follow".into())),
            _ => Ok(logs),
        }
    }
}

/// Names and values of `query`; a name alone has no value. `None` if a percent-escape is invalid.
fn pairs(query: &str) -> Option<Vec<(String, Option<String>)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Some((decode(name)?, Some(decode(value)?))),
            None => Some((decode(pair)?, None)),
        })
        .collect()
}

/// Replaces percent-escapes. A plus stays: it is part of times with an offset.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn pairs_may_lack_values_and_have_escapes() {
        let parsed = pairs("follow&since=2026-11-22T10%3a00:00%2B01:00&&tail=").unwrap();
        let parsed: Vec<_> = parsed.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        assert_eq!(parsed, [("follow", None), ("since", Some("2026-11-22T10:00:00+01:00")), ("tail", Some(""))]);
        assert_eq!(pairs("").unwrap(), []);
    }

    #[test]
    fn invalid_percent_escape_is_rejected() {
        for query in ["a=%", "a=%2", "a=%zz", "%=1", "a=%ff"] {
            assert_eq!(pairs(query), None, "{query}");
        }
    }

    #[test]
    fn empty_query_is_the_complete_log() {
        let all = LogsQuery::parse("").unwrap();
        assert!(all.stdout && all.stderr && !all.follow && !all.timestamps);
        assert_eq!((all.since, all.until, all.tail), (None, None, None));
        assert_eq!(LogsQuery::parse("tail=all&since=0&until=0").unwrap(), all);
    }

    #[test]
    fn parameters_are_those_of_docker() {
        let query = "follow=1&stdout=true&timestamps=true&since=1795264496.5&tail=20";
        let logs = LogsQuery::parse(query).unwrap();
        assert!(logs.follow && logs.stdout && !logs.stderr && logs.timestamps);
        assert_eq!(logs.since, Some(UNIX_EPOCH + Duration::from_millis(1_795_264_496_500)));
        assert_eq!(logs.tail, Some(20));
        let until = LogsQuery::parse("until=2026-11-21T12:34:56Z").unwrap().until;
        assert_eq!(until, Some(UNIX_EPOCH + Duration::from_secs(1_795_264_496)));
    }

    #[test]
    fn rejection_names_parameter_or_value() {
        for (query, word) in [
            ("colour=red", "colour"),
            ("follow=perhaps", "perhaps"),
            ("since=yesterday", "since"),
            ("tail=-1", "-1"),
            ("tail=65537", "65536"),
            ("stdout=0&stderr=0", "stderr"),
            ("stdout=0", "stderr"),
            ("follow&until=5", "until"),
            ("tail=%", "%"),
        ] {
            let response = LogsQuery::parse(query).unwrap_err();
            let text = String::from_utf8(response.body).unwrap();
            assert!(response.status == 400 && text.contains(word), "{query}: {text}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The query of `GET /v1/logs`: docker's names, and docker's way to write values. Pure.

use super::query;
use super::response::Response;
use crate::config::moment::Moment;
use crate::config::number::Tail;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most lines that `tail` can ask for: the times of so many are kept for a moment.
const TAIL_LINES: usize = 1 << 16;

/// What of the logs, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogsQuery {
    /// Go on until the machine ends.
    pub(crate) follow: bool,
    /// Standard output.
    pub(crate) stdout: bool,
    /// Standard error.
    pub(crate) stderr: bool,
    /// Each line after the time when it was begun.
    pub(crate) timestamps: bool,
    /// Nothing older.
    pub(crate) since: Option<SystemTime>,
    /// Nothing newer.
    pub(crate) until: Option<SystemTime>,
    /// Begin so many lines before the last.
    pub(crate) tail: Option<usize>,
}

impl LogsQuery {
    /// Everything that is there, if nothing is said.
    pub(super) fn parse(text: &str) -> Result<Self, Response> {
        let refusal = |message: String| Response::refusal(400, &message);
        let Some(pairs) = query::pairs(text) else {
            return Err(refusal(format!("the query `{text}` has an escape that is none")));
        };
        let (mut stdout, mut stderr) = (None, None);
        let mut logs =
            Self { follow: false, stdout: true, stderr: true, timestamps: false, since: None, until: None, tail: None };
        for (name, value) in pairs {
            let not = |form: &str| refusal(format!("{name}: `{}` is not {form}", value.as_deref().unwrap_or_default()));
            let flag = || match value.as_deref() {
                None | Some("1" | "true") => Ok(true),
                Some("0" | "false") => Ok(false),
                Some(_) => Err(not("true or false")),
            };
            // Zero is what docker's clients send for none.
            let moment = || match value.as_deref().unwrap_or_default().parse::<Moment>().map(Moment::time) {
                Ok(UNIX_EPOCH) => Ok(None),
                Ok(time) => Ok(Some(time)),
                Err(error) => Err(refusal(format!("{name}: {error}"))),
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
                        .filter(|lines| lines.is_none_or(|lines| lines <= TAIL_LINES))
                        .ok_or_else(|| not(&format!("all or a number up to {TAIL_LINES}")))?;
                }
                other => return Err(refusal(format!("there is no parameter `{other}`"))),
            }
        }
        // Who names one of them wants it alone, as with docker; who names none, both.
        if stdout.is_some() || stderr.is_some() {
            (logs.stdout, logs.stderr) = (stdout.unwrap_or(false), stderr.unwrap_or(false));
        }
        match &logs {
            Self { stdout: false, stderr: false, .. } => Err(refusal("stdout, stderr or both have to be true".into())),
            Self { follow: true, until: Some(_), .. } => Err(refusal("until contradicts follow".into())),
            _ => Ok(logs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nothing_said_is_all_there_is() {
        let all = LogsQuery::parse("").unwrap();
        assert!(all.stdout && all.stderr && !all.follow && !all.timestamps);
        assert_eq!((all.since, all.until, all.tail), (None, None, None));
        assert_eq!(LogsQuery::parse("tail=all&since=0&until=0").unwrap(), all);
    }

    #[test]
    fn parameters_are_dockers() {
        let query = "follow=1&stdout=true&timestamps=true&since=1795264496.5&tail=20";
        let logs = LogsQuery::parse(query).unwrap();
        assert!(logs.follow && logs.stdout && !logs.stderr && logs.timestamps);
        assert_eq!(logs.since, Some(UNIX_EPOCH + Duration::from_millis(1_795_264_496_500)));
        assert_eq!(logs.tail, Some(20));
        let until = LogsQuery::parse("until=2026-11-21T12:34:56Z").unwrap().until;
        assert_eq!(until, Some(UNIX_EPOCH + Duration::from_secs(1_795_264_496)));
    }

    #[test]
    fn what_is_not_understood_is_named() {
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

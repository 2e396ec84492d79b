// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which health check is run: the image's Healthcheck, and what the options say instead. Docker's rules. Pure.

use crate::config::interval::{Interval, IntervalError};
use crate::config::request::Request;
use guest_protocol::health::HealthCheck;
use oci_image::ImageConfig;
use serde::Deserialize;

const INTERVAL_MS: u64 = 30_000;
const TIMEOUT_MS: u64 = 30_000;
const START_INTERVAL_MS: u64 = 5_000;
const RETRIES: u32 = 3;

/// No health check can be made of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HealthError {
    /// Options without anything to run.
    #[error("--health-{0} is of no use: neither --health-cmd nor the image says what to run")]
    NoCommand(&'static str),
    /// None, and one.
    #[error("--no-healthcheck contradicts --health-{0}")]
    Contradiction(&'static str),
    /// The image's.
    #[error("the image's Healthcheck: {0}")]
    Image(String),
    /// The image's.
    #[error("the image's Healthcheck: Test begins with `{0}`, which is none of NONE, CMD and CMD-SHELL")]
    Test(String),
    /// The image's.
    #[error("the image's Healthcheck")]
    Interval(#[from] IntervalError),
}

/// As it stands in the configuration. Times are nanoseconds; 0 is the default.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageHealthcheck {
    test: Option<Vec<String>>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

/// The check that image and request decide on together, if there is one.
///
/// # Errors
/// See [`HealthError`].
pub(crate) fn decide(image: &ImageConfig, request: &Request) -> Result<Option<HealthCheck>, HealthError> {
    let given = [
        ("cmd", request.health_cmd.is_some()),
        ("interval", request.health_interval.is_some()),
        ("timeout", request.health_timeout.is_some()),
        ("start-period", request.health_start_period.is_some()),
        ("start-interval", request.health_start_interval.is_some()),
        ("retries", request.health_retries.is_some()),
    ];
    let option = given.iter().find(|(_, given)| *given).map(|(name, _)| *name);
    if request.no_healthcheck {
        return option.map_or(Ok(None), |name| Err(HealthError::Contradiction(name)));
    }
    let own = match &image.healthcheck {
        Some(value) => serde_json::from_value(value.clone()).map_err(|error| HealthError::Image(error.to_string()))?,
        None => ImageHealthcheck::default(),
    };
    let arguments = match (&request.health_cmd, own.test.as_deref()) {
        (Some(command), _) => shell(command),
        (None, None | Some([])) => Vec::new(),
        (None, Some([kind, words @ ..])) => match kind.as_str() {
            "NONE" => Vec::new(),
            "CMD" => words.to_vec(),
            "CMD-SHELL" => shell(&words.join(" ")),
            other => return Err(HealthError::Test(other.to_owned())),
        },
    };
    if arguments.is_empty() {
        return option.map_or(Ok(None), |name| Err(HealthError::NoCommand(name)));
    }
    let choose = |given: Option<Interval>, own: u64, default: u64| -> Result<u64, IntervalError> {
        let own = Interval::from_nanoseconds(own)?.milliseconds();
        let chosen = given.map_or(own, Interval::milliseconds);
        Ok(if chosen == 0 { default } else { chosen })
    };
    Ok(Some(HealthCheck {
        arguments,
        interval_ms: choose(request.health_interval, own.interval, INTERVAL_MS)?,
        timeout_ms: choose(request.health_timeout, own.timeout, TIMEOUT_MS)?,
        start_period_ms: choose(request.health_start_period, own.start_period, 0)?,
        start_interval_ms: choose(request.health_start_interval, own.start_interval, START_INTERVAL_MS)?,
        retries: match request.health_retries.unwrap_or(own.retries) {
            0 => RETRIES,
            retries => retries,
        },
    }))
}

/// A command line for the image's own shell.
#[must_use]
pub(crate) fn shell(command: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), command.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn image(healthcheck: Value) -> ImageConfig {
        ImageConfig { healthcheck: Some(healthcheck), ..ImageConfig::default() }
    }

    #[test]
    fn an_image_without_one_has_none() {
        let none = [json!({}), json!({"Test": []}), json!({"Test": ["NONE"]}), json!({"Interval": 5})];
        for healthcheck in none {
            assert_eq!(decide(&image(healthcheck), &Request::default()).unwrap(), None);
        }
        assert_eq!(decide(&ImageConfig::default(), &Request::default()).unwrap(), None);
    }

    #[test]
    fn the_images_own_is_kept_with_dockers_defaults() {
        let check =
            decide(&image(json!({"Test": ["CMD", "redis-cli", "ping"]})), &Request::default()).unwrap().unwrap();
        assert_eq!(check.arguments, ["redis-cli", "ping"]);
        let times = (check.interval_ms, check.timeout_ms, check.start_period_ms, check.start_interval_ms);
        assert_eq!((times, check.retries), ((30_000, 30_000, 0, 5_000), 3));
        let own = json!({"Test": ["CMD-SHELL", "a || b"], "Interval": 2_000_000_000_u64, "Retries": 1});
        let check = decide(&image(own), &Request::default()).unwrap().unwrap();
        assert_eq!((check.arguments, check.interval_ms, check.retries), (shell("a || b"), 2000, 1));
    }

    #[test]
    fn options_replace_parts_of_it() {
        let own = image(json!({"Test": ["CMD", "x"], "Interval": 2_000_000_000_u64, "Timeout": 7_000_000_000_u64}));
        let request = Request {
            health_cmd: Some("y".into()),
            health_interval: Some("1s".parse().unwrap()),
            ..Request::default()
        };
        let check = decide(&own, &request).unwrap().unwrap();
        assert_eq!((check.arguments, check.interval_ms, check.timeout_ms), (shell("y"), 1000, 7000));
        let none = Request { no_healthcheck: true, ..Request::default() };
        assert_eq!(decide(&own, &none).unwrap(), None);
    }

    #[test]
    fn contradictions_and_nonsense_are_named() {
        let table = [
            (Request { health_retries: Some(1), ..Request::default() }, json!({}), "--health-retries"),
            (
                Request { no_healthcheck: true, health_cmd: Some("x".into()), ..Request::default() },
                json!({}),
                "--no-healthcheck",
            ),
            (Request::default(), json!({"Test": ["RUN", "x"]}), "RUN"),
            (Request::default(), json!({"Test": "x"}), "Healthcheck"),
        ];
        for (request, own, object) in table {
            let error = decide(&image(own), &request).unwrap_err().to_string();
            assert!(error.contains(object), "{error}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which health check runs: the image's Healthcheck, and what the options replace in it, by docker's rules. A Healthcheck that
//! docker would ignore, or could not have written, is a warning. Pure.

use crate::config::interval::Interval;
use crate::config::request::Request;
use guest_protocol::health::HealthCheck;
use oci_image::ImageConfig;
use serde_json::Value;

const INTERVAL_MS: u64 = 30_000;
const TIMEOUT_MS: u64 = 30_000;
const START_INTERVAL_MS: u64 = 5_000;
const RETRIES: u32 = 3;

/// Options that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--no-healthcheck contradicts --health-{0}")]
pub(crate) struct OptionError(&'static str);

/// The check that options and image decide on together, if there is one. `shell` runs commands in shell form.
pub(super) fn decide(
    image: &ImageConfig,
    request: &Request,
    shell: &[String],
    warnings: &mut Vec<String>,
) -> Result<Option<HealthCheck>, OptionError> {
    let command = request.health_cmd.as_ref().filter(|command| !command.is_empty());
    let given = |option: Option<Interval>| option.is_some_and(|interval| interval.milliseconds() > 0);
    let options = [
        ("cmd", command.is_some()),
        ("interval", given(request.health_interval)),
        ("timeout", given(request.health_timeout)),
        ("start-period", given(request.health_start_period)),
        ("start-interval", given(request.health_start_interval)),
        ("retries", request.health_retries.is_some_and(|retries| retries > 0)),
    ];
    let option = options.iter().find(|(_, given)| *given).map(|(name, _)| *name);
    if request.no_healthcheck {
        return option.map_or(Ok(None), |name| Err(OptionError(name)));
    }
    let mut image = ImageHealthcheck { value: image.healthcheck.as_ref().unwrap_or(&Value::Null), warnings };
    let arguments = match command {
        Some(command) => in_shell(shell, std::slice::from_ref(command)),
        None => image.arguments(shell),
    };
    if arguments.is_empty() {
        let no_effect =
            |name| format!("--health-{name} has no effect: neither --health-cmd nor the image gives a command");
        image.warnings.extend(option.map(no_effect));
        return Ok(None);
    }
    let mut choose = |option: Option<Interval>, key, default| match option {
        Some(interval) if interval.milliseconds() > 0 => interval.milliseconds(),
        _ => image.milliseconds(key).unwrap_or(default),
    };
    Ok(Some(HealthCheck {
        arguments,
        interval_ms: choose(request.health_interval, "Interval", INTERVAL_MS),
        timeout_ms: choose(request.health_timeout, "Timeout", TIMEOUT_MS),
        start_period_ms: choose(request.health_start_period, "StartPeriod", 0),
        start_interval_ms: choose(request.health_start_interval, "StartInterval", START_INTERVAL_MS),
        retries: match request.health_retries {
            Some(retries) if retries > 0 => retries,
            _ => image.number("Retries", |retries| u32::try_from(retries).ok()).unwrap_or(RETRIES),
        },
    }))
}

/// A command in shell form.
pub(super) fn in_shell(shell: &[String], command: &[String]) -> Vec<String> {
    [shell, command].concat()
}

/// The object of the image's configuration; any of its values may have a wrong type.
struct ImageHealthcheck<'a> {
    value: &'a Value,
    warnings: &'a mut Vec<String>,
}

impl ImageHealthcheck<'_> {
    /// What runs; empty if nothing does.
    fn arguments(&mut self, shell: &[String]) -> Vec<String> {
        if !(self.value.is_null() || self.value.is_object()) {
            self.warn("not an object");
        }
        let test = match self.value.get("Test") {
            None | Some(Value::Null) => return Vec::new(),
            Some(test) => test.as_array().and_then(|words| words.iter().map(Value::as_str).collect::<Option<Vec<_>>>()),
        };
        let Some(test) = test else {
            self.warn("Test is not a list of strings");
            return Vec::new();
        };
        if test.iter().any(|word| word.contains('\0')) {
            self.warn("Test holds a NUL byte");
            return Vec::new();
        }
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        match &*test {
            [] | ["NONE", ..] => Vec::new(),
            ["CMD", command @ ..] => words(command),
            ["CMD-SHELL", command @ ..] => in_shell(shell, &words(command)),
            [other, ..] => {
                self.warn(&format!("Test begins with `{other}`, not with NONE, CMD or CMD-SHELL"));
                Vec::new()
            }
        }
    }

    /// A time, which the image gives in nanoseconds.
    fn milliseconds(&mut self, key: &str) -> Option<u64> {
        self.number(key, |nanoseconds| Some(Interval::from_nanoseconds(nanoseconds).ok()?.milliseconds()))
    }

    /// The number at `key`, unless it is 0, which stands for the default, or out of range.
    fn number<T>(&mut self, key: &str, convert: impl Fn(u64) -> Option<T>) -> Option<T> {
        let value = self.value.get(key).filter(|value| !value.is_null() && value.as_u64() != Some(0))?;
        let number = value.as_u64().and_then(convert);
        if number.is_none() {
            self.warn(&format!("{key} {value} is out of range"));
        }
        number
    }

    fn warn(&mut self, what: &str) {
        self.warnings.push(format!("the image's Healthcheck is ignored in part: {what}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(healthcheck: Value) -> ImageConfig {
        ImageConfig { healthcheck: Some(healthcheck), ..ImageConfig::default() }
    }

    fn shell(command: &str) -> Vec<String> {
        ["/bin/sh", "-c", command].map(str::to_owned).to_vec()
    }

    /// The check, and the warnings as one text.
    fn decide_with(image: &ImageConfig, request: &Request) -> Result<(Option<HealthCheck>, String), OptionError> {
        let mut warnings = Vec::new();
        let check = decide(image, request, &shell("")[..2], &mut warnings)?;
        Ok((check, warnings.join("\n")))
    }

    fn of_image(healthcheck: Value) -> (Option<HealthCheck>, String) {
        decide_with(&image(healthcheck), &Request::default()).unwrap()
    }

    #[test]
    fn image_without_a_test_has_no_check() {
        let none = [json!(null), json!({}), json!({"Test": []}), json!({"Test": ["NONE"]}), json!({"Interval": 5})];
        for healthcheck in none {
            assert_eq!(of_image(healthcheck), (None, String::new()));
        }
        assert_eq!(decide_with(&ImageConfig::default(), &Request::default()), Ok((None, String::new())));
    }

    #[test]
    fn image_check_has_dockers_defaults() {
        let check = of_image(json!({"Test": ["CMD", "redis-cli", "ping"]})).0.unwrap();
        assert_eq!(check.arguments, ["redis-cli", "ping"]);
        let times = (check.interval_ms, check.timeout_ms, check.start_period_ms, check.start_interval_ms);
        assert_eq!((times, check.retries), ((30_000, 30_000, 0, 5_000), 3));
        let own = json!({"Test": ["CMD-SHELL", "a || b"], "Interval": 2_000_000_000_u64, "Retries": 1});
        let check = of_image(own).0.unwrap();
        assert_eq!((check.arguments, check.interval_ms, check.retries), (shell("a || b"), 2000, 1));
    }

    /// Each part is the option's, else the image's, else docker's; 0 is as if it were not given. A row: the image's seconds or
    /// number, the option, what counts.
    #[test]
    fn each_part_is_the_options_or_the_images_or_dockers() {
        type Part = (&'static str, fn(&mut Request, &str), fn(&HealthCheck) -> u64, u64);
        fn interval(text: &str) -> Option<Interval> {
            Some(text.parse().unwrap())
        }
        let parts: [Part; 5] = [
            ("Interval", |r, text| r.health_interval = interval(text), |check| check.interval_ms / 1000, 30),
            ("Timeout", |r, text| r.health_timeout = interval(text), |check| check.timeout_ms / 1000, 30),
            ("StartPeriod", |r, text| r.health_start_period = interval(text), |check| check.start_period_ms / 1000, 0),
            (
                "StartInterval",
                |r, text| r.health_start_interval = interval(text),
                |check| check.start_interval_ms / 1000,
                5,
            ),
            (
                "Retries",
                |r, text| r.health_retries = text.trim_end_matches('s').parse().ok(),
                |check| check.retries.into(),
                3,
            ),
        ];
        for (key, set, get, default) in parts {
            let rows = [(None, None, default), (Some(7), None, 7), (Some(7), Some("9s"), 9), (None, Some("9s"), 9)];
            let zeroes = [(Some(0), None, default), (Some(7), Some("0s"), 7), (Some(0), Some("0s"), default)];
            for (of_image, option, expected) in rows.into_iter().chain(zeroes) {
                let scale = if key == "Retries" { 1 } else { 1_000_000_000_u64 };
                let mut own = json!({"Test": ["CMD", "x"]});
                own[key] = json!(of_image.map(|number| number * scale));
                let mut request = Request::default();
                option.into_iter().for_each(|text| set(&mut request, text));
                let (check, warnings) = decide_with(&image(own), &request).unwrap();
                let check = check.unwrap();
                assert_eq!((get(&check), &*warnings), (expected, ""), "{key} {of_image:?} {option:?}");
                assert_eq!(check.arguments, ["x"]);
            }
        }
    }

    /// The image's Test, `--health-cmd`, what runs.
    #[test]
    fn command_is_the_options_in_the_shell_or_the_images_in_its_form() {
        let none = Vec::new;
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let table = [
            (json!(["CMD", "a", "b c"]), "", ["a", "b c"].map(str::to_owned).to_vec()),
            (json!(["CMD", "a"]), "y || z", shell("y || z")),
            (json!(["CMD-SHELL", "a || b"]), "", shell("a || b")),
            (json!(["CMD-SHELL"]), "", words("/bin/sh -c")),
            (json!(["CMD-SHELL", "a", "b"]), "", words("/bin/sh -c a b")),
            (json!(["CMD"]), "", none()),
            (json!(["NONE"]), "", none()),
            (json!(["NONE"]), "y", shell("y")),
            (json!(["NONE", "CMD", "x"]), "", none()),
            (json!([]), "y", shell("y")),
            (json!(null), "y", shell("y")),
        ];
        for (test, option, expected) in table {
            let request = Request { health_cmd: Some(option.to_owned()), ..Request::default() };
            let (check, warnings) = decide_with(&image(json!({ "Test": test })), &request).unwrap();
            let arguments = check.map(|check| check.arguments).unwrap_or_default();
            assert_eq!((arguments, &*warnings), (expected, ""), "{test} {option:?}");
        }
        let none = Request { no_healthcheck: true, ..Request::default() };
        assert_eq!(decide_with(&image(json!({"Test": ["CMD", "x"]})), &none), Ok((None, String::new())));
    }

    #[test]
    fn contradicting_options_are_rejected() {
        let request = Request { no_healthcheck: true, health_cmd: Some("x".into()), ..Request::default() };
        let error = decide_with(&image(json!({})), &request).unwrap_err().to_string();
        assert_eq!(error, "--no-healthcheck contradicts --health-cmd");
        let request = Request { no_healthcheck: true, health_retries: Some(0), ..Request::default() };
        assert_eq!(decide_with(&image(json!({})), &request), Ok((None, String::new())), "0 is as if it were not given");
    }

    #[test]
    fn option_without_a_command_is_a_warning() {
        for (own, retries, warned) in [(json!({}), 1, true), (json!({"Test": ["RUN"]}), 1, true), (json!({}), 0, false)]
        {
            let request = Request { health_retries: Some(retries), ..Request::default() };
            let (check, warnings) = decide_with(&image(own), &request).unwrap();
            assert_eq!((check, warnings.contains("--health-retries has no effect")), (None, warned), "{warnings}");
        }
    }

    #[test]
    fn unknown_forms_are_warnings() {
        for (own, object) in [
            (json!({"Test": ["RUN", "x"]}), "RUN"),
            (json!({"Test": "x"}), "Healthcheck"),
            (json!({"Test": ["CMD", 1]}), "Test"),
            (json!({"Test": ["CMD", "a\0b"]}), "NUL"),
            (json!("x"), "Healthcheck"),
        ] {
            let (check, warnings) = of_image(own);
            assert_eq!(check, None);
            assert!(warnings.contains(object), "{warnings}");
        }
        for odd in [json!(-1), json!(u64::MAX), json!(1.5), json!("1s")] {
            let (check, warnings) = of_image(json!({"Test": ["CMD", "x"], "Interval": odd, "Retries": odd}));
            let check = check.unwrap();
            assert_eq!((check.interval_ms, check.retries), (INTERVAL_MS, RETRIES), "{odd}");
            assert!(warnings.contains("Interval") && warnings.contains("Retries"), "{warnings}");
        }
    }
}

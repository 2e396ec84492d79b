// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vmm/openapi.json` says what the table of routes and the documents are.

use super::*;
use crate::api::control_socket::Stats;
use crate::state::end::End;
use crate::state::status::Status;
use guest_protocol::health::HealthReport;
use serde_json::Value;
use std::collections::BTreeSet;

fn description() -> Value {
    serde_json::from_str(include_str!("../../../openapi.json")).unwrap()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

/// What a schema names, and which of it has to be there.
fn schema(name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let schema = &description()["components"]["schemas"][name];
    let required = schema["required"].as_array().into_iter().flatten();
    (keys(&schema["properties"]), required.map(|name| name.as_str().unwrap().to_owned()).collect())
}

#[test]
fn the_description_and_the_table_have_the_same_routes() {
    let description = description();
    let mut described = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        described.extend(keys(methods).iter().map(|method| (method.to_uppercase(), path.clone())));
    }
    let table: BTreeSet<_> = ROUTES.iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
    assert_eq!(described, table);
}

#[test]
fn the_bodies_that_are_described_are_those_that_are_read() {
    let object = |name| Value::from_iter(schema(name).0.into_iter().map(|key| (key, Value::Null)));
    assert_eq!(serde_json::from_value::<Stop>(object("Stop")).unwrap(), Stop::default());
    assert_eq!(serde_json::from_value::<Kill>(object("Kill")).unwrap(), Kill::default());
    // Nor is anything read that is not described.
    assert_eq!(keys(&serde_json::to_value(Stop::default()).unwrap()), schema("Stop").0);
    assert_eq!(keys(&serde_json::to_value(Kill::default()).unwrap()), schema("Kill").0);
    assert_eq!(keys(&serde_json::to_value(Exec::default()).unwrap()), schema("Exec").0);
}

#[test]
fn the_answers_that_are_described_are_those_that_are_given() {
    let mut status = Status::sample();
    let optional = |name: &str| {
        let (all, required) = schema(name);
        all.difference(&required).cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys(&serde_json::to_value(&status).unwrap()), schema("Status").1);
    assert_eq!(optional("Status"), ["end", "health"]);
    status.end = Some(End::killed(""));
    status.health = Some(HealthReport::default());
    let document = serde_json::to_value(&status).unwrap();
    assert_eq!(keys(&document), schema("Status").0);
    assert_eq!(keys(&document["end"]), schema("End").1);
    assert_eq!(keys(&document["counters"]), schema("Counters").1);
    assert_eq!(keys(&serde_json::to_value(Stats::of(&status)).unwrap()), schema("Stats").1);
}

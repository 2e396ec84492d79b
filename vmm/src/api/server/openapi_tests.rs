// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vmm/openapi.json` describes the routes and the documents as they are.

use super::*;
use crate::api::control_socket::Stats;
use crate::config::limits::{DiskLimits, NetworkLimits};
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

/// Properties of a schema, and those that are required.
fn schema(name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let schema = &description()["components"]["schemas"][name];
    let required = schema["required"].as_array().into_iter().flatten();
    (keys(&schema["properties"]), required.map(|name| name.as_str().unwrap().to_owned()).collect())
}

#[test]
fn openapi_has_the_routes_of_the_table() {
    let description = description();
    let mut described = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        described.extend(keys(methods).iter().map(|method| (method.to_uppercase(), path.clone())));
    }
    let table: BTreeSet<_> = ROUTES.iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
    assert_eq!(described, table);
}

#[test]
fn openapi_has_the_parameters_of_bodies() {
    let object = |name| Value::from_iter(schema(name).0.into_iter().map(|key| (key, Value::Null)));
    assert_eq!(serde_json::from_value::<Stop>(object("Stop")).unwrap(), Stop::default());
    assert_eq!(serde_json::from_value::<Kill>(object("Kill")).unwrap(), Kill::default());
    // And no parameter is missing in the description.
    assert_eq!(keys(&serde_json::to_value(Stop::default()).unwrap()), schema("Stop").0);
    assert_eq!(keys(&serde_json::to_value(Kill::default()).unwrap()), schema("Kill").0);
    assert_eq!(keys(&serde_json::to_value(Files::default()).unwrap()), schema("Files").0);
    assert_eq!(keys(&serde_json::to_value(Layer::default()).unwrap()), schema("Layer").0);
    assert_eq!(keys(&serde_json::to_value(Resize::default()).unwrap()), schema("Resize").0);
    assert_eq!(keys(&serde_json::to_value(Exec::default()).unwrap()), schema("Exec").0);
    assert_eq!(keys(&serde_json::to_value(Limits::default()).unwrap()), schema("Limits").0);
    assert_eq!(keys(&serde_json::to_value(DiskLimits::default()).unwrap()), schema("DiskLimits").0);
    assert_eq!(keys(&serde_json::to_value(NetworkLimits::default()).unwrap()), schema("NetworkLimits").0);
}

#[test]
fn openapi_has_the_keys_of_responses() {
    let mut status = Status::sample();
    let optional = |name: &str| {
        let (all, required) = schema(name);
        all.difference(&required).cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys(&serde_json::to_value(&status).unwrap()), schema("Status").1);
    assert_eq!(optional("Status"), ["end", "health", "published"]);
    status.end = Some(End::killed(""));
    status.health = Some(HealthReport::default());
    let port = serde_json::json!({ "host_ip": "::1", "host_port": 1, "port": 2, "protocol": "tcp" });
    status.published = vec![serde_json::from_value(port).unwrap()];
    let document = serde_json::to_value(&status).unwrap();
    assert_eq!(keys(&document), schema("Status").0);
    assert_eq!(keys(&document["end"]), schema("End").1);
    assert_eq!(keys(&document["counters"]), schema("Counters").1);
    assert_eq!(keys(&serde_json::to_value(Stats::of(&status)).unwrap()), schema("Stats").1);
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The metadata as a tree: an object's keys are a listing, everything else is text. Pure.

use serde_json::{Map, Value};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("not JSON: {0}")]
    Json(String),
    #[error("not a JSON object")]
    Object,
    #[error("key `{0}`: empty, or has a slash or a control character")]
    Key(String),
    #[error("`{0}`: an array may have strings, numbers and booleans only")]
    Array(String),
}

/// A document whose every path can be served.
#[derive(Debug)]
pub(super) struct Document(Map<String, Value>);

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let value = serde_json::from_slice(bytes).map_err(|error| DocumentError::Json(error.to_string()))?;
        let Value::Object(map) = value else { return Err(DocumentError::Object) };
        check(&map)?;
        Ok(Self(map))
    }

    /// What is at `path`, whose parts are separated by any number of slashes.
    fn find(&self, path: &str) -> Option<Node<'_>> {
        let mut node = Node::Directory(&self.0);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Node::Directory(map) = node else { return None };
            node = match map.get(part)? {
                Value::Object(map) => Node::Directory(map),
                value => Node::Leaf(value),
            };
        }
        Some(node)
    }

    /// What is at `path` as EC2 prints it: a key a line, with a slash behind those that have keys of their own; an array an
    /// element a line.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        Some(match self.find(path)? {
            Node::Directory(map) => {
                let line = |(key, value): (&String, &Value)| match value {
                    Value::Object(_) => format!("{key}/"),
                    _ => key.clone(),
                };
                map.iter().map(line).collect::<Vec<_>>().join("\n")
            }
            Node::Leaf(Value::Array(elements)) => elements.iter().map(scalar).collect::<Vec<_>>().join("\n"),
            Node::Leaf(value) => scalar(value),
        })
    }

    /// What is at `path` as JSON.
    pub(super) fn json(&self, path: &str) -> Option<String> {
        Some(match self.find(path)? {
            Node::Directory(map) => serde_json::to_string(map),
            Node::Leaf(value) => serde_json::to_string(value),
        })
        .map(|text| text.expect("a parsed document can be printed"))
    }
}

enum Node<'a> {
    Directory(&'a Map<String, Value>),
    Leaf(&'a Value),
}

/// Recursion is bounded by the parser's limit of 128 levels.
fn check(map: &Map<String, Value>) -> Result<(), DocumentError> {
    for (key, value) in map {
        if key.is_empty() || key.contains(|c: char| c == '/' || c.is_control()) {
            return Err(DocumentError::Key(key.clone()));
        }
        match value {
            Value::Object(map) => check(map)?,
            Value::Array(elements) if elements.iter().any(|element| element.is_array() || element.is_object()) => {
                return Err(DocumentError::Array(key.clone()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_listings_lines_and_text() {
        let json = br#"{"latest": {"meta-data": {"ami-id": "ami-1", "placement": {"zone": "a"}, "count": 3, "on": true,
            "security-groups": ["web", "db"], "none": null}, "user-data": "ab\n"}}"#;
        let document = Document::parse(json).unwrap();
        for (path, text) in [
            ("/", Some("latest/")),
            ("", Some("latest/")),
            ("/latest", Some("meta-data/\nuser-data")),
            ("/latest/meta-data/", Some("ami-id\ncount\nnone\non\nplacement/\nsecurity-groups")),
            ("//latest//meta-data/ami-id/", Some("ami-1")),
            ("/latest/meta-data/count", Some("3")),
            ("/latest/meta-data/on", Some("true")),
            ("/latest/meta-data/none", Some("")),
            ("/latest/meta-data/security-groups", Some("web\ndb")),
            ("/latest/user-data", Some("ab\n")),
            ("/latest/user-data/more", None),
            ("/latest/other", None),
            ("/latest/../latest", None),
        ] {
            assert_eq!(document.text(path).as_deref(), text, "{path}");
        }
        assert_eq!(document.json("/latest/meta-data/placement").unwrap(), r#"{"zone":"a"}"#);
        assert_eq!(document.json("/latest/meta-data/security-groups").unwrap(), r#"["web","db"]"#);
        assert_eq!(document.json("/other"), None);
    }

    #[test]
    fn documents_that_cannot_be_served_are_rejected() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        for (json, message) in [
            ("", "not JSON"),
            ("[1]", "not a JSON object"),
            (r#"{"a": {"b/c": 1}}"#, "key `b/c`"),
            (r#"{"": 1}"#, "key ``"),
            (r#"{"a": [1, [2]]}"#, "`a`: an array"),
            (&deep, "recursion limit"),
        ] {
            let error = Document::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{json}: {error}");
        }
    }
}

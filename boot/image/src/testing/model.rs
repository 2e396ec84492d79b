// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random layers, and a model of their merge: a map of paths.

use super::{Found, Member, names};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One entry of a random layer, with a path of up to three short names.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    File(Vec<u8>, usize),
    Directory(Vec<u8>, u32),
    Symlink(Vec<u8>),
    HardLink(Vec<u8>, Vec<u8>),
    Whiteout(Vec<u8>),
    Opaque(Vec<u8>),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(b'a'..=b'd', 1..4)
        .prop_map(|names| names.iter().map(|name| vec![*name]).collect::<Vec<_>>().join(&b'/'))
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (path(), 0..9000usize).prop_map(|(path, size)| Step::File(path, size)),
        3 => (path(), 0..0o7777u32).prop_map(|(path, mode)| Step::Directory(path, mode)),
        1 => path().prop_map(Step::Symlink),
        2 => (path(), path()).prop_map(|(path, target)| Step::HardLink(path, target)),
        1 => path().prop_map(Step::Whiteout),
        1 => path().prop_map(Step::Opaque),
    ]
}

/// The simplest model of merged layers: a flat map from paths.
#[derive(Default)]
pub(crate) struct Model {
    files: BTreeMap<String, (usize, Modelled)>,
    contents: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Modelled {
    /// Number of the content, mode of the directory.
    File(usize, Vec<u8>),
    Directory(u32),
    Symlink,
}

impl Model {
    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || matches!(self.files.get(path), Some((_, Modelled::Directory(_))))
    }

    /// Parents of `path`, from the top; `None` if one of them is not a directory.
    fn parents<'a>(&self, path: &'a str) -> Option<Vec<&'a str>> {
        let parents: Vec<&str> = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]).collect();
        parents.iter().all(|parent| self.is_directory(parent) || !self.files.contains_key(*parent)).then_some(parents)
    }

    fn put(&mut self, path: &str, layer: usize, file: Modelled) {
        for parent in self.parents(path).unwrap() {
            self.files.entry(parent.into()).or_insert((layer, Modelled::Directory(0o755)));
        }
        if !(self.is_directory(path) && matches!(file, Modelled::Directory(_))) {
            self.files.retain(|other, _| !other.starts_with(&format!("{path}/")));
        }
        self.files.insert(path.into(), (layer, file));
    }

    /// Removes entries older than `layer` below `top`, but not directories with remaining entries.
    fn hide(&mut self, top: &str, itself: bool, layer: usize) {
        let below = format!("{top}/");
        let affected = |path: &str| path.starts_with(&below) || (itself && path == top);
        self.files
            .retain(|path, (from, file)| !affected(path) || *from == layer || matches!(file, Modelled::Directory(_)));
        while let Some(empty) = self.files.iter().find_map(|(path, (from, file))| {
            let holds = self.files.keys().any(|other| other.starts_with(&format!("{path}/")));
            let directory = matches!(file, Modelled::Directory(_));
            (affected(path) && *from < layer && directory && !holds).then(|| path.clone())
        }) {
            self.files.remove(&empty);
        }
    }

    /// Applies the step; `None` if no valid layer contains it.
    pub(crate) fn apply(&mut self, step: &Step, layer: usize) -> Option<Member> {
        let text = |path: &[u8]| format!("/{}", String::from_utf8(path.to_vec()).unwrap());
        match step {
            Step::File(path, size) => {
                self.parents(&text(path))?;
                self.contents += 1;
                let data: Vec<u8> = (0..*size).map(|n| (n + self.contents * 31) as u8).collect();
                self.put(&text(path), layer, Modelled::File(self.contents, data.clone()));
                Some(Member::file(path, data))
            }
            Step::Directory(path, mode) => {
                self.parents(&text(path))?;
                self.put(&text(path), layer, Modelled::Directory(*mode));
                Some(Member::directory(path).mode(*mode))
            }
            Step::Symlink(path) => {
                self.parents(&text(path))?;
                self.put(&text(path), layer, Modelled::Symlink);
                Some(Member::symlink(path, "nowhere"))
            }
            Step::HardLink(path, target) => {
                let (at, to) = (text(path), text(target));
                self.parents(&at)?;
                self.parents(&to)?;
                let file = self.files.get(&to).filter(|(_, file)| matches!(file, Modelled::File(..)))?.1.clone();
                if at.starts_with(&format!("{to}/")) || to.starts_with(&format!("{at}/")) {
                    return None;
                }
                self.put(&at, layer, file);
                Some(Member::hard_link(path, target))
            }
            Step::Whiteout(path) => {
                self.parents(&text(path))?;
                self.hide(&text(path), true, layer);
                let slash = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
                Some(Member::file([&path[..slash], b".wh.", &path[slash..]].concat(), ""))
            }
            Step::Opaque(path) => {
                self.parents(&text(path))?;
                if !self.is_directory(&text(path)) && self.files.contains_key(&text(path)) {
                    return None;
                }
                self.hide(&text(path), false, layer);
                Some(Member::file([path, &b"/.wh..wh..opq"[..]].concat(), ""))
            }
        }
    }

    pub(crate) fn check(&self, found: &BTreeMap<String, Found>) {
        let modelled: Vec<&str> = std::iter::once("").chain(self.files.keys().map(String::as_str)).collect();
        assert_eq!(names(found), modelled);
        for (path, (_, file)) in &self.files {
            let found_file = &found[path];
            match file {
                Modelled::Directory(mode) => assert_eq!(u32::from(found_file.mode), 0o040000 | mode, "{path}"),
                Modelled::Symlink => assert_eq!(found_file.content, b"nowhere", "{path}"),
                Modelled::File(number, data) => {
                    assert!(found_file.content == *data, "content of {path}");
                    let same = |other: &Modelled| matches!(other, Modelled::File(other, _) if other == number);
                    let links = self.files.values().filter(|(_, other)| same(other)).count();
                    assert_eq!(found_file.nlink as usize, links, "links of {path}");
                }
            }
        }
    }
}

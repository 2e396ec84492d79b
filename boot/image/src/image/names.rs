// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The names of the images in a layout or an archive, and whether a name that the user gives means
//! one of them. Pure.

use crate::name::ImageName;

/// The names of one image. Docker's archives have the complete name in one annotation and only the
/// tag in another, which several images of an archive share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Complete names, or what stands in for them.
    pub full: Vec<String>,
    /// A tag beside a complete name.
    pub tag: Option<String>,
}

impl Names {
    /// Of an index entry: `io.containerd.image.name` and `org.opencontainers.image.ref.name`.
    pub(crate) fn of_entry(containerd: Option<&str>, reference: Option<&str>) -> Self {
        let given = |name: Option<&str>| name.filter(|name| !name.is_empty()).map(str::to_owned);
        match (given(containerd), given(reference)) {
            (Some(full), tag) => Self { full: vec![full], tag },
            (None, reference) => Self { full: reference.into_iter().collect(), tag: None },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.full.is_empty()
    }

    /// Whether `wanted` means this image: a name as it is written, its tag, or any form of the name
    /// that docker takes for the same.
    pub(crate) fn matches(&self, wanted: &str) -> bool {
        self.tag.as_deref() == Some(wanted) || self.full.iter().any(|name| is_named(name, wanted))
    }
}

fn is_named(name: &str, wanted: &str) -> bool {
    if name == wanted {
        return true;
    }
    let (Ok(parsed), wanted_name) = (ImageName::parse(name), ImageName::parse(wanted)) else { return false };
    // A bare tag as a name is a tag, and not a repository of docker's with that name.
    let is_tag_alone = !name.contains([':', '/', '@']);
    let same = wanted_name.is_ok_and(|wanted| wanted.has_tag_of(&parsed));
    same || (!is_tag_alone && parsed.tag() == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_finds_its_image() {
        let docker = Names::of_entry(Some("docker.io/library/b:latest"), Some("latest"));
        for wanted in ["latest", "b", "b:latest", "library/b", "docker.io/library/b:latest", "index.docker.io/b"] {
            assert!(docker.matches(wanted), "{wanted}");
        }
        for wanted in ["a", "b:1", "c/b", "quay.io/library/b", "", "B", "latest:latest"] {
            assert!(!docker.matches(wanted), "{wanted}");
        }
        let layout = Names::of_entry(None, Some("1.36"));
        assert!(layout.matches("1.36") && !layout.matches("latest"));
        let odd = Names::of_entry(Some(""), Some("any text: even this"));
        assert!(odd.matches("any text: even this"));
        let own = Names::of_entry(None, Some("reg.example:5000/x/busybox:old"));
        assert!(own.matches("old") && own.matches("reg.example:5000/x/busybox:old") && !own.matches("busybox:old"));
        assert!(Names::of_entry(None, None).is_empty());
    }
}

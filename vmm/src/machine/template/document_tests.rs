// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::super::shape::tests::{image_shape, shape};
use super::*;
use crate::machine::snapshot::testing;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

fn template() -> tempfile::TempDir {
    template_of(&shape())
}

fn template_of(shape: &Shape) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let create = |name: &str| {
        let path = directory.path().join(name);
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).unwrap()
    };
    let (state, memory) = (create(STATE_FILE), create(MEMORY_FILE));
    memory.set_len(shape.memory_bytes).unwrap();
    let scratch = shape.image.as_ref().and_then(|image| image.scratch_bytes).map(|bytes| {
        let file = create(SCRATCH_FILE);
        file.set_len(bytes).unwrap();
        file
    });
    let files = TemplateFiles { memory, scratch };
    let document = TemplateDocument::new(shape.clone(), None, &files, testing::document().state);
    document.unwrap().write(&state).unwrap();
    directory
}

fn error(directory: &Path) -> String {
    crate::host::system_error::chain(&open(directory, &shape()).unwrap_err())
}

#[test]
fn template_opens_for_its_shape_only() {
    let directory = template();
    let OpenTemplate { restore, scratch } = open(directory.path(), &shape()).unwrap();
    assert!(restore.has_other_devices && scratch.is_none());
    assert_eq!(restore.memory.metadata().unwrap().len(), shape().memory_bytes);
    let other = Shape { cpus: 2, ..shape() };
    assert!(matches!(open(directory.path(), &other), Err(OpenError::Shape(_))));
    assert!(matches!(open(directory.path(), &image_shape()), Err(OpenError::Shape(_))));
}

#[test]
fn template_of_an_image_opens_with_its_scratch_disk() {
    let open = |directory: &tempfile::TempDir| open(directory.path(), &image_shape());
    let directory = template_of(&image_shape());
    assert_eq!(open(&directory).unwrap().scratch.unwrap().metadata().unwrap().len(), 1 << 24);
    let scratch = directory.path().join(SCRATCH_FILE);
    OpenOptions::new().write(true).open(&scratch).unwrap().set_len(4096).unwrap();
    assert!(matches!(open(&directory), Err(OpenError::Altered(path)) if path == scratch));
    fs::remove_file(&scratch).unwrap();
    assert!(matches!(open(&directory), Err(OpenError::System(_))));
}

#[test]
fn memory_that_is_not_the_one_written_is_rejected() {
    let damages: [&dyn Fn(&Path); 4] = [
        &|memory| OpenOptions::new().write(true).open(memory).unwrap().set_len(4096).unwrap(),
        &|memory| fs::copy("/proc/self/exe", memory).map(drop).unwrap(),
        &|memory| fs::remove_file(memory).unwrap(),
        &|memory| fs::set_permissions(memory, Permissions::from_mode(0o620)).unwrap(),
    ];
    for damage in damages {
        let directory = template();
        damage(&directory.path().join(MEMORY_FILE));
        assert!(error(directory.path()).contains("/memory"), "{}", error(directory.path()));
    }
}

#[test]
fn damaged_state_is_rejected_at_every_byte() {
    let directory = template();
    let path = directory.path().join(STATE_FILE);
    let whole = fs::read(&path).unwrap();
    for index in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[index] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(open(directory.path(), &shape()).is_err(), "byte {index}");
        fs::write(&path, &whole[..index]).unwrap();
        assert!(open(directory.path(), &shape()).is_err(), "length {index}");
    }
    fs::write(&path, "coracle-template 9 0 sha256:0\n").unwrap();
    assert!(error(directory.path()).contains("version 9 of the format"), "{}", error(directory.path()));
    fs::write(&path, "coracle-snapshot 1 0 sha256:0\n").unwrap();
    assert!(error(directory.path()).ends_with("not the state of a template"), "{}", error(directory.path()));
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Docker's rules for the `User` of an image, one test per rule.

use super::*;
use alloc::vec;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
    broken line\n\
    app:x:1000:1001:App:/home/app:/bin/sh\n\
    app:x:7:7:second line of the same name:/seven:/bin/sh\n\
    1000:x:1234:1234:a name that is a number:/number:\n\
    homeless:x:5:5:::\n";
const GROUP: &[u8] =
    b"root:x:0:\nwheel:x:10:root,app\n\xff\xfe:x:3:app\nvideo:x:44:app\napp:x:1001:\nstaff:x:50:nobody,app\n";

fn ids(specification: &str) -> Result<(u32, u32, Vec<u32>), UserError> {
    resolve(specification, PASSWD, GROUP).map(|identity| (identity.user, identity.group, identity.groups))
}

#[test]
fn empty_user_is_root_with_the_groups_of_root() {
    assert_eq!(ids(""), Ok((0, 0, vec![0, 10])));
    assert_eq!(resolve("", PASSWD, GROUP).unwrap().home, "/root");
}

#[test]
fn added_groups_are_names_or_ids_and_no_second_time() {
    let added = |names: &[&str]| {
        let mut identity = resolve("app", PASSWD, GROUP)?;
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        add_groups(&mut identity, &names, GROUP).map(|()| identity.groups)
    };
    assert_eq!(added(&["50", "wheel", "4711"]), Ok(vec![1001, 10, 44, 50, 4711]));
    assert_eq!(added(&["nosuch"]), Err(UserError::UnknownGroup("nosuch".to_owned())));
    assert_eq!(added(&[""]), Err(UserError::UnknownGroup(String::new())));
    assert_eq!(added(&["2147483648"]), Err(UserError::OutOfRange("2147483648".to_owned())));
}

#[test]
fn image_without_user_files_has_root() {
    assert_eq!(resolve("", b"", b""), Ok(Identity { user: 0, group: 0, groups: vec![0], home: "/".to_owned() }));
}

#[test]
fn name_resolves_to_id_groups_and_home() {
    assert_eq!(ids("app"), Ok((1000, 1001, vec![1001, 10, 44, 50])));
    assert_eq!(resolve("app", PASSWD, GROUP).unwrap().home, "/home/app");
}

#[test]
fn number_is_a_user_id_even_if_a_user_has_that_name() {
    assert_eq!(ids("1000"), Ok((1000, 1001, vec![1001, 10, 44, 50])));
}

#[test]
fn id_without_a_line_has_group_zero_and_home_slash() {
    assert_eq!(ids("4242"), Ok((4242, 0, vec![0])));
    assert_eq!(resolve("4242", PASSWD, GROUP).unwrap().home, "/");
}

#[test]
fn named_group_replaces_all_supplementary_groups() {
    assert_eq!(ids("app:video"), Ok((1000, 44, vec![44])));
    assert_eq!(ids("app:9"), Ok((1000, 9, vec![9])));
    assert_eq!(ids("4242:staff"), Ok((4242, 50, vec![50])));
}

#[test]
fn user_without_a_home_has_home_slash() {
    assert_eq!(resolve("homeless", PASSWD, GROUP).unwrap().home, "/");
}

#[test]
fn error_names_the_unknown_user_or_group() {
    assert_eq!(ids("nobody"), Err(UserError::UnknownUser("nobody".to_owned())));
    assert_eq!(ids("app:nogroup"), Err(UserError::UnknownGroup("nogroup".to_owned())));
}

#[test]
fn number_outside_the_id_range_is_rejected() {
    for specification in ["-1", "4294967296", "2147483648", "99999999999999999999", "0:-1", "0:2147483648"] {
        assert!(matches!(ids(specification), Err(UserError::OutOfRange(_))), "{specification}");
    }
    assert_eq!(ids("2147483647:2147483647"), Ok((2147483647, 2147483647, vec![2147483647])));
}

#[test]
fn has_name_is_false_for_ids_and_empty_halves() {
    for specification in ["", "0", "1000:1000", ":5", "7:"] {
        assert!(!has_name(specification), "{specification}");
    }
    for specification in ["app", "0:staff", "app:0"] {
        assert!(has_name(specification), "{specification}");
    }
}

proptest::proptest! {
    #[test]
    fn resolve_accepts_any_input_without_panic(
        specification in ".{0,40}",
        passwd in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        group in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
    ) {
        let _ = resolve(&specification, &passwd, &group);
    }
}

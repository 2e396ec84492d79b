// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Docker's rules for the `User` of an image, one test a rule.

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
fn no_user_is_root_with_the_groups_of_root() {
    assert_eq!(ids(""), Ok((0, 0, vec![0, 10])));
    assert_eq!(resolve("", PASSWD, GROUP).unwrap().home, "/root");
}

#[test]
fn an_image_without_user_files_still_has_root() {
    assert_eq!(resolve("", b"", b""), Ok(Identity { user: 0, group: 0, groups: vec![0], home: "/".to_owned() }));
}

#[test]
fn a_name_brings_its_group_its_supplementary_groups_and_its_home() {
    assert_eq!(ids("app"), Ok((1000, 1001, vec![1001, 10, 44, 50])));
    assert_eq!(resolve("app", PASSWD, GROUP).unwrap().home, "/home/app");
}

#[test]
fn a_number_is_a_user_id_even_where_a_user_has_that_name() {
    assert_eq!(ids("1000"), Ok((1000, 1001, vec![1001, 10, 44, 50])));
}

#[test]
fn a_number_without_a_line_is_taken_with_group_zero_and_the_root_folder_as_home() {
    assert_eq!(ids("4242"), Ok((4242, 0, vec![0])));
    assert_eq!(resolve("4242", PASSWD, GROUP).unwrap().home, "/");
}

#[test]
fn a_group_that_is_named_replaces_all_supplementary_groups() {
    assert_eq!(ids("app:video"), Ok((1000, 44, vec![44])));
    assert_eq!(ids("app:9"), Ok((1000, 9, vec![9])));
    assert_eq!(ids("4242:staff"), Ok((4242, 50, vec![50])));
}

#[test]
fn a_user_without_a_home_gets_the_root_folder() {
    assert_eq!(resolve("homeless", PASSWD, GROUP).unwrap().home, "/");
}

#[test]
fn what_is_not_in_the_files_is_named_in_the_error() {
    assert_eq!(ids("nobody"), Err(UserError::UnknownUser("nobody".to_owned())));
    assert_eq!(ids("app:nogroup"), Err(UserError::UnknownGroup("nogroup".to_owned())));
}

#[test]
fn numbers_that_are_no_ids_are_refused() {
    for specification in ["-1", "4294967296", "2147483648", "99999999999999999999", "0:-1", "0:2147483648"] {
        assert!(matches!(ids(specification), Err(UserError::OutOfRange(_))), "{specification}");
    }
    assert_eq!(ids("2147483647:2147483647"), Ok((2147483647, 2147483647, vec![2147483647])));
}

proptest::proptest! {
    #[test]
    fn no_file_content_and_no_specification_makes_it_panic(
        specification in ".{0,40}",
        passwd in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        group in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
    ) {
        let _ = resolve(&specification, &passwd, &group);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `User` of an image, resolved in the image's own `/etc/passwd` and `/etc/group` with the rules of docker:
//! a numeric user is always a user id, the first matching line wins, supplementary groups count only if no group is
//! named, and a number without a line is taken as it is, with group 0.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Whom the workload runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub user: u32,
    /// Primary group id.
    pub group: u32,
    /// Supplementary group ids; the primary group is the first, so that no file is more open to the workload for
    /// *not* being a member.
    pub groups: Vec<u32>,
    /// Home folder; `/` without a line in `/etc/passwd`.
    pub home: String,
}

/// The image does not know whom the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserError {
    /// No such line in `/etc/passwd`, and not a number.
    UnknownUser(String),
    /// No such line in `/etc/group`, and not a number.
    UnknownGroup(String),
    /// A number that cannot be an id: ids are 0 to 2^31 - 1, as for docker.
    OutOfRange(String),
}

impl core::fmt::Display for UserError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnknownUser(name) => write!(f, "unable to find user {name} in /etc/passwd of the image"),
            Self::UnknownGroup(name) => write!(f, "unable to find group {name} in /etc/group of the image"),
            Self::OutOfRange(name) => write!(f, "user and group ids must be between 0 and 2147483647, not {name}"),
        }
    }
}

/// What one half of `user:group` says.
enum Name<'a> {
    Unset,
    Id(u32),
    Text(&'a str),
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Result<Self, UserError> {
        match text.parse::<i64>() {
            Ok(number) => match u32::try_from(number) {
                Ok(id) if id <= i32::MAX as u32 => Ok(Self::Id(id)),
                _ => Err(UserError::OutOfRange(text.to_owned())),
            },
            Err(_) if text.is_empty() => Ok(Self::Unset),
            // All digits and yet no i64: a number all the same.
            Err(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => Err(UserError::OutOfRange(text.to_owned())),
            Err(_) => Ok(Self::Text(text)),
        }
    }

    fn matches(&self, name: &str, id: u32) -> bool {
        match self {
            Self::Unset => id == 0,
            Self::Id(wanted) => *wanted == id,
            Self::Text(wanted) => *wanted == name,
        }
    }
}

/// Resolves `specification` (`name`, `uid`, `name:group`, `uid:gid`, or empty for root) in the contents of the image's
/// `/etc/passwd` and `/etc/group`; a missing file is an empty one.
///
/// # Errors
/// A name that is not there, or a number that is no id.
pub fn resolve(specification: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, UserError> {
    let (user, primary) = specification.split_once(':').unwrap_or((specification, ""));
    let (user, primary) = (Name::parse(user)?, Name::parse(primary)?);

    let mut identity = Identity { user: 0, group: 0, groups: Vec::new(), home: "/".to_owned() };
    let mut login = "";
    match users(passwd).find(|line| user.matches(line.name, line.user)) {
        Some(line) => {
            login = line.name;
            identity.user = line.user;
            identity.group = line.group;
            if !line.home.is_empty() {
                identity.home = line.home.to_owned();
            }
        }
        None => match user {
            Name::Unset => {}
            Name::Id(id) => identity.user = id,
            Name::Text(name) => return Err(UserError::UnknownUser(name.to_owned())),
        },
    }
    match primary {
        Name::Unset => {}
        Name::Id(id) => identity.group = id,
        Name::Text(name) => match groups(group).find(|line| line.name == name) {
            Some(line) => identity.group = line.group,
            None => return Err(UserError::UnknownGroup(name.to_owned())),
        },
    }
    identity.groups.push(identity.group);
    if matches!(primary, Name::Unset) && !login.is_empty() {
        for line in groups(group).filter(|line| line.members.split(',').any(|member| member == login)) {
            if !identity.groups.contains(&line.group) {
                identity.groups.push(line.group);
            }
        }
    }
    Ok(identity)
}

struct UserLine<'a> {
    name: &'a str,
    user: u32,
    group: u32,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    group: u32,
    members: &'a str,
}

/// `name:password:uid:gid:comment:home:shell`; a line that is not so is passed over.
fn users(passwd: &[u8]) -> impl Iterator<Item = UserLine<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(UserLine { name, user, group, home: fields.nth(1).unwrap_or("") })
    })
}

/// `name:password:gid:member,member`; a line that is not so is passed over.
fn groups(group: &[u8]) -> impl Iterator<Item = GroupLine<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some(GroupLine { name, group: fields.nth(1)?.parse().ok()?, members: fields.next().unwrap_or("") })
    })
}

fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    file.split(|&byte| byte == b'\n').filter_map(|line| core::str::from_utf8(line).ok()).map(str::trim)
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;

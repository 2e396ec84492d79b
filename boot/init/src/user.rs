// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `User` of an image, resolved in the image's own `/etc/passwd` and `/etc/group` by docker's
//! rules: a numeric user is always a user id, the first matching line wins, supplementary groups
//! apply only if no group is named, and an id without a line is used as it is, with group 0.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: u32,
    pub group: u32,
    /// Supplementary group ids. The primary group is the first, so that the workload has no more
    /// access for *not* being a member.
    pub groups: Vec<u32>,
    /// Home directory; `/` without a line in `/etc/passwd`.
    pub home: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserError {
    /// Not in `/etc/passwd`, and not a number.
    UnknownUser(String),
    /// Not in `/etc/group`, and not a number.
    UnknownGroup(String),
    /// Not an id: those are 0 to 2^31 - 1, as in docker.
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

/// One half of `user:group`.
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
            // Digits only, but beyond an i64.
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

/// Whether `specification` contains a name, which only the image's files can resolve.
#[must_use]
pub fn has_name(specification: &str) -> bool {
    specification.split(':').any(|half| matches!(Name::parse(half), Ok(Name::Text(_))))
}

/// Resolves `specification` (`name`, `uid`, `name:group`, `uid:gid`, or empty for root) in the
/// contents of the image's `/etc/passwd` and `/etc/group`. A missing file counts as empty.
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

/// Makes `identity` a member of further groups: names of the image's `/etc/group`, or ids.
pub fn add_groups(identity: &mut Identity, names: &[String], group: &[u8]) -> Result<(), UserError> {
    for name in names {
        let id = match Name::parse(name)? {
            Name::Id(id) => id,
            Name::Unset => return Err(UserError::UnknownGroup(name.to_owned())),
            Name::Text(text) => {
                let line = groups(group).find(|line| line.name == text);
                line.ok_or_else(|| UserError::UnknownGroup(name.to_owned()))?.group
            }
        };
        if !identity.groups.contains(&id) {
            identity.groups.push(id);
        }
    }
    Ok(())
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

/// `name:password:uid:gid:comment:home:shell`; other lines are ignored.
fn users(passwd: &[u8]) -> impl Iterator<Item = UserLine<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(UserLine { name, user, group, home: fields.nth(1).unwrap_or("") })
    })
}

/// `name:password:gid:member,member`; other lines are ignored.
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

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Flat keyed files of a control group (`Documentation/admin-guide/cgroup-v2.rst`): a line `KEY VALUE` for each key.

/// The value of `key` in `file`, as in `oom_kill` of `memory.events`.
#[must_use]
pub fn value(file: &[u8], key: &str) -> Option<u64> {
    let mut lines = file.split(|&byte| byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b" "))?;
    core::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn value_is_that_of_the_whole_key() {
        let events = b"low 0\nhigh 3\nmax 7\noom 1\noom_kill 10\noom_group_kill 0\n";
        assert_eq!(value(events, "oom_kill"), Some(10));
        assert_eq!(value(events, "oom"), Some(1));
        assert_eq!(value(events, "oom_group"), None);
        assert_eq!(value(b"usage_usec x\n", "usage_usec"), None);
        assert_eq!(value(b"", "oom_kill"), None);
    }
}

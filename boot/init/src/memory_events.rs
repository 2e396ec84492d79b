// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `memory.events` of a control group (`Documentation/admin-guide/cgroup-v2.rst`).

/// Whether the kernel has killed a process of this group for want of memory.
#[must_use]
pub fn killed_one(memory_events: &[u8]) -> bool {
    memory_events
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"oom_kill "))
        .any(|count| count.iter().any(|digit| (b'1'..=b'9').contains(digit)))
}

#[cfg(test)]
mod tests {
    use super::killed_one;

    #[test]
    fn only_a_count_of_kills_counts() {
        assert!(killed_one(b"low 0\nhigh 3\nmax 7\noom 1\noom_kill 10\noom_group_kill 0\n"));
        assert!(!killed_one(b"low 0\nhigh 3\nmax 7\noom 1\noom_kill 0\noom_group_kill 1\n"));
        assert!(!killed_one(b""));
    }
}

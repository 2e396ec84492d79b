// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `memory.events` of a control group (`Documentation/admin-guide/cgroup-v2.rst`).

/// How many processes of this group the kernel has killed for want of memory.
#[must_use]
pub fn kills(memory_events: &[u8]) -> u64 {
    let line = memory_events.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"oom_kill "));
    line.and_then(|count| core::str::from_utf8(count).ok()?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::kills;

    #[test]
    fn only_a_count_of_kills_counts() {
        assert_eq!(kills(b"low 0\nhigh 3\nmax 7\noom 1\noom_kill 10\noom_group_kill 0\n"), 10);
        assert_eq!(kills(b"low 0\nhigh 3\nmax 7\noom 1\noom_kill 0\noom_group_kill 1\n"), 0);
        assert_eq!(kills(b""), 0);
    }
}

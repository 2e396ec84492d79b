// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `memory.events` of a control group (`Documentation/admin-guide/cgroup-v2.rst`).

/// Number of processes of this group that the kernel killed because memory ran out.
#[must_use]
pub fn oom_kills(memory_events: &[u8]) -> u64 {
    let line = memory_events.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"oom_kill "));
    line.and_then(|count| core::str::from_utf8(count).ok()?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::oom_kills;

    #[test]
    fn oom_kills_reads_the_oom_kill_line_only() {
        assert_eq!(oom_kills(b"low 0\nhigh 3\nmax 7\noom 1\noom_kill 10\noom_group_kill 0\n"), 10);
        assert_eq!(oom_kills(b"low 0\nhigh 3\nmax 7\noom 1\noom_kill 0\noom_group_kill 1\n"), 0);
        assert_eq!(oom_kills(b""), 0);
    }
}

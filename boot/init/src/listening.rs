// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `/proc/net/tcp` and `/proc/net/tcp6` (`Documentation/networking/proc_net_tcp.rst`): a line of columns for each socket, those that
//! listen first.

/// The state `TCP_LISTEN`.
const LISTEN: &[u8] = b"0A";

/// Whether a socket of `table` listens on one of `ports`, whatever its address. A line that was cut off does not count.
#[must_use]
pub fn listens(table: &[u8], ports: &[u16]) -> bool {
    table
        .split_inclusive(|&byte| byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"))
        .filter_map(listening_port)
        .any(|port| ports.contains(&port))
}

/// The columns are a number, the local address and port, the remote ones, the state.
fn listening_port(line: &[u8]) -> Option<u16> {
    let mut columns = line.split(|&byte| byte == b' ').filter(|column| !column.is_empty());
    let (local, state) = (columns.nth(1)?, columns.nth(1)?);
    let port = local.rsplit(|&byte| byte == b':').next()?;
    (state == LISTEN).then(|| u16::from_str_radix(core::str::from_utf8(port).ok()?, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::listens;

    const IPV4: &[u8] =
        b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1
   2: 0A00020F:01BB 0A000202:D431 01 00000000:00000000 00:00000000 00000000     0        0 13 1
";
    const IPV6: &[u8] = b"  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
";

    #[test]
    fn listens_finds_any_of_the_ports_in_the_state_listen() {
        for (table, ports, expected) in [
            (IPV4, &[80][..], true),
            (IPV4, &[8080, 6379], true),
            (IPV4, &[443, 8080], false),
            (IPV4, &[0], false),
            (IPV4, &[], false),
            (IPV6, &[8080], true),
            (IPV6, &[80], false),
            (b"", &[80], false),
        ] {
            assert_eq!(listens(table, ports), expected, "{ports:?}");
        }
    }

    #[test]
    fn listens_ignores_what_is_not_a_whole_line() {
        assert!(!listens(&IPV6[..IPV6.len() - 1], &[8080]));
        assert!(!listens(b"0: :0050\n\n 0: 0050 0 0A\n", &[443]));
        assert!(!listens(b"0: 00000000:XX50 00000000:0000 0A\n0: 00000000:10050 0:0 0A\n", &[80, 0x50]));
    }
}

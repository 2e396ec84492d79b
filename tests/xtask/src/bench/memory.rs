// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of the monitor itself: the resident pages of its process while a guest idles, without those of the guest.

use super::product::Product;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Read;

const GUEST_KIB: u64 = 128 << 10;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident pages of everything except guest memory, shared code pages included.
    pub(crate) own_bytes: u64,
    /// Resident pages of guest memory.
    pub(crate) guest_bytes: u64,
}

/// One sample from each of `runs` runs, while the workload waits.
pub(crate) fn measure(product: &Product, runs: usize) -> Result<Vec<Memory>> {
    (0..runs).map(|_| sample(product)).collect()
}

fn sample(product: &Product) -> Result<Memory> {
    let script = ["sh", "-c", "echo up; exec sleep 1000"];
    let mut run = product.start(&["--memory", "128m", "--cpus", "1"], "busybox", &script)?;
    run.child.stdout.as_mut().context("stdout")?.read_exact(&mut [0; 3]).context("the workload wrote nothing")?;
    of_process(run.child.id())
}

/// The resident pages of a monitor whose guest has at least 128 MiB.
pub(crate) fn of_process(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps");
    let maps = fs::read_to_string(&path).with_context(|| path.clone())?;
    let memory = split(&maps);
    ensure!(memory.guest_bytes > 0, "{path}: no mapping is as large as the guest's memory");
    Ok(memory)
}

/// Guest memory is recognized by its size: no other mapping has half of it.
fn split(maps: &str) -> Memory {
    let (mut own, mut guest, mut size) = (0, 0, 0);
    for line in maps.lines() {
        let kib = |name: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok();
        if let Some(kib) = kib("Size:") {
            size = kib;
        } else if let Some(kib) = kib("Rss:") {
            let sum = if size >= GUEST_KIB / 2 { &mut guest } else { &mut own };
            *sum += kib;
        }
    }
    Memory { own_bytes: own << 10, guest_bytes: guest << 10 }
}

#[cfg(test)]
mod tests {
    use super::{Memory, split};

    #[test]
    fn mapping_of_the_guests_size_is_guest_memory() {
        let maps = "7f00-7f01 r-xp 00000000 08:01 1 /usr/bin/coracle\nSize:   1200 kB\nKernelPageSize: 4 kB\nRss:     800 kB\n\
                    Pss: 800 kB\n7f10-7f20 rw-p 00000000 00:00 0\nSize: 131072 kB\nRss: 30000 kB\n";
        assert_eq!(split(maps), Memory { own_bytes: 800 << 10, guest_bytes: 30000 << 10 });
    }
}

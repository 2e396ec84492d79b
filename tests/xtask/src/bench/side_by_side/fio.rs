// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disk loads by fio in the guest, and its results.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const SIZE: usize = 256 << 20;
/// Name, pattern, block size.
const JOBS: [(&str, &str, &str); 4] = [
    ("sequential read, 128 KiB", "read", "128k"),
    ("sequential write, 128 KiB", "write", "128k"),
    ("random read, 4 KiB", "randread", "4k"),
    ("random write, 4 KiB", "randwrite", "4k"),
];

pub(super) struct Job {
    pub(super) name: String,
    pub(super) bytes_per_second: u64,
}

/// Creates a disk without holes.
pub(super) fn disk(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("disk.img");
    let mut file = File::create(&path)?;
    let block = vec![0xa5; 1 << 20];
    for _ in 0..SIZE >> 20 {
        file.write_all(&block)?;
    }
    Ok(path)
}

/// The first words of the output.
pub(super) const BEGINNING: &str = JOBS[0].0;

/// Finds the disk by its serial, or, where the monitor gives it another one, as the second disk. The jobs run one after the
/// other, each with 16 requests in flight, and bypass the guest's page cache. They leave the first MiB alone: newer versions of
/// Cloud Hypervisor write the first sector only if an option calls the disk raw, which older ones do not have. Of fio's terse
/// lines (fio(1), "TERSE OUTPUT") the script keeps job, error and both rates in KiB/s, because output through a serial port
/// costs CPU time that has nothing to do with disks.
pub(super) fn script() -> String {
    let mut script = String::from(
        "d=$(grep -slx bench /sys/block/vd*/serial | cut -d/ -f4); fio --output-format=terse --terse-version=3 \
         --filename=/dev/${d:-vdb} --direct=1 --ioengine=libaio --iodepth=16 --runtime=2 --time_based --offset=1m --size=255m \
         --stonewall",
    );
    for (name, pattern, block) in JOBS {
        script += &format!(" --name='{name}' --rw={pattern} --bs={block}");
    }
    script + " | cut -d';' -f3,5,7,48"
}

/// Reads the output of the script. On a serial port the kernel's last messages come behind it.
pub(super) fn read(output: &str) -> Result<Vec<Job>> {
    let jobs: Vec<Job> = output.lines().map(job).filter_map(Result::transpose).collect::<Result<_>>()?;
    ensure!(jobs.len() == JOBS.len(), "fio ran {} jobs: {output}", jobs.len());
    Ok(jobs)
}

/// `None` for a line that is not a job's.
fn job(line: &str) -> Result<Option<Job>> {
    let fields: Vec<&str> = line.trim_end().split(';').collect();
    let [name, error, read, write] = fields[..] else { return Ok(None) };
    ensure!(error == "0", "{name}: error {error}");
    let rate = |field: &str| field.parse::<u64>().with_context(|| format!("{name}: a rate of `{field}`"));
    Ok(Some(Job { name: name.to_owned(), bytes_per_second: (rate(read)? + rate(write)?) << 10 }))
}

#[cfg(test)]
mod tests {
    use super::{JOBS, read};

    #[test]
    fn failed_job_is_an_error() {
        let output = |error| format!("a;{error};5;2\r\n").repeat(JOBS.len());
        assert_eq!(read(&output(0)).unwrap()[0].bytes_per_second, 7 << 10);
        assert_eq!(read(&(output(0) + "[ 1.0] reboot: Power down\r\n")).unwrap().len(), JOBS.len());
        assert!(read(&output(5)).is_err());
        assert!(read("a;0;5;2\n").is_err());
        assert!(read("fio: no such disk").is_err());
    }
}

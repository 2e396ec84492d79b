// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Loads on a disk, made by fio in the guest, and what it says of them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const SIZE: usize = 256 << 20;
const JOBS: [(&str, &str, &str); 4] = [
    ("sequential read, 128 KiB", "read", "128k"),
    ("sequential write, 128 KiB", "write", "128k"),
    ("random read, 4 KiB", "randread", "4k"),
    ("random write, 4 KiB", "randwrite", "4k"),
];

/// One job's result.
pub(super) struct Job {
    pub(super) name: String,
    pub(super) bytes_per_second: u64,
}

/// A disk with every block in place.
pub(super) fn disk(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("disk.img");
    let mut file = File::create(&path)?;
    let block = vec![0xa5; 1 << 20];
    for _ in 0..SIZE >> 20 {
        file.write_all(&block)?;
    }
    Ok(path)
}

/// Finds the disk by its serial; one job after the other, each 16 requests deep, past the guest's page cache.
pub(super) fn script() -> String {
    let mut script = String::from(
        "d=/dev/$(grep -lx bench /sys/block/vd*/serial | cut -d/ -f4); fio --output-format=json --filename=$d --direct=1 \
         --ioengine=libaio --iodepth=16 --runtime=2 --time_based --size=256m --stonewall",
    );
    for (name, pattern, block) in JOBS {
        script += &format!(" --name='{name}' --rw={pattern} --bs={block}");
    }
    script
}

/// What fio wrote to its standard output.
pub(super) fn read(output: &[u8]) -> Result<Vec<Job>> {
    let start = output.iter().position(|byte| *byte == b'{').context("fio printed no JSON")?;
    let document: Value = serde_json::from_slice(&output[start..]).context("fio's JSON")?;
    let jobs = document["jobs"].as_array().context("fio's jobs")?;
    ensure!(jobs.len() == JOBS.len(), "fio ran {} jobs", jobs.len());
    let job = |job: &Value| {
        let name = job["jobname"].as_str().context("a job's name")?.to_owned();
        ensure!(job["error"] == 0, "{name}: error {}", job["error"]);
        let rate = |side: &str| job[side]["bw_bytes"].as_u64().unwrap_or(0);
        Ok(Job { name, bytes_per_second: rate("read") + rate("write") })
    };
    jobs.iter().map(job).collect()
}

#[cfg(test)]
mod tests {
    use super::{JOBS, read};
    use serde_json::json;

    #[test]
    fn a_job_that_failed_is_a_failure() {
        let job =
            |error| json!({ "jobname": "a", "error": error, "read": { "bw_bytes": 5 }, "write": { "bw_bytes": 2 } });
        let output = |error| json!({ "jobs": vec![job(error); JOBS.len()] }).to_string().into_bytes();
        assert_eq!(read(&output(0)).unwrap()[0].bytes_per_second, 7);
        assert!(read(&output(5)).is_err());
        assert!(read(b"fio: no such disk").is_err());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Link arguments of a program that nothing loads but a monitor: one address, no C library, no start files, no unwind tables.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let linker = ["--no-eh-frame-hdr", "-znorelro", "--build-id=none"].map(|option| format!("-Wl,{option}"));
    let driver = ["-nostartfiles", "-nostdlib", "-static", "-no-pie"].map(String::from);
    for argument in driver.into_iter().chain(linker) {
        println!("cargo:rustc-link-arg-bin=hostile-kernel={argument}");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Link arguments of PID 1: no C library, no start files, no dynamic loader, and nothing in the file that a program which
//! never unwinds and never relocates itself has no use for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let linker = ["--no-eh-frame-hdr", "-znorelro", "--build-id=none"].map(|option| format!("-Wl,{option}"));
    let driver = ["-nostartfiles", "-nostdlib", "-static", "-no-pie"].map(String::from);
    for argument in driver.into_iter().chain(linker) {
        println!("cargo:rustc-link-arg-bin=coracle-init={argument}");
    }
}

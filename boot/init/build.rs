// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Link arguments of PID 1: no C library, no start files, no dynamic loader.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo:rustc-link-arg-bin=coracle-init={argument}");
    }
}

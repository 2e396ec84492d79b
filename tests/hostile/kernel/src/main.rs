// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A kernel that drives the table of the hostile guest against the devices of the machine that it runs in. It has a PVH entry,
//! takes the devices from its command line, prints to the first serial port, and ends the machine by the exit-status port: with 0
//! if every case passed, 1 if one did not, 2 if the table cannot be run, 3 after an exception.
//!
//! Words of the command line: `hostile.every=N` runs one of N cases, `hostile.rounds=N` all of them N times, `hostile.max_faults=N`
//! ends after N that did not pass. `hostile.block_errors=N` sends good requests to the last block device instead, until N have failed.
//!
//! [`entry`] brings the processor up and enters [`main`] in user mode; one vCPU, no interrupts.
// Lints run in a profile that unwinds, for which there is no panic handler without the standard library.
#![cfg_attr(panic = "abort", no_std)]
#![no_main]

mod devices;
mod entry;
mod runtime;
mod serial;
mod start_info;

use core::ops::ControlFlow;
use devices::Devices;
use hostile_guest::{Verdict, block_errors, device_name, number, run};
use serial::{end, print};
use start_info::StartInfo;

const FAILED: u8 = 1;
const NOT_RUN: u8 = 2;
/// Each case of a device that is lost takes seconds.
const MAX_FAULTS: usize = 20;

fn main(start_info: &StartInfo) -> ! {
    let Some(mut devices) = Devices::find(start_info) else {
        print(format_args!("no device that is in the table, or no memory map"));
        end(NOT_RUN)
    };
    for (number, window, id) in devices.list() {
        print(format_args!("device {number}: {} at {window:#x}", device_name(id).unwrap_or("unknown")));
    }
    let line = start_info.command_line();
    if let Some(errors) = number(line, "hostile.block_errors") {
        count_block_errors(&mut devices, errors)
    }
    let every = number(line, "hostile.every").unwrap_or(1);
    let max_faults = number(line, "hostile.max_faults").unwrap_or(MAX_FAULTS);
    let (mut cases, mut failed, mut wedged, mut row) = (0, 0, 0, "");
    let rounds = number(line, "hostile.rounds").unwrap_or(1);
    for round in 0..rounds {
        let outcome = run(&mut devices, every, &mut |case, verdict| {
            // A case that hangs is of the row that was printed last.
            if round == 0 && case.what != row {
                row = case.what;
                print(format_args!("{}: {row}", case.clause));
            }
            cases += 1;
            let (kind, fault) = match verdict {
                Verdict::Passed => return ControlFlow::Continue(()),
                Verdict::Failed(fault) => {
                    failed += 1;
                    ("failed", fault)
                }
                Verdict::Wedged(fault) => {
                    wedged += 1;
                    ("wedged", fault)
                }
            };
            print(format_args!(
                "{kind}: device {} queue {} value {:#x}: {}: expected {}, found {:#x}",
                case.device, case.queue, case.value, case.what, fault.what, fault.found
            ));
            if failed + wedged == max_faults {
                print(format_args!("ended after {max_faults} that did not pass"));
                close(cases, failed, wedged)
            }
            ControlFlow::Continue(())
        });
        if let Err((device, fault)) = outcome {
            print(format_args!(
                "failed: device {device} before the first case: expected {}, found {:#x}",
                fault.what, fault.found
            ));
            close(cases, failed + 1, wedged)
        }
    }
    close(cases, failed, wedged)
}

fn count_block_errors(devices: &mut Devices, errors: usize) -> ! {
    match block_errors(devices, errors, 100 * errors) {
        Ok(outcome) => {
            let (requests, errors, wrong) = (outcome.requests, outcome.errors, outcome.wrong_sectors);
            print(format_args!("{requests} requests, {errors} errors, {wrong} wrong sectors"));
            end(if wrong == 0 { 0 } else { FAILED })
        }
        Err(fault) => {
            print(format_args!("a block request: expected {}, found {:#x}", fault.what, fault.found));
            end(FAILED)
        }
    }
}

fn close(cases: usize, failed: usize, wedged: usize) -> ! {
    print(format_args!("{cases} cases, {failed} failed, {wedged} wedged"));
    end(if failed + wedged == 0 { 0 } else { FAILED })
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The few devices of a PC that a guest needs: a serial port for early messages and panics, the
//! reset line of the keyboard controller, ACPI's power registers, and a port on which a guest can
//! end with a status. Called by vCPU threads.

pub mod exit_status;
pub mod power;
pub mod reset;
pub mod serial;

pub use exit_status::ExitStatusPort;
pub use power::PowerRegisters;
pub use reset::ResetPort;
pub use serial::{InvalidSerialState, Serial, SerialState};

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A DHCP client for IPv4 (RFC 2131, options of RFC 2132), without system calls: frames and times in, frames and settings out.
//!
//! | file | holds |
//! |---|---|
//! | `client.rs` | the states of one interface between its first request and the release of its address |
//! | `message.rs` | messages to a server, and its replies with their options |
//! | `lease.rs` | what a reply gives: address, routes, name servers, times |
//! | `frame.rs` | Ethernet, IPv4 and UDP around a message |
//!
//! Everything that a server sends is a stranger's: a reply that breaks a rule of the format is ignored as a whole, and every list
//! that is taken from one has a maximum.

pub mod client;
pub mod frame;
pub mod lease;
pub mod message;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod message_tests;

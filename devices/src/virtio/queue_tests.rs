// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ritual: everything offered is returned once, kicks and interrupts are neither missed nor wasted, and a broken ring
//! is left alone.

use super::*;
use crate::testing::{Buffer, Driver, WRITE};

const EVENT_IDX: u64 = 1 << 29;

fn setup(features: u64) -> (Driver, Virtqueue) {
    let driver = Driver::new(&[8]);
    let queue = driver.virtqueue(0, features);
    (driver, queue)
}

fn done(chain: &mut Chain<'_>) -> Served {
    Served::Done(chain.writable.remaining() as u32)
}

#[test]
fn everything_offered_is_returned_once_in_order_with_one_interrupt() {
    for features in [0, EVENT_IDX] {
        let (mut driver, mut queue) = setup(features);
        let heads: Vec<u16> = (1..=5).map(|length| driver.offer(0, &[Buffer::Room(length)]).head).collect();
        queue.serve(&driver.memory, done);
        assert_eq!(driver.interrupts(), 1);
        let returned: Vec<_> = std::iter::from_fn(|| driver.returned(0)).collect();
        assert_eq!(returned, heads.into_iter().zip(1..=5).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_offered_while_the_queue_is_served_is_served_too() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    driver.offer(0, &[Buffer::Room(1)]);
    let memory = driver.memory.clone();
    let mut more = 3;
    queue.serve(&memory, |chain| {
        if more > 0 {
            more -= 1;
            driver.offer(0, &[Buffer::Room(1)]);
        }
        done(chain)
    });
    assert_eq!(std::iter::from_fn(|| driver.returned(0)).count(), 4);
    assert!(driver.is_kick_wanted(0));
}

#[test]
fn a_chain_for_later_stays_first_and_is_offered_again() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    let first = driver.offer(0, &[Buffer::Room(1)]).head;
    let second = driver.offer(0, &[Buffer::Room(2)]).head;
    queue.serve(&driver.memory, |_| Served::Later);
    assert_eq!((driver.returned(0), driver.interrupts()), (None, 0));
    let third = driver.offer(0, &[Buffer::Room(3)]).head;
    queue.serve(&driver.memory, done);
    let returned: Vec<_> = std::iter::from_fn(|| driver.returned(0)).collect();
    assert_eq!(returned, [(first, 1), (second, 2), (third, 3)]);
}

#[test]
fn a_broken_chain_is_returned_empty_and_the_next_one_is_served() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    driver.describe(0, 7, u64::MAX, 16, WRITE, 0);
    driver.offer_head(0, 7);
    let good = driver.offer(0, &[Buffer::Room(9)]).head;
    queue.serve(&driver.memory, done);
    assert_eq!(driver.returned(0), Some((7, 0)));
    assert_eq!(driver.returned(0), Some((good, 9)));
    assert!(!driver.interrupt.is_reset_needed());
}

/// Breaks the ring with `breakage`, and shows that it is never served again.
fn assert_broken_by(breakage: impl FnOnce(&mut Driver, &mut Virtqueue)) {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    breakage(&mut driver, &mut queue);
    queue.serve(&driver.memory, done);
    assert!(driver.interrupt.is_reset_needed());
    assert_eq!(driver.interrupts(), 1);
    driver.offer(0, &[Buffer::Room(1)]);
    queue.serve(&driver.memory, |_| panic!("a broken ring is never served"));
}

#[test]
fn a_head_outside_the_table_breaks_the_ring() {
    assert_broken_by(|driver, _| driver.offer_head(0, 8));
    assert_broken_by(|driver, _| driver.offer_head(0, 65535));
}

#[test]
fn an_index_that_jumps_forward_or_goes_back_breaks_the_ring() {
    assert_broken_by(|driver, _| driver.set_available_index(0, 9));
    assert_broken_by(|driver, _| driver.set_available_index(0, 65535));
}

#[test]
fn a_head_offered_twice_before_it_was_returned_breaks_the_ring() {
    assert_broken_by(|driver, _| {
        driver.describe(0, 1, 0x20_0000, 1, WRITE, 0);
        driver.offer_head(0, 1);
        driver.offer_head(0, 1);
    });
    assert_broken_by(|driver, queue| {
        let head = driver.offer(0, &[Buffer::Room(1)]).head;
        queue.serve(&driver.memory, |_| Served::Later);
        driver.offer_head(0, head);
    });
}

#[test]
fn indices_wrap_around_without_a_loss() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    driver.describe(0, 0, 0x20_0000, 1, WRITE, 0);
    for round in 0..70_000 {
        driver.offer_head(0, 0);
        queue.serve(&driver.memory, done);
        assert_eq!(driver.returned(0), Some((0, 1)), "round {round}");
        assert_eq!(driver.interrupts(), 1, "round {round}");
    }
}

#[test]
fn without_event_indices_the_drivers_flag_suppresses_the_interrupt() {
    let (mut driver, mut queue) = setup(0);
    driver.set_available_flags(0, 1);
    driver.offer(0, &[Buffer::Room(1)]);
    queue.serve(&driver.memory, done);
    assert!(driver.returned(0).is_some());
    assert_eq!(driver.interrupts(), 0);
}

#[test]
fn a_driver_that_never_stops_offering_gets_a_bounded_turn_and_another_kick() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    driver.describe(0, 0, 0x20_0000, 1, WRITE, 0);
    driver.describe(0, 1, 0x20_0000, 1, WRITE, 0);
    driver.offer_head(0, 0);
    let memory = driver.memory.clone();
    let mut served = 0;
    queue.serve(&memory, |chain| {
        served += 1;
        driver.offer_head(0, served % 2);
        done(chain)
    });
    assert_eq!(served, 32);
    assert_eq!(queue.kick().read().unwrap(), 1);
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The virtqueue: everything offered is returned exactly once, no notification or interrupt is
//! missed, a turn is bounded, and a broken ring is not touched.

use super::*;
use crate::testing::{Buffer, Driver, WRITE};
use crate::turn::{MAX_TURN_BYTES, MAX_TURN_TIME};
use std::panic::{AssertUnwindSafe, catch_unwind};

const EVENT_IDX: u64 = 1 << 29;

fn setup(features: u64) -> (Driver, Virtqueue) {
    let driver = Driver::new(&[8]);
    let queue = driver.virtqueue(0, features);
    (driver, queue)
}

fn done(chain: &mut Chain<'_>) -> Served {
    Served::Done(chain.writable.remaining() as u32)
}

fn serve(queue: &mut Virtqueue, work: impl FnMut(&mut Chain<'_>) -> Served) {
    queue.serve(&mut Turn::unlimited(), work);
}

/// Offers one chain with `length` writable bytes and returns its head.
fn offer(driver: &mut Driver, length: u32) -> u16 {
    driver.offer(0, &[Buffer::Writable(length)]).head
}

fn all_returned(driver: &mut Driver) -> Vec<(u16, u32)> {
    std::iter::from_fn(|| driver.returned(0)).collect()
}

#[test]
fn queue_returns_all_chains_once_in_order_and_interrupts() {
    // Without event indices the driver wants an interrupt for each used index (virtio 1.3,
    // 2.7.7.2).
    for (features, interrupts) in [(0, 5), (EVENT_IDX, 1)] {
        let (mut driver, mut queue) = setup(features);
        let heads: Vec<u16> = (1..=5).map(|length| offer(&mut driver, length)).collect();
        serve(&mut queue, done);
        assert_eq!(driver.interrupts(), interrupts);
        assert_eq!(all_returned(&mut driver), heads.into_iter().zip(1..=5).collect::<Vec<_>>());
    }
}

#[test]
fn interrupt_comes_while_later_chains_are_being_served() {
    for features in [0, EVENT_IDX] {
        let (mut driver, mut queue) = setup(features);
        let heads: Vec<u16> = (1..=4).map(|length| offer(&mut driver, length)).collect();
        let mut seen = Vec::new();
        serve(&mut queue, |chain| {
            // The driver takes what was returned so far, and requests an interrupt for the next
            // chain.
            seen.push((driver.interrupts(), driver.returned(0)));
            done(chain)
        });
        let expected = [(0, None), (1, Some((heads[0], 1))), (1, Some((heads[1], 2))), (1, Some((heads[2], 3)))];
        assert_eq!(seen, expected, "features {features:#x}");
    }
}

#[test]
fn queue_serves_what_is_offered_meanwhile() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    offer(&mut driver, 1);
    let mut more = 3;
    serve(&mut queue, |chain| {
        if more > 0 {
            more -= 1;
            offer(&mut driver, 1);
        }
        done(chain)
    });
    assert_eq!(all_returned(&mut driver).len(), 4);
    assert!(driver.is_notification_wanted(0));
}

#[test]
fn chain_for_later_stays_first() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    let first = offer(&mut driver, 1);
    let second = offer(&mut driver, 2);
    serve(&mut queue, |_| Served::Later);
    assert_eq!((driver.returned(0), driver.interrupts()), (None, 0));
    let third = offer(&mut driver, 3);
    serve(&mut queue, done);
    assert_eq!(all_returned(&mut driver), [(first, 1), (second, 2), (third, 3)]);
}

#[test]
fn broken_chain_is_returned_empty_and_the_next_is_served() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    driver.write_descriptor(0, 7, u64::MAX, 16, WRITE, 0);
    driver.offer_head(0, 7);
    let good = offer(&mut driver, 9);
    serve(&mut queue, done);
    assert_eq!(driver.returned(0), Some((7, 0)));
    assert_eq!(driver.returned(0), Some((good, 9)));
    assert!(!driver.interrupt.is_reset_needed());
}

#[test]
fn chains_are_finished_later_and_in_any_order() {
    for features in [0, EVENT_IDX] {
        let (mut driver, mut queue) = setup(features);
        let heads: Vec<u16> = (1..=8).map(|length| offer(&mut driver, length)).collect();
        let mut taken: Vec<Taken> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(taken.len(), 8);
        assert_eq!((driver.returned(0), driver.interrupts()), (None, 0));
        let mut expected = Vec::new();
        for position in [5, 0, 3, 4, 2, 0, 1, 0] {
            let one = taken.remove(position);
            let length = one.chain().writable.remaining() as u32;
            expected.push((heads[length as usize - 1], length));
            queue.finish(one, length);
            // Each is seen, and interrupted for, as it is finished.
            assert_eq!((driver.interrupts(), driver.returned(0)), (1, expected.last().copied()));
        }
        let again = offer(&mut driver, 1);
        assert_eq!(again, heads[0], "the driver may use a returned descriptor again");
        serve(&mut queue, done);
        assert_eq!(driver.returned(0), Some((again, 1)));
        assert!(!driver.interrupt.is_reset_needed());
    }
}

#[test]
fn taken_chain_is_not_read_again_from_guest_memory() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    let offered = driver.offer(0, &[Buffer::Readable(b"abc")]);
    let taken = queue.take().unwrap();
    driver.write_descriptor(0, offered.head, u64::MAX, u32::MAX, WRITE, 0);
    let mut bytes = [0; 3];
    taken.chain().readable.read_exact(&mut bytes).unwrap();
    assert_eq!((&bytes, taken.chain().readable.remaining()), (b"abc", 3));
    queue.finish(taken, 0);
}

#[test]
fn several_chains_are_published_behind_one_index_store() {
    for features in [0, EVENT_IDX] {
        let (mut driver, mut queue) = setup(features);
        let heads: Vec<u16> = (1..=3).map(|length| offer(&mut driver, length)).collect();
        let mut finished = Vec::new();
        let memory = driver.memory.clone();
        let chains = std::iter::from_fn(|| queue.take()).collect::<Vec<_>>().into_iter().inspect(|_| {
            // Before each of them is finished: none of the others shows.
            let index: u16 = memory.load(GuestAddress(0x1_8002), Ordering::Acquire).unwrap();
            finished.push(index);
        });
        queue.finish_many(chains.zip(1..=3));
        assert_eq!(finished, [0, 0, 0]);
        assert_eq!(driver.interrupts(), 1);
        assert_eq!(all_returned(&mut driver), heads.into_iter().zip(1..=3).collect::<Vec<_>>());
        queue.finish_many([]);
        assert_eq!(driver.interrupts(), 0);
    }
}

#[test]
fn event_index_inside_a_published_group_interrupts() {
    // The driver wants an interrupt for the chain with this number; groups of three are published.
    for (event, expected) in
        [(0, [1, 0, 0]), (1, [1, 0, 0]), (2, [1, 0, 0]), (3, [0, 1, 0]), (8, [0, 0, 1]), (9, [0; 3])]
    {
        let (mut driver, mut queue) = setup(EVENT_IDX);
        driver.memory.store(event, GuestAddress(0x1_5000 + 4 + 2 * 8), Ordering::Relaxed).unwrap();
        let interrupts = [0; 3].map(|_: u64| {
            (0..3).for_each(|_| _ = offer(&mut driver, 1));
            let chains: Vec<Taken> = std::iter::from_fn(|| queue.take()).collect();
            queue.finish_many(chains.into_iter().map(|taken| (taken, 1)));
            driver.interrupts()
        });
        assert_eq!(interrupts, expected, "event index {event}");
    }
}

#[test]
fn dropped_chain_panics_in_debug_and_breaks_the_ring() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    offer(&mut driver, 1);
    let other = offer(&mut driver, 1);
    assert_eq!(queue.queue_event().read().unwrap(), 2, "the driver's notifications");
    drop(queue.take());
    assert_eq!(queue.queue_event().read().unwrap(), 1, "the loop calls the worker, so that it is found out");
    let next = catch_unwind(AssertUnwindSafe(|| queue.take().is_none()));
    assert!(if cfg!(debug_assertions) { next.is_err() } else { next.unwrap() });
    assert!(driver.interrupt.is_reset_needed());
    assert!(queue.take().is_none(), "{other} is never handed out");
    assert_eq!(driver.returned(0), None);
}

#[test]
fn queue_that_is_dropped_with_its_chains_is_no_mistake() {
    for chains_first in [true, false] {
        let (mut driver, mut queue) = setup(EVENT_IDX);
        offer(&mut driver, 1);
        let taken = queue.take();
        if chains_first {
            drop(taken);
            drop(queue);
        } else {
            drop(queue);
            drop(taken);
        }
        assert!(!driver.interrupt.is_reset_needed());
    }
}

#[test]
#[should_panic(expected = "a chain of another queue")]
fn chain_of_another_queue_cannot_be_finished() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    offer(&mut driver, 1);
    let taken = queue.take().unwrap();
    setup(EVENT_IDX).1.finish(taken, 0);
}

/// Breaks the ring with `breakage`, and shows that it is never served again.
fn assert_broken_by(breakage: impl FnOnce(&mut Driver, &mut Virtqueue)) {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    breakage(&mut driver, &mut queue);
    serve(&mut queue, done);
    assert!(driver.interrupt.is_reset_needed());
    assert_eq!(driver.interrupts(), 1);
    offer(&mut driver, 1);
    serve(&mut queue, |_| panic!("a broken ring is never served"));
}

#[test]
fn head_outside_the_table_breaks_the_ring() {
    assert_broken_by(|driver, _| driver.offer_head(0, 8));
    assert_broken_by(|driver, _| driver.offer_head(0, 65535));
}

#[test]
fn index_that_jumps_forward_or_goes_back_breaks_the_ring() {
    assert_broken_by(|driver, _| driver.set_available_index(0, 9));
    assert_broken_by(|driver, _| driver.set_available_index(0, 65535));
}

#[test]
fn head_that_is_offered_while_in_flight_breaks_the_ring() {
    assert_broken_by(|driver, _| {
        driver.write_descriptor(0, 1, 0x20_0000, 1, WRITE, 0);
        driver.offer_head(0, 1);
        driver.offer_head(0, 1);
    });
    assert_broken_by(|driver, queue| {
        let head = offer(driver, 1);
        serve(queue, |_| Served::Later);
        driver.offer_head(0, head);
    });
}

#[test]
fn broken_ring_is_not_written_when_its_chains_are_finished() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    let head = offer(&mut driver, 1);
    let taken = queue.take().unwrap();
    driver.offer_head(0, head);
    assert!(queue.take().is_none());
    assert!(driver.interrupt.is_reset_needed());
    queue.finish(taken, 1);
    assert_eq!((driver.returned(0), driver.interrupts()), (None, 1));
}

#[test]
fn indices_wrap_around_without_a_loss() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    driver.write_descriptor(0, 0, 0x20_0000, 1, WRITE, 0);
    for round in 0..70_000 {
        driver.offer_head(0, 0);
        serve(&mut queue, done);
        assert_eq!(driver.returned(0), Some((0, 1)), "round {round}");
        assert_eq!(driver.interrupts(), 1, "round {round}");
    }
}

#[test]
fn flag_suppresses_the_interrupt_without_event_indices() {
    let (mut driver, mut queue) = setup(0);
    driver.set_available_flags(0, 1);
    offer(&mut driver, 1);
    serve(&mut queue, done);
    assert!(driver.returned(0).is_some());
    assert_eq!(driver.interrupts(), 0);
}

#[test]
fn endless_offers_get_a_bounded_turn_and_another() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    driver.write_descriptor(0, 0, 0x20_0000, 1, WRITE, 0);
    driver.write_descriptor(0, 1, 0x20_0000, 1, WRITE, 0);
    driver.offer_head(0, 0);
    let mut served = 0;
    serve(&mut queue, |chain| {
        served += 1;
        driver.offer_head(0, served % 2);
        done(chain)
    });
    assert_eq!(served, 32);
    assert_eq!(queue.queue_event().read().unwrap(), 1);
}

#[test]
fn endless_broken_chains_get_a_bounded_turn() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    for index in 0..8 {
        driver.write_descriptor(0, index, u64::MAX, 16, WRITE, 0);
        driver.offer_head(0, index);
    }
    assert!(queue.take().is_none());
    assert_eq!(queue.queue_event().read().unwrap(), 1, "the next turn looks for more");
    assert_eq!(all_returned(&mut driver).len(), 8);
}

/// Serves eight chains of which each takes `work`, in a turn of an event loop. Returns how many
/// were served, and whether the queue was rescheduled.
fn served_in_a_turn(bytes: usize, mut work: impl FnMut(&AtomicBool)) -> (usize, bool) {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    (0..8).for_each(|_| _ = offer(&mut driver, 64 << 10));
    let _ = queue.queue_event().read();
    let stop = AtomicBool::new(false);
    let mut served = 0;
    queue.serve(&mut Turn::new(&stop), |chain| {
        served += 1;
        work(&stop);
        // Only what is really written counts.
        chain.writable.skip(bytes);
        Served::Done(bytes as u32)
    });
    assert_eq!(all_returned(&mut driver).len(), served);
    (served, queue.queue_event().read().is_ok())
}

#[test]
fn turn_ends_after_its_time_or_when_the_loop_stops() {
    assert_eq!(served_in_a_turn(0, |_| std::thread::sleep(MAX_TURN_TIME)), (1, true));
    assert_eq!(served_in_a_turn(0, |stop| stop.store(true, Ordering::Relaxed)), (1, true));
}

#[test]
fn turn_ends_after_its_bytes() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    let stop = AtomicBool::new(false);
    let mut turn = Turn::new(&stop);
    (0..8).for_each(|_| _ = offer(&mut driver, 64 << 10));
    turn.spend(MAX_TURN_BYTES - (100 << 10));
    queue.serve(&mut turn, |chain| {
        chain.writable.skip(64 << 10);
        Served::Done(64 << 10)
    });
    assert!(turn.is_over());
    // Fewer if the machine was so busy that the time was up before.
    assert!(all_returned(&mut driver).len() <= 2);
    assert!(queue.queue_event().read().is_ok());
}

#[test]
fn queue_is_served_in_turns_until_all_is_returned() {
    let (mut driver, mut queue) = setup(EVENT_IDX);
    let heads: Vec<u16> = (1..=8).map(|length| offer(&mut driver, length)).collect();
    let stop = AtomicBool::new(false);
    let mut turns = 0;
    while queue.queue_event().read().is_ok() {
        turns += 1;
        let mut turn = Turn::new(&stop);
        turn.spend(MAX_TURN_BYTES - 1);
        queue.serve(&mut turn, |chain| {
            let length = chain.writable.remaining();
            chain.writable.skip(length);
            Served::Done(length as u32)
        });
    }
    assert!(turns >= 8, "{turns}");
    assert_eq!(all_returned(&mut driver), heads.into_iter().zip(1..=8).collect::<Vec<_>>());
    assert!(driver.is_notification_wanted(0));
}

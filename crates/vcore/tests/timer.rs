//! The timer's policy, move by move: a running timer for a vCPU that runs, the wait queue's timeout
//! for one that naps.

#![cfg(not(loom))]

use proptest::prelude::*;
use vcore::timer::{RunningTimer, VcpuTimer};

#[test]
fn follows_the_vcpu() {
    let mut timer = VcpuTimer::new(0);
    assert_eq!(timer.enter(), RunningTimer::Keep);
    timer.set(Some(1_000));
    assert_eq!(timer.enter(), RunningTimer::Arm(1_000));
    assert_eq!(timer.enter(), RunningTimer::Keep, "a short exit does not touch it");
    assert_eq!(timer.nap(), (Some(1_000), RunningTimer::Disarm));
    assert_eq!(timer.enter(), RunningTimer::Arm(1_000), "woken early: back to the running timer");
    timer.set(Some(2_000));
    assert_eq!(timer.enter(), RunningTimer::Arm(2_000));
    timer.set(None);
    assert_eq!(timer.enter(), RunningTimer::Disarm);
    assert_eq!(timer.nap(), (None, RunningTimer::Keep));
}

#[test]
fn expires_once() {
    let mut timer = VcpuTimer::new(0);
    timer.set(Some(1_000));
    assert_eq!(timer.enter(), RunningTimer::Arm(1_000));
    assert!(!timer.expired(999));
    assert!(timer.expired(1_000));
    assert!(!timer.expired(2_000));
    assert_eq!(timer.enter(), RunningTimer::Keep);
    timer.set(Some(3_000));
    assert_eq!(timer.nap(), (Some(3_000), RunningTimer::Keep), "set and halted at once: nothing to disarm");
    assert!(timer.expired(3_000));
}

#[derive(Clone, Debug)]
enum Move {
    Set(Option<u64>),
    Enter,
    Nap,
    Expired(u64),
}

proptest! {
    /// In the guest the hardware holds exactly the deadline; in a nap it holds nothing.
    #[test]
    fn hardware_agrees_with_the_deadline(moves in prop::collection::vec(prop_oneof![
        prop::option::of(0u64..50).prop_map(Move::Set),
        Just(Move::Enter),
        Just(Move::Nap),
        (0u64..50).prop_map(Move::Expired),
    ], 1..100)) {
        let (mut timer, mut hardware, mut deadline) = (VcpuTimer::new(0), None, None);
        let apply = |hardware: &mut Option<u64>, action| match action {
            RunningTimer::Keep => {}
            RunningTimer::Arm(at) => *hardware = Some(at),
            RunningTimer::Disarm => {
                assert!(hardware.is_some(), "disarmed what was not armed");
                *hardware = None;
            }
        };
        for step in moves {
            match step {
                Move::Set(at) => {
                    timer.set(at);
                    deadline = at;
                }
                Move::Enter => {
                    apply(&mut hardware, timer.enter());
                    prop_assert_eq!(hardware, deadline);
                }
                Move::Nap => {
                    let (timeout, action) = timer.nap();
                    apply(&mut hardware, action);
                    prop_assert_eq!(timeout, deadline);
                    prop_assert_eq!(hardware, None);
                }
                Move::Expired(now) => {
                    let due = deadline.is_some_and(|at| at <= now);
                    prop_assert_eq!(timer.expired(now), due);
                    if due {
                        deadline = None;
                        // It fired, or it is the caller that noticed first and takes it down.
                        hardware = None;
                    }
                }
            }
        }
    }
}

//! The text form of the tunables, and what a running vcore sees of a change.

#![cfg(not(loom))]

use std::sync::Arc;
use vcore::{Cause, FutexPort, NoKick, SharedTunables, Thread, Tunables, Vcore};

#[test]
fn prints_what_it_reads() {
    let text = "halt_poll_ns=200000 halt_poll_ns_grow=2 halt_poll_ns_grow_start=10000 halt_poll_ns_shrink=0";
    let tunables: Tunables = text.parse().unwrap();
    assert_eq!(tunables, Tunables { halt_poll_ns_shrink: 0, ..Tunables::X86 });
    assert_eq!(tunables.to_string(), text);
}

#[test]
fn what_is_not_named_keeps_its_value() {
    let tunables = Tunables::X86.with(" halt_poll_ns_grow=0x10\n halt_poll_ns_grow=3 ").unwrap();
    assert_eq!(tunables, Tunables { halt_poll_ns_grow: 3, ..Tunables::X86 });
    assert_eq!("".parse::<Tunables>().unwrap(), Tunables::POWERPC);
}

#[test]
fn errors_name_the_key() {
    for (text, message) in [
        (
            "halt_pol_ns=1",
            "unknown tunable \"halt_pol_ns\": there are halt_poll_ns, halt_poll_ns_grow, halt_poll_ns_grow_start and halt_poll_ns_shrink",
        ),
        ("halt_poll_ns", "tunable halt_poll_ns has no value: write halt_poll_ns=NUMBER"),
        ("halt_poll_ns=", "tunable halt_poll_ns has no value: write halt_poll_ns=NUMBER"),
        ("halt_poll_ns_grow=-1", "tunable halt_poll_ns_grow cannot be negative, got -1: write 0 or more"),
        (
            "halt_poll_ns=4294967296",
            "tunable halt_poll_ns is too large, got 4294967296: the most is 4294967295",
        ),
        (
            "halt_poll_ns=99999999999999999999999",
            "tunable halt_poll_ns is too large, got 99999999999999999999999: the most is 4294967295",
        ),
        (
            "halt_poll_ns_shrink=2us",
            "tunable halt_poll_ns_shrink must be a number, got \"2us\": write decimal digits, or 0x and hexadecimal ones",
        ),
        (
            "halt_poll_ns=+5",
            "tunable halt_poll_ns must be a number, got \"+5\": write decimal digits, or 0x and hexadecimal ones",
        ),
        (
            "halt_poll_ns=0x",
            "tunable halt_poll_ns must be a number, got \"0x\": write decimal digits, or 0x and hexadecimal ones",
        ),
    ] {
        assert_eq!(text.parse::<Tunables>().unwrap_err().to_string(), message);
    }
    assert_eq!("halt_poll_ns=4294967295".parse::<Tunables>().unwrap().halt_poll_ns, u32::MAX);
}

#[test]
fn a_long_unknown_key_is_cut_at_a_character() {
    let key = "ü".repeat(60);
    let message = format!("{key}=1").parse::<Tunables>().unwrap_err().to_string();
    assert!(message.starts_with(&format!("unknown tunable \"{}\":", "ü".repeat(20))), "{message}");
}

/// The next idle period sees a change, for the better and for the worse.
#[test]
fn a_change_is_seen_by_the_next_idle_period() {
    let tunables = Arc::new(SharedTunables::new(Tunables::NO_POLL));
    let vcore: Vcore<_> = Vcore::new(1, FutexPort::new(0, 1, tunables.clone(), NoKick));
    let me = Thread::new(0).unwrap();
    let idle = || {
        let deadline = vcore::futex::monotonic_ns() + 1_000_000;
        let causes = vcore.cede(me, Some(deadline)).unwrap();
        assert!(causes.contains(Cause::Decrementer));
        vcore.port().stats(me).snapshot().halt_attempted_poll
    };
    use vcore::Port;

    assert_eq!(idle(), 0);
    // Longer than the blocks here, so that the first block under it grows the interval from 0.
    tunables.set(Tunables { halt_poll_ns: 1_000_000_000, ..Tunables::X86 });
    assert_eq!(idle(), 0, "the interval still is 0 when this period begins");
    assert_eq!(vcore.halt_poll_ns(), 10_000);
    assert_eq!(idle(), 1, "and 10 us when this one does");
    assert_eq!(vcore.halt_poll_ns(), 20_000);
    tunables.set(Tunables::NO_POLL);
    assert_eq!(idle(), 1, "polling has stopped with the next period");
    assert_eq!(vcore.halt_poll_ns(), 0);
}

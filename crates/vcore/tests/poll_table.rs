//! The polling interval's arithmetic against a table worked out by hand from
//! Documentation/virt/kvm/halt-polling.rst and the end of `kvmppc_vcore_blocked`.

#![cfg(not(loom))]

use vcore::Tunables;
use vcore::poll::{Block, adjust};

/// max, grow, grow_start, shrink; interval before; length of the block; interval after.
type Row = ([u32; 4], u32, u64, u32, &'static str);

const DEFAULT: [u32; 4] = [200_000, 2, 10_000, 2];

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Growing.
    (DEFAULT,                        0,      50_000,  10_000, "from 0 to grow_start"),
    (DEFAULT,                   10_000,      50_000,  20_000, "doubled"),
    (DEFAULT,                    3_000,      50_000,  10_000, "3000 * 2 is below grow_start"),
    (DEFAULT,                  150_000,     180_000, 200_000, "300000 is cut to the maximum"),
    (DEFAULT,                  200_000,     200_001, 100_000, "at the maximum it cannot grow; longer than the maximum: shrink"),
    ([200_000, 0, 10_000, 2],   20_000,      50_000,  20_000, "grow 0: never grows"),
    ([200_000, 0, 10_000, 2],        0,      50_000,       0, "grow 0: not from 0 either"),
    ([200_000, 1, 10_000, 2],        0,      50_000,  10_000, "grow 1 still starts"),
    ([200_000, 1, 10_000, 2],   10_000,      50_000,  10_000, "and then stays"),
    ([200_000, 2, 0, 2],             0,      50_000,       0, "grow_start 0: 0 * 2 is 0"),
    ([5_000, 2, 10_000, 2],          0,       1_000,   5_000, "grow_start above the maximum is cut"),
    ([u32::MAX, 2, 10_000, 2], 2_147_483_648, 3_000_000_000, 10_000, "2^31 * 2 wraps to 0, then grow_start"),
    // A successful poll leaves it alone.
    (DEFAULT,                   40_000,      39_999,  40_000, "shorter than the interval"),
    (DEFAULT,                   40_000,      40_000,  40_000, "as long as the interval"),
    (DEFAULT,                   40_000,      40_001,  80_000, "one longer: grows"),
    (DEFAULT,                        0,           0,       0, "a block of 0 is within an interval of 0"),
    // Shrinking.
    (DEFAULT,                  100_000,     200_001,  50_000, "longer than the maximum: halved"),
    (DEFAULT,                   10_000,   1_000_000,   5_000, "below grow_start it stays, as vcores have it"),
    (DEFAULT,                        1,   1_000_000,       0, "1 / 2 is 0"),
    (DEFAULT,                        0,   1_000_000,       0, "0 has nothing to shrink"),
    ([200_000, 2, 10_000, 0],  100_000,     200_001,       0, "shrink 0: to 0 at once"),
    ([200_000, 2, 10_000, 1],  100_000,     200_001, 100_000, "shrink 1: never"),
    ([200_000, 2, 10_000, 9],  100_000,     200_001,  11_111, "a quotient is rounded down"),
    // Exactly as long as the maximum: neither rule applies.
    (DEFAULT,                  100_000,     200_000, 100_000, "not above, not below the maximum"),
    // The maximum.
    ([0, 2, 10_000, 2],        100_000,      50_000,       0, "maximum 0: no polling"),
    ([50_000, 2, 10_000, 2],   100_000,      80_000,  50_000, "lowered meanwhile: within the interval, then cut"),
    ([30_000, 2, 10_000, 2],   100_000,     120_000,  30_000, "lowered meanwhile: halved to 50000, then cut"),
    // 64-bit lengths.
    (DEFAULT,                  100_000, 4_294_967_296 + 50_000, 50_000, "the length is not cut to 32 bits"),
];

fn tunables(values: [u32; 4]) -> Tunables {
    let [max, grow, start, shrink] = values;
    Tunables {
        halt_poll_ns: max,
        halt_poll_ns_grow: grow,
        halt_poll_ns_grow_start: start,
        halt_poll_ns_shrink: shrink,
    }
}

#[test]
fn table() {
    for (set, interval, length, expected, why) in TABLE {
        // Where the clock starts must not matter.
        for start in [0, 77_000_000_000] {
            let block = Block { start, poll_end: start, end: start + length, waited: true, valid: true };
            assert_eq!(adjust(*interval, &block, &tunables(*set)), *expected, "{why}");
        }
    }
}

#[test]
fn a_wake_up_that_brought_nothing_shrinks() {
    let block = Block { start: 0, poll_end: 0, end: 50_000, waited: true, valid: false };
    assert_eq!(adjust(40_000, &block, &tunables(DEFAULT)), 20_000);
    assert_eq!(adjust(40_000, &block, &tunables([200_000, 2, 10_000, 0])), 0);
}

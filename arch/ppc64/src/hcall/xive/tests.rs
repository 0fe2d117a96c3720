//! The H_INT_* calls: arguments in PAPR's order, and what reaches the hypervisor.

use super::*;
use crate::fake::{Asked, ESB_VALUE, Guest, LSI};
use crate::hcall::Effect;
use crate::papr::nr::*;

const LISN: u64 = 0x1000;
/// A queue in the first megabyte.
const QUEUE: u64 = 0x2_0000;

const ALL: &[u64] = &[
    H_INT_GET_SOURCE_INFO,
    H_INT_SET_SOURCE_CONFIG,
    H_INT_GET_SOURCE_CONFIG,
    H_INT_GET_QUEUE_INFO,
    H_INT_SET_QUEUE_CONFIG,
    H_INT_GET_QUEUE_CONFIG,
    H_INT_ESB,
    H_INT_SYNC,
    H_INT_RESET,
];

/// Each call with these arguments gives this code and does nothing.
fn refused(guest: &Guest, nr: u64, table: &[(&[u64], i64)]) {
    for (args, ret) in table {
        let answer = guest.hcall(nr, args);
        assert_eq!((answer.ret, answer.effect), (*ret, Effect::None), "{nr:#x} {args:x?}");
        assert_eq!(guest.fake.asked(), [], "{nr:#x} {args:x?}");
    }
}

#[test]
fn without_a_xive_there_are_no_such_calls() {
    let mut guest = Guest::new();
    guest.platform.xive = None;
    for nr in ALL {
        refused(&guest, *nr, &[(&[], H_FUNCTION), (&[u64::MAX; 9], H_FUNCTION)]);
    }
}

#[test]
fn reserved_flags_are_refused_by_every_call() {
    let guest = Guest::new();
    for nr in ALL {
        refused(&guest, *nr, &[(&[1 << 63, LISN], H_PARAMETER), (&[4, LISN], H_PARAMETER)]);
    }
}

#[test]
fn a_source_has_its_two_pages() {
    let guest = Guest::new();
    let answer = guest.hcall(H_INT_GET_SOURCE_INFO, &[0, LISN]);
    let trigger = layout::XIVE_ESB + LISN * layout::XIVE_ESB_STRIDE;
    assert_eq!(answer.ret, H_SUCCESS);
    assert_eq!(answer.args[..4], [0, trigger + layout::XIVE_PAGE, trigger, 16]);
    let unknown: &[(&[u64], i64)] = &[(&[0, 4], H_P2), (&[0, LISN | 1 << 32], H_P2), (&[0, u64::MAX], H_P2)];
    refused(&guest, H_INT_GET_SOURCE_INFO, unknown);
    refused(&guest, H_INT_GET_SOURCE_CONFIG, unknown);
    refused(&guest, H_INT_ESB, unknown);
    refused(&guest, H_INT_SYNC, unknown);
}

#[test]
fn a_level_source_is_reached_by_hcall_only() {
    let guest = Guest::new();
    let answer = guest.hcall(H_INT_GET_SOURCE_INFO, &[0, u64::from(LSI)]);
    assert_eq!(answer.ret, H_SUCCESS);
    assert_eq!(answer.args[..4], [8 | 4, u64::MAX, u64::MAX, 16]);
    let end = guest.hcall(H_INT_ESB, &[0, u64::from(LSI), 0, 0]);
    assert_eq!((end.ret, end.args[0]), (H_SUCCESS, ESB_VALUE));
    assert_eq!(guest.fake.asked(), [Asked::Esb { lisn: LSI, offset: 0, store: None }]);
}

#[test]
fn set_source_config_arguments() {
    let guest = Guest::new();
    let table: &[(&[u64], i64)] = &[
        (&[0, 4, 0, 0], H_P2),
        (&[0, LISN, 2, 0], H_P3),
        (&[0, LISN, 8 | 1 << 32, 0], H_P3),
        (&[0, LISN, 0, 7], H_P4),
        (&[0, LISN, 0, 8], H_P4),
        (&[0, LISN, 0, 0xfe], H_P4),
        (&[0, LISN, 0, 0x1ff], H_P4),
        (&[0, LISN, 0, 1 << 32], H_P4),
        (&[2, LISN, 0, 0, 0x8000_0000], H_P5),
        (&[2, LISN, 0, 0, 1 << 32], H_P5),
    ];
    refused(&guest, H_INT_SET_SOURCE_CONFIG, table);
}

#[test]
fn a_source_is_routed_and_read_back() {
    let guest = Guest::new();
    let config = || {
        let answer = guest.hcall(H_INT_GET_SOURCE_CONFIG, &[0, LISN]);
        assert_eq!(answer.ret, H_SUCCESS);
        [answer.args[0], answer.args[1], answer.args[2]]
    };
    assert_eq!(config(), [0, 0xff, 0], "masked at first");

    assert_eq!(guest.ret(H_INT_SET_SOURCE_CONFIG, &[2, LISN, 8, 6, 0x7fff_ffff]), H_SUCCESS);
    let route = XiveRoute { server: 8, priority: 6, eisn: 0x7fff_ffff, masked: false };
    assert_eq!(guest.fake.asked(), [Asked::Source(0x1000, route)]);
    assert_eq!(config(), [8, 6, 0x7fff_ffff]);

    // Without the flag the number in the queue stays what it was, whatever is passed.
    assert_eq!(guest.ret(H_INT_SET_SOURCE_CONFIG, &[0, LISN, 9, 5, u64::MAX]), H_SUCCESS);
    assert_eq!(config(), [9, 5, 0x7fff_ffff]);

    assert_eq!(guest.ret(H_INT_SET_SOURCE_CONFIG, &[1, LISN, 9, 5]), H_SUCCESS);
    assert_eq!(config()[1], 0xff, "masked by the flag");

    // The masking priority needs no target.
    assert_eq!(guest.ret(H_INT_SET_SOURCE_CONFIG, &[0, LISN, 77, 0xff]), H_SUCCESS);
    assert_eq!(config()[1], 0xff, "masked by the priority");
}

#[test]
fn a_route_that_the_hypervisor_refused_is_not_there() {
    let guest = Guest::new();
    assert_eq!(guest.ret(H_INT_SET_SOURCE_CONFIG, &[2, LISN, 8, 6, 5]), H_SUCCESS);
    guest.fake.refuse(true);
    assert_eq!(guest.ret(H_INT_SET_SOURCE_CONFIG, &[2, LISN, 9, 1, 6]), H_HARDWARE);
    let answer = guest.hcall(H_INT_GET_SOURCE_CONFIG, &[0, LISN]);
    assert_eq!(answer.args[..3], [8, 6, 5]);
}

#[test]
fn queue_calls_check_target_and_priority() {
    let guest = Guest::new();
    for nr in [H_INT_GET_QUEUE_INFO, H_INT_SET_QUEUE_CONFIG, H_INT_GET_QUEUE_CONFIG] {
        let table: &[(&[u64], i64)] = &[
            (&[2, 0, 0, QUEUE, 16], H_PARAMETER),
            (&[0, 2, 0, QUEUE, 16], H_P2),
            (&[0, u64::MAX, 0, QUEUE, 16], H_P2),
            (&[0, 0, 7, QUEUE, 16], H_P3),
            (&[0, 0, 0xff, QUEUE, 16], H_P3),
            (&[0, 0, 1 << 32, QUEUE, 16], H_P3),
        ];
        refused(&guest, nr, table);
    }
}

#[test]
fn queue_memory_is_checked() {
    let guest = Guest::new();
    let end = 1 << 20;
    let high = 4 << 30;
    let table: &[(&[u64], i64)] = &[
        (&[0, 0, 0, QUEUE + 8, 16], H_P4),
        (&[0, 0, 0, QUEUE + 0x1000, 16], H_P4),
        (&[0, 0, 0, end, 16], H_P4),
        (&[0, 0, 0, high + 0x2_0000, 16], H_P4),
        (&[0, 0, 0, !0xffff, 16], H_P4),
        (&[0, 0, 0, QUEUE, 12], H_P5),
        (&[0, 0, 0, QUEUE, 21], H_P5),
        (&[0, 0, 0, QUEUE, 16 | 1 << 32], H_P5),
        (&[0, 0, 0, QUEUE, u64::MAX], H_P5),
    ];
    refused(&guest, H_INT_SET_QUEUE_CONFIG, table);
    // The last page of each piece of RAM, and one beyond 4 GiB.
    for address in [end - 0x1_0000, high - 0x2_0000, high, high + 0x1_0000] {
        assert_eq!(guest.ret(H_INT_SET_QUEUE_CONFIG, &[1, 8, 6, address, 16]), H_SUCCESS, "{address:#x}");
    }
}

#[test]
fn a_queue_is_set_read_and_taken_away() {
    let guest = Guest::new();
    let info = guest.hcall(H_INT_GET_QUEUE_INFO, &[0, 8, 6]);
    assert_eq!((info.ret, info.args[0], info.args[1]), (H_SUCCESS, u64::MAX, 0));

    assert_eq!(guest.ret(H_INT_SET_QUEUE_CONFIG, &[1, 8, 6, QUEUE, 16]), H_SUCCESS);
    let queue = XiveQueue { address: QUEUE, shift: 16, toggle: 1, index: 0 };
    assert_eq!(guest.fake.asked(), [Asked::Queue { server: 8, priority: 6, queue }]);
    let config = guest.hcall(H_INT_GET_QUEUE_CONFIG, &[0, 8, 6, 0xaa]);
    assert_eq!((config.ret, config.args[..4].to_vec()), (H_SUCCESS, vec![1, QUEUE, 16, 0xaa]));
    let debug = guest.hcall(H_INT_GET_QUEUE_CONFIG, &[1, 8, 6]);
    assert_eq!(debug.args[3], 1 << 62);
    let other = guest.hcall(H_INT_GET_QUEUE_CONFIG, &[0, 9, 6]);
    assert_eq!(other.args[..3], [0, 0, 0]);

    // Whatever the address is, length zero is no queue.
    assert_eq!(guest.ret(H_INT_SET_QUEUE_CONFIG, &[0, 8, 6, u64::MAX, 0]), H_SUCCESS);
    assert_eq!(guest.hcall(H_INT_GET_QUEUE_CONFIG, &[0, 8, 6]).args[..3], [0, 0, 0]);

    guest.fake.refuse(true);
    for nr in [H_INT_GET_QUEUE_INFO, H_INT_SET_QUEUE_CONFIG, H_INT_GET_QUEUE_CONFIG] {
        assert_eq!(guest.ret(nr, &[0, 8, 6, QUEUE, 16]), H_HARDWARE, "{nr:#x}");
    }
}

#[test]
fn esb_loads_and_stores() {
    let guest = Guest::new();
    let table: &[(&[u64], i64)] = &[
        (&[2, LISN, 0], H_PARAMETER),
        (&[0, LISN, 4], H_P3),
        (&[0, LISN, 0x1_0000], H_P3),
        (&[0, LISN, u64::MAX - 7], H_P3),
    ];
    refused(&guest, H_INT_ESB, table);
    let load = guest.hcall(H_INT_ESB, &[0, LISN, 0xfff8, 5]);
    assert_eq!((load.ret, load.args[0]), (H_SUCCESS, ESB_VALUE));
    let store = guest.hcall(H_INT_ESB, &[1, LISN, 0x400, 5]);
    assert_eq!((store.ret, store.args[0]), (H_SUCCESS, u64::MAX));
    let esb = |offset, store| Asked::Esb { lisn: 0x1000, offset, store };
    assert_eq!(guest.fake.asked(), [esb(0xfff8, None), esb(0x400, Some(5))]);
}

#[test]
fn sync_and_reset() {
    let guest = Guest::new();
    assert_eq!(guest.ret(H_INT_SET_SOURCE_CONFIG, &[2, LISN, 8, 6, 5]), H_SUCCESS);
    assert_eq!(guest.ret(H_INT_SYNC, &[0, LISN]), H_SUCCESS);
    assert_eq!(guest.fake.asked()[1..], [Asked::Sync(0x1000)]);

    guest.fake.refuse(true);
    assert_eq!(guest.ret(H_INT_SYNC, &[0, LISN]), H_HARDWARE);
    assert_eq!(guest.ret(H_INT_RESET, &[0]), H_HARDWARE);
    assert_eq!(guest.hcall(H_INT_GET_SOURCE_CONFIG, &[0, LISN]).args[1], 6, "still routed");

    guest.fake.refuse(false);
    assert_eq!(guest.ret(H_INT_RESET, &[0]), H_SUCCESS);
    assert_eq!(guest.fake.asked(), [Asked::XiveReset]);
    assert_eq!(guest.hcall(H_INT_GET_SOURCE_CONFIG, &[0, LISN]).args[1], 0xff);
}

//! The hcalls but for the XIVE's: arguments, results and return codes.

use super::*;
use crate::fake::{Asked, Guest};
use crate::layout::VIO_REG;
use crate::lpcr;
use crate::papr::nr::*;
use crate::papr::ret::*;
use devices::console::Console;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

const VTY: u64 = VIO_REG as u64;
const UNSUPPORTED_63: i64 = H_UNSUPPORTED_FLAG_START - 63;

/// A guest with a pty, and the pty's other side, which never blocks.
fn with_pty() -> (Guest, File) {
    let console = Console::pty().unwrap();
    let path = console.pty_path().unwrap().to_owned();
    let guest = Guest::with_console(console);
    let other =
        OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY | O_NONBLOCK).open(path).unwrap();
    (guest, other)
}

// From <fcntl.h>, the same on x86 and POWER.
const O_NOCTTY: i32 = 0o400;
const O_NONBLOCK: i32 = 0o4000;

/// Everything that waits on the other side.
fn drain(other: &mut File) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = other.read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    all
}

#[test]
fn the_table_has_each_number_once() {
    for (index, hcall) in TABLE.iter().enumerate() {
        assert!(TABLE[index + 1..].iter().all(|other| other.nr != hcall.nr), "{}", hcall.name);
    }
}

#[test]
fn unknown_numbers_are_h_function_and_are_counted() {
    let guest = Guest::new();
    for nr in [0, 0x4, 0x55, 0x4fc, 0x500, 0xf080, 0xf080, u64::MAX] {
        let answer = guest.hcall(nr, &[1, 2, 3]);
        assert_eq!((answer.ret, answer.effect), (H_FUNCTION, Effect::None), "{nr:#x}");
        assert_eq!(answer.args[..3], [1, 2, 3]);
    }
    let seen: Vec<_> = guest.platform.counters.seen().collect();
    assert_eq!(
        seen,
        [(Some(0), 1), (Some(4), 1), (Some(0x4fc), 1), (Some(0xf080), 2), (None, 3)],
        "0x55, 0x500 and u64::MAX share the last row"
    );
}

#[test]
fn the_first_call_of_an_unknown_number_is_told_apart_from_calls_of_rtas() {
    let counters = Counters::default();
    assert!(counters.count(H_RTAS));
    assert!(counters.count(0xf080), "the first, though H_RTAS came before");
    assert!(!counters.count(0xf080));
}

#[test]
fn put_term_char_sends_the_first_character_from_the_top_byte() {
    let (guest, mut other) = with_pty();
    let words = [u64::from_be_bytes(*b"01234567"), u64::from_be_bytes(*b"89abcdef")];
    for length in 0..=16 {
        assert_eq!(guest.ret(H_PUT_TERM_CHAR, &[VTY, length, words[0], words[1]]), H_SUCCESS);
        assert_eq!(drain(&mut other), b"0123456789abcdef"[..length as usize]);
    }
}

#[test]
fn terminal_arguments_are_checked() {
    let guest = Guest::new();
    for args in [[VTY, 17], [VTY, u64::MAX], [VTY, 1 << 32], [VTY + 1, 1], [0, 1], [VTY | 1 << 32, 1]] {
        assert_eq!(guest.ret(H_PUT_TERM_CHAR, &args), H_PARAMETER, "{args:x?}");
    }
    for term in [0, VTY + 1, VTY | 1 << 32, u64::MAX] {
        assert_eq!(guest.ret(H_GET_TERM_CHAR, &[term]), H_PARAMETER, "{term:#x}");
    }
}

#[test]
fn get_term_char_packs_like_put() {
    let (guest, mut other) = with_pty();
    other.write_all(b"hello, wide world").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut got = Vec::new();
    while got.len() < 17 {
        assert!(Instant::now() < deadline, "input did not arrive; got {got:?}");
        guest.platform.console.pump().unwrap();
        let answer = guest.hcall(H_GET_TERM_CHAR, &[VTY, 7, 7]);
        assert_eq!(answer.ret, H_SUCCESS);
        let [length, high, low, ..] = answer.args;
        let bytes = [high.to_be_bytes(), low.to_be_bytes()].concat();
        assert!(bytes[length as usize..].iter().all(|&b| b == 0), "nothing stale after the characters");
        got.extend_from_slice(&bytes[..length as usize]);
    }
    assert_eq!(got, b"hello, wide world");
    let empty = guest.hcall(H_GET_TERM_CHAR, &[VTY, 7, 7]);
    assert_eq!((empty.ret, &empty.args[..3]), (H_SUCCESS, &[0, 0, 0][..]));
}

/// Whatever was answered with H_SUCCESS arrives, once and in order, however often the terminal was full.
#[test]
fn a_full_terminal_is_busy_and_loses_nothing() {
    let (guest, mut other) = with_pty();
    let (mut sent, mut arrived, mut busy) = (Vec::new(), Vec::new(), 0);
    // 13 divides no buffer size, so the terminal fills up in the middle of a call.
    for number in 0..40_000u64 {
        let chars: Vec<u8> = format!("{number:012}\n").into_bytes();
        let mut padded = [0; 16];
        padded[..13].copy_from_slice(&chars);
        let words = u128::from_be_bytes(padded);
        let args = [VTY, 13, (words >> 64) as u64, words as u64];
        match guest.ret(H_PUT_TERM_CHAR, &args) {
            H_SUCCESS => sent.extend(chars),
            H_BUSY => {
                busy += 1;
                arrived.extend(drain(&mut other));
            }
            other => panic!("{other}"),
        }
    }
    assert!(busy > 0, "the terminal was never full");
    let deadline = Instant::now() + Duration::from_secs(10);
    while arrived.len() < sent.len() && Instant::now() < deadline {
        arrived.extend(drain(&mut other));
        // Asking for input also moves what an earlier call left behind.
        assert_eq!(guest.ret(H_GET_TERM_CHAR, &[VTY]), H_SUCCESS);
    }
    assert!(arrived == sent, "{} characters were taken, {} arrived", sent.len(), arrived.len());
}

#[test]
fn random_numbers_differ() {
    let guest = Guest::new();
    let numbers = [0; 4].map(|n| {
        let answer = guest.hcall(H_RANDOM, &[n]);
        assert_eq!(answer.ret, H_SUCCESS);
        answer.args[0]
    });
    assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:x?}");
}

#[test]
fn characteristics_are_the_hosts_or_nobodys() {
    let mut guest = Guest::new();
    let answer = guest.hcall(H_GET_CPU_CHARACTERISTICS, &[]);
    assert_eq!((answer.ret, answer.args[0], answer.args[1]), (H_SUCCESS, 0xabc << 52, 0xdef << 52));
    guest.platform.characteristics = None;
    assert_eq!(guest.ret(H_GET_CPU_CHARACTERISTICS, &[]), H_FUNCTION);
}

/// (mflags, resource, value1, value2) → code, and the LPCR bits that every vCPU gets.
#[test]
fn set_mode() {
    let table: &[([u64; 4], i64, u64)] = &[
        ([1, 4, 0, 0], H_SUCCESS, lpcr::ILE),
        ([0, 4, 0, 0], H_SUCCESS, 0),
        ([3, 3, 0, 0], H_SUCCESS, lpcr::AIL_3),
        ([0, 3, 0, 0], H_SUCCESS, 0),
        ([2, 4, 0, 0], UNSUPPORTED_63, 0),
        ([u64::MAX, 4, 0, 0], UNSUPPORTED_63, 0),
        ([1, 3, 0, 0], UNSUPPORTED_63, 0),
        ([2, 3, 0, 0], UNSUPPORTED_63, 0),
        ([0, 4, 1, 0], H_P3, 0),
        ([0, 4, 0, 1], H_P4, 0),
        ([3, 3, 1, 1], H_P3, 0),
        ([0, 0, 0, 0], H_P2, 0),
        ([0, 1, 0, 0], H_P2, 0),
        ([0, 2, 0, 0], H_P2, 0),
        ([0, 5, 0, 0], H_P2, 0),
        ([1, 4 | 1 << 32, 0, 0], H_P2, 0),
    ];
    for (args, ret, bits) in table {
        let guest = Guest::new();
        for index in 0..4 {
            assert!(guest.platform.cpus.lpcr_update(index).is_some(), "each vCPU starts behind");
        }
        let answer = guest.hcall(H_SET_MODE, args);
        assert_eq!(answer.ret, *ret, "{args:x?}");
        let (effect, update) = match *ret {
            H_SUCCESS => (Effect::Sync, Some(*bits)),
            _ => (Effect::None, None),
        };
        assert_eq!(answer.effect, effect, "{args:x?}");
        for index in 0..4 {
            assert_eq!(guest.platform.cpus.lpcr_update(index), update, "{args:x?}");
            assert_eq!(guest.platform.cpus.lpcr_update(index), None, "once");
        }
    }
}

#[test]
fn endianness_and_translation_mode_do_not_disturb_each_other() {
    let guest = Guest::new();
    assert_eq!(guest.ret(H_SET_MODE, &[1, 4]), H_SUCCESS);
    assert_eq!(guest.ret(H_SET_MODE, &[3, 3]), H_SUCCESS);
    assert_eq!(guest.platform.cpus.lpcr_update(2), Some(lpcr::ILE | lpcr::AIL_3));
    assert_eq!(guest.ret(H_SET_MODE, &[0, 4]), H_SUCCESS);
    assert_eq!(guest.platform.cpus.lpcr_update(2), Some(lpcr::AIL_3));
    guest.platform.cpus.reset();
    assert_eq!(guest.platform.cpus.lpcr_update(2), Some(0), "a reboot starts big-endian");
}

#[test]
fn ail_3_needs_the_host() {
    let mut guest = Guest::new();
    guest.platform.ail_mode_3 = false;
    assert_eq!(guest.ret(H_SET_MODE, &[3, 3]), UNSUPPORTED_63);
    assert_eq!(guest.ret(H_SET_MODE, &[0, 3]), H_SUCCESS);
}

/// (flags, base, page size, size) → code, and what KVM is told.
#[test]
fn register_proc_tbl_of_a_radix_guest() {
    type Told = Option<(bool, u64)>;
    let table: &[([u64; 4], i64, Told)] = &[
        ([0x1d, 0x1_0000, 0, 4], H_SUCCESS, Some((true, 0x1_0004))),
        ([0x1c, 0x1_0000, 0, 4], H_SUCCESS, Some((false, 0x1_0004))),
        ([0x1d, 0x1000, 0, 0], H_SUCCESS, Some((true, 0x1000))),
        ([0x1d, 1 << 36, 0, 24], H_SUCCESS, Some((true, 1 << 36 | 24))),
        ([0x10, 0, 0, 0], H_SUCCESS, Some((false, 0))),
        // No operation, of the other kind: it registers nothing and takes nothing away.
        ([0, 0, 0, 0], H_PARAMETER, None),
        // The guest's tables are not hash tables.
        ([0x18, 0, 0, 4], H_PARAMETER, None),
        ([0x1a, 0, 0, 4], H_PARAMETER, None),
        ([0x1e, 0, 0, 4], H_PARAMETER, None),
        // Half an operation, and bits that do not exist.
        ([0x08, 0, 0, 4], H_PARAMETER, None),
        ([0x0c, 0, 0, 4], H_PARAMETER, None),
        ([0x05, 0, 0, 0], H_PARAMETER, None),
        ([0x3d, 0, 0, 4], H_PARAMETER, None),
        ([1 << 63 | 0x1d, 0, 0, 4], H_PARAMETER, None),
        // Alignment and range.
        ([0x1d, 0x1_0800, 0, 4], H_P2, None),
        ([0x1d, 0x8000, 0, 4], H_P2, None),
        ([0x1d, 1 << 60, 0, 4], H_P2, None),
        ([0x1d, u64::MAX << 16, 0, 4], H_P2, None),
        ([0x1d, 0x1_0000, 1, 4], H_P3, None),
        ([0x1d, 0, 0, 25], H_P4, None),
        ([0x1d, 0, 0, 52], H_P4, None),
        ([0x1d, 0, 0, u64::MAX], H_P4, None),
    ];
    let guest = Guest::new();
    for (args, ret, told) in table {
        assert_eq!(guest.ret(H_REGISTER_PROC_TBL, args), *ret, "{args:x?}");
        let expected: Vec<_> =
            told.map(|(gtse, table)| Asked::Mmu { radix: true, gtse, table }).into_iter().collect();
        assert_eq!(guest.fake.asked(), expected, "{args:x?}");
    }
    guest.fake.refuse(true);
    assert_eq!(guest.ret(H_REGISTER_PROC_TBL, &[0x1d, 0x1_0000, 0, 4]), H_HARDWARE);
}

#[test]
fn register_proc_tbl_of_other_guests() {
    let mut guest = Guest::new();
    guest.platform.radix = false;
    for flags in [0, 0x10, 0x18] {
        assert_eq!(guest.ret(H_REGISTER_PROC_TBL, &[flags]), H_SUCCESS, "{flags:#x}");
    }
    for flags in [0x1c, 0x1d, 0x08, 0x20, 0x04] {
        assert_eq!(guest.ret(H_REGISTER_PROC_TBL, &[flags]), H_PARAMETER, "{flags:#x}");
    }
    guest.platform.isa_v3 = false;
    assert_eq!(guest.ret(H_REGISTER_PROC_TBL, &[0]), H_FUNCTION, "POWER8 has no process table");
    assert_eq!(guest.fake.asked(), []);
}

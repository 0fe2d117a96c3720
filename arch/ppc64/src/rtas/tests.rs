//! RTAS calls: the argument block, good and hostile, and every service.

use super::*;
use crate::cpus::CpuState;
use crate::epow::EPOW_EVENTS;
use crate::fake::{Guest, token};
use crate::papr::nr::H_RTAS;
use arch_api::Stop;

const BLOCK: u64 = 0x8000;
const LOW_END: u64 = 1 << 20;
const FOUR_GIB: u64 = 4 << 30;
const HIGH_START: u64 = FOUR_GIB - 0x2_0000;

/// What every byte is before a call, so that a stray write shows.
const FILL: u8 = 0xa5;

fn filled() -> Guest {
    let guest = Guest::new();
    guest.platform.memory.write_slice(&[FILL; LOW_END as usize], GuestAddress(0)).unwrap();
    guest
}

/// H_RTAS with this block at this address: code and effect.
fn call(guest: &Guest, at: u64, block: &[u32]) -> (i64, Effect) {
    guest.write_words(at, block);
    let answer = guest.hcall(H_RTAS, &[at]);
    (answer.ret, answer.effect)
}

#[test]
fn tokens_count_up_and_name_each_call_once() {
    let with = tokens(true, true);
    let without = tokens(false, false);
    assert_eq!(with[..without.len()], without);
    assert_eq!(with.len(), without.len() + XICS_CALLS.len() + PCI_CALLS.len());
    assert_eq!(tokens(false, true), with[..without.len() + PCI_CALLS.len()]);
    assert!(tokens(true, false).iter().all(|call| with.contains(call) && !PCI_CALLS.contains(&call.0)));
    assert_eq!(with[0], ("get-time-of-day", TOKEN_BASE));
    for (index, (name, token)) in with.iter().enumerate() {
        assert_eq!(*token, TOKEN_BASE + index as u32);
        assert!(with[index + 1..].iter().all(|(other, _)| other != name), "{name}");
    }
}

#[test]
fn addresses_without_memory_are_h_parameter() {
    let guest = filled();
    for at in [LOW_END, LOW_END - 4, LOW_END - 8, HIGH_START - 4, 1 << 40, FOUR_GIB, u64::MAX, u64::MAX - 3] {
        assert_eq!(guest.ret(H_RTAS, &[at]), H_PARAMETER, "{at:#x}");
    }
}

#[test]
fn a_block_at_or_beyond_4_gib_is_refused_though_there_is_memory() {
    let guest = filled();
    assert_eq!(call(&guest, FOUR_GIB, &[token("power-off"), 2, 1]), (H_PARAMETER, Effect::None));
}

#[test]
fn a_block_may_end_beyond_4_gib_and_at_the_last_byte_of_memory() {
    let guest = filled();
    let block = [token("power-off"), 2, 1, 0, 0, 7];
    for at in [FOUR_GIB - 12, LOW_END - 24] {
        assert_eq!(call(&guest, at, &block), (H_SUCCESS, Effect::Stop(Stop::PowerOff)), "{at:#x}");
        assert_eq!(guest.words(at + 20, 1), [0]);
    }
}

#[test]
fn blocks_that_straddle_the_end_of_memory_do_nothing() {
    let guest = filled();
    guest.platform.epow.press();
    for cut in (4..24).step_by(4) {
        // The header alone, arguments cut, results cut: the whole has 24 bytes.
        let at = LOW_END - cut;
        let fits = cut as usize / 4;
        guest.platform.memory.write_slice(&[FILL; 64], GuestAddress(LOW_END - 64)).unwrap();
        let block = [token("start-cpu"), 3, 1, 1, 0x100];
        assert_eq!(call(&guest, at, &block[..fits.min(5)]), (H_PARAMETER, Effect::None), "{cut}");
        assert_eq!(guest.platform.cpus.state(1), CpuState::Stopped, "nothing was claimed");
    }
    // Room for the header and six arguments, none for the status: the event is still to be had.
    let block = [token("check-exception"), 6, 1, 0, 0, EPOW_EVENTS, 0, BLOCK as u32, 64];
    assert_eq!(call(&guest, LOW_END - 36, &block), (H_PARAMETER, Effect::None));
    assert_eq!(guest.bytes(BLOCK, 64), [FILL; 64]);
    assert!(guest.platform.epow.take().is_some(), "a call that cannot answer took the event");
}

#[test]
fn a_set_clock_whose_status_cannot_be_stored_did_not_happen() {
    let guest = filled();
    let before = guest.platform.clock.now().year;
    let block = [token("set-time-of-day"), 7, 1, before + 10, 1, 1, 0, 0, 0, 0];
    assert_eq!(call(&guest, LOW_END - 40, &block), (H_PARAMETER, Effect::None));
    assert!(guest.platform.clock.now().year <= before + 1);
}

#[test]
fn counts_are_limited() {
    let guest = filled();
    let table: &[[u32; 2]] = &[
        [17, 1],
        [u32::MAX, 1],
        [0x8000_0000, 1],
        [0x4000_0000, 1],
        [0, 0],
        [0, 17],
        [0, u32::MAX],
        [u32::MAX, u32::MAX],
        [0x7fff_ffff, 0x8000_0001],
    ];
    for [nargs, nrets] in table {
        let answer = call(&guest, BLOCK, &[token("system-reboot"), *nargs, *nrets]);
        assert_eq!(answer, (H_PARAMETER, Effect::None), "{nargs:#x} {nrets:#x}");
        assert_eq!(guest.bytes(BLOCK + 12, 256), [FILL; 256]);
    }
}

#[test]
fn wrong_counts_and_unknown_tokens_are_a_parameter_error() {
    let guest = filled();
    let xics = token(XICS_CALLS[0]);
    let tokens = [0, 1, TOKEN_BASE - 1, xics, xics + 4, 0x7fff_ffff, u32::MAX];
    for token in tokens {
        assert_eq!(call(&guest, BLOCK, &[token, 0, 2, 9, 9, 9]), (H_SUCCESS, Effect::None), "{token:#x}");
        let words = guest.words(BLOCK + 12, 3);
        assert_eq!(words, [status::PARAMETER_ERROR as u32, 0, 9], "{token:#x}");
    }
    for service in TABLE {
        let (nargs, nrets) = (service.nargs as u32, service.nrets as u32);
        for (nargs, nrets) in [(nargs + 1, nrets), (nargs.wrapping_sub(1), nrets), (nargs, nrets - 1)] {
            if nargs > 16 || nrets == 0 {
                continue;
            }
            assert_eq!(call(&guest, BLOCK, &[token(service.name), nargs, nrets]), (H_SUCCESS, Effect::None));
            let status = guest.words(BLOCK + 12 + 4 * u64::from(nargs), 1)[0] as i32;
            assert_eq!(status, status::PARAMETER_ERROR, "{} {nargs} {nrets}", service.name);
        }
    }
}

#[test]
fn more_room_for_results_than_there_are_is_zeroed_and_no_more() {
    let guest = filled();
    let (status, rest, effect) = guest.rtas("query-cpu-stopped-state", &[0], 16);
    assert_eq!((status, effect), (status::SUCCESS, Effect::None));
    assert_eq!(rest[0], 2);
    assert_eq!(rest[1..], [0; 14]);
    assert_eq!(guest.bytes(0x8000 + 12 + 4 + 64, 16), [FILL; 16]);
}

/// An argument block whose buffer argument is the block itself: the status is what counts.
#[test]
fn a_buffer_over_the_block_does_not_reach_the_call() {
    let guest = filled();
    let (status, ..) = guest.rtas("ibm,get-system-parameter", &[55, BLOCK as u32, 64], 1);
    assert_eq!(status, status::SUCCESS);
    assert_eq!(guest.bytes(BLOCK, 6), *b"\0\x04ada\0");
}

#[test]
fn a_cpu_is_started_once() {
    let guest = filled();
    let state = |server| guest.rtas("query-cpu-stopped-state", &[server], 2);
    assert_eq!(state(8), (status::SUCCESS, vec![0], Effect::None));
    let started = guest.rtas("start-cpu", &[8, 0x60, 0xffff_fff0], 1);
    let effect = Effect::Start { vcpu: 2, pc: 0x60, r3: 0xffff_fff0 };
    assert_eq!(started, (status::SUCCESS, vec![], effect));
    assert_eq!(state(8).1, [2]);
    assert_eq!(guest.rtas("start-cpu", &[8, 0x60, 0], 1), (status::HARDWARE_ERROR, vec![], Effect::None));
    assert_eq!(guest.rtas("start-cpu", &[0, 0x60, 0], 1).0, status::HARDWARE_ERROR, "the caller runs");
    for server in [2, 3, 10, u32::MAX] {
        let refused = (status::PARAMETER_ERROR, vec![], Effect::None);
        assert_eq!(guest.rtas("start-cpu", &[server, 0x60, 0], 1), refused, "{server}");
        assert_eq!(state(server).0, status::PARAMETER_ERROR, "{server}");
    }
}

#[test]
fn a_cpu_that_stops_can_start_again_when_its_thread_has_left() {
    let guest = filled();
    let cpus = &guest.platform.cpus;
    assert_eq!(guest.rtas("start-cpu", &[9, 0x60, 0], 1).0, status::SUCCESS);
    let (_, _, effect) = guest.rtas_of(3, "stop-self", &[], 1);
    assert_eq!(effect, Effect::Park);
    assert_eq!(guest.rtas("query-cpu-stopped-state", &[9], 2).1, [1], "stopping");
    assert_eq!(guest.rtas("start-cpu", &[9, 0x60, 0], 1).0, status::HARDWARE_ERROR);
    cpus.set(3, CpuState::Stopped);
    assert_eq!(guest.rtas("query-cpu-stopped-state", &[9], 2).1, [0]);
    assert_eq!(guest.rtas("start-cpu", &[9, 0x60, 0], 1).0, status::SUCCESS);
}

#[test]
fn of_many_who_start_a_cpu_one_does() {
    let guest = filled();
    for _ in 0..200 {
        guest.platform.cpus.set(1, CpuState::Stopped);
        let claimed = std::thread::scope(|scope| {
            let claims = [(); 4].map(|()| scope.spawn(|| guest.platform.cpus.try_start(1)));
            claims.map(|claim| claim.join().unwrap())
        });
        assert_eq!(claimed.iter().filter(|claimed| **claimed).count(), 1);
    }
}

#[test]
fn the_guest_ends_itself() {
    let guest = filled();
    assert_eq!(guest.rtas("power-off", &[0, 0], 1).2, Effect::Stop(Stop::PowerOff));
    assert_eq!(guest.rtas("system-reboot", &[], 1).2, Effect::Stop(Stop::Reboot));
}

/// Whatever the message is, the guest has panicked.
#[test]
fn os_term_takes_any_pointer() {
    let guest = filled();
    let messages = [BLOCK + 0x100, 0, LOW_END - 1, LOW_END, HIGH_START - 8, FOUR_GIB - 4, FOUR_GIB - 1];
    for at in messages {
        let panicked = (status::SUCCESS, vec![], Effect::Stop(Stop::Panic));
        assert_eq!(guest.rtas("ibm,os-term", &[at as u32], 1), panicked, "{at:#x}");
    }
}

#[test]
fn check_exception_gives_an_event_once_and_only_what_fits() {
    let guest = filled();
    let buffer = 0x9000;
    let check =
        |mask, buffer, length| guest.rtas("check-exception", &[0x500, 0x1000, mask, 0, buffer, length], 1).0;
    assert_eq!(check(EPOW_EVENTS, buffer, 2048), status::NO_ERROR_LOG, "nothing has happened");

    guest.platform.epow.press();
    assert_eq!(check(!EPOW_EVENTS, buffer, 2048), status::NO_ERROR_LOG, "not asked for");
    assert_eq!(guest.bytes(buffer.into(), 64), [FILL; 64]);
    assert_eq!(check(EPOW_EVENTS, buffer, 2048), status::SUCCESS);
    let log = guest.bytes(buffer.into(), 44);
    assert_eq!(guest.bytes(u64::from(buffer) + 44, 16), [FILL; 16], "nothing behind the log");
    assert_eq!(check(EPOW_EVENTS, buffer, 2048), status::NO_ERROR_LOG, "once");

    for length in [0, 1, 8, 43, 44, 45] {
        guest.platform.memory.write_slice(&[FILL; 64], GuestAddress(buffer.into())).unwrap();
        guest.platform.epow.press();
        assert_eq!(check(EPOW_EVENTS, buffer, length), status::SUCCESS, "{length}");
        let fits = 44.min(length as usize);
        let written = guest.bytes(buffer.into(), 64);
        assert_eq!(written[..fits], log[..fits], "{length}");
        assert!(written[fits..].iter().all(|&b| b == FILL), "{length}");
    }
}

#[test]
fn an_event_outlives_a_bad_buffer() {
    let guest = filled();
    guest.platform.epow.press();
    for buffer in [LOW_END - 43, LOW_END, HIGH_START - 8] {
        let args = [0x500, 0x1000, EPOW_EVENTS, 0, buffer as u32, 2048];
        assert_eq!(guest.rtas("check-exception", &args, 1).0, status::PARAMETER_ERROR, "{buffer:#x}");
    }
    assert_eq!(guest.bytes(LOW_END - 64, 64), [FILL; 64], "nothing was written");
    let args = [0x500, 0x1000, EPOW_EVENTS, 0, LOW_END as u32 - 44, 44];
    assert_eq!(guest.rtas("check-exception", &args, 1).0, status::SUCCESS);
}

#[test]
fn system_parameters() {
    let guest = filled();
    let get =
        |parameter, buffer, length| guest.rtas("ibm,get-system-parameter", &[parameter, buffer, length], 1).0;
    assert_eq!(get(55, 0x9000, 4000), status::SUCCESS);
    assert_eq!(guest.bytes(0x9000, 7), *b"\0\x04ada\0\xa5");
    assert_eq!(get(20, 0x9000, 4000), status::SUCCESS);
    let text = b"MaxEntCap=4,DesMem=3072,DesProcs=4,MaxPlatProcs=4\0";
    assert_eq!(guest.bytes(0x9000, 2), (text.len() as u16).to_be_bytes());
    assert_eq!(guest.bytes(0x9002, text.len()), text);
    for parameter in [0, 21, 48, u32::MAX] {
        assert_eq!(get(parameter, 0x9000, 4000), status::PARAMETER_ERROR, "{parameter}");
    }
}

#[test]
fn system_parameters_are_cut_to_the_buffer() {
    let guest = filled();
    for length in 0..8u32 {
        guest.platform.memory.write_slice(&[FILL; 16], GuestAddress(0x9000)).unwrap();
        let args = [55, 0x9000, length];
        assert_eq!(guest.rtas("ibm,get-system-parameter", &args, 1).0, status::SUCCESS, "{length}");
        let fits = 6.min(length as usize);
        let written = guest.bytes(0x9000, 16);
        assert_eq!(written[..fits], b"\0\x04ada\0"[..fits], "{length}");
        assert!(written[fits..].iter().all(|&b| b == FILL), "{length}");
    }
    for buffer in [LOW_END - 5, LOW_END, HIGH_START - 3] {
        let args = [55, buffer as u32, 4000];
        assert_eq!(
            guest.rtas("ibm,get-system-parameter", &args, 1).0,
            status::PARAMETER_ERROR,
            "{buffer:#x}"
        );
    }
    assert_eq!(guest.bytes(LOW_END - 8, 8), [FILL; 8], "nothing was written");
}

#[test]
fn a_name_of_any_length_is_a_parameter() {
    let mut guest = filled();
    guest.platform.name = "ä".repeat(40_000);
    assert_eq!(guest.rtas("ibm,get-system-parameter", &[55, 0x1_0000, u32::MAX], 1).0, status::SUCCESS);
    assert_eq!(guest.bytes(0x1_0000, 4), *b"\xff\xff\xc3\xa4");
    assert_eq!(guest.bytes(0x1_0000 + 2 + 0xfffe, 1), [0], "a C string ends");
}

#[test]
fn time_of_day() {
    let guest = filled();
    let (status, now, _) = guest.rtas("get-time-of-day", &[], 8);
    assert_eq!((status, now.len()), (status::SUCCESS, 7));
    assert!((2024..2200).contains(&now[0]), "{now:?}");
    assert_eq!(guest.rtas("set-time-of-day", &[2032, 2, 29, 23, 59, 50, 0], 1).0, status::SUCCESS);
    let (_, now, _) = guest.rtas("get-time-of-day", &[], 8);
    assert_eq!(now[..4], [2032, 2, 29, 23]);
    for bad in [[2031, 2, 29, 0, 0, 0, 0], [2032, 0, 1, 0, 0, 0, 0], [u32::MAX; 7]] {
        assert_eq!(guest.rtas("set-time-of-day", &bad, 1).0, status::PARAMETER_ERROR, "{bad:?}");
    }
    assert_eq!(guest.rtas("get-time-of-day", &[], 8).1[..4], [2032, 2, 29, 23]);
}

//! The shared page: what an exit reads from it and what a reply writes to it, byte for byte.
//!
//! A file takes the place of the vCPU, so KVM_RUN fails; the offsets are those of `struct kvm_run` in the
//! kernel's headers.

use super::*;
use crate::fd::tests::stand_in;
use arch_api::Vcpu as _;
use std::fs::File;
use std::os::unix::fs::FileExt;

const EXIT_REASON: u64 = 8;
const PAYLOAD: u64 = 32;

struct Rig {
    vcpu: Vcpu,
    page: File,
}

impl Rig {
    fn new() -> Self {
        let (fd, page) = stand_in(0x1_0000);
        let run = Mapping::new(&fd, 0x1_0000, 0, "mmap(kvm_run)").unwrap();
        let signals = Signals { kick: libc::SIGUSR1 };
        let (idle, timebase_hz) = (Idle::None, 512_000_000);
        let vcpu = Vcpu { fd: Arc::new(fd), run, xics: false, signals, idle, timebase_hz };
        Self { vcpu, page }
    }

    /// What an exit for this reason, with these words behind it, is taken for.
    fn exit(&mut self, reason: u32, words: &[u64]) -> Exit {
        self.page.write_all_at(&reason.to_ne_bytes(), EXIT_REASON).unwrap();
        for (word, at) in words.iter().zip((PAYLOAD..).step_by(8)) {
            self.page.write_all_at(&word.to_ne_bytes(), at).unwrap();
        }
        exit_of(self.vcpu.shared())
    }

    fn reply(&mut self, reply: Reply) {
        let error = self.vcpu.run(reply).unwrap_err();
        assert_eq!(error.call, "KVM_RUN");
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.page.read_exact_at(&mut bytes, at).unwrap();
        u64::from_ne_bytes(bytes)
    }
}

const ARGS: [u64; 9] = [4, 5, 6, 7, 8, 9, 10, 11, 12];

#[test]
fn an_hcall_and_its_answer() {
    let mut rig = Rig::new();
    let words = [&[0x58, 0][..], &ARGS].concat();
    assert_eq!(rig.exit(19, &words), Exit::Hcall { nr: 0x58, args: ARGS });
    let args = ARGS.map(|arg| arg * 0x100);
    rig.reply(Reply::Hcall { ret: -55, args });
    assert_eq!(rig.word(PAYLOAD), 0x58, "the number stays");
    assert_eq!(rig.word(PAYLOAD + 8), -55i64 as u64);
    for (index, arg) in (0..).zip(args) {
        assert_eq!(rig.word(PAYLOAD + 16 + 8 * index), arg);
    }
}

/// phys_addr, data, then len (32 bits) and is_write (8 bits).
fn mmio(len: u32, is_write: u8) -> [u64; 3] {
    let mut tail = [0; 8];
    tail[..4].copy_from_slice(&len.to_ne_bytes());
    tail[4] = is_write;
    [0x1234_5678, u64::from_ne_bytes(*b"abcdefgh"), u64::from_ne_bytes(tail)]
}

#[test]
fn loads_and_stores() {
    let mut rig = Rig::new();
    assert_eq!(rig.exit(6, &mmio(4, 0)), Exit::MmioRead { addr: 0x1234_5678, len: 4 });
    rig.reply(Reply::Mmio(*b"ABCDEFGH"));
    assert_eq!(rig.word(PAYLOAD + 8).to_ne_bytes(), *b"ABCDEFGH");
    let store = Exit::MmioWrite { addr: 0x1234_5678, data: *b"abcdefgh", len: 8 };
    assert_eq!(rig.exit(6, &mmio(8, 1)), store);
    assert_eq!(rig.exit(6, &mmio(u32::MAX, 1)), store, "no more than the data's eight bytes");
}

#[test]
fn a_run_without_a_reply_leaves_the_page_alone() {
    let mut rig = Rig::new();
    rig.exit(19, &[0x58, 1, 2, 3]);
    rig.reply(Reply::None);
    let words: Vec<_> = (0..4).map(|index| rig.word(PAYLOAD + 8 * index)).collect();
    assert_eq!(words, [0x58, 1, 2, 3]);
}

#[test]
fn the_other_exits() {
    let mut rig = Rig::new();
    assert_eq!(rig.exit(10, &[]), Exit::Interrupted);
    assert_eq!(rig.exit(16, &[]), Exit::MachineCheck);
    assert_eq!(rig.exit(9, &[0xdead, 7]), Exit::EntryFailed { reason: 0xdead });
    // suberror and ndata are 32 bits each.
    let mut internal = [0; 8];
    internal[..4].copy_from_slice(&3u32.to_ne_bytes());
    assert_eq!(rig.exit(17, &[u64::from_ne_bytes(internal)]), Exit::InternalError { suberror: 3 });
    for reason in [0, 1, 5, 15, 24, u32::MAX] {
        assert_eq!(rig.exit(reason, &[]), Exit::Unknown(reason));
    }
}

/// What interrupts the kernel's hand-over of the last exit is asked for only while that is under way.
#[test]
fn immediate_exit_does_not_stay() {
    let mut rig = Rig::new();
    assert_eq!(rig.vcpu.finish_exit().unwrap_err().call, "KVM_RUN");
    assert_eq!(rig.word(0), 0);
}

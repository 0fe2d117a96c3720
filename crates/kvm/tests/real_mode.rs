//! A guest of some twenty instructions in real mode, on this machine's own KVM: it runs, talks through a port, halts, is woken by
//! an interrupt, and does it all again after a reset. Where there is no KVM to use the tests say so and pass.

#![cfg(target_arch = "x86_64")]

use arch_api::x86_64::{Partition, Vcpu as _, Vm as _};
use arch_api::{Exit, HvError, Reply, Vcpu as _};
use kvm::x86_64::{Vcpu, Vm, VmFd, probe};
use kvm::{Kvm, Signals};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// The payload, at f000:0000.
const CODE: &[u8] = &[
    0x31, 0xc0, //                         xor ax, ax
    0x8e, 0xd8, 0x8e, 0xd0, //             mov ds, ax; mov ss, ax
    0xbc, 0x00, 0x70, //                   mov sp, 0x7000
    0xc7, 0x06, 0x90, 0x00, 0x3b, 0x00, // mov word [0x24 * 4], handler
    0xc7, 0x06, 0x92, 0x00, 0x00, 0xf0, // mov word [0x24 * 4 + 2], 0xf000
    0xb0, 0x11, 0xe6, 0x20, //             the PIC: vectors from 0x20,
    0xb0, 0x20, 0xe6, 0x21, //
    0xb0, 0x04, 0xe6, 0x21, //
    0xb0, 0x01, 0xe6, 0x21, //
    0xb0, 0xef, 0xe6, 0x21, //             and all masked but input 4
    0xba, 0x00, 0x06, //                   mov dx, 0x600
    0xb0, 0x72, 0xee, //                   out 'r'
    0xec, 0xfe, 0xc0, 0xee, //             in; inc al; out
    0xfb, 0xf4, //                  again: sti; hlt, with nothing between the two
    0xfa, //                               cli
    0xb0, 0x68, 0xee, //                   out 'h'
    0xeb, 0xf8, //                         jmp again
    0xb0, 0x69, 0xee, //          handler: out 'i'
    0xb0, 0x20, 0xe6, 0x20, //             end of interrupt
    0xcf, //                               iret
];

/// jmp f000:0000
const RESET_VECTOR: &[u8] = &[0xea, 0x00, 0x00, 0x00, 0xf0];

const PORT: u16 = 0x600;
const INPUT: u32 = 4;

/// A VM with the payload, or why there is none.
fn machine() -> Result<(Vm, Vcpu), String> {
    let kvm = Kvm::open().map_err(|error| error.to_string())?;
    let host = probe(&kvm).map_err(|error| error.to_string())?;
    if !host.missing.is_empty() {
        return Err(format!("this KVM lacks {}", host.missing.join(", ")));
    }
    let fd = VmFd::create(&kvm).map_err(|error| error.to_string())?;
    let vm = Vm::build(fd, Signals { kick: libc::SIGUSR1 });
    let vm = vm.map_err(|HvError { call, source }| format!("{call}: {source}"))?;
    let ranges = [(GuestAddress(0), 0x10_0000), (GuestAddress(0xffff_0000), 0x1_0000)];
    let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).unwrap();
    memory.write_slice(CODE, GuestAddress(0xf_0000)).unwrap();
    memory.write_slice(RESET_VECTOR, GuestAddress(0xffff_fff0)).unwrap();
    vm.set_memory(&memory).unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    vcpu.configure(&host.cpuid, &[]).unwrap();
    Ok((vm, vcpu))
}

/// The machine, or a word about what is skipped.
macro_rules! machine_or_skip {
    () => {
        match machine() {
            Ok(machine) => machine,
            Err(why) => return eprintln!("skipped: {why}"),
        }
    };
}

fn written(exit: Exit) -> char {
    match exit {
        Exit::PioWrite { port: PORT, data, len: 1 } => char::from(data[0]),
        other => panic!("{other:x?} instead of a byte at the port"),
    }
}

/// From the power-on state to the second wake.
fn life(vm: &Vm, vcpu: &mut Vcpu) {
    assert_eq!(written(vcpu.run(Reply::None).unwrap()), 'r');
    assert_eq!(vcpu.run(Reply::None).unwrap(), Exit::PioRead { port: PORT, len: 1 });
    assert_eq!(written(vcpu.run(Reply::Pio([b'a', 0, 0, 0])).unwrap()), 'b', "what was read, and one more");
    for _ in 0..2 {
        // It is taken not before the halt, which it ends.
        vm.set_irq(INPUT, true).unwrap();
        assert_eq!(written(vcpu.run(Reply::None).unwrap()), 'i');
        vm.set_irq(INPUT, false).unwrap();
        assert_eq!(written(vcpu.run(Reply::None).unwrap()), 'h');
    }
}

#[test]
fn it_halts_and_is_woken_and_starts_again_after_a_reset() {
    let (vm, mut vcpu) = machine_or_skip!();
    for _ in 0..3 {
        life(&vm, &mut vcpu);
        let rip = vcpu.regs().unwrap().rip;
        vcpu.reset().unwrap();
        vm.reset().unwrap();
        let regs = vcpu.regs().unwrap();
        assert_eq!((regs.rip, regs.rflags), (0xfff0, 2), "and not {rip:#x}");
    }
}

#[test]
fn a_vcpu_that_waits_for_the_boot_cpu_is_called_out_by_a_signal() {
    let (vm, _first) = machine_or_skip!();
    let kvm = Kvm::open().unwrap();
    let mut second = vm.create_vcpu(1).unwrap();
    second.configure(&probe(&kvm).unwrap().cpuid, &[]).unwrap();
    // As every thread of a VM has it: blocked, pending, and let through by KVM alone.
    vmm_sys_util::signal::block_signal(libc::SIGUSR1).unwrap();
    for _ in 0..2 {
        // SAFETY: a signal to this thread, which has it blocked.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
        assert_eq!(second.run(Reply::None).unwrap(), Exit::Interrupted);
        second.reset().unwrap();
    }
}

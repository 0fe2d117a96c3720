//! A vCPU: its registers, and running it.

use super::host::Cpuid;
use super::msrs;
use super::state::State;
use super::vm::VmFd;
use crate::fd::{KvmFd, Mapping, create_vcpu};
use crate::ioctl::x86_64::*;
use crate::signals::Signals;
use crate::stats::{KvmStats, StatsError};
use arch_api::x86_64::{CpuidLeaf, FlatSegment, ProtectedMode, Regs};
use arch_api::{Exit, HvError, Reply};
use kvm_bindings::*;
use std::io;

/// A vCPU. Its registers are touched by its own thread only.
#[derive(Debug)]
pub struct Vcpu {
    fd: KvmFd,
    run: Mapping,
    signals: Signals,
    /// The registers that its state has.
    msrs: Vec<u32>,
    /// Since it was configured.
    power_on: Option<State>,
    /// An I/O instruction whose elements are handled one after the other.
    io: Option<Elements>,
}

/// How far an I/O instruction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Elements {
    port: u16,
    is_write: bool,
    /// Bytes of an element: 1, 2 or 4.
    size: usize,
    /// Where the next element is in the shared pages.
    offset: usize,
    /// How many are left, with the next.
    left: u32,
}

/// Protection enabled, extension type (always 1), numeric errors as the FPU reports them.
const CR0_PROTECTED: u64 = 0x31;

impl Vcpu {
    pub(super) fn create(vm: &VmFd, id: u32, signals: Signals) -> Result<Self, HvError> {
        let (fd, run) = create_vcpu::<kvm_run>(&vm.fd, KVM_CREATE_VCPU, id, vm.run_size)?;
        signals.let_through(&fd, KVM_SET_SIGNAL_MASK)?;
        Ok(Self { fd, run, signals, msrs: vm.msrs.clone(), power_on: None, io: None })
    }

    /// The shared page. The kernel writes it only within KVM_RUN, which takes `&mut self` too.
    fn shared(&mut self) -> &mut kvm_run {
        // SAFETY: the mapping is at least as large as kvm_run (checked in `create_vcpu`), page aligned, lives as long as
        // `self`, and kvm_run is a C structure of integers. `&mut self` excludes any other reference to it and,
        // as KVM_RUN is not under way, the kernel.
        unsafe { &mut *self.run.as_ptr().cast() }
    }

    /// KVM's own figures of this vCPU, for any thread. To be asked for before the vCPU runs first.
    ///
    /// # Errors
    /// When this KVM has none.
    pub fn stats(&self) -> Result<KvmStats, StatsError> {
        KvmStats::of(&self.fd)
    }

    /// Takes the guest's answer to a read of an element to where KVM looks for it.
    fn answer(&mut self, reply: Reply) {
        match reply {
            Reply::None | Reply::Hcall { .. } => {}
            Reply::Mmio(data) => self.shared().__bindgen_anon_1.mmio.data = data,
            Reply::Pio(data) => {
                if let Some(io) = self.io.filter(|io| !io.is_write) {
                    self.element(io, |bytes| bytes.copy_from_slice(&data[..io.size]));
                }
            }
        }
    }

    /// Looks at the bytes of an element.
    fn element(&mut self, io: Elements, look: impl FnOnce(&mut [u8])) {
        let end = io.offset.checked_add(io.size).filter(|end| *end <= self.run.len());
        if end.is_some() {
            // SAFETY: the bytes are within the mapping, which lives as long as `self`; `&mut self` excludes other
            // references and, as KVM_RUN is not under way, the kernel.
            look(unsafe { std::slice::from_raw_parts_mut(self.run.as_ptr().add(io.offset), io.size) });
        }
    }

    /// The exit of the element that is to be handled now.
    fn io_exit(&mut self, io: Elements) -> Exit {
        self.io = Some(io);
        let (port, len) = (io.port, io.size);
        if !io.is_write {
            return Exit::PioRead { port, len };
        }
        let mut data = [0; 4];
        self.element(io, |bytes| data[..len].copy_from_slice(bytes));
        Exit::PioWrite { port, data, len }
    }

    /// One KVM_RUN. `None` is a signal, or a wait for the boot CPU that has just ended.
    fn enter(&mut self) -> Result<Option<Exit>, HvError> {
        // The kernel sets the reason only where it has one.
        self.shared().exit_reason = KVM_EXIT_UNKNOWN;
        match self.fd.value("KVM_RUN", KVM_RUN, 0) {
            Ok(_) => Ok(Some(self.exit())),
            Err(error) if error.source.kind() == io::ErrorKind::Interrupted => {
                self.signals.take()?;
                Ok(None)
            }
            // A vCPU that waited for INIT and SIPI, and has them now.
            Err(error) if error.source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn exit(&mut self) -> Exit {
        let run = self.shared();
        let u = &run.__bindgen_anon_1;
        // SAFETY: every member read is a structure of integers, for which any bits are valid; the exit reason says
        // which member the kernel filled.
        unsafe {
            match run.exit_reason {
                KVM_EXIT_IO => {
                    let io = Elements {
                        port: u.io.port,
                        is_write: u32::from(u.io.direction) == KVM_EXIT_IO_OUT,
                        size: usize::from(u.io.size).min(4),
                        offset: usize::try_from(u.io.data_offset).unwrap_or(usize::MAX),
                        left: u.io.count,
                    };
                    self.io_exit(io)
                }
                KVM_EXIT_MMIO => {
                    let (addr, len) = (u.mmio.phys_addr, (u.mmio.len as usize).min(8));
                    match u.mmio.is_write {
                        0 => Exit::MmioRead { addr, len },
                        _ => Exit::MmioWrite { addr, data: u.mmio.data, len },
                    }
                }
                KVM_EXIT_INTR => Exit::Interrupted,
                KVM_EXIT_SHUTDOWN => Exit::Shutdown,
                KVM_EXIT_FAIL_ENTRY => {
                    Exit::EntryFailed { reason: u.fail_entry.hardware_entry_failure_reason }
                }
                KVM_EXIT_INTERNAL_ERROR => Exit::InternalError { suberror: u.internal.suberror },
                other => Exit::Unknown(other),
            }
        }
    }

    /// Lets KVM finish the last exit without entering the guest: what is still open it would do at the next run.
    fn finish_exit(&mut self) -> Result<(), HvError> {
        self.io = None;
        self.shared().immediate_exit = 1;
        let result = self.fd.value("KVM_RUN", KVM_RUN, 0);
        self.shared().immediate_exit = 0;
        match result {
            Err(error) if !matches!(error.source.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

impl arch_api::Vcpu for Vcpu {
    fn run(&mut self, reply: Reply) -> Result<Exit, HvError> {
        self.answer(reply);
        if let Some(io) = self.io.take() {
            if io.left > 1 {
                return Ok(self.io_exit(Elements { left: io.left - 1, offset: io.offset + io.size, ..io }));
            }
        }
        Ok(self.enter()?.unwrap_or(Exit::Interrupted))
    }
}

/// The kernel's form of a flat segment of code or data.
fn segment(flat: FlatSegment) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: flat.selector,
        type_: flat.kind,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// The kernel's form of a task's segment, which is the system's and has no more than the least.
fn task(flat: FlatSegment) -> kvm_segment {
    kvm_segment { limit: 0x67, db: 0, s: 0, g: 0, ..segment(flat) }
}

impl arch_api::x86_64::Vcpu for Vcpu {
    fn configure(&mut self, cpuid: &[CpuidLeaf], msrs: &[(u32, u64)]) -> Result<(), HvError> {
        self.fd.read_from_long("KVM_SET_CPUID2", KVM_SET_CPUID2, &Cpuid::of(cpuid))?;
        msrs::write(&self.fd, msrs)?;
        self.power_on = Some(State::take(&self.fd, &self.msrs)?);
        Ok(())
    }

    fn regs(&mut self) -> Result<Regs, HvError> {
        let mut r = kvm_regs::default();
        self.fd.exchange("KVM_GET_REGS", KVM_GET_REGS, &mut r)?;
        let kvm_regs { rip, rflags, rax, rbx, rcx, rdx, rsi, rdi, rsp, .. } = r;
        Ok(Regs { rip, rflags, rax, rbx, rcx, rdx, rsi, rdi, rsp })
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), HvError> {
        let Regs { rip, rflags, rax, rbx, rcx, rdx, rsi, rdi, rsp } = *regs;
        let all = kvm_regs { rip, rflags, rax, rbx, rcx, rdx, rsi, rdi, rsp, ..Default::default() };
        self.fd.read_from("KVM_SET_REGS", KVM_SET_REGS, &all).map(drop)
    }

    fn set_mode(&mut self, mode: &ProtectedMode) -> Result<(), HvError> {
        let mut sregs = kvm_sregs::default();
        self.fd.exchange("KVM_GET_SREGS", KVM_GET_SREGS, &mut sregs)?;
        let data = segment(mode.data);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        (sregs.cs, sregs.tr) = (segment(mode.code), task(mode.task));
        sregs.gdt = kvm_dtable { base: mode.gdt, limit: mode.gdt_limit, ..Default::default() };
        sregs.idt = kvm_dtable::default();
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0_PROTECTED, 0, 0, 0);
        self.fd.read_from("KVM_SET_SREGS", KVM_SET_SREGS, &sregs).map(drop)
    }

    fn reset(&mut self) -> Result<(), HvError> {
        self.finish_exit()?;
        self.power_on.as_ref().map_or(Ok(()), |state| state.put(&self.fd))
    }
}

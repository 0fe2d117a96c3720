//! A vCPU: its registers, and running it.

use super::cede_watch::CedeWatch;
use super::pin::Pin;
use super::sleep_watch::SleepWatch;
use super::timebase;
use super::vm::VmFd;
use crate::bindings::ppc64::*;
use crate::fd::{KvmFd, Mapping, create_vcpu};
use crate::ioctl::ppc64::*;
use crate::signals::{CEDE, Signals};
use crate::stats::{KvmStats, StatsError};
use arch_api::ppc64::{CedeRoute, ExternalPin, Plane, Regs, Watch};
use arch_api::{Exit, HvError, Reply};
use std::io;
use std::sync::Arc;

/// A vCPU. Its registers are touched by its own thread only, so changing some bits of one needs no lock.
#[derive(Debug)]
pub struct Vcpu {
    /// Shared with whoever raises its external interrupt.
    fd: Arc<KvmFd>,
    run: Mapping,
    /// KVM's XICS is connected, so there is an ICP to reset.
    xics: bool,
    signals: Signals,
    idle: Idle,
    timebase_hz: u32,
}

/// How the vCPU's cedes come out of KVM.
#[derive(Debug)]
enum Idle {
    /// Not at all, or as hypercalls.
    None,
    /// By an event that tells of each, so that KVM never sleeps.
    Cedes(CedeWatch),
    /// By events that are switched on where it pays; else KVM sleeps.
    Sleeps(SleepWatch),
}

/// What a vCPU is made with, beside its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making {
    /// Length of the shared page's mapping.
    pub run_size: usize,
    /// What is let through while it runs.
    pub signals: Signals,
    /// Who handles H_CEDE.
    pub plane: Plane,
    /// Ticks of the timebase per second.
    pub timebase_hz: u32,
}

/// Registers that are zero after power-on and that an earlier boot may have set. Those that a processor does
/// not have are skipped.
const CLEARED: &[u64] = &[
    KVM_REG_PPC_AMR,
    KVM_REG_PPC_UAMOR,
    KVM_REG_PPC_IAMR,
    KVM_REG_PPC_DSCR,
    KVM_REG_PPC_DAWRX,
    KVM_REG_PPC_CIABR,
    KVM_REG_PPC_PID,
    KVM_REG_PPC_DPDES,
    KVM_REG_PPC_PSPB,
];

impl Vcpu {
    pub(crate) fn create(vm: &VmFd, id: u32, how: Making) -> Result<Self, HvError> {
        let (fd, run) = create_vcpu::<kvm_run>(&vm.fd, KVM_CREATE_VCPU, id, how.run_size)?;
        let idle = match how.plane {
            Plane::Vmm(CedeRoute::Event(id)) => Idle::Cedes(CedeWatch::new(id)),
            Plane::Vmm(CedeRoute::Hcall) | Plane::Kernel => Idle::None,
            Plane::Assist(id) => Idle::Sleeps(SleepWatch::new(id)),
        };
        let (signals, timebase_hz) = (how.signals, how.timebase_hz);
        Ok(Self { fd: Arc::new(fd), run, xics: false, signals, idle, timebase_hz })
    }

    /// The shared page. The kernel writes it only within KVM_RUN, which takes `&mut self` too.
    fn shared(&mut self) -> &mut kvm_run {
        // SAFETY: the mapping is at least as large as kvm_run (checked in `create_vcpu`), page aligned, lives as long as
        // `self`, and kvm_run is a C structure of integers. `&mut self` excludes any other reference to it and,
        // as KVM_RUN is not under way, the kernel.
        unsafe { &mut *self.run.as_ptr().cast() }
    }

    pub(crate) fn enable(&self, cap: u32, args: [u64; 2], call: &'static str) -> Result<(), HvError> {
        let arg = kvm_enable_cap { cap, args: [args[0], args[1], 0, 0], ..Default::default() };
        self.fd.read_from(call, KVM_ENABLE_CAP, &arg).map(drop)
    }

    pub(crate) fn connect_xics(&mut self, device: u64, server: u32) -> Result<(), HvError> {
        self.enable(KVM_CAP_IRQ_XICS, [device, u64::from(server)], "KVM_ENABLE_CAP(IRQ_XICS)")?;
        self.xics = true;
        Ok(())
    }

    /// Blocks every signal but ours while the vCPU runs.
    pub(crate) fn set_signal_mask(&self) -> Result<(), HvError> {
        self.signals.let_through(&self.fd, KVM_SET_SIGNAL_MASK)
    }

    pub(crate) fn set_one(&self, id: u64, value: u64, call: &'static str) -> Result<(), HvError> {
        // KVM reads as many bytes as the id says, from the lowest address.
        let narrow = value as u32;
        let wide = id & KVM_REG_SIZE_MASK == KVM_REG_SIZE_U64;
        let addr = if wide { std::ptr::from_ref(&value) as u64 } else { std::ptr::from_ref(&narrow) as u64 };
        self.fd.read_from(call, KVM_SET_ONE_REG, &kvm_one_reg { id, addr }).map(drop)
    }

    fn get_one(&self, id: u64, call: &'static str) -> Result<u64, HvError> {
        let mut value = 0u64;
        let addr = std::ptr::from_mut(&mut value) as u64;
        self.fd.read_from(call, KVM_GET_ONE_REG, &kvm_one_reg { id, addr })?;
        // SAFETY: reading one's own variable; volatile because the kernel wrote it behind the compiler's back.
        Ok(unsafe { std::ptr::from_ref(&value).read_volatile() })
    }

    /// Registers a buffer of address and length zero, which takes the old one away.
    fn drop_area(&self, id: u64, call: &'static str) -> Result<(), HvError> {
        let none = [0u64; 2];
        let addr = none.as_ptr() as u64;
        self.fd.read_from(call, KVM_SET_ONE_REG, &kvm_one_reg { id, addr }).map(drop)
    }
}

const KVM_REG_SIZE_MASK: u64 = 0x00f0_0000_0000_0000;
const KVM_REG_SIZE_U64: u64 = 0x0030_0000_0000_0000;

const H_SUCCESS: u64 = 0;

/// External interrupts and the decrementer are taken.
const MSR_EE: u64 = 1 << 15;

impl arch_api::Vcpu for Vcpu {
    fn run(&mut self, reply: Reply) -> Result<Exit, HvError> {
        let shared = self.shared();
        match reply {
            Reply::None | Reply::Pio(_) => {}
            Reply::Hcall { ret, args } => {
                let mut answer = kvm_run__bindgen_ty_1__bindgen_ty_16 { nr: 0, ret: ret as u64, args };
                // SAFETY: reading an integer of the union; any bits are valid.
                answer.nr = unsafe { shared.__bindgen_anon_1.papr_hcall.nr };
                shared.__bindgen_anon_1.papr_hcall = answer;
            }
            Reply::Mmio(data) => {
                shared.__bindgen_anon_1.mmio.data = data;
            }
        }
        // The kernel sets the reason only where it has one.
        self.shared().exit_reason = KVM_EXIT_UNKNOWN;
        let result = self.fd.value("KVM_RUN", KVM_RUN, 0);
        if let Idle::Cedes(watch) = &mut self.idle {
            watch.exited();
        }
        match result {
            Ok(_) => Ok(exit_of(self.shared())),
            Err(error) if error.source.kind() == io::ErrorKind::Interrupted => self.interrupted(),
            // KVM's own RTAS gives up on an argument block that it cannot read (EFAULT) or that counts more words than
            // there can be (EINVAL), and leaves the guest's end to us. The hcall is still open, so it can be answered
            // like one that came here in the first place.
            Err(error) if matches!(error.source.raw_os_error(), Some(libc::EFAULT | libc::EINVAL)) => {
                match exit_of(self.shared()) {
                    exit @ Exit::Hcall { .. } => Ok(exit),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

fn exit_of(run: &kvm_run) -> Exit {
    let u = &run.__bindgen_anon_1;
    // SAFETY: every member read is a structure of integers, for which any bits are valid; the exit reason says
    // which member the kernel filled.
    unsafe {
        match run.exit_reason {
            KVM_EXIT_PAPR_HCALL => Exit::Hcall { nr: u.papr_hcall.nr, args: u.papr_hcall.args },
            KVM_EXIT_MMIO => {
                let (addr, len) = (u.mmio.phys_addr, (u.mmio.len as usize).min(8));
                match u.mmio.is_write {
                    0 => Exit::MmioRead { addr, len },
                    _ => Exit::MmioWrite { addr, data: u.mmio.data, len },
                }
            }
            KVM_EXIT_INTR => Exit::Interrupted,
            KVM_EXIT_NMI => Exit::MachineCheck,
            KVM_EXIT_FAIL_ENTRY => Exit::EntryFailed { reason: u.fail_entry.hardware_entry_failure_reason },
            KVM_EXIT_INTERNAL_ERROR => Exit::InternalError { suberror: u.internal.suberror },
            other => Exit::Unknown(other),
        }
    }
}

impl arch_api::ppc64::Vcpu for Vcpu {
    fn regs(&mut self) -> Result<Regs, HvError> {
        let mut r = kvm_regs::default();
        self.fd.exchange("KVM_GET_REGS", KVM_GET_REGS, &mut r)?;
        Ok(Regs { pc: r.pc, msr: r.msr, lr: r.lr, srr0: r.srr0, srr1: r.srr1, gpr: r.gpr })
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), HvError> {
        let mut r = kvm_regs::default();
        self.fd.exchange("KVM_GET_REGS", KVM_GET_REGS, &mut r)?;
        (r.pc, r.msr, r.lr, r.srr0, r.srr1) = (regs.pc, regs.msr, regs.lr, regs.srr0, regs.srr1);
        r.gpr = regs.gpr;
        self.fd.read_from("KVM_SET_REGS", KVM_SET_REGS, &r).map(drop)
    }

    fn set_lpcr(&mut self, mask: u64, value: u64) -> Result<(), HvError> {
        let old = self.get_one(KVM_REG_PPC_LPCR_64, "KVM_GET_ONE_REG(LPCR)")?;
        let new = (old & !mask) | (value & mask);
        self.set_one(KVM_REG_PPC_LPCR_64, new, "KVM_SET_ONE_REG(LPCR)")
    }

    fn set_online(&mut self, online: bool) -> Result<(), HvError> {
        self.set_one(KVM_REG_PPC_ONLINE, u64::from(online), "KVM_SET_ONE_REG(ONLINE)")
    }

    fn decrementer_ns(&mut self) -> Result<i64, HvError> {
        let expiry = self.get_one(KVM_REG_PPC_DEC_EXPIRY, "KVM_GET_ONE_REG(DEC_EXPIRY)")?;
        // The guest's timebase is the host's: cede never sets KVM_REG_PPC_TB_OFFSET.
        let ticks = expiry.wrapping_sub(timebase::now()) as i64;
        Ok(timebase::nanoseconds(ticks, self.timebase_hz))
    }

    fn doorbell(&mut self) -> Result<bool, HvError> {
        Ok(self.get_one(KVM_REG_PPC_DPDES, "KVM_GET_ONE_REG(DPDES)")? != 0)
    }

    fn watch_cede(&mut self) -> Result<(), HvError> {
        let call = "perf_event_open(kvm_hv:kvmppc_vcore_blocked)";
        match &mut self.idle {
            Idle::Cedes(watch) => watch.open().map_err(|source| HvError { call, source }),
            Idle::None | Idle::Sleeps(_) => Ok(()),
        }
    }

    fn watch(&mut self, watch: Watch) -> Result<(), HvError> {
        let call = "the perf events on kvm_hv:kvmppc_vcore_blocked";
        match &mut self.idle {
            Idle::Sleeps(events) => events.set(watch).map_err(|source| HvError { call, source }),
            Idle::None | Idle::Cedes(_) => Ok(()),
        }
    }

    fn vpa(&mut self) -> Result<u64, HvError> {
        self.get_one(KVM_REG_PPC_VPA_ADDR, "KVM_GET_ONE_REG(VPA_ADDR)")
    }

    fn external_pin(&self) -> Arc<dyn ExternalPin> {
        Arc::new(Pin::new(Arc::clone(&self.fd)))
    }

    fn reset(&mut self) -> Result<(), HvError> {
        self.finish_exit()?;
        // KVM refuses to take a VPA away while the other two areas stand.
        self.drop_area(KVM_REG_PPC_VPA_DTL, "KVM_SET_ONE_REG(VPA_DTL)")?;
        self.drop_area(KVM_REG_PPC_VPA_SLB, "KVM_SET_ONE_REG(VPA_SLB)")?;
        self.set_one(KVM_REG_PPC_VPA_ADDR, 0, "KVM_SET_ONE_REG(VPA_ADDR)")?;
        self.fd.read_from("KVM_SET_REGS", KVM_SET_REGS, &kvm_regs::default())?;
        for &id in CLEARED {
            // A register that this processor does not have cannot hold anything either.
            let _ = self.set_one(id, 0, "KVM_SET_ONE_REG");
        }
        self.clear_slb()?;
        if self.xics {
            // CPPR 0 takes nothing, MFRR 0xff asks for nothing, nothing is pending.
            let state = 0xffu64 << KVM_REG_PPC_ICP_MFRR_SHIFT | 0xffu64 << KVM_REG_PPC_ICP_PPRI_SHIFT;
            self.set_one(KVM_REG_PPC_ICP_STATE, state, "KVM_SET_ONE_REG(ICP_STATE)")?;
        }
        Ok(())
    }
}

impl Vcpu {
    /// Which signal it was, and what it tells.
    fn interrupted(&mut self) -> Result<Exit, HvError> {
        let signal = self.signals.take()?;
        let exit = match &mut self.idle {
            Idle::None => return Ok(Exit::Interrupted),
            Idle::Cedes(watch) => {
                let call = "read(kvm_hv:kvmppc_vcore_blocked)";
                if !watch.ceded().map_err(|source| HvError { call, source })? {
                    return Ok(Exit::Interrupted);
                }
                Exit::Ceded
            }
            Idle::Sleeps(_) if signal != Some(CEDE) => return Ok(Exit::Interrupted),
            Idle::Sleeps(events) => match events.watch() {
                // Of an event that was switched off meanwhile.
                Watch::Off => return Ok(Exit::Interrupted),
                Watch::Wake => return Ok(Exit::Woken),
                Watch::Cedes { .. } => Exit::Ceded,
            },
        };
        // perf's signal can come so late that KVM had been woken before it, and the guest has run on. Of a guest that has
        // just ceded the registers say so; taking one that has not for one that has would let it sleep with work to do.
        let mut regs = kvm_regs::default();
        self.fd.exchange("KVM_GET_REGS", KVM_GET_REGS, &mut regs)?;
        let ceded = regs.gpr[3] == H_SUCCESS && regs.msr & MSR_EE != 0;
        Ok(if ceded { exit } else { Exit::Interrupted })
    }

    /// KVM's own figures of this vCPU, for any thread. To be asked for before the vCPU runs first.
    ///
    /// # Errors
    /// When this KVM has none.
    pub fn stats(&self) -> Result<KvmStats, StatsError> {
        KvmStats::of(&self.fd)
    }

    /// Lets KVM finish the last exit without entering the guest. An hcall that never returned (stop-self, a
    /// reboot) is still open in KVM, which would write its results over the registers at the next run.
    fn finish_exit(&mut self) -> Result<(), HvError> {
        self.shared().immediate_exit = 1;
        let result = self.fd.value("KVM_RUN", KVM_RUN, 0);
        self.shared().immediate_exit = 0;
        match result {
            Err(error) if error.source.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn clear_slb(&mut self) -> Result<(), HvError> {
        let mut sregs = kvm_sregs::default();
        self.fd.exchange("KVM_GET_SREGS", KVM_GET_SREGS, &mut sregs)?;
        let cleared = kvm_sregs { pvr: sregs.pvr, ..Default::default() };
        self.fd.read_from("KVM_SET_SREGS", KVM_SET_SREGS, &cleared).map(drop)
    }
}

#[cfg(test)]
mod tests;

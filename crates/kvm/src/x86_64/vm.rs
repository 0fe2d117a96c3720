//! A virtual machine: memory slots, the interrupt controllers, the interval timer, vCPUs.

use super::msrs;
use super::vcpu::Vcpu;
use crate::fd::KvmFd;
use crate::ioctl::x86_64::*;
use crate::signals::Signals;
use crate::stats::VcpuFigures;
use crate::system::{Kvm, OpenError};
use arch_api::x86_64::Partition;
use arch_api::{Bind, HvError};
use kvm_bindings::*;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Where KVM keeps pages for real mode on Intel processors that cannot run it: below the reset vector, above the local APIC. The
/// page tables' page, then the three of a task state segment.
const IDENTITY_MAP: u64 = 0xfffb_c000;
const TSS: u64 = IDENTITY_MAP + 0x1000;

/// An empty VM.
#[derive(Debug)]
pub struct VmFd {
    pub(super) fd: KvmFd,
    pub(super) run_size: usize,
    /// KVM's list of model specific registers.
    pub(super) msrs: Vec<u32>,
}

impl VmFd {
    /// Makes an empty VM.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn create(kvm: &Kvm) -> Result<Self, OpenError> {
        let open = |error: HvError| OpenError::Open(error.source);
        let number = kvm.fd.value("KVM_CREATE_VM", KVM_CREATE_VM, 0).map_err(open)?;
        // SAFETY: the kernel made this descriptor for us just now, and nobody else has it.
        let fd = KvmFd(unsafe { OwnedFd::from_raw_fd(number) });
        let size = kvm.fd.value("KVM_GET_VCPU_MMAP_SIZE", KVM_GET_VCPU_MMAP_SIZE, 0).map_err(open)?;
        let msrs = msrs::listed(&kvm.fd).map_err(open)?;
        Ok(Self { fd, run_size: usize::try_from(size).unwrap_or(0), msrs })
    }
}

/// A virtual machine with its interrupt controllers.
#[derive(Debug)]
pub struct Vm {
    vm: Arc<VmFd>,
    signals: Signals,
    /// Both PICs and the I/O APIC as they were made.
    chips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
    figures: VcpuFigures,
    /// Keeps RAM mapped as long as KVM may touch it.
    memory: OnceLock<GuestMemoryMmap>,
}

impl Vm {
    /// Builds the interrupt controllers on an empty VM. `signals` are let through while a vCPU runs.
    ///
    /// # Errors
    /// When KVM refuses a part.
    pub fn build(vm: VmFd, signals: Signals) -> Result<Self, HvError> {
        vm.fd.read_from("KVM_SET_IDENTITY_MAP_ADDR", KVM_SET_IDENTITY_MAP_ADDR, &IDENTITY_MAP)?;
        vm.fd.value("KVM_SET_TSS_ADDR", KVM_SET_TSS_ADDR, TSS)?;
        vm.fd.value("KVM_CREATE_IRQCHIP", KVM_CREATE_IRQCHIP, 0)?;
        // Port 0x61 is the kernel's too: guests calibrate their clocks by it.
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.fd.read_from("KVM_CREATE_PIT2", KVM_CREATE_PIT2, &pit)?;
        let chips = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC].map(|chip_id| {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            vm.fd.exchange("KVM_GET_IRQCHIP", KVM_GET_IRQCHIP, &mut chip).map(|_| chip)
        });
        let chips = chips.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut pit = kvm_pit_state2::default();
        vm.fd.exchange("KVM_GET_PIT2", KVM_GET_PIT2, &mut pit)?;
        let vm = Arc::new(vm);
        Ok(Self { vm, signals, chips, pit, figures: VcpuFigures::default(), memory: OnceLock::new() })
    }

    /// The VM's own limit of halt polling, for any thread.
    #[must_use]
    pub fn halt_poll(&self) -> HaltPoll {
        HaltPoll(Arc::clone(&self.vm))
    }

    /// KVM's figures of the vCPUs, those that are made later included.
    #[must_use]
    pub fn figures(&self) -> VcpuFigures {
        self.figures.clone()
    }
}

/// How long KVM polls at most before a vCPU of this VM sleeps, in place of what the host's module says.
#[derive(Debug, Clone)]
pub struct HaltPoll(Arc<VmFd>);

impl HaltPoll {
    /// Sets the limit in nanoseconds; 0 is no polling.
    ///
    /// # Errors
    /// Where this KVM has no such limit (KVM_CAP_HALT_POLL).
    pub fn set(&self, ns: u32) -> Result<(), HvError> {
        let cap =
            kvm_enable_cap { cap: KVM_CAP_HALT_POLL, args: [u64::from(ns), 0, 0, 0], ..Default::default() };
        self.0.fd.read_from("KVM_ENABLE_CAP(HALT_POLL)", KVM_ENABLE_CAP, &cap).map(drop)
    }
}

impl Partition for Vm {
    fn set_irq(&self, pin: u32, level: bool) -> Result<(), HvError> {
        let mut line = kvm_irq_level { level: u32::from(level), ..Default::default() };
        line.__bindgen_anon_1.irq = pin;
        self.vm.fd.read_from("KVM_IRQ_LINE", KVM_IRQ_LINE, &line).map(drop)
    }

    fn signal_msi(&self, address: u64, data: u32) -> Result<(), HvError> {
        let (address_lo, address_hi) = (address as u32, (address >> 32) as u32);
        let message = kvm_msi { address_lo, address_hi, data, ..Default::default() };
        self.vm.fd.read_from("KVM_SIGNAL_MSI", KVM_SIGNAL_MSI, &message).map(drop)
    }

    fn ioeventfd(&self, address: u64, length: u32, event: &dyn AsRawFd, bind: Bind) -> Result<(), HvError> {
        let flags = match bind {
            Bind::Add => 0,
            Bind::Remove => 1 << kvm_ioeventfd_flag_nr_deassign,
        };
        let binding =
            kvm_ioeventfd { addr: address, len: length, fd: event.as_raw_fd(), flags, ..Default::default() };
        self.vm.fd.read_from("KVM_IOEVENTFD", KVM_IOEVENTFD, &binding).map(drop)
    }
}

impl arch_api::x86_64::Vm for Vm {
    type Vcpu = Vcpu;

    fn set_memory(&self, memory: &GuestMemoryMmap) -> Result<(), HvError> {
        for (region, slot) in memory.iter().zip(0..) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            let call = "KVM_SET_USER_MEMORY_REGION";
            self.vm.fd.read_from(call, KVM_SET_USER_MEMORY_REGION, &region)?;
        }
        // Called once; the clone shares the mapping.
        let _ = self.memory.set(memory.clone());
        Ok(())
    }

    fn create_vcpu(&self, id: u32) -> Result<Vcpu, HvError> {
        let vcpu = Vcpu::create(&self.vm, id, self.signals)?;
        // A KVM without them runs guests all the same.
        self.figures.push(vcpu.stats().ok());
        Ok(vcpu)
    }

    fn reset(&self) -> Result<(), HvError> {
        for chip in &self.chips {
            self.vm.fd.read_from("KVM_SET_IRQCHIP", KVM_SET_IRQCHIP, chip)?;
        }
        self.vm.fd.read_from("KVM_SET_PIT2", KVM_SET_PIT2, &self.pit).map(drop)
    }
}

//! A virtual machine: memory slots, MMU, interrupt controller, vCPUs, in the order that KVM wants.

use super::device::Device;
use super::timebase;
use super::vcpu::{Making, Vcpu};
use super::xive::XiveDevice;
use crate::bindings::ppc64::*;
use crate::fd::KvmFd;
use crate::ioctl::ppc64::*;
use crate::signals::Signals;
use crate::stats::VcpuFigures;
use crate::system::{Kvm, OpenError};
use arch_api::HvError;
use arch_api::ppc64::{Bind, Host, Irqchip, Mmu, Partition, Plane, Trigger, VmSpec, Xive};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// An empty VM of Book3S HV.
#[derive(Debug)]
pub struct VmFd {
    pub(crate) fd: KvmFd,
    run_size: usize,
}

impl VmFd {
    /// Makes an empty VM.
    ///
    /// # Errors
    /// [`OpenError::NoHv`] where KVM is there but not its HV part.
    pub fn create(kvm: &Kvm) -> Result<Self, OpenError> {
        let hv = u64::from(KVM_VM_PPC_HV);
        let number =
            kvm.fd.value("KVM_CREATE_VM", KVM_CREATE_VM, hv).map_err(|e| OpenError::NoHv(e.source))?;
        // SAFETY: the kernel made this descriptor for us just now, and nobody else has it.
        let fd = KvmFd(unsafe { OwnedFd::from_raw_fd(number) });
        let size = kvm.fd.value("KVM_GET_VCPU_MMAP_SIZE", KVM_GET_VCPU_MMAP_SIZE, 0);
        let run_size = size.map_err(|e| OpenError::Open(e.source))?;
        Ok(Self { fd, run_size: usize::try_from(run_size).unwrap_or(0) })
    }

    fn enable(&self, cap: u32, args: [u64; 2], call: &'static str) -> Result<(), HvError> {
        let arg = kvm_enable_cap { cap, args: [args[0], args[1], 0, 0], ..Default::default() };
        self.fd.read_from(call, KVM_ENABLE_CAP, &arg).map(drop)
    }

    fn set_slot(&self, slot: u32, (guest, host, size): (u64, u64, u64)) -> Result<(), HvError> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: guest,
            memory_size: size,
            userspace_addr: host,
        };
        let call = "KVM_SET_USER_MEMORY_REGION";
        self.fd.read_from(call, KVM_SET_USER_MEMORY_REGION, &region).map(drop)
    }
}

/// The first memory slot of a XIVE's pages; RAM has those before.
const XIVE_SLOTS: u32 = 0x100;

#[derive(Debug)]
enum Controller {
    /// None of KVM's: the VMM has one.
    None,
    Xics {
        device: Device,
        sources: OnceLock<Vec<(u32, Trigger)>>,
    },
    Xive(XiveDevice),
}

/// A virtual machine with its MMU and interrupt controller.
///
/// Fields are dropped in this order; the kernel keeps what a descriptor needs until the last one is closed.
#[derive(Debug)]
pub struct Vm {
    vm: VmFd,
    controller: Controller,
    spec: VmSpec,
    /// Keeps RAM mapped as long as KVM may touch it.
    memory: OnceLock<GuestMemoryMmap>,
    signals: Signals,
    timebase_hz: u32,
    figures: VcpuFigures,
}

impl Vm {
    /// Builds what `spec` says on an empty VM. `signals` are let through while a vCPU runs.
    ///
    /// # Errors
    /// When KVM refuses a part.
    pub fn build(vm: VmFd, spec: VmSpec, host: &Host, signals: Signals) -> Result<Self, HvError> {
        vm.enable(KVM_CAP_PPC_SMT, [u64::from(spec.threads), 0], "KVM_ENABLE_CAP(PPC_SMT)")?;
        allocate_hash_table(&vm, spec.mmu)?;
        for &nr in &spec.hcalls {
            vm.enable(KVM_CAP_PPC_ENABLE_HCALL, [nr, 1], "KVM_ENABLE_CAP(PPC_ENABLE_HCALL)")?;
        }
        if let Plane::Vmm(_) = spec.plane {
            take_over_cede(&vm)?;
        }
        let controller = match (spec.plane, spec.irqchip) {
            (Plane::Vmm(_), _) => Controller::None,
            (Plane::Kernel | Plane::Assist(_), Irqchip::Xics) => create_xics(&vm, &spec)?,
            (Plane::Kernel | Plane::Assist(_), Irqchip::Xive) => {
                Controller::Xive(XiveDevice::create(&vm, &spec, host.page_size)?)
            }
        };
        for (name, token) in &spec.rtas {
            define_token(&vm, name, *token)?;
        }
        Ok(Self {
            vm,
            controller,
            spec,
            memory: OnceLock::new(),
            signals,
            timebase_hz: host.timebase_hz,
            figures: VcpuFigures::default(),
        })
    }
}

impl Vm {
    /// KVM's figures of the vCPUs, those that are made later included.
    #[must_use]
    pub fn figures(&self) -> VcpuFigures {
        self.figures.clone()
    }
}

/// KVM's own H_CEDE, H_PROD and H_CONFER off: they come to the VMM. POWER9's KVM handles H_CEDE all the same.
fn take_over_cede(vm: &VmFd) -> Result<(), HvError> {
    const H_CEDE: u64 = 0xe0;
    const H_CONFER: u64 = 0xe4;
    const H_PROD: u64 = 0xe8;
    [H_CEDE, H_CONFER, H_PROD]
        .into_iter()
        .try_for_each(|nr| vm.enable(KVM_CAP_PPC_ENABLE_HCALL, [nr, 0], "KVM_ENABLE_CAP(PPC_ENABLE_HCALL)"))
}

/// A table that exists is cleared when it has the same size, and replaced when not.
fn allocate_hash_table(vm: &VmFd, mmu: Mmu) -> Result<(), HvError> {
    let Mmu::Hash { mut htab_order } = mmu else { return Ok(()) };
    vm.fd.exchange("KVM_PPC_ALLOCATE_HTAB", KVM_PPC_ALLOCATE_HTAB, &mut htab_order).map(drop)
}

fn create_xics(vm: &VmFd, spec: &VmSpec) -> Result<Controller, HvError> {
    let device = Device::create(vm, KVM_DEV_TYPE_XICS, "KVM_CREATE_DEVICE(XICS)")?;
    let attr = u64::from(KVM_DEV_XICS_NR_SERVERS);
    if device.has(KVM_DEV_XICS_GRP_CTRL, attr) {
        let servers = spec.servers.iter().max().map_or(1, |last| last + 1);
        device.set(KVM_DEV_XICS_GRP_CTRL, attr, &servers, "KVM_DEV_XICS_NR_SERVERS")?;
    }
    Ok(Controller::Xics { device, sources: OnceLock::new() })
}

fn define_token(vm: &VmFd, name: &str, token: u32) -> Result<(), HvError> {
    let mut args = kvm_rtas_token_args { token: u64::from(token), ..Default::default() };
    // The last byte stays the terminating zero; the names are ours and short.
    for (to, from) in args.name[..119].iter_mut().zip(name.bytes()) {
        *to = from as _;
    }
    vm.fd.read_from("KVM_PPC_RTAS_DEFINE_TOKEN", KVM_PPC_RTAS_DEFINE_TOKEN, &args).map(drop)
}

/// Masked, on server 0, nothing asserted.
fn xics_source_at_power_on(trigger: Trigger) -> u64 {
    let level = match trigger {
        Trigger::Edge => 0,
        Trigger::Level => KVM_XICS_LEVEL_SENSITIVE,
    };
    0xff << KVM_XICS_PRIORITY_SHIFT | KVM_XICS_MASKED | level
}

fn reset_xics_sources(device: &Device, sources: &[(u32, Trigger)]) -> Result<(), HvError> {
    for &(source, trigger) in sources {
        let (call, value) = ("KVM_DEV_XICS_GRP_SOURCES", xics_source_at_power_on(trigger));
        device.set(KVM_DEV_XICS_GRP_SOURCES, u64::from(source), &value, call)?;
    }
    Ok(())
}

/// The structure of KVM_IRQFD.
fn irqfd(source: u32, event: &dyn AsRawFd, bind: Bind) -> kvm_irqfd {
    let flags = match bind {
        Bind::Add => 0,
        Bind::Remove => KVM_IRQFD_FLAG_DEASSIGN,
    };
    kvm_irqfd { fd: event.as_raw_fd() as u32, gsi: source, flags, ..Default::default() }
}

/// The structure of KVM_IOEVENTFD, without a value that the store has to match.
fn ioeventfd(address: u64, length: u32, event: &dyn AsRawFd, bind: Bind) -> kvm_ioeventfd {
    let flags = match bind {
        Bind::Add => 0,
        Bind::Remove => KVM_IOEVENTFD_FLAG_DEASSIGN,
    };
    kvm_ioeventfd { addr: address, len: length, fd: event.as_raw_fd(), flags, ..Default::default() }
}

impl Partition for Vm {
    fn configure_mmu(&self, radix: bool, gtse: bool, table: u64) -> Result<(), HvError> {
        let mut flags = 0;
        let mut process_table = table;
        if radix {
            flags |= u64::from(KVM_PPC_MMUV3_RADIX);
            // KVM wants the host-radix bit of the table to say the same.
            process_table |= 1 << 63;
        }
        if gtse {
            flags |= u64::from(KVM_PPC_MMUV3_GTSE);
        }
        let config = kvm_ppc_mmuv3_cfg { flags, process_table };
        self.vm.fd.read_from("KVM_PPC_CONFIGURE_V3_MMU", KVM_PPC_CONFIGURE_V3_MMU, &config).map(drop)
    }

    fn set_irq(&self, source: u32, level: bool) -> Result<(), HvError> {
        if let Controller::Xive(device) = &self.controller {
            device.note_level(source, level);
        }
        let mut line = kvm_irq_level { level: u32::from(level), ..Default::default() };
        line.__bindgen_anon_1.irq = source;
        self.vm.fd.read_from("KVM_IRQ_LINE", KVM_IRQ_LINE, &line).map(drop)
    }

    fn irqfd(&self, source: u32, event: &dyn AsRawFd, bind: Bind) -> Result<(), HvError> {
        self.vm.fd.read_from("KVM_IRQFD", KVM_IRQFD, &irqfd(source, event, bind)).map(drop)
    }

    fn ioeventfd(&self, address: u64, length: u32, event: &dyn AsRawFd, bind: Bind) -> Result<(), HvError> {
        let binding = ioeventfd(address, length, event, bind);
        self.vm.fd.read_from("KVM_IOEVENTFD", KVM_IOEVENTFD, &binding).map(drop)
    }

    fn timebase(&self) -> u64 {
        timebase::now()
    }

    fn xive(&self) -> Option<&dyn Xive> {
        match &self.controller {
            Controller::Xive(device) => Some(device),
            Controller::Xics { .. } | Controller::None => None,
        }
    }
}

impl arch_api::ppc64::Vm for Vm {
    type Vcpu = Vcpu;

    fn set_memory(&self, memory: &GuestMemoryMmap) -> Result<(), HvError> {
        let ram = memory.iter().map(|r| (r.start_addr().raw_value(), r.as_ptr() as u64, r.len()));
        ram.zip(0..).try_for_each(|(range, slot)| self.vm.set_slot(slot, range))?;
        // Called once; the clone shares the mapping.
        let _ = self.memory.set(memory.clone());
        Ok(())
    }

    fn create_vcpu(&self, server: u32) -> Result<Vcpu, HvError> {
        let (run_size, signals, timebase_hz) = (self.vm.run_size, self.signals, self.timebase_hz);
        let making = Making { run_size, signals, plane: self.spec.plane, timebase_hz };
        let mut vcpu = Vcpu::create(&self.vm, server, making)?;
        vcpu.enable(KVM_CAP_PPC_PAPR, [0; 2], "KVM_ENABLE_CAP(PPC_PAPR)")?;
        if let Some(pvr) = self.spec.compat {
            vcpu.set_one(KVM_REG_PPC_ARCH_COMPAT, u64::from(pvr), "KVM_SET_ONE_REG(ARCH_COMPAT)")?;
        }
        match &self.controller {
            Controller::None => {}
            Controller::Xics { device, .. } => vcpu.connect_xics(device.number(), server)?,
            Controller::Xive(xive) => {
                let args = [xive.device.number(), u64::from(server)];
                vcpu.enable(KVM_CAP_PPC_IRQ_XIVE, args, "KVM_ENABLE_CAP(PPC_IRQ_XIVE)")?;
            }
        }
        vcpu.set_signal_mask()?;
        // A KVM without them runs guests all the same.
        self.figures.push(vcpu.stats().ok());
        Ok(vcpu)
    }

    fn create_sources(&self, list: &[(u32, Trigger)]) -> Result<(), HvError> {
        match &self.controller {
            Controller::None => Ok(()),
            Controller::Xics { device, sources } => {
                reset_xics_sources(device, list)?;
                // Called once.
                let _ = sources.set(list.to_vec());
                Ok(())
            }
            Controller::Xive(device) => {
                device.create_sources(list)?;
                let pages = device.slots(self.spec.xive);
                pages
                    .into_iter()
                    .zip(XIVE_SLOTS..)
                    .try_for_each(|(range, slot)| self.vm.set_slot(slot, range))
            }
        }
    }

    fn reset(&self) -> Result<(), HvError> {
        match self.spec.mmu {
            Mmu::Radix => self.configure_mmu(true, false, 0)?,
            mmu @ Mmu::Hash { .. } => allocate_hash_table(&self.vm, mmu)?,
        }
        match &self.controller {
            Controller::None => Ok(()),
            Controller::Xics { device, sources } => {
                reset_xics_sources(device, sources.get().map_or(&[], Vec::as_slice))
            }
            Controller::Xive(device) => device.power_on(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn sources_of_the_xics_say_how_they_trigger() {
        assert_eq!(xics_source_at_power_on(Trigger::Edge), 0xff << 32 | 1 << 41);
        assert_eq!(xics_source_at_power_on(Trigger::Level), 0xff << 32 | 1 << 41 | 1 << 40);
    }

    #[test]
    fn a_removal_names_what_was_added() {
        let event = std::fs::File::open("/dev/null").unwrap();
        let (event, number) = (event.as_fd(), event.as_raw_fd());
        for (bind, irqfd_flag, ioeventfd_flag) in [(Bind::Add, 0, 0), (Bind::Remove, 1, 4)] {
            let irqfd = irqfd(0x1300, &event, bind);
            assert_eq!((irqfd.fd as i32, irqfd.gsi, irqfd.flags), (number, 0x1300, irqfd_flag));
            let io = ioeventfd(0x2000_0000_3000, 2, &event, bind);
            let named = (io.addr, io.len, io.fd, io.flags, io.datamatch);
            assert_eq!(named, (0x2000_0000_3000, 2, number, ioeventfd_flag, 0));
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!((KVM_IRQFD, KVM_IOEVENTFD), (0x8020_ae76, 0x8040_ae79));
    }
}

//! A vCPU's whole state: taken when it was made, put back at each reset.
//!
//! The power-on state is so KVM's own, and nothing that the guest could have changed has to be known by name.

use super::msrs;
use crate::fd::KvmFd;
use crate::ioctl::x86_64::*;
use arch_api::HvError;
use kvm_bindings::*;

/// The time stamp counter and what it is adjusted by: KVM keeps the counters of all vCPUs together as long as nobody writes them.
const TIME: [u32; 2] = [0x10, 0x3b];

/// The floating-point and vector registers, as `struct kvm_xsave` without what comes behind for those who ask for more.
type Xsave = [u32; 1024];

/// Everything of a vCPU that KVM tells.
#[derive(Debug)]
pub(super) struct State {
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<Xsave>,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: Box<kvm_lapic_state>,
    msrs: Vec<(u32, u64)>,
    events: kvm_vcpu_events,
}

fn get<T: Copy + Default>(vcpu: &KvmFd, call: &'static str, nr: u32) -> Result<T, HvError> {
    let mut value = T::default();
    vcpu.exchange(call, nr, &mut value)?;
    Ok(value)
}

impl State {
    /// Takes the state of `vcpu`; `msrs` are KVM's list.
    pub fn take(vcpu: &KvmFd, msrs: &[u32]) -> Result<Self, HvError> {
        let mut xsave = Box::new([0; 1024]);
        vcpu.exchange::<Xsave>("KVM_GET_XSAVE", KVM_GET_XSAVE, xsave.as_mut())?;
        let msrs: Vec<u32> = msrs.iter().copied().filter(|msr| !TIME.contains(msr)).collect();
        Ok(Self {
            mp_state: get(vcpu, "KVM_GET_MP_STATE", KVM_GET_MP_STATE)?,
            regs: get(vcpu, "KVM_GET_REGS", KVM_GET_REGS)?,
            sregs: get(vcpu, "KVM_GET_SREGS", KVM_GET_SREGS)?,
            xsave,
            xcrs: get(vcpu, "KVM_GET_XCRS", KVM_GET_XCRS)?,
            debug: get(vcpu, "KVM_GET_DEBUGREGS", KVM_GET_DEBUGREGS)?,
            lapic: Box::new(get(vcpu, "KVM_GET_LAPIC", KVM_GET_LAPIC)?),
            msrs: msrs::read(vcpu, &msrs)?,
            events: get(vcpu, "KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS)?,
        })
    }

    /// Puts it back. The order is KVM's: the segment registers have the local APIC's base, and events are the last, since others
    /// clear them.
    pub fn put(&self, vcpu: &KvmFd) -> Result<(), HvError> {
        vcpu.read_from("KVM_SET_MP_STATE", KVM_SET_MP_STATE, &self.mp_state)?;
        vcpu.read_from("KVM_SET_SREGS", KVM_SET_SREGS, &self.sregs)?;
        vcpu.read_from("KVM_SET_REGS", KVM_SET_REGS, &self.regs)?;
        vcpu.read_from("KVM_SET_XSAVE", KVM_SET_XSAVE, self.xsave.as_ref())?;
        vcpu.read_from("KVM_SET_XCRS", KVM_SET_XCRS, &self.xcrs)?;
        vcpu.read_from("KVM_SET_DEBUGREGS", KVM_SET_DEBUGREGS, &self.debug)?;
        vcpu.read_from("KVM_SET_LAPIC", KVM_SET_LAPIC, self.lapic.as_ref())?;
        msrs::restore(vcpu, &self.msrs)?;
        vcpu.read_from("KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS, &self.events).map(drop)
    }
}

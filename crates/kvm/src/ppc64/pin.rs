//! The external interrupt's input of a vCPU whose VM has no interrupt controller in KVM.

use crate::bindings::ppc64::{KVM_INTERRUPT_SET_LEVEL, KVM_INTERRUPT_UNSET, kvm_interrupt};
use crate::fd::KvmFd;
use crate::ioctl::ppc64::KVM_INTERRUPT;
use arch_api::HvError;
use arch_api::ppc64::ExternalPin;
use std::sync::Arc;

/// The pin. KVM_INTERRUPT is one of the few ioctls of a vCPU that take no lock of its, so that any thread can make it
/// while the vCPU runs.
#[derive(Debug)]
pub(super) struct Pin(Arc<KvmFd>);

impl Pin {
    pub fn new(vcpu: Arc<KvmFd>) -> Self {
        Self(vcpu)
    }
}

impl ExternalPin for Pin {
    fn set(&self, level: bool) -> Result<(), HvError> {
        let irq = if level { KVM_INTERRUPT_SET_LEVEL } else { KVM_INTERRUPT_UNSET };
        self.0.read_from("KVM_INTERRUPT", KVM_INTERRUPT, &kvm_interrupt { irq }).map(drop)
    }
}

//! What this host's KVM can do.

use crate::ioctl::x86_64::KVM_GET_SUPPORTED_CPUID;
use crate::system::Kvm;
use arch_api::HvError;
use arch_api::x86_64::{CpuidLeaf, Host};
use kvm_bindings::*;

/// The capabilities that `cede caps` lists.
pub static CAPABILITIES: &[(&str, u32)] = &[
    ("KVM_CAP_IRQCHIP", KVM_CAP_IRQCHIP),
    ("KVM_CAP_PIT2", KVM_CAP_PIT2),
    ("KVM_CAP_SIGNAL_MSI", KVM_CAP_SIGNAL_MSI),
    ("KVM_CAP_IRQFD", KVM_CAP_IRQFD),
    ("KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD),
    ("KVM_CAP_IOEVENTFD_ANY_LENGTH", KVM_CAP_IOEVENTFD_ANY_LENGTH),
    ("KVM_CAP_TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER),
    ("KVM_CAP_SPLIT_IRQCHIP", KVM_CAP_SPLIT_IRQCHIP),
    ("KVM_CAP_HALT_POLL", KVM_CAP_HALT_POLL),
    ("KVM_CAP_BINARY_STATS_FD", KVM_CAP_BINARY_STATS_FD),
    ("KVM_CAP_NR_VCPUS", KVM_CAP_NR_VCPUS),
    ("KVM_CAP_MAX_VCPUS", KVM_CAP_MAX_VCPUS),
    ("KVM_CAP_MAX_VCPU_ID", KVM_CAP_MAX_VCPU_ID),
];

/// What no machine can do without.
const NEEDED: &[(&str, u32)] = &[
    ("KVM_CAP_IRQCHIP", KVM_CAP_IRQCHIP),
    ("KVM_CAP_PIT2", KVM_CAP_PIT2),
    ("KVM_CAP_PIT_STATE2", KVM_CAP_PIT_STATE2),
    ("KVM_CAP_SIGNAL_MSI", KVM_CAP_SIGNAL_MSI),
    ("KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD),
    ("KVM_CAP_EXT_CPUID", KVM_CAP_EXT_CPUID),
    ("KVM_CAP_MP_STATE", KVM_CAP_MP_STATE),
    ("KVM_CAP_VCPU_EVENTS", KVM_CAP_VCPU_EVENTS),
    ("KVM_CAP_SET_TSS_ADDR", KVM_CAP_SET_TSS_ADDR),
    ("KVM_CAP_SET_IDENTITY_MAP_ADDR", KVM_CAP_SET_IDENTITY_MAP_ADDR),
    ("KVM_CAP_IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT),
];

/// The most leaves that the kernel takes or gives (`KVM_MAX_CPUID_ENTRIES`).
const LEAVES: usize = 256;

/// `struct kvm_cpuid2` with the entries behind it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Cpuid {
    /// How many entries there are, and nothing.
    head: [u32; 2],
    entries: [kvm_cpuid_entry2; LEAVES],
}

impl Cpuid {
    pub fn of(leaves: &[CpuidLeaf]) -> Self {
        let mut all = Self {
            head: [leaves.len().min(LEAVES) as u32, 0],
            entries: [kvm_cpuid_entry2::default(); LEAVES],
        };
        for (entry, leaf) in all.entries.iter_mut().zip(leaves) {
            let CpuidLeaf { function, index, eax, ebx, ecx, edx } = *leaf;
            let flags = if index.is_some() { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
            let index = index.unwrap_or(0);
            *entry = kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() };
        }
        all
    }

    fn leaves(&self) -> Vec<CpuidLeaf> {
        let leaf = |entry: &kvm_cpuid_entry2| CpuidLeaf {
            function: entry.function,
            index: (entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(entry.index),
            eax: entry.eax,
            ebx: entry.ebx,
            ecx: entry.ecx,
            edx: entry.edx,
        };
        self.entries.iter().take(self.head[0] as usize).map(leaf).collect()
    }
}

/// Asks KVM what this host is. What KVM does not answer counts as absent.
///
/// # Errors
/// When it does not say what the processor is.
pub fn probe(kvm: &Kvm) -> Result<Host, HvError> {
    let mut cpuid = Cpuid::of(&[]);
    cpuid.head[0] = LEAVES as u32;
    kvm.fd.exchange_long("KVM_GET_SUPPORTED_CPUID", KVM_GET_SUPPORTED_CPUID, &mut cpuid)?;
    let has = |cap| kvm.capability(cap) > 0;
    let number = |cap| u32::try_from(kvm.capability(cap)).unwrap_or(0);
    Ok(Host {
        cpuid: cpuid.leaves(),
        max_vcpus: number(KVM_CAP_MAX_VCPUS).max(number(KVM_CAP_NR_VCPUS)),
        tsc_deadline: has(KVM_CAP_TSC_DEADLINE_TIMER),
        missing: NEEDED.iter().filter(|(_, cap)| !has(*cap)).map(|(name, _)| *name).collect(),
        halt_poll: has(KVM_CAP_HALT_POLL),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_go_to_the_kernel_and_come_back() {
        let leaves = [
            CpuidLeaf { function: 1, edx: 7, ..Default::default() },
            CpuidLeaf { function: 0xb, index: Some(1), ebx: 4, ..Default::default() },
        ];
        let cpuid = Cpuid::of(&leaves);
        assert_eq!(cpuid.leaves(), leaves);
        assert_eq!(cpuid.entries[1].flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
        assert_eq!(std::mem::offset_of!(Cpuid, entries), size_of::<kvm_cpuid2>());
    }
}

//! What CPUID shows each vCPU: what KVM offers, less what a guest cannot have, with the numbers of the vCPU and of its package.
//!
//! All vCPUs are cores of one package, of one thread each, and vCPU n has APIC id n.
//! Source: Intel SDM volume 2, CPUID; AMD64 APM volume 3, appendix E.

use arch_api::x86_64::{CpuidLeaf, Host};

/// Leaf 1, ECX: MONITOR and MWAIT, which KVM lets nobody have by default, and virtualization of Intel's, whose state a reset of ours does
/// not clear.
const MONITOR: u32 = 1 << 3;
const VMX: u32 = 1 << 5;
/// The timer by a time stamp, which is KVM's own.
const TSC_DEADLINE: u32 = 1 << 24;
/// There is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: the package has several APIC ids.
const MULTI: u32 = 1 << 28;
/// Leaf 0x80000001, ECX: AMD's older word for several cores; its virtualization; its topology leaf.
const CMP_LEGACY: u32 = 1 << 1;
const SVM: u32 = 1 << 2;

/// Levels of leaf 0xb.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// log2 of the APIC ids that `cpus` need.
fn id_bits(cpus: u32) -> u32 {
    cpus.next_power_of_two().trailing_zeros()
}

/// The leaves of vCPU `id` of `cpus`.
#[must_use]
pub fn leaves(host: &Host, id: u32, cpus: u32) -> Vec<CpuidLeaf> {
    let mut leaves: Vec<_> = host.cpuid.iter().filter(|leaf| is_kept(leaf)).copied().collect();
    for leaf in &mut leaves {
        adjust(leaf, host, id, cpus);
    }
    if host.cpuid.iter().any(|leaf| leaf.function == 0xb) {
        leaves.extend(topology(id, cpus));
    }
    leaves
}

/// Topology is ours to say (0xb, 0x1f); MWAIT (5), performance counters (0xa) and the virtualization of AMD (0x8000000a) there are none.
fn is_kept(leaf: &CpuidLeaf) -> bool {
    !matches!(leaf.function, 0x5 | 0xa | 0xb | 0x1f | 0x8000_000a)
}

fn adjust(leaf: &mut CpuidLeaf, host: &Host, id: u32, cpus: u32) {
    match leaf.function {
        0 => leaf.eax = leaf.eax.min(0x1e),
        1 => {
            leaf.ebx = leaf.ebx & 0xffff | cpus.min(255) << 16 | id << 24;
            leaf.ecx = leaf.ecx & !(MONITOR | VMX) | HYPERVISOR;
            if host.tsc_deadline {
                leaf.ecx |= TSC_DEADLINE;
            }
            leaf.edx = if cpus > 1 { leaf.edx | MULTI } else { leaf.edx & !MULTI };
        }
        // Each core has its caches to itself, and as many cores as there are ids for share the package.
        4 if leaf.eax & 0x1f != 0 => leaf.eax = leaf.eax & 0x3fff | ((1 << id_bits(cpus)) - 1) << 26,
        0x8000_0001 => {
            leaf.ecx &= !(SVM | CMP_LEGACY);
            if cpus > 1 {
                leaf.ecx |= CMP_LEGACY;
            }
        }
        0x8000_0008 => leaf.ecx = id_bits(cpus) << 12 | (cpus - 1),
        0x8000_001d => leaf.eax &= 0x3fff,
        0x8000_001e => (leaf.eax, leaf.ebx, leaf.ecx) = (id, id & 0xff, 0),
        _ => {}
    }
}

/// Leaf 0xb: threads of a core, cores of a package, and an end.
fn topology(id: u32, cpus: u32) -> [CpuidLeaf; 3] {
    let level = |index, kind: u32, bits, count| CpuidLeaf {
        function: 0xb,
        index: Some(index),
        eax: bits,
        ebx: count,
        ecx: kind << 8 | index,
        edx: id,
    };
    [level(0, LEVEL_THREAD, 0, 1), level(1, LEVEL_CORE, id_bits(cpus), cpus), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        let leaf =
            |function, ecx| CpuidLeaf { function, eax: 0x20, ebx: 0xaabb_ccdd, ecx, ..Default::default() };
        let cpuid = vec![
            leaf(0, 0),
            leaf(1, MONITOR | VMX),
            leaf(5, 0),
            leaf(0xa, 0),
            leaf(0xb, 0),
            leaf(0x8000_0001, SVM),
        ];
        Host { cpuid, tsc_deadline: true, ..Host::default() }
    }

    fn find(leaves: &[CpuidLeaf], function: u32) -> Vec<CpuidLeaf> {
        leaves.iter().copied().filter(|leaf| leaf.function == function).collect()
    }

    #[test]
    fn each_vcpu_has_its_number() {
        for id in 0..4 {
            let leaves = leaves(&host(), id, 4);
            assert_eq!(find(&leaves, 1)[0].ebx, id << 24 | 4 << 16 | 0xccdd);
            let levels = find(&leaves, 0xb);
            assert_eq!(levels.iter().map(|level| level.edx).collect::<Vec<_>>(), [id; 3]);
            assert_eq!((levels[1].eax, levels[1].ebx, levels[1].ecx), (2, 4, 0x201));
        }
        assert_eq!(find(&leaves(&host(), 0, 3), 0xb)[1].eax, 2, "ids for three are of two bits");
        assert_eq!(find(&leaves(&host(), 0, 1), 0xb)[1].eax, 0);
    }

    #[test]
    fn what_a_guest_cannot_have_is_not_shown() {
        let leaves = leaves(&host(), 0, 1);
        let features = find(&leaves, 1)[0];
        assert_eq!(features.ecx, HYPERVISOR | TSC_DEADLINE);
        assert_eq!(features.edx & MULTI, 0);
        assert_eq!(find(&leaves, 0x8000_0001)[0].ecx, 0);
        assert!(find(&leaves, 5).is_empty() && find(&leaves, 0xa).is_empty());
        assert_eq!(find(&leaves, 0)[0].eax, 0x1e, "without the leaf that was left out");
    }
}

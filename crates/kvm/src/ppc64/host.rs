//! What this host's KVM can do.

use super::cede_event;
use super::vm::VmFd;
use crate::bindings::ppc64::*;
use crate::ioctl::ppc64::{KVM_PPC_GET_CPU_CHAR, KVM_PPC_GET_RMMU_INFO, KVM_PPC_GET_SMMU_INFO};
use crate::system::{Kvm, OpenError};
use arch_api::HvError;
use arch_api::ppc64::{CedeRoute, CpuCharacteristics, Generation, HashInfo, Host, SegmentPageSize};

/// The capabilities that `cede caps` lists.
pub static CAPABILITIES: &[(&str, u32)] = &[
    ("KVM_CAP_PPC_SMT", KVM_CAP_PPC_SMT),
    ("KVM_CAP_PPC_SMT_POSSIBLE", KVM_CAP_PPC_SMT_POSSIBLE),
    ("KVM_CAP_PPC_ENABLE_HCALL", KVM_CAP_PPC_ENABLE_HCALL),
    ("KVM_CAP_IRQ_XICS", KVM_CAP_IRQ_XICS),
    ("KVM_CAP_PPC_IRQ_XIVE", KVM_CAP_PPC_IRQ_XIVE),
    ("KVM_CAP_IRQFD", KVM_CAP_IRQFD),
    ("KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD),
    ("KVM_CAP_PPC_MMU_RADIX", KVM_CAP_PPC_MMU_RADIX),
    ("KVM_CAP_PPC_MMU_HASH_V3", KVM_CAP_PPC_MMU_HASH_V3),
    ("KVM_CAP_PPC_HTM", KVM_CAP_PPC_HTM),
    ("KVM_CAP_PPC_HWRNG", KVM_CAP_PPC_HWRNG),
    ("KVM_CAP_PPC_AIL_MODE_3", KVM_CAP_PPC_AIL_MODE_3),
    ("KVM_CAP_PPC_DAWR1", KVM_CAP_PPC_DAWR1),
    ("KVM_CAP_PPC_NESTED_HV", KVM_CAP_PPC_NESTED_HV),
    ("KVM_CAP_HALT_POLL", KVM_CAP_HALT_POLL),
    ("KVM_CAP_BINARY_STATS_FD", KVM_CAP_BINARY_STATS_FD),
    ("KVM_CAP_NR_VCPUS", KVM_CAP_NR_VCPUS),
    ("KVM_CAP_MAX_VCPUS", KVM_CAP_MAX_VCPUS),
    ("KVM_CAP_MAX_VCPU_ID", KVM_CAP_MAX_VCPU_ID),
];

/// Asks KVM and the kernel what this host is. The VM is the one that is going to be used, or one to throw away.
///
/// # Errors
/// When the processor is not known; what KVM does not answer counts as absent.
pub fn probe(kvm: &Kvm, vm: &VmFd) -> Result<Host, OpenError> {
    let cpuinfo =
        std::fs::read_to_string("/proc/cpuinfo").map_err(|e| OpenError::Processor(e.to_string()))?;
    let (pvr, timebase_hz) = processor(&cpuinfo)?;
    let generation = Generation::of_pvr(pvr)
        .ok_or_else(|| OpenError::Processor(format!("PVR {pvr:#010x} is none of POWER8 to POWER11")))?;
    let has = |cap| kvm.capability(cap) > 0;
    let number = |cap| u32::try_from(kvm.capability(cap)).unwrap_or(0);
    let max_vcpus = number(KVM_CAP_MAX_VCPUS).max(number(KVM_CAP_NR_VCPUS));
    Ok(Host {
        pvr,
        generation,
        timebase_hz,
        page_size: page_size(),
        max_vcpus,
        max_vcpu_id: number(KVM_CAP_MAX_VCPU_ID).max(max_vcpus),
        smt_possible: number(KVM_CAP_PPC_SMT_POSSIBLE).max(1),
        radix: has(KVM_CAP_PPC_MMU_RADIX),
        hash: generation == Generation::Power8 || has(KVM_CAP_PPC_MMU_HASH_V3),
        xics: has(KVM_CAP_IRQ_XICS),
        xive: has(KVM_CAP_PPC_IRQ_XIVE),
        cede: cede_route(kvm, generation),
        hwrng: has(KVM_CAP_PPC_HWRNG),
        ail_mode_3: has(KVM_CAP_PPC_AIL_MODE_3),
        htm: has(KVM_CAP_PPC_HTM),
        dawr1: has(KVM_CAP_PPC_DAWR1),
        hash_info: hash_info(vm).ok(),
        radix_ap_encodings: radix_ap_encodings(vm).unwrap_or_default(),
        characteristics: characteristics(vm).ok(),
    })
}

/// How H_CEDE can be taken over, or why not.
fn cede_route(kvm: &Kvm, generation: Generation) -> Result<CedeRoute, String> {
    for (name, cap) in [
        ("KVM_CAP_PPC_ENABLE_HCALL", KVM_CAP_PPC_ENABLE_HCALL),
        ("KVM_CAP_PPC_UNSET_IRQ", KVM_CAP_PPC_UNSET_IRQ),
        ("KVM_CAP_PPC_IRQ_LEVEL", KVM_CAP_PPC_IRQ_LEVEL),
    ] {
        if kvm.capability(cap) <= 0 {
            return Err(format!("this host's KVM lacks {name}; take a newer kernel"));
        }
    }
    match generation {
        Generation::Power8 => Ok(CedeRoute::Hcall),
        Generation::Power9 | Generation::Power10 => cede_event::probe().map(CedeRoute::Event),
    }
}

/// PVR and timebase frequency from /proc/cpuinfo, which shows the register where the device tree may show
/// a logical PVR.
fn processor(cpuinfo: &str) -> Result<(u32, u32), OpenError> {
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim())
    };
    let missing =
        |what| OpenError::Processor(format!("/proc/cpuinfo has no {what}; is this a POWER machine?"));
    let pvr = field("revision")
        .and_then(|text| text.split_once("(pvr ")?.1.strip_suffix(')'))
        .and_then(|text| text.split_once(' '))
        .and_then(|(high, low)| {
            Some(u32::from_str_radix(high, 16).ok()? << 16 | u32::from_str_radix(low, 16).ok()?)
        })
        .ok_or_else(|| missing("\"revision … (pvr …)\""))?;
    let timebase =
        field("timebase").and_then(|text| text.parse().ok()).ok_or_else(|| missing("\"timebase\""))?;
    Ok((pvr, timebase))
}

fn page_size() -> u64 {
    // SAFETY: sysconf only returns a number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn hash_info(vm: &VmFd) -> Result<HashInfo, HvError> {
    let mut info = kvm_ppc_smmu_info::default();
    vm.fd.exchange("KVM_PPC_GET_SMMU_INFO", KVM_PPC_GET_SMMU_INFO, &mut info)?;
    let page_sizes = info.sps.iter().filter(|s| s.page_shift != 0).map(|s| SegmentPageSize {
        shift: s.page_shift,
        slb_encoding: s.slb_enc,
        pages: s.enc.iter().filter(|e| e.page_shift != 0).map(|e| (e.page_shift, e.pte_enc)).collect(),
    });
    Ok(HashInfo {
        real_page_sizes: info.flags & u64::from(KVM_PPC_PAGE_SIZES_REAL) != 0,
        segments_1t: info.flags & u64::from(KVM_PPC_1T_SEGMENTS) != 0,
        slb_size: info.slb_size,
        page_sizes: page_sizes.collect(),
    })
}

fn radix_ap_encodings(vm: &VmFd) -> Result<Vec<u32>, HvError> {
    let mut info = kvm_ppc_rmmu_info::default();
    vm.fd.exchange("KVM_PPC_GET_RMMU_INFO", KVM_PPC_GET_RMMU_INFO, &mut info)?;
    Ok(info.ap_encodings.iter().copied().filter(|&e| e != 0).collect())
}

fn characteristics(vm: &VmFd) -> Result<CpuCharacteristics, HvError> {
    let mut info = kvm_ppc_cpu_char::default();
    vm.fd.exchange("KVM_PPC_GET_CPU_CHAR", KVM_PPC_GET_CPU_CHAR, &mut info)?;
    Ok(CpuCharacteristics {
        character: info.character & info.character_mask,
        behaviour: info.behaviour & info.behaviour_mask,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_read_from_cpuinfo() {
        let text = "processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t\t: 1000.000000MHz\n\
                    revision\t: 2.0 (pvr 004e 1200)\n\ntimebase\t: 512000000\nplatform\t: PowerNV\n";
        assert_eq!(processor(text).unwrap(), (0x004e_1200, 512_000_000));
    }

    #[test]
    fn another_machine_is_named_as_such() {
        let error = processor("processor\t: 0\nvendor_id\t: AuthenticAMD\n").unwrap_err().to_string();
        assert!(error.contains("is this a POWER machine?"), "{error}");
    }

    #[test]
    fn a_revision_that_is_none_is_no_processor() {
        let with = |revision: &str| processor(&format!("revision\t: {revision}\ntimebase\t: 512000000\n"));
        assert_eq!(with("2.0 (pvr 0080 0200)").unwrap().0, 0x0080_0200);
        for bad in ["", "2.0", "2.0 (pvr 0080)", "2.0 (pvr zz 0200)", "2.0 (pvr 0080 0200"] {
            assert!(with(bad).is_err(), "{bad}");
        }
        let error = processor("revision : 2.0 (pvr 0080 0200)\ntimebase : fast\n").unwrap_err().to_string();
        assert!(error.contains("no \"timebase\""), "{error}");
    }
}

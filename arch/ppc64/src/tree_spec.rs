//! From a plan to the device tree's specification, and the hosts that are assumed where there is none.

use crate::boot::{BootError, Placement, RTAS_SIZE};
use crate::layout;
use crate::plan::Plan;
use crate::rtas;
use crate::tree::{self, PciFunction, TreeSpec};
use arch_api::ppc64::{CedeRoute, Generation, HashInfo, Host, Irqchip, Mmu, SegmentPageSize};

/// The tree of a plan with these PCI functions, flattened. `seed` is the guest's first entropy.
///
/// # Errors
/// When something that the user named cannot be in a tree.
pub fn dtb(
    plan: &Plan,
    placement: &Placement,
    pci: &[PciFunction],
    seed: Option<[u8; 32]>,
) -> Result<Vec<u8>, BootError> {
    let hypertas = plan.hypertas(!pci.is_empty());
    let functions = rtas::tokens(plan.spec.irqchip == Irqchip::Xics, !pci.is_empty());
    let hash = plan.host.hash_info.clone().unwrap_or_default();
    let pages: Vec<Vec<tree::Page>> = hash.page_sizes.iter().map(pages_of).collect();
    let segments: Vec<_> = hash.page_sizes.iter().zip(&pages).map(segment).collect();
    let vtys = [tree::Vty { reg: layout::VIO_REG, interrupt: Some(layout::IRQ_VIO) }];
    let compat = plan.spec.compat.is_some();
    let spec = TreeSpec {
        identity: tree::Identity {
            model: "cede pseries guest",
            uuid: None,
            name: Some(&plan.wish.name).filter(|name| !name.is_empty()).map(String::as_str),
        },
        boot: tree::Boot {
            cmdline: &plan.wish.cmdline,
            initrd: placement.initrd.map(|(start, end)| tree::Initrd { start, end }),
            rng_seed: seed,
        },
        topology: tree::Topology {
            vcpus: plan.wish.cpus,
            threads: plan.wish.threads,
            stride: plan.wish.threads,
        },
        cpu: cpu(plan, if compat { tree::Version::Architecture } else { tree::Version::Chip(plan.host.pvr) }),
        mmu: match plan.spec.mmu {
            Mmu::Hash { htab_order } => tree::Mmu::Hash(tree::HashMmu {
                htab_order,
                slb_size: hash.slb_size,
                one_tib_segments: hash.segments_1t,
                segments: &segments,
                page_shift_max: hash.real_page_sizes.then(|| plan.host.page_size.ilog2()),
            }),
            Mmu::Radix => tree::Mmu::Radix { ap_encodings: &plan.host.radix_ap_encodings, gtse: true },
        },
        memory: tree::Memory { size: plan.wish.memory, rma: plan.rma() },
        interrupts: match plan.spec.irqchip {
            Irqchip::Xics => tree::InterruptController::Xics,
            Irqchip::Xive => tree::InterruptController::Xive {
                tima_user: layout::XIVE_TIMA_USER,
                tima_os: layout::XIVE_TIMA_OS,
                first_ipi: layout::IRQ_IPI,
                ipis: plan.wish.cpus,
            },
        },
        rtas: tree::Rtas {
            // `place` keeps the blob below 4 GiB.
            base: placement.rtas as u32,
            size: RTAS_SIZE as u32,
            entry: placement.rtas as u32,
            functions: &functions,
            hypercalls: &hypertas,
        },
        pci,
        vtys: &vtys,
        events: tree::Events { epow: Some(layout::IRQ_EPOW), hotplug: None },
        random: true,
    };
    Ok(tree::build(&spec).and_then(|tree| Ok(tree.to_dtb()?))?)
}

fn pages_of(segment: &SegmentPageSize) -> Vec<tree::Page> {
    segment.pages.iter().map(|&(shift, pte_encoding)| tree::Page { shift, pte_encoding }).collect()
}

fn segment<'a>((size, pages): (&SegmentPageSize, &'a Vec<tree::Page>)) -> tree::Segment<'a> {
    tree::Segment { shift: size.shift, slb_encoding: size.slb_encoding, pages }
}

fn cpu(plan: &Plan, version: tree::Version) -> tree::Cpu {
    let kib = |n: u32| n << 10;
    // First-level caches: POWER8 and POWER9 data and instructions, POWER10 (Power ISA user's manuals).
    let (dcache, icache) = match plan.generation {
        Generation::Power8 => (kib(64), kib(32)),
        Generation::Power9 => (kib(32), kib(32)),
        Generation::Power10 => (kib(32), kib(48)),
    };
    tree::Cpu {
        generation: plan.generation,
        version,
        timebase_hz: plan.host.timebase_hz,
        clock_hz: CLOCK_HZ,
        dcache: tree::Cache { size: dcache, line: CACHE_LINE },
        icache: tree::Cache { size: icache, line: CACHE_LINE },
        large_decrementer: None,
        facilities: tree::Facilities {
            cache_inhibited_large_pages: false,
            transactional_memory: false,
            second_dawr: plan.host.dawr1,
        },
    }
}

/// Text for /proc/cpuinfo; the guest cannot know what the host's governor does.
const CLOCK_HZ: u32 = 1_000_000_000;

const CACHE_LINE: u32 = 128;

/// A bare-metal host of a generation, as KVM on one reports itself: for trees on machines that are not POWER.
#[must_use]
pub fn assumed_host(generation: Generation) -> Host {
    let power8 = generation == Generation::Power8;
    let pages = |shift, slb_encoding, pages: &[(u32, u32)]| SegmentPageSize {
        shift,
        slb_encoding,
        pages: pages.to_vec(),
    };
    Host {
        pvr: match generation {
            Generation::Power8 => 0x004d_0200,
            Generation::Power9 => 0x004e_1202,
            Generation::Power10 => 0x0080_0200,
        },
        generation,
        timebase_hz: 512_000_000,
        page_size: 64 << 10,
        max_vcpus: 2048,
        max_vcpu_id: 16384,
        smt_possible: 0b1111,
        radix: !power8,
        hash: true,
        xics: true,
        xive: !power8,
        cede: Ok(if power8 { CedeRoute::Hcall } else { CedeRoute::Event(0) }),
        hwrng: true,
        ail_mode_3: true,
        htm: false,
        dawr1: generation == Generation::Power10,
        hash_info: Some(HashInfo {
            real_page_sizes: false,
            segments_1t: true,
            slb_size: 32,
            page_sizes: vec![
                pages(12, 0, &[(12, 0), (16, 7), (24, 0x38)]),
                pages(16, 0x110, &[(16, 1), (24, 8)]),
                pages(24, 0x100, &[(24, 0)]),
            ],
        }),
        radix_ap_encodings: if power8 {
            vec![]
        } else {
            vec![0x0000_000c, 0xa000_0010, 0x2000_0015, 0x4000_001e]
        },
        characteristics: None,
    }
}

//! From what the user wants and what the host can, to one machine. Every decision is made here, with its reason.

use crate::layout;
use crate::rtas;
use arch_api::ppc64::{CedeRoute, Generation, Host, Irqchip, Mmu, Plane, Trigger, VmSpec, XivePages};

/// What the user asked for; `None` leaves the choice to cede.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The guest's name.
    pub name: String,
    /// vCPUs in all.
    pub cpus: u32,
    /// Threads of a core.
    pub threads: u32,
    /// RAM in bytes.
    pub memory: u64,
    /// The processor generation that the guest sees.
    pub cpu: Option<Generation>,
    /// How it translates addresses.
    pub mmu: Option<MmuKind>,
    /// Its interrupt controller.
    pub irqchip: Option<Irqchip>,
    /// Who handles H_CEDE and owns the interrupt controller.
    pub plane: Option<PlaneKind>,
    /// The configuration sets `halt_poll_ns`, and not to 0.
    pub polls: bool,
    /// The kernel's command line.
    pub cmdline: String,
}

/// The planes that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaneKind {
    /// KVM's.
    Kernel,
    /// KVM's, with cede's poll before the sleep.
    Assist,
    /// cede's.
    Vmm,
}

/// The two kinds of MMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MmuKind {
    /// Hashed page table.
    Hash,
    /// Radix tree.
    Radix,
}

/// This host cannot give what was asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// A newer processor than there is.
    #[error("the guest is to see a {wanted}, this host is a {host}; ask for that or an older one")]
    Newer {
        /// The generation asked for.
        wanted: &'static str,
        /// The host's.
        host: &'static str,
    },
    /// A number of threads that KVM refuses.
    #[error("{threads} threads per core are not possible here; KVM allows {}", possible(*mask))]
    Threads {
        /// Threads per core asked for.
        threads: u32,
        /// KVM_CAP_PPC_SMT_POSSIBLE.
        mask: u32,
    },
    /// Cores are full.
    #[error("{cpus} vCPUs do not fill cores of {threads} threads; give a multiple")]
    PartialCore {
        /// vCPUs asked for.
        cpus: u32,
        /// Threads per core asked for.
        threads: u32,
    },
    /// More than KVM can have.
    #[error("{cpus} vCPUs are more than this host's KVM allows, which is {max}")]
    TooManyCpus {
        /// vCPUs asked for.
        cpus: u32,
        /// The most there can be.
        max: u32,
    },
    /// Memory that ends inside a page.
    #[error("{memory} bytes of memory do not fill pages of 64 KiB; give a multiple of 64 KiB")]
    PartialPage {
        /// Bytes asked for.
        memory: u64,
    },
    /// Memory that would reach the windows of the PCI host bridge.
    #[error("{memory} bytes of memory are more than a pseries guest can have; give it no more than 32 TiB")]
    TooMuchMemory {
        /// Bytes asked for.
        memory: u64,
    },
    /// Radix on a processor or host that has none.
    #[error("a radix MMU needs a guest CPU of POWER9 or later and a host that has one; ask for hash")]
    NoRadix,
    /// Hash where KVM has none.
    #[error(
        "this host's KVM cannot run hash guests (KVM_CAP_PPC_MMU_HASH_V3 is 0); ask for radix and a guest CPU of POWER9 or later"
    )]
    NoHash,
    /// XIVE where there is none.
    #[error("XIVE is not possible here: {0}; ask for xics")]
    NoXive(&'static str),
    /// The VMM's plane where there is no way to it.
    #[error("the vmm plane is not possible here: {0}; or ask for the kernel plane (--plane kernel)")]
    NoVmmPlane(String),
    /// The assist plane where there is no way to it, or nothing to look at.
    #[error("the assist plane is not possible here: {0}; or ask for another plane (--plane kernel)")]
    NoAssistPlane(String),
    /// A controller that the VMM's plane does not have.
    #[error(
        "the vmm plane has a XICS and no XIVE, which only KVM can give; ask for xics, or for the kernel plane"
    )]
    XiveOnVmmPlane,
    /// XICS where there is none.
    #[error("this host's KVM has no XICS (KVM_CAP_IRQ_XICS is 0)")]
    NoXics,
}

fn possible(mask: u32) -> String {
    let modes: Vec<_> = (0..4).filter(|n| mask >> n & 1 != 0).map(|n| (1 << n).to_string()).collect();
    modes.join(", ")
}

/// A machine that the host can run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What was asked for.
    pub wish: Wish,
    /// What it runs on.
    pub host: Host,
    /// What KVM is asked for.
    pub spec: VmSpec,
    /// The generation that the guest sees.
    pub generation: Generation,
    /// What was chosen and why, a line each.
    pub reasons: Vec<String>,
}

/// The largest page that a guest kernel is built for.
const MEMORY_GRANULE: u64 = 64 << 10;

/// Hypercalls that KVM has code for but leaves to the VMM until it is told otherwise.
const KERNEL_HCALLS: &[u64] = &[
    0x10,  // H_CLEAR_MOD
    0x14,  // H_CLEAR_REF
    0x2c,  // H_PAGE_INIT
    0x3c,  // H_LOGICAL_CI_LOAD
    0x40,  // H_LOGICAL_CI_STORE
    0x31c, // H_SET_MODE: the breakpoint resources; the others still come to us
];

/// KVM answers H_RANDOM itself where the host has a hardware source.
const H_RANDOM: u64 = crate::papr::nr::H_RANDOM;

/// Sets of hypercalls for `ibm,hypertas-functions` on every plane; each is complete between KVM and the table in `hcall`.
const HYPERTAS: &[&str] = &[
    "hcall-pft",
    "hcall-term",
    "hcall-dabr",
    "hcall-interrupt",
    "hcall-vio",
    "hcall-splpar",
    "hcall-bulk",
    "hcall-set-mode",
    "hcall-copy",
    "hcall-debug",
];

/// Sets for the DMA window of a PCI host bridge.
const HCALLS_TCE: &[&str] = &["hcall-tce", "hcall-multi-tce"];

/// The set that cede answers itself: while KVM owns H_PROD a vCPU that has joined could not be woken.
const HCALL_JOIN: &str = "hcall-join";

impl Plan {
    /// Decides.
    ///
    /// # Errors
    /// [`PlanError`], which says what is not possible and what to ask for instead.
    pub fn choose(wish: Wish, host: &Host) -> Result<Self, PlanError> {
        let mut reasons = Vec::new();
        let (generation, compat) = choose_cpu(&wish, host, &mut reasons)?;
        let servers = choose_servers(&wish, host)?;
        if wish.memory == 0 || wish.memory % MEMORY_GRANULE != 0 {
            return Err(PlanError::PartialPage { memory: wish.memory });
        }
        if wish.memory > layout::PCI_WINDOWS {
            return Err(PlanError::TooMuchMemory { memory: wish.memory });
        }
        let mmu = choose_mmu(&wish, host, generation, &mut reasons)?;
        let plane = choose_plane(&wish, host, generation, &mut reasons)?;
        let irqchip = choose_irqchip(&wish, host, generation, plane, &mut reasons)?;
        let mut hcalls = KERNEL_HCALLS.to_vec();
        hcalls.extend(host.hwrng.then_some(H_RANDOM));
        let tokens = rtas::tokens(irqchip == Irqchip::Xics, true);
        let spec = VmSpec {
            threads: wish.threads,
            servers,
            mmu,
            plane,
            irqchip,
            compat,
            hcalls,
            rtas: match plane {
                Plane::Kernel | Plane::Assist(_) => {
                    tokens.into_iter().filter(|(name, _)| rtas::XICS_CALLS.contains(name)).collect()
                }
                Plane::Vmm(_) => Vec::new(),
            },
            xive: XivePages {
                tima: layout::XIVE_TIMA,
                esb: layout::XIVE_ESB,
                sources: layout::IRQ_MSI + layout::IRQ_MSI_COUNT,
            },
        };
        Ok(Self { wish, host: host.clone(), spec, generation, reasons })
    }

    /// Bytes that can be reached in real mode. With a hash MMU KVM maps them through the page table itself, of
    /// which they may fill no more than an eighth.
    #[must_use]
    pub fn rma(&self) -> u64 {
        let Mmu::Hash { htab_order } = self.spec.mmu else { return self.wish.memory };
        let page_shift = self.host.page_size.max(4096).ilog2();
        self.wish.memory.min(1 << (page_shift + htab_order - 7))
    }

    /// Sets of hypercalls for `ibm,hypertas-functions`, those of the PCI host bridge if there is one.
    #[must_use]
    pub fn hypertas(&self, pci: bool) -> Vec<&'static str> {
        let join = self.spec.plane.owns_interrupts().then_some(HCALL_JOIN);
        let tce = if pci { HCALLS_TCE } else { &[] };
        HYPERTAS.iter().chain(tce).copied().chain(join).collect()
    }

    /// The interrupt sources that the guest has, ascending, but for those of PCI functions.
    #[must_use]
    pub fn sources(&self) -> Vec<(u32, Trigger)> {
        let ipis = match self.spec.irqchip {
            Irqchip::Xics => 0,
            Irqchip::Xive => self.wish.cpus,
        };
        let ipis = (0..ipis).map(|n| layout::IRQ_IPI + n);
        let events = ipis.chain([layout::IRQ_EPOW, layout::IRQ_VIO]);
        events.map(|number| (number, Trigger::Edge)).collect()
    }
}

fn choose_cpu(
    wish: &Wish,
    host: &Host,
    reasons: &mut Vec<String>,
) -> Result<(Generation, Option<u32>), PlanError> {
    let generation = wish.cpu.unwrap_or(host.generation);
    if generation > host.generation {
        return Err(PlanError::Newer { wanted: generation.name(), host: host.generation.name() });
    }
    // A processor that guests may not know by its PVR (POWER11) shows its architecture level instead.
    let known = Generation::of_pvr(host.pvr) == Some(generation) && host.pvr >> 16 != 0x82;
    let compat = (!known || generation < host.generation).then(|| generation.logical_pvr());
    reasons.push(match (wish.cpu, compat) {
        (Some(_), Some(_)) => format!("cpu: {}, as asked, by its architecture level", generation.name()),
        (_, Some(_)) => format!("cpu: {}, by its architecture level", generation.name()),
        (_, None) => format!("cpu: {}, the host's own", generation.name()),
    });
    Ok((generation, compat))
}

/// Interrupt server numbers, which are KVM's ids: cores follow each other without gaps.
fn choose_servers(wish: &Wish, host: &Host) -> Result<Vec<u32>, PlanError> {
    let Wish { cpus, threads, .. } = *wish;
    if !threads.is_power_of_two() || threads > 8 || host.smt_possible & threads == 0 {
        return Err(PlanError::Threads { threads, mask: host.smt_possible });
    }
    if cpus == 0 || cpus % threads != 0 {
        return Err(PlanError::PartialCore { cpus, threads });
    }
    let max = host.max_vcpus.min(host.max_vcpu_id).min(layout::IRQ_IPI_COUNT);
    if cpus > max {
        return Err(PlanError::TooManyCpus { cpus, max });
    }
    Ok((0..cpus).collect())
}

fn choose_mmu(
    wish: &Wish,
    host: &Host,
    generation: Generation,
    reasons: &mut Vec<String>,
) -> Result<Mmu, PlanError> {
    let can_radix = host.radix && generation >= Generation::Power9;
    let (radix, why) = match wish.mmu {
        Some(kind) => (kind == MmuKind::Radix, "as asked"),
        None if can_radix => (true, "host and guest have it"),
        None if generation < Generation::Power9 => (false, "POWER8 has nothing else"),
        None => (false, "the host has no radix MMU"),
    };
    if radix {
        if !can_radix {
            return Err(PlanError::NoRadix);
        }
        reasons.push(format!("mmu: radix, {why}"));
        return Ok(Mmu::Radix);
    }
    if !host.hash {
        return Err(PlanError::NoHash);
    }
    reasons.push(format!("mmu: hash, {why}"));
    Ok(Mmu::Hash { htab_order: htab_order(wish.memory) })
}

/// One 128th of RAM, rounded up to a power of two: PAPR's recommendation.
fn htab_order(memory: u64) -> u32 {
    let ram_order = memory.checked_next_power_of_two().map_or(64, u64::ilog2);
    ram_order.saturating_sub(7).clamp(18, 46)
}

fn choose_plane(
    wish: &Wish,
    host: &Host,
    generation: Generation,
    reasons: &mut Vec<String>,
) -> Result<Plane, PlanError> {
    let (plane, why) = match (wish.plane, &host.cede) {
        (Some(PlaneKind::Assist), _) => (assist(wish, host, generation)?, "as asked".into()),
        (Some(PlaneKind::Vmm), Ok(route)) => (Plane::Vmm(*route), "as asked".into()),
        (Some(PlaneKind::Vmm), Err(obstacle)) => return Err(PlanError::NoVmmPlane(obstacle.clone())),
        (Some(PlaneKind::Kernel), _) => (Plane::Kernel, "as asked".into()),
        (None, cede) => match (cede, assist(wish, host, generation)) {
            (_, Ok(plane)) if wish.polls => {
                let why = "as halt_poll_ns is set, and Linux has no halt polling on POWER9 and later";
                (plane, why.into())
            }
            (Err(obstacle), _) => (Plane::Kernel, format!("vmm and assist are not possible: {obstacle}")),
            (Ok(_), Err(PlanError::NoAssistPlane(obstacle)))
                if wish.polls && generation >= Generation::Power9 =>
            {
                (Plane::Kernel, format!("without halt polling: assist is not possible: {obstacle}"))
            }
            (Ok(_), assist) => (Plane::Kernel, default_plane(wish, host, assist.is_ok()).into()),
        },
    };
    let name = match plane {
        Plane::Kernel => "kernel",
        Plane::Assist(_) => "assist",
        Plane::Vmm(_) => "vmm",
    };
    reasons.push(format!("plane: {name}, {why}"));
    Ok(plane)
}

/// The assist plane, which looks at XIVE's queues when the tracepoint tells of a cede.
fn assist(wish: &Wish, host: &Host, generation: Generation) -> Result<Plane, PlanError> {
    let obstacle = match wish.irqchip {
        Some(Irqchip::Xics) => {
            Some("it looks at XIVE's queues, and the guest is to have a XICS; ask for xive".into())
        }
        _ => no_xive(host, generation).map(|why| format!("it looks at XIVE's queues, and {why}")),
    };
    if let Some(obstacle) = obstacle {
        return Err(PlanError::NoAssistPlane(obstacle));
    }
    match &host.cede {
        Ok(CedeRoute::Event(tracepoint)) => Ok(Plane::Assist(*tracepoint)),
        Ok(CedeRoute::Hcall) => Err(PlanError::NoAssistPlane("KVM on POWER8 polls by itself".into())),
        Err(obstacle) => Err(PlanError::NoAssistPlane(obstacle.clone())),
    }
}

/// Why the guest cannot have a XIVE, if it cannot.
fn no_xive(host: &Host, generation: Generation) -> Option<&'static str> {
    if generation < Generation::Power9 {
        Some("a POWER8 guest does not know it")
    } else if !host.xive {
        Some("the host's KVM has none (KVM_CAP_PPC_IRQ_XIVE is 0)")
    } else if host.page_size != layout::XIVE_PAGE {
        Some("the host's pages are not 64 KiB, as the controller's are")
    } else {
        None
    }
}

/// Why the kernel's plane is the default on this host. docs/benchmarks.md has the figures.
fn default_plane(wish: &Wish, host: &Host, assist: bool) -> &'static str {
    match (host.generation, wish.threads) {
        (Generation::Power8, 1) => "KVM on POWER8 naps and polls by itself",
        (Generation::Power8, _) => {
            "on POWER8 an exit of one thread takes all threads of its core out of the guest"
        }
        (Generation::Power9 | Generation::Power10, _) if assist => {
            "it costs least where polling does not pay; assist is possible, and polls before it sleeps"
        }
        (Generation::Power9 | Generation::Power10, _) => {
            "its interrupt controller spares the guest exits; vmm is possible, and polls before it sleeps"
        }
    }
}

fn choose_irqchip(
    wish: &Wish,
    host: &Host,
    generation: Generation,
    plane: Plane,
    reasons: &mut Vec<String>,
) -> Result<Irqchip, PlanError> {
    if plane.owns_interrupts() {
        if wish.irqchip == Some(Irqchip::Xive) {
            return Err(PlanError::XiveOnVmmPlane);
        }
        reasons.push("irqchip: xics, the vmm plane's own".into());
        return Ok(Irqchip::Xics);
    }
    let obstacle = no_xive(host, generation);
    let (irqchip, why) = match (wish.irqchip, obstacle) {
        (Some(Irqchip::Xive), Some(obstacle)) => return Err(PlanError::NoXive(obstacle)),
        (Some(irqchip), _) => (irqchip, "as asked"),
        (None, None) => (Irqchip::Xive, "the host's KVM has it"),
        (None, Some(obstacle)) => (Irqchip::Xics, obstacle),
    };
    if irqchip == Irqchip::Xics && !host.xics {
        return Err(PlanError::NoXics);
    }
    let name = if irqchip == Irqchip::Xics { "xics" } else { "xive" };
    reasons.push(format!("irqchip: {name}, {why}"));
    Ok(irqchip)
}

#[cfg(test)]
mod tests;

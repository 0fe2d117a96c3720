//! `/cpus`: one node per core, whose threads are interrupt servers.
//!
//! A thread has one number everywhere: KVM's vCPU id, the XICS server and XIVE target, the id in RTAS and hcalls.

use super::{Error, Facilities, TreeSpec, pa_features};
use arch_api::ppc64::Generation;
use fdt::Node;

/// How vCPUs are numbered: thread `t` of core `c` is server `c * stride + t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// All threads of all cores.
    pub vcpus: u32,
    /// Threads of a core: a power of two.
    pub threads: u32,
    /// Distance between the first servers of two cores: what KVM_CAP_PPC_SMT was set to.
    pub stride: u32,
}

impl Topology {
    pub(super) fn check(&self) -> Result<(), Error> {
        let Topology { vcpus, threads, stride } = *self;
        if !threads.is_power_of_two() || !stride.is_power_of_two() || threads > stride {
            return Err(Error::Threads { threads, stride });
        }
        if vcpus == 0 || vcpus % threads != 0 {
            return Err(Error::WholeCores { vcpus, threads });
        }
        // The number of servers, which is one more than the highest, is a cell too.
        (vcpus / threads).checked_mul(stride).map(|_| ()).ok_or(Error::TooManyServers { vcpus, stride })
    }

    /// The server number of the `index`th vCPU.
    pub fn server(&self, index: u32) -> u32 {
        index / self.threads * self.stride + index % self.threads
    }

    /// The vCPU that boots.
    pub fn boot_server(&self) -> u32 {
        self.server(0)
    }

    /// One more than the highest server number.
    pub fn server_limit(&self) -> u32 {
        self.server(self.vcpus - 1) + 1
    }

    /// The servers of each core in turn.
    fn cores(&self) -> impl Iterator<Item = std::ops::Range<u32>> + use<> {
        let Topology { vcpus, threads, stride } = *self;
        (0..vcpus / threads).map(move |core| core * stride..core * stride + threads)
    }
}

/// What `cpu-version` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The chip's own PVR: the guest has all that the chip has.
    Chip(u32),
    /// The architecture level alone. The vCPU must be held to it (KVM_REG_PPC_ARCH_COMPAT).
    Architecture,
}

/// A first-level cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Bytes per core.
    pub size: u32,
    /// Bytes per line, and per block for dcbz.
    pub line: u32,
}

/// What each vCPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// The generation that the guest sees.
    pub generation: Generation,
    /// How it is identified.
    pub version: Version,
    /// Ticks of the timebase per second. The guest's clock is wrong by as much as this is.
    pub timebase_hz: u32,
    /// Cycles per second: text for /proc/cpuinfo.
    pub clock_hz: u32,
    /// Data cache.
    pub dcache: Cache,
    /// Instruction cache.
    pub icache: Cache,
    /// Bits of the decrementer, when `LPCR[LD]` makes it larger than 32. The guest loads that many.
    pub large_decrementer: Option<u32>,
    /// Facilities that depend on the host.
    pub facilities: Facilities,
}

pub(super) fn node(spec: &TreeSpec) -> Node {
    Node::new("cpus")
        .u32("#address-cells", 1)
        .u32("#size-cells", 0)
        .children(spec.topology.cores().map(|servers| core(spec, servers)))
}

fn core(spec: &TreeSpec, servers: std::ops::Range<u32>) -> Node {
    let cpu = &spec.cpu;
    let node = Node::new(format!("PowerPC,{}@{:x}", cpu.generation.name(), servers.start))
        .string("device_type", "cpu")
        .u32("reg", servers.start)
        .string("status", "okay")
        .u32("cpu-version", version(cpu))
        .empty("64-bit")
        .u32("timebase-frequency", cpu.timebase_hz)
        .u32("clock-frequency", cpu.clock_hz)
        .cells("ibm,ppc-interrupt-server#s", servers.clone())
        // Pairs of <server, its global queue>; there is one global queue, 0.
        .cells("ibm,ppc-interrupt-gserver#s", servers.flat_map(|server| [server, 0]));
    let node = spec.mmu.cpu_properties(features(caches(node, cpu), spec));
    match cpu.large_decrementer {
        Some(bits) => node.u32("ibm,dec-bits", bits),
        None => node,
    }
}

fn version(cpu: &Cpu) -> u32 {
    match cpu.version {
        Version::Chip(pvr) => pvr,
        Version::Architecture => cpu.generation.logical_pvr(),
    }
}

fn caches(node: Node, cpu: &Cpu) -> Node {
    node.u32("d-cache-size", cpu.dcache.size)
        .u32("d-cache-line-size", cpu.dcache.line)
        .u32("d-cache-block-size", cpu.dcache.line)
        .u32("i-cache-size", cpu.icache.size)
        .u32("i-cache-line-size", cpu.icache.line)
        .u32("i-cache-block-size", cpu.icache.line)
}

fn features(node: Node, spec: &TreeSpec) -> Node {
    // Every generation here has VMX with VSX (2), decimal floating point, PURR and SPURR. Without ibm,vmx
    // the kernel turns vector instructions off, and the first user program that has one dies of it.
    node.u32("ibm,vmx", 2)
        .u32("ibm,dfp", 1)
        .u32("ibm,purr", 1)
        .u32("ibm,spurr", 1)
        .bytes("ibm,pa-features", pa_features::bytes(spec))
        .bytes("ibm,pi-features", pa_features::implementation(spec.cpu.generation))
        // One chip, so that the guest's tools show one socket.
        .u32("ibm,chip-id", 0)
}

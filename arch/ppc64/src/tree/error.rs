//! Why there is no tree for a specification.

/// Why [`build`](super::build) refused a [`TreeSpec`](super::TreeSpec).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Linux wants all cores to have the same number of threads.
    #[error(
        "{vcpus} vCPUs do not make whole cores of {threads} threads; give a multiple of {threads}, at least one core"
    )]
    WholeCores {
        /// vCPUs asked for.
        vcpus: u32,
        /// Threads per core asked for.
        threads: u32,
    },
    /// Threads per core, or the distance between cores, cannot be numbered.
    #[error(
        "{threads} threads per core at a distance of {stride} server numbers; both are powers of two, and threads fit"
    )]
    Threads {
        /// Threads per core.
        threads: u32,
        /// Distance between the first servers of two cores.
        stride: u32,
    },
    /// Server numbers would not fit 32 bits.
    #[error("{vcpus} vCPUs at {stride} server numbers per core have no 32-bit server numbers; give fewer")]
    TooManyServers {
        /// vCPUs asked for.
        vcpus: u32,
        /// Distance between the first servers of two cores.
        stride: u32,
    },
    /// Memory is empty or ends inside a page.
    #[error("memory of {size:#x} bytes is not a multiple of 64 KiB above zero")]
    MemorySize {
        /// Bytes of RAM.
        size: u64,
    },
    /// The real-mode area is not the first part of memory.
    #[error(
        "a real-mode area of {rma:#x} bytes is not a multiple of 64 KiB between zero and the memory's {size:#x} bytes"
    )]
    Rma {
        /// Bytes of the real-mode area.
        rma: u64,
        /// Bytes of RAM.
        size: u64,
    },
    /// The processor lacks what was asked for.
    #[error("{generation} has no {what}")]
    NotOnThisProcessor {
        /// The generation.
        generation: &'static str,
        /// What it lacks.
        what: &'static str,
    },
    /// A radix guest that may not invalidate its own translations needs the hypercall that does.
    #[error("a radix guest without GTSE needs hcall-rpt-invalidate among the hypercalls")]
    NoInvalidation,
    /// No page size is left.
    #[error(
        "no page size is left for hash translation; guest memory must be backed by pages of at least {least:#x} bytes"
    )]
    NoPageSizes {
        /// The smallest page that the processor offers.
        least: u64,
    },
    /// XIVE guests need an IPI per vCPU.
    #[error("{ipis} IPIs are too few for {vcpus} vCPUs; every vCPU needs one")]
    TooFewIpis {
        /// Numbers set aside for IPIs.
        ipis: u32,
        /// vCPUs.
        vcpus: u32,
    },
    /// The RTAS blob is not where a guest can call it.
    #[error(
        "RTAS at {base:#x}, {size:#x} bytes, is empty, outside the real-mode area or without its entry {entry:#x}"
    )]
    RtasPlace {
        /// Where it begins.
        base: u32,
        /// Its length.
        size: u32,
        /// Where it is entered.
        entry: u32,
    },
    /// A token that means "no such function".
    #[error(
        "RTAS function {name} has token {token:#x}; 0 and 0xffffffff mean that there is no such function"
    )]
    Token {
        /// The function.
        name: String,
        /// The token.
        token: u32,
    },
    /// Linux stops silently when no hypercall function set is named.
    #[error("no hypercall function sets are named; a pseries kernel needs at least hcall-set-mode")]
    NoHypercalls,
    /// The initrd is empty or not in memory.
    #[error("initrd at {start:#x}..{end:#x} is empty or not inside memory of {size:#x} bytes")]
    InitrdPlace {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes of RAM.
        size: u64,
    },
    /// The initrd lies over RTAS.
    #[error("initrd at {start:#x}..{end:#x} overlaps RTAS at {base:#x}")]
    InitrdOverRtas {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// Where RTAS begins.
        base: u32,
    },
    /// Something given by name or as text cannot be in a device tree.
    #[error("the device tree is not valid")]
    Tree(#[from] fdt::Error),
}

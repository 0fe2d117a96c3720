//! Hypercalls that reach us. The table is the whole surface; KVM handles the others in the kernel.
//!
//! Arguments are r4 to r12, results go to r4 and up, the return code to r3. Whatever the guest passes, the
//! answer is a PAPR return code; a number that is not in the table is H_FUNCTION, counted and traced.

mod mode;
mod random;
mod schedule;
mod tce;
mod term;
#[cfg(test)]
mod tests;
mod xics;
mod xive;

use crate::papr::{nr, ret};
use crate::platform::Platform;
use crate::rtas;
use arch_api::Stop;
use std::sync::atomic::{AtomicU64, Ordering};

pub use term::Unsent;

/// What a call does beside returning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// Every vCPU has to take up the new LPCR.
    Sync,
    /// The calling vCPU has nothing to do.
    Cede,
    /// The calling vCPU waits for a prod, unless all others do.
    Join,
    /// A vCPU, already claimed, starts at this address with this r3.
    Start {
        /// Its index.
        vcpu: usize,
        /// Physical address of its first instruction.
        pc: u64,
        /// Its r3.
        r3: u64,
    },
    /// The calling vCPU stops; its call never returns.
    Park,
    /// The guest comes to its end; the call never returns.
    Stop(Stop),
}

/// One hypercall on its way through.
pub struct Call<'a> {
    /// The machine.
    pub platform: &'a Platform,
    /// The index of the calling vCPU.
    pub vcpu: usize,
    /// r4 to r12; results are written over them.
    pub args: [u64; 9],
    /// What happens beside.
    pub effect: Effect,
}

type Handler = fn(&mut Call<'_>) -> i64;

/// A row of the table.
pub struct Hcall {
    /// r3.
    pub nr: u64,
    /// PAPR's name.
    pub name: &'static str,
    handler: Handler,
}

const fn row(nr: u64, name: &'static str, handler: Handler) -> Hcall {
    Hcall { nr, name, handler }
}

/// Every hypercall that cede answers. Those of the scheduler and of the XICS come on the VMM's plane only; should a guest
/// find a way to send one on the kernel's plane, it is H_FUNCTION.
pub static TABLE: &[Hcall] = &[
    row(nr::H_GET_TCE, "H_GET_TCE", tce::get_tce),
    row(nr::H_PUT_TCE, "H_PUT_TCE", tce::put_tce),
    row(nr::H_GET_TERM_CHAR, "H_GET_TERM_CHAR", term::get_term_char),
    row(nr::H_PUT_TERM_CHAR, "H_PUT_TERM_CHAR", term::put_term_char),
    row(nr::H_EOI, "H_EOI", xics::eoi),
    row(nr::H_CPPR, "H_CPPR", xics::cppr),
    row(nr::H_IPI, "H_IPI", xics::ipi),
    row(nr::H_IPOLL, "H_IPOLL", xics::ipoll),
    row(nr::H_XIRR, "H_XIRR", xics::xirr),
    row(nr::H_XIRR_X, "H_XIRR_X", xics::xirr_x),
    row(nr::H_CEDE, "H_CEDE", schedule::cede),
    row(nr::H_CONFER, "H_CONFER", schedule::confer),
    row(nr::H_PROD, "H_PROD", schedule::prod),
    row(nr::H_JOIN, "H_JOIN", schedule::join),
    row(nr::H_STUFF_TCE, "H_STUFF_TCE", tce::stuff_tce),
    row(nr::H_PUT_TCE_INDIRECT, "H_PUT_TCE_INDIRECT", tce::put_tce_indirect),
    row(nr::H_GET_CPU_CHARACTERISTICS, "H_GET_CPU_CHARACTERISTICS", mode::get_cpu_characteristics),
    row(nr::H_RANDOM, "H_RANDOM", random::random),
    row(nr::H_SET_MODE, "H_SET_MODE", mode::set_mode),
    row(nr::H_REGISTER_PROC_TBL, "H_REGISTER_PROC_TBL", mode::register_proc_tbl),
    row(nr::H_INT_GET_SOURCE_INFO, "H_INT_GET_SOURCE_INFO", xive::get_source_info),
    row(nr::H_INT_SET_SOURCE_CONFIG, "H_INT_SET_SOURCE_CONFIG", xive::set_source_config),
    row(nr::H_INT_GET_SOURCE_CONFIG, "H_INT_GET_SOURCE_CONFIG", xive::get_source_config),
    row(nr::H_INT_GET_QUEUE_INFO, "H_INT_GET_QUEUE_INFO", xive::get_queue_info),
    row(nr::H_INT_SET_QUEUE_CONFIG, "H_INT_SET_QUEUE_CONFIG", xive::set_queue_config),
    row(nr::H_INT_GET_QUEUE_CONFIG, "H_INT_GET_QUEUE_CONFIG", xive::get_queue_config),
    row(nr::H_INT_ESB, "H_INT_ESB", xive::esb),
    row(nr::H_INT_SYNC, "H_INT_SYNC", xive::sync),
    row(nr::H_INT_RESET, "H_INT_RESET", xive::reset),
    row(nr::H_RTAS, "H_RTAS", rtas::hcall),
];

/// Answers hcall `nr`: the return code, and what happens beside.
pub fn dispatch(nr: u64, call: &mut Call<'_>) -> i64 {
    let first = call.platform.counters.count(nr);
    let Some(hcall) = TABLE.iter().find(|h| h.nr == nr) else {
        if first {
            tracing::info!(
                vcpu = call.vcpu,
                nr = format_args!("{nr:#x}"),
                "hcall that cede does not have: H_FUNCTION"
            );
        }
        return ret::H_FUNCTION;
    };
    let code = (hcall.handler)(call);
    tracing::trace!(vcpu = call.vcpu, hcall = hcall.name, ret = code, "kvm_hcall");
    code
}

/// How often each hcall number reached us. Numbers outside PAPR's and the platform's range share one counter.
pub struct Counters {
    papr: [AtomicU64; slots(0, nr::MAX)],
    platform: [AtomicU64; slots(nr::PLATFORM, nr::PLATFORM_MAX)],
    other: AtomicU64,
}

/// Numbers are multiples of four.
const fn slots(first: u64, last: u64) -> usize {
    ((last + 1 - first) / 4) as usize
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            papr: [const { AtomicU64::new(0) }; slots(0, nr::MAX)],
            platform: [const { AtomicU64::new(0) }; slots(nr::PLATFORM, nr::PLATFORM_MAX)],
            other: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Counts one call and says whether it is the first of its number.
    fn count(&self, nr: u64) -> bool {
        let slot = if nr % 4 != 0 { None } else { self.slot(nr) };
        slot.unwrap_or(&self.other).fetch_add(1, Ordering::Relaxed) == 0
    }

    fn slot(&self, nr: u64) -> Option<&AtomicU64> {
        let (counters, first) = match nr.checked_sub(nr::PLATFORM) {
            Some(_) => (&self.platform[..], nr::PLATFORM),
            None => (&self.papr[..], 0),
        };
        counters.get(usize::try_from((nr - first) / 4).ok()?)
    }

    /// The hcalls that came, with their counts; the last row, if any, is all other numbers as `None`.
    pub fn seen(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let papr = self.papr.iter().zip((0..).step_by(4));
        let platform = self.platform.iter().zip((nr::PLATFORM..).step_by(4));
        let named = papr.chain(platform).map(|(count, nr)| (Some(nr), count));
        let all = named.chain(std::iter::once((None, &self.other)));
        all.map(|(nr, count)| (nr, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0)
    }
}

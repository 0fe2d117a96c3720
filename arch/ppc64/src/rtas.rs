//! Run-Time Abstraction Services: the calls a guest makes through the blob in its memory.
//!
//! The blob passes the address of an argument block, big-endian 32-bit words: token, number of arguments, number
//! of results, the arguments, then room for the results, of which the first is the status. The table below also
//! gives the device tree its tokens. Source: PAPR, chapter 7.

mod cpu;
mod pci;
mod power;
mod sysparm;
#[cfg(test)]
mod tests;
mod time;
mod xics;

use crate::hcall::{Call, Effect};
use crate::papr::ret::{H_PARAMETER, H_SUCCESS};
use crate::platform::Platform;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Status words: the first result of every call.
pub mod status {
    /// Done.
    pub const SUCCESS: i32 = 0;
    /// check-exception: nothing has happened that the caller asked about.
    pub const NO_ERROR_LOG: i32 = 1;
    /// Not now, or not in this state.
    pub const HARDWARE_ERROR: i32 = -1;
    /// An argument is wrong, or there is no such call.
    pub const PARAMETER_ERROR: i32 = -3;
}

/// The most arguments, and the most results, that any call has.
const MAX_WORDS: usize = 16;

/// One call on its way through.
pub struct Rtas<'a> {
    /// The machine.
    pub platform: &'a Platform,
    /// The index of the calling vCPU.
    pub vcpu: usize,
    /// The arguments.
    pub args: &'a [u32],
    /// The results after the status.
    pub rets: &'a mut [u32],
    /// What happens beside.
    pub effect: Effect,
}

type Handler = fn(&mut Rtas<'_>) -> i32;

/// A row of the table.
pub struct Service {
    /// The name of its property in the tree.
    pub name: &'static str,
    /// How many arguments it takes.
    pub nargs: usize,
    /// How many results it gives, the status among them.
    pub nrets: usize,
    handler: Handler,
}

const fn row(name: &'static str, nargs: usize, nrets: usize, handler: Handler) -> Service {
    Service { name, nargs, nrets, handler }
}

/// Every RTAS call that cede answers.
pub static TABLE: &[Service] = &[
    row("get-time-of-day", 0, 8, time::get_time_of_day),
    row("set-time-of-day", 7, 1, time::set_time_of_day),
    row("power-off", 2, 1, power::power_off),
    row("system-reboot", 0, 1, power::system_reboot),
    row("ibm,os-term", 1, 1, power::os_term),
    row("check-exception", 6, 1, power::check_exception),
    row("query-cpu-stopped-state", 1, 2, cpu::query_cpu_stopped_state),
    row("start-cpu", 3, 1, cpu::start_cpu),
    row("stop-self", 0, 1, cpu::stop_self),
    row("ibm,get-system-parameter", 3, 1, sysparm::get_system_parameter),
    row("read-pci-config", 2, 2, pci::read_pci_config),
    row("write-pci-config", 3, 1, pci::write_pci_config),
    row("ibm,read-pci-config", 4, 2, pci::ibm_read_pci_config),
    row("ibm,write-pci-config", 5, 1, pci::ibm_write_pci_config),
    row("ibm,change-msi", 6, 3, pci::change_msi),
    row("ibm,query-interrupt-source-number", 4, 3, pci::query_interrupt_source_number),
    row("ibm,set-xive", 3, 1, xics::set_xive),
    row("ibm,get-xive", 1, 3, xics::get_xive),
    row("ibm,int-off", 1, 1, xics::int_off),
    row("ibm,int-on", 1, 1, xics::int_on),
];

/// XICS calls, the last of the table. On the kernel's plane KVM's own controller answers them under the same tokens
/// (KVM_PPC_RTAS_DEFINE_TOKEN).
pub static XICS_CALLS: &[&str] = &["ibm,set-xive", "ibm,get-xive", "ibm,int-off", "ibm,int-on"];

/// Calls that are there if there is a PCI host bridge.
pub static PCI_CALLS: &[&str] = &[
    "read-pci-config",
    "write-pci-config",
    "ibm,read-pci-config",
    "ibm,write-pci-config",
    "ibm,change-msi",
    "ibm,query-interrupt-source-number",
];

/// The first token.
const TOKEN_BASE: u32 = 0x2000;

/// Names and tokens for the tree: every call, those of the XICS and of the PCI host bridge only if the guest has one.
#[must_use]
pub fn tokens(xics: bool, pci: bool) -> Vec<(&'static str, u32)> {
    let all = TABLE.iter().map(|service| service.name).zip(TOKEN_BASE..);
    let there = |name: &str| (xics || !XICS_CALLS.contains(&name)) && (pci || !PCI_CALLS.contains(&name));
    all.filter(|(name, _)| there(name)).collect()
}

/// H_RTAS: the argument block's address → the status word in it. Bad blocks are H_PARAMETER.
pub(crate) fn hcall(call: &mut Call<'_>) -> i64 {
    match block(call) {
        Some(()) => H_SUCCESS,
        None => H_PARAMETER,
    }
}

fn block(call: &mut Call<'_>) -> Option<()> {
    let platform = call.platform;
    let base = GuestAddress(u64::from(u32::try_from(call.args[0]).ok()?));
    let word = |index: usize| GuestAddress(base.0 + 4 * index as u64);

    let mut header = [[0; 4]; 3];
    platform.memory.read_slice(header.as_flattened_mut(), base).ok()?;
    let [token, nargs, nrets] = header.map(u32::from_be_bytes);
    let (nargs, nrets) = (nargs as usize, nrets as usize);
    if nargs > MAX_WORDS || !(1..=MAX_WORDS).contains(&nrets) {
        return None;
    }
    // A call whose results cannot be stored does not happen.
    if !platform.memory.check_range(base, 4 * (3 + nargs + nrets)) {
        return None;
    }
    let mut args = [[0; 4]; MAX_WORDS];
    platform.memory.read_slice(args[..nargs].as_flattened_mut(), word(3)).ok()?;
    let args = args.map(u32::from_be_bytes);

    let mut rets = [0; MAX_WORDS];
    let (status, results) = rets.split_first_mut()?;
    let service = token.checked_sub(TOKEN_BASE).and_then(|index| TABLE.get(index as usize));
    *status = match service {
        Some(service) if service.nargs == nargs && service.nrets <= nrets => {
            let mut rtas = Rtas {
                platform,
                vcpu: call.vcpu,
                args: &args[..nargs],
                rets: &mut results[..nrets - 1],
                effect: Effect::None,
            };
            let status = (service.handler)(&mut rtas);
            call.effect = rtas.effect;
            tracing::trace!(vcpu = call.vcpu, call = service.name, status, "rtas");
            status
        }
        _ => {
            tracing::debug!(vcpu = call.vcpu, token, nargs, nrets, "RTAS call that cede does not have");
            status::PARAMETER_ERROR
        }
    } as u32;

    let rets = rets.map(u32::to_be_bytes);
    platform.memory.write_slice(rets[..nrets].as_flattened(), word(3 + nargs)).ok()
}

/// Fills a buffer that the guest named: all of it, or nothing if it is not all memory.
fn fill(platform: &Platform, buffer: u32, bytes: &[u8]) -> Option<()> {
    let at = GuestAddress(buffer.into());
    if !bytes.is_empty() && !platform.memory.check_range(at, bytes.len()) {
        return None;
    }
    platform.memory.write_slice(bytes, at).ok()
}

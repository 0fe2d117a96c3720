//! XIVE exploitation mode: the H_INT_* calls (PAPR 14.5.4.9; the kernel's `sysdev/xive/spapr.c`).
//!
//! Arguments are checked here and forwarded to KVM's device. Sources that tell by events the guest triggers and ends in
//! its own mapping of the ESB pages. A level source it ends by H_INT_ESB, because KVM's do not look at their line again
//! by themselves.

#[cfg(test)]
mod tests;

use super::Call;
use crate::assist::queue;
use crate::layout;
use crate::papr::ret::{H_FUNCTION, H_HARDWARE, H_P2, H_P3, H_P4, H_P5, H_PARAMETER, H_SUCCESS};
use crate::xive::{MASKED_PRIORITY, RESERVED_PRIORITY, XiveRoutes};
use arch_api::HvError;
use arch_api::ppc64::{Trigger, Xive, XiveQueue, XiveRoute};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Flags of H_INT_GET_SOURCE_INFO.
const SRC_LSI: u64 = 4;
const SRC_H_INT_ESB: u64 = 8;

const SRC_MASK: u64 = 1;
const SRC_SET_EISN: u64 = 2;
const EQ_ALWAYS_NOTIFY: u64 = 1;
const EQ_DEBUG: u64 = 1;
const ESB_STORE: u64 = 1;
const EISN_MAX: u64 = 0x7fff_ffff;
const PAGE_SHIFT: u32 = 16;

const QUEUE_SHIFT: u64 = queue::SHIFT as u64;

/// The device and the routes, or H_FUNCTION.
macro_rules! xive_or_return {
    ($call:expr) => {
        match ($call.platform.partition.xive(), &$call.platform.xive) {
            (Some(device), Some(routes)) => (device, routes),
            _ => return H_FUNCTION,
        }
    };
}

fn answer(result: Result<(), HvError>) -> i64 {
    match result {
        Ok(()) => H_SUCCESS,
        Err(error) => {
            tracing::debug!(error = %error.source, "{}", error.call);
            H_HARDWARE
        }
    }
}

/// The poller of a vCPU's queues learns of a new one, or with `None` that one is gone.
fn tell_assist(call: &Call<'_>, target: u64, priority: u8, address: Option<u64>) {
    if let (Some(assist), Some(index)) = (&call.platform.assist, call.platform.cpus.by_server(target)) {
        assist.queue(index, priority, address);
    }
}

fn server(call: &Call<'_>, target: u64) -> Option<u32> {
    call.platform.cpus.by_server(target).map(|index| call.platform.cpus.server(index))
}

/// flags, LISN → flags, management page, trigger page, page shift. Pages that the guest is not to use are -1.
pub(super) fn get_source_info(call: &mut Call<'_>) -> i64 {
    let (_, routes): (&dyn Xive, &XiveRoutes) = xive_or_return!(call);
    let [flags, lisn, ..] = call.args;
    if flags != 0 {
        return H_PARAMETER;
    }
    let (flags, management, trigger) = match routes.trigger(lisn) {
        None => return H_P2,
        Some(Trigger::Edge) => {
            // `lisn` is a source that exists, so the pages are within the window.
            let trigger = layout::XIVE_ESB + (lisn << (PAGE_SHIFT + 1));
            (0, trigger + (1 << PAGE_SHIFT), trigger)
        }
        Some(Trigger::Level) => (SRC_H_INT_ESB | SRC_LSI, u64::MAX, u64::MAX),
    };
    call.args[..4].copy_from_slice(&[flags, management, trigger, u64::from(PAGE_SHIFT)]);
    H_SUCCESS
}

/// flags, LISN, target, priority, EISN.
pub(super) fn set_source_config(call: &mut Call<'_>) -> i64 {
    let (device, routes) = xive_or_return!(call);
    let [flags, lisn, target, priority, eisn, ..] = call.args;
    if flags & !(SRC_MASK | SRC_SET_EISN) != 0 {
        return H_PARAMETER;
    }
    let Some(old) = routes.get(lisn) else { return H_P2 };
    let route = if priority == MASKED_PRIORITY {
        XiveRoute { server: 0, priority: 0, eisn: 0, masked: true }
    } else {
        let Some(server) = server(call, target) else { return H_P3 };
        if priority >= RESERVED_PRIORITY {
            return H_P4;
        }
        let eisn = match flags & SRC_SET_EISN {
            0 => old.eisn,
            _ if eisn > EISN_MAX => return H_P5,
            _ => eisn as u32,
        };
        XiveRoute { server, priority: priority as u8, eisn, masked: flags & SRC_MASK != 0 }
    };
    let result = answer(device.set_source(lisn as u32, route));
    if result == H_SUCCESS {
        routes.set(lisn, route);
    }
    result
}

/// flags, LISN → target, priority, EISN.
pub(super) fn get_source_config(call: &mut Call<'_>) -> i64 {
    let (_, routes): (&dyn Xive, &XiveRoutes) = xive_or_return!(call);
    let [flags, lisn, ..] = call.args;
    if flags != 0 {
        return H_PARAMETER;
    }
    let Some(route) = routes.get(lisn) else { return H_P2 };
    call.args[0] = u64::from(route.server);
    call.args[1] = if route.masked { MASKED_PRIORITY } else { u64::from(route.priority) };
    call.args[2] = u64::from(route.eisn);
    H_SUCCESS
}

/// The queue that (target, priority) names: its server and priority, or the return code.
fn queue_of(call: &Call<'_>, target: u64, priority: u64) -> Result<(u32, u8), i64> {
    let server = server(call, target).ok_or(H_P2)?;
    if priority >= RESERVED_PRIORITY {
        return Err(H_P3);
    }
    Ok((server, priority as u8))
}

/// flags, target, priority → event notification page, log2 of the queue's bytes.
pub(super) fn get_queue_info(call: &mut Call<'_>) -> i64 {
    let (device, _): (&dyn Xive, &XiveRoutes) = xive_or_return!(call);
    let [flags, target, priority, ..] = call.args;
    if flags != 0 {
        return H_PARAMETER;
    }
    let (server, priority) = match queue_of(call, target, priority) {
        Ok(queue) => queue,
        Err(code) => return code,
    };
    match device.queue(server, priority) {
        Ok(queue) => {
            // Queues always notify, so there is no page to coalesce by.
            call.args[0] = u64::MAX;
            call.args[1] = u64::from(queue.shift);
            H_SUCCESS
        }
        Err(error) => answer(Err(error)),
    }
}

/// flags, target, priority, address, log2 of the bytes; 0 for no queue.
///
/// Without "always notify" a guest accepts that events coalesce; KVM notifies always, which gives it no less.
pub(super) fn set_queue_config(call: &mut Call<'_>) -> i64 {
    let (device, _): (&dyn Xive, &XiveRoutes) = xive_or_return!(call);
    let [flags, target, priority, address, shift, ..] = call.args;
    if flags & !EQ_ALWAYS_NOTIFY != 0 {
        return H_PARAMETER;
    }
    let (server, priority) = match queue_of(call, target, priority) {
        Ok(queue) => queue,
        Err(code) => return code,
    };
    let queue = match shift {
        0 => XiveQueue::default(),
        QUEUE_SHIFT => {
            let size = 1usize << QUEUE_SHIFT;
            if address % size as u64 != 0 || !call.platform.memory.check_range(GuestAddress(address), size) {
                return H_P4;
            }
            XiveQueue { address, shift: queue::SHIFT, toggle: 1, index: 0 }
        }
        _ => return H_P5,
    };
    let result = answer(device.set_queue(server, priority, queue));
    if result == H_SUCCESS {
        tell_assist(call, target, priority, (shift != 0).then_some(address));
    }
    result
}

/// flags, target, priority → flags, address, log2 of the bytes, with "debug": generation and index.
pub(super) fn get_queue_config(call: &mut Call<'_>) -> i64 {
    let (device, _): (&dyn Xive, &XiveRoutes) = xive_or_return!(call);
    let [flags, target, priority, ..] = call.args;
    if flags & !EQ_DEBUG != 0 {
        return H_PARAMETER;
    }
    let (server, priority) = match queue_of(call, target, priority) {
        Ok(queue) => queue,
        Err(code) => return code,
    };
    match device.queue(server, priority) {
        Ok(queue) => {
            call.args[0] = if queue.shift == 0 { 0 } else { EQ_ALWAYS_NOTIFY };
            call.args[1] = queue.address;
            call.args[2] = u64::from(queue.shift);
            if flags & EQ_DEBUG != 0 {
                call.args[3] = u64::from(queue.toggle) << 62 | u64::from(queue.index);
            }
            H_SUCCESS
        }
        Err(error) => answer(Err(error)),
    }
}

/// flags, LISN, offset, data → what a load returned.
pub(super) fn esb(call: &mut Call<'_>) -> i64 {
    let (device, routes) = xive_or_return!(call);
    let [flags, lisn, offset, data, ..] = call.args;
    if flags & !ESB_STORE != 0 {
        return H_PARAMETER;
    }
    if routes.get(lisn).is_none() {
        return H_P2;
    }
    if offset >= 1 << PAGE_SHIFT || offset % 8 != 0 {
        return H_P3;
    }
    let store = (flags & ESB_STORE != 0).then_some(data);
    let loaded = device.esb(lisn as u32, offset, store);
    call.args[0] = if store.is_some() { u64::MAX } else { loaded };
    H_SUCCESS
}

/// flags, LISN.
pub(super) fn sync(call: &mut Call<'_>) -> i64 {
    let (device, routes) = xive_or_return!(call);
    let [flags, lisn, ..] = call.args;
    if flags != 0 {
        return H_PARAMETER;
    }
    if routes.get(lisn).is_none() {
        return H_P2;
    }
    answer(device.sync(lisn as u32))
}

/// flags.
pub(super) fn reset(call: &mut Call<'_>) -> i64 {
    let (device, routes) = xive_or_return!(call);
    if call.args[0] != 0 {
        return H_PARAMETER;
    }
    let result = answer(device.reset());
    if result == H_SUCCESS {
        routes.reset();
        if let Some(assist) = &call.platform.assist {
            assist.reset();
        }
    }
    result
}

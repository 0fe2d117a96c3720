//! H_CEDE, H_PROD, H_CONFER, H_JOIN on the VMM's plane (PAPR 14.11.3).
//!
//! The calls only say what is to happen: who naps, and where a prod goes. How is the scheduler's.

use super::{Call, Effect};
use crate::papr::ret::{H_FUNCTION, H_PARAMETER, H_SUCCESS};

/// The caller naps until it has an interrupt, a prod or its decrementer expires; interrupts are enabled by it.
pub(super) fn cede(call: &mut Call<'_>) -> i64 {
    if call.platform.own.is_none() {
        return H_FUNCTION;
    }
    call.effect = Effect::Cede;
    H_SUCCESS
}

/// server: ends its nap, or its next one.
pub(super) fn prod(call: &mut Call<'_>) -> i64 {
    let Some(own) = &call.platform.own else { return H_FUNCTION };
    let Some(target) = call.platform.cpus.by_server(call.args[0]) else { return H_PARAMETER };
    call.platform.cpus.unjoin(target);
    own.scheduler.prod(target);
    H_SUCCESS
}

/// server, or -1 for all of the partition; its yield count as the caller last saw it. A hint: the guest cannot tell whether
/// its cycles went anywhere, so the yield count, which only KVM knows the place of, is not compared.
pub(super) fn confer(call: &mut Call<'_>) -> i64 {
    let Some(own) = &call.platform.own else { return H_FUNCTION };
    // The Linux kernel passes -1 in 32 bits as well.
    let target = match call.args[0] as i64 {
        -1 | 0xffff_ffff => None,
        _ => match call.platform.cpus.by_server(call.args[0]) {
            Some(target) => Some(target),
            None => return H_PARAMETER,
        },
    };
    own.scheduler.confer(call.vcpu, target);
    H_SUCCESS
}

/// The caller waits for a prod; the last one of the partition to call goes on, with H_CONTINUE.
pub(super) fn join(call: &mut Call<'_>) -> i64 {
    if call.platform.own.is_none() {
        return H_FUNCTION;
    }
    call.effect = Effect::Join;
    H_SUCCESS
}

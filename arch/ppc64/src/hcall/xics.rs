//! The XICS's presentation calls on the VMM's plane (PAPR 14.8).

use super::Call;
use crate::own::Own;
use crate::papr::ret::{H_FUNCTION, H_PARAMETER, H_SUCCESS};
use crate::xics::XicsError;

fn own<'a>(call: &Call<'a>) -> Option<&'a Own> {
    call.platform.own.as_deref()
}

fn code(result: Result<(), XicsError>) -> i64 {
    result.map_or(H_PARAMETER, |()| H_SUCCESS)
}

/// → CPPR and the accepted source.
pub(super) fn xirr(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    call.args[0] = u64::from(own.xics.xirr(call.vcpu));
    H_SUCCESS
}

/// → as H_XIRR, and the timebase when the interrupt was presented: now is as good, since it is for statistics only.
pub(super) fn xirr_x(call: &mut Call<'_>) -> i64 {
    let code = xirr(call);
    if code == H_SUCCESS {
        call.args[1] = call.platform.partition.timebase();
    }
    code
}

/// XIRR as H_XIRR gave it.
pub(super) fn eoi(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    code(own.xics.eoi(call.vcpu, call.args[0] as u32, |vcpu| own.notify(vcpu)))
}

/// The new CPPR.
pub(super) fn cppr(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    own.xics.cppr(call.vcpu, call.args[0] as u8, |vcpu| own.notify(vcpu));
    H_SUCCESS
}

/// server, MFRR.
pub(super) fn ipi(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    let Some(target) = call.platform.cpus.by_server(call.args[0]) else { return H_PARAMETER };
    code(own.xics.ipi(target, call.args[1] as u8, |vcpu| own.notify(vcpu)))
}

/// server → XIRR without accepting, MFRR.
pub(super) fn ipoll(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    let Some(target) = call.platform.cpus.by_server(call.args[0]) else { return H_PARAMETER };
    let Ok((xirr, mfrr)) = own.xics.ipoll(target) else { return H_PARAMETER };
    (call.args[0], call.args[1]) = (u64::from(xirr), u64::from(mfrr));
    H_SUCCESS
}

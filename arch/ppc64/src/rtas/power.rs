//! The guest's end, and the host's wish for it: power-off, system-reboot, ibm,os-term, check-exception.

use super::{Rtas, fill, status};
use crate::epow::EPOW_EVENTS;
use crate::hcall::Effect;
use arch_api::Stop;
use vm_memory::{Bytes, GuestAddress};

/// The longest panic message that is read.
const MESSAGE_MAX: usize = 256;

pub(super) fn power_off(rtas: &mut Rtas<'_>) -> i32 {
    rtas.effect = Effect::Stop(Stop::PowerOff);
    status::SUCCESS
}

pub(super) fn system_reboot(rtas: &mut Rtas<'_>) -> i32 {
    rtas.effect = Effect::Stop(Stop::Reboot);
    status::SUCCESS
}

/// pointer to a C string: the operating system is dead (PAPR 7.3.9.1).
pub(super) fn os_term(rtas: &mut Rtas<'_>) -> i32 {
    let mut message = [0; MESSAGE_MAX];
    let from = GuestAddress(u64::from(rtas.args[0]));
    let length = rtas.platform.memory.read(&mut message, from).unwrap_or(0);
    let length = message[..length].iter().position(|&c| c == 0).unwrap_or(length);
    let message = message[..length].escape_ascii().to_string();
    tracing::error!(message, "the guest panicked");
    rtas.effect = Effect::Stop(Stop::Panic);
    status::SUCCESS
}

/// vector, interrupt, event mask, critical, buffer, length → an error log in the buffer (PAPR 7.3.3.1).
pub(super) fn check_exception(rtas: &mut Rtas<'_>) -> i32 {
    let &[_vector, _interrupt, mask, _critical, buffer, length] = rtas.args else {
        return status::PARAMETER_ERROR;
    };
    if mask & EPOW_EVENTS == 0 {
        return status::NO_ERROR_LOG;
    }
    let platform = rtas.platform;
    let Some(log) = platform.epow.take() else { return status::NO_ERROR_LOG };
    let length = log.len().min(length as usize);
    match fill(platform, buffer, &log[..length]) {
        Some(()) => status::SUCCESS,
        None => {
            // Nobody has seen it: it is still there for a caller with a buffer.
            platform.epow.press();
            status::PARAMETER_ERROR
        }
    }
}

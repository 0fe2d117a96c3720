//! H_RANDOM (PAPR 14.15): one 64-bit random number. Reaches us where the host's KVM has no hardware source.

use super::Call;
use crate::papr::ret::{H_HARDWARE, H_SUCCESS};

pub(super) fn random(call: &mut Call<'_>) -> i64 {
    match getrandom::u64() {
        Ok(number) => {
            call.args[0] = number;
            H_SUCCESS
        }
        Err(error) => {
            tracing::warn!(%error, "no random number for H_RANDOM");
            H_HARDWARE
        }
    }
}

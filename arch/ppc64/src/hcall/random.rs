//! H_RANDOM (PAPR 14.15): one 64-bit random number. Reaches us where the host's KVM has no hardware source.

use super::Call;
use crate::entropy;
use crate::papr::ret::{H_HARDWARE, H_SUCCESS};

pub(super) fn random(call: &mut Call<'_>) -> i64 {
    let Some(bytes) = entropy::random() else { return H_HARDWARE };
    call.args[0] = u64::from_ne_bytes(bytes);
    H_SUCCESS
}

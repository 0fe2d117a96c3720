//! The virtual terminal: H_GET_TERM_CHAR and H_PUT_TERM_CHAR (PAPR 14.5.5.2).
//!
//! Up to 16 characters travel in two registers, the first in the most significant byte of the first.

use super::Call;
use crate::layout::VIO_REG;
use crate::papr::ret::{H_BUSY, H_PARAMETER, H_SUCCESS};

const CHARS: usize = 16;

/// termno → length, 8 characters, 8 characters.
pub(super) fn get_term_char(call: &mut Call<'_>) -> i64 {
    if call.args[0] != u64::from(VIO_REG) {
        return H_PARAMETER;
    }
    let mut chars = [0; CHARS];
    let length = call.platform.console.read(&mut chars);
    call.args[0] = length as u64;
    let words = u128::from_be_bytes(chars);
    call.args[1] = (words >> 64) as u64;
    call.args[2] = words as u64;
    H_SUCCESS
}

/// termno, length, 8 characters, 8 characters → all taken, or H_BUSY and none.
pub(super) fn put_term_char(call: &mut Call<'_>) -> i64 {
    let [term, length, high, low, ..] = call.args;
    let length = match usize::try_from(length) {
        Ok(length) if length <= CHARS && term == u64::from(VIO_REG) => length,
        _ => return H_PARAMETER,
    };
    let chars = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    if length > 0 && call.platform.console.write(&chars[..length]) == 0 {
        return H_BUSY;
    }
    H_SUCCESS
}

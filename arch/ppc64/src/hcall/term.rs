//! The virtual terminal: H_GET_TERM_CHAR and H_PUT_TERM_CHAR (PAPR 14.5.5.2).
//!
//! Up to 16 characters travel in two registers, the first in the most significant byte of the first.

use super::Call;
use crate::layout::VIO_REG;
use crate::papr::ret::{H_BUSY, H_PARAMETER, H_SUCCESS};
use devices::console::Console;
use std::sync::{Mutex, MutexGuard, PoisonError};

const CHARS: usize = 16;

/// Characters that a call was told are taken, and for which the host's terminal had no room: a terminal that
/// fills up takes the first few of a call, and there is no return code for that.
#[derive(Debug, Default)]
pub struct Unsent(Mutex<Vec<u8>>);

impl Unsent {
    /// Sends what is left. True when nothing is left any more.
    fn flush(&self, console: &Console) -> bool {
        // Taken out, because the lock is not held while the host writes.
        let mut rest = std::mem::take(&mut *self.lock());
        if rest.is_empty() {
            return true;
        }
        let taken = console.write(&rest);
        rest.drain(..taken);
        let done = rest.is_empty();
        self.lock().splice(..0, rest);
        done
    }

    fn keep(&self, rest: &[u8]) {
        if !rest.is_empty() {
            self.lock().extend_from_slice(rest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// termno → length, 8 characters, 8 characters.
pub(super) fn get_term_char(call: &mut Call<'_>) -> i64 {
    if call.args[0] != u64::from(VIO_REG) {
        return H_PARAMETER;
    }
    // A guest that polls for input also moves the output that it has no more calls for.
    call.platform.unsent.flush(&call.platform.console);
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
    let (console, unsent) = (&call.platform.console, &call.platform.unsent);
    if !unsent.flush(console) {
        return H_BUSY;
    }
    let chars = &chars[..length];
    let taken = console.write(chars);
    if taken == 0 && length > 0 {
        return H_BUSY;
    }
    unsent.keep(&chars[taken..]);
    H_SUCCESS
}

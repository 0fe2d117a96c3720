//! Random bytes for the guest, from the host's pool, without ever waiting for it.

use rustix::rand::{GetRandomFlags, getrandom};

/// Random bytes, or nothing while the host's own pool is not ready: soon after boot, on hosts without a
/// hardware source. A vCPU must not wait for that, and a guest must not take less for randomness.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // Up to 256 bytes come whole or not at all.
    match getrandom(&mut bytes[..], GetRandomFlags::NONBLOCK) {
        Ok(n) if n == N => Some(bytes),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "the host has no random bytes yet");
            None
        }
    }
}

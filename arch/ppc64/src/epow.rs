//! Environmental and power warnings: how the host's "power off, please" reaches the guest.
//!
//! The power button sets a flag and triggers the EPOW interrupt; the guest's handler calls RTAS `check-exception`,
//! which takes the flag and returns one error log: a platform event log, version 6, with an EPOW section
//! that asks for a normal shutdown. Linux answers with `orderly_poweroff()`.
//! Source: PAPR, chapter 10 (RTAS error and event information), and `arch/powerpc/platforms/pseries/ras.c`.

use std::sync::atomic::{AtomicBool, Ordering};

/// The bit of the event mask that asks for EPOW events.
pub const EPOW_EVENTS: u32 = 0x4000_0000;

/// The flag between the power button and `check-exception`.
#[derive(Debug, Default)]
pub struct Epow {
    pending: AtomicBool,
}

impl Epow {
    /// The button was pressed. The caller raises the interrupt afterwards.
    pub fn press(&self) {
        // Release, with the Acquire of `take`: the guest asks only after the interrupt that follows.
        self.pending.store(true, Ordering::Release);
    }

    /// The log of a pending event, once.
    pub fn take(&self) -> Option<[u8; LOG_LEN]> {
        self.pending.swap(false, Ordering::AcqRel).then(shutdown_log)
    }

    /// Forgets a pending event.
    pub fn reset(&self) {
        self.pending.store(false, Ordering::Release);
    }
}

/// Header (8 bytes), main section (16), EPOW section (20).
const LOG_LEN: usize = 44;

fn shutdown_log() -> [u8; LOG_LEN] {
    // Version 6; severity "event", not recovered, an extended part follows; type EPOW.
    const SUMMARY: u32 = 6 << 24 | (1 << 5 | 2 << 3 | 1 << 2) << 16 | 0x40;
    // Valid, big-endian, new; format 14: platform event log.
    const MAIN: [u8; 4] = [0x80 | 0x02, 0, 0x80 | 14, 0];
    const SHUTDOWN: u8 = 3;
    const NORMAL: u8 = 1;

    let mut log = [0; LOG_LEN];
    log[0..4].copy_from_slice(&SUMMARY.to_be_bytes());
    log[4..8].copy_from_slice(&(LOG_LEN as u32 - 8).to_be_bytes());
    log[8..12].copy_from_slice(&MAIN);
    log[20..24].copy_from_slice(b"IBM\0");
    log[24..26].copy_from_slice(b"EP");
    log[26..28].copy_from_slice(&20u16.to_be_bytes());
    log[28] = 2;
    log[32] = SHUTDOWN;
    log[33] = NORMAL;
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_reported_once() {
        let epow = Epow::default();
        assert!(epow.take().is_none());
        epow.press();
        epow.press();
        assert!(epow.take().is_some());
        assert!(epow.take().is_none());
    }

    /// Walks the log as Linux's `get_pseries_errorlog` does.
    #[test]
    fn linux_finds_the_shutdown_request() {
        let log = shutdown_log();
        assert_eq!(log[1] & 0x04, 0x04, "extended part present");
        let extended = &log[8..8 + u32::from_be_bytes(log[4..8].try_into().unwrap()) as usize];
        assert!(extended.len() >= 20);
        assert_eq!(&extended[12..16], b"IBM\0");
        let section = &extended[16..];
        assert_eq!(&section[0..2], b"EP");
        assert_eq!(section[8] & 0xf, 3, "EPOW_SYSTEM_SHUTDOWN");
        assert_eq!(section[9] & 0xf, 1, "EPOW_SHUTDOWN_NORMAL");
    }
}

//! A driver that keeps to no rule, made of arbitrary bytes: what it does to a device, no device may take amiss.

use super::testing::{Driver, INDIRECT, NEXT, RAM, WRITE, ram};
use super::{Activation, Device, NeedsReset};
use std::sync::Arc;

/// Entries of each queue: few, so that steps meet each other.
const ENTRIES: u16 = 8;

/// Bytes of a step.
const STEP: usize = 8;

/// Does what `steps` say to `device`, whose driver has accepted `features`, until the device wants a reset. Whatever happens is
/// right but a panic, or a turn that has no end.
pub(super) fn drive(device: &dyn Device, features: u64, steps: &[u8]) -> Result<(), NeedsReset> {
    let memory = ram();
    let mut drivers: Vec<Driver> = (0..device.queues().len())
        .map(|index| Driver::new(index as u16, ENTRIES, index % 2 == 1, memory.clone()))
        .collect();
    let activation = Activation {
        memory,
        features,
        rings: drivers.iter().map(|driver| Some(driver.ring())).collect(),
        interrupts: Arc::clone(&drivers[0].told) as _,
    };
    let mut backend = device.activate(activation).expect("the features are those of the device");
    for step in steps.chunks_exact(STEP) {
        let count = drivers.len();
        let queue = usize::from(step[1]) % count;
        let driver = &mut drivers[queue];
        let entry = u16::from(step[2]) % (ENTRIES + 1);
        match step[0] % 8 {
            // A descriptor, here or in an indirect table.
            0..3 => {
                let table = if step[0] & 0x10 == 0 { driver.table() } else { driver.table() + 0x4000 };
                driver.describe(table, entry, descriptor(step, driver.table() + 0x4000));
            }
            3 | 4 => driver.offer(entry),
            5 => {
                let index = u16::from_le_bytes([step[2], step[3]]);
                driver.put(driver.avail() + 2, index.to_le());
            }
            6 => {
                let offset = u64::from(step[2]);
                device.set_config(offset, &step[3..3 + usize::from(step[3] % 5)]);
                device.config(offset, &mut [0; 8]);
            }
            _ => {
                let sources = backend.sources().len();
                if sources > 0 && step[2] & 1 == 0 {
                    backend.ready(usize::from(step[3]) % sources)?;
                }
            }
        }
        backend.notified(queue as u16)?;
        // What is left of a long chain comes in further turns, of which there is an end.
        for _ in 0..4 {
            if !backend.unfinished() {
                break;
            }
            (0..count).try_for_each(|queue| backend.notified(queue as u16))?;
        }
    }
    Ok(())
}

/// A descriptor whose parts are often right.
fn descriptor(step: &[u8], indirect: u64) -> (u64, u32, u16, u16) {
    let (flags, next) = (u16::from(step[3]), u16::from(step[4]) % (ENTRIES + 1));
    let length = u32::from_le_bytes([step[5], step[6], 0, step[6] & step[7]]);
    let address = match step[7] % 8 {
        0 => u64::MAX - u64::from(step[5]),
        1 => RAM - u64::from(step[5]),
        2 => u64::from(step[5]) << 40,
        _ => u64::from(step[6]) << 12 | u64::from(step[5]),
    };
    match flags & (NEXT | WRITE | INDIRECT) {
        flags if flags & INDIRECT != 0 => (indirect, u32::from(step[5] % 10) * 16, flags, next),
        flags => (address, length, flags, next),
    }
}

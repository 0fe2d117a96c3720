//! A disk: requests that are almost right, and queues that are not.

use crate::script::Script;
use devices::virtio::block::{Disk, Engine, Options};
use devices::virtio::testing::{BUFFERS, Driver, RAM, ram};
use devices::virtio::{Activation, Backend, Device, NeedsReset};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

const SECTORS: u64 = 256;
const ENTRIES: u16 = 16;

/// An image in memory, the same for all inputs.
fn image() -> File {
    let file = File::from(memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC).expect("a file in memory"));
    file.set_len(SECTORS * 512).expect("room for the image");
    file
}

struct Machine {
    drivers: Vec<Driver>,
    backend: Box<dyn Backend>,
}

/// The image keeps its size whatever the guest does, and no turn goes on for ever.
pub fn play(data: &[u8]) {
    thread_local!(static IMAGE: File = image());
    IMAGE.with(|image| {
        let mut script = Script::new(data);
        let setup = script.byte();
        let options = Options {
            path: format!("/proc/self/fd/{}", image.as_raw_fd()).into(),
            read_only: setup & 1 != 0,
            ..Options::default()
        };
        // Setting up a ring takes longer than all the rest.
        let engine = if setup & 0xf0 == 0 { Engine::Auto } else { Engine::Sync };
        let queues = 1 + u16::from(setup >> 1 & 1);
        let disk = Disk::open(&options, "fuzz", queues, engine).expect("the image is a disk");
        while let Some(features) = script.act(4) {
            if life(&disk, u64::from(features) << 9, &mut script).is_ok() {
                break;
            }
        }
        assert_eq!(image.metadata().expect("the image is there").len(), SECTORS * 512);
    });
}

/// From DRIVER_OK to the end, or to what needs a reset.
fn life(disk: &Disk, features: u64, script: &mut Script) -> Result<(), NeedsReset> {
    let memory = ram();
    let queues = disk.queues().len() as u16;
    let drivers: Vec<_> =
        (0..queues).map(|index| Driver::new(index, ENTRIES, index == 0, memory.clone())).collect();
    let activation = Activation {
        memory,
        features,
        rings: drivers.iter().map(|driver| Some(driver.ring())).collect(),
        interrupts: Arc::clone(&drivers[0].told) as _,
    };
    let backend = disk.activate(activation).expect("io_uring or not");
    let mut machine = Machine { drivers, backend };
    while let Some(act) = script.act(8) {
        machine.act(act, disk, script)?;
    }
    Ok(())
}

impl Machine {
    fn act(&mut self, act: u8, disk: &Disk, script: &mut Script) -> Result<(), NeedsReset> {
        let queue = usize::from(script.byte()) % self.drivers.len();
        let driver = &mut self.drivers[queue];
        match act {
            0..=2 => request(driver, script),
            3 => {
                let table = if script.byte() & 1 == 0 { driver.table() } else { BUFFERS + 0x8000 };
                let index = script.half() % ENTRIES;
                let descriptor =
                    (address(script), script.word(), script.half(), script.half() % (ENTRIES + 1));
                driver.describe(table, index, descriptor);
            }
            4 => driver.offer(script.half() % (ENTRIES + 1)),
            5 => driver.put(driver.avail() + 2, script.half().to_le()),
            6 => {
                let offset = script.near(64);
                disk.config(offset, &mut [0; 8][..usize::from(script.byte() % 9)]);
                disk.set_config(offset, &script.take::<4>());
            }
            _ => return self.turn(queue as u16),
        }
        if script.byte() & 1 == 0 { Ok(()) } else { self.turn(queue as u16) }
    }

    fn turn(&mut self, queue: u16) -> Result<(), NeedsReset> {
        self.backend.notified(queue)?;
        let mut turns = 0;
        while self.backend.unfinished() {
            turns += 1;
            assert!(turns < 1000, "a turn without end");
            for queue in 0..self.drivers.len() {
                self.backend.notified(queue as u16)?;
            }
        }
        if self.backend.sources().is_empty() { Ok(()) } else { self.backend.ready(0) }
    }
}

/// A request whose parts are mostly right.
fn request(driver: &mut Driver, script: &mut Script) {
    let at = script.byte() % ENTRIES as u8;
    let header = BUFFERS + 32 * u64::from(at);
    let kind = match script.byte() {
        kind @ 0..=15 => u32::from(kind),
        16 => script.word(),
        kind => [0, 1, 4, 8, 11, 13][usize::from(kind % 6)],
    };
    driver.put(header, kind.to_le());
    driver.put(header + 8, script.near(SECTORS).to_le());
    let data = BUFFERS + 0x1000;
    // What a discard says.
    driver.put(data, script.near(SECTORS).to_le());
    driver.put(data + 8, (script.near(SECTORS) as u32).to_le());
    driver.put(data + 12, u32::from(script.byte() % 4).to_le());
    let mut chain = vec![(header, 16, false)];
    for _ in 0..script.byte() % 4 {
        let length = match script.byte() % 4 {
            0 => 16,
            1 => script.near(512) as u32,
            many => 512 * u32::from(many),
        };
        let from = if script.byte() & 3 == 0 { address(script) } else { data };
        chain.push((from, length, !matches!(kind, 1 | 11 | 13)));
    }
    chain.push((header + 16, 1, true));
    if script.byte() % 16 == 0 {
        chain.remove(usize::from(script.byte()) % chain.len());
    }
    let room = u16::from(at).min(ENTRIES - chain.len() as u16);
    driver.chain(room, &chain);
}

/// Mostly in memory, at its end, in the rings, or nowhere.
fn address(script: &mut Script) -> u64 {
    match script.byte() % 4 {
        0 => BUFFERS + u64::from(script.half()),
        1 => 0x1_0000 + u64::from(script.half()),
        2 => script.near(RAM),
        _ => script.near(u64::MAX),
    }
}

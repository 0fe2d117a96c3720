//! A disk with io_uring and without: 4 KiB at random places, one request at a time and 32.
//!
//! The device runs on its thread, the driver on this one, which sleeps until it is interrupted as a vCPU does. Rounds of all cases
//! take turns, so that what disturbs the machine disturbs them all; the table has the median over the rounds.
//!
//! `cargo bench -p cede-devices --features testing [-- --rounds N] [-- --directory D]`; D is where the image is made.

use devices::virtio::block::{Disk, Engine, Options};
use devices::virtio::testing::{BUFFERS, Driver, ram};
use devices::virtio::{Activation, Device, Interrupts, Ring, Running, Threads, Work, Workers};
use nix::sys::eventfd::EventFd as Event;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const IMAGE: u64 = 512 << 20;
const BLOCK: u32 = 4096;
const ROUND: Duration = Duration::from_millis(500);
const HEADERS: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x1000;
const DATA: u64 = BUFFERS + 0x1_0000;

/// Wakes the driver.
struct Line(Event);

impl Interrupts for Line {
    fn used(&self, _: u16) {
        self.0.write(1).expect("an eventfd takes one more");
    }

    fn config_changed(&self) {}

    fn needs_reset(&self) {
        panic!("the device is broken");
    }
}

struct Case {
    engine: Engine,
    direct: bool,
    write: bool,
    depth: u16,
    /// Requests per second.
    rounds: Vec<f64>,
}

impl Case {
    fn run(&mut self, path: &Path, random: &mut u64) {
        let options = Options { path: path.into(), direct: self.direct, ..Options::default() };
        let disk = Disk::open(&options, "", 1, self.engine).expect("the image opens");
        let mut driver = Driver::new(0, 128, true, ram());
        let line = Arc::new(Line(Event::new().expect("an eventfd")));
        let activation = Activation {
            memory: driver.memory.clone(),
            features: disk.features(),
            rings: vec![Some(Ring::new(0, driver.queue(), driver.memory.clone(), Arc::clone(&line) as _))],
            interrupts: Arc::clone(&line) as _,
        };
        let doorbell = Arc::new(EventFd::new(EFD_NONBLOCK).expect("an eventfd"));
        let work = Work {
            name: "disk".into(),
            backend: disk.activate(activation).expect("the disk starts"),
            doorbells: vec![(0, Arc::clone(&doorbell))],
            interrupts: Arc::clone(&line) as _,
        };
        let running = Threads::for_each().start(work).expect("a thread");
        let begin = Instant::now();
        let mut done = 0_u32;
        for slot in 0..self.depth {
            self.offer(&mut driver, slot, random);
        }
        doorbell.write(1).expect("an eventfd");
        while begin.elapsed() < ROUND {
            let from = driver.available();
            while let Some((head, _)) = driver.take() {
                let slot = head / 3;
                assert_eq!(driver.get::<u8>(STATUS + u64::from(slot)), 0, "a request failed");
                done += 1;
                self.offer(&mut driver, slot, random);
            }
            if driver.available() != from {
                std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                if driver.device_wants(from) {
                    doorbell.write(1).expect("an eventfd");
                }
                continue;
            }
            driver.put(driver.used_event(), driver.seen().to_le());
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            if !driver.has_used() {
                line.0.read().expect("an eventfd");
            }
        }
        self.rounds.push(f64::from(done) / begin.elapsed().as_secs_f64());
        stop(running);
    }

    fn offer(&self, driver: &mut Driver, slot: u16, random: &mut u64) {
        *random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let sector = (*random >> 33) % (IMAGE / u64::from(BLOCK)) * u64::from(BLOCK / 512);
        let at = u64::from(slot);
        driver.put(HEADERS + 16 * at, u32::from(self.write).to_le());
        driver.put(HEADERS + 16 * at + 8, sector.to_le());
        let data = (DATA + u64::from(BLOCK) * at, BLOCK, !self.write);
        driver.chain(slot * 3, &[(HEADERS + 16 * at, 16, false), data, (STATUS + at, 1, true)]);
    }

    fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    }
}

fn stop(running: Box<dyn Running>) {
    let (sender, done) = mpsc::channel();
    running.stop(Box::new(move || sender.send(()).expect("somebody waits")));
    done.recv().expect("the device ends");
}

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

fn main() {
    let rounds = argument("--rounds").map_or(9, |n| n.parse().expect("--rounds takes a number"));
    let directory = argument("--directory").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory for the image");
    // One for each way: a direct write takes what it writes out of the cache.
    let images = ["cached.img", "direct.img"].map(|name| directory.path().join(name));
    for path in &images {
        std::fs::write(path, vec![1; IMAGE as usize]).expect("room for the image");
        std::fs::File::open(path).and_then(|file| file.sync_all()).expect("the image is written");
    }

    let mut cases = Vec::new();
    for (direct, write, depth) in
        [false, true].into_iter().flat_map(|d| [(d, false, 1), (d, false, 32), (d, true, 1), (d, true, 32)])
    {
        for engine in [Engine::Sync, Engine::Uring] {
            cases.push(Case { engine, direct, write, depth, rounds: Vec::new() });
        }
    }
    let mut random = 1;
    for _ in 0..rounds {
        cases.iter_mut().for_each(|case| case.run(&images[usize::from(case.direct)], &mut random));
    }
    println!("{:<8}{:<8}{:>6}{:>12}{:>12}{:>8}", "cache", "", "depth", "sync/s", "io_uring/s", "ratio");
    for pair in cases.chunks(2) {
        let [sync, uring] = pair else { continue };
        let cache = if sync.direct { "direct" } else { "host" };
        let what = if sync.write { "write" } else { "read" };
        let (a, b) = (sync.median(), uring.median());
        println!("{cache:<8}{what:<8}{:>6}{a:>12.0}{b:>12.0}{:>8.2}", sync.depth, b / a);
    }
}

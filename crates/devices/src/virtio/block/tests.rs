//! A disk without a thread, driven as a worker does; and what images are refused.

mod device;

use super::*;
use crate::virtio::testing::{BUFFERS, Driver, RAM, ram};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SECTORS: u64 = 2048;
const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x100;
const DATA: u64 = BUFFERS + 0x1000;

fn options(path: &Path) -> Options {
    Options { path: path.to_owned(), ..Options::default() }
}

fn image(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("root.img");
    let file = File::create(&path).unwrap();
    let data: Vec<u8> = (0..SECTORS).flat_map(|sector| [sector as u8; SECTOR as usize]).collect();
    file.write_all_at(&data, 0).unwrap();
    path
}

/// A disk with one queue, at work without a thread.
struct Bench {
    directory: tempfile::TempDir,
    disk: Disk,
    driver: Driver,
    backend: Option<Box<dyn Backend>>,
}

const FLUSH: u64 = 1 << virtio_blk::VIRTIO_BLK_F_FLUSH;

fn bench_with(engine: Engine, features: u64, change: impl Fn(&mut Options)) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(&image(directory.path()));
    change(&mut options);
    let disk = Disk::open(&options, "serial number with too many letters", 1, engine).unwrap();
    let driver = Driver::new(0, 16, true, ram());
    let mut bench = Bench { directory, disk, driver, backend: None };
    bench.activate(features);
    bench
}

fn bench(engine: Engine) -> Bench {
    bench_with(engine, FLUSH, |_| ())
}

fn engines() -> Vec<Engine> {
    let directory = tempfile::tempdir().unwrap();
    let image = Image::open(&options(&image(directory.path()))).unwrap();
    let uring = Uring::new(&image).is_ok().then_some(Engine::Uring);
    [Engine::Sync].into_iter().chain(uring).collect()
}

impl Bench {
    fn activate(&mut self, features: u64) {
        let activation = Activation {
            memory: self.driver.memory.clone(),
            features,
            rings: vec![Some(self.driver.ring())],
            interrupts: Arc::clone(&self.driver.told) as _,
        };
        self.backend = Some(self.disk.activate(activation).unwrap());
    }

    /// Puts a request into the queue at descriptor `first`: header, data, status.
    fn offer(&mut self, first: u16, (kind, sector): (u32, u64), data: &[(u64, u32, bool)]) {
        let slot = u64::from(first);
        let header = HEADER + 16 * slot;
        self.driver.put(header, kind.to_le());
        self.driver.put(header + 8, sector.to_le());
        self.driver.put(STATUS + slot, 0xff_u8);
        let mut chain = vec![(header, 16, false)];
        chain.extend_from_slice(data);
        chain.push((STATUS + slot, 1, true));
        self.driver.chain(first, &chain);
    }

    /// Runs the backend as a worker does until a chain comes back.
    fn wait(&mut self) -> (u16, u32) {
        let begin = Instant::now();
        let backend = self.backend.as_mut().unwrap();
        backend.notified(0).unwrap();
        loop {
            if let Some(used) = self.driver.take() {
                return used;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "the request is never done");
            if backend.unfinished() {
                backend.notified(0).unwrap();
            }
            if !backend.sources().is_empty() {
                backend.ready(0).unwrap();
            }
            std::thread::yield_now();
        }
    }

    /// One request, and its status.
    fn request(&mut self, what: (u32, u64), data: &[(u64, u32, bool)]) -> (u8, u32) {
        self.offer(0, what, data);
        let (head, written) = self.wait();
        assert_eq!(head, 0);
        (self.driver.get(STATUS), written)
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("root.img")
    }

    fn on_disk(&self, sector: u64) -> u8 {
        let mut byte = [0];
        File::open(self.path()).unwrap().read_exact_at(&mut byte, sector * SECTOR).unwrap();
        byte[0]
    }
}

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const IN: u32 = virtio_blk::VIRTIO_BLK_T_IN;
const OUT: u32 = virtio_blk::VIRTIO_BLK_T_OUT;
const SYNC: u32 = virtio_blk::VIRTIO_BLK_T_FLUSH;
const DISCARDS: u32 = virtio_blk::VIRTIO_BLK_T_DISCARD;
const ZERO: u32 = virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES;

#[test]
fn reads_and_writes_in_pieces() {
    for engine in engines() {
        let mut bench = bench(engine);
        let pieces = [(DATA, 100, true), (DATA + 0x1000, 412, true), (DATA + 0x2000, 512, true)];
        assert_eq!(bench.request((IN, 7), &pieces), (OK, 1025));
        assert_eq!(bench.driver.get::<[u8; 2]>(DATA + 98), [7, 7]);
        assert_eq!(bench.driver.get::<[u8; 2]>(DATA + 0x1000 + 411), [7, 0]);
        assert_eq!(bench.driver.get::<u8>(DATA + 0x2000), 8);
        bench.driver.put(DATA, [0xa5_u8; 32]);
        assert_eq!(bench.request((OUT, 9), &[(DATA, 32, false), (DATA, 480, false)]), (OK, 1));
        assert_eq!(bench.on_disk(9), 0xa5);
        assert_eq!(bench.request((SYNC, 0), &[]), (OK, 1));
        assert_eq!(bench.request((IN, SECTORS - 1), &[(DATA, 512, true)]), (OK, 513));
        assert_eq!(bench.request((IN, SECTORS), &[]), (OK, 1));
    }
}

#[test]
fn a_driver_that_never_flushes_writes_through() {
    for engine in engines() {
        let mut bench = bench_with(engine, 0, |_| ());
        bench.driver.put(DATA, [0x5a_u8; 32]);
        assert_eq!(bench.request((OUT, 3), &[(DATA, 512, false)]), (OK, 1));
        assert_eq!(bench.on_disk(3), 0x5a);
    }
}

/// Who has a cache: what the disk was opened with, then what the driver wants, if it has said that it would say so; until the reset.
#[test]
fn the_driver_says_whether_writes_wait_in_a_cache() {
    const WCE: u64 = 1 << virtio_blk::VIRTIO_BLK_F_CONFIG_WCE;
    let queues = |disk: &Disk, features| {
        let driver = Driver::new(0, 16, true, ram());
        let rings = vec![Some(driver.ring())];
        let interrupts = driver.told.clone();
        let activation = Activation { memory: driver.memory.clone(), features, rings, interrupts };
        Queues::new(Arc::clone(&disk.shared), activation, None)
    };
    let write_back = |disk: &Disk| {
        let mut byte = [0xee];
        disk.config(WRITE_BACK, &mut byte);
        byte[0]
    };
    let (cached, lasting) = (0, libc::RWF_DSYNC);
    for (write_through, at_first) in [(false, cached), (true, lasting)] {
        let bench = bench_with(Engine::Sync, FLUSH, |options| options.write_through = write_through);
        let disk = &bench.disk;
        assert_eq!(disk.features() & (WCE | FLUSH), WCE | FLUSH);
        assert_eq!(queues(disk, 0).write_flags(), lasting);
        assert_eq!(queues(disk, WCE).write_flags(), lasting, "nobody would flush");
        for features in [FLUSH, FLUSH | WCE] {
            let queues = queues(disk, features);
            assert_eq!(queues.write_flags(), at_first);
            for (wanted, flags) in [(0, lasting), (1, cached)] {
                disk.set_config(WRITE_BACK, &[wanted]);
                assert_eq!(write_back(disk), wanted);
                assert_eq!(queues.write_flags(), if features & WCE != 0 { flags } else { at_first });
            }
            disk.set_config(WRITE_BACK, &[2]);
            disk.set_config(WRITE_BACK, &[0, 0]);
            disk.set_config(WRITE_BACK + 1, &[0]);
            assert_eq!(write_back(disk), 1);
            drop(queues);
            assert_eq!(write_back(disk), u8::from(!write_through));
        }
    }
    let disk = bench_with(Engine::Sync, FLUSH, |options| options.read_only = true).disk;
    assert_eq!(disk.features() & WCE, 0);
}

#[test]
fn what_is_beyond_the_disk_or_memory_fails() {
    for engine in engines() {
        let mut bench = bench(engine);
        let one = [(DATA, 512, true)];
        for sector in [SECTORS, SECTORS - 1 + (1 << 55), u64::MAX, u64::MAX / 512] {
            assert_eq!(bench.request((IN, sector), &one), (IOERR, 0), "{sector:#x}");
        }
        assert_eq!(bench.request((IN, SECTORS - 1), &[(DATA, 1024, true)]), (IOERR, 0));
        assert_eq!(bench.request((IN, 0), &[(DATA, 511, true)]), (IOERR, 0));
        assert_eq!(bench.request((IN, 0), &[(RAM - 511, 512, true)]), (IOERR, 0));
        assert_eq!(bench.request((IN, 0), &[(u64::MAX - 255, 512, true)]), (IOERR, 0));
        assert_eq!(bench.request((OUT, 0), &[(RAM, 512, false)]), (IOERR, 1));
        assert_eq!(bench.on_disk(0), 0);
        assert_eq!(bench.request((IN, 0), &one), (OK, 513));
    }
}

#[test]
fn unknown_requests_are_unsupported() {
    let mut bench = bench(Engine::Auto);
    for kind in [2, 3, 9, 14, 0x8000_0000, u32::MAX] {
        assert_eq!(bench.request((kind, 0), &[(DATA, 512, false)]), (UNSUPP, 1));
    }
}

#[test]
fn a_request_that_cannot_be_answered_needs_a_reset() {
    let chains: [&[(u64, u32, bool)]; 4] = [
        &[(HEADER, 16, false)],
        &[(HEADER, 15, false), (STATUS, 1, true)],
        &[(RAM, 16, false), (STATUS, 1, true)],
        &[(HEADER, 16, false), (RAM, 1, true)],
    ];
    for chain in chains {
        let mut bench = bench(Engine::Sync);
        bench.driver.put(HEADER, virtio_blk::VIRTIO_BLK_T_GET_ID.to_le());
        bench.driver.chain(0, chain);
        assert!(bench.backend.as_mut().unwrap().notified(0).is_err());
    }
}

#[test]
fn the_identity_is_cut_to_its_length() {
    let mut bench = bench(Engine::Auto);
    let id = virtio_blk::VIRTIO_BLK_T_GET_ID;
    assert_eq!(bench.request((id, 0), &[(DATA, 20, true)]), (OK, 21));
    assert_eq!(&bench.driver.get::<[u8; 20]>(DATA), b"serial number with t");
    assert_eq!(bench.request((id, 0), &[(DATA + 64, 6, true)]), (OK, 7));
    assert_eq!(&bench.driver.get::<[u8; 8]>(DATA + 64), b"serial\0\0");
}

#[test]
fn a_read_only_disk_takes_no_writes() {
    for engine in engines() {
        let mut bench = bench_with(engine, FLUSH, |options| options.read_only = true);
        assert_ne!(bench.disk.features() & 1 << virtio_blk::VIRTIO_BLK_F_RO, 0);
        assert_eq!(bench.disk.features() & 1 << virtio_blk::VIRTIO_BLK_F_DISCARD, 0);
        assert_eq!(bench.request((OUT, 1), &[(DATA, 512, false)]), (IOERR, 1));
        assert_eq!(bench.request((ZERO, 0), &[(DATA, 16, false)]), (IOERR, 1));
        assert_eq!(bench.request((DISCARDS, 0), &[(DATA, 16, false)]), (UNSUPP, 1));
        assert_eq!(bench.on_disk(1), 1);
        assert_eq!(bench.request((IN, 1), &[(DATA, 512, true)]), (OK, 513));
        assert_eq!(bench.request((SYNC, 0), &[]), (OK, 1));
    }
}

#[test]
fn discards_and_zeroes() {
    let mut bench = bench(Engine::Auto);
    let mut segment = |kind, sector: u64, sectors: u32, flags: u32| {
        bench.driver.put(DATA, sector.to_le());
        bench.driver.put(DATA + 8, sectors.to_le());
        bench.driver.put(DATA + 12, flags.to_le());
        let (status, _) = bench.request((kind, 0), &[(DATA, 16, false)]);
        (status, [sector.wrapping_sub(1), sector, sector + 1].map(|at| bench.on_disk(at % SECTORS)))
    };
    assert_eq!(segment(ZERO, 5, 1, 0), (OK, [4, 0, 6]));
    assert_eq!(segment(ZERO, 9, 1, 1), (OK, [8, 0, 10]));
    assert_eq!(segment(ZERO, 20, 1, 2), (UNSUPP, [19, 20, 21]));
    assert_eq!(segment(ZERO, 20, ZEROES + 1, 0), (IOERR, [19, 20, 21]));
    assert_eq!(segment(ZERO, SECTORS - 2, 3, 0).0, IOERR);
    assert_eq!(segment(ZERO, u64::MAX - 1, 2, 0).0, IOERR);
    assert_eq!(segment(ZERO, 20, 0, 0), (OK, [19, 20, 21]));
    assert_eq!(segment(DISCARDS, 32, 8, 0).0, OK);
    assert_eq!(segment(DISCARDS, 20, 1, 1), (UNSUPP, [19, 20, 21]));
    assert_eq!(segment(DISCARDS, SECTORS, 1, 0).0, IOERR);
    assert_eq!(bench.request((ZERO, 0), &[(DATA, 15, false)]), (IOERR, 1));
    assert_eq!(bench.request((ZERO, 0), &[(DATA, 32, false)]), (IOERR, 1));
}

#[test]
fn many_requests_come_back_each_with_its_own() {
    for engine in engines() {
        let mut bench = bench(engine);
        for round in 0..50_u64 {
            for slot in 0..5 {
                let sector = (round * 37 + slot * 11) % SECTORS;
                bench.offer(slot as u16 * 3, (IN, sector), &[(DATA + slot * 512, 512, true)]);
            }
            for _ in 0..5 {
                let (head, written) = bench.wait();
                let slot = u64::from(head) / 3;
                assert_eq!((bench.driver.get::<u8>(STATUS + u64::from(head)), written), (OK, 513));
                let sector = (round * 37 + slot * 11) % SECTORS;
                assert_eq!(bench.driver.get::<u8>(DATA + slot * 512), sector as u8);
            }
        }
    }
}

#[test]
fn a_backend_waits_for_what_is_in_flight() {
    for engine in engines() {
        let mut bench = bench_with(engine, 0, |_| ());
        bench.driver.put(DATA, [0x77_u8; 32]);
        for slot in 0..5 {
            bench.offer(slot * 3, (OUT, slot.into()), &[(DATA, 512, false)]);
        }
        bench.backend.as_mut().unwrap().notified(0).unwrap();
        bench.backend = None;
        assert_eq!([0, 1, 2, 3, 4].map(|sector| bench.on_disk(sector)), [0x77; 5]);
        // A new driver finds the disk as it was.
        bench.driver = Driver::new(0, 16, true, ram());
        bench.activate(FLUSH);
        assert_eq!(bench.request((IN, 6), &[(DATA, 512, true)]), (OK, 513));
    }
}

#[test]
fn an_image_that_shrinks_is_an_error_and_no_more() {
    for engine in engines() {
        let mut bench = bench(engine);
        File::options().write(true).open(bench.path()).unwrap().set_len(SECTOR + 100).unwrap();
        assert_eq!(bench.request((IN, 0), &[(DATA, 2048, true)]), (IOERR, 0));
        assert_eq!(bench.request((IN, 10), &[(DATA, 512, true)]), (IOERR, 0));
        assert_eq!(bench.request((IN, 0), &[(DATA, 512, true)]), (OK, 513));
    }
}

#[test]
fn direct_transfers_need_no_aligned_buffers() {
    for engine in engines() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { direct: true, ..options(&image(directory.path())) };
        // Not every file system has it.
        let Ok(disk) = Disk::open(&options, "", 1, engine) else { return };
        let driver = Driver::new(0, 16, false, ram());
        let mut bench = Bench { directory, disk, driver, backend: None };
        bench.activate(FLUSH);
        let unit = bench.disk.shared.image.direct_unit().unwrap() as u32;
        for data in [DATA, DATA + 4, DATA + 1] {
            assert_eq!(bench.request((IN, 16), &[(data, unit, true)]), (OK, unit + 1));
            assert_eq!(bench.driver.get::<u8>(data), 16);
            bench.driver.put(data, [0x33_u8; 32]);
            assert_eq!(bench.request((OUT, 8), &[(data, unit, false)]), (OK, 1));
            assert_eq!(bench.on_disk(8), 0x33);
        }
        let split = [(DATA + 1, 100, true), (DATA + 0x800, unit - 100, true)];
        assert_eq!(bench.request((IN, 24), &split), (OK, unit + 1));
        assert_eq!(bench.driver.get::<u8>(DATA + 0x800), 24);
    }
}

#[test]
fn the_configuration_is_what_the_specification_says() {
    let bench = bench(Engine::Auto);
    let read = |offset, length| {
        let mut data = [0xff; 8];
        bench.disk.config(offset, &mut data[..length]);
        data[length..].fill(0);
        u64::from_le_bytes(data)
    };
    assert_eq!(read(0, 8), SECTORS);
    assert_eq!(read(4, 4), 0);
    assert_eq!(read(12, 4), u64::from(SEGMENTS));
    assert_eq!(read(20, 4), 512);
    assert_eq!(read(34, 2), 1);
    assert_eq!(read(52, 4), 1);
    for offset in [60, 61, 4096, u64::MAX] {
        assert_eq!(read(offset, 4), 0);
    }
    assert_eq!(read(58, 4), 0);
    assert_eq!(bench.disk.features() >> 24, 0);
}

fn refusal(options: &Options) -> String {
    match Image::open(options) {
        Ok(_) => panic!("{options:?} is taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn images_that_are_none_are_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no.img");
    assert!(refusal(&options(&path)).contains("no such file; `truncate -s 8G"));
    assert!(refusal(&options(directory.path())).contains("is a directory"));
    assert!(refusal(&options(Path::new("/dev/null"))).contains("a raw image file or a block device"));
    let file = File::create(&path).unwrap();
    assert!(refusal(&options(&path)).contains("has 0 bytes"));
    file.set_len(513).unwrap();
    assert!(refusal(&options(&path)).contains("has 513 bytes"));
    nix::unistd::mkfifo(&directory.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(refusal(&options(&directory.path().join("fifo"))).contains("no file that holds data"));
}

#[test]
fn a_writer_is_alone_and_readers_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path());
    let write = options(&path);
    let read = Options { read_only: true, ..write.clone() };
    let writer = Image::open(&write).unwrap();
    assert!(refusal(&write).contains("is in use by another disk of this VM or another process"));
    assert!(refusal(&read).contains("is in use"));
    drop(writer);
    let readers = [Image::open(&read).unwrap(), Image::open(&read).unwrap()];
    assert!(refusal(&write).contains("make both read-only"));
    drop(readers);
    Image::open(&write).unwrap();
}

const HELD: &str = "CEDE_TEST_HELD";

/// Another process, with the kind of lock that names its holder.
#[test]
fn holder() {
    let Some(path) = std::env::var_os(HELD) else { return };
    let file = File::options().read(true).write(true).open(path).unwrap();
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&lock)).unwrap();
    println!("held");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_process_that_is_in_the_way_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "virtio::block::tests::holder", "--nocapture"])
        .env(HELD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("held")));
    let refused = refusal(&options(&path));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(refused.contains(&format!("in use by process {} (", child.id())), "{refused}");
}

#[test]
fn sources_are_the_ring_where_there_is_one() {
    for engine in engines() {
        let bench = bench(engine);
        let sources = bench.backend.as_ref().unwrap().sources().len();
        assert_eq!(sources, usize::from(engine == Engine::Uring));
        assert!(bench.disk.shared.image.as_fd().try_clone_to_owned().is_ok());
    }
}

//! A disk that looks for requests, and for what is done, without being woken.

use super::*;

fn bench_of(engine: Engine, event_idx: bool) -> Bench {
    let mut bench = bench(engine);
    bench.driver = Driver::new(0, 16, event_idx, ram());
    bench.activate(FLUSH);
    bench
}

fn all() -> impl Iterator<Item = Bench> {
    engines().into_iter().flat_map(|engine| [bench_of(engine, false), bench_of(engine, true)])
}

impl Bench {
    fn backend(&mut self) -> &mut dyn Backend {
        self.backend.as_deref_mut().unwrap()
    }

    /// Looks until a chain comes back.
    fn look(&mut self) -> (u16, u32) {
        let begin = Instant::now();
        loop {
            if let Some(used) = self.driver.take() {
                return used;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "the request is never done");
            self.backend().look().unwrap();
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_look_finds_requests_and_what_is_done() {
    for mut bench in all() {
        assert!(!bench.backend().look().unwrap());
        for round in 0..20_u64 {
            for slot in 0..5 {
                bench.offer(slot as u16 * 3, (IN, round + slot), &[(DATA + slot * 512, 512, true)]);
            }
            assert!(bench.backend().look().unwrap());
            for _ in 0..5 {
                let (head, written) = bench.look();
                assert_eq!((bench.driver.get::<u8>(STATUS + u64::from(head)), written), (OK, 513));
            }
            assert!(!bench.backend().look().unwrap());
        }
    }
}

#[test]
fn the_driver_notifies_once_the_disk_is_armed() {
    for mut bench in all() {
        bench.backend().notified(0).unwrap();
        assert!(!bench.backend().arm().unwrap());
        for first in [0, 3] {
            let from = bench.driver.available();
            bench.offer(first, (IN, 1), &[(DATA, 512, true)]);
            // The first is notified of, what comes while the disk is at work is not.
            assert_eq!(bench.driver.device_wants(from), first == 0);
            if first == 0 {
                bench.backend().notified(0).unwrap();
            }
        }
        assert!(bench.backend().arm().unwrap(), "there is a request already");
        bench.look();
        bench.look();
        assert!(!bench.backend().arm().unwrap());
        let from = bench.driver.available();
        bench.offer(6, (IN, 1), &[(DATA, 512, true)]);
        assert!(bench.driver.device_wants(from));
    }
}

#[test]
fn a_batch_is_told_of_once() {
    for engine in engines().into_iter().filter(|engine| *engine == Engine::Uring) {
        let mut bench = bench_of(engine, false);
        for slot in 0..5 {
            bench.offer(slot * 3, (IN, 1), &[(DATA, 512, true)]);
        }
        bench.backend().notified(0).unwrap();
        let done = std::iter::from_fn(|| bench.driver.take()).count();
        // What is in the page cache is done when the kernel is told; elsewhere some is done later.
        let told = bench.driver.told.used.load(Ordering::SeqCst);
        assert_eq!(told, usize::from(done > 0));
    }
}

#[test]
fn a_turn_takes_what_is_in_all_queues() {
    for engine in engines() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(&options(&image(directory.path())), "", 2, engine).unwrap();
        let first = Driver::new(0, 16, true, ram());
        let second = Driver::new(1, 16, true, first.memory.clone());
        let mut drivers = [first, second];
        let activation = Activation {
            memory: drivers[0].memory.clone(),
            features: FLUSH,
            rings: drivers.iter().map(|driver| Some(driver.ring())).collect(),
            interrupts: Arc::clone(&drivers[0].told) as _,
        };
        let mut backend = disk.activate(activation).unwrap();
        for (at, driver) in (0..).zip(&mut drivers) {
            let (header, status, data) = (HEADER + 16 * at, STATUS + at, DATA + 512 * at);
            driver.put(header, IN.to_le());
            driver.put(header + 8, (5 + at).to_le());
            driver.chain(0, &[(header, 16, false), (data, 512, true), (status, 1, true)]);
        }
        backend.notified(0).unwrap();
        let begin = Instant::now();
        for (at, driver) in (0..).zip(&mut drivers) {
            while !driver.has_used() {
                assert!(begin.elapsed() < Duration::from_secs(20), "the request is never done");
                backend.look().unwrap();
            }
            assert_eq!(driver.take(), Some((0, 513)));
            assert_eq!(driver.get::<u8>(DATA + 512 * at), 5 + at as u8);
        }
        assert!(!backend.arm().unwrap());
    }
}

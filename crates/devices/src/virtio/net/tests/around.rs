//! The card with what is around it: a host bridge that translates, and a worker that runs it.

use super::*;
use crate::dma::{self, Translate};
use crate::virtio::{Threads, Work, Workers};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};
use vm_memory::{GuestMemoryMmap, Permissions};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bus addresses from here on lead to the buffers' pages, in the opposite order.
const BUS: u64 = 0x8000_0000;
const PAGES: u64 = 64;

/// Queues are where they are; the last page may only be read.
#[derive(Debug)]
struct Backwards;

impl Translate for Backwards {
    fn page_shift(&self) -> u32 {
        12
    }

    fn page(&self, address: u64) -> Option<(u64, Permissions)> {
        let page = address & !0xfff;
        match address {
            ..BUFFERS => Some((page, Permissions::ReadWrite)),
            BUS.. if page < BUS + PAGES * 4096 => {
                let last = page == BUS + (PAGES - 1) * 4096;
                let permissions = if last { Permissions::Read } else { Permissions::ReadWrite };
                Some((BUFFERS + (PAGES - 1) * 4096 - (page - BUS), permissions))
            }
            _ => None,
        }
    }
}

#[test]
fn packets_go_through_a_bridge_page_by_page() {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
    let mut memory = dma::memory(ram, Arc::new(Backwards));
    memory.set_iommu_enabled(true);
    let mut bench = Bench::in_memory(memory, (16, false), MERGED);
    // Half a page, and one and a half more.
    let from = BUS + 0x800;
    bench.add(0, &[writable(from, 0x1800)]);
    bench.notify(RX);
    let sent = packet(5000);
    bench.arrives(&sent);
    assert_eq!(bench.used(0), [(0, 5012)]);
    assert_eq!(bench.read(from, 5012), with_buffers(sent.clone(), 1));
    bench.write(from, &sent);
    bench.add(1, &[readable(from, 5012)]);
    bench.notify(TX);
    let mut got = [0; 6000];
    assert_eq!(bench.wire.recv(&mut got).unwrap(), 5012);
    assert_eq!(got[..5012], sent);
    // Where the bridge lets it read only, and where there is nothing.
    bench.add(1, &[readable(BUS + (PAGES - 1) * 4096, 2048)]);
    bench.notify(TX);
    assert_eq!(bench.counted(|c| &c.tx_packets), 2);
    for wrong in [BUS + (PAGES - 1) * 4096, BUS + PAGES * 4096, BUFFERS] {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let mut memory = dma::memory(ram, Arc::new(Backwards));
        memory.set_iommu_enabled(true);
        let mut bench = Bench::in_memory(memory, (16, false), MERGED);
        bench.add(0, &[writable(wrong, 2048)]);
        assert!(bench.queues.notified(RX).is_err(), "{wrong:#x}");
    }
}

/// Waits until there is something.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_worker_runs_it() {
    let Bench { mut drivers, queues, wire, .. } = Bench::with(16, MERGED, true);
    let bells = [RX, TX].map(|queue| (queue, Arc::new(EventFd::new(EFD_NONBLOCK).unwrap())));
    let work = Work {
        name: "net".into(),
        backend: queues,
        doorbells: bells.to_vec(),
        interrupts: drivers[0].told.clone(),
    };
    let running = Threads::pool(NonZeroUsize::MIN, 0).unwrap().start(work).unwrap();
    for round in 0..200_u64 {
        // Each time the only buffer, and sometimes after the packet.
        let sent = packet(60 + round as usize);
        let late = round % 2 == 0;
        if late {
            wire.send(&sent).unwrap();
        }
        let before = drivers[0].available();
        drivers[0].chain((round % 16) as u16, &[writable(BUFFERS, 2048)]);
        if drivers[0].device_wants(before) {
            bells[0].1.write(1).unwrap();
        }
        if !late {
            wire.send(&sent).unwrap();
        }
        let used = eventually("a packet arrives", || drivers[0].take());
        assert_eq!(used, ((round % 16) as u16, sent.len() as u32));
        // And back.
        let before = drivers[1].available();
        drivers[1].chain((round % 16) as u16, &[readable(BUFFERS, sent.len() as u32)]);
        if drivers[1].device_wants(before) {
            bells[1].1.write(1).unwrap();
        }
        let mut got = [0; 2048];
        let length = eventually("a packet is sent", || wire.recv(&mut got).ok());
        assert_eq!(got[..length], with_buffers(sent, 1));
        eventually("its buffer comes back", || drivers[1].take());
    }
    let (done, gone) = std::sync::mpsc::channel();
    running.stop(Box::new(move || done.send(()).unwrap()));
    gone.recv_timeout(Duration::from_secs(20)).unwrap();
}

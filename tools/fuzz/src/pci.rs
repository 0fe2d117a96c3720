//! A virtio device from the bus: configuration space, registers, status, queues, and what a driver does out of order.

use crate::script::Script;
use devices::dma::Memory;
use devices::pci::Function;
use devices::virtio::entropy::{Entropy, host};
use devices::virtio::testing::{RAM, ram};
use devices::virtio::transport::{Host, VirtioPci};
use devices::virtio::{Running, Work, Workers};
use irq::{Line, Message, Messages, Sink};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress};

/// Runs a backend when the story says so, on its only thread.
#[derive(Default)]
struct Inline(Arc<Mutex<Option<Work>>>);

struct Handle(Arc<Mutex<Option<Work>>>);

fn lock(work: &Mutex<Option<Work>>) -> std::sync::MutexGuard<'_, Option<Work>> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers for Inline {
    fn start(&self, work: Work) -> io::Result<Box<dyn Running>> {
        *lock(&self.0) = Some(work);
        Ok(Box::new(Handle(Arc::clone(&self.0))))
    }
}

impl Running for Handle {
    fn stop(self: Box<Self>, done: Box<dyn FnOnce() + Send>) {
        drop(lock(&self.0).take());
        done();
    }
}

impl Inline {
    fn turn(&self) {
        let mut slot = lock(&self.0);
        let Some(work) = slot.as_mut() else { return };
        let doorbells = work.doorbells.clone();
        let broken = doorbells.iter().any(|(queue, event)| {
            let _ = event.read();
            work.backend.notified(*queue).is_err()
        });
        if broken {
            let work = slot.take();
            drop(slot);
            if let Some(Work { backend, interrupts, .. }) = work {
                drop(backend);
                interrupts.needs_reset();
            }
        }
    }
}

struct Controller;

impl Sink for Controller {
    fn set(&self, _: u32, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Messages with odd data lead to its sources.
struct Router(Arc<Controller>);

impl Messages for Router {
    fn route(&self, message: Message) -> Option<Line> {
        (message.data & 1 != 0).then(|| Line::new(self.0.clone(), message.data % 4096))
    }
}

/// Offsets into the common configuration (`struct virtio_pci_common_cfg`).
const COMMON: &[(u64, usize)] = &[
    (0, 4),
    (8, 4),
    (12, 4),
    (16, 2),
    (20, 1),
    (22, 2),
    (24, 2),
    (26, 2),
    (28, 2),
    (32, 4),
    (36, 4),
    (40, 4),
    (44, 4),
    (48, 4),
    (52, 4),
];

/// Whatever is written where, the function answers, and its reset repairs it.
pub fn play(data: &[u8]) {
    let memory = ram();
    let workers = Arc::new(Inline::default());
    let device = Arc::new(Entropy::new(host));
    let host = Host { memory: memory.clone(), workers: Arc::clone(&workers) as _, translated: false };
    let function = VirtioPci::new(device, host).expect("eventfds");
    let controller = Arc::new(Controller);
    function.connect(Arc::new(Router(controller.clone())), Line::new(controller, 1));
    let mut script = Script::new(data);
    while let Some(act) = script.act(16) {
        step(act, &function, &memory, &workers, &mut script);
    }
    reset(&function);
    assert!(lock(&workers.0).is_none(), "a backend outlives its reset");
    let mut status = [0xff];
    function.read(0, 20, &mut status);
    assert_eq!(status, [0], "the status after a reset");
}

/// Backends end at once here.
fn reset(function: &VirtioPci) {
    assert_eq!(function.reset(Instant::now()), Ok(()));
}

fn step(act: u8, function: &VirtioPci, memory: &Memory, workers: &Inline, script: &mut Script) {
    let length = 1 << (script.byte() % 3);
    match act {
        0 => function.config((script.half() % 4096) & !(length - 1), &mut [0; 4][..length.into()]),
        1 => _ = function.set_config(offset(script) & !(length - 1), &script.take::<4>()[..length.into()]),
        2 => function.read(script.byte() % 7, script.near(0x4000), &mut [0; 8][..1 << (script.byte() % 4)]),
        3 => {
            let offset = script.near(0x4000);
            function.write(script.byte() % 7, offset, &script.take::<8>()[..1 << (script.byte() % 4)]);
        }
        4..=6 => {
            let (offset, length) = COMMON[usize::from(script.byte()) % COMMON.len()];
            function.write(0, offset, &script.near(RAM).to_le_bytes()[..length]);
        }
        7 | 8 => ready(function, script),
        9 => {
            function.set_message(script.half() % 8, Message { address: script.double(), data: script.word() })
        }
        10 => function.enable_messages(script.byte() & 1 == 0),
        11 if script.byte() & 15 == 0 => reset(function),
        12 => {
            let at = GuestAddress(script.near(0x4000) % (RAM - 16));
            memory.write_slice(&script.take::<16>(), at).expect("in memory");
        }
        _ => workers.turn(),
    }
}

/// Header, capabilities, or anywhere.
fn offset(script: &mut Script) -> u16 {
    if script.byte() & 3 == 0 { script.half() % 4096 } else { script.half() % 256 }
}

/// What a driver does that keeps to the rules, but for one value.
fn ready(function: &VirtioPci, script: &mut Script) {
    let wrong = usize::from(script.byte() % 32);
    let writes: [(u64, &[u8]); 14] = [
        (20, &[0]),
        (20, &[1]),
        (20, &[3]),
        (8, &[1, 0, 0, 0]),
        (12, &[1, 0, 0, 0]),
        (20, &[11]),
        (22, &[0, 0]),
        (24, &[8, 0]),
        (32, &[0, 0x10, 0, 0]),
        (40, &[0, 0x20, 0, 0]),
        (48, &[0, 0x30, 0, 0]),
        (26, &[0, 0]),
        (28, &[1, 0]),
        (20, &[15]),
    ];
    for (number, (offset, value)) in writes.iter().enumerate() {
        if number == wrong {
            function.write(0, *offset, &script.near(64).to_le_bytes()[..value.len()]);
        } else {
            function.write(0, *offset, value);
        }
    }
}

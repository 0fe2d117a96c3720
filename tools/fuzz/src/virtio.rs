//! The devices whose queues need no story of their own.

use crate::script::Script;
use devices::console;
use devices::virtio::balloon::{Balloon, Offer, Release};
use devices::virtio::console::Console;
use devices::virtio::entropy::Entropy;
use devices::virtio::hostile::drive;
use devices::virtio::net::{Net, Tap};
use devices::virtio::vsock::Vsock;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A card, and packets that come in before and while its driver does what it does.
pub fn net(data: &[u8]) {
    let mut script = Script::new(data);
    let (features, packets) = (u64::from(script.byte()) << 8, script.byte() % 8);
    let (ours, wire) = UnixDatagram::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a socket");
    for _ in 0..packets {
        let length = usize::from(script.half()) % 4096;
        wire.send(&vec![0x55; length]).expect("room for a packet");
    }
    let card = Net::new("fuzz", Tap::stand_in(ours), [2, 0, 0, 0, 0, 1]);
    _ = drive(&card, features, &data[data.len().min(2)..]);
}

/// Sockets to a host where nobody listens.
pub fn vsock(data: &[u8]) {
    let name = format!("cede-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
    let vsock = Vsock::new(3, &std::env::temp_dir().join(name)).expect("a socket");
    _ = drive(&vsock, 0, data);
}

/// A console that writes to nowhere.
pub fn console(data: &[u8]) {
    let console = console::Console::file("/dev/null".as_ref()).expect("/dev/null");
    _ = drive(&Console::new(console, "console".into()), 0, data);
}

/// A source that never ends.
pub fn entropy(data: &[u8]) {
    fn source(bytes: &mut [u8]) -> io::Result<usize> {
        bytes.fill(0x55);
        Ok(bytes.len())
    }
    _ = drive(&Entropy::new(source), 0, data);
}

/// Takes pages back in name only, and looks whether they are pages of the guest.
struct Host(u64);

impl Release for Host {
    fn page_size(&self) -> u64 {
        self.0
    }

    fn release(&self, memory: &GuestMemoryMmap, address: GuestAddress, length: u64) -> io::Result<()> {
        assert!(length > 0 && length % self.0 == 0 && address.raw_value() % self.0 == 0);
        assert!(memory.check_range(address, length as usize), "{address:?} + {length:#x} is not the guest's");
        Ok(())
    }
}

/// A balloon with every feature, on hosts with pages of 4 KiB to 64 KiB.
pub fn balloon(data: &[u8]) {
    let setup = data.first().copied().unwrap_or_default();
    let host = Arc::new(Host(1 << (12 + setup % 5)));
    let offer = Offer { deflate_on_oom: true, reporting: true };
    _ = drive(&Balloon::new(host, offer, 1 << 20), u64::from(setup), data);
}

//! Messages as routes: what a message means on x86 are 31 bits of its address and data, so they are the route, and nothing has to
//! be dealt out, looked up or freed.
//!
//! ```text
//!  31 | 30 | 29 ─ 15              | 14 ─ 13               | 12 ─ 11         | 10 ─ 8   | 7 ─ 0
//!   1 |  0 | address 19 ─ 5: who  | address 3 ─ 2: how so | data 15 ─ 14    | delivery | vector
//! ```
//!
//! A route without the top bit is a pin of the I/O APIC.
//! Source: Intel SDM volume 3, "Message Signalled Interrupts"; the bits 11 to 5 of the address are KVM's extension for more ids.

use crate::layout::MESSAGES;
use arch_api::x86_64::Partition;
use irq::{Line, Message, Messages, Sink};
use std::io;
use std::sync::Arc;

const IS_MESSAGE: u32 = 1 << 31;

/// The address bits that say where a message goes, the others are [`MESSAGES`] or mean nothing.
const WINDOW: u64 = 0xffff_ffff_fff0_0000;

/// The route of a message; `None` where it is none to a local APIC.
fn pack(message: Message) -> Option<u32> {
    let Message { address, data } = message;
    (address & WINDOW == MESSAGES).then(|| {
        let address = address as u32;
        let who = address >> 5 & 0x7fff;
        let how = address >> 2 & 3;
        IS_MESSAGE | who << 15 | how << 13 | (data >> 14 & 3) << 11 | data & 0x7ff
    })
}

/// The message of a route; `None` for a pin's.
fn unpack(route: u32) -> Option<Message> {
    (route & IS_MESSAGE != 0).then(|| {
        let address = (route >> 15 & 0x7fff) << 5 | (route >> 13 & 3) << 2;
        Message { address: MESSAGES | u64::from(address), data: (route >> 11 & 3) << 14 | route & 0x7ff }
    })
}

/// Where messages lead: wherever the guest says.
pub(super) struct Router(Arc<dyn Sink>);

impl Router {
    pub fn new(wires: Arc<dyn Sink>) -> Self {
        Self(wires)
    }
}

impl Messages for Router {
    fn route(&self, message: Message) -> Option<Line> {
        pack(message).map(|route| Line::new(Arc::clone(&self.0), route))
    }
}

/// The hypervisor's interrupt controllers, for devices.
pub struct Wires(pub Arc<dyn Partition>);

impl Sink for Wires {
    fn set(&self, gsi: u32, level: bool) -> io::Result<()> {
        let result = match unpack(gsi) {
            Some(message) if level => self.0.signal_msi(message.address, message.data),
            Some(_) => Ok(()),
            None => self.0.set_irq(gsi, level),
        };
        result.map_err(|error| error.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        for (address, data) in
            [(0xfee0_0000, 0x41), (0xfeef_f00c, 0xc7ff), (0xfee0_1fe0, 0x4123), (0xfee1_2004, 0x8030)]
        {
            let message = Message { address, data };
            assert_eq!(unpack(pack(message).unwrap()), Some(message), "{address:#x} {data:#x}");
        }
    }

    #[test]
    fn stores_elsewhere_are_no_messages_and_pins_are_pins() {
        for address in [0, 0xfec0_0000, 0xfef0_0000, 0x1_fee0_0000] {
            assert_eq!(pack(Message { address, data: 0x41 }), None, "{address:#x}");
        }
        assert_eq!((unpack(0), unpack(23)), (None, None));
    }
}

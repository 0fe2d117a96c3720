//! I/O ports: which device answers at which.
//!
//! Accesses are bytes but for PCI's registers; a wider one of another port reaches its bytes one after the other. What nobody answers
//! reads as ones.

use crate::layout::*;
use crate::pci::Bridge;
use crate::uart::Uart;
use arch_api::Stop;

/// Sleep control: go to sleep now.
const SLEEP_ENABLE: u8 = 1 << 5;
/// Sleep control: which sleep, and the one that is power-off (`\_S5`).
const SLEEP_TYPE_SHIFT: u8 = 2;
/// What `\_S5` says.
pub const S5: u8 = 5;
/// The keyboard controller's pulse on the processor's reset line.
const PULSE_RESET: u8 = 0xfe;

/// The devices behind the ports.
pub struct Ports<'a> {
    /// COM1.
    pub uart: &'a Uart,
    /// PCI.
    pub bridge: Option<&'a Bridge>,
}

fn is_com1(port: u16) -> bool {
    (COM1..COM1 + COM1_SIZE).contains(&port)
}

fn is_pci(port: u16) -> bool {
    (PCI_ADDRESS..PCI_DATA + 4).contains(&port)
}

impl Ports<'_> {
    /// Reads `data.len()` bytes.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        if let Some(bridge) = self.bridge.filter(|_| is_pci(port)) {
            return bridge.read_port(port, data);
        }
        for (port, byte) in (u32::from(port)..).zip(data) {
            *byte = match u16::try_from(port) {
                Ok(port) if is_com1(port) => self.uart.read((port - COM1) as u8),
                // Nothing waits in the keyboard controller, and it is not busy; nothing has woken from a sleep.
                Ok(KEYBOARD | SLEEP_CONTROL | SLEEP_STATUS | RESET) => 0,
                _ => 0xff,
            };
        }
    }

    /// Writes `data`. Says how the guest ends, if it does.
    #[must_use]
    pub fn write(&self, port: u16, data: &[u8]) -> Option<Stop> {
        if let Some(bridge) = self.bridge.filter(|_| is_pci(port)) {
            bridge.write_port(port, data);
            return None;
        }
        let stops = (u32::from(port)..).zip(data).map(|(port, &value)| match u16::try_from(port) {
            Ok(port) if is_com1(port) => {
                self.uart.write((port - COM1) as u8, value);
                None
            }
            Ok(KEYBOARD) if value == PULSE_RESET => Some(Stop::Reboot),
            Ok(RESET) if value == RESET_VALUE => Some(Stop::Reboot),
            Ok(SLEEP_CONTROL) if value == SLEEP_ENABLE | S5 << SLEEP_TYPE_SHIFT => Some(Stop::PowerOff),
            _ => None,
        });
        stops.fold(None, Option::or)
    }
}

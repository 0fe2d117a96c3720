//! Configuration space of PCI functions, and their messages (PAPR 7.3.4 and 7.3.10.5).

use super::{Rtas, status};
use crate::layout::PCI_BUID;
use crate::phb::Phb;
use devices::pci::Bus;

/// A register of a function.
#[derive(Clone, Copy)]
struct Register {
    devfn: u8,
    offset: u16,
}

/// Register, bus, function: `(offset & 0xf00) << 20 | bus << 16 | devfn << 8 | offset & 0xff`. There is one bus, number 0.
fn register(address: u32) -> Option<Register> {
    const RESERVED_AND_BUS: u32 = 0x0fff_0000;
    let offset = address >> 20 & 0xf00 | address & 0xff;
    (address & RESERVED_AND_BUS == 0)
        .then_some(Register { devfn: (address >> 8) as u8, offset: offset as u16 })
}

fn buid(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The bus that `buid` names, and a register of a function that is on it. 1, 2 or 4 bytes, aligned.
fn find<'a>(rtas: &Rtas<'a>, address: u32, buid: u64, size: u32) -> Option<(&'a Bus, Register)> {
    let bus = rtas.platform.phb.as_ref()?.bus(buid)?;
    let register = register(address)?;
    bus.function(register.devfn)?;
    let aligned = matches!(size, 1 | 2 | 4) && u32::from(register.offset) % size == 0;
    aligned.then_some((bus, register))
}

fn read(rtas: &mut Rtas<'_>, address: u32, buid: u64, size: u32) -> i32 {
    let Some((bus, register)) = find(rtas, address, buid, size) else { return status::PARAMETER_ERROR };
    let mut data = [0; 4];
    bus.config(register.devfn, register.offset, &mut data[..size as usize]);
    rtas.rets[0] = u32::from_le_bytes(data);
    status::SUCCESS
}

fn write(rtas: &Rtas<'_>, address: u32, buid: u64, size: u32, value: u32) -> i32 {
    let Some((bus, register)) = find(rtas, address, buid, size) else { return status::PARAMETER_ERROR };
    bus.set_config(register.devfn, register.offset, &value.to_le_bytes()[..size as usize]);
    status::SUCCESS
}

/// address, size → value. Of the one host bridge.
pub(super) fn read_pci_config(rtas: &mut Rtas<'_>) -> i32 {
    let &[address, size] = rtas.args else { return status::PARAMETER_ERROR };
    read(rtas, address, PCI_BUID, size)
}

/// address, size, value.
pub(super) fn write_pci_config(rtas: &mut Rtas<'_>) -> i32 {
    let &[address, size, value] = rtas.args else { return status::PARAMETER_ERROR };
    write(rtas, address, PCI_BUID, size, value)
}

/// address, unit ID of the host bridge (two words), size → value.
pub(super) fn ibm_read_pci_config(rtas: &mut Rtas<'_>) -> i32 {
    let &[address, high, low, size] = rtas.args else { return status::PARAMETER_ERROR };
    read(rtas, address, buid(high, low), size)
}

/// address, unit ID of the host bridge (two words), size, value.
pub(super) fn ibm_write_pci_config(rtas: &mut Rtas<'_>) -> i32 {
    let &[address, high, low, size, value] = rtas.args else { return status::PARAMETER_ERROR };
    write(rtas, address, buid(high, low), size, value)
}

/// The bridge and the function that a call about messages names: its register is 0.
fn function<'a>(rtas: &Rtas<'a>) -> Option<(&'a Phb, u8)> {
    let &[address, high, low, ..] = rtas.args else { return None };
    let (_, Register { devfn, offset: 0 }) = find(rtas, address, buid(high, low), 4)? else { return None };
    Some((rtas.platform.phb.as_ref()?, devfn))
}

/// What `ibm,change-msi` is asked for.
mod change {
    /// So many messages, of the kind that the function has.
    pub const ANY: u32 = 1;
    /// So many of MSI.
    pub const MSI: u32 = 3;
    /// So many of MSI-X.
    pub const MSIX: u32 = 4;
}

/// address, unit ID (two words), function, number, sequence → number, next sequence, with room for it the kind.
///
/// Functions have MSI-X. None at all is right whatever the kind is; a guest that asks for more than there are gets those.
pub(super) fn change_msi(rtas: &mut Rtas<'_>) -> i32 {
    let &[.., asked, number, sequence] = rtas.args else { return status::PARAMETER_ERROR };
    let known = match asked {
        change::ANY | change::MSIX => true,
        change::MSI => number == 0,
        _ => false,
    };
    let grant = || {
        let (phb, devfn) = function(rtas).filter(|_| known)?;
        let function = phb.bus(PCI_BUID)?.function(devfn)?;
        phb.messages().grant(devfn, function.as_ref(), number)
    };
    let Some(granted) = grant() else { return status::PARAMETER_ERROR };
    rtas.rets[0] = granted;
    rtas.rets[1] = sequence.wrapping_add(1);
    if let Some(kind) = rtas.rets.get_mut(2) {
        *kind = change::MSIX;
    }
    status::SUCCESS
}

/// address, unit ID (two words), index of a message → its interrupt source, 1 as it is edge triggered.
pub(super) fn query_interrupt_source_number(rtas: &mut Rtas<'_>) -> i32 {
    let index = rtas.args[3];
    let source = function(rtas).and_then(|(phb, devfn)| phb.messages().granted(devfn, index));
    let Some(source) = source else { return status::PARAMETER_ERROR };
    rtas.rets[0] = source;
    rtas.rets[1] = 1;
    status::SUCCESS
}

#[cfg(test)]
mod tests;

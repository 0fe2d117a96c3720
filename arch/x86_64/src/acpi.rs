//! ACPI tables: how the guest learns of its processors, its I/O APIC, PCI, the serial port, and of the ways to end.
//!
//! ```text
//!  RSDP ─▶ XSDT ─▶ FADT ─▶ DSDT: \_S5, COM1, PCI0, the power button and what tells of it
//!                └▶ MADT: processors, I/O APIC
//! ```
//!
//! It is ACPI's hardware-reduced form: no fixed hardware and no SCI, but a sleep register, a reset register, and events by a pin
//! (the generic event device). Source: ACPI 6.5, chapters 4.1, 5.2 and 5.6.9.

use crate::layout::*;
use crate::pci;
use crate::ports::S5;
use acpi_tables::Aml;
use acpi_tables::aml::*;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

const OEM: [u8; 6] = *b"CEDE  ";
const TABLE: [u8; 8] = *b"CEDEVM  ";
const REVISION: u32 = 1;

/// Bytes of a table's head.
const HEAD: usize = 36;

/// No VGA, and no CMOS clock (IAPC_BOOT_ARCH).
const BOOT_ARCH: u16 = 1 << 2 | 1 << 5;

/// What the power button's event says: it was pressed.
const PRESSED: u8 = 0x80;

/// What the tables say of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Processors.
    pub cpus: u32,
    /// PCI's slots that are taken; empty without PCI.
    pub slots: Vec<u8>,
}

/// All tables, to be put at `base`, where the RSDP is.
#[must_use]
pub fn tables(base: u64, contents: &Contents) -> Vec<u8> {
    let mut bytes = vec![0; Rsdp::len().next_multiple_of(16)];
    let mut put = |table: Vec<u8>| {
        let address = base + bytes.len() as u64;
        bytes.extend(table);
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        address
    };
    let dsdt = put(dsdt(contents));
    let fadt = put(bytes_of(&fadt(dsdt)));
    let madt = put(bytes_of(&madt(contents.cpus)));
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    [fadt, madt].into_iter().for_each(|table| xsdt.add_entry(table));
    let xsdt = put(bytes_of(&xsdt));
    let rsdp = bytes_of(&Rsdp::new(OEM, xsdt));
    bytes[..rsdp.len()].copy_from_slice(&rsdp);
    bytes
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn register(port: u16) -> GAS {
    GAS::new(Space::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port))
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Wbinvd)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    (fadt.reset_reg, fadt.reset_value) = (register(RESET), RESET_VALUE);
    (fadt.sleep_control_reg, fadt.sleep_status_reg) = (register(SLEEP_CONTROL), register(SLEEP_STATUS));
    fadt.finalize()
}

fn madt(cpus: u32) -> MADT {
    let mut madt = MADT::new(OEM, TABLE, REVISION, LocalInterruptController::Address(LOCAL_APIC));
    for id in 0..cpus.min(255) as u8 {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IO_APIC, 0));
    madt
}

fn dsdt(contents: &Contents) -> Vec<u8> {
    let mut body = Vec::new();
    let s5 = Package::new(vec![&S5, &S5, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &s5).to_aml_bytes(&mut body);
    com1(&mut body);
    events(&mut body);
    if !contents.slots.is_empty() {
        pci0(&contents.slots, &mut body);
    }
    let mut table = Sdt::new(*b"DSDT", HEAD as u32, 2, OEM, TABLE, REVISION);
    table.append_slice(&body);
    table.as_slice().to_vec()
}

/// An edge at a pin of the I/O APIC.
fn edge(pin: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, pin)
}

/// The serial port.
fn com1(body: &mut Vec<u8>) {
    let ports = IO::new(COM1, COM1, 1, COM1_SIZE as u8);
    let pin = edge(PIN_COM1);
    let resources = ResourceTemplate::new(vec![&ports, &pin]);
    Device::new(
        "_SB_.COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &resources),
        ],
    )
    .to_aml_bytes(body);
}

/// The power button, and the device whose interrupt says that it was pressed.
fn events(body: &mut Vec<u8>) {
    Device::new(
        "_SB_.PWRB".into(),
        vec![&Name::new("_HID".into(), &EISAName::new("PNP0C0C")), &Name::new("_UID".into(), &ZERO)],
    )
    .to_aml_bytes(body);
    let pin = edge(PIN_EVENTS);
    let resources = ResourceTemplate::new(vec![&pin]);
    let button = Path::new("\\_SB_.PWRB");
    let notify = Notify::new(&button, &PRESSED);
    Device::new(
        "_SB_.GED_".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &resources),
            &Method::new("_EVT".into(), 1, true, vec![&notify]),
        ],
    )
    .to_aml_bytes(body);
}

/// PCI's root: one bus, all ports but those of configuration space, the window, and which pin a slot has.
fn pci0(slots: &[u8], body: &mut Vec<u8>) {
    let bus = AddressSpace::new_bus_number(0_u16, 0);
    let config = IO::new(PCI_ADDRESS, PCI_ADDRESS, 1, 8);
    let below = AddressSpace::new_io(0_u16, PCI_ADDRESS - 1, None);
    let above = AddressSpace::new_io(PCI_DATA + 4, 0xffff, None);
    let (first, last) = (PCI_WINDOW.start as u32, (PCI_WINDOW.end - 1) as u32);
    let window = AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None);
    let resources = ResourceTemplate::new(vec![&bus, &config, &below, &above, &window]);
    let mut routes = PackageBuilder::new();
    for &slot in slots {
        // Any function of the slot, and pin A of its four.
        let function = u32::from(slot) << 16 | 0xffff;
        routes.add_element(&Package::new(vec![&function, &0_u8, &0_u8, &pci::pin(slot)]));
    }
    Device::new(
        "_SB_.PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new("_CRS".into(), &resources),
            &Name::new("_PRT".into(), &routes),
        ],
    )
    .to_aml_bytes(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn table(bytes: &[u8], base: u64, address: u64) -> &[u8] {
        let at = (address - base) as usize;
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        &bytes[at..at + length]
    }

    fn sums_to_zero(bytes: &[u8]) -> bool {
        bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    }

    #[test]
    fn every_table_is_reached_and_whole() {
        let base = ACPI.start;
        let bytes = tables(base, &Contents { cpus: 4, slots: vec![1, 2] });
        assert!(bytes.starts_with(b"RSD PTR ") && sums_to_zero(&bytes[..20]) && sums_to_zero(&bytes[..36]));
        let xsdt = table(&bytes, base, word(&bytes, 24));
        assert!(xsdt.starts_with(b"XSDT") && sums_to_zero(xsdt));
        let fadt = table(&bytes, base, word(xsdt, 36));
        assert!(fadt.starts_with(b"FACP") && sums_to_zero(fadt));
        let dsdt = table(&bytes, base, word(fadt, 140));
        assert!(dsdt.starts_with(b"DSDT") && sums_to_zero(dsdt));
        let madt = table(&bytes, base, word(xsdt, 44));
        assert!(madt.starts_with(b"APIC") && sums_to_zero(madt));
        assert_eq!(madt.len(), 44 + 4 * 8 + 12);
    }

    #[test]
    fn the_most_there_can_be_fits() {
        let bytes = tables(ACPI.start, &Contents { cpus: 254, slots: (1..32).collect() });
        assert!(ACPI.start + (bytes.len() as u64) < ACPI.end);
    }

    #[test]
    fn a_machine_without_functions_has_no_pci() {
        let has = |slots, what: &[u8]| {
            tables(ACPI.start, &Contents { cpus: 1, slots }).windows(4).any(|four| four == what)
        };
        assert!(has(vec![1], b"PCI0") && !has(vec![], b"PCI0"));
        assert!(has(vec![], b"COM1") && has(vec![], b"GED_"));
    }
}

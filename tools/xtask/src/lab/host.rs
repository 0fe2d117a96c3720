//! The machines that play the POWER host.

use clap::ValueEnum;

/// A host that QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Host {
    /// POWER8: hash guests, XICS, one thread per vcore (QEMU does not model the wake-up of secondary threads)
    #[value(name = "powernv8")]
    Powernv8,
    /// POWER9: radix and hash guests, XIVE
    #[value(name = "powernv9")]
    Powernv9,
    /// POWER10: radix and hash guests, XIVE
    #[value(name = "powernv10")]
    Powernv10,
    /// A POWER9 pseries guest whose own KVM is nested: no XIVE of KVM's
    #[value(name = "pseries-nested")]
    PseriesNested,
}

impl Host {
    /// All of them.
    pub const ALL: [Host; 4] = [Host::Powernv8, Host::Powernv9, Host::Powernv10, Host::PseriesNested];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Host::Powernv8 => "powernv8",
            Host::Powernv9 => "powernv9",
            Host::Powernv10 => "powernv10",
            Host::PseriesNested => "pseries-nested",
        }
    }

    /// QEMU's options for the machine and its processors.
    ///
    /// Never `-nodefaults`: the host bridges and the BMC are defaults, and the BMC is what makes a power-off
    /// end QEMU.
    pub(super) fn qemu_options(self) -> &'static [&'static str] {
        match self {
            Host::Powernv8 => &["-M", "powernv8"],
            Host::Powernv9 => &["-M", "powernv9"],
            Host::Powernv10 => &["-M", "powernv10"],
            Host::PseriesNested => &[
                "-M",
                "pseries,cap-nested-hv=on,cap-ccf-assist=off,x-vof=on",
                "-cpu",
                "power9",
                "-vga",
                "none",
            ],
        }
    }

    /// The buses of the virtio devices: for the channels, for /disk, and for the disks of guests with the number of their device
    /// there. A root port of powernv takes one device.
    pub(super) fn pci_buses(self) -> (&'static str, &'static str, (&'static str, u8)) {
        match self {
            Host::PseriesNested => ("pci.0", "pci.0", ("pci.0", 8)),
            Host::Powernv8 | Host::Powernv9 | Host::Powernv10 => ("pcie.0", "pcie.1", ("pcie.2", 0)),
        }
    }
}

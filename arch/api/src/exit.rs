//! Why a vCPU left the guest, and what it goes back with.

/// Why a vCPU left the guest. A value: nothing in it borrows from the hypervisor, and everything in it was
/// chosen by the guest and is unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// A PAPR hypercall that the hypervisor does not handle itself.
    Hcall {
        /// r3, the hcall's number.
        nr: u64,
        /// r4 to r12.
        args: [u64; 9],
    },
    /// A load from an address that no memory slot backs.
    MmioRead {
        /// Guest physical address.
        addr: u64,
        /// Width in bytes: 1, 2, 4 or 8.
        len: usize,
    },
    /// A store to an address that no memory slot backs.
    MmioWrite {
        /// Guest physical address.
        addr: u64,
        /// The stored bytes in memory order; the first `len` count.
        data: [u8; 8],
        /// Width in bytes: 1, 2, 4 or 8.
        len: usize,
    },
    /// A read of an I/O port that the hypervisor does not answer itself. A string instruction is one exit for each of its elements.
    PioRead {
        /// The port.
        port: u16,
        /// Width in bytes: 1, 2 or 4.
        len: usize,
    },
    /// A write to an I/O port, likewise.
    PioWrite {
        /// The port.
        port: u16,
        /// The written bytes, little-endian; the first `len` count.
        data: [u8; 4],
        /// Width in bytes: 1, 2 or 4.
        len: usize,
    },
    /// The processor has shut down: a fault on the way to its handler for faults (x86's triple fault).
    Shutdown,
    /// The vCPU has executed its wait (H_CEDE) and the hypervisor would have put its thread to sleep. The registers
    /// are as after the wait: nothing is left to answer.
    Ceded,
    /// The hypervisor had put the vCPU's thread to sleep for a cede, and has taken it out of the sleep. The guest has seen
    /// nothing of either yet.
    Woken,
    /// A signal brought the vCPU out, and has been taken. The guest sees nothing of it.
    Interrupted,
    /// The hypervisor could not enter the guest.
    EntryFailed {
        /// The hardware's reason, architecture specific.
        reason: u64,
    },
    /// The hypervisor gave up on what the guest did.
    InternalError {
        /// KVM_INTERNAL_ERROR_*.
        suberror: u32,
    },
    /// A machine check that the guest has to be told of.
    MachineCheck,
    /// An exit reason that nobody here knows, as the hypervisor numbers it.
    Unknown(u32),
}

/// What a vCPU takes back into the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: the exit asked for no answer.
    None,
    /// The answer to an [`Exit::Hcall`].
    Hcall {
        /// r3, a PAPR return code.
        ret: i64,
        /// r4 to r12. The hypervisor writes all nine back, so outputs are laid over the arguments that came.
        args: [u64; 9],
    },
    /// The answer to an [`Exit::MmioRead`]: bytes in memory order.
    Mmio([u8; 8]),
    /// The answer to an [`Exit::PioRead`]: bytes, little-endian.
    Pio([u8; 4]),
}

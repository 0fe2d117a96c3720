//! What lies where in RAM when the guest starts, and putting it there.
//!
//! ```text
//! 0 or 4 MiB   kernel, with its zeroed part
//!              initrd                              (64 KiB aligned)
//!              RTAS blob                           (64 KiB, reserved in the tree)
//!              device tree                         (reserved by the kernel itself)
//! ```
//!
//! Everything but the kernel comes after it: a kernel that is not at 0 copies itself down to 0, and the zeroing of
//! its bss must hit nothing. All of it lies low, because hash guests read it in real mode within their RMA.

use crate::image::{Image, ImageError, open_regular, read_into};
use crate::tree;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Alignment of everything that is placed, the largest base page of a guest.
const PAGE: u64 = 64 << 10;

/// The room for the RTAS blob.
pub const RTAS_SIZE: u64 = PAGE;

/// What the guest calls to reach RTAS: it hands its argument block to the hypervisor by H_RTAS. Big-endian
/// code, since the guest enters RTAS so whatever its own byte order.
const RTAS_BLOB: [u32; 5] = [
    0x7c64_1b78, // mr   r4,r3
    0x3c60_0000, // lis  r3,0
    0x6063_f000, // ori  r3,r3,H_RTAS
    0x4400_0022, // sc   1
    0x4e80_0020, // blr
];

/// Why the boot images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] ImageError),
    /// The initrd cannot be read.
    #[error("cannot read initrd {path}")]
    Initrd {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The initrd does not fit behind the kernel.
    #[error("initrd {path} needs memory up to {end:#x}, the guest has {memory:#x}; give it more memory")]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// First address after it.
        end: u64,
        /// The guest's memory in bytes.
        memory: u64,
    },
    /// What cede itself puts behind kernel and initrd does not fit.
    #[error("{what} needs memory up to {end:#x}, the guest has {memory:#x}; give it more memory")]
    TooLarge {
        /// What did not fit.
        what: &'static str,
        /// First address after it.
        end: u64,
        /// The guest's memory in bytes.
        memory: u64,
    },
    /// The RTAS blob would lie where its callers cannot reach it.
    #[error(
        "the RTAS blob needs memory up to {end:#x}, which is beyond what a 32-bit call can reach; \
         give a smaller kernel or initrd"
    )]
    TooHigh {
        /// First address after it.
        end: u64,
    },
    /// There is no tree for this machine.
    #[error("no device tree can describe this machine")]
    Tree(#[from] tree::Error),
    /// Guest memory cannot be written.
    #[error("cannot write {what} to guest memory")]
    Write {
        /// What was being written.
        what: &'static str,
        /// Why.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}

/// Where everything goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Physical address of the first instruction.
    pub entry: u64,
    /// Start and end (exclusive) of the initrd.
    pub initrd: Option<(u64, u64)>,
    /// Where the RTAS blob is.
    pub rtas: u64,
    /// Where the device tree is.
    pub fdt: u64,
}

/// The files that a guest boots from, opened and checked.
#[derive(Debug)]
pub struct BootImages {
    kernel: Image,
    initrd: Option<(PathBuf, File)>,
    placement: Placement,
}

impl Placement {
    /// Where things could be, for a tree that nobody boots from.
    pub const NOMINAL: Self = Self { entry: 0, initrd: None, rtas: 64 << 20, fdt: (64 << 20) + RTAS_SIZE };
}

impl BootImages {
    /// Opens the files and places them in `memory` bytes of RAM.
    ///
    /// # Errors
    /// When a file cannot be read, is not what it should be, or does not fit.
    pub fn open(kernel: &Path, initrd: Option<&Path>, memory: u64) -> Result<Self, BootError> {
        let kernel = Image::open(kernel)?;
        kernel.check_fits(memory)?;
        let initrd = initrd.map(open_initrd).transpose()?;
        let placement =
            place(&kernel, initrd.as_ref().map(|(path, _, size)| (path.as_path(), *size)), memory)?;
        Ok(Self { kernel, initrd: initrd.map(|(path, file, _)| (path, file)), placement })
    }

    /// Where everything goes.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Writes kernel, initrd, RTAS blob and device tree into RAM, which must be zeroed.
    ///
    /// # Errors
    /// When a file can no longer be read or the tree does not fit.
    pub fn load(&self, memory: &GuestMemoryMmap, ram: u64, dtb: &[u8]) -> Result<(), BootError> {
        let Placement { initrd, rtas, fdt, .. } = self.placement;
        self.kernel.load(memory)?;
        if let (Some((path, file)), Some((start, end))) = (&self.initrd, initrd) {
            read_into(memory, start, file, 0, end - start)
                .map_err(|source| BootError::Initrd { path: path.clone(), source })?;
        }
        let blob = RTAS_BLOB.map(u32::to_be_bytes);
        memory
            .write_slice(blob.as_flattened(), GuestAddress(rtas))
            .map_err(|source| BootError::Write { what: "the RTAS blob", source })?;
        let end = fdt.saturating_add(dtb.len() as u64);
        if end > ram {
            return Err(BootError::TooLarge { what: "the device tree", end, memory: ram });
        }
        memory
            .write_slice(dtb, GuestAddress(fdt))
            .map_err(|source| BootError::Write { what: "the device tree", source })
    }
}

fn open_initrd(path: &Path) -> Result<(PathBuf, File, u64), BootError> {
    let fail = |source| BootError::Initrd { path: path.to_owned(), source };
    let (file, size) = open_regular(path).map_err(fail)?;
    if size == 0 {
        return Err(fail(io::Error::other("the file is empty")));
    }
    Ok((path.to_owned(), file, size))
}

fn place(kernel: &Image, initrd: Option<(&Path, u64)>, memory: u64) -> Result<Placement, BootError> {
    let up = |address: u64| address.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    let mut next = up(kernel.end());
    let initrd = match initrd {
        None => None,
        Some((path, size)) => {
            let (start, end) = (next, next.saturating_add(size));
            if end > memory {
                return Err(BootError::InitrdTooLarge { path: path.to_owned(), end, memory });
            }
            next = up(end);
            Some((start, end))
        }
    };
    let rtas = next;
    let fdt = rtas.saturating_add(RTAS_SIZE);
    if fdt >= memory {
        return Err(BootError::TooLarge { what: "the RTAS blob", end: fdt, memory });
    }
    if fdt >= 1 << 32 {
        return Err(BootError::TooHigh { end: fdt });
    }
    Ok(Placement { entry: kernel.entry(), initrd, rtas, fdt })
}

#[cfg(test)]
mod tests;

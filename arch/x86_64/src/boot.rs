//! What the guest finds in RAM when it starts, and where: [`layout`](crate::layout) draws it.
//!
//! The initrd lies as high as it may, below 3 GiB: the kernel unpacks itself from below, and needs more room than its file has.

use crate::acpi;
use crate::image::{Image, ImageError, Protocol, open_regular, read_into};
use crate::layout::*;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// Alignment of the initrd.
const PAGE: u64 = 4096;

/// Descriptors of the segments: none, none, code, data, and a task's. Linux's boot protocol wants the selectors 0x10 and 0x18.
const DESCRIPTORS: [u64; 5] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067];

/// The descriptors' table's limit.
pub const GDT_LIMIT: u16 = (DESCRIPTORS.len() * 8 - 1) as u16;

/// A map's kinds of memory, which are the same for Linux (E820) and PVH.
const RAM: u32 = 1;
const RESERVED: u32 = 2;
const ACPI_TABLES: u32 = 3;

/// A boot loader without a number of its own.
const LOADER: u8 = 0xff;

/// Offsets in the zero page (Linux, Documentation/arch/x86/zero-page.rst).
mod zero_page {
    pub const ACPI_RSDP: u64 = 0x70;
    pub const E820_ENTRIES: u64 = 0x1e8;
    pub const HEADER: u64 = 0x1f1;
    pub const LOADER: u64 = 0x210;
    pub const INITRD: u64 = 0x218;
    pub const CMDLINE: u64 = 0x228;
    pub const E820: u64 = 0x2d0;
}

/// Why the boot images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] ImageError),
    /// The initrd cannot be read.
    #[error("cannot read initrd {}", path.display())]
    Initrd {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not fit.
    #[error("{what} needs memory up to {end:#x}, the guest has {memory:#x} there; give it more memory")]
    TooLarge {
        /// What.
        what: &'static str,
        /// First address after it.
        end: u64,
        /// Where its memory ends.
        memory: u64,
    },
    /// Too long.
    #[error("the command line has {0} bytes; {MAX_CMDLINE} are allowed")]
    Cmdline(usize),
    /// Guest memory cannot be written.
    #[error("cannot write {what} to guest memory")]
    Write {
        /// What was being written.
        what: &'static str,
        /// Why.
        #[source]
        source: GuestMemoryError,
    },
}

/// The files that a guest boots from, opened, checked and placed.
#[derive(Debug)]
pub struct BootImages {
    kernel: Image,
    initrd: Option<(PathBuf, File, Range<u64>)>,
}

/// Where the boot CPU begins, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The first instruction.
    pub rip: u64,
    /// PVH's start info, in RBX.
    pub rbx: u64,
    /// Linux's zero page, in RSI.
    pub rsi: u64,
}

impl BootImages {
    /// Opens the files and places them in `memory` bytes of RAM.
    ///
    /// # Errors
    /// When a file cannot be read, is not what it should be, or does not fit.
    pub fn open(kernel: &Path, initrd: Option<&Path>, memory: u64) -> Result<Self, BootError> {
        let kernel = Image::open(kernel)?;
        let low = memory.min(PCI_WINDOW.start);
        let too_large = |what, end| BootError::TooLarge { what, end, memory: low };
        if kernel.end > low {
            return Err(too_large("the kernel", kernel.end));
        }
        let Some(path) = initrd else { return Ok(Self { kernel, initrd: None }) };
        let fail = |source| BootError::Initrd { path: path.to_owned(), source };
        let (file, size) = open_regular(path).map_err(fail)?;
        if size == 0 {
            return Err(fail(io::Error::other("the file is empty")));
        }
        let top = low.min(kernel.initrd_max.saturating_add(1));
        let start =
            top.checked_sub(size).map(|start| start / PAGE * PAGE).filter(|start| *start >= kernel.end);
        let start = start
            .ok_or_else(|| too_large("the initrd behind the kernel", kernel.end.saturating_add(size)))?;
        Ok(Self { kernel, initrd: Some((path.to_owned(), file, start..start + size)) })
    }

    /// Writes everything into RAM, which must be zeroed, and says where the boot CPU begins.
    ///
    /// # Errors
    /// When a file can no longer be read.
    pub fn load(
        &self,
        memory: &GuestMemoryMmap,
        bytes: u64,
        cmdline: &str,
        contents: &acpi::Contents,
    ) -> Result<Start, BootError> {
        let put = |what, bytes: &[u8], at| {
            memory.write_slice(bytes, GuestAddress(at)).map_err(|source| BootError::Write { what, source })
        };
        if cmdline.len() > MAX_CMDLINE {
            return Err(BootError::Cmdline(cmdline.len()));
        }
        self.kernel.load(memory)?;
        if let Some((path, file, place)) = &self.initrd {
            read_into(memory, place.start, file, 0, place.end - place.start)
                .map_err(|source| BootError::Initrd { path: path.clone(), source })?;
        }
        put("the descriptors", DESCRIPTORS.map(u64::to_le_bytes).as_flattened(), GDT)?;
        put("the command line", cmdline.as_bytes(), CMDLINE)?;
        put("the ACPI tables", &acpi::tables(ACPI.start, contents), ACPI.start)?;
        match &self.kernel.protocol {
            Protocol::Linux(header) => {
                for (at, bytes) in self.zero_page(header, bytes) {
                    put("the zero page", &bytes, ZERO_PAGE + at)?;
                }
            }
            Protocol::Pvh => put("PVH's start info", &self.start_info(bytes), START_INFO)?,
        }
        Ok(Start { rip: self.kernel.entry, rbx: START_INFO, rsi: ZERO_PAGE })
    }

    fn initrd(&self) -> Range<u64> {
        self.initrd.as_ref().map_or(0..0, |(_, _, place)| place.clone())
    }

    /// What the zero page has where; the rest of it is zero. The header comes first, since parts of it are then set.
    fn zero_page(&self, header: &[u8], bytes: u64) -> Vec<(u64, Vec<u8>)> {
        let map = memory_map(bytes);
        // Both are below 4 GiB: `open` has placed the one, `layout` the other.
        let word = |value: u64| (value as u32).to_le_bytes();
        let initrd = self.initrd();
        let mut page = vec![
            (zero_page::HEADER, header.to_vec()),
            (zero_page::ACPI_RSDP, ACPI.start.to_le_bytes().to_vec()),
            (zero_page::E820_ENTRIES, vec![map.len() as u8]),
            (zero_page::LOADER, vec![LOADER]),
            (zero_page::INITRD, [word(initrd.start), word(initrd.end - initrd.start)].concat()),
            (zero_page::CMDLINE, word(CMDLINE).to_vec()),
        ];
        let entry = |(range, kind): &(Range<u64>, u32)| {
            let (start, size) = (range.start.to_le_bytes(), (range.end - range.start).to_le_bytes());
            [&start[..], &size, &kind.to_le_bytes()].concat()
        };
        page.push((zero_page::E820, map.iter().flat_map(entry).collect()));
        page
    }

    /// `struct hvm_start_info`, with one module behind it, and the map (Xen, xen/include/public/arch-x86/hvm/start_info.h).
    fn start_info(&self, bytes: u64) -> Vec<u8> {
        const MAGIC: u32 = 0x336e_c578;
        const VERSION: u32 = 1;
        const SIZE: u64 = 56;
        const MODULE_SIZE: u64 = 32;
        let (modules, map_at) = (START_INFO + SIZE, START_INFO + SIZE + MODULE_SIZE);
        let map = memory_map(bytes);
        let initrd = self.initrd();
        let count = u32::from(self.initrd.is_some());
        let mut info = Vec::new();
        let mut words = |words: &[u32]| words.iter().for_each(|word| info.extend(word.to_le_bytes()));
        words(&[MAGIC, VERSION, 0, count]);
        let mut longs = |longs: &[u64]| longs.iter().for_each(|long| info.extend(long.to_le_bytes()));
        longs(&[modules, CMDLINE, ACPI.start, map_at]);
        longs(&[map.len() as u64]);
        // The module: where, how long, and no command line of its own.
        longs(&[initrd.start, initrd.end - initrd.start, 0, 0]);
        for (range, kind) in map {
            longs(&[range.start, range.end - range.start, u64::from(kind)]);
        }
        info
    }
}

/// What is where, for the guest's kernel.
fn memory_map(bytes: u64) -> Vec<(Range<u64>, u32)> {
    let mut map = vec![(0..LOW_END, RAM), (LOW_END..ACPI.start, RESERVED), (ACPI, ACPI_TABLES)];
    for ram in ram(bytes) {
        map.push((ram.start.max(ACPI.end)..ram.end, RAM));
    }
    map
}

#[cfg(test)]
mod tests;

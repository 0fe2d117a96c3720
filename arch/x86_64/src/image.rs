//! The kernel image: a bzImage, entered by Linux's boot protocol, or a vmlinux that says by a note where it is entered as PVH.
//!
//! Both are entered in 32-bit protected mode without paging. The file is not a guest's but may still be anything: everything in it is
//! checked before memory is touched. Source: Linux, Documentation/arch/x86/boot.rst; Xen, docs/misc/pvh.pandoc.

use crate::layout::KERNEL;
use elf::ElfStream;
use elf::abi::{EM_X86_64, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::note::Note;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, ReadVolatile, VolatileMemoryError};

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be opened or read.
    #[error("cannot read kernel {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what cede boots.
    #[error(
        "kernel {} {what}; give an x86_64 Linux image, such as Debian's /boot/vmlinuz-*, or an ELF file with a PVH entry",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The setup header's place in a bzImage, and in the zero page.
pub const HEADER: Range<usize> = 0x1f1..0x290;

/// Fields of the setup header, by their offsets in file and zero page.
const SETUP_SECTORS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const JUMP: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const LOAD_FLAGS: usize = 0x211;
const INITRD_MAX: usize = 0x22c;
const PREFERRED: usize = 0x258;
const INIT_SIZE: usize = 0x260;

/// The protected-mode part goes to 1 MiB.
const LOADED_HIGH: u8 = 1;
/// The first version with everything that is read here (Linux 2.6.31).
const LEAST_VERSION: u16 = 0x20a;

/// Bytes of a sector, and of what is read to tell what a file is.
const SECTOR: usize = 512;
const FRONT: usize = 0x290;

/// The note that says where the PVH entry is: its owner and type.
const NOTE_OWNER: &[u8] = b"Xen\0";
const NOTE_PHYS32_ENTRY: u64 = 18;

/// What of the file goes where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    offset: u64,
    length: u64,
    address: u64,
}

/// How the kernel takes what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// Linux's: the setup header, which the zero page repeats.
    Linux(Vec<u8>),
    /// PVH's start info.
    Pvh,
}

/// A kernel that was looked at and found bootable. The file stays open: it is read again at each reboot.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    parts: Vec<Part>,
    /// What it is told, and how.
    pub protocol: Protocol,
    /// Guest physical address of the first instruction.
    pub entry: u64,
    /// The first address after all that it needs before it knows of memory.
    pub end: u64,
    /// The last address that an initrd may have.
    pub initrd_max: u64,
}

impl Image {
    /// Opens `path` and checks its headers.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let (file, size) = open_regular(path).map_err(read)?;
        let mut front = vec![0; FRONT.min(usize::try_from(size).unwrap_or(FRONT))];
        file.read_exact_at(&mut front, 0).map_err(read)?;
        let format = |what: String| ImageError::Format { path: path.to_owned(), what };
        if front.starts_with(b"\x7fELF") {
            Self::vmlinux(path, file, size).map_err(format)
        } else {
            Self::bz_image(path, file, size, &front).map_err(|what| format(what.into()))
        }
    }

    fn bz_image(path: &Path, file: File, size: u64, front: &[u8]) -> Result<Self, &'static str> {
        if front.len() < FRONT || u16_at(front, BOOT_FLAG) != 0xaa55 || front[MAGIC..MAGIC + 4] != *b"HdrS" {
            return Err("is no Linux image");
        }
        if u16_at(front, VERSION) < LEAST_VERSION || front[LOAD_FLAGS] & LOADED_HIGH == 0 {
            return Err("is of a Linux before 2.6.31");
        }
        let sectors = match front[SETUP_SECTORS] {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let offset = (sectors + 1) * SECTOR as u64;
        let length = size.checked_sub(offset).filter(|length| *length > 0).ok_or("is cut short")?;
        // The jump over the header says how long that is.
        let header_end = (MAGIC + usize::from(front[JUMP])).min(HEADER.end);
        let header = front[HEADER.start..header_end.max(HEADER.start)].to_vec();
        // It unpacks itself to where it prefers to be, or behind itself.
        let runs = u64_at(front, PREFERRED).max(KERNEL);
        let end = runs.checked_add(u64::from(u32_at(front, INIT_SIZE))).ok_or("has an impossible size")?;
        Ok(Self {
            path: path.to_owned(),
            file,
            parts: vec![Part { offset, length, address: KERNEL }],
            protocol: Protocol::Linux(header),
            entry: KERNEL,
            end: end.max(KERNEL + length),
            initrd_max: u64::from(u32_at(front, INITRD_MAX)),
        })
    }

    fn vmlinux(path: &Path, file: File, size: u64) -> Result<Self, String> {
        let broken = |error: elf::ParseError| format!("has a broken ELF header ({error})");
        let mut elf = ElfStream::<LittleEndian, _>::open_stream(&file).map_err(broken)?;
        if elf.ehdr.e_machine != EM_X86_64 {
            return Err("is for another machine".into());
        }
        let headers: Vec<_> = elf.segments().clone();
        let mut parts = Vec::new();
        let mut end = 0;
        for header in headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0) {
            let file_end = header.p_offset.checked_add(header.p_filesz);
            if file_end.is_none_or(|end| end > size) {
                return Err("is cut short".into());
            }
            let length = header.p_memsz.max(header.p_filesz);
            let part_end =
                header.p_paddr.checked_add(length).ok_or("has a segment at an impossible address")?;
            parts.push(Part { offset: header.p_offset, length: header.p_filesz, address: header.p_paddr });
            end = end.max(part_end);
        }
        let mut entry = None;
        for header in headers.iter().filter(|header| header.p_type == PT_NOTE) {
            for note in elf.segment_data_as_notes(header).map_err(broken)? {
                entry = entry.or(pvh_entry(&note));
            }
        }
        let entry = entry.ok_or("has no PVH entry (CONFIG_PVH)")?;
        drop(elf);
        if parts.iter().any(|part| part.address < KERNEL) {
            return Err("lies below 1 MiB".into());
        }
        let path = path.to_owned();
        Ok(Self { path, file, parts, protocol: Protocol::Pvh, entry, end, initrd_max: u64::from(u32::MAX) })
    }

    /// Copies the image into RAM, which must be zeroed.
    ///
    /// # Errors
    /// When the file cannot be read or memory ends before the image.
    pub fn load(&self, memory: &GuestMemoryMmap) -> Result<(), ImageError> {
        for part in &self.parts {
            read_into(memory, part.address, &self.file, part.offset, part.length)
                .map_err(|source| ImageError::Read { path: self.path.clone(), source })?;
        }
        Ok(())
    }
}

fn pvh_entry(note: &Note<'_>) -> Option<u64> {
    let Note::Unknown(note) = note else { return None };
    let owner = note.name.strip_suffix(b"\0").unwrap_or(note.name);
    if note.n_type != NOTE_PHYS32_ENTRY || owner != &NOTE_OWNER[..3] {
        return None;
    }
    match *note.desc {
        [a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d]).into()),
        [a, b, c, d, e, f, g, h] => Some(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}

/// The caller's slice reaches that far, as for the other two.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

/// Reads `length` bytes of `file` from `offset` on to `address`, by the kernel straight into guest memory.
pub(crate) fn read_into(
    memory: &GuestMemoryMmap,
    address: u64,
    mut file: &File,
    offset: u64,
    length: u64,
) -> io::Result<()> {
    let as_io = |error| match error {
        VolatileMemoryError::IOError(source) => source,
        other => io::Error::other(other),
    };
    file.seek(SeekFrom::Start(offset))?;
    let length = usize::try_from(length).map_err(io::Error::other)?;
    for slice in memory.get_slices(GuestAddress(address), length) {
        file.read_exact_volatile(&mut slice.map_err(io::Error::other)?).map_err(as_io)?;
    }
    Ok(())
}

/// Opens a file that has a size. Anything else is refused before it is opened, which for a FIFO would wait.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    let not_regular = || io::Error::other("not a regular file");
    if !std::fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(not_regular()) }
}

#[cfg(test)]
pub(crate) mod tests;

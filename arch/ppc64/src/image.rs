//! The kernel image: an ELF file for 64-bit PowerPC of either byte order.
//!
//! An ET_EXEC file, which a Debian `vmlinux` is, goes to its physical addresses. An ET_DYN file goes to
//! [`DYN_BASE`], where QEMU's pseries machine puts it, so payloads that were written for that run too.
//! The file is not a guest's but may still be anything: everything in it is checked before memory is touched.

use elf::ParseError;
use elf::abi::{EI_NIDENT, EM_PPC64, ET_DYN, ET_EXEC, PN_XNUM, PT_LOAD};
use elf::endian::{AnyEndian, EndianParse};
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::ParsingTable;
use elf::segment::ProgramHeader;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, ReadVolatile, VolatileMemoryError,
    VolatileSlice,
};

/// Where an ET_DYN image goes: 4 MiB, KERNEL_LOAD_ADDR of QEMU's pseries machine.
pub const DYN_BASE: u64 = 4 << 20;

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be opened or read.
    #[error("cannot read kernel {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what cede boots.
    #[error(
        "kernel {path} {what}; give an uncompressed ppc64 or ppc64le ELF file, such as Debian's /boot/vmlinux-*"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file ends before what its headers promise.
    #[error("kernel {path} is truncated: {what} ends at byte {end}, the file has {size}; copy it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that is cut.
        what: &'static str,
        /// Where that part ends.
        end: u64,
        /// The file's size.
        size: u64,
    },
    /// The image does not fit.
    #[error("kernel {path} needs memory up to {end:#x}, the guest has {memory:#x}; give it more memory")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The first address after the image.
        end: u64,
        /// The guest's memory in bytes.
        memory: u64,
    },
}

type Header = FileHeader<AnyEndian>;

#[derive(Debug, Clone, Copy)]
struct Segment {
    /// Offset in the file.
    offset: u64,
    /// Bytes in the file.
    file_size: u64,
    /// Where it goes, guest physical.
    address: u64,
    /// First address after it.
    end: u64,
}

/// A kernel that was looked at and found bootable. The file stays open: it is read again at each reboot.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    segments: Vec<Segment>,
    entry: u64,
    end: u64,
}

impl Image {
    /// Opens `path` and checks its headers.
    ///
    /// # Errors
    /// [`ImageError`], for every file that is not a loadable 64-bit PowerPC ELF image.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let (file, size) = open_regular(path).map_err(read)?;
        let (header, program_headers) = read_headers(path, &file, size)?;
        let base = if header.e_type == ET_DYN { DYN_BASE } else { 0 };

        let mut segments: Vec<Segment> = Vec::new();
        let mut entry = None;
        for ph in program_headers.iter().filter(|ph| ph.p_type == PT_LOAD && ph.p_memsz > 0) {
            let segment = place(ph, base)
                .ok_or_else(|| format_error(path, "has a segment at an impossible address"))?;
            let file_end = ph.p_offset.checked_add(ph.p_filesz);
            if file_end.is_none_or(|end| end > size) {
                let end = file_end.unwrap_or(u64::MAX);
                return Err(ImageError::Truncated { path: path.to_owned(), what: "a segment", end, size });
            }
            if (ph.p_vaddr..ph.p_vaddr.saturating_add(ph.p_memsz)).contains(&header.e_entry) {
                entry = Some(segment.address + (header.e_entry - ph.p_vaddr));
            }
            segments.push(segment);
        }
        // Besides being nonsense, they could be read from the file over and over.
        segments.sort_by_key(|s| s.address);
        if segments.windows(2).any(|pair| pair[1].address < pair[0].end) {
            return Err(format_error(path, "has segments that overlap"));
        }
        let Some(end) = segments.iter().map(|s| s.end).max() else {
            return Err(format_error(path, "has nothing to load"));
        };
        let entry = entry.ok_or_else(|| format_error(path, "has its entry point outside all segments"))?;
        Ok(Self { path: path.to_owned(), file, segments, entry, end })
    }

    /// The guest physical address of the first instruction.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// The first guest physical address after the image and its zeroed part.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Fails unless the image fits into `memory` bytes of RAM at 0.
    ///
    /// # Errors
    /// [`ImageError::TooLarge`].
    pub fn check_fits(&self, memory: u64) -> Result<(), ImageError> {
        if self.end > memory {
            return Err(ImageError::TooLarge { path: self.path.clone(), end: self.end, memory });
        }
        Ok(())
    }

    /// Copies the image into RAM, which must be zeroed.
    ///
    /// # Errors
    /// When the file cannot be read or memory ends before the image.
    pub fn load(&self, memory: &GuestMemoryMmap) -> Result<(), ImageError> {
        for segment in &self.segments {
            read_into(memory, segment.address, &self.file, segment.offset, segment.file_size)
                .map_err(|source| ImageError::Read { path: self.path.clone(), source })?;
        }
        Ok(())
    }
}

/// Read at a time: what is touched first is still in the cache when it is read.
const CHUNK: usize = 1 << 20;

/// The smallest page of a host.
const HOST_PAGE: usize = 4 << 10;

/// Has the host give every page. POWER's kernel copies by vector instructions to a page that is there; at one that
/// it must fault in it gives up and copies all again by plain ones. docs/benchmarks.md has the figures.
fn touch(chunk: &VolatileSlice<'_>) -> Result<(), VolatileMemoryError> {
    (0..chunk.len()).step_by(HOST_PAGE).try_for_each(|at| chunk.store(0_u8, at, Ordering::Relaxed))
}

fn as_io(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(source) => source,
        other => io::Error::other(other),
    }
}

/// Reads `length` bytes of `file` from `offset` on to `address`, by the kernel straight into guest memory.
pub(crate) fn read_into(
    memory: &GuestMemoryMmap,
    address: u64,
    mut file: &File,
    offset: u64,
    length: u64,
) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let length = usize::try_from(length).map_err(io::Error::other)?;
    for slice in memory.get_slices(GuestAddress(address), length) {
        let slice = slice.map_err(io::Error::other)?;
        for start in (0..slice.len()).step_by(CHUNK) {
            let mut chunk = slice.subslice(start, CHUNK.min(slice.len() - start)).map_err(as_io)?;
            touch(&chunk).map_err(as_io)?;
            file.read_exact_volatile(&mut chunk).map_err(as_io)?;
        }
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

/// A file read from an offset, without moving the file's own position.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

fn place(ph: &ProgramHeader, base: u64) -> Option<Segment> {
    let address = base.checked_add(ph.p_paddr)?;
    let end = address.checked_add(ph.p_memsz.max(ph.p_filesz))?;
    Some(Segment { offset: ph.p_offset, file_size: ph.p_filesz, address, end })
}

fn format_error(path: &Path, what: impl Into<String>) -> ImageError {
    ImageError::Format { path: path.to_owned(), what: what.into() }
}

/// Bytes of the ELF header and of a program header in a 64-bit file.
const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;

/// Program headers alone are read: what a section table says, if there is one, is nothing to a loader.
fn read_headers(path: &Path, file: &File, size: u64) -> Result<(Header, Vec<ProgramHeader>), ImageError> {
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    let truncated = |what, end| ImageError::Truncated { path: path.to_owned(), what, end, size };
    let broken = |error: ParseError| format_error(path, format!("has a broken ELF header ({error})"));

    let mut bytes = Vec::new();
    At { file, offset: 0 }.take(HEADER_SIZE as u64).read_to_end(&mut bytes).map_err(read)?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(format_error(path, not_elf(&bytes)));
    }
    let (ident, tail) = bytes.split_at_checked(EI_NIDENT).ok_or_else(|| truncated("the ELF header", 64))?;
    let ident = parse_ident::<AnyEndian>(ident).map_err(broken)?;
    // The machine is at the same place in a 32-bit file, whose header is shorter.
    let machine = tail.get(2..4).ok_or_else(|| truncated("the ELF header", 64))?;
    let machine = ident.0.parse_u16_at(&mut 0, machine).map_err(broken)?;
    if machine != EM_PPC64 || ident.1 != Class::ELF64 {
        return Err(format_error(path, format!("is for {}, not for 64-bit PowerPC", machine_name(machine))));
    }
    if bytes.len() < HEADER_SIZE {
        return Err(truncated("the ELF header", 64));
    }
    let header = FileHeader::parse_tail(ident, tail).map_err(broken)?;
    if header.e_type != ET_EXEC && header.e_type != ET_DYN {
        return Err(format_error(path, "is not an executable ELF file"));
    }

    // PN_XNUM says that the number is in the section table; no kernel has so many.
    if usize::from(header.e_phentsize) != PROGRAM_HEADER_SIZE && header.e_phnum > 0
        || header.e_phnum == PN_XNUM
    {
        return Err(format_error(path, "has program headers of an unknown kind"));
    }
    let mut table = vec![0; PROGRAM_HEADER_SIZE * usize::from(header.e_phnum)];
    let end = header.e_phoff.checked_add(table.len() as u64).filter(|end| *end <= size);
    if end.is_none() {
        let end = header.e_phoff.saturating_add(table.len() as u64);
        return Err(truncated("the program header table", end));
    }
    At { file, offset: header.e_phoff }.read_exact(&mut table).map_err(read)?;
    let headers = ParsingTable::new(header.endianness, header.class, &table).iter().collect();
    Ok((header, headers))
}

fn machine_name(machine: u16) -> &'static str {
    elf::to_str::e_machine_to_human_str(machine).unwrap_or("another machine")
}

fn not_elf(magic: &[u8]) -> &'static str {
    match magic {
        [0x1f, 0x8b, ..] => "is compressed with gzip",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "is compressed with xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "is compressed with zstd",
        [b'M', b'Z', ..] => "is an EFI or x86 boot image, not an ELF file",
        [] => "is empty",
        _ => "is not an ELF file",
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! Kernels, good and bad. Every refusal has its exact line.

use super::*;
use elf::abi::{EM_386, EM_PPC, EM_X86_64, ET_REL};
use proptest::prelude::*;
use std::io::Write;
use tempfile::NamedTempFile;
use vm_memory::Bytes;

/// One program header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub kind: u32,
    pub offset: u64,
    pub vaddr: u64,
    pub paddr: u64,
    pub filesz: u64,
    pub memsz: u64,
}

/// An ELF file as its headers say, with a program header table behind the ELF header and then `data`.
#[derive(Debug, Clone)]
pub(crate) struct Elf {
    pub little: bool,
    pub class: u8,
    pub kind: u16,
    pub machine: u16,
    pub entry: u64,
    pub phoff: u64,
    pub phentsize: u16,
    pub phnum: Option<u16>,
    pub loads: Vec<Load>,
    pub data: Vec<u8>,
}

/// Where `data` begins with one program header.
pub(crate) const DATA: u64 = 64 + 56;
const VIRTUAL: u64 = 0xc000_0000_0000_0000;

impl Elf {
    /// A little-endian ET_EXEC kernel at physical 0, 32 bytes of it in the file and 64 in memory.
    pub fn good() -> Self {
        Self {
            little: true,
            class: 2,
            kind: ET_EXEC,
            machine: EM_PPC64,
            entry: VIRTUAL + 8,
            phoff: 64,
            phentsize: 56,
            phnum: None,
            loads: vec![Load {
                kind: PT_LOAD,
                offset: DATA,
                vaddr: VIRTUAL,
                paddr: 0,
                filesz: 32,
                memsz: 64,
            }],
            data: (1..=32).collect(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0x7f, b'E', b'L', b'F', self.class, if self.little { 1 } else { 2 }, 1];
        out.resize(16, 0);
        let mut put = |value: u64, width: usize| match self.little {
            true => out.extend(&value.to_le_bytes()[..width]),
            false => out.extend(&value.to_be_bytes()[8 - width..]),
        };
        let word = if self.class == 1 { 4 } else { 8 };
        put(self.kind.into(), 2);
        put(self.machine.into(), 2);
        put(1, 4);
        for value in [self.entry, self.phoff, 0] {
            put(value, word);
        }
        put(0, 4);
        let phnum = self.phnum.unwrap_or(self.loads.len() as u16);
        for value in [64, self.phentsize, phnum, 0, 0, 0] {
            put(value.into(), 2);
        }
        for load in &self.loads {
            put(load.kind.into(), 4);
            put(7, 4);
            for value in [load.offset, load.vaddr, load.paddr, load.filesz, load.memsz, 0x1_0000] {
                put(value, 8);
            }
        }
        out.extend(&self.data);
        out
    }

    pub fn file(&self) -> NamedTempFile {
        file(&self.bytes())
    }
}

pub(crate) fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// The error of a file and its sources in one line, with PATH for its name.
fn refusal(bytes: &[u8]) -> String {
    let file = file(bytes);
    line(&Image::open(file.path()).expect_err("a bad kernel was taken"), file.path())
}

pub(crate) fn line(error: &dyn std::error::Error, path: &Path) -> String {
    let errors = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = errors.map(ToString::to_string).collect();
    texts.join(": ").replace(path.to_str().unwrap(), "PATH")
}

fn format(what: &str) -> String {
    format!(
        "kernel PATH {what}; give an uncompressed ppc64 or ppc64le ELF file, such as Debian's /boot/vmlinux-*"
    )
}

fn with(change: impl Fn(&mut Elf)) -> Vec<u8> {
    let mut elf = Elf::good();
    change(&mut elf);
    elf.bytes()
}

#[test]
fn files_that_are_no_elf_file_are_named() {
    let table: &[(&[u8], &str)] = &[
        (b"", "is empty"),
        (b"x", "is not an ELF file"),
        (b"\x7fEL", "is not an ELF file"),
        (b"#!/bin/sh\n", "is not an ELF file"),
        (b"\x1f\x8b\x08\x00", "is compressed with gzip"),
        (b"\xfd7zXZ\x00\x00", "is compressed with xz"),
        (b"\x28\xb5\x2f\xfd\x00", "is compressed with zstd"),
        (b"MZ\x90\x00", "is an EFI or x86 boot image, not an ELF file"),
    ];
    for (bytes, what) in table {
        assert_eq!(refusal(bytes), format(what));
    }
}

#[test]
fn other_machines_and_kinds_are_named() {
    let ppc32 = with(|e| (e.class, e.machine, e.little) = (1, EM_PPC, false));
    assert_eq!(refusal(&ppc32), format("is for PowerPC, not for 64-bit PowerPC"));
    assert_eq!(
        refusal(&ppc32[..52]),
        format("is for PowerPC, not for 64-bit PowerPC"),
        "a whole 32-bit header"
    );
    let x86 = with(|e| e.machine = EM_X86_64);
    assert_eq!(refusal(&x86), format("is for AMD x86-64 architecture, not for 64-bit PowerPC"));
    let i386 = with(|e| (e.machine, e.class) = (EM_386, 1));
    assert_eq!(refusal(&i386), format("is for Intel 80386, not for 64-bit PowerPC"));
    let nobody = with(|e| e.machine = 0xfff0);
    assert_eq!(refusal(&nobody), format("is for another machine, not for 64-bit PowerPC"));
    let object = with(|e| e.kind = ET_REL);
    assert_eq!(refusal(&object), format("is not an executable ELF file"));
    let class = with(|e| e.class = 3);
    assert!(refusal(&class).starts_with("kernel PATH has a broken ELF header ("), "{}", refusal(&class));
}

#[test]
fn cut_files_say_where_they_end() {
    let whole = Elf::good().bytes();
    assert_eq!(whole.len(), 152);
    let cut = |size: usize| refusal(&whole[..size]);
    let message = |what: &str, end, size| {
        format!("kernel PATH is truncated: {what} ends at byte {end}, the file has {size}; copy it again")
    };
    for size in [4, 15, 16, 19, 20, 63] {
        assert_eq!(cut(size), message("the ELF header", 64, size));
    }
    for size in [64, 65, 119] {
        assert_eq!(cut(size), message("the program header table", 120, size));
    }
    for size in [120, 151] {
        assert_eq!(cut(size), message("a segment", 152, size));
    }
}

#[test]
fn hostile_headers_are_refused_without_reading_what_they_promise() {
    let first = |change: fn(&mut Load)| with(|e| change(&mut e.loads[0]));
    let impossible = format("has a segment at an impossible address");
    let table: &[(Vec<u8>, String)] = &[
        (with(|e| e.loads.clear()), format("has nothing to load")),
        (first(|l| l.kind = 4), format("has nothing to load")),
        (first(|l| l.memsz = 0), format("has nothing to load")),
        (first(|l| l.paddr = u64::MAX - 1), impossible.clone()),
        (first(|l| (l.paddr, l.memsz) = (2, u64::MAX)), impossible.clone()),
        (with(|e| (e.kind, e.loads[0].paddr) = (ET_DYN, u64::MAX - DYN_BASE + 1)), impossible),
        (with(|e| e.entry = VIRTUAL - 1), format("has its entry point outside all segments")),
        (with(|e| e.entry = VIRTUAL + 64), format("has its entry point outside all segments")),
        (with(|e| e.entry = 0), format("has its entry point outside all segments")),
        (with(|e| e.phentsize = 32), format("has program headers of an unknown kind")),
        (with(|e| e.phnum = Some(0xffff)), format("has program headers of an unknown kind")),
        (with(|e| e.loads.push(e.loads[0])), format("has segments that overlap")),
    ];
    for (index, (bytes, expected)) in table.iter().enumerate() {
        assert_eq!(&refusal(bytes), expected, "row {index}");
    }
    let truncated = |what: &str, end: u64| {
        format!("kernel PATH is truncated: {what} ends at byte {end}, the file has 152; copy it again")
    };
    let table: &[(Vec<u8>, String)] = &[
        (with(|e| e.phnum = Some(0xfffe)), truncated("the program header table", 64 + 56 * 0xfffe)),
        (with(|e| e.phoff = u64::MAX), truncated("the program header table", u64::MAX)),
        (with(|e| e.phoff = 97), truncated("the program header table", 153)),
        (first(|l| l.filesz = 33), truncated("a segment", 153)),
        (first(|l| l.filesz = 1 << 63), truncated("a segment", (1 << 63) + DATA)),
        (first(|l| l.offset = u64::MAX), truncated("a segment", u64::MAX)),
    ];
    for (bytes, expected) in table {
        assert_eq!(&refusal(bytes), expected);
    }
}

/// What a file promises and does not have costs nothing: a sparse file of 2^40 bytes and a bss of 2^63.
#[test]
fn large_promises_are_cheap() {
    let elf = with(|e| e.loads[0].memsz = 1 << 63);
    let file = file(&elf);
    file.as_file().set_len(1 << 40).unwrap();
    let image = Image::open(file.path()).unwrap();
    let error = line(&image.check_fits(1 << 30).unwrap_err(), file.path());
    assert_eq!(
        error,
        "kernel PATH needs memory up to 0x8000000000000000, the guest has 0x40000000; give it more memory"
    );
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let error = Image::open(directory.path()).unwrap_err();
    assert_eq!(line(&error, directory.path()), "cannot read kernel PATH: not a regular file");
    let missing = directory.path().join("vmlinux");
    let error = Image::open(&missing).unwrap_err();
    assert_eq!(line(&error, &missing), "cannot read kernel PATH: No such file or directory (os error 2)");
    let device = Path::new("/dev/zero");
    assert_eq!(
        line(&Image::open(device).unwrap_err(), device),
        "cannot read kernel PATH: not a regular file"
    );
}

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap()
}

fn loaded(elf: &Elf) -> (Image, GuestMemoryMmap) {
    let file = elf.file();
    let image = Image::open(file.path()).unwrap();
    let memory = memory();
    image.check_fits(8 << 20).unwrap();
    // Once more, as at a reboot.
    image.load(&memory).unwrap();
    image.load(&memory).unwrap();
    (image, memory)
}

fn bytes(memory: &GuestMemoryMmap, at: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

#[test]
fn executables_go_to_their_physical_addresses_in_either_byte_order() {
    for little in [true, false] {
        let mut elf = Elf { little, ..Elf::good() };
        elf.loads[0].paddr = 0x3000;
        let (image, memory) = loaded(&elf);
        assert_eq!((image.entry(), image.end()), (0x3008, 0x3040));
        assert_eq!(bytes(&memory, 0x3000, 32), elf.data);
        assert_eq!(bytes(&memory, 0x3020, 64), [0; 64], "bss");
    }
}

#[test]
fn position_independent_images_go_to_4_mib() {
    let mut elf = Elf { kind: ET_DYN, entry: 0x10, ..Elf::good() };
    elf.loads[0].vaddr = 0;
    let (image, memory) = loaded(&elf);
    assert_eq!((image.entry(), image.end()), (DYN_BASE + 0x10, DYN_BASE + 64));
    assert_eq!(bytes(&memory, DYN_BASE, 32), elf.data);
}

#[test]
fn segments_may_come_in_any_order_and_other_headers_are_skipped() {
    let offset = 64 + 3 * 56;
    let load = |kind, offset, vaddr, paddr| Load { kind, offset, vaddr, paddr, filesz: 16, memsz: 16 };
    let elf = Elf {
        loads: vec![
            load(PT_LOAD, offset + 16, VIRTUAL + 0x1_0000, 0x1_0000),
            // PT_NOTE, at an address where nothing is.
            load(4, 0, 0, u64::MAX),
            load(PT_LOAD, offset, VIRTUAL, 0),
        ],
        ..Elf::good()
    };
    let (image, memory) = loaded(&elf);
    assert_eq!((image.entry(), image.end()), (8, 0x1_0010));
    assert_eq!(bytes(&memory, 0, 16), elf.data[..16]);
    assert_eq!(bytes(&memory, 0x1_0000, 16), elf.data[16..]);
}

#[test]
fn a_file_that_shrinks_is_an_error_at_the_next_boot() {
    let file = Elf::good().file();
    let image = Image::open(file.path()).unwrap();
    file.as_file().set_len(130).unwrap();
    let error = line(&image.load(&memory()).unwrap_err(), file.path());
    assert_eq!(error, "cannot read kernel PATH: failed to fill whole buffer");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed in the headers, a file is refused in one line or loads into the memory it fits.
    #[test]
    fn no_header_makes_it_panic(
        little in any::<bool>(),
        changes in prop::collection::vec((0usize..176, any::<u8>()), 0..6),
        words in prop::collection::vec((0usize..15, prop_oneof![any::<u64>(), 0u64..256]), 0..3),
        size in prop_oneof![4 => Just(152), 1 => 0usize..200],
    ) {
        let mut content = Elf { little, ..Elf::good() }.bytes();
        content.resize(176, 0);
        for (index, word) in words {
            content[24 + 8 * index..][..8].copy_from_slice(&word.to_be_bytes());
        }
        for (at, byte) in changes {
            content[at] = byte;
        }
        content.resize(size, 0);
        let file = file(&content);
        match Image::open(file.path()) {
            Err(error) => {
                let line = line(&error, file.path());
                prop_assert!(!line.contains('\n') && line.contains("kernel PATH"), "{}", line);
            }
            Ok(image) => {
                prop_assert!(image.entry() < image.end());
                if image.check_fits(8 << 20).is_ok() {
                    image.load(&memory()).unwrap();
                }
            }
        }
    }
}

//! What lies where when the guest starts.

use super::*;
use crate::image::tests::{bz_image, file, vmlinux};
use elf::abi::EM_X86_64;

const MEMORY: u64 = 64 << 20;

fn load(kernel: &[u8], initrd: Option<&[u8]>) -> (GuestMemoryMmap, Start) {
    let (kernel, initrd) = (file(kernel), initrd.map(file));
    let images = BootImages::open(kernel.path(), initrd.as_ref().map(|file| file.path()), MEMORY).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
    let contents = acpi::Contents { cpus: 1, slots: vec![] };
    let start = images.load(&memory, MEMORY, "quiet", &contents).unwrap();
    (memory, start)
}

fn word(memory: &GuestMemoryMmap, at: u64) -> u32 {
    memory.read_obj(GuestAddress(at)).unwrap()
}

fn bytes<const N: usize>(memory: &GuestMemoryMmap, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

#[test]
fn linux_finds_everything_by_the_zero_page() {
    let (memory, start) = load(&bz_image(b"code"), Some(b"initrd"));
    assert_eq!((start.rip, start.rsi), (KERNEL, ZERO_PAGE));
    assert_eq!(&bytes(&memory, ZERO_PAGE + 0x202), b"HdrS");
    let initrd = u64::from(word(&memory, ZERO_PAGE + zero_page::INITRD));
    assert_eq!((initrd, word(&memory, ZERO_PAGE + zero_page::INITRD + 4)), (MEMORY - 4096, 6));
    assert_eq!(&bytes(&memory, initrd), b"initrd");
    let cmdline = u64::from(word(&memory, ZERO_PAGE + zero_page::CMDLINE));
    assert_eq!(&bytes(&memory, cmdline), b"quiet\0");
    let rsdp = u64::from(word(&memory, ZERO_PAGE + zero_page::ACPI_RSDP));
    assert_eq!(&bytes(&memory, rsdp), b"RSD PTR ");
    assert_eq!(bytes(&memory, ZERO_PAGE + zero_page::E820_ENTRIES), [4]);
    let last = ZERO_PAGE + zero_page::E820 + 3 * 20;
    assert_eq!(
        [0, 8, 16].map(|at| word(&memory, last + at)),
        [ACPI.end as u32, (MEMORY - ACPI.end) as u32, RAM]
    );
    assert_eq!(bytes(&memory, ZERO_PAGE + zero_page::LOADER), [LOADER]);
}

#[test]
fn pvh_finds_everything_by_its_start_info() {
    let (memory, start) = load(&vmlinux(EM_X86_64, b"code", true), Some(b"initrd"));
    assert_eq!((start.rip, start.rbx), (KERNEL, START_INFO));
    let at = |offset| word(&memory, START_INFO + offset);
    assert_eq!([0, 4, 12].map(at), [0x336e_c578, 1, 1]);
    let modules = u64::from(at(16));
    assert_eq!(&bytes(&memory, u64::from(word(&memory, modules))), b"initrd");
    assert_eq!(word(&memory, modules + 8), 6);
    assert_eq!((at(24), at(32)), (CMDLINE as u32, ACPI.start as u32));
    let (map, entries) = (u64::from(at(40)), at(48));
    assert_eq!(entries, 4);
    assert_eq!([0, 8, 16].map(|offset| word(&memory, map + offset)), [0, LOW_END as u32, RAM]);
}

#[test]
fn without_an_initrd_there_is_none() {
    let (memory, _) = load(&vmlinux(EM_X86_64, b"code", true), None);
    assert_eq!(word(&memory, START_INFO + 12), 0);
    let (memory, _) = load(&bz_image(b"code"), None);
    assert_eq!(word(&memory, ZERO_PAGE + zero_page::INITRD + 4), 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let kernel = file(&bz_image(b"code"));
    let refusal = |initrd: Option<&Path>, memory| {
        BootImages::open(kernel.path(), initrd, memory).unwrap_err().to_string()
    };
    assert!(refusal(None, 16 << 20).contains("the kernel needs memory up to 0x1800000"));
    let initrd = file(&vec![1; 1 << 20]);
    assert!(refusal(Some(initrd.path()), 24 << 20).contains("the initrd"));
    assert!(refusal(Some(file(b"").path()), MEMORY).contains("cannot read initrd"));
}

#[test]
fn the_map_has_no_holes_below_its_end_and_goes_on_above_4_gib() {
    let map = memory_map(4 << 30);
    let low: Vec<_> = map.iter().take_while(|(range, _)| range.start < HIGH_RAM).collect();
    assert!(low.windows(2).all(|pair| pair[0].0.end == pair[1].0.start));
    assert_eq!(map.last(), Some(&(HIGH_RAM..HIGH_RAM + (1 << 30), RAM)));
}

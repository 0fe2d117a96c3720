//! The guest whose first instruction can be seen: one hypercall that KVM answers and traces, then the guest
//! cedes for ever.
//!
//! The page is overlaid on the first of a real kernel, so that loading costs what it costs, and is a firmware
//! image at the same time: cede enters a kernel at its entry point, which is 0 for Debian's; QEMU enters
//! firmware at 0x100. Either way the first instruction of the guest is one of these.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::AnyEndian;

/// The page's size.
const PAGE: usize = 0x1000;

/// Where cede enters, where QEMU enters, and the interrupts that end a nap: external, decrementer, doorbell,
/// hypervisor virtualization.
const ENTRIES: [usize; 6] = [0, 0x100, 0x500, 0x900, 0xa00, 0xea0];

/// Behind all of them.
const CODE: usize = 0xf00;

/// Big-endian, as a guest begins. The decrementer is set because it may be overdue, and an interrupt is not
/// wanted.
const INSTRUCTIONS: [u32; 8] = [
    0x3ca0_7fff, // lis   r5,0x7fff
    0x7cb6_03a6, // mtdec r5
    0x3860_00e4, // li    r3,H_CONFER
    0x3880_ffff, // li    r4,-1
    0x4400_0022, // sc    1
    0x3860_00e0, // li    r3,H_CEDE
    0x4400_0022, // sc    1
    0x4bff_fff8, // b     .-8
];

/// The page.
pub fn page() -> Vec<u8> {
    let mut page = vec![0; PAGE];
    let mut put = |at: usize, word: u32| page[at..at + 4].copy_from_slice(&word.to_be_bytes());
    for entry in ENTRIES {
        put(entry, branch(entry, CODE));
    }
    for (n, word) in INSTRUCTIONS.into_iter().enumerate() {
        put(CODE + 4 * n, word);
    }
    page
}

/// `b to`, at `from`.
fn branch(from: usize, to: usize) -> u32 {
    0x4800_0000 | ((to - from) as u32 & 0x03ff_fffc)
}

/// Where in the kernel's file its page at physical address 0 is, at which it must be entered.
pub fn offset(kernel: &Path) -> Result<u64> {
    let bytes = fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let elf = ElfBytes::<AnyEndian>::minimal_parse(&bytes)?;
    let segments = elf.segments().context("the kernel has no segments")?;
    let first = segments
        .iter()
        .find(|segment| segment.p_type == PT_LOAD && segment.p_paddr == 0)
        .context("the kernel has nothing at address 0")?;
    ensure!(
        first.p_vaddr == elf.ehdr.e_entry && first.p_filesz >= PAGE as u64,
        "the kernel is not entered at address 0"
    );
    Ok(first.p_offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_leads_to_the_code() {
        let page = page();
        for entry in ENTRIES {
            let word = u32::from_be_bytes(page[entry..entry + 4].try_into().unwrap());
            assert_eq!(word >> 26, 18, "a branch");
            assert_eq!(entry + (word & 0x03ff_fffc) as usize, CODE);
        }
    }
}

//! What lies where, and files that do not fit.

use super::*;
use crate::image::tests::{Elf, file, line};

const MIB: u64 = 1 << 20;

fn memory(size: u64) -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size as usize)]).unwrap()
}

fn bytes(memory: &GuestMemoryMmap, at: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

/// A kernel that ends at `end`.
fn kernel(end: u64) -> tempfile::NamedTempFile {
    let mut elf = Elf::good();
    elf.loads[0].memsz = end;
    elf.file()
}

#[test]
fn everything_follows_the_kernels_zeroed_part_on_64_kib() {
    let kernel = kernel(0x12_3456);
    let initrd = file(&[7; 70_000]);
    let images = BootImages::open(kernel.path(), Some(initrd.path()), 8 * MIB).unwrap();
    let start = 0x13_0000;
    let placement = Placement {
        entry: 8,
        initrd: Some((start, start + 70_000)),
        rtas: start + 0x2_0000,
        fdt: start + 0x3_0000,
    };
    assert_eq!(images.placement(), placement);

    let ram = memory(8 * MIB);
    images.load(&ram, 8 * MIB, b"a tree").unwrap();
    assert_eq!(bytes(&ram, 0, 4), [1, 2, 3, 4]);
    assert_eq!(bytes(&ram, start, 70_000), [7; 70_000]);
    assert_eq!(bytes(&ram, start + 70_000, 16), [0; 16]);
    // mr r4,r3; lis r3,0; ori r3,r3,0xf000; sc 1; blr
    let blob = 0x7c64_1b78_3c60_0000_6063_f000_4400_0022_u128.to_be_bytes();
    assert_eq!(bytes(&ram, placement.rtas, 16), blob);
    assert_eq!(bytes(&ram, placement.fdt, 6), b"a tree");
}

#[test]
fn without_an_initrd_rtas_follows_the_kernel() {
    let images = BootImages::open(kernel(0x1_0000).path(), None, MIB).unwrap();
    let placement = images.placement();
    assert_eq!((placement.initrd, placement.rtas, placement.fdt), (None, 0x1_0000, 0x2_0000));
}

#[test]
fn bad_initrds_are_named() {
    let kernel = kernel(64);
    let refusal = |path: &Path| line(&BootImages::open(kernel.path(), Some(path), MIB).unwrap_err(), path);
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(refusal(directory.path()), "cannot read initrd PATH: not a regular file");
    let missing = directory.path().join("initrd");
    assert_eq!(refusal(&missing), "cannot read initrd PATH: No such file or directory (os error 2)");
    assert_eq!(refusal(file(b"").path()), "cannot read initrd PATH: the file is empty");
    let huge = file(b"x");
    huge.as_file().set_len(1 << 40).unwrap();
    assert_eq!(
        refusal(huge.path()),
        "initrd PATH needs memory up to 0x10000010000, the guest has 0x100000; give it more memory"
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let open = |end, size: u64, memory| {
        let (kernel, initrd) = (kernel(end), file(&vec![1; size as usize]));
        let initrd = (size > 0).then(|| initrd.path().to_owned());
        match BootImages::open(kernel.path(), initrd.as_deref(), memory) {
            Ok(_) => String::new(),
            Err(error) => {
                let line = line(&error, kernel.path());
                initrd.map_or(line.clone(), |path| line.replace(&path.display().to_string(), "PATH"))
            }
        }
    };
    let needs = |what, end: u64, memory: u64| {
        format!("{what} needs memory up to {end:#x}, the guest has {memory:#x}; give it more memory")
    };
    assert_eq!(open(2 * MIB, 0, MIB), needs("kernel PATH", 2 * MIB, MIB));
    assert_eq!(open(MIB + 1, 0, MIB), needs("kernel PATH", MIB + 1, MIB));
    // The kernel fills all of it, to the byte.
    assert_eq!(open(MIB, 0, MIB), needs("the RTAS blob", MIB + 0x1_0000, MIB));
    assert_eq!(open(64, MIB - 0x1_0000 + 1, MIB), needs("initrd PATH", MIB + 1, MIB));
    assert_eq!(open(64, MIB - 0x1_0000, MIB), needs("the RTAS blob", MIB + 0x1_0000, MIB));
    // The blob fits and leaves no byte for the tree; one page more does.
    assert_eq!(open(64, 0xe_0000, MIB), needs("the RTAS blob", MIB, MIB));
    assert_eq!(open(64, 0xd_0000, MIB), "");
}

#[test]
fn rtas_is_below_4_gib() {
    let kernel = kernel((4 << 30) - 0x1_0000);
    let error = BootImages::open(kernel.path(), None, 64 << 30).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the RTAS blob needs memory up to 0x100000000, which is beyond what a 32-bit call can reach; \
         give a smaller kernel or initrd"
    );
}

#[test]
fn a_tree_that_does_not_fit_is_refused() {
    let images = BootImages::open(kernel(64).path(), None, MIB).unwrap();
    let fdt = images.placement().fdt;
    let ram = memory(MIB);
    images.load(&ram, MIB, &vec![1; (MIB - fdt) as usize]).unwrap();
    let error = images.load(&ram, MIB, &vec![1; (MIB - fdt) as usize + 1]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the device tree needs memory up to 0x100001, the guest has 0x100000; give it more memory"
    );
}

/// The initrd is read again at each boot, and found changed.
#[test]
fn an_initrd_that_shrinks_is_an_error_at_the_next_boot() {
    let initrd = file(&[1; 100]);
    let images = BootImages::open(kernel(64).path(), Some(initrd.path()), MIB).unwrap();
    initrd.as_file().set_len(50).unwrap();
    let error = line(&images.load(&memory(MIB), MIB, b"tree").unwrap_err(), initrd.path());
    assert_eq!(error, "cannot read initrd PATH: failed to fill whole buffer");
}

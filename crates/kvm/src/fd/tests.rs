//! Descriptors that are no KVM: every call fails by its name, and mappings are what the file holds.

use super::*;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A file in place of a KVM descriptor, and the file.
pub(crate) fn stand_in(length: u64) -> (KvmFd, File) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(length).unwrap();
    (KvmFd(file.try_clone().unwrap().into()), file)
}

#[test]
fn a_call_that_fails_says_which_and_why() {
    let (fd, _file) = stand_in(0);
    // KVM_RUN and KVM_GET_REGS, whose numbers carry no size and one of 392 bytes.
    let error = fd.value("KVM_RUN", 0x2000_ae80, 0).unwrap_err();
    assert_eq!(error.to_string(), "KVM_RUN failed");
    assert_eq!(error.source.raw_os_error(), Some(libc::ENOTTY));
    let mut regs = crate::bindings::ppc64::kvm_regs::default();
    let error = fd.exchange("KVM_GET_REGS", 0x4188_ae81, &mut regs).unwrap_err();
    assert_eq!((error.call, error.source.raw_os_error()), ("KVM_GET_REGS", Some(libc::ENOTTY)));
}

#[test]
fn the_size_in_a_number_is_its_structures() {
    assert_eq!(size_in(0x2000_ae80), 0, "KVM_RUN");
    assert_eq!(size_in(0x4188_ae81), 392, "KVM_GET_REGS");
    assert_eq!(size_in(0xc004_aea7), 4, "KVM_PPC_ALLOCATE_HTAB");
}

#[test]
fn a_mapping_is_the_descriptors_memory() {
    let (fd, file) = stand_in(0x4_0000);
    let mapping = Mapping::new(&fd, 0x1_0000, 0x2_0000, "mmap(test)").unwrap();
    assert_eq!(mapping.len(), 0x1_0000);
    file.write_all_at(b"ada", 0x2_0000).unwrap();
    // SAFETY: the mapping is larger, and nobody writes it meanwhile.
    let seen = unsafe { mapping.as_ptr().cast::<[u8; 3]>().read_volatile() };
    assert_eq!(seen, *b"ada");
}

#[test]
fn a_mapping_that_cannot_be_says_so() {
    let (fd, _file) = stand_in(0x1_0000);
    for (length, offset) in [(0, 0), (0x1_0000, 1), (0x1_0000, u64::MAX), (usize::MAX & !0xffff, 0)] {
        let error = Mapping::new(&fd, length, offset, "mmap(test)").unwrap_err();
        assert_eq!(error.to_string(), "mmap(test) failed", "{length:#x} {offset:#x}");
    }
}

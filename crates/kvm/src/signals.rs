//! The two signals that bring a vCPU's thread out of KVM_RUN.
//!
//! Both are blocked everywhere, no handler exists, and KVM_SET_SIGNAL_MASK lets them through while the vCPU runs; so
//! a signal that comes between two runs is not lost, it ends the next one. Both are standard signals: however often
//! one is sent before it is taken, it is pending once, and it needs no memory of the kernel's that could run out.

use crate::fd::KvmFd;
use arch_api::HvError;
use std::io;

/// Their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals {
    /// Another thread wants this one in the host.
    pub kick: libc::c_int,
}

/// The kernel's own signal for a descriptor with O_ASYNC. perf sends it for a cede on POWER; nobody does elsewhere.
pub(crate) const CEDE: libc::c_int = libc::SIGIO;

impl Signals {
    /// `struct kvm_signal_mask`'s set: everything is blocked but these.
    pub(crate) fn mask(self) -> u64 {
        let bit = |signal: libc::c_int| 1u64 << (signal - 1);
        !(bit(self.kick) | bit(CEDE))
    }

    /// Blocks every signal but ours while `vcpu` runs; `request` is the architecture's KVM_SET_SIGNAL_MASK.
    pub(crate) fn let_through(self, vcpu: &KvmFd, request: u32) -> Result<(), HvError> {
        /// `struct kvm_signal_mask` with the kernel's 64-bit signal set behind it.
        #[repr(C)]
        struct Mask {
            len: u32,
            sigset: [u8; 8],
        }
        let mask = Mask { len: 8, sigset: self.mask().to_ne_bytes() };
        vcpu.read_from_long("KVM_SET_SIGNAL_MASK", request, &mask).map(drop)
    }

    /// Takes one pending signal, if there is one, and says which. When both are pending the other ends the next run at once.
    pub(crate) fn take(self) -> Result<Option<libc::c_int>, HvError> {
        // SAFETY: an all-zero sigset_t is valid memory for sigemptyset, which makes it a set; the numbers are valid
        // signals. The pointers are to locals that outlive the call, and a null siginfo asks for none.
        let taken = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, self.kick);
            libc::sigaddset(&mut set, CEDE);
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&set, std::ptr::null_mut(), &at_once)
        };
        match io::Error::last_os_error() {
            _ if taken > 0 => Ok(Some(taken)),
            // Whoever sent one has taken it back.
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(None),
            source => Err(HvError { call: "sigtimedwait", source }),
        }
    }
}

//! Trace events, with the kernel's names and fields. Each is one load and one branch when nobody
//! listens, and nothing at all without the `std` feature.
//!
//! | event | kernel file | when |
//! |---|---|---|
//! | kvmppc_vcore_blocked | arch/powerpc/kvm/trace_hv.h | the vcore goes to sleep (`where` 0), and its runner is awake again (1) |
//! | kvmppc_vcore_wakeup | arch/powerpc/kvm/trace_hv.h | an idle period has ended: its length, and whether it came to sleep |
//! | kvm_hv_timer_state | arch/x86/kvm/trace.h | a vCPU's running timer is armed or disarmed |

/// The `where` of kvmppc_vcore_blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Enter = 0,
    Exit = 1,
}

#[cfg(feature = "std")]
mod events {
    use super::Where;

    pub(crate) fn vcore_blocked(n_runnable: u32, runner_vcpu: u32, at: Where) {
        tracing::trace!(
            name: "kvmppc_vcore_blocked",
            target: "kvm_hv",
            n_runnable,
            runner_vcpu,
            "where" = at as u32,
            tgid = std::process::id()
        );
    }

    pub(crate) fn vcore_wakeup(ns: u64, waited: bool) {
        tracing::trace!(
            name: "kvmppc_vcore_wakeup",
            target: "kvm_hv",
            ns,
            waited = u32::from(waited),
            tgid = std::process::id()
        );
    }

    pub(crate) fn hv_timer_state(vcpu_id: u32, hv_timer_in_use: bool) {
        tracing::trace!(
            name: "kvm_hv_timer_state",
            target: "kvm",
            vcpu_id,
            hv_timer_in_use = u32::from(hv_timer_in_use)
        );
    }
}

#[cfg(not(feature = "std"))]
mod events {
    use super::Where;

    pub(crate) fn vcore_blocked(_n_runnable: u32, _runner_vcpu: u32, _at: Where) {}
    pub(crate) fn vcore_wakeup(_ns: u64, _waited: bool) {}
    pub(crate) fn hv_timer_state(_vcpu_id: u32, _hv_timer_in_use: bool) {}
}

pub(crate) use events::{hv_timer_state, vcore_blocked, vcore_wakeup};

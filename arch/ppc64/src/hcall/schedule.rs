//! H_CEDE, H_PROD, H_CONFER, H_JOIN on the VMM's plane (PAPR 14.11.3).
//!
//! The calls only say what is to happen: who naps, and where a prod goes. How is the scheduler's.

use super::{Call, Effect};
use crate::papr::ret::{H_FUNCTION, H_PARAMETER, H_SUCCESS};

/// The caller naps until it has an interrupt, a prod or its decrementer expires; interrupts are enabled by it.
pub(super) fn cede(call: &mut Call<'_>) -> i64 {
    if call.platform.own.is_none() {
        return H_FUNCTION;
    }
    call.effect = Effect::Cede;
    H_SUCCESS
}

/// server: ends its nap, or its next one.
pub(super) fn prod(call: &mut Call<'_>) -> i64 {
    let Some(own) = &call.platform.own else { return H_FUNCTION };
    let Some(target) = call.platform.cpus.by_server(call.args[0]) else { return H_PARAMETER };
    call.platform.cpus.unjoin(target);
    own.scheduler.prod(target);
    H_SUCCESS
}

/// server, or -1 for all of the partition; its yield count as the caller last saw it. A hint: the guest cannot tell whether
/// its cycles went anywhere, so the yield count, which only KVM knows the place of, is not compared.
pub(super) fn confer(call: &mut Call<'_>) -> i64 {
    let Some(own) = &call.platform.own else { return H_FUNCTION };
    // The Linux kernel passes -1 in 32 bits as well.
    let target = match call.args[0] as i64 {
        -1 | 0xffff_ffff => None,
        _ => match call.platform.cpus.by_server(call.args[0]) {
            Some(target) => Some(target),
            None => return H_PARAMETER,
        },
    };
    own.scheduler.confer(call.vcpu, target);
    H_SUCCESS
}

/// The caller waits for a prod; the last one of the partition to call goes on, with H_CONTINUE.
pub(super) fn join(call: &mut Call<'_>) -> i64 {
    if call.platform.own.is_none() {
        return H_FUNCTION;
    }
    call.effect = Effect::Join;
    H_SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpus::CpuState;
    use crate::fake::{Guest, Told};
    use crate::papr::nr::{H_CEDE, H_CONFER, H_JOIN, H_PROD};

    /// Servers that no vCPU has: indices, a good one with a high bit, and more.
    const UNKNOWN: &[u64] = &[2, 3, 10, 8 | 1 << 32, 0x7fff_ffff, u64::MAX - 1];

    #[test]
    fn the_kernels_plane_has_none_of_these() {
        let guest = Guest::new();
        for nr in [H_CEDE, H_PROD, H_CONFER, H_JOIN] {
            let answer = guest.hcall(nr, &[8, 7]);
            assert_eq!((answer.ret, answer.effect), (H_FUNCTION, Effect::None), "{nr:#x}");
            assert_eq!(answer.args[..2], [8, 7]);
        }
    }

    #[test]
    fn cede_and_join_concern_the_caller_alone() {
        let guest = Guest::on_vmm_plane();
        for (nr, effect) in [(H_CEDE, Effect::Cede), (H_JOIN, Effect::Join)] {
            let answer = guest.hcall_of(2, nr, &[5]);
            assert_eq!((answer.ret, answer.effect, answer.args[0]), (H_SUCCESS, effect, 5));
        }
        assert_eq!(guest.scheduler.told(), []);
    }

    #[test]
    fn a_prod_goes_to_the_server_that_is_named() {
        let guest = Guest::on_vmm_plane();
        for (vcpu, server) in [0, 1, 8, 9].into_iter().enumerate() {
            let answer = guest.hcall_of(1, H_PROD, &[server]);
            assert_eq!((answer.ret, answer.effect), (H_SUCCESS, Effect::None));
            assert_eq!(guest.scheduler.told(), [Told::Prod(vcpu)]);
        }
        for server in UNKNOWN.iter().chain(&[u64::MAX, 0xffff_ffff]) {
            assert_eq!(guest.ret(H_PROD, &[*server]), H_PARAMETER, "{server:#x}");
        }
        assert_eq!(guest.scheduler.told(), []);
    }

    #[test]
    fn a_confer_is_to_one_or_to_all() {
        let guest = Guest::on_vmm_plane();
        for (server, target) in [(9, Some(3)), (0, Some(0)), (u64::MAX, None), (0xffff_ffff, None)] {
            assert_eq!(guest.hcall_of(1, H_CONFER, &[server, 4]).ret, H_SUCCESS);
            assert_eq!(guest.scheduler.told(), [Told::Confer(1, target)], "{server:#x}");
        }
        for server in UNKNOWN {
            assert_eq!(guest.ret(H_CONFER, &[*server]), H_PARAMETER, "{server:#x}");
        }
        assert_eq!(guest.scheduler.told(), []);
    }

    #[test]
    fn whoever_was_prodded_has_not_joined_any_more() {
        let guest = Guest::on_vmm_plane();
        let cpus = &guest.platform.cpus;
        cpus.set(2, CpuState::Running);
        assert!(cpus.try_join(2));
        assert!(!cpus.try_join(0), "all others have joined");
        assert_eq!(guest.ret(H_PROD, &[8]), H_SUCCESS);
        assert!(cpus.try_join(0), "vCPU 2 is awake, though it has not run yet");
        assert!(!cpus.try_join(2), "now it is the last");
    }
}

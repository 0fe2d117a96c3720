//! The XICS's presentation calls on the VMM's plane (PAPR 14.8).

use super::Call;
use crate::own::Own;
use crate::papr::ret::{H_FUNCTION, H_PARAMETER, H_SUCCESS};
use crate::xics::XicsError;

fn own<'a>(call: &Call<'a>) -> Option<&'a Own> {
    call.platform.own.as_deref()
}

fn code(result: Result<(), XicsError>) -> i64 {
    result.map_or(H_PARAMETER, |()| H_SUCCESS)
}

/// → CPPR and the accepted source.
pub(super) fn xirr(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    call.args[0] = u64::from(own.xics.xirr(call.vcpu));
    H_SUCCESS
}

/// → as H_XIRR, and the timebase when the interrupt was presented: now is as good, since it is for statistics only.
pub(super) fn xirr_x(call: &mut Call<'_>) -> i64 {
    let code = xirr(call);
    if code == H_SUCCESS {
        call.args[1] = call.platform.partition.timebase();
    }
    code
}

/// XIRR as H_XIRR gave it.
pub(super) fn eoi(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    code(own.xics.eoi(call.vcpu, call.args[0] as u32, |vcpu| own.notify(vcpu)))
}

/// The new CPPR.
pub(super) fn cppr(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    own.xics.cppr(call.vcpu, call.args[0] as u8, |vcpu| own.notify(vcpu));
    H_SUCCESS
}

/// server, MFRR.
pub(super) fn ipi(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    let Some(target) = call.platform.cpus.by_server(call.args[0]) else { return H_PARAMETER };
    code(own.xics.ipi(target, call.args[1] as u8, |vcpu| own.notify(vcpu)))
}

/// server → XIRR without accepting, MFRR.
pub(super) fn ipoll(call: &mut Call<'_>) -> i64 {
    let Some(own) = own(call) else { return H_FUNCTION };
    let Some(target) = call.platform.cpus.by_server(call.args[0]) else { return H_PARAMETER };
    let Ok((xirr, mfrr)) = own.xics.ipoll(target) else { return H_PARAMETER };
    (call.args[0], call.args[1]) = (u64::from(xirr), u64::from(mfrr));
    H_SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Guest, TIMEBASE, Told};
    use crate::hcall::Effect;
    use crate::layout::{IRQ_EPOW, IRQ_VIO};
    use crate::papr::nr::*;
    use crate::xics::IPI;

    const EPOW: u64 = IRQ_EPOW as u64;

    /// Server 8, which is vCPU 2, takes everything; the EPOW interrupt goes there with priority 5.
    fn open() -> Guest {
        let guest = Guest::on_vmm_plane();
        assert_eq!(guest.hcall_of(2, H_CPPR, &[0xff]).ret, H_SUCCESS);
        assert_eq!(guest.rtas("ibm,set-xive", &[IRQ_EPOW, 8, 5], 1).0, 0);
        assert_eq!(guest.scheduler.told(), []);
        guest
    }

    fn xirr_of(guest: &Guest, vcpu: usize) -> u64 {
        let answer = guest.hcall_of(vcpu, H_XIRR, &[77, 78]);
        assert_eq!((answer.ret, answer.effect, answer.args[1]), (H_SUCCESS, Effect::None, 78));
        answer.args[0]
    }

    #[test]
    fn the_kernels_plane_has_none_of_these() {
        let guest = Guest::new();
        for nr in [H_XIRR, H_XIRR_X, H_EOI, H_CPPR, H_IPI, H_IPOLL] {
            let answer = guest.hcall(nr, &[8, 4]);
            assert_eq!((answer.ret, answer.args[..2].to_vec()), (H_FUNCTION, vec![8, 4]), "{nr:#x}");
        }
    }

    #[test]
    fn an_interrupt_is_told_accepted_and_ended() {
        let guest = open();
        guest.platform.set_irq(IRQ_EPOW, true).unwrap();
        assert_eq!(guest.scheduler.told(), [Told::Interrupt(2)]);
        assert_eq!(xirr_of(&guest, 0), 0, "it is not vCPU 0's");
        assert_eq!(xirr_of(&guest, 2), 0xff00_0000 | EPOW);
        assert_eq!(xirr_of(&guest, 2), 0x0500_0000, "accepted");
        // The guest's register has 64 bits, of which the high word says nothing.
        assert_eq!(guest.hcall_of(2, H_EOI, &[0xdead_beef_ff00_0000 | EPOW]).ret, H_SUCCESS);
        assert_eq!(xirr_of(&guest, 2), 0xff00_0000);
        assert_eq!(guest.scheduler.told(), []);
    }

    #[test]
    fn an_event_during_the_service_comes_after_its_end() {
        let guest = open();
        guest.platform.set_irq(IRQ_EPOW, true).unwrap();
        let xirr = xirr_of(&guest, 2);
        guest.scheduler.told();
        guest.platform.set_irq(IRQ_EPOW, true).unwrap();
        assert_eq!(guest.scheduler.told(), []);
        assert_eq!(guest.hcall_of(2, H_EOI, &[xirr]).ret, H_SUCCESS);
        assert_eq!(guest.scheduler.told(), [Told::Interrupt(2)]);
    }

    #[test]
    fn an_end_of_what_is_not_there_still_sets_the_priority() {
        let guest = open();
        for source in [0, 15, EPOW + 1, 0xff_ffff] {
            assert_eq!(guest.hcall_of(2, H_EOI, &[0x0700_0000 | source]).ret, H_PARAMETER, "{source:#x}");
            assert_eq!(guest.hcall(H_IPOLL, &[8]).args[0], 0x0700_0000);
            guest.hcall_of(2, H_CPPR, &[0xff]);
        }
    }

    #[test]
    fn what_waited_for_the_priority_is_told_when_it_comes() {
        let guest = open();
        guest.hcall_of(2, H_CPPR, &[0x1234_5605]);
        guest.platform.set_irq(IRQ_EPOW, true).unwrap();
        assert_eq!((guest.scheduler.told(), xirr_of(&guest, 2)), (vec![], 0x0500_0000));
        assert_eq!(guest.hcall_of(2, H_CPPR, &[0xff06]).ret, H_SUCCESS);
        assert_eq!(guest.scheduler.told(), [Told::Interrupt(2)]);
        assert_eq!(xirr_of(&guest, 2), 0x0600_0000 | EPOW);
    }

    #[test]
    fn an_ipi_reaches_its_server_whoever_asks() {
        let guest = open();
        for caller in [0, 2, 3] {
            assert_eq!(guest.hcall_of(caller, H_IPI, &[8, 0xff04]).ret, H_SUCCESS);
            assert_eq!(guest.scheduler.told(), [Told::Interrupt(2)]);
            assert_eq!(xirr_of(&guest, 2), 0xff00_0000 | u64::from(IPI));
            assert_eq!(guest.hcall_of(2, H_IPI, &[8, 0xff]).ret, H_SUCCESS);
            assert_eq!(guest.hcall_of(2, H_EOI, &[0xff00_0000 | u64::from(IPI)]).ret, H_SUCCESS);
            assert_eq!(guest.scheduler.told(), [], "a request that was taken back");
        }
        // vCPU 3 has not opened.
        assert_eq!(guest.ret(H_IPI, &[9, 0]), H_SUCCESS);
        assert_eq!(guest.scheduler.told(), []);
        for server in [2, 3, 8 | 1 << 32, 0xffff_ffff, u64::MAX] {
            assert_eq!(guest.ret(H_IPI, &[server, 4]), H_PARAMETER, "{server:#x}");
            assert_eq!(guest.ret(H_IPOLL, &[server]), H_PARAMETER, "{server:#x}");
        }
        assert_eq!(guest.scheduler.told(), []);
    }

    #[test]
    fn a_poll_looks_and_accepts_nothing() {
        let guest = open();
        guest.hcall(H_IPI, &[8, 4]);
        for _ in 0..2 {
            let answer = guest.hcall(H_IPOLL, &[8, 1, 2]);
            let polled = [0xff00_0000 | u64::from(IPI), 4, 2];
            assert_eq!((answer.ret, &answer.args[..3]), (H_SUCCESS, &polled[..]));
        }
    }

    #[test]
    fn xirr_x_has_a_time_beside() {
        let guest = open();
        guest.platform.set_irq(IRQ_EPOW, true).unwrap();
        let answer = guest.hcall_of(2, H_XIRR_X, &[0, 0, 9]);
        assert_eq!((answer.ret, &answer.args[..3]), (H_SUCCESS, &[0xff00_0000 | EPOW, TIMEBASE, 9][..]));
    }

    /// Of two that are pending the more favoured is presented, and the other is told when its turn comes.
    #[test]
    fn the_less_favoured_comes_second() {
        let guest = open();
        guest.rtas("ibm,set-xive", &[IRQ_VIO, 8, 4], 1);
        guest.platform.set_irq(IRQ_EPOW, true).unwrap();
        guest.platform.set_irq(IRQ_VIO, true).unwrap();
        assert_eq!(guest.scheduler.told(), [Told::Interrupt(2), Told::Interrupt(2)]);
        let xirr = xirr_of(&guest, 2);
        assert_eq!(xirr, 0xff00_0000 | u64::from(IRQ_VIO));
        guest.hcall_of(2, H_EOI, &[xirr]);
        assert_eq!(guest.scheduler.told(), [Told::Interrupt(2)]);
        assert_eq!(xirr_of(&guest, 2), 0xff00_0000 | EPOW);
    }
}

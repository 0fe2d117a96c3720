//! ibm,set-xive, ibm,get-xive, ibm,int-off, ibm,int-on on the VMM's plane (PAPR 7.3.10).

use super::{Rtas, status};
use crate::own::Own;

/// The XICS, which the caller's tree names these calls for only if there is one.
fn own<'a>(rtas: &Rtas<'a>) -> Option<&'a Own> {
    rtas.platform.own.as_deref()
}

fn done(result: Option<()>) -> i32 {
    result.map_or(status::PARAMETER_ERROR, |()| status::SUCCESS)
}

/// source, server, priority.
pub(super) fn set_xive(rtas: &mut Rtas<'_>) -> i32 {
    let &[source, server, priority] = rtas.args else { return status::PARAMETER_ERROR };
    let set = || {
        let own = own(rtas)?;
        let server = rtas.platform.cpus.by_server(u64::from(server))?;
        own.xics.set_xive(source, server, priority, |index| own.notify(index)).ok()
    };
    done(set())
}

/// source → server, priority.
pub(super) fn get_xive(rtas: &mut Rtas<'_>) -> i32 {
    let get = || own(rtas)?.xics.get_xive(rtas.args[0]).ok();
    let Some((index, priority)) = get() else { return status::PARAMETER_ERROR };
    rtas.rets[0] = rtas.platform.cpus.server(index);
    rtas.rets[1] = u32::from(priority);
    status::SUCCESS
}

/// source: as if its priority were 0xff.
pub(super) fn int_off(rtas: &mut Rtas<'_>) -> i32 {
    let off = || own(rtas)?.xics.int_off(rtas.args[0]).ok();
    done(off())
}

/// source: back to the priority that it had.
pub(super) fn int_on(rtas: &mut Rtas<'_>) -> i32 {
    let on = || {
        let own = own(rtas)?;
        own.xics.int_on(rtas.args[0], |index| own.notify(index)).ok()
    };
    done(on())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Guest, Told};
    use crate::hcall::Effect;
    use crate::layout::{IRQ_EPOW, IRQ_VIO};
    use crate::papr::nr::H_CPPR;

    const DONE: (i32, Vec<u32>, Effect) = (status::SUCCESS, vec![], Effect::None);
    const WRONG: (i32, Vec<u32>, Effect) = (status::PARAMETER_ERROR, vec![], Effect::None);

    fn route(guest: &Guest, source: u32) -> Vec<u32> {
        let (status, route, _) = guest.rtas("ibm,get-xive", &[source], 3);
        assert_eq!(status, status::SUCCESS);
        route
    }

    /// KVM's own controller answers these tokens there; a call that comes here all the same is not known.
    #[test]
    fn the_kernels_plane_has_none_of_these() {
        let guest = Guest::new();
        assert_eq!(guest.rtas("ibm,set-xive", &[IRQ_EPOW, 8, 5], 1), WRONG);
        assert_eq!(guest.rtas("ibm,get-xive", &[IRQ_EPOW], 3).0, status::PARAMETER_ERROR);
        assert_eq!(guest.rtas("ibm,int-off", &[IRQ_EPOW], 1), WRONG);
        assert_eq!(guest.rtas("ibm,int-on", &[IRQ_EPOW], 1), WRONG);
    }

    #[test]
    fn a_route_is_read_as_it_was_set() {
        let guest = Guest::on_vmm_plane();
        assert_eq!(route(&guest, IRQ_EPOW), [0, 0xff], "masked at boot");
        for (server, priority) in [(8, 5), (9, 0), (0, 0xff), (1, 0xfe)] {
            assert_eq!(guest.rtas("ibm,set-xive", &[IRQ_EPOW, server, priority], 1), DONE);
            assert_eq!(route(&guest, IRQ_EPOW), [server, priority], "by server number, not index");
        }
        assert_eq!(route(&guest, IRQ_VIO), [0, 0xff], "the other stays");
        assert_eq!(guest.scheduler.told(), []);
    }

    #[test]
    fn bad_values_change_nothing() {
        let guest = Guest::on_vmm_plane();
        guest.rtas("ibm,set-xive", &[IRQ_EPOW, 8, 5], 1);
        for source in [0, 2, 15, 16, IRQ_EPOW + 1, 1 << 24, u32::MAX] {
            assert_eq!(guest.rtas("ibm,set-xive", &[source, 8, 5], 1), WRONG, "{source:#x}");
            assert_eq!(
                guest.rtas("ibm,get-xive", &[source], 3),
                (status::PARAMETER_ERROR, vec![0, 0], Effect::None)
            );
            assert_eq!(guest.rtas("ibm,int-off", &[source], 1), WRONG, "{source:#x}");
            assert_eq!(guest.rtas("ibm,int-on", &[source], 1), WRONG, "{source:#x}");
        }
        for (server, priority) in [(2, 6), (3, 6), (u32::MAX, 6), (9, 0x100), (9, u32::MAX), (9, 0x8000_0005)]
        {
            assert_eq!(
                guest.rtas("ibm,set-xive", &[IRQ_EPOW, server, priority], 1),
                WRONG,
                "{server} {priority:#x}"
            );
        }
        assert_eq!(route(&guest, IRQ_EPOW), [8, 5]);
    }

    #[test]
    fn off_masks_and_on_brings_the_priority_and_the_event_back() {
        let guest = Guest::on_vmm_plane();
        guest.hcall_of(2, H_CPPR, &[0xff]);
        guest.rtas("ibm,set-xive", &[IRQ_EPOW, 8, 5], 1);
        assert_eq!(guest.rtas("ibm,int-off", &[IRQ_EPOW], 1), DONE);
        assert_eq!(route(&guest, IRQ_EPOW), [8, 0xff]);
        guest.platform.set_irq(IRQ_EPOW, true).unwrap();
        assert_eq!(guest.scheduler.told(), []);
        assert_eq!(guest.rtas("ibm,int-on", &[IRQ_EPOW], 1), DONE);
        assert_eq!(route(&guest, IRQ_EPOW), [8, 5]);
        assert_eq!(guest.scheduler.told(), [Told::Interrupt(2)]);
    }

    #[test]
    fn a_route_sends_the_event_that_waits() {
        let guest = Guest::on_vmm_plane();
        guest.hcall_of(3, H_CPPR, &[0xff]);
        guest.platform.set_irq(IRQ_VIO, true).unwrap();
        assert_eq!(guest.scheduler.told(), [], "masked at boot");
        assert_eq!(guest.rtas("ibm,set-xive", &[IRQ_VIO, 9, 6], 1), DONE);
        assert_eq!(guest.scheduler.told(), [Told::Interrupt(3)]);
    }

    #[test]
    fn a_source_that_is_not_there_cannot_be_driven() {
        let guest = Guest::on_vmm_plane();
        assert!(guest.platform.set_irq(IRQ_EPOW + 1, true).is_err());
        assert_eq!(guest.fake.asked(), [], "nor is the hypervisor asked");
    }
}

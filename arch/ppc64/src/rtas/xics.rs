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

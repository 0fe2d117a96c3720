//! XICS: the interrupt controller that a guest works by hcalls and RTAS calls, when the VMM owns it.
//!
//! ```text
//!   device ── set ──▶ source ──┐
//!   device ── set ──▶ source ──┼─ deliver ─▶ ICP of a vCPU ── notify ─▶ the vCPU's external line
//!                      │       │              │
//!                    ICS: set-xive,          H_XIRR, H_EOI, H_CPPR, H_IPI, H_IPOLL
//!                    get-xive, int-off, int-on
//! ```
//!
//! `icp` holds a server's registers, `ics` the sources, `deliver` the way between them and the argument why nothing is
//! lost on it; [`Line`] is what the ICP drives. There is no lock and, after [`Xics::new`], no allocation. Devices and vCPUs
//! call from any thread.
//!
//! Servers are vCPU indices here; who calls maps the guest's server numbers to them. Arguments of the guest are wrong until
//! checked: an error is H_PARAMETER of an hcall and -3 of an RTAS call.
//!
//! Source: PAPR, "Interrupt Source Controller" and "Interrupt Presentation Controller"; where PAPR is silent, what Linux's
//! `arch/powerpc/kvm/book3s_xics.c` does. `docs/xics.md` says where this differs.

mod deliver;
mod icp;
mod ics;
mod line;
mod sync;
#[cfg(test)]
mod tests;

pub use arch_api::ppc64::Trigger;
pub use icp::{IPI, LEAST_FAVOURED};
pub use ics::{END_OF_SOURCES, FIRST_SOURCE};
pub use line::Line;

use icp::Icp;
use ics::{Ics, Source};

/// What the guest, or a device, named is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XicsError {
    /// No such interrupt server.
    #[error("no such interrupt server")]
    Server,
    /// No such interrupt source.
    #[error("no such interrupt source")]
    Source,
    /// Priorities are 0 to 0xff.
    #[error("no such priority")]
    Priority,
}

/// The interrupt controller of a machine.
///
/// Every call that may make a vCPU's line go up takes `notify`, and calls it with the vCPU's index after
/// [`pending`](Self::pending) has become true: for every vCPU where it may have, at times for one where it was already.
/// `notify` runs on the caller's thread, maybe for the caller's own vCPU, and may come more than once.
#[derive(Debug)]
pub struct Xics {
    icps: Box<[Icp]>,
    ics: Ics,
}

impl Xics {
    /// A controller with `servers` servers and these sources, as [`reset`](Self::reset) leaves it.
    ///
    /// # Panics
    /// When there are more than 65,536 servers, or a source is there twice or out of
    /// [`FIRST_SOURCE`]..[`END_OF_SOURCES`].
    #[must_use]
    pub fn new(servers: usize, sources: &[(u32, Trigger)]) -> Self {
        assert!(servers <= 1 << 16, "{servers} interrupt servers");
        let ics = Ics::new(sources);
        Self { icps: (0..servers).map(|_| Icp::new(ics.len())).collect(), ics }
    }

    /// Whether the external line of vCPU `index` has to be high: one load.
    #[must_use]
    pub fn pending(&self, index: usize) -> bool {
        self.icps[index].registers().xisr() != 0
    }

    /// H_XIRR, and r4 of H_XIRR_X: accepts what is pending for vCPU `index`. CPPR, as it was, in the high byte and the source
    /// below, or 0 where nothing is pending.
    #[must_use]
    pub fn xirr(&self, index: usize) -> u32 {
        self.icps[index].accept().xirr()
    }

    /// H_EOI by vCPU `index`: sets CPPR to the high byte of `xirr` (the low word of r4) and ends the interrupt in the low three.
    /// A bad source is an error only after CPPR is set, as in KVM.
    ///
    /// # Errors
    /// When there is no such source.
    pub fn eoi(&self, index: usize, xirr: u32, notify: impl Fn(usize)) -> Result<(), XicsError> {
        self.cppr(index, (xirr >> 24) as u8, &notify);
        let irq = xirr & (END_OF_SOURCES - 1);
        if irq == IPI {
            return Ok(());
        }
        let place = self.place(irq)?;
        if self.ics.end(place).is_deliverable() {
            self.deliver(place, &notify);
        }
        Ok(())
    }

    /// H_CPPR by vCPU `index`, with the low byte of r4.
    pub fn cppr(&self, index: usize, cppr: u8, notify: impl Fn(usize)) {
        let change = self.icps[index].set_cppr(cppr);
        self.follow_up(index, change, &notify);
    }

    /// H_IPI: asks vCPU `server` for an IPI of priority `mfrr` (the low byte of r5); 0xff takes the request back.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn ipi(&self, server: usize, mfrr: u8, notify: impl Fn(usize)) -> Result<(), XicsError> {
        let change = self.icp(server)?.set_mfrr(mfrr);
        self.follow_up(server, change, &notify);
        Ok(())
    }

    /// H_IPOLL: XIRR and MFRR of vCPU `server`, nothing accepted.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn ipoll(&self, server: usize) -> Result<(u32, u8), XicsError> {
        let registers = self.icp(server)?.registers();
        Ok((registers.xirr(), registers.mfrr()))
    }

    /// `ibm,set-xive`: routes a source. An interrupt that waits goes to the new server; one that is in a server's XISR stays.
    ///
    /// # Errors
    /// When there is no such source, server or priority.
    pub fn set_xive(
        &self,
        irq: u32,
        server: usize,
        priority: u32,
        notify: impl Fn(usize),
    ) -> Result<(), XicsError> {
        let place = self.place(irq)?;
        self.icp(server)?;
        let server = u16::try_from(server).map_err(|_| XicsError::Server)?;
        let priority = u8::try_from(priority).map_err(|_| XicsError::Priority)?;
        self.route(place, |source| source.routed(server, priority, priority), &notify);
        Ok(())
    }

    /// `ibm,get-xive`: server and priority of a source; 0xff is masked.
    ///
    /// # Errors
    /// When there is no such source.
    pub fn get_xive(&self, irq: u32) -> Result<(usize, u8), XicsError> {
        let source = self.ics.source(self.place(irq)?);
        Ok((source.server(), source.priority()))
    }

    /// `ibm,int-off`: masks a source and saves its priority. What the device tells meanwhile is kept.
    ///
    /// # Errors
    /// When there is no such source.
    pub fn int_off(&self, irq: u32) -> Result<(), XicsError> {
        self.ics.change(self.place(irq)?, Source::off);
        Ok(())
    }

    /// `ibm,int-on`: gives a source its saved priority back, and sends what was kept.
    ///
    /// # Errors
    /// When there is no such source.
    pub fn int_on(&self, irq: u32, notify: impl Fn(usize)) -> Result<(), XicsError> {
        self.route(self.place(irq)?, Source::on, &notify);
        Ok(())
    }

    /// The device sets its line. Of an edge source `true` is one event and `false` nothing.
    ///
    /// # Errors
    /// When there is no such source.
    pub fn set(&self, irq: u32, level: bool, notify: impl Fn(usize)) -> Result<(), XicsError> {
        self.route(self.place(irq)?, |source| source.driven(level), &notify);
        Ok(())
    }

    /// The machine boots: every source masked, nothing pending, every server as [`reset_server`](Self::reset_server) says.
    /// No vCPU runs. Lines of LSIs stay as their devices have them.
    pub fn reset(&self) {
        // Servers first: a device that carries an event just now finds its server closed and puts it back.
        self.icps.iter().for_each(Icp::reset);
        self.ics.reset();
    }

    /// vCPU `index` is started again: CPPR 0 (it accepts nothing), MFRR 0xff, nothing pending. The source that was pending
    /// goes back, and like all that wait for this server is sent when CPPR next grows.
    pub fn reset_server(&self, index: usize, notify: impl Fn(usize)) {
        let change = self.icps[index].restart();
        self.follow_up(index, change, &notify);
    }

    fn place(&self, irq: u32) -> Result<usize, XicsError> {
        self.ics.find(irq).ok_or(XicsError::Source)
    }

    fn icp(&self, server: usize) -> Result<&Icp, XicsError> {
        self.icps.get(server).ok_or(XicsError::Server)
    }

    /// Changes a source, and delivers it if it asks for that now.
    fn route(&self, place: usize, change: impl Fn(Source) -> Source, notify: &impl Fn(usize)) {
        if self.ics.change(place, change).is_deliverable() {
            self.deliver(place, notify);
        }
    }
}

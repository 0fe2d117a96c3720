//! KVM's XIVE in exploitation mode (Documentation/virt/kvm/devices/xive.rst).
//!
//! The device maps the hardware's pages: the TIMA at page 0 of its descriptor and, from page 4, two pages for each
//! source, of which the even one triggers and the odd one manages. What the guest may touch of it becomes memory
//! slots, so the guest reaches it without an exit: the TIMA's page of the OS ring and the pages of sources that
//! exist. KVM has nothing behind the other pages, and KVM_RUN would fail with EFAULT for a guest that touched one; so
//! they are no slots, and an access is an exit like any other to nowhere.
//!
//! Behind every source is an event of the hardware's, level sources included: KVM triggers it when their line is asserted,
//! and forgets. That the line still is when the guest has ended the interrupt is ours to see; so the guest is told to reach
//! those sources' management pages by hcall, and [`Xive::esb`] triggers again.
//!
//! ```text
//!  device: line := asserted │ trigger                        Of the two that run at once, either the trigger comes after
//!  guest:  PQ := 00         │ line asserted? trigger         PQ is open, or the look at the line sees it asserted.
//! ```

use super::device::Device;
use super::vm::VmFd;
use crate::bindings::ppc64::*;
use crate::fd::Mapping;
use arch_api::HvError;
use arch_api::ppc64::{Trigger, VmSpec, Xive, XivePages, XiveQueue, XiveRoute};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Four pages, one a ring.
const TIMA_PAGES: u64 = 4;

/// The ring of the guest's kernel.
const TIMA_OS_PAGE: u64 = 2;

/// The number of priorities that a server has, the hypervisor's own last.
const PRIORITIES: u64 = 8;

/// Loads that leave a source ready for its next event: the end of an interrupt, which says whether one came meanwhile, and
/// the plain opening.
const ESB_LOAD_EOI: u64 = 0x000;
const ESB_SET_PQ_00: u64 = 0xc00;

#[derive(Debug)]
struct Source {
    lisn: u32,
    /// Of a level source: its line.
    asserted: Option<AtomicBool>,
}

impl Source {
    fn new(&(lisn, trigger): &(u32, Trigger)) -> Self {
        Self { lisn, asserted: (trigger == Trigger::Level).then(AtomicBool::default) }
    }
}

#[derive(Debug)]
pub(crate) struct XiveDevice {
    pub device: Device,
    tima: Mapping,
    esb: Mapping,
    page_size: u64,
    /// Every source that exists, ascending.
    sources: OnceLock<Vec<Source>>,
    /// Servers that have been connected, to find the queues again at a reset.
    servers: Vec<u32>,
}

impl XiveDevice {
    pub fn create(vm: &VmFd, spec: &VmSpec, page_size: u64) -> Result<Self, HvError> {
        let device = Device::create(vm, KVM_DEV_TYPE_XIVE, "KVM_CREATE_DEVICE(XIVE)")?;
        let servers = spec.servers.iter().max().map_or(1, |last| last + 1);
        if device.has(KVM_DEV_XIVE_GRP_CTRL, u64::from(KVM_DEV_XIVE_NR_SERVERS)) {
            let attr = u64::from(KVM_DEV_XIVE_NR_SERVERS);
            device.set(KVM_DEV_XIVE_GRP_CTRL, attr, &servers, "KVM_DEV_XIVE_NR_SERVERS")?;
        }
        let map = |pages: u64, first: u32, call| {
            Mapping::new(&device.fd, (pages * page_size) as usize, u64::from(first) * page_size, call)
        };
        let tima = map(TIMA_PAGES, KVM_XIVE_TIMA_PAGE_OFFSET, "mmap(XIVE TIMA)")?;
        let esb = map(2 * u64::from(spec.xive.sources), KVM_XIVE_ESB_PAGE_OFFSET, "mmap(XIVE ESB)")?;
        Ok(Self { device, tima, esb, page_size, sources: OnceLock::new(), servers: spec.servers.clone() })
    }

    /// The memory slots: guest address, host address, length.
    pub fn slots(&self, pages: XivePages) -> Vec<(u64, u64, u64)> {
        let slot = |guest: u64, map: &Mapping, offset: u64, length: u64| {
            (guest + offset, map.as_ptr() as u64 + offset, length)
        };
        let mut slots = vec![slot(pages.tima, &self.tima, TIMA_OS_PAGE * self.page_size, self.page_size)];
        let sources = self.sources.get().map_or(&[][..], Vec::as_slice);
        for run in sources.chunk_by(|a, b| a.lisn + 1 == b.lisn) {
            let stride = 2 * self.page_size;
            slots.push(slot(
                pages.esb,
                &self.esb,
                u64::from(run[0].lisn) * stride,
                run.len() as u64 * stride,
            ));
        }
        slots
    }

    pub fn create_sources(&self, sources: &[(u32, Trigger)]) -> Result<(), HvError> {
        for &(lisn, trigger) in sources {
            let kind = match trigger {
                Trigger::Edge => 0,
                Trigger::Level => u64::from(KVM_XIVE_LEVEL_SENSITIVE),
            };
            self.device.set(KVM_DEV_XIVE_GRP_SOURCE, u64::from(lisn), &kind, "KVM_DEV_XIVE_GRP_SOURCE")?;
        }
        // Called once, before anything else of the device is used.
        let _ = self.sources.set(sources.iter().map(Source::new).collect());
        Ok(())
    }

    fn source(&self, lisn: u32) -> Option<&Source> {
        let sources = self.sources.get()?;
        sources.binary_search_by_key(&lisn, |source| source.lisn).ok().map(|place| &sources[place])
    }

    /// Before the trigger: notes the line of a level source.
    pub fn note_level(&self, lisn: u32, level: bool) {
        if let Some(Source { asserted: Some(asserted), .. }) = self.source(lisn) {
            asserted.store(level, Ordering::Relaxed);
            // Pairs with that of `opened`; the trigger follows.
            fence(Ordering::SeqCst);
        }
    }

    /// What KVM_IRQ_LINE would do (`kvmppc_xive_set_irq`), without the system call: an edge, or a line that is asserted, triggers; a line that
    /// falls does nothing. `false` if there is no such source.
    pub fn trigger(&self, lisn: u32, level: bool) -> bool {
        let exists = self.source(lisn).is_some();
        if exists && level {
            // What the device wrote to memory comes before the store, which is not to memory; on POWER only `sync` orders the two.
            fence(Ordering::SeqCst);
            self.access(2 * u64::from(lisn), 0, Some(0));
        }
        exists
    }

    /// After a level source has been opened: triggers it if its line is asserted.
    fn opened(&self, lisn: u32, asserted: &AtomicBool) {
        // Pairs with that of `note_level`; the opening came before.
        fence(Ordering::SeqCst);
        if asserted.load(Ordering::Relaxed) {
            self.access(2 * u64::from(lisn), 0, Some(0));
        }
    }

    /// Loads from or stores to page `page` of the ESBs.
    fn access(&self, page: u64, offset: u64, store: Option<u64>) -> u64 {
        let within = page * self.page_size + offset;
        assert!(offset % 8 == 0 && offset < self.page_size && within + 8 <= self.esb.len() as u64);
        // SAFETY: the assertion keeps the access within the mapping and aligned; callers name a source that exists, whose
        // pages KVM has for sure. It is the hardware's register: big-endian, each access has its effect once.
        unsafe {
            let page = self.esb.as_ptr().add(within as usize).cast::<u64>();
            match store {
                Some(value) => {
                    page.write_volatile(value.to_be());
                    0
                }
                None => u64::from_be(page.read_volatile()),
            }
        }
    }

    fn queue_attr(server: u32, priority: u8) -> u64 {
        u64::from(server) << KVM_XIVE_EQ_SERVER_SHIFT | u64::from(priority) << KVM_XIVE_EQ_PRIORITY_SHIFT
    }
}

impl Xive for XiveDevice {
    fn set_source(&self, lisn: u32, route: XiveRoute) -> Result<(), HvError> {
        let word = u64::from(route.priority) << KVM_XIVE_SOURCE_PRIORITY_SHIFT
            | u64::from(route.server) << KVM_XIVE_SOURCE_SERVER_SHIFT
            | u64::from(route.masked) << KVM_XIVE_SOURCE_MASKED_SHIFT
            | u64::from(route.eisn) << KVM_XIVE_SOURCE_EISN_SHIFT;
        let call = "KVM_DEV_XIVE_GRP_SOURCE_CONFIG";
        self.device.set(KVM_DEV_XIVE_GRP_SOURCE_CONFIG, u64::from(lisn), &word, call)
    }

    fn set_queue(&self, server: u32, priority: u8, queue: XiveQueue) -> Result<(), HvError> {
        let eq = kvm_ppc_xive_eq {
            flags: KVM_XIVE_EQ_ALWAYS_NOTIFY,
            qshift: queue.shift,
            qaddr: queue.address,
            qtoggle: queue.toggle,
            qindex: queue.index,
            ..Default::default()
        };
        let attr = Self::queue_attr(server, priority);
        self.device.set(KVM_DEV_XIVE_GRP_EQ_CONFIG, attr, &eq, "KVM_DEV_XIVE_GRP_EQ_CONFIG")
    }

    fn queue(&self, server: u32, priority: u8) -> Result<XiveQueue, HvError> {
        let mut eq = kvm_ppc_xive_eq::default();
        let attr = Self::queue_attr(server, priority);
        self.device.get(KVM_DEV_XIVE_GRP_EQ_CONFIG, attr, &mut eq, "KVM_DEV_XIVE_GRP_EQ_CONFIG")?;
        Ok(XiveQueue { address: eq.qaddr, shift: eq.qshift, toggle: eq.qtoggle, index: eq.qindex })
    }

    fn sync(&self, lisn: u32) -> Result<(), HvError> {
        self.device.command(KVM_DEV_XIVE_GRP_SOURCE_SYNC, u64::from(lisn), "KVM_DEV_XIVE_GRP_SOURCE_SYNC")
    }

    fn esb(&self, lisn: u32, offset: u64, store: Option<u64>) -> u64 {
        let page = 2 * u64::from(lisn) + 1;
        match (self.source(lisn), store, offset) {
            (None, _, _) => panic!("no source {lisn:#x}"),
            (Some(Source { asserted: Some(asserted), .. }), None, ESB_LOAD_EOI | ESB_SET_PQ_00) => {
                let before = self.access(page, ESB_SET_PQ_00, None);
                self.opened(lisn, asserted);
                // The next interrupt is sent already, so the end of this one has nothing to say.
                if offset == ESB_LOAD_EOI { 0 } else { before }
            }
            _ => self.access(page, offset, store),
        }
    }

    fn reset(&self) -> Result<(), HvError> {
        self.device.command(KVM_DEV_XIVE_GRP_CTRL, u64::from(KVM_DEV_XIVE_RESET), "KVM_DEV_XIVE_RESET")
    }
}

impl XiveDevice {
    /// Power-on state: as H_INT_RESET, and every queue of every server gone.
    pub fn power_on(&self) -> Result<(), HvError> {
        self.reset()?;
        for &server in &self.servers {
            for priority in 0..PRIORITIES as u8 - 1 {
                self.set_queue(server, priority, XiveQueue::default())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::tests::stand_in;
    use std::os::unix::fs::FileExt;

    const PAGE: u64 = 0x1_0000;

    /// A device with sources 1 and 3 of four, the latter a level source, on a file that holds the pages.
    fn device() -> (XiveDevice, std::fs::File) {
        let (fd, file) = stand_in((KVM_XIVE_ESB_PAGE_OFFSET as u64 + 8) * PAGE);
        let map =
            |pages, first: u32| Mapping::new(&fd, (pages * PAGE) as usize, u64::from(first) * PAGE, "mmap");
        let tima = map(TIMA_PAGES, KVM_XIVE_TIMA_PAGE_OFFSET).unwrap();
        let esb = map(8, KVM_XIVE_ESB_PAGE_OFFSET).unwrap();
        let sources = [(1, Trigger::Edge), (3, Trigger::Level)].iter().map(Source::new);
        let sources = OnceLock::from(sources.collect::<Vec<_>>());
        (XiveDevice { device: Device { fd }, tima, esb, page_size: PAGE, sources, servers: vec![0] }, file)
    }

    /// Where the management page of a source is in the descriptor.
    fn management(lisn: u64) -> u64 {
        (u64::from(KVM_XIVE_ESB_PAGE_OFFSET) + 2 * lisn + 1) * PAGE
    }

    #[test]
    fn esb_accesses_are_big_endian_in_the_management_page() {
        let (device, file) = device();
        let value = 0x0102_0304_0506_0708u64;
        file.write_all_at(&value.to_be_bytes(), management(3) + 0x800).unwrap();
        assert_eq!(device.esb(3, 0x800, None), value);
        assert_eq!(device.esb(1, PAGE - 8, Some(value)), 0);
        let mut stored = [0; 8];
        file.read_exact_at(&mut stored, management(1) + PAGE - 8).unwrap();
        assert_eq!(stored, value.to_be_bytes());
    }

    #[test]
    fn esb_accesses_elsewhere_do_not_happen() {
        for (lisn, offset) in [(0, 0), (2, 0), (4, 0), (u32::MAX, 0), (3, 4), (3, PAGE), (3, u64::MAX - 7)] {
            let access = std::panic::catch_unwind(|| device().0.esb(lisn, offset, Some(1)));
            assert!(access.is_err(), "{lisn} {offset:#x}");
        }
    }

    /// What stands in the file where the trigger page and PQ=00 of source 3 are: a store and a load leave their marks there.
    const TRIGGER_3: u64 = (KVM_XIVE_ESB_PAGE_OFFSET as u64 + 6) * PAGE;

    #[test]
    fn a_level_source_that_is_still_asserted_triggers_again() {
        let (device, file) = device();
        file.write_all_at(&2u64.to_be_bytes(), management(3) + ESB_SET_PQ_00).unwrap();
        let triggered = || {
            let mut page = [0; 8];
            file.read_exact_at(&mut page, TRIGGER_3).unwrap();
            file.write_all_at(&[1; 8], TRIGGER_3).unwrap();
            page == [0; 8]
        };
        triggered();
        for (level, again) in [(false, false), (true, true), (false, false)] {
            device.note_level(3, level);
            device.note_level(1, true);
            assert_eq!(device.esb(3, ESB_LOAD_EOI, None), 0, "not what PQ was");
            assert_eq!(triggered(), again, "after the end with {level}");
            assert_eq!(device.esb(3, ESB_SET_PQ_00, None), 2);
            assert_eq!(triggered(), again, "after the opening with {level}");
            assert_eq!(device.esb(3, 0xd00, None), 0);
            assert_eq!(device.esb(3, 0x800, None), 0);
            assert!(!triggered(), "PQ is looked at, or closed");
        }
        device.note_level(2, true);
        device.note_level(u32::MAX, true);
    }

    #[test]
    fn sources_that_exist_are_triggered_by_a_store() {
        let (device, file) = device();
        let stored = || {
            let mut page = [0; 8];
            file.read_exact_at(&mut page, TRIGGER_3).unwrap();
            page == [0; 8]
        };
        file.write_all_at(&[1; 8], TRIGGER_3).unwrap();
        assert!(device.trigger(3, false) && !stored(), "a line that falls");
        assert!(device.trigger(3, true) && stored());
        assert!(!device.trigger(2, true) && !device.trigger(u32::MAX, true), "there is none");
    }

    #[test]
    fn slots_are_what_the_guest_may_touch() {
        let (device, _file) = device();
        let slots = device.slots(XivePages { tima: 0x111_0000, esb: 0x222_0000, sources: 4 });
        let guest: Vec<_> = slots.iter().map(|&(address, _, length)| (address, length)).collect();
        let source = |lisn: u64| (0x222_0000 + 2 * lisn * PAGE, 2 * PAGE);
        assert_eq!(guest, [(0x111_0000 + 2 * PAGE, PAGE), source(1), source(3)]);
        assert_eq!(slots[2].1 - slots[1].1, 4 * PAGE);
    }

    #[test]
    fn queues_are_numbered_by_server_and_priority() {
        assert_eq!(XiveDevice::queue_attr(0, 6), 6);
        assert_eq!(XiveDevice::queue_attr(0x1234, 5), 0x1234 << 3 | 5);
    }
}

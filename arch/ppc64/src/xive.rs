//! What the guest asked of its XIVE sources, as far as the hypervisor cannot be asked back.

use arch_api::ppc64::{Trigger, XiveRoute};
use std::sync::atomic::{AtomicU64, Ordering};

/// Priorities that a guest may use are 0 to 6; 7 is the hypervisor's (`ibm,plat-res-int-priorities`).
pub const RESERVED_PRIORITY: u64 = 7;

/// The priority that masks.
pub const MASKED_PRIORITY: u64 = 0xff;

/// The guest's sources and where each is routed.
///
/// A route is one word, in the layout of KVM's source configuration, so that it is replaced whole.
pub struct XiveRoutes {
    /// Ascending by LISN.
    sources: Vec<Source>,
}

struct Source {
    lisn: u32,
    trigger: Trigger,
    route: AtomicU64,
}

const MASKED: XiveRoute = XiveRoute { server: 0, priority: 0, eisn: 0, masked: true };

impl XiveRoutes {
    /// These LISNs, which ascend, all masked.
    #[must_use]
    pub fn new(sources: &[(u32, Trigger)]) -> Self {
        let masked = |&(lisn, trigger)| Source { lisn, trigger, route: AtomicU64::new(pack(MASKED)) };
        Self { sources: sources.iter().map(masked).collect() }
    }

    /// How a source triggers, or `None` where there is no such source.
    #[must_use]
    pub fn trigger(&self, lisn: u64) -> Option<Trigger> {
        self.source(lisn).map(|source| source.trigger)
    }

    /// The route of a source, or `None` where there is no such source.
    #[must_use]
    pub fn get(&self, lisn: u64) -> Option<XiveRoute> {
        self.source(lisn).map(|source| unpack(source.route.load(Ordering::Relaxed)))
    }

    /// Records a route. A source that does not exist stays so.
    pub fn set(&self, lisn: u64, route: XiveRoute) {
        if let Some(source) = self.source(lisn) {
            source.route.store(pack(route), Ordering::Relaxed);
        }
    }

    /// Masks everything.
    pub fn reset(&self) {
        for source in &self.sources {
            source.route.store(pack(MASKED), Ordering::Relaxed);
        }
    }

    fn source(&self, lisn: u64) -> Option<&Source> {
        let index = self.sources.binary_search_by_key(&lisn, |source| u64::from(source.lisn)).ok()?;
        Some(&self.sources[index])
    }
}

/// KVM_XIVE_SOURCE_*: priority in bits 2:0, server in 31:3 (29 bits), masked in 32, EISN in 63:33.
#[must_use]
pub fn pack(route: XiveRoute) -> u64 {
    u64::from(route.priority & 7)
        | u64::from(route.server & 0x1fff_ffff) << 3
        | u64::from(route.masked) << 32
        | u64::from(route.eisn) << 33
}

fn unpack(word: u64) -> XiveRoute {
    XiveRoute {
        priority: (word & 7) as u8,
        server: (word >> 3) as u32 & 0x1fff_ffff,
        masked: word >> 32 & 1 != 0,
        eisn: (word >> 33) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_survive_packing() {
        let route = XiveRoute { server: 0x1fff_ffff, priority: 5, eisn: 0x7fff_ffff, masked: false };
        assert_eq!(unpack(pack(route)), route);
        assert_eq!(unpack(pack(MASKED)), MASKED);
    }

    #[test]
    fn only_sources_that_exist_have_routes() {
        let routes = XiveRoutes::new(&[(0, Trigger::Edge), (1, Trigger::Edge), (0x1000, Trigger::Level)]);
        let route = XiveRoute { server: 1, priority: 6, eisn: 9, masked: false };
        routes.set(0x1000, route);
        routes.set(2, route);
        assert_eq!(routes.get(0x1000), Some(route));
        assert_eq!(routes.get(2), None);
        assert_eq!(
            [1, 2, 0x1000].map(|l| routes.trigger(l)),
            [Some(Trigger::Edge), None, Some(Trigger::Level)]
        );
        assert_eq!(routes.get(u64::MAX), None);
        routes.reset();
        assert_eq!(routes.get(0x1000), Some(MASKED));
    }
}

//! A guest that ends what it never accepted, starts vCPUs that run and names what is not there: it may harm itself, but no call
//! panics, no event is made up, and none is lost once the guest behaves again.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;

const SERVERS: usize = 2;
const SOURCES: [u32; 3] = [0x1000, 0x1001, 0x1300];

#[derive(Debug, Clone)]
enum Step {
    Xirr(usize),
    Eoi(usize, u32),
    Cppr(usize, u8),
    Ipi(usize, u8),
    Ipoll(usize),
    SetXive(u32, usize, u32),
    Off(u32),
    On(u32),
    Set(usize, bool),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let server = 0..SERVERS;
    let named = || prop_oneof![4 => 0..SERVERS, 1 => any::<usize>()];
    let irq = || prop_oneof![8 => select(SOURCES.to_vec()), 1 => select(vec![0, 1, IPI, 0x1002]), 1 => any::<u32>()];
    let byte = || prop_oneof![4 => select(vec![0u8, 4, 5, 6, 0xff]), 1 => any::<u8>()];
    let priority = prop_oneof![4 => byte().prop_map(u32::from), 1 => any::<u32>()];
    prop_oneof![
        4 => server.clone().prop_map(Step::Xirr),
        4 => (server.clone(), byte(), irq()).prop_map(|(s, cppr, irq)| Step::Eoi(s, u32::from(cppr) << 24 | irq & 0xff_ffff)),
        2 => (server.clone(), byte()).prop_map(|(s, cppr)| Step::Cppr(s, cppr)),
        1 => (named(), byte()).prop_map(|(s, mfrr)| Step::Ipi(s, mfrr)),
        1 => named().prop_map(Step::Ipoll),
        2 => (irq(), named(), priority).prop_map(|(irq, s, priority)| Step::SetXive(irq, s, priority)),
        1 => irq().prop_map(Step::Off),
        1 => irq().prop_map(Step::On),
        6 => (0..SOURCES.len(), any::<bool>()).prop_map(|(n, level)| Step::Set(n, level)),
        1 => server.prop_map(Step::Restart),
    ]
}

/// The controller, and how often each source was triggered and accepted.
struct Guest {
    xics: Xics,
    triggered: [usize; SOURCES.len()],
    accepted: [usize; SOURCES.len()],
    owed: [bool; SOURCES.len()],
}

impl Guest {
    fn xirr(&mut self, server: usize) -> u32 {
        let xirr = self.xics.xirr(server);
        if let Some(n) = SOURCES.iter().position(|irq| *irq == xirr & 0xff_ffff) {
            self.accepted[n] += 1;
            self.owed[n] = false;
        }
        xirr
    }

    /// Answers of the guest's own making do not matter.
    fn step(&mut self, step: &Step) {
        let xics = &self.xics;
        match *step {
            Step::Xirr(server) => {
                self.xirr(server);
            }
            Step::Eoi(server, xirr) => xics.eoi(server, xirr, quiet).unwrap_or_default(),
            Step::Cppr(server, cppr) => xics.cppr(server, cppr, quiet),
            Step::Ipi(server, mfrr) => xics.ipi(server, mfrr, quiet).unwrap_or_default(),
            Step::Ipoll(server) => assert_eq!(xics.ipoll(server).is_ok(), server < SERVERS),
            Step::SetXive(irq, server, priority) => {
                xics.set_xive(irq, server, priority, quiet).unwrap_or_default();
            }
            Step::Off(irq) => xics.int_off(irq).unwrap_or_default(),
            Step::On(irq) => xics.int_on(irq, quiet).unwrap_or_default(),
            Step::Set(n, level) => {
                self.triggered[n] += usize::from(level);
                self.owed[n] |= level;
                xics.set(SOURCES[n], level, quiet).unwrap();
            }
            Step::Restart(server) => xics.reset_server(server, quiet),
        }
    }

    /// Everything open, nothing asked for, and all that may have been accepted is ended.
    fn behave(&mut self) {
        for irq in SOURCES {
            self.xics.set_xive(irq, 0, 5, quiet).unwrap();
        }
        for server in 0..SERVERS {
            self.xics.ipi(server, 0xff, quiet).unwrap();
        }
        let ends = SOURCES.map(|irq| 0xff << 24 | irq);
        for server in 0..SERVERS {
            ends.into_iter().for_each(|end| self.xics.eoi(server, end, quiet).unwrap());
        }
        while let Some(server) = (0..SERVERS).find(|server| self.xics.pending(*server)) {
            let xirr = self.xirr(server);
            self.xics.eoi(server, xirr, quiet).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_guest_neither_loses_nor_invents_events(steps in proptest::collection::vec(step(), 1..200)) {
        let xics = Xics::new(SERVERS, &SOURCES.map(|irq| (irq, Trigger::Edge)));
        let (triggered, accepted, owed) = Default::default();
        let mut guest = Guest { xics, triggered, accepted, owed };
        for step in &steps {
            guest.step(step);
            let counts = guest.accepted.iter().zip(&guest.triggered);
            prop_assert!(counts.into_iter().all(|(accepted, triggered)| accepted <= triggered));
        }
        guest.behave();
        prop_assert_eq!(guest.owed, [false; SOURCES.len()]);
        prop_assert!(guest.accepted.iter().zip(&guest.triggered).all(|(accepted, triggered)| accepted <= triggered));
    }
}

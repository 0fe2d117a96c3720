//! The controller against a simple one, over random operations.
//!
//! The model keeps a record per source and per server and no words, flags or bitmaps: after each operation it looks at every source that
//! waits and at every server, until nothing changes. Which of several waiting sources of one priority goes first is not
//! PAPR's to say, so the model takes what the controller took, if it was one of them.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;

const SERVERS: usize = 3;
/// More than a word of the bitmap apart, with sources that nobody uses between.
const USED: [u32; 5] = [16, 0x1000, 0x1200, 0x1300, 0xff_ffff];
const LEVEL: u32 = 0x1200;

fn sources() -> Vec<(u32, Trigger)> {
    let unused = (0x2000..0x2000 + 150).map(|irq| (irq, Trigger::Edge));
    let trigger = |irq| if irq == LEVEL { Trigger::Level } else { Trigger::Edge };
    unused.chain(USED.map(|irq| (irq, trigger(irq)))).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nowhere: nothing to tell.
    Idle,
    /// With its source, waiting.
    Source,
    /// In a server's XISR.
    Server(usize),
    /// Accepted, not ended.
    Guest,
}

#[derive(Debug)]
struct ModelSource {
    irq: u32,
    level: bool,
    server: usize,
    priority: u8,
    saved: u8,
    /// Where its event is.
    at: At,
    /// Came while an event was past the source; or the line is asserted.
    more: bool,
}

#[derive(Debug)]
struct ModelServer {
    cppr: u8,
    mfrr: u8,
    /// XISR and its priority.
    pending: Option<(u32, u8)>,
}

impl ModelServer {
    fn takes(&self, priority: u8) -> bool {
        priority < self.cppr && priority < self.mfrr && self.pending.is_none_or(|(_, p)| priority < p)
    }
}

#[derive(Debug)]
struct Model {
    sources: Vec<ModelSource>,
    servers: Vec<ModelServer>,
}

impl Model {
    fn new() -> Self {
        let source = |irq| ModelSource {
            irq,
            level: irq == LEVEL,
            server: 0,
            priority: 0xff,
            saved: 0xff,
            at: At::Idle,
            more: false,
        };
        let server = |_| ModelServer { cppr: 0, mfrr: 0xff, pending: None };
        Self { sources: USED.into_iter().map(source).collect(), servers: (0..SERVERS).map(server).collect() }
    }

    fn source(&mut self, irq: u32) -> &mut ModelSource {
        self.sources.iter_mut().find(|source| source.irq == irq).expect("a source of the model")
    }

    /// The event in a server's XISR goes back to its source.
    fn send_back(&mut self, server: usize) {
        if let Some((irq, _)) = self.servers[server].pending.take() {
            if irq != IPI {
                self.source(irq).at = At::Source;
            }
        }
    }

    /// Sources and servers meet until there is nothing more to do. `shown` is what the controller has in each XISR, which
    /// decides between sources that are equal.
    fn settle(&mut self, shown: &[u32; SERVERS]) {
        loop {
            for index in 0..SERVERS {
                let server = &self.servers[index];
                let ipi = server.mfrr < server.cppr;
                if ipi && server.pending.is_none_or(|(_, priority)| server.mfrr <= priority) {
                    let mfrr = server.mfrr;
                    self.send_back(index);
                    self.servers[index].pending = Some((IPI, mfrr));
                }
            }
            for source in &mut self.sources {
                // An asserted line, and an edge that came later, are told of when the one before is done with.
                if source.at == At::Idle && source.more {
                    source.at = At::Source;
                }
                if source.at == At::Source {
                    source.more &= source.level;
                    if source.level && !source.more {
                        source.at = At::Idle;
                    }
                }
            }
            let waits = |s: &&ModelSource| {
                s.at == At::Source && s.priority != 0xff && self.servers[s.server].takes(s.priority)
            };
            let best =
                self.sources.iter().filter(waits).min_by_key(|s| (s.priority, s.irq != shown[s.server]));
            let Some((irq, server, priority)) = best.map(|s| (s.irq, s.server, s.priority)) else { return };
            self.send_back(server);
            self.servers[server].pending = Some((irq, priority));
            self.source(irq).at = At::Server(server);
        }
    }

    fn xirr(&mut self, server: usize) -> u32 {
        let cppr = self.servers[server].cppr;
        let Some((irq, priority)) = self.servers[server].pending.take() else { return u32::from(cppr) << 24 };
        self.servers[server].cppr = priority;
        if irq != IPI {
            let source = self.source(irq);
            assert_eq!(source.at, At::Server(server));
            source.at = At::Guest;
        }
        u32::from(cppr) << 24 | irq
    }

    fn cppr(&mut self, server: usize, cppr: u8) {
        if self.servers[server].pending.is_some_and(|(_, priority)| priority >= cppr) {
            self.send_back(server);
        }
        self.servers[server].cppr = cppr;
    }

    fn end(&mut self, irq: u32) {
        let source = self.source(irq);
        assert_eq!(source.at, At::Guest);
        source.at = At::Idle;
    }

    fn drive(&mut self, irq: u32, level: bool) {
        let source = self.source(irq);
        source.more = level || (source.more && !source.level);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Xirr(usize),
    /// Ends what the server accepted last.
    Eoi(usize),
    Cppr(usize, u8),
    Ipi(usize, u8),
    SetXive(u32, usize, u8),
    Off(u32),
    On(u32),
    Set(u32, bool),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let server = 0..SERVERS;
    let irq = || select(USED.to_vec());
    // Few of them, so that they meet.
    let priority = || select(vec![0u8, 3, 4, 5, 6, 0xff]);
    prop_oneof![
        6 => server.clone().prop_map(Step::Xirr),
        6 => server.clone().prop_map(Step::Eoi),
        3 => (server.clone(), priority()).prop_map(|(server, cppr)| Step::Cppr(server, cppr)),
        2 => (server.clone(), priority()).prop_map(|(server, mfrr)| Step::Ipi(server, mfrr)),
        3 => (irq(), server.clone(), priority()).prop_map(|(irq, server, priority)| Step::SetXive(irq, server, priority)),
        1 => irq().prop_map(Step::Off),
        1 => irq().prop_map(Step::On),
        8 => (irq(), any::<bool>()).prop_map(|(irq, level)| Step::Set(irq, level)),
        1 => server.prop_map(Step::Restart),
    ]
}

/// What a source's device and its handler counted.
#[derive(Debug, Default, Clone)]
struct Count {
    triggered: usize,
    accepted: usize,
    /// Triggered since it was accepted last.
    owed: bool,
}

/// Both controllers, and what each vCPU has accepted and not ended.
struct Pair {
    xics: Xics,
    model: Model,
    accepted: [Vec<u32>; SERVERS],
    counts: BTreeMap<u32, Count>,
}

impl Pair {
    fn new() -> Self {
        Self {
            xics: Xics::new(SERVERS, &sources()),
            model: Model::new(),
            accepted: Default::default(),
            counts: USED.map(|irq| (irq, Count::default())).into(),
        }
    }

    fn shown(&self) -> [u32; SERVERS] {
        std::array::from_fn(|server| self.xics.ipoll(server).unwrap().0 & 0xff_ffff)
    }

    /// One step on both; then all that can be seen is the same, and whoever has something new was told.
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let (before, told) = (self.shown(), Told::default());
        self.apply(step, told.note())?;
        let (after, told) = (self.shown(), told.take());
        self.model.settle(&after);
        for (index, server) in self.model.servers.iter().enumerate() {
            let xisr = server.pending.map_or(0, |(irq, _)| irq);
            let expected = (u32::from(server.cppr) << 24 | xisr, server.mfrr);
            prop_assert_eq!(self.xics.ipoll(index), Ok(expected), "server {} after {:?}", index, step);
            prop_assert_eq!(self.xics.pending(index), xisr != 0);
            let is_new = xisr != 0 && xisr != before[index];
            prop_assert!(!is_new || told.contains(&index), "server {} was not told: {:?}", index, step);
        }
        for source in &self.model.sources {
            prop_assert_eq!(self.xics.get_xive(source.irq), Ok((source.server, source.priority)));
        }
        Ok(())
    }

    fn apply(&mut self, step: &Step, note: impl Fn(usize)) -> Result<(), TestCaseError> {
        let (xics, model) = (&self.xics, &mut self.model);
        match *step {
            Step::Xirr(server) => {
                let xirr = xics.xirr(server);
                prop_assert_eq!(xirr, model.xirr(server));
                if xirr & 0xff_ffff != 0 {
                    self.accepted[server].push(xirr);
                    if let Some(count) = self.counts.get_mut(&(xirr & 0xff_ffff)) {
                        count.accepted += 1;
                        count.owed = false;
                    }
                }
            }
            Step::Eoi(server) => {
                let Some(xirr) = self.accepted[server].pop() else { return Ok(()) };
                xics.eoi(server, xirr, note).unwrap();
                model.cppr(server, (xirr >> 24) as u8);
                if xirr & 0xff_ffff != IPI {
                    model.end(xirr & 0xff_ffff);
                }
            }
            Step::Cppr(server, cppr) => {
                xics.cppr(server, cppr, note);
                model.cppr(server, cppr);
            }
            Step::Ipi(server, mfrr) => {
                xics.ipi(server, mfrr, note).unwrap();
                model.servers[server].mfrr = mfrr;
            }
            Step::SetXive(irq, server, priority) => {
                xics.set_xive(irq, server, priority.into(), note).unwrap();
                let source = model.source(irq);
                (source.server, source.priority, source.saved) = (server, priority, priority);
            }
            Step::Off(irq) => {
                xics.int_off(irq).unwrap();
                let source = model.source(irq);
                (source.saved, source.priority) = (source.priority, 0xff);
            }
            Step::On(irq) => {
                xics.int_on(irq, note).unwrap();
                let source = model.source(irq);
                source.priority = source.saved;
            }
            Step::Set(irq, level) => {
                xics.set(irq, level, note).unwrap();
                model.drive(irq, level);
                let count = self.counts.get_mut(&irq).expect("counted");
                count.triggered += usize::from(level);
                // A line that goes low takes back what it told.
                count.owed = level || (count.owed && irq != LEVEL);
            }
            Step::Restart(server) => {
                xics.reset_server(server, note);
                model.send_back(server);
                (model.servers[server].cppr, model.servers[server].mfrr) = (0, 0xff);
            }
        }
        Ok(())
    }

    /// The guest ends all it began, opens everything and serves what comes; an LSI's device is content then.
    fn quiesce(&mut self) -> Result<(), TestCaseError> {
        for irq in USED {
            self.step(&Step::SetXive(irq, 1, 5))?;
        }
        for server in 0..SERVERS {
            while !self.accepted[server].is_empty() {
                self.step(&Step::Eoi(server))?;
            }
            self.step(&Step::Cppr(server, 0xff))?;
        }
        // The end of one at a server may be its next event at another.
        while let Some(server) = (0..SERVERS).find(|server| self.xics.pending(*server)) {
            self.step(&Step::Xirr(server))?;
            self.step(&Step::Ipi(server, 0xff))?;
            if self.accepted[server].last().is_some_and(|xirr| xirr & 0xff_ffff == LEVEL) {
                self.step(&Step::Set(LEVEL, false))?;
            }
            self.step(&Step::Eoi(server))?;
        }
        for (irq, count) in &self.counts {
            prop_assert!(!count.owed, "{:#x} lost: {:?}", irq, count);
            prop_assert!(
                *irq == LEVEL || count.accepted <= count.triggered,
                "{:#x} invented: {:?}",
                irq,
                count
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Any operations in any order: what is seen is the model's, and in the end each event was accepted after it came, and
    /// none without need.
    #[test]
    fn the_controller_agrees_with_the_model(steps in proptest::collection::vec(step(), 1..200)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step)?;
        }
        pair.quiesce()?;
    }
}

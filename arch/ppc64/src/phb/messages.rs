//! Message-signalled interrupts: which sources are whose, which of them were granted, and where a message leads.
//!
//! Every function has a run of sources of its own, one a vector, for good: so a grant always finds them, one after the other,
//! as guests expect. A message carries the number of its source.

use crate::layout::{IRQ_MSI, IRQ_MSI_COUNT, PCI_MSI};
use devices::pci::{Bus, Function};
use irq::{Line, Message, Messages, Sink};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The sources of a function's messages.
#[derive(Debug)]
struct Run {
    devfn: u8,
    sources: Range<u32>,
    /// How many of them, from the first, `ibm,change-msi` has given to the function.
    granted: AtomicU32,
}

/// The sources of all functions' messages.
#[derive(Debug)]
pub struct MessageSources(Vec<Run>);

impl MessageSources {
    /// Deals them out to the functions of `bus`; who comes when there are none left has none.
    pub(super) fn new(bus: &Bus) -> Self {
        let mut next = IRQ_MSI;
        let run = |(devfn, function): (u8, &Arc<dyn Function>)| {
            let first = next;
            next = (first + u32::from(function.vectors())).min(IRQ_MSI + IRQ_MSI_COUNT);
            Run { devfn, sources: first..next, granted: AtomicU32::new(0) }
        };
        Self(bus.functions().map(run).collect())
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Range<u32> {
        IRQ_MSI..self.0.last().map_or(IRQ_MSI, |run| run.sources.end)
    }

    /// Those of a function.
    #[must_use]
    pub fn of(&self, devfn: u8) -> Option<Range<u32>> {
        Some(self.run(devfn)?.sources.clone())
    }

    fn run(&self, devfn: u8) -> Option<&Run> {
        self.0.iter().find(|run| run.devfn == devfn)
    }

    /// Gives function `devfn` so many messages, or as many as it has sources, or takes all back with 0: sets them in the
    /// function, and says how many it has now.
    pub fn grant(&self, devfn: u8, function: &dyn Function, wanted: u32) -> Option<u32> {
        let run = self.run(devfn)?;
        let granted = wanted.min(run.sources.len() as u32);
        if granted == 0 {
            function.enable_messages(false);
        }
        let sources = run.sources.clone().take(granted as usize).map(Some);
        for (vector, source) in (0..function.vectors()).zip(sources.chain(std::iter::repeat(None))) {
            function.set_message(vector, source.map_or(Message::default(), message));
        }
        if granted > 0 {
            function.enable_messages(true);
        }
        run.granted.store(granted, Ordering::Relaxed);
        Some(granted)
    }

    /// The source of message `index` of function `devfn`, if it was granted.
    #[must_use]
    pub fn granted(&self, devfn: u8, index: u32) -> Option<u32> {
        let run = self.run(devfn)?;
        (index < run.granted.load(Ordering::Relaxed)).then(|| run.sources.start + index)
    }

    /// Nobody was given any. The functions were reset.
    pub(super) fn reset(&self) {
        self.0.iter().for_each(|run| run.granted.store(0, Ordering::Relaxed));
    }
}

fn message(source: u32) -> Message {
    Message { address: PCI_MSI, data: source }
}

/// Where messages lead: to the bridge's own sources of an interrupt controller, and nowhere else.
pub struct Router {
    sink: Arc<dyn Sink>,
    sources: Range<u32>,
}

impl Router {
    /// Leads to `sources` of `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>, sources: Range<u32>) -> Self {
        Self { sink, sources }
    }
}

impl Messages for Router {
    fn route(&self, message: Message) -> Option<Line> {
        let ours = message.address == PCI_MSI && self.sources.contains(&message.data);
        ours.then(|| Line::new(Arc::clone(&self.sink), message.data))
    }
}

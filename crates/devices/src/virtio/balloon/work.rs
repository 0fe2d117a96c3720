//! The balloon's queues. A chain may name gigabytes, so it is worked on over several turns if need be: each has a budget of
//! pages and bytes, and a chain goes back only when it is done.

use super::ranges::{runs, whole};
use super::{FREE_PAGE_HINT, PAGE_REPORTING, Release, STATS_VQ, Shared};
use crate::dma::Memory;
use crate::virtio::{Activation, Backend, Buffers, NeedsReset, Ring};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Page numbers of one turn at most.
const TURN_PAGES: usize = 4096;

/// Bytes that are released in one turn at most. A multiple of every host's page, so that no page is cut in two.
const TURN_BYTES: u64 = 64 << 20;

/// Chains of one turn at most.
const TURN_CHAINS: usize = 64;

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Page numbers that go into the balloon.
    Inflate,
    /// Page numbers that come out of it.
    Deflate,
    /// Statistics, which nobody asks for.
    Stats,
    /// Free pages, when the device asks for them, which it does not.
    Hint,
    /// Free pages, when the driver wants to say so.
    Report,
}

impl Role {
    /// By the specification's numbers.
    pub(super) const ALL: [Self; 5] = [Self::Inflate, Self::Deflate, Self::Stats, Self::Hint, Self::Report];

    /// Whether a driver with these features has it.
    fn is_in(self, features: u64) -> bool {
        let bit = match self {
            Self::Inflate | Self::Deflate => return true,
            Self::Stats => STATS_VQ,
            Self::Hint => FREE_PAGE_HINT,
            Self::Report => PAGE_REPORTING,
        };
        features & 1 << bit != 0
    }
}

/// A queue and the chain that is worked on.
struct Lane {
    role: Role,
    index: u16,
    ring: Ring,
    /// Its head; the buffers are those of it that are still to be read.
    chain: Option<u16>,
    buffers: Buffers,
    /// The host's pages in it that are still to be released.
    ranges: VecDeque<Range<u64>>,
    is_unfinished: bool,
}

/// The device at work.
pub(super) struct Working {
    lanes: Vec<Lane>,
    host: Host,
    shared: Arc<Shared>,
}

/// What pages are taken from, and who gets them.
struct Host {
    memory: Memory,
    release: Arc<dyn Release>,
    /// The host refused once; that is logged once.
    has_refused: bool,
}

/// A page that the driver does not have.
#[derive(Debug, thiserror::Error)]
#[error("pages from {0:#x} on are not in memory")]
struct NotRam(u64);

/// What is left of a turn.
struct Budget {
    pages: usize,
    bytes: u64,
}

impl Working {
    pub(super) fn new(activation: Activation, release: Arc<dyn Release>, shared: Arc<Shared>) -> Self {
        let Activation { memory, features, rings, .. } = activation;
        let enabled = (0..).zip(rings).filter_map(|(index, ring)| Some((index, ring?)));
        let roles = Role::ALL.into_iter().filter(|role| role.is_in(features));
        let lanes = enabled.zip(roles).map(|((index, ring), role)| Lane {
            role,
            index,
            ring,
            chain: None,
            buffers: Buffers::default(),
            ranges: VecDeque::new(),
            is_unfinished: false,
        });
        Self { lanes: lanes.collect(), host: Host { memory, release, has_refused: false }, shared }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.shared.tell_by(None);
    }
}

impl Backend for Working {
    fn notified(&mut self, queue: u16) -> Result<(), NeedsReset> {
        match self.lanes.iter_mut().find(|lane| lane.index == queue) {
            Some(lane) => lane.turn(&mut self.host),
            None => Ok(()),
        }
    }

    fn unfinished(&self) -> bool {
        self.lanes.iter().any(|lane| lane.is_unfinished)
    }
}

impl Lane {
    fn turn(&mut self, host: &mut Host) -> Result<(), NeedsReset> {
        let mut budget = Budget { pages: TURN_PAGES, bytes: TURN_BYTES };
        self.ring.disable_notification()?;
        for _ in 0..TURN_CHAINS {
            let head = match self.chain {
                Some(head) => head,
                None => match self.ring.pop_buffers(&mut self.buffers)? {
                    Some(head) => self.begin(head, host)?,
                    None if self.ring.enable_notification()? => continue,
                    None => {
                        self.is_unfinished = false;
                        return self.ring.signal();
                    }
                },
            };
            if !self.go_on(host, &mut budget)? {
                break;
            }
            self.chain = None;
            self.ring.push(head, 0)?;
        }
        self.is_unfinished = true;
        self.ring.signal()
    }

    /// Looks at a chain that has just been taken.
    fn begin(&mut self, head: u16, host: &Host) -> Result<u16, NeedsReset> {
        self.chain = Some(head);
        if self.role == Role::Report {
            for span in self.buffers.writable.iter() {
                let pages = host.pages(span.address, span.length as u64);
                self.ranges.extend(pages.map_err(|missing| self.ring.broken(&missing))?);
            }
        }
        Ok(head)
    }

    /// Works on the chain until it is done, or the budget is.
    fn go_on(&mut self, host: &mut Host, budget: &mut Budget) -> Result<bool, NeedsReset> {
        loop {
            while let Some(range) = self.ranges.front_mut() {
                if budget.bytes == 0 {
                    return Ok(false);
                }
                let end = range.end.min(range.start.saturating_add(budget.bytes));
                let part = range.start..end;
                budget.bytes -= end - range.start;
                range.start = end;
                if range.is_empty() {
                    self.ranges.pop_front();
                }
                host.release(&part);
            }
            let numbers = self.buffers.readable.length() / size_of::<u32>();
            if self.role != Role::Inflate || numbers == 0 {
                return Ok(true);
            }
            if budget.pages == 0 {
                return Ok(false);
            }
            let count = numbers.min(budget.pages);
            budget.pages -= count;
            self.name(count, host)?;
        }
    }

    /// Reads `count` page numbers, which become ranges.
    fn name(&mut self, count: usize, host: &Host) -> Result<(), NeedsReset> {
        let mut bytes = vec![0; count * size_of::<u32>()];
        let taken = self.buffers.readable.take(&host.memory, &mut bytes);
        taken.map_err(|missing| self.ring.broken(&missing))?;
        let mut pages: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|number| number.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
            .collect();
        for run in runs(&mut pages) {
            let pages = host.pages(GuestAddress(run.start), run.end - run.start);
            self.ranges.extend(pages.map_err(|missing| self.ring.broken(&missing))?);
        }
        Ok(())
    }
}

impl Host {
    /// The host's whole pages in a range of guest RAM, if there are any.
    fn pages(&self, address: GuestAddress, length: u64) -> Result<Option<Range<u64>>, NotRam> {
        let end = address.0.checked_add(length).ok_or(NotRam(address.0))?;
        if !usize::try_from(length).is_ok_and(|length| self.ram().check_range(address, length)) {
            return Err(NotRam(address.0));
        }
        Ok(whole(&(address.0..end), self.release.page_size()))
    }

    fn ram(&self) -> &GuestMemoryMmap {
        self.memory.get_backend()
    }

    /// A host that keeps a page is a pity, and no reason to stop: what the guest said of its pages stays true.
    fn release(&mut self, pages: &Range<u64>) {
        let released = self.release.release(self.ram(), GuestAddress(pages.start), pages.end - pages.start);
        if let Err(error) = released {
            if !std::mem::replace(&mut self.has_refused, true) {
                tracing::warn!(%error, "the host does not take memory back from the balloon");
            }
        }
    }
}

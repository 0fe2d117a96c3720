//! What a run has cost and gained.

/// Steps per doubling in the latency histogram: values are kept to within 1/32.
const STEPS: u64 = 32;

/// Wake-up latencies, in a histogram of 32 steps per doubling.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; 64 * STEPS as usize], total: 0, max: 0 }
    }
}

impl Latencies {
    fn slot(value: u64) -> usize {
        if value < STEPS {
            return value as usize;
        }
        let doublings = u64::from(value.ilog2() - STEPS.ilog2());
        (doublings * STEPS + (value >> doublings)) as usize
    }

    /// The largest value that counts in `slot`.
    fn upper(slot: usize) -> u64 {
        let slot = slot as u64;
        if slot < STEPS {
            return slot;
        }
        let doublings = slot / STEPS - 1;
        // The last slot's bound is 2^64, of which the shift leaves nothing.
        ((slot % STEPS + STEPS + 1) << doublings).wrapping_sub(1)
    }

    pub(crate) fn add(&mut self, value: u64) {
        self.counts[Self::slot(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The latency in nanoseconds that `share` of the wake-ups did not exceed, to within 1/32.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Self::upper(slot).min(self.max);
            }
        }
        self.max
    }
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// From a wake to the woken thread's way into the guest, in nanoseconds.
    pub latencies: Latencies,
    /// CPU time spent polling, in nanoseconds.
    pub polled_ns: u64,
    /// CPU time spent on going to sleep and waking up, in nanoseconds.
    pub switched_ns: u64,
    /// Idle periods that polled.
    pub attempted: u64,
    /// Idle periods that ended while polling.
    pub successful: u64,
    /// Idle periods that ended.
    pub blocks: u64,
    /// Their total length in nanoseconds.
    pub blocked_ns: u64,
    /// Steps that vcores made.
    pub steps: u64,
    /// Events that came out of the queue.
    pub events: u64,
}

impl Measured {
    /// CPU time burned while idle, as a share of the idle time.
    pub fn burned_share(&self) -> f64 {
        (self.polled_ns + self.switched_ns) as f64 / self.blocked_ns.max(1) as f64
    }

    /// Polls that succeeded, as a share of those attempted.
    pub fn success_share(&self) -> f64 {
        self.successful as f64 / self.attempted.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close() {
        let mut latencies = Latencies::default();
        (1..=100_000).for_each(|value| latencies.add(value));
        for share in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let (got, exact) = (latencies.quantile(share) as f64, 100_000.0 * share);
            assert!(got >= exact && got <= exact * (1.0 + 1.0 / 32.0), "{share}: {got}");
        }
    }

    #[test]
    fn a_slot_holds_what_it_says() {
        for value in (0..10_000).chain([u64::MAX / 3, u64::MAX]) {
            let slot = Latencies::slot(value);
            assert!(
                Latencies::upper(slot) >= value && (slot == 0 || Latencies::upper(slot - 1) < value),
                "{value}"
            );
        }
    }
}

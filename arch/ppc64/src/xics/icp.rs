//! The presentation side: one ICP per interrupt server, that is per vCPU.
//!
//! Owns the server's registers in one word, and the list of sources that it turned away in a bitmap.
//!
//! ```text
//!  63      49  48  47      40 39      32 31      24 23             0
//! +----------+----+----------+----------+----------+----------------+
//! |    0     | NR |   PPRI   |   MFRR   |   CPPR   |      XISR      |
//! +----------+----+----------+----------+----------+----------------+
//!              |      |                 `-------- XIRR ------------'
//!              |      `- priority of what XISR holds, 0xff when that is nothing
//!              `- need resend: a source was turned away since the limit last grew
//! ```
//!
//! Lower numbers are more favoured. The server takes a source whose priority is below its *limit*, the lower of CPPR and PPRI.
//!
//! What always holds (`Registers::check`, in tests):
//! 1. Where XISR is 0, PPRI is 0xff; otherwise PPRI < CPPR. So the vCPU's external line has to be high exactly while XISR
//!    is not 0.
//! 2. An IPI that may be presented is: MFRR < CPPR implies PPRI <= MFRR. So MFRR is never below the limit, and a source that is
//!    taken is more favoured than any IPI that is asked for.
//!
//! Only CPPR makes the limit grow: to accept takes PPRI away and lowers CPPR to it, and all other changes present something or
//! lower CPPR. So only a server's own vCPU makes it grow; it clears NR then, and if NR was set goes through the bitmap.

use super::sync::{AtomicU64, Ordering, update};

/// XISR of an inter-processor interrupt.
pub const IPI: u32 = 2;

/// No interrupt, or one that is masked: nothing is less favoured.
pub const LEAST_FAVOURED: u8 = 0xff;

const XISR: u64 = 0x00ff_ffff;
const CPPR_SHIFT: u32 = 24;
const MFRR_SHIFT: u32 = 32;
const PPRI_SHIFT: u32 = 40;
const NEED_RESEND: u64 = 1 << 48;

/// A server's registers, as one value. Its transitions are PAPR's states of the ICP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers(u64);

impl Registers {
    /// As a processor starts: it accepts nothing, and nothing is there.
    pub const RESET: Self = Self(0xff << MFRR_SHIFT | 0xff << PPRI_SHIFT);

    /// The pending source, [`IPI`], or 0.
    pub const fn xisr(self) -> u32 {
        (self.0 & XISR) as u32
    }

    /// Current processor priority: only what is more favoured interrupts.
    pub const fn cppr(self) -> u8 {
        (self.0 >> CPPR_SHIFT) as u8
    }

    /// Most favoured request: the priority of the IPI that others ask for.
    pub const fn mfrr(self) -> u8 {
        (self.0 >> MFRR_SHIFT) as u8
    }

    /// CPPR and XISR as H_XIRR has them in one word.
    pub const fn xirr(self) -> u32 {
        self.0 as u32
    }

    const fn ppri(self) -> u8 {
        (self.0 >> PPRI_SHIFT) as u8
    }

    const fn needs_resend(self) -> bool {
        self.0 & NEED_RESEND != 0
    }

    const fn with_byte(self, shift: u32, value: u8) -> Self {
        Self(self.0 & !(0xff << shift) | (value as u64) << shift)
    }

    const fn holding(self, xisr: u32, priority: u8) -> Self {
        Self(self.0 & !XISR | xisr as u64).with_byte(PPRI_SHIFT, priority)
    }

    fn limit(self) -> u8 {
        self.cppr().min(self.ppri())
    }

    /// Whether a source of this priority would be taken.
    pub fn accepts(self, priority: u8) -> bool {
        priority < self.limit()
    }

    /// Deliver: a source that [`accepts`](Self::accepts) says yes to takes the place of what is there.
    const fn presenting(self, irq: u32, priority: u8) -> Self {
        self.holding(irq, priority)
    }

    /// A source was turned away.
    const fn refusing(self) -> Self {
        Self(self.0 | NEED_RESEND)
    }

    /// Accept_Interrupt: what is pending becomes what the processor works on.
    const fn accepted(self) -> Self {
        if self.xisr() == 0 {
            return self;
        }
        self.with_byte(CPPR_SHIFT, self.ppri()).holding(0, LEAST_FAVOURED)
    }

    /// Check_IPI: an IPI takes the place of what is not more favoured.
    fn with_ipi_checked(self) -> Self {
        let mfrr = self.mfrr();
        if mfrr < self.cppr() && mfrr <= self.ppri() { self.holding(IPI, mfrr) } else { self }
    }

    /// Set_CPPR: what is no longer more favoured than the processor goes back where it came from. If the limit grows, whoever
    /// makes this change looks after those that were turned away.
    fn with_cppr(self, cppr: u8) -> Self {
        let kept = if cppr <= self.ppri() { self.holding(0, LEAST_FAVOURED) } else { self };
        let new = kept.with_byte(CPPR_SHIFT, cppr).with_ipi_checked();
        if new.limit() > self.limit() { Self(new.0 & !NEED_RESEND) } else { new }
    }

    /// Set_MFRR. An IPI that is presented already stays so, whatever the new request is.
    fn with_mfrr(self, mfrr: u8) -> Self {
        self.with_byte(MFRR_SHIFT, mfrr).with_ipi_checked()
    }

    /// As a processor starts; but who was turned away is still to be sent.
    const fn restarted(self) -> Self {
        Self(Self::RESET.0 | self.0 & NEED_RESEND)
    }

    /// The invariants above.
    #[cfg(any(test, loom))]
    pub fn check(self) {
        let (xisr, cppr, mfrr, ppri) = (self.xisr(), self.cppr(), self.mfrr(), self.ppri());
        assert!(if xisr == 0 { ppri == LEAST_FAVOURED } else { ppri < cppr }, "{self:x?}");
        assert!(mfrr >= cppr || ppri <= mfrr, "{self:x?}");
        assert!(xisr <= IPI || ppri < mfrr, "{self:x?}");
        assert!(mfrr >= self.limit(), "{self:x?}");
    }
}

/// What a change of a server's registers leaves its maker to do.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// XISR was put there: whoever sleeps has to hear of it.
    pub presented: bool,
    /// The source that lost its place.
    pub rejected: Option<u32>,
    /// Sources that were turned away may be taken now.
    pub resend: bool,
}

impl Change {
    fn between(old: Registers, new: Registers) -> Self {
        let (was, is) = (old.xisr(), new.xisr());
        Self {
            presented: is != 0 && (was != is || old.ppri() != new.ppri()),
            rejected: (was != is && was > IPI).then_some(was),
            resend: old.needs_resend() && !new.needs_resend(),
        }
    }
}

/// One server. On a cache line of its own (POWER's is 128 bytes), since each belongs to another thread.
#[derive(Debug)]
#[repr(align(128))]
pub struct Icp {
    registers: AtomicU64,
    /// A bit per source, by its place in the ICS: it was turned away here. It may be set without need, since a source
    /// that was moved or taken leaves its bit behind.
    refused: Box<[AtomicU64]>,
}

impl Icp {
    /// A server that `sources` sources can be routed to.
    pub fn new(sources: usize) -> Self {
        Self {
            registers: AtomicU64::new(Registers::RESET.0),
            refused: (0..sources.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// What the registers are.
    pub fn registers(&self) -> Registers {
        // Acquire: pairs with `update`'s Release.
        Registers(self.registers.load(Ordering::Acquire))
    }

    fn change(&self, change: impl Fn(Registers) -> Registers) -> (Registers, Registers) {
        let old = Registers(update(&self.registers, |word| change(Registers(word)).0));
        let new = change(old);
        #[cfg(any(test, loom))]
        new.check();
        (old, new)
    }

    /// Accepts what is pending; the registers before that.
    pub fn accept(&self) -> Registers {
        self.change(Registers::accepted).0
    }

    /// Sets CPPR.
    pub fn set_cppr(&self, cppr: u8) -> Change {
        let (old, new) = self.change(|registers| registers.with_cppr(cppr));
        Change::between(old, new)
    }

    /// Sets MFRR.
    pub fn set_mfrr(&self, mfrr: u8) -> Change {
        let (old, new) = self.change(|registers| registers.with_mfrr(mfrr));
        Change::between(old, new)
    }

    /// Presents a source, if it is taken now. The source whose place it took, or `None` if it is not taken.
    pub fn present(&self, irq: u32, priority: u8) -> Option<Change> {
        let taking = |old: Registers| if old.accepts(priority) { old.presenting(irq, priority) } else { old };
        let (old, new) = self.change(taking);
        old.accepts(priority).then(|| Change::between(old, new))
    }

    /// Notes that the source at `place`, of this priority, is turned away; false if it is not, because the limit has grown.
    ///
    /// The bit first, and then NR, also where NR is set already: who clears NR reads a word that was written after the
    /// bit was set (Release and Acquire of `registers`), so it finds the bit, and the source as it was then.
    pub fn refuse(&self, place: usize, priority: u8) -> bool {
        // Release: pairs with the Acquire in `take_refused`, for whoever takes the bit on account of an earlier NR.
        self.refused[place / 64].fetch_or(1 << (place % 64), Ordering::Release);
        let noting = |old: Registers| if old.accepts(priority) { old } else { old.refusing() };
        let (old, _) = self.change(noting);
        !old.accepts(priority)
    }

    /// Takes all sources that were turned away, each once, and gives their places to `each`.
    pub fn take_refused(&self, each: impl Fn(usize)) {
        for (word, refused) in self.refused.iter().enumerate() {
            if refused.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // Acquire: pairs with the Release in `refuse`.
            let mut bits = refused.swap(0, Ordering::Acquire);
            while bits != 0 {
                each(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// As a processor starts. The source that was pending is handed back, and those that were turned away stay noted.
    pub fn restart(&self) -> Change {
        let (old, new) = self.change(Registers::restarted);
        Change::between(old, new)
    }

    /// Power-on state: nothing is pending and nothing noted.
    pub fn reset(&self) {
        self.registers.store(Registers::RESET.0, Ordering::Release);
        self.refused.iter().for_each(|word| word.store(0, Ordering::Release));
    }
}

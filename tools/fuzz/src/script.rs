//! Bytes as a story, and random ones.

/// Bytes that are read from the front; after the end come zeroes.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// The story that `data` tells.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next act's number below `count`, as long as there is something left.
    pub fn act(&mut self, count: u8) -> Option<u8> {
        (!self.0.is_empty()).then(|| self.byte() % count)
    }

    /// The next bytes.
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let length = N.min(self.0.len());
        let (now, rest) = self.0.split_at(length);
        self.0 = rest;
        let mut bytes = [0; N];
        bytes[..length].copy_from_slice(now);
        bytes
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    /// Two bytes.
    pub fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// Four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// Eight bytes.
    pub fn double(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// A number, more often a telling one: small, just below `limit`, just above it, or at the end of all numbers.
    pub fn near(&mut self, limit: u64) -> u64 {
        let by = u64::from(self.byte());
        match self.byte() % 8 {
            0..=2 => by,
            3 => limit.wrapping_sub(by % 16),
            4 => limit.wrapping_add(by % 16),
            5 => u64::MAX - by,
            6 => self.double(),
            _ => u64::from(self.half()) % limit.max(1),
        }
    }
}

/// Pseudo-random numbers (splitmix64).
pub struct Random(u64);

impl Random {
    /// Those that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// An input. Half of its bytes are small, since small numbers mean most.
    pub fn input(&mut self) -> Vec<u8> {
        let length = self.next() % 1024;
        let byte = |random: u64| if random & 0x100 == 0 { random as u8 } else { random as u8 % 8 };
        (0..length).map(|_| byte(self.next())).collect()
    }
}

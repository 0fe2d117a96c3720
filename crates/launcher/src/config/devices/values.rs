//! The values of device keys. Each is checked when it is made.

use std::fmt;
use std::str::FromStr;

/// Bytes of a disk's serial number at most (`VIRTIO_BLK_ID_BYTES`).
const MAX_DISK_ID: usize = 20;

/// Bytes of an interface's name at most (`IFNAMSIZ`, the final zero not counted).
const MAX_TAP: usize = 15;

/// Context IDs that a guest can have; those below and above are the hypervisor's, the host's and everybody's (`VMADDR_CID_*`).
const CIDS: std::ops::RangeInclusive<u32> = 3..=u32::MAX - 1;

/// Queues of a disk at most.
pub(super) const MAX_DISK_QUEUES: u16 = 64;

/// Threads of a shared pool at most.
const MAX_THREADS: u16 = 64;

/// What threads poll for where nothing was said, in nanoseconds; docs/devices.md has why.
const POLL_NS: u32 = 32_000;

/// The longest poll. It is seen neither by the thread's inbox nor by a signal, so a device's reset may wait for it.
const MAX_POLL_NS: u32 = 10_000_000;

/// The address of a network card: of one card, and not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Its bytes, in the order in which they are sent.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The address of a card for which none was said. It follows from the names of the VM and of the tap, so a guest finds the
    /// same card at its next start; it is locally administered, and so no maker's.
    #[must_use]
    pub(super) fn of(vm: &str, tap: &str) -> Self {
        // FNV-1a: the addresses of several VMs on one bridge have to differ, and nothing more is asked of it.
        let seed = 0xcbf2_9ce4_8422_2325_u64;
        let hash = vm
            .bytes()
            .chain([0])
            .chain(tap.bytes())
            .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let [_, _, _, a, b, c, d, e] = (hash ^ (hash >> 40)).to_be_bytes();
        Self([0x02, a, b, c, d, e])
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no MAC address; write six bytes as in 52:54:00:12:34:56");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            // u8's own parser would take a plus sign.
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if bytes[0] & 1 != 0 {
            return Err(format!(
                "{text} is the address of a group; a card's has an even first byte, as 52:54:00:12:34:56"
            ));
        }
        if bytes == [0; 6] {
            return Err(
                "no card has the address zero; write one as 52:54:00:12:34:56, or leave it out".into()
            );
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Which threads run the queues of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceThreads {
    /// Each device has one of its own.
    #[default]
    Each,
    /// So many, 1 to 64, which all devices share.
    Shared(u16),
}

impl FromStr for DeviceThreads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("each", _) => Ok(Self::Each),
            (_, Ok(count @ 1..=MAX_THREADS)) => Ok(Self::Shared(count)),
            _ => Err(format!("{text} is not a number of threads; it can be each, or 1 to {MAX_THREADS}")),
        }
    }
}

/// How long a device's thread looks for work before it waits to be woken, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevicePoll(u32);

impl DevicePoll {
    /// Nanoseconds; 0: not at all.
    #[must_use]
    pub fn ns(self) -> u32 {
        self.0
    }
}

impl Default for DevicePoll {
    fn default() -> Self {
        Self(POLL_NS)
    }
}

impl FromStr for DevicePoll {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ns = text.parse().ok().filter(|ns| *ns <= MAX_POLL_NS);
        ns.map(Self).ok_or_else(|| format!("{text} is no time to poll for; it can be 0 to {MAX_POLL_NS} ns"))
    }
}

/// Checks the name of a tap.
pub(in crate::config) fn tap(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
    if !(1..=MAX_TAP).contains(&text.len()) || !text.bytes().all(allowed) || text == "." || text == ".." {
        return Err(format!(
            "{text:?} is no interface's name; it can be 1 to {MAX_TAP} ASCII characters without '/', ':', '%' and spaces"
        ));
    }
    Ok(text.to_owned())
}

/// Checks a disk's serial number.
pub(in crate::config) fn disk_id(text: &str) -> Result<String, String> {
    if !(1..=MAX_DISK_ID).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "{text:?} is no disk's id; it can be 1 to {MAX_DISK_ID} ASCII characters without spaces"
        ));
    }
    Ok(text.to_owned())
}

/// Checks a number of queues.
pub(in crate::config) fn disk_queues(text: &str) -> Result<u16, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_DISK_QUEUES).contains(count));
    count.ok_or_else(|| format!("{text} is not a number of queues; it can be 1 to {MAX_DISK_QUEUES}"))
}

/// Checks a context ID.
pub(in crate::config) fn cid(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|cid| CIDS.contains(cid)).ok_or_else(|| {
        format!("{text} is no guest's context ID; it can be {} to {}", CIDS.start(), CIDS.end())
    })
}

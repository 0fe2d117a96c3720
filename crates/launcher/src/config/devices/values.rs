//! The values of device keys. Each is checked when it is made.

use devices::virtio::net::{Mac, MacError, NameError, TapName};
use std::str::FromStr;

/// Bytes of a disk's serial number at most (`VIRTIO_BLK_ID_BYTES`).
const MAX_DISK_ID: usize = 20;

/// Context IDs that a guest can have; those below and above are the hypervisor's, the host's and everybody's (`VMADDR_CID_*`).
const CIDS: std::ops::RangeInclusive<u32> = 3..=u32::MAX - 1;

/// Threads of a shared pool at most.
const MAX_THREADS: u16 = 64;

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

/// Checks the name of a tap.
pub(in crate::config) fn tap(text: &str) -> Result<TapName, String> {
    text.parse().map_err(|error: NameError| error.to_string())
}

/// Checks a card's address.
pub(in crate::config) fn mac(text: &str) -> Result<Mac, String> {
    text.parse().map_err(|error: MacError| error.to_string())
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

/// Checks a context ID.
pub(in crate::config) fn cid(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|cid| CIDS.contains(cid)).ok_or_else(|| {
        format!("{text} is no guest's context ID; it can be {} to {}", CIDS.start(), CIDS.end())
    })
}

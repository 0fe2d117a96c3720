//! KVM's binary statistics of a vCPU or a VM (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD).
//!
//! ```text
//!   header ──┬─▶ id
//!            ├─▶ descriptors: kind, name, and where each one's values are
//!            └─▶ data: 64-bit values, of which a descriptor has one, or one for each bucket
//! ```
//!
//! Header and descriptors are read once; after that [`KvmStats::read`] is one pread of the data. The descriptor
//! is the value's own and has no lock of the vCPU behind it, so any thread may read while the vCPU runs. Only
//! to open it KVM takes the vCPU's mutex, which KVM_RUN holds: that is to be done before it runs.
//!
//! Nothing that is read is believed: sizes are bounded before memory is taken for them.

use crate::fd::KvmFd;
use crate::ioctl::host::KVM_GET_STATS_FD;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

/// `struct kvm_stats_header`.
const HEADER: usize = 24;

/// `struct kvm_stats_desc` without the name behind it.
const DESCRIPTOR: usize = 16;

/// The longest name that is taken for one; the kernel's have 48 bytes.
const MAX_NAME: usize = 1024;

/// The most descriptors; the kernel's vCPUs have some dozens.
const MAX_DESCRIPTORS: usize = 4096;

/// The most values of one descriptor; the kernel's histograms have 32.
const MAX_VALUES: usize = 1024;

/// The most bytes of data.
const MAX_DATA: usize = 1 << 20;

/// The low bits of a descriptor's flags: what kind it is (`KVM_STATS_TYPE_MASK`).
const KIND: u32 = 0xf;

/// `KVM_STATS_TYPE_LINEAR_HIST` and `KVM_STATS_TYPE_LOG_HIST`.
const HISTOGRAMS: [u32; 2] = [3, 4];

/// Statistics cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// KVM gives none, or the descriptor failed.
    #[error("cannot read KVM's binary statistics ({what})")]
    Io {
        /// The call, or the part that was read.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was read makes no sense.
    #[error("KVM's binary statistics make no sense: {0}")]
    Malformed(String),
}

/// A statistic's present value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A counter, or whatever else is one number.
    Number(u64),
    /// A histogram's buckets, or whatever else is several numbers.
    Histogram(Vec<u64>),
}

/// Where a statistic's values are.
#[derive(Debug)]
struct Descriptor {
    name: String,
    /// It has buckets, if only one.
    histogram: bool,
    /// In the data, in bytes.
    offset: usize,
    /// How many values.
    size: usize,
}

/// The statistics of one vCPU or VM.
#[derive(Debug)]
pub struct KvmStats {
    file: File,
    descriptors: Vec<Descriptor>,
    /// Where the data begins.
    data: u64,
    /// How much of it the descriptors use, in bytes.
    length: usize,
}

impl KvmStats {
    /// Asks a vCPU for its statistics. It must not be in KVM_RUN, which this would wait for.
    ///
    /// # Errors
    /// [`StatsError`]; `ENOTTY` is a kernel that has none (before 5.14).
    pub(crate) fn of(fd: &KvmFd) -> Result<Self, StatsError> {
        let number = fd.value("KVM_GET_STATS_FD", KVM_GET_STATS_FD, 0);
        let number = number.map_err(|error| StatsError::Io { what: error.call, source: error.source })?;
        // SAFETY: the kernel made this descriptor for us just now, and nobody else has it.
        Self::open(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Takes a descriptor from KVM_GET_STATS_FD and reads what there is.
    ///
    /// # Errors
    /// [`StatsError`].
    pub fn open(fd: OwnedFd) -> Result<Self, StatsError> {
        let file = File::from(fd);
        let header = read(&file, 0, HEADER, "header")?;
        let [name_size, count, _id, descriptors, data] =
            [4, 8, 12, 16, 20].map(|offset| u32_at(&header, offset) as usize);
        bounded("the length of a name", name_size, 1, MAX_NAME)?;
        bounded("the number of descriptors", count, 0, MAX_DESCRIPTORS)?;

        let each = DESCRIPTOR + name_size;
        let table = read(&file, descriptors as u64, count * each, "descriptors")?;
        let descriptors =
            table.chunks_exact(each).map(Descriptor::parse).collect::<Result<Vec<_>, StatsError>>()?;
        let length = descriptors.iter().map(Descriptor::end).max().unwrap_or(0);
        Ok(Self { file, descriptors, data: data as u64, length })
    }

    /// The present values, each with its name, in KVM's order. They are not all of one instant.
    ///
    /// # Errors
    /// [`StatsError::Io`].
    pub fn read(&self) -> Result<Vec<(&str, Value)>, StatsError> {
        let data = read(&self.file, self.data, self.length, "data")?;
        let values = self.descriptors.iter().map(|descriptor| {
            // `read` filled as much as the farthest descriptor needs.
            let values: Vec<u64> =
                data[descriptor.offset..descriptor.end()].chunks_exact(8).map(u64_of).collect();
            let value = match *values {
                [number] if !descriptor.histogram => Value::Number(number),
                _ => Value::Histogram(values),
            };
            (descriptor.name.as_str(), value)
        });
        Ok(values.collect())
    }
}

impl Descriptor {
    /// `bytes` are the structure and the name behind it.
    fn parse(bytes: &[u8]) -> Result<Self, StatsError> {
        let (head, name) = bytes.split_at(DESCRIPTOR);
        let end = name.iter().position(|&byte| byte == 0);
        let name = end.and_then(|end| std::str::from_utf8(&name[..end]).ok()).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| StatsError::Malformed("a statistic has no name".into()))?.to_owned();

        let histogram = HISTOGRAMS.contains(&(u32_at(head, 0) & KIND));
        let size = usize::from(u16::from_ne_bytes([head[6], head[7]]));
        bounded(&format!("the number of values of {name}"), size, 1, MAX_VALUES)?;
        let offset = u32_at(head, 8) as usize;
        bounded(&format!("the place of {name}"), offset, 0, MAX_DATA - 8 * size)?;
        Ok(Self { name, histogram, offset, size })
    }

    /// Where its values end, which is within [`MAX_DATA`].
    fn end(&self) -> usize {
        self.offset + 8 * self.size
    }
}

fn bounded(what: &str, value: usize, least: usize, most: usize) -> Result<(), StatsError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(StatsError::Malformed(format!("{what} is {value}, not {least} to {most}")))
}

fn read(file: &File, offset: u64, length: usize, what: &'static str) -> Result<Vec<u8>, StatsError> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).map_err(|source| StatsError::Io { what, source })?;
    Ok(bytes)
}

/// The caller's slice reaches that far.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|n| bytes[offset + n]))
}

/// `bytes` are eight.
fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(std::array::from_fn(|n| bytes[n]))
}

/// KVM's own figures of each vCPU, for any thread, while the VM runs and after.
#[derive(Debug, Clone, Default)]
pub struct VcpuFigures(Arc<Mutex<Vec<Option<KvmStats>>>>);

impl VcpuFigures {
    pub(crate) fn push(&self, stats: Option<KvmStats>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stats);
    }

    /// Looks at those of the vCPU that was made as number `index`, from 0. `None` where this KVM gives none.
    pub fn with<T>(&self, index: usize, look: impl FnOnce(&KvmStats) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(index)?.as_ref().map(look)
    }
}

#[cfg(test)]
mod tests;

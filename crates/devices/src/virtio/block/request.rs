//! What a driver asks for (5.2.6 Device Operation), checked.

use super::image::SECTOR;
use crate::dma::Memory;
use crate::virtio::chain::Buffers;
use virtio_bindings::virtio_blk;
use vm_memory::GuestAddress;

/// Bytes of a transfer at most: [`SEGMENTS`] of [`SEGMENT`].
pub const TRANSFER: usize = SEGMENTS as usize * SEGMENT as usize;
/// Buffers of a transfer.
pub const SEGMENTS: u32 = 254;
/// Bytes of a buffer: four of the largest pages.
pub const SEGMENT: u32 = 256 << 10;
/// Sectors of a discard: 1 GiB.
pub const DISCARD: u32 = (1 << 30) / SECTOR as u32;
/// Sectors of a write of zeroes: 64 MiB, which may have to be written.
pub const ZEROES: u32 = (64 << 20) / SECTOR as u32;
/// Bytes of an identity.
pub const ID: usize = virtio_blk::VIRTIO_BLK_ID_BYTES as usize;

/// What the driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = virtio_blk::VIRTIO_BLK_S_OK as u8,
    /// It failed, or cannot be.
    IoError = virtio_blk::VIRTIO_BLK_S_IOERR as u8,
    /// There is no such request.
    Unsupported = virtio_blk::VIRTIO_BLK_S_UNSUPP as u8,
}

/// What to do. Offsets and lengths are bytes within the disk. What is transferred is what is left in the buffers: the writable ones for a
/// read, the readable ones for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// From the disk.
    Read {
        /// From where.
        offset: u64,
    },
    /// To the disk.
    Write {
        /// To where.
        offset: u64,
    },
    /// Everything that was written, to stay.
    Flush,
    /// The range is not needed any more.
    Discard {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// Zeroes.
    Zero {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
        /// The range may be given back.
        unmap: bool,
    },
    /// The disk's identity.
    Identify,
}

/// What a disk takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Its size.
    pub sectors: u64,
    /// It takes no writes.
    pub read_only: bool,
    /// It takes discards.
    pub discards: bool,
}

/// The header or the place for the status is missing: nothing can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request without a header or a place for its status")]
pub struct Unanswerable;

/// Takes header and status off a chain. Says where the status goes, and what to do or what to answer at once.
///
/// # Errors
/// [`Unanswerable`].
pub fn parse(
    memory: &Memory,
    buffers: &mut Buffers,
    limits: &Limits,
) -> Result<(GuestAddress, Result<Operation, Status>), Unanswerable> {
    let mut header = [0; 16];
    buffers.readable.take(memory, &mut header).map_err(|_| Unanswerable)?;
    let status = buffers.writable.take_last().map_err(|_| Unanswerable)?;
    let kind = little(&header[..4]) as u32;
    Ok((status, operation(kind, little(&header[8..]), memory, buffers, limits)))
}

fn operation(
    kind: u32,
    sector: u64,
    memory: &Memory,
    buffers: &mut Buffers,
    limits: &Limits,
) -> Result<Operation, Status> {
    match kind {
        virtio_blk::VIRTIO_BLK_T_IN => {
            Ok(Operation::Read { offset: transfer(sector, buffers.writable.length(), limits)? })
        }
        virtio_blk::VIRTIO_BLK_T_OUT => {
            writes(limits)?;
            Ok(Operation::Write { offset: transfer(sector, buffers.readable.length(), limits)? })
        }
        virtio_blk::VIRTIO_BLK_T_FLUSH => Ok(Operation::Flush),
        virtio_blk::VIRTIO_BLK_T_GET_ID => Ok(Operation::Identify),
        virtio_blk::VIRTIO_BLK_T_DISCARD if limits.discards => {
            let (offset, length, flags) = segment(memory, buffers, DISCARD, limits)?;
            if flags == 0 { Ok(Operation::Discard { offset, length }) } else { Err(Status::Unsupported) }
        }
        virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES => {
            let (offset, length, flags) = segment(memory, buffers, ZEROES, limits)?;
            let unmap = flags & virtio_blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
            if flags & !virtio_blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
                return Err(Status::Unsupported);
            }
            Ok(Operation::Zero { offset, length, unmap })
        }
        _ => Err(Status::Unsupported),
    }
}

fn writes(limits: &Limits) -> Result<(), Status> {
    if limits.read_only { Err(Status::IoError) } else { Ok(()) }
}

/// The offset of a transfer of `length` bytes from `sector` on.
fn transfer(sector: u64, length: usize, limits: &Limits) -> Result<u64, Status> {
    if length > TRANSFER || length as u64 % SECTOR != 0 {
        return Err(Status::IoError);
    }
    range(sector, length as u64 / SECTOR, limits).map(|(offset, _)| offset)
}

fn range(sector: u64, sectors: u64, limits: &Limits) -> Result<(u64, u64), Status> {
    match sector.checked_add(sectors) {
        Some(end) if end <= limits.sectors => Ok((sector * SECTOR, sectors * SECTOR)),
        _ => Err(Status::IoError),
    }
}

/// The one segment (`virtio_blk_discard_write_zeroes`) that such a request may have.
fn segment(
    memory: &Memory,
    buffers: &mut Buffers,
    most: u32,
    limits: &Limits,
) -> Result<(u64, u64, u32), Status> {
    writes(limits)?;
    let mut segment = [0; 16];
    buffers.readable.take(memory, &mut segment).map_err(|_| Status::IoError)?;
    let sectors = little(&segment[8..12]) as u32;
    if buffers.readable.length() != 0 || sectors > most {
        return Err(Status::IoError);
    }
    let (offset, length) = range(little(&segment[..8]), sectors.into(), limits)?;
    Ok((offset, length, little(&segment[12..]) as u32))
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

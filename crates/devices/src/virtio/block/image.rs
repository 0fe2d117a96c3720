//! What is behind a disk: a raw file, or a block device.
//!
//! What must hold: whoever can write has it alone. Writers hold an OFD write lock on the whole file and readers a read lock, which other VMMs that
//! lock their images meet too; a block device is opened exclusively beside that, so a mounted one is refused.

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a sector, virtio's unit whatever the disk's.
pub const SECTOR: u64 = 512;

/// How an image is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where it is.
    pub path: PathBuf,
    /// The guest cannot write it.
    pub read_only: bool,
    /// Past the host's page cache (O_DIRECT).
    pub direct: bool,
    /// Every write lasts by itself, unless the driver wants otherwise.
    pub write_through: bool,
}

/// An image cannot be a disk. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing there.
    #[error("{path}: there is no such file; `truncate -s 8G {path}` makes an empty disk of 8 GiB")]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// A directory, a terminal, a socket.
    #[error("{path} is {what}; a disk is a raw image file or a block device")]
    NotADisk {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Not permitted.
    #[error("{path}: no permission to {access} it; change its owner or mode{}", remedy(access))]
    Denied {
        /// Where.
        path: PathBuf,
        /// What was wanted.
        access: &'static str,
    },
    /// A size that is no disk's.
    #[error(
        "{path} has {size} bytes, and a disk has a multiple of 512 and more than 0; `truncate -s %512 {path}` rounds up"
    )]
    Size {
        /// Where.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// Somebody else has it.
    #[error(
        "{path} is in use by {user}; a disk that somebody writes cannot be shared: end that, or make both read-only"
    )]
    Busy {
        /// Where.
        path: PathBuf,
        /// By whom, as far as the host tells.
        user: String,
    },
    /// Its file system has no O_DIRECT.
    #[error("{path}: its file system has no direct I/O; leave out `direct`")]
    NoDirect {
        /// Where.
        path: PathBuf,
    },
    /// The host refuses something else.
    #[error("{path}: cannot {what}")]
    Host {
        /// Where.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn remedy(access: &str) -> &'static str {
    if access == "write" { ", or make the disk read-only" } else { "" }
}

/// An open image.
#[derive(Debug)]
pub struct Image {
    file: File,
    /// Bytes.
    size: u64,
    read_only: bool,
    is_device: bool,
    /// What addresses, lengths and offsets have to be multiples of, if the page cache does not see to it.
    direct: Option<usize>,
    logical: u32,
    physical: u32,
    discards: bool,
}

mod ioctl {
    use nix::{ioctl_read, ioctl_read_bad, ioctl_write_ptr_bad, libc, request_code_none};
    ioctl_read!(blkgetsize64, 0x12, 114, u64);
    ioctl_read_bad!(blksszget, request_code_none!(0x12, 104), libc::c_int);
    ioctl_read_bad!(blkpbszget, request_code_none!(0x12, 123), libc::c_uint);
    ioctl_write_ptr_bad!(blkdiscard, request_code_none!(0x12, 119), [u64; 2]);
}

impl Image {
    /// Opens it, locks it, and finds out what it can do.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let path = &options.path;
        let fail = |what| move |source| OpenError::Host { path: path.clone(), what, source };
        let (mut file, is_device) = open(options, true)?;
        lock(&file, options)?;
        let size = size(&mut file, is_device, path)?;
        let (mut logical, mut physical) = match is_device {
            true => device_blocks(&file).map_err(fail("read its block size"))?,
            false => (SECTOR as u32, file.metadata().map_err(fail("read its block size"))?.blksize() as u32),
        };
        let mut direct = None;
        if options.direct {
            let unit = direct_unit(&file, size).ok_or_else(|| OpenError::NoDirect { path: path.clone() })?;
            logical = logical.max(unit as u32);
            direct = Some(unit);
        }
        physical = if physical.is_power_of_two() { physical.clamp(logical, 1 << 16) } else { logical };
        let discards = !options.read_only && (is_device || can_punch(&file, size));
        Ok(Self { file, size, read_only: options.read_only, is_device, direct, logical, physical, discards })
    }

    /// Sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.size / SECTOR
    }

    /// Whether the guest cannot write it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The smallest unit of a transfer, in bytes.
    #[must_use]
    pub fn logical_block(&self) -> u32 {
        self.logical
    }

    /// The smallest unit that is written without reading something first, in bytes.
    #[must_use]
    pub fn physical_block(&self) -> u32 {
        self.physical
    }

    /// What addresses, lengths and offsets have to be multiples of.
    #[must_use]
    pub fn direct_unit(&self) -> Option<usize> {
        self.direct
    }

    /// Whether discarded sectors are given back to the host.
    #[must_use]
    pub fn discards(&self) -> bool {
        self.discards
    }

    /// Everything written is on the disk when this returns.
    ///
    /// # Errors
    /// As fdatasync(2).
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Reads all of `data`.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// As pwrite(2).
    pub fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Gives a range back to the host. What is read there afterwards is not said.
    ///
    /// # Errors
    /// EOPNOTSUPP where the host cannot.
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        if self.is_device {
            // SAFETY: the ioctl reads two integers.
            unsafe { ioctl::blkdiscard(self.file.as_raw_fd(), &[offset, length]) }?;
            return Ok(());
        }
        self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, length)
    }

    /// Makes a range read as zeroes. `unmap` if it may be given back to the host.
    ///
    /// # Errors
    /// As fallocate(2) or pwrite(2).
    pub fn zero(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let ways = [FallocateFlags::FALLOC_FL_PUNCH_HOLE, FallocateFlags::FALLOC_FL_ZERO_RANGE];
        for way in &ways[usize::from(!unmap)..] {
            match self.allocate(*way, offset, length) {
                Err(error) if is_unsupported(&error) => {}
                result => return result,
            }
        }
        self.write_zeroes(offset, length)
    }

    fn allocate(&self, way: FallocateFlags, offset: u64, length: u64) -> io::Result<()> {
        let signed = |value: u64| i64::try_from(value).map_err(|_| io::Error::from(Errno::EINVAL));
        let flags = way | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(&self.file, flags, signed(offset)?, signed(length)?)?)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        /// Aligned for direct I/O.
        #[repr(align(65536))]
        struct Zeroes([u8; 0x1_0000]);
        static ZEROES: Zeroes = Zeroes([0; 0x1_0000]);
        let mut done = 0;
        while done < length {
            let now = (length - done).min(ZEROES.0.len() as u64);
            self.write(&ZEROES.0[..now as usize], offset + done)?;
            done += now;
        }
        Ok(())
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether the host has no such operation here, rather than failing at it.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY))
}

/// Looks whether an image can be a disk, and leaves it to whoever has it: the file, by the kernel's numbers.
///
/// # Errors
/// [`OpenError`], as far as one look can tell: not that somebody else has it.
pub fn check(options: &Options) -> Result<Metadata, OpenError> {
    let (mut file, is_device) = open(options, false)?;
    size(&mut file, is_device, &options.path)?;
    let fail = |source| OpenError::Host { path: options.path.clone(), what: "read what it is", source };
    file.metadata().map_err(fail)
}

/// Opens an image, and says whether it is a block device; one that is to be written, for us alone if `exclusive`.
fn open(options: &Options, exclusive: bool) -> Result<(File, bool), OpenError> {
    let path = &options.path;
    let access = if options.read_only { "read" } else { "write" };
    let refused = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => OpenError::Missing { path: path.clone() },
        Some(Errno::EACCES | Errno::EPERM | Errno::EROFS) => OpenError::Denied { path: path.clone(), access },
        Some(Errno::EBUSY) => busy(path, "the host, which has it mounted or part of another device".into()),
        Some(Errno::EINVAL) if options.direct => OpenError::NoDirect { path: path.clone() },
        _ => OpenError::Host { path: path.clone(), what: "open it", source: error },
    };
    // Before it is opened: a pipe would wait for its other end.
    let kind = std::fs::metadata(path).map_err(refused)?.file_type();
    let is_device = kind.is_block_device();
    if !is_device && !kind.is_file() {
        let what = if kind.is_dir() { "a directory" } else { "no file that holds data" };
        return Err(OpenError::NotADisk { path: path.clone(), what });
    }
    let mut flags = OFlag::empty();
    flags.set(OFlag::O_DIRECT, options.direct);
    flags.set(OFlag::O_EXCL, exclusive && is_device && !options.read_only);
    let mut open = OpenOptions::new();
    open.read(true).write(!options.read_only).custom_flags(flags.bits());
    Ok((open.open(path).map_err(refused)?, is_device))
}

/// Its bytes, which are as many as a disk can have.
fn size(file: &mut File, is_device: bool, path: &Path) -> Result<u64, OpenError> {
    let size = if is_device { device_size(file) } else { file.seek(SeekFrom::End(0)) };
    let fail = |source| OpenError::Host { path: path.to_owned(), what: "read its size", source };
    match size.map_err(fail)? {
        size if size == 0 || size % SECTOR != 0 => Err(OpenError::Size { path: path.to_owned(), size }),
        size => Ok(size),
    }
}

fn busy(path: &Path, user: String) -> OpenError {
    OpenError::Busy { path: path.to_owned(), user }
}

fn lock(file: &File, options: &Options) -> Result<(), OpenError> {
    let kind = if options.read_only { libc::F_RDLCK } else { libc::F_WRLCK };
    // The whole file, however long it becomes.
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => {
            let mut holder = lock;
            let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut holder));
            // Locks of open file descriptions name no process.
            let user = match asked {
                Ok(_) if holder.l_pid > 0 => process(holder.l_pid),
                _ => "another disk of this VM or another process".to_owned(),
            };
            Err(busy(&options.path, user))
        }
        Err(error) => {
            let path = options.path.display();
            tracing::warn!(%error, "{path} cannot be locked: nothing keeps a second VM from writing it");
            Ok(())
        }
    }
}

fn process(pid: libc::pid_t) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

fn device_size(file: &File) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: the ioctl writes one integer.
    unsafe { ioctl::blkgetsize64(file.as_raw_fd(), &mut size) }?;
    Ok(size)
}

fn device_blocks(file: &File) -> io::Result<(u32, u32)> {
    let (mut logical, mut physical) = (0, 0);
    // SAFETY: each ioctl writes one integer.
    unsafe {
        ioctl::blksszget(file.as_raw_fd(), &mut logical)?;
        ioctl::blkpbszget(file.as_raw_fd(), &mut physical)?;
    }
    Ok((logical as u32, physical))
}

/// Tries which unit direct I/O has here.
fn direct_unit(file: &File, size: u64) -> Option<usize> {
    const MOST: usize = 4096;
    let mut buffer = Aligned::new(MOST, MOST);
    [SECTOR as usize, MOST].into_iter().find(|&unit| {
        let offset = if size >= 2 * unit as u64 { unit as u64 } else { 0 };
        file.read_at(&mut buffer.bytes()[..unit], offset).is_ok()
    })
}

fn can_punch(file: &File, size: u64) -> bool {
    // There is nothing behind the end, so nothing is lost.
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let Ok(end) = i64::try_from(size) else { return false };
    fallocate(file, flags, end, SECTOR as i64).is_ok()
}

/// Bytes at an aligned address.
pub struct Aligned {
    bytes: Vec<u8>,
    first: usize,
    length: usize,
}

impl Aligned {
    /// `length` zeroes; `unit` is a power of 2.
    #[must_use]
    pub fn new(length: usize, unit: usize) -> Self {
        let bytes = vec![0; length + unit];
        let first = bytes.as_ptr().addr().next_multiple_of(unit) - bytes.as_ptr().addr();
        Self { bytes, first, length }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.first..self.first + self.length]
    }
}

//! A tap: the host's end of a guest's network card.
//!
//! Every packet that goes through has a `struct virtio_net_hdr_mrg_rxbuf` in front of it, little-endian, of
//! [`HEADER`] bytes. The kernel understands it: checksums and segmentation are left to it, or to whoever is the
//! packet's receiver. It neither reads nor writes the last field, the number of buffers.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

/// Bytes of the header in front of each packet (5.1.6).
pub(super) const HEADER: usize = 12;

/// Why a tap cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface can have this name.
    #[error("no tap can be named {0:?}; a name has 1 to 15 bytes, and no '/', ':', '%' or blank")]
    Name(String),
    /// No `/dev/net/tun`.
    #[error("this host has no /dev/net/tun; as root: modprobe tun")]
    NoTun(#[source] io::Error),
    /// It may not be opened.
    #[error("/dev/net/tun cannot be opened")]
    Closed(#[source] io::Error),
    /// There is none of the name.
    #[error(
        "there is no tap {0}, and this user may make none; as root: ip tuntap add dev {0} mode tap user $USER"
    )]
    Missing(String),
    /// It is somebody else's.
    #[error(
        "tap {0} belongs to another user; as root: ip tuntap del dev {0} mode tap, \
         then ip tuntap add dev {0} mode tap user $USER"
    )]
    Foreign(String),
    /// Another process has it.
    #[error("tap {0} is in use: another VM or program has it open")]
    Busy(String),
    /// It is an interface of another kind.
    #[error("{0} is no tap that a VM can have: it is of another kind, or was made with multi_queue")]
    Kind(String),
    /// Anything else.
    #[error("tap {name}: {what}")]
    Host {
        /// Which.
        name: String,
        /// What failed.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A tap that is ours until it is dropped.
#[derive(Debug)]
pub struct Tap {
    file: OwnedFd,
    mtu: u16,
    offloads: u32,
}

/// Offloads that every kernel with taps has, and those since Linux 6.2.
const OLD: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const NEW: u32 = OLD | libc::TUN_F_USO4 | libc::TUN_F_USO6;

impl Tap {
    /// Opens the tap of this name; makes it if there is none and this process may, then also sets it up.
    ///
    /// # Errors
    /// [`TapError`], which says what to do.
    pub fn open(name: &str) -> Result<Self, TapError> {
        if !can_be_named(name) {
            return Err(TapError::Name(name.to_owned()));
        }
        let file = open_tun()?;
        let exists = exists(name);
        let mut request = Request::new(name);
        request.0.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
        if let Err(error) = request.send(file.as_fd(), libc::TUNSETIFF as _) {
            return Err(refused(name, exists, error));
        }
        let host = |what| move |source| TapError::Host { name: name.to_owned(), what, source };
        set(file.as_fd(), libc::TUNSETVNETHDRSZ as _, HEADER as i32)
            .map_err(host("the kernel does not know the header"))?;
        // What a little-endian host does anyway, unless somebody had it otherwise before. Only such hosts are supported.
        set(file.as_fd(), libc::TUNSETVNETLE as _, 1)
            .map_err(host("the kernel does not know the header's byte order"))?;
        let offloads = supported(file.as_fd()).map_err(host("the kernel does not take offloads"))?;
        let socket = UnixDatagram::unbound().map_err(host("no socket to ask by"))?;
        if !exists {
            bring_up(socket.as_fd(), name).map_err(host("it cannot be set up"))?;
        }
        let mtu = mtu(socket.as_fd(), name).map_err(host("its MTU cannot be read"))?;
        Ok(Self { file, mtu, offloads })
    }

    /// What stands in for a tap in tests: a socket of datagrams, with the header in front of each.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn stand_in(socket: UnixDatagram) -> Self {
        Self { file: socket.into(), mtu: 1500, offloads: 0 }
    }

    /// The largest packet without its Ethernet header, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Offloads that the kernel can be asked for, `TUN_F_*`.
    pub(super) fn offloads(&self) -> u32 {
        self.offloads
    }

    /// Says which packets may come in without a checksum, or in one piece (`TUN_F_*`), and throws away those that
    /// came before.
    ///
    /// # Errors
    /// When the tap is gone.
    pub(super) fn begin(&self, offloads: u32) -> io::Result<()> {
        if self.offloads != 0 {
            offload(self.file.as_fd(), offloads)?;
        }
        // More than a tap can hold by default (txqueuelen 1000), and not for ever if they keep coming.
        let mut packet = [0; 64];
        for _ in 0..4096 {
            if nix::unistd::read(&self.file, &mut packet).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The kernel's rules (`dev_valid_name`), and no `%`, in which it would put a number of its own.
fn can_be_named(name: &str) -> bool {
    let special = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b':' | b'%' | 0 | 0x0b);
    (1..libc::IFNAMSIZ).contains(&name.len()) && name != "." && name != ".." && !name.bytes().any(special)
}

fn open_tun() -> Result<OwnedFd, TapError> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: the path is a string that ends in a zero.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), flags) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            // ENODEV and ENXIO: the node is there, but not the driver.
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoTun(error),
            _ => TapError::Closed(error),
        });
    }
    // SAFETY: open(2) has just returned it, so it is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Why TUNSETIFF failed on a tap that was there before, or was not.
fn refused(name: &str, exists: bool, error: io::Error) -> TapError {
    match error.raw_os_error() {
        Some(libc::EPERM) if exists => TapError::Foreign(name.to_owned()),
        Some(libc::EPERM) => TapError::Missing(name.to_owned()),
        Some(libc::EBUSY) => TapError::Busy(name.to_owned()),
        Some(libc::EINVAL) if exists => TapError::Kind(name.to_owned()),
        _ => TapError::Host { name: name.to_owned(), what: "it cannot be attached", source: error },
    }
}

fn exists(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: a string that ends in a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// The most that TUNSETOFFLOAD takes. None is set afterwards.
fn supported(tap: BorrowedFd<'_>) -> io::Result<u32> {
    let all = match offload(tap, NEW) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => offload(tap, OLD).map(|()| OLD),
        taken => taken.map(|()| NEW),
    }?;
    offload(tap, 0)?;
    Ok(all)
}

fn bring_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = Request::new(name);
    request.send(socket, libc::SIOCGIFFLAGS as _)?;
    // SAFETY: the kernel has written the flags.
    let flags = unsafe { request.0.ifr_ifru.ifru_flags };
    request.0.ifr_ifru.ifru_flags = flags | libc::IFF_UP as i16;
    request.send(socket, libc::SIOCSIFFLAGS as _)
}

fn mtu(socket: BorrowedFd<'_>, name: &str) -> io::Result<u16> {
    let mut request = Request::new(name);
    request.send(socket, libc::SIOCGIFMTU as _)?;
    // SAFETY: the kernel has written the MTU.
    let mtu = unsafe { request.0.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// `struct ifreq`.
struct Request(libc::ifreq);

impl Request {
    fn new(name: &str) -> Self {
        // SAFETY: integers, arrays and unions of them, and null pointers, may be zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The name is shorter than the field, so a zero is left at its end.
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as c_char;
        }
        Self(request)
    }

    fn send(&mut self, file: BorrowedFd<'_>, number: libc::Ioctl) -> io::Result<()> {
        // SAFETY: each of these ioctls reads and writes one `struct ifreq`.
        done(unsafe { libc::ioctl(file.as_raw_fd(), number, &raw mut self.0) })
    }
}

fn set(tap: BorrowedFd<'_>, number: libc::Ioctl, value: i32) -> io::Result<()> {
    // SAFETY: these ioctls read one int.
    done(unsafe { libc::ioctl(tap.as_raw_fd(), number, &raw const value) })
}

/// TUNSETOFFLOAD takes its value for what others take a pointer for.
fn offload(tap: BorrowedFd<'_>, offloads: u32) -> io::Result<()> {
    // SAFETY: it touches no memory of ours.
    done(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(offloads)) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for name in ["tap0", "a", "fifteen-bytes-1"] {
            assert!(can_be_named(name), "{name:?}");
        }
        for name in ["", ".", "..", "sixteen-bytes-12", "a b", "a/b", "tap%d", "a:1", "a\0", "a\n"] {
            assert!(matches!(Tap::open(name), Err(TapError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let says = |exists, errno| refused("tap0", exists, io::Error::from_raw_os_error(errno)).to_string();
        assert_eq!(
            says(false, libc::EPERM),
            "there is no tap tap0, and this user may make none; as root: ip tuntap add dev tap0 mode tap user $USER"
        );
        assert_eq!(
            says(true, libc::EPERM),
            "tap tap0 belongs to another user; as root: ip tuntap del dev tap0 mode tap, \
             then ip tuntap add dev tap0 mode tap user $USER"
        );
        assert_eq!(says(true, libc::EBUSY), "tap tap0 is in use: another VM or program has it open");
        assert!(says(true, libc::EINVAL).starts_with("tap0 is no tap that a VM can have"));
        assert_eq!(says(false, libc::EINVAL), "tap tap0: it cannot be attached");
    }
}

//! The host's and the guest's initramfs.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek};
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::cpio::Archive;
use super::fetch::{self, Image};
use super::modules;
use crate::paths;

/// powernv loads no more than this.
const LARGEST: u64 = 128 << 20;

/// A file to appear in the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabFile {
    /// Where it is on this machine.
    pub source: PathBuf,
    /// Its path in the host, without the leading slash.
    pub name: String,
}

/// What a stock guest boots from, on any machine.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Debian's kernel, with 64 KiB pages.
    pub kernel: PathBuf,
    /// busybox, and `tools/lab/guest-init`.
    pub initrd: PathBuf,
}

/// The guest's kernel and initrd as files of this machine; they are /lab/vmlinux and /lab/initrd in the host.
pub fn guest() -> Result<Guest> {
    let image = fetch::image()?;
    let initrd = paths::lab().join("guest-initrd");
    // Renamed into its place: whoever reads the old one meanwhile keeps it.
    let new = initrd.with_extension(std::process::id().to_string());
    fs::write(&new, guest_archive(&image)?).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &initrd).with_context(|| format!("cannot write {}", initrd.display()))?;
    Ok(Guest { kernel: image.vmlinux(), initrd })
}

/// The guest's initrd. Another archive may follow it, and the kernel unpacks both.
pub fn guest_archive(image: &Image) -> Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    skeleton(&mut archive, image, "guest-init")?;
    add_modules(&mut archive, image, &modules::GUEST_LISTS)?;
    Ok(archive.finish()?)
}

/// The host's initramfs, with the files and the command, as an anonymous file that vanishes with its last
/// user.
pub fn host(image: &Image, files: &[LabFile], bare: bool, command: &[u8]) -> Result<File> {
    let file = anonymous("lab-initramfs").context("cannot make an anonymous file")?;
    let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, file));
    skeleton(&mut archive, image, "host-init")?;
    archive.directory("lab")?;
    archive.bytes("etc/lab-command", 0o644, command)?;
    add_modules(&mut archive, image, &modules::HOST_LISTS)?;
    archive.file("usr/bin/e2fsck", &image.static_e2fsck())?;
    add_executable(&mut archive, "usr/bin/lab-bridge", &script("host-bridge"))?;
    let named = |name: &str| files.iter().any(|file| file.name == name);
    if !bare && !named("lab/vmlinux") {
        archive.file("lab/vmlinux", &image.vmlinux())?;
    }
    if !bare && !named("lab/initrd") {
        archive.bytes("lab/initrd", 0o644, &guest_archive(image)?)?;
    }
    for LabFile { source, name } in files {
        archive
            .file(name, source)
            .with_context(|| format!("cannot put {} into the host", source.display()))?;
    }
    let mut file = archive.finish()?.into_inner().context("cannot write the initramfs")?;
    let size = file.stream_position()?;
    ensure!(
        size <= LARGEST,
        "the files for the host come to {} MiB, and its firmware takes {} MiB: leave some out (--bare leaves out the guest's kernel)",
        size >> 20,
        LARGEST >> 20
    );
    Ok(file)
}

/// What both have: busybox, /init, and the console that the kernel opens for it.
fn skeleton<W: io::Write>(archive: &mut Archive<W>, image: &Image, init: &str) -> Result<()> {
    archive.file("bin/busybox", &image.busybox())?;
    archive.symlink("bin/sh", "busybox")?;
    archive.character("dev/console", 0o600, (5, 1))?;
    archive.character("dev/null", 0o666, (1, 3))?;
    add_executable(archive, "init", &script(init))
}

fn script(name: &str) -> PathBuf {
    paths::root().join("tools/lab").join(name)
}

fn add_modules<W: io::Write>(archive: &mut Archive<W>, image: &Image, lists: &[&str]) -> Result<()> {
    let dir = image.modules();
    for name in modules::listed(&dir, lists)? {
        archive.file(&format!("lib/modules/{name}"), &dir.join(&name))?;
    }
    Ok(())
}

fn add_executable<W: io::Write>(archive: &mut Archive<W>, name: &str, source: &Path) -> Result<()> {
    let data = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    Ok(archive.bytes(name, 0o755, &data)?)
}

/// A file without a name; its descriptor survives exec, so that QEMU can read it.
fn anonymous(name: &str) -> io::Result<File> {
    let name = std::ffi::CString::new(name).expect("the name has no NUL");
    // SAFETY: `name` is a C string; the result is checked before it is owned.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: memfd_create gave a descriptor that nothing else owns.
    Ok(unsafe { File::from_raw_fd(fd) })
}

//! `lose-events`: takes a process's perf events away from it, as a debugger or a mishap would.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

/// `PERF_EVENT_IOC_DISABLE`, `_IO('$', 1)` in powerpc's encoding.
const DISABLE: u32 = 0x2000_2401;

/// Disables every perf event that the process has open, and prints how many there were.
pub fn run(pid: u32) -> Result<()> {
    // SAFETY: numbers only.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let process = descriptor(process).with_context(|| format!("cannot open process {pid}"))?;
    let mut lost = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        if !fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == "anon_inode:[perf_event]") {
            continue;
        }
        let number: libc::c_int = entry.file_name().to_string_lossy().parse()?;
        // SAFETY: numbers only.
        let event = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
        let event = descriptor(event).context("cannot take a descriptor over")?;
        // SAFETY: the descriptor is a perf event, whose request takes no pointer.
        let result = unsafe { libc::ioctl(event.as_raw_fd(), DISABLE as _, 0) };
        ensure!(result == 0, "cannot disable an event: {}", io::Error::last_os_error());
        lost += 1;
    }
    println!("{lost}");
    Ok(())
}

fn descriptor(number: libc::c_long) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave it just now, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number as libc::c_int) })
}

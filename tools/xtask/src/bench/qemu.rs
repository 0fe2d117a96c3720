//! QEMU in the lab host, as the benches run it beside cede: the program, its libraries and firmware, and the
//! machine that is as small as QEMU comes.

use std::path::PathBuf;

use anyhow::Result;

use super::foreign;
use crate::lab::fetch;

/// Where its files are below the host's /lab.
const DIRECTORY: &str = "qemu";

/// What makes it run: the loader's path is written into its binary.
pub const PREPARE: &str = "mkdir -p /lib64 && ln -s /lab/qemu/lib/ld64.so.2 /lib64/";

/// QEMU and its version.
pub struct Qemu {
    /// Debian's version of the package.
    pub version: String,
    /// The files and their names below the host's /lab.
    pub files: Vec<(PathBuf, String)>,
}

/// Fetches QEMU's packages if they are missing, and picks what it needs to run.
pub fn get() -> Result<Qemu> {
    let program = foreign::program("qemu-ppc64el", "qemu-system-ppc", "usr/bin/qemu-system-ppc64")?;
    let mut files = vec![
        (program.path, format!("{DIRECTORY}/qemu-system-ppc64")),
        (fetch::image()?.qemu_data().join("vof.bin"), format!("{DIRECTORY}/share/vof.bin")),
    ];
    for (name, path) in program.libraries {
        files.push((path, format!("{DIRECTORY}/lib/{name}")));
    }
    Ok(Qemu { version: program.version, files })
}

/// Set in QEMU's environment.
pub fn environment() -> Vec<(String, String)> {
    vec![("LD_LIBRARY_PATH".to_owned(), "/lab/qemu/lib".to_owned())]
}

/// What a guest of QEMU's consists of.
pub struct Guest<'a> {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// vCPUs.
    pub cpus: u32,
    /// The kernel's path in the host.
    pub kernel: &'a str,
    /// The kernel's command line.
    pub cmdline: &'a str,
}

/// QEMU's command line for a pseries guest. The capabilities are those that an emulated processor cannot have.
pub fn command(guest: &Guest) -> Vec<String> {
    super::words(&[
        "/lab/qemu/qemu-system-ppc64",
        "-L",
        "/lab/qemu/share",
        "-M",
        "pseries,accel=kvm,x-vof=on,cap-ccf-assist=off,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken",
        "-cpu",
        "host",
        "-m",
        &format!("{}M", guest.memory_mib),
        "-smp",
        &guest.cpus.to_string(),
        "-nodefaults",
        "-vga",
        "none",
        "-nographic",
        "-no-reboot",
        "-serial",
        "stdio",
        "-kernel",
        guest.kernel,
        "-initrd",
        "/lab/initrd",
        "-append",
        guest.cmdline,
    ])
}

//! QEMU as a child process: its command line, and the sockets that are its devices' other ends.
//!
//! Each channel is one half of a socket pair, made before QEMU starts; so nothing is lost at either end and
//! no name is left behind. The process never outlives its [`Qemu`], nor the thread that started it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use super::fetch::Image;
use super::host::Host;

/// As many functions as a PCI device has.
pub(super) const MOST_BLOCKS: usize = 8;
/// What fits the serial number of a virtio disk, behind [`SERIAL`].
pub(super) const LONGEST_NAME: usize = 16;
/// Begins the serial number of each of the lab's disks; the host's init looks for it.
const SERIAL: &str = "lab.";

/// 2^3 ns for each instruction; while all processors idle, time passes as it does outside.
const ICOUNT: &str = "shift=3,sleep=on";

/// The size and kind of the host.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub host: Host,
    /// Its time passes by the instructions that it executes ([`ICOUNT`]).
    pub icount: bool,
    pub smp: u32,
    pub threads: u32,
    pub memory: String,
    /// Whether the command has a terminal: one bidirectional channel instead of three.
    pub tty: bool,
    /// An ext4 image for /disk.
    pub disk: Option<PathBuf>,
    /// Images and the names that the host finds them by.
    pub blocks: Vec<(PathBuf, String)>,
    /// Further QEMU options, as the user gave them.
    pub extra: Vec<String>,
}

/// This side of the host's channels.
pub(super) struct Channels {
    /// The host kernel's console.
    pub console: UnixStream,
    /// The command's stdin; with a terminal its output too.
    pub input: UnixStream,
    /// The command's stdout and stderr, when it has no terminal.
    pub output: Option<(UnixStream, UnixStream)>,
    /// Where the init tells the exit code.
    pub control: UnixStream,
}

/// A running QEMU.
pub(super) struct Qemu {
    child: Child,
}

impl Qemu {
    /// Boots the machine with the initramfs.
    pub fn start(image: &Image, machine: &Machine, initramfs: &File) -> Result<(Qemu, Channels)> {
        let mut line = CommandLine::new(image, machine);
        line.kernel(image, machine, initramfs);
        let console = line.channel("console")?;
        line.args(&["-serial", "chardev:console"]);
        let buses = machine.host.pci_buses();
        line.args(&["-device", &format!("virtio-serial-pci,bus={}", buses.0)]);
        if let Some(disk) = &machine.disk {
            line.drive(disk, "disk", &format!("bus={}", buses.1));
        }
        for (n, (image, name)) in machine.blocks.iter().enumerate() {
            // The functions of one device, since a root port takes no second.
            let place = format!("bus={},addr=0x{:x}.{n},multifunction=on", buses.2.0, buses.2.1);
            line.drive(image, name, &place);
        }
        let input = line.channel("in")?;
        let output = if machine.tty {
            line.args(&["-device", "virtconsole,chardev=in,name=lab.tty"]);
            None
        } else {
            line.port("in");
            let ends = (line.channel("out")?, line.channel("err")?);
            line.port("out");
            line.port("err");
            Some(ends)
        };
        // Last: the init takes its connection for all of them.
        let control = line.channel("ctl")?;
        line.port("ctl");
        line.command.args(&machine.extra);
        let child = line.spawn()?;
        Ok((Qemu { child }, Channels { console, input, output, control }))
    }

    /// What QEMU itself has to say.
    pub fn take_stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.child.stderr.take()
    }

    /// Ends QEMU, which may have ended already.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        // An error here means that it is gone.
        let _ = self.child.kill();
        self.child.wait()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// The command line as it grows, and the descriptors that the child shall inherit.
struct CommandLine {
    command: Command,
    inherited: Vec<OwnedFd>,
}

impl CommandLine {
    fn new(image: &Image, machine: &Machine) -> Self {
        let Machine { host, smp, threads, memory, .. } = machine;
        let mut command = Command::new(image.program("qemu-system-ppc64"));
        command.arg("-L").arg(image.qemu_data());
        command.args(host.qemu_options());
        if machine.icount {
            command.args(["-accel", "tcg,thread=single", "-icount", ICOUNT]);
        } else {
            command.args(["-accel", "tcg,thread=multi"]);
        }
        command.args(["-smp", &format!("{smp},cores={},threads={threads}", smp / threads)]);
        command.args(["-m", memory, "-display", "none", "-monitor", "none", "-net", "none", "-no-reboot"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        CommandLine { command, inherited: Vec::new() }
    }

    fn kernel(&mut self, image: &Image, machine: &Machine, initramfs: &File) {
        // A panic reboots, and -no-reboot turns that into the end of QEMU.
        let tty = if machine.tty { " lab.tty" } else { "" };
        // The crypto self-tests are a tenth of the boot here, and nobody's business.
        let disk = if machine.disk.is_some() { " lab.disk" } else { "" };
        let blocks = if machine.blocks.is_empty() { "" } else { " lab.blocks" };
        let append = format!("console=hvc0 quiet panic=-1 cryptomgr.notests{tty}{disk}{blocks}");
        self.command.arg("-kernel").arg(image.vmlinux());
        self.command.arg("-initrd").arg(format!("/proc/self/fd/{}", initramfs.as_raw_fd()));
        self.args(&["-append", &append]);
    }

    fn args(&mut self, args: &[&str]) {
        self.command.args(args);
    }

    /// A character device over a socket pair; the result is our end.
    fn channel(&mut self, name: &str) -> Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
        let theirs = OwnedFd::from(theirs);
        let device = format!("socket,id={name},fd={}", theirs.as_raw_fd());
        self.args(&["-chardev", &device]);
        self.inherited.push(theirs);
        Ok(ours)
    }

    /// A disk that forgets what is written to it.
    fn drive(&mut self, image: &Path, name: &str, place: &str) {
        let mut drive = OsString::from(format!("if=none,id=drive.{name},format=raw,snapshot=on,file="));
        // A comma would end the file's name; QEMU takes two for one.
        drive.push(image.to_string_lossy().replace(',', ",,"));
        self.command.arg("-drive").arg(drive);
        self.args(&["-device", &format!("virtio-blk-pci,drive=drive.{name},serial={SERIAL}{name},{place}")]);
    }

    fn port(&mut self, name: &str) {
        self.args(&["-device", &format!("virtserialport,chardev={name},name=lab.{name}")]);
    }

    fn spawn(mut self) -> Result<Child> {
        let fds: Vec<_> = self.inherited.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec only prctl and fcntl are called, both async-signal-safe.
        unsafe {
            self.command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                for fd in &fds {
                    if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        self.command.spawn().context("cannot start QEMU")
    }
}

//! `cargo xtask lab`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::fetch::{self, Options};
use super::session::{Event, RunError, Session, Stream};
use super::{Host, Run, initramfs, parse_block, parse_file, root, terminal};
use crate::cross;

/// What timeout(1) says too.
const TIME_LIMIT_CODE: u8 = 124;
/// The lab itself failed.
const LAB_FAILED: u8 = 125;

/// KVM on POWER on any machine: an emulated host with a stock Debian kernel
#[derive(Subcommand, Debug)]
pub enum Lab {
    /// Get QEMU, kernels and the cross compiler as Debian packages, into target/lab; nothing is installed
    Fetch {
        /// The Debian mirror [default: the one that this machine's apt uses]
        #[arg(long, value_name = "URL", env = "CEDE_LAB_MIRROR")]
        mirror: Option<String>,
        /// Fetch and unpack anew what is there
        #[arg(long)]
        force: bool,
    },
    /// Make the guest's kernel and initrd, for a machine that needs no lab, and print where they are
    Guest,
    /// Make the root disk, a small Debian that boots to multi-user, and print where it is
    Root,
    /// Run a command in the host: its streams and its exit code are the command's
    ///
    /// Exit codes: the command's own; 124 at the time limit; 125 when the lab fails or the host goes down.
    Run {
        /// The host to boot
        #[command(flatten)]
        machine: MachineArgs,
        /// Stop the host after this many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        timeout: u64,
        /// Give the command a terminal
        #[arg(long)]
        tty: bool,
        /// The command, as the host shall run it
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<std::ffi::OsString>,
    },
    /// An interactive shell in the host; the host ends with it
    Shell {
        /// The host to boot
        #[command(flatten)]
        machine: MachineArgs,
    },
}

/// The host, and what it is given
#[derive(Args, Debug)]
pub struct MachineArgs {
    /// The host's kind
    #[arg(long, value_enum, default_value = "powernv9")]
    host: Host,
    /// Processors, threads included
    #[arg(long, value_name = "N", default_value_t = 2)]
    smp: u32,
    /// Threads per core
    #[arg(long, value_name = "T", default_value_t = 1)]
    threads: u32,
    /// Memory, as QEMU writes it
    #[arg(long, value_name = "SIZE", default_value = "4G")]
    mem: String,
    /// Put a file into the host, as /lab/NAME, with its permissions [default NAME: the file's own]
    #[arg(long = "file", value_name = "SRC[:NAME]", value_parser = parse_file)]
    files: Vec<(PathBuf, String)>,
    /// Mount an ext4 image at /disk, read-only (made by `mke2fs -d DIR`); for more than the 128 MiB of an
    /// initramfs
    #[arg(long, value_name = "IMAGE")]
    disk: Option<PathBuf>,
    /// Attach an image as /dev/lab/NAME, for guests; what is written to it is forgotten. `root` alone is the root disk
    #[arg(long = "block", value_name = "IMAGE[:NAME]", value_parser = parse_block)]
    blocks: Vec<(PathBuf, String)>,
    /// Add QEMU for POWER, as the command qemu-kvm
    #[arg(long)]
    with_qemu: bool,
    /// Take the cede that was built last, if any, instead of building it
    #[arg(long)]
    no_build: bool,
    /// Add /lab/vmlinux-4k, Debian's kernel with 4 KiB pages
    #[arg(long)]
    vmlinux_4k: bool,
    /// Leave out /lab/vmlinux and /lab/initrd
    #[arg(long)]
    bare: bool,
    /// Show the host's console too, on stderr
    #[arg(long, short)]
    verbose: bool,
    /// Add an option to QEMU's command line; repeat for more
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    qemu: Vec<String>,
}

impl MachineArgs {
    fn run(&self) -> Result<Run> {
        if !self.no_build {
            cross::build_cede()?;
        }
        let mut run = Run::new(self.host).smp(self.smp).threads(self.threads).memory(&self.mem);
        if self.bare {
            run = run.bare();
        }
        if self.vmlinux_4k {
            run = run.file(&fetch::image()?.vmlinux_4k(), "vmlinux-4k");
        }
        if let Some(disk) = &self.disk {
            run = run.disk(disk);
        }
        if self.with_qemu {
            run = run.with_qemu()?;
        }
        for (image, name) in &self.blocks {
            let image = if image == Path::new("root") { root::disk()? } else { image.clone() };
            run = run.block(&image, name);
        }
        for (source, name) in &self.files {
            run = run.file(source, name);
        }
        Ok(self.qemu.iter().fold(run, |run, option| run.qemu_option(option)))
    }
}

/// Does what the command line asks.
pub fn main(lab: Lab) -> Result<ExitCode> {
    match lab {
        Lab::Fetch { mirror, force } => {
            fetch::fetch(&Options { mirror, force })?;
            Ok(ExitCode::SUCCESS)
        }
        Lab::Guest => {
            let guest = initramfs::guest()?;
            println!("{}\n{}", guest.kernel.display(), guest.initrd.display());
            Ok(ExitCode::SUCCESS)
        }
        Lab::Root => {
            println!("{}", root::disk()?.display());
            Ok(ExitCode::SUCCESS)
        }
        Lab::Run { machine, timeout, tty, command } => {
            let mut run = machine.run()?.command(command).time_limit(Duration::from_secs(timeout));
            if tty {
                run = run.tty();
            }
            let raw = if tty { terminal::Raw::stdin()? } else { None };
            attend(run.start()?, machine.verbose, raw)
        }
        Lab::Shell { machine } => {
            let mut run =
                machine.run()?.command(["sh", "-l"]).tty().time_limit(Duration::from_secs(24 * 3600));
            if let Some((rows, columns)) = terminal::size() {
                let script = format!("stty rows {rows} columns {columns}; exec sh -l");
                run = run.command(["sh", "-c", &script]);
            }
            if let Ok(term) = std::env::var("TERM") {
                run = run.env("TERM", &term);
            }
            let session = run.start()?;
            attend(session, machine.verbose, terminal::Raw::stdin()?)
        }
    }
}

/// Connects the session with our own streams until it ends.
pub fn attend(mut session: Session, verbose: bool, raw: Option<terminal::Raw>) -> Result<ExitCode> {
    let mut input = session.input()?;
    thread::spawn(move || {
        // The command may end before its input does.
        if io::copy(&mut io::stdin().lock(), &mut input).is_ok() {
            let _ = input.close();
        }
    });
    let result = loop {
        match session.event() {
            Ok(Event::Output(stream, bytes)) => show(stream, &bytes, verbose)?,
            Ok(Event::Exit(code)) => break Ok(code),
            Err(error) => break Err(error),
        }
    };
    drop(session);
    drop(raw);
    Ok(match result {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::from(if matches!(error, RunError::TimeLimit { .. }) {
                TIME_LIMIT_CODE
            } else {
                LAB_FAILED
            })
        }
    })
}

fn show(stream: Stream, bytes: &[u8], verbose: bool) -> io::Result<()> {
    match stream {
        Stream::Out => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        Stream::Err => io::stderr().write_all(bytes),
        Stream::Console if verbose => io::stderr().write_all(bytes),
        Stream::Console => Ok(()),
    }
}

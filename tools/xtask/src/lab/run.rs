//! What to run in the lab, and on which host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::fetch;
use super::host::Host;
use super::initramfs::{self, LabFile};
use super::qemu::{self, Machine, Qemu};
use super::session::Session;
use crate::{bench, cross, paths};

/// The time limit unless another is set. A whole guest takes about ten seconds in the lab, a slow machine
/// several times that.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// A command to run in the lab host; the methods set what differs from the default.
#[derive(Clone, Debug)]
pub struct Run {
    machine: Machine,
    limit: Duration,
    files: Vec<LabFile>,
    bare: bool,
    command: Vec<OsString>,
    environment: Vec<(String, String)>,
}

impl Run {
    /// A run on `host` with two processors of one thread, 4 GiB of memory, /lab/vmlinux and /lab/initrd, and
    /// `cede` if it is built.
    pub fn new(host: Host) -> Self {
        let machine = Machine {
            host,
            icount: false,
            smp: 2,
            threads: 1,
            memory: "4G".to_owned(),
            tty: false,
            disk: None,
            blocks: Vec::new(),
            extra: Vec::new(),
        };
        Run {
            machine,
            limit: TIME_LIMIT,
            files: Vec::new(),
            bare: false,
            command: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Processors, threads included.
    pub fn smp(mut self, smp: u32) -> Self {
        self.machine.smp = smp;
        self
    }

    /// Threads per core; [`Run::smp`] is a multiple of it.
    pub fn threads(mut self, threads: u32) -> Self {
        self.machine.threads = threads;
        self
    }

    /// Memory, as QEMU writes it: `4G`.
    pub fn memory(mut self, memory: &str) -> Self {
        self.machine.memory = memory.to_owned();
        self
    }

    /// Has the host's time pass by the instructions that it executes, one processor at a time: what is done takes as long however busy
    /// this machine is.
    pub fn icount(mut self) -> Self {
        self.machine.icount = true;
        self
    }

    /// How long the run may take, boot included.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Puts a file of this machine into the host, as `/lab/NAME`, with its permissions.
    pub fn file(mut self, source: &Path, name: &str) -> Self {
        self.files.push(LabFile { source: source.to_owned(), name: format!("lab/{name}") });
        self
    }

    /// Attaches an ext4 image, which the host mounts read-only at /disk; for more than an initramfs holds.
    pub fn disk(mut self, image: &Path) -> Self {
        self.machine.disk = Some(image.to_owned());
        self
    }

    /// Attaches an image as the host's block device /dev/lab/NAME, which a guest may have. What is written to it is forgotten; one
    /// image may be attached under several names.
    pub fn block(mut self, image: &Path, name: &str) -> Self {
        self.machine.blocks.push((image.to_owned(), name.to_owned()));
        self
    }

    /// Adds QEMU for POWER, as the command `qemu-kvm`: the other VMM, to compare with. It is fetched first if need be.
    pub fn with_qemu(mut self) -> Result<Self> {
        for (source, name) in bench::qemu::get()?.files {
            self = self.file(&source, &name);
        }
        let source = paths::root().join("tools/lab/host-qemu");
        self.files.push(LabFile { source, name: "usr/bin/qemu-kvm".to_owned() });
        Ok(self)
    }

    /// Leaves out /lab/vmlinux and /lab/initrd.
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Gives the command a terminal instead of three streams.
    pub fn tty(mut self) -> Self {
        self.machine.tty = true;
        self
    }

    /// Sets an environment variable of the command.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an option to QEMU's command line.
    pub fn qemu_option(mut self, option: &str) -> Self {
        self.machine.extra.push(option.to_owned());
        self
    }

    /// The command and its arguments, which arrive exactly as given.
    pub fn command<A: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = A>) -> Self {
        self.command = command.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Boots the host. The lab is fetched first if need be.
    pub fn start(mut self) -> Result<Session> {
        let Machine { smp, threads, ref blocks, .. } = self.machine;
        ensure!(
            blocks.len() <= qemu::MOST_BLOCKS,
            "the lab host takes {} --block, and not {}",
            qemu::MOST_BLOCKS,
            blocks.len()
        );
        ensure!(!self.command.is_empty(), "no command to run in the lab host");
        ensure!(
            threads > 0 && smp > 0 && smp % threads == 0,
            "{smp} processors do not make cores of {threads} threads: --smp must be a multiple of --threads"
        );
        let image = fetch::image()?;
        let cede = cross::cede_path();
        if cede.exists() && !self.has("usr/bin/cede") {
            self.files.push(LabFile { source: cede, name: "usr/bin/cede".to_owned() });
        }
        let script = shell_script(&self.command, &self.environment);
        let initramfs = initramfs::host(&image, &self.files, self.bare, &script)?;
        let (qemu, channels) = Qemu::start(&image, &self.machine, &initramfs)?;
        Ok(Session::new(qemu, channels, self.limit)?)
    }

    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.name == name)
    }
}

/// Parses `SRC[:NAME]`; without a name the file keeps its own.
pub fn parse_file(argument: &str) -> Result<(PathBuf, String), String> {
    let (source, name) = match argument.rsplit_once(':') {
        Some((source, name)) => (Path::new(source), name.to_owned()),
        None => {
            let source = Path::new(argument);
            let name = source.file_name().ok_or_else(|| format!("{argument} names no file"))?;
            (source, name.to_string_lossy().into_owned())
        }
    };
    if name.is_empty() || name.starts_with('/') || name.split('/').any(|part| part == ".." || part.is_empty())
    {
        return Err(format!("{name:?} is no path below /lab"));
    }
    if !source.is_file() {
        return Err(format!("{} is not a file", source.display()));
    }
    Ok((source.to_owned(), name))
}

/// Parses `IMAGE[:NAME]`, as [`parse_file`] does, but the name is that of a device.
pub fn parse_block(argument: &str) -> Result<(PathBuf, String), String> {
    let (image, name) = match argument {
        "root" => (PathBuf::from("root"), "root".to_owned()),
        _ => match argument.strip_prefix("root:") {
            Some(name) => (PathBuf::from("root"), name.to_owned()),
            None => parse_file(argument)?,
        },
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match !name.is_empty() && name.len() <= qemu::LONGEST_NAME && name.chars().all(plain) {
        true => Ok((image, name)),
        false => Err(format!(
            "{name:?} is no name for a device: up to {} letters, digits and -_.",
            qemu::LONGEST_NAME
        )),
    }
}

/// A script that becomes the command. Within single quotes a shell takes everything for itself but the quote.
fn shell_script(command: &[OsString], environment: &[(String, String)]) -> Vec<u8> {
    let mut script = Vec::new();
    for (name, value) in environment {
        script.extend_from_slice(format!("export {name}=").as_bytes());
        quote(value.as_bytes(), &mut script);
        script.push(b'\n');
    }
    script.extend_from_slice(b"exec");
    for word in command {
        script.push(b' ');
        quote(word.as_bytes(), &mut script);
    }
    script.push(b'\n');
    script
}

fn quote(word: &[u8], into: &mut Vec<u8>) {
    into.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => into.extend_from_slice(b"'\\''"),
            byte => into.push(*byte),
        }
    }
    into.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_exactly_what_was_quoted() {
        let words = ["printf", "%s|", "a b", "it's", "$HOME `x` \\ \"q\" *", "", "two\nlines", "ünïcode"];
        let command: Vec<OsString> = words.iter().map(OsString::from).collect();
        let script = shell_script(&command, &[("NAME".to_owned(), "a 'b".to_owned())]);
        let output =
            std::process::Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
        let expected: String = words[2..].iter().map(|word| format!("{word}|")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn a_file_keeps_its_name_unless_it_is_given_one() {
        let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let this = this.to_str().unwrap();
        assert_eq!(parse_file(this).unwrap().1, "Cargo.toml");
        assert_eq!(parse_file(&format!("{this}:dir/other")).unwrap().1, "dir/other");
        assert!(parse_file(&format!("{this}:../other")).is_err());
        assert!(parse_file(&format!("{this}:/other")).is_err());
        assert!(parse_file("/no/such/file").unwrap_err().contains("/no/such/file"));
    }
}

//! A monitor as a process, and what the kernel knows about its cost.

use std::fs;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use bench_agent::Subject;

/// Clocks in nanoseconds, read by the child immediately before exec.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// CLOCK_MONOTONIC.
    pub wall: u64,
    /// CPU time of the process; exec does not set it back.
    pub cpu: u64,
}

/// A running monitor. It is killed when this is dropped, so that its way out costs nobody anything.
pub struct Monitor {
    child: Child,
    /// When it began.
    pub exec: Stamp,
}

impl Monitor {
    /// Starts a subject's only guest.
    pub fn guest(subject: &Subject) -> Result<Self> {
        let [command] = &subject.guests[..] else { bail!("{} guests instead of one", subject.guests.len()) };
        Self::start(command, &subject.environment)
    }

    /// Starts `command` with its console on a pipe, and nothing to read.
    pub fn start(command: &[String], environment: &[(String, String)]) -> Result<Self> {
        Self::start_with(command, environment, Stdio::null())
    }

    /// Starts `command` with its console on two pipes; [`tell`](Self::tell) writes to it.
    pub fn start_to_be_told(command: &[String], environment: &[(String, String)]) -> Result<Self> {
        Self::start_with(command, environment, Stdio::piped())
    }

    fn start_with(command: &[String], environment: &[(String, String)], stdin: Stdio) -> Result<Self> {
        let (program, arguments) = command.split_first().context("a command line is empty")?;
        let (mut reader, writer) = UnixStream::pair()?;
        let stamp = writer.as_raw_fd();
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(stdin).stdout(Stdio::piped());
        // SAFETY: between fork and exec only clock_gettime and write are called, both async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                let clocks = [clock(libc::CLOCK_MONOTONIC)?, clock(libc::CLOCK_PROCESS_CPUTIME_ID)?];
                let bytes = clocks.map(u64::to_ne_bytes);
                // SAFETY: the descriptor is the socket's, which the parent has open across the fork.
                let written = libc::write(stamp, bytes.as_ptr().cast(), size_of_val(&bytes));
                if written == 16 { Ok(()) } else { Err(io::Error::last_os_error()) }
            });
        }
        let child = command.spawn().with_context(|| format!("cannot run {program}"))?;
        drop(writer);
        let mut clocks = [[0; 8]; 2];
        reader.read_exact(clocks.as_flattened_mut()).context("the child told no time")?;
        let [wall, cpu] = clocks.map(u64::from_ne_bytes);
        Ok(Self { child, exec: Stamp { wall, cpu } })
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The other end of its stdout.
    pub fn console(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("the console is taken")
    }

    /// Types a line.
    pub fn tell(&self, line: &str) -> Result<()> {
        let mut stdin = self.child.stdin.as_ref().context("the monitor reads nothing")?;
        writeln!(stdin, "{line}").context("the monitor takes no line")
    }

    /// Takes it off the host's CPUs, until [`resume`](Self::resume).
    pub fn pause(&self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    /// Ends a pause.
    pub fn resume(&self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    fn signal(&self, number: libc::c_int) -> Result<()> {
        // SAFETY: the process is our child and not waited for, so its ID is nobody else's.
        let result = unsafe { libc::kill(self.pid() as libc::pid_t, number) };
        ensure!(result == 0, "the monitor takes no signal: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// CPU time since exec in nanoseconds: user and system, of all its threads, those that have ended
    /// included.
    pub fn cpu_time(&self) -> Result<u64> {
        let mut id = 0;
        // SAFETY: `id` is a clockid_t to be written.
        let error = unsafe { libc::clock_getcpuclockid(self.pid() as libc::pid_t, &mut id) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error)).context("the process has no CPU clock");
        }
        Ok(clock(id)?.saturating_sub(self.exec.cpu))
    }

    /// Times that a thread of it gave up its CPU by itself. Threads that have ended are not in it.
    pub fn voluntary_switches(&self) -> Result<u64> {
        let path = format!("/proc/{}/task", self.pid());
        let mut sum = 0;
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {path}"))? {
            // A thread may end in between.
            let Ok(status) = fs::read_to_string(entry?.path().join("status")) else { continue };
            sum +=
                voluntary(&status).with_context(|| format!("{path}: a status without context switches"))?;
        }
        Ok(sum)
    }

    /// Page faults that needed no I/O, since the process began.
    pub fn page_faults(&self) -> Result<u64> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        minor_faults(&stat).with_context(|| format!("{path} is not as proc(5) says"))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // An error here means that it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `minflt`, the tenth field; the second is in parentheses and may hold anything.
fn minor_faults(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(7)?.parse().ok()
}

fn voluntary(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of the trace too.
pub fn monotonic() -> Result<u64> {
    Ok(clock(libc::CLOCK_MONOTONIC)?)
}

fn clock(id: libc::clockid_t) -> io::Result<u64> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` is a timespec to be written.
    if unsafe { libc::clock_gettime(id, time.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: clock_gettime has written it.
    let time = unsafe { time.assume_init() };
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 777 8 9\n";
        assert_eq!(minor_faults(stat), Some(777));
        assert_eq!(minor_faults("42"), None);
    }

    #[test]
    fn voluntary_switches_are_not_the_others() {
        let status = "Threads:\t2\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(voluntary(status), Some(150));
        assert_eq!(voluntary("Threads:\t2\n"), None);
    }

    #[test]
    fn cpu_time_begins_with_exec() {
        let sleep = Monitor::start(&["sleep".to_owned(), "60".to_owned()], &[]).unwrap();
        let before = monotonic().unwrap();
        assert!(sleep.exec.wall <= before);
        assert!(sleep.cpu_time().unwrap() < 1_000_000_000);
    }
}

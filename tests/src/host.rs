//! A lab host that runs one thing after another: a shell in it, and the guest that the shell started.
//!
//! The shell's own output and the guest's console must not mix, so each has a stream: what the shell and its commands
//! print goes to the session's stderr, what `cede run` prints to its stdout (descriptor 3 of the shell). The end of a
//! command is a line that nothing else prints, with a number that grows.
//!
//! ```text
//!             sh                    start               wait
//!  Idle ────────────► Idle   Idle ────────► Guest runs ──────► Idle
//!                                            │  sh, type_in, expect
//! ```
//! The guest's console input is a FIFO that the shell holds open, so the shell stays free while the guest runs. A shell of its own
//! waits for the end of `cede run` and then prints a line with the exit code behind the guest's output: so whoever waits for a text
//! learns at once that it will not come. Beside the guest there may be a peer, which nobody types to. Its lines go to the shell's
//! stream with a mark before each, and its end is a line there.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use xtask::lab::{Event, Host, Run, RunError, Session, Stream, root};

/// Files that every host gets, as (source, name below /lab).
pub type Files = Vec<(PathBuf, String)>;

/// What the shell does first. The guest's initrd is the lab's with the scripts behind it: the kernel unpacks both.
const PRELUDE: &str = "exec 3>&1 1>&2; cat /lab/initrd /lab/scripts.cpio >/tmp/initrd";

/// Begins each line of the peer.
const PEER: &str = "@peer ";

/// Begins the line behind the peer's last, and comes before its exit code.
const PEER_END: &str = "\n@peer end ";

/// The disks that every host has, as copies of the lab's root disk: `/dev/lab/NAME`.
const DISKS: [&str; 2] = ["a", "b"];

/// How a command or a guest ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, as a shell tells it.
    pub code: i32,
    /// What it printed, lines ending in `\n` alone.
    pub text: String,
}

/// A lab host with a shell.
pub struct LabHost {
    session: Session,
    guest: Output,
    shell: Output,
    /// Begins the line behind the guest's last, and comes before its exit code.
    end: String,
    /// Where the peer begins in the shell's stream.
    peer: usize,
    commands: u32,
}

impl LabHost {
    /// Boots the host.
    pub fn boot(host: Host, files: &[(PathBuf, String)], limit: Duration) -> Result<Self> {
        let run = Run::new(host).time_limit(limit).command(["sh"]);
        let run = files.iter().fold(run, |run, (source, name)| run.file(Path::new(source), name));
        let disk = root::disk()?;
        let run = DISKS.iter().fold(run, |run, name| run.block(&disk, name));
        let session = run.start()?;
        let (guest, shell) = (Output::default(), Output::default());
        let mut host = LabHost { session, guest, shell, end: String::new(), peer: 0, commands: 0 };
        // No guest yet: a line that nothing prints.
        host.end = host.marker();
        let ended = host.sh(PRELUDE)?;
        ensure!(ended.code == 0, "the host's shell cannot prepare the initrd: {}", ended.text);
        Ok(host)
    }

    /// Begins a scenario: forgets what was printed so far, and sets the time that everything from here on may take.
    pub fn begin(&mut self, limit: Duration) {
        self.session.allow(limit);
        self.guest = Output::default();
        self.shell = Output::default();
    }

    /// Runs a command of the host's shell to its end.
    pub fn sh(&mut self, script: &str) -> Result<Ended> {
        let from = self.shell.bytes.len();
        let marker = self.marker();
        // The braces keep the redirection and the exit code those of the whole script.
        let line = format!("{{ {script}\n}} </dev/null; printf '\\n{marker} %d\\n' $? >&2\n");
        self.session.send(line.as_bytes())?;
        let found = self.wait_for(Stream::Err, &format!("\n{marker} "), from)?;
        let code = self.code(Stream::Err, found.end)?;
        let text = normal(&self.shell.bytes[from..found.start]);
        let text: String = text.split_inclusive('\n').filter(|line| !line.starts_with(PEER)).collect();
        Ok(Ended { code, text })
    }

    /// Runs a command that has to succeed, and gives what it printed.
    pub fn ok(&mut self, script: &str) -> Result<String> {
        let Ended { code, text } = self.sh(script)?;
        ensure!(code == 0, "in the host, {script:?} ended with {code} and printed:\n{text}");
        Ok(text)
    }

    /// Starts `cede run` with `arguments`, as the shell reads them; `$pid` is its process from here on.
    pub fn start(&mut self, arguments: &str) -> Result<()> {
        self.guest.mark();
        let marker = self.marker();
        self.end = format!("\n{marker} ");
        self.ok(&format!(
            "rm -f /tmp/keys /tmp/pid; mkfifo /tmp/keys /tmp/pid; \
             {{ cede run {arguments} </tmp/keys >&3 2>&3 3>&- & echo $! >/tmp/pid; wait $!; printf '\\n{marker} %d\\n' $? >&3; }} & \
             waiter=$!; exec 4>/tmp/keys; read -r pid </tmp/pid"
        ))?;
        Ok(())
    }

    /// Types on the guest's console.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        self.ok(&format!("printf %s {} >&4", quoted(text)))?;
        Ok(())
    }

    /// Waits until the guest has printed `text`, behind what an earlier call found; gives what it printed up to there. A `cede run` that
    /// ends without having printed it is an error.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        let from = self.guest.seen;
        let end = self.end.clone();
        let found = self.wait_for_either(Stream::Out, text, &end, from);
        let Found { first, range } = found.with_context(|| format!("waiting for {text:?}"))?;
        if !first {
            let code = self.code(Stream::Out, range.end)?;
            bail!("cede ended with {code} before there was {text:?}");
        }
        self.guest.seen = range.end;
        Ok(normal(&self.guest.bytes[from..range.end]))
    }

    /// Waits for the end of the guest's process; gives all that it printed.
    pub fn wait(&mut self) -> Result<Ended> {
        let from = self.guest.start;
        let end = self.end.clone();
        let found = self.wait_for(Stream::Out, &end, from)?;
        let code = self.code(Stream::Out, found.end)?;
        self.guest.seen = self.guest.bytes.len();
        self.sh("wait $waiter; exec 4>&-")?;
        Ok(Ended { code, text: normal(&self.guest.bytes[from..found.start]) })
    }

    /// Starts a second `cede run`, which runs to its end by itself.
    pub fn start_peer(&mut self, arguments: &str) -> Result<()> {
        self.peer = self.shell.bytes.len();
        self.ok(&format!(
            "{{ cede run {arguments} </dev/null 2>&1 3>&- 4>&-; echo; echo \"end $?\"; }} | \
             while IFS= read -r line; do echo '{PEER}'\"$line\"; done >&2 &"
        ))?;
        Ok(())
    }

    /// Waits until the peer has printed a line that begins so. A peer that ends without having done so is an error.
    pub fn expect_peer(&mut self, line: &str) -> Result<()> {
        let line = format!("{PEER}{line}");
        let found = self.wait_for_either(Stream::Err, &line, PEER_END, self.peer);
        let Found { first, range } = found.with_context(|| format!("waiting for {line:?}"))?;
        if !first {
            let code = self.code(Stream::Err, range.end)?;
            bail!("the peer's cede ended with {code} before there was {line:?}");
        }
        Ok(())
    }

    /// Waits for the end of the peer; gives all that it printed.
    pub fn wait_peer(&mut self) -> Result<Ended> {
        let found = self.wait_for(Stream::Err, PEER_END, self.peer)?;
        let code = self.code(Stream::Err, found.end)?;
        let text = normal(&self.shell.bytes[self.peer..found.start]);
        let lines = text.lines().filter_map(|line| line.strip_prefix(PEER));
        Ok(Ended { code, text: lines.map(|line| format!("{line}\n")).collect() })
    }

    /// Runs a guest to its end, with nothing typed.
    pub fn run(&mut self, arguments: &str) -> Result<Ended> {
        self.start(arguments)?;
        self.wait()
    }

    /// All that was printed since the scenario began, to show with a failure.
    pub fn transcript(&self) -> String {
        format!(
            "-- the guest, and cede run --\n{}\n-- the host's shell --\n{}",
            normal(&self.guest.bytes).trim_end(),
            normal(&self.shell.bytes).trim_end()
        )
    }

    fn marker(&mut self) -> String {
        self.commands += 1;
        format!("@cede-test-end-{}", self.commands)
    }

    /// The exit code that the line goes on with, from the offset `from` on.
    fn code(&mut self, stream: Stream, from: usize) -> Result<i32> {
        let end = self.wait_for(stream, "\n", from)?;
        let code = normal(&self.bytes(stream)[from..end.start]);
        code.trim().parse().with_context(|| format!("no exit code: {code:?}"))
    }

    fn bytes(&self, stream: Stream) -> &[u8] {
        match stream {
            Stream::Err => &self.shell.bytes,
            Stream::Out | Stream::Console => &self.guest.bytes,
        }
    }

    /// Waits for `text` in a stream, from the offset `from` on; where it is.
    fn wait_for(&mut self, stream: Stream, text: &str, from: usize) -> Result<Range<usize>> {
        Ok(self.wait_for_either(stream, text, text, from)?.range)
    }

    /// Waits for `text` in a stream, or for `end`, behind which it cannot come, from the offset `from` on.
    fn wait_for_either(&mut self, stream: Stream, text: &str, end: &str, from: usize) -> Result<Found> {
        let mut searched = from;
        loop {
            let bytes = self.bytes(stream);
            for (first, text) in [(true, text), (false, end)] {
                if let Some(at) = find(&bytes[searched..], text.as_bytes()) {
                    let start = searched + at;
                    return Ok(Found { first, range: start..start + text.len() });
                }
            }
            // Either may have begun to arrive.
            let longest = text.len().max(end.len());
            searched = from.max((bytes.len() + 1).saturating_sub(longest));
            match self.session.event()? {
                Event::Output(Stream::Out, bytes) => self.guest.bytes.extend(bytes),
                Event::Output(Stream::Err, bytes) => self.shell.bytes.extend(bytes),
                Event::Output(Stream::Console, _) => {}
                Event::Exit(code) => {
                    let tail = self.transcript();
                    return Err(RunError::NotPrinted { expected: text.to_owned(), code, tail }.into());
                }
            }
        }
    }
}

/// One of two texts in a stream.
struct Found {
    /// It is the first of them.
    first: bool,
    /// Where it is.
    range: Range<usize>,
}

/// One stream's bytes.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    /// Where the present guest begins.
    start: usize,
    /// How far `expect` has come.
    seen: usize,
}

impl Output {
    fn mark(&mut self) {
        self.start = self.bytes.len();
        self.seen = self.start;
    }
}

/// Text without the carriage returns that terminals add.
fn normal(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

/// `text` as one word of a shell's command line.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let text = "it's $HOME `x` \\ \"q\" *\nline";
        let script = format!("printf %s {}", quoted(text));
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    }

    #[test]
    fn text_is_found_where_it_begins() {
        assert_eq!(find(b"abcabd", b"abd"), Some(3));
        assert_eq!(find(b"abcab", b"abd"), None);
    }

    #[test]
    fn carriage_returns_are_dropped() {
        assert_eq!(normal(b"a\r\nb\r\r\n"), "a\nb\n");
    }
}

//! A run of one command in the lab host.
//!
//! ```text
//!  Run ── start ──► Session ──────────── finish ──────────────► Outcome
//!                      │  event, expect, send, close_input
//!                      └─ time limit, host down ─► RunError, QEMU killed
//! ```
//! One thread per channel reads it to its end and hands what comes to the session as events; the session's
//! owner takes them in turn. The exit code arrives last: the host's init sends it when the output has been
//! copied.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::qemu::{Channels, Qemu};

/// The lines that a failed run shows.
const TAIL: usize = 40;

/// Where a piece of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The command's stdout, or its terminal.
    Out,
    /// The command's stderr.
    Err,
    /// The host kernel's console, and QEMU's own messages.
    Console,
}

/// What happens in a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece of output, as it came.
    Output(Stream, Vec<u8>),
    /// The command ended with this code. Nothing follows.
    Exit(i32),
}

/// How a run can fail other than by the command's own exit code.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing came of it in time.
    #[error("the lab host was stopped at the time limit of {} s{}", .limit.as_secs(), shown(.tail))]
    TimeLimit {
        /// The limit that was set.
        limit: Duration,
        /// The last lines of output.
        tail: String,
    },
    /// The host ended without an exit code: it panicked, or the command powered it off.
    #[error("the lab host went down before the command ended{}", shown(.tail))]
    HostDown {
        /// The last lines of output.
        tail: String,
    },
    /// The expected text did not come before the command ended.
    #[error("the command ended with {code} and never printed {expected:?}{}", shown(.tail))]
    NotPrinted {
        /// What was waited for.
        expected: String,
        /// The command's exit code.
        code: i32,
        /// The last lines of output.
        tail: String,
    },
    /// Input could not be passed on.
    #[error("cannot write to the command's input")]
    Input(#[source] io::Error),
}

fn shown(tail: &str) -> String {
    if tail.is_empty() {
        "; it printed nothing".to_owned()
    } else {
        format!("; the last output was:\n{tail}")
    }
}

/// A finished run.
#[derive(Debug)]
pub struct Outcome {
    /// The command's exit code, as a shell would tell it: 128 and the signal's number for a signal.
    pub code: i32,
    /// What the command printed.
    pub stdout: String,
    /// What it printed to stderr.
    pub stderr: String,
}

/// A command that runs in the lab host.
pub struct Session {
    qemu: Qemu,
    input: UnixStream,
    events: Receiver<Raw>,
    limit: Duration,
    deadline: Instant,
    exit: Option<i32>,
    open: usize,
    tail: Tail,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How much of stdout `expect` has passed.
    seen: usize,
}

/// What the reading threads send.
enum Raw {
    Output(Stream, Vec<u8>),
    Control(String),
    Closed,
}

impl Session {
    pub(super) fn new(mut qemu: Qemu, channels: Channels, limit: Duration) -> io::Result<Self> {
        let (sender, events) = channel();
        let mut open = 0;
        let mut reader = |stream: Stream, from: Box<dyn Read + Send>| {
            open += 1;
            read_output(stream, from, sender.clone());
        };
        let input = channels.input.try_clone()?;
        if let Some(stderr) = qemu.take_stderr() {
            reader(Stream::Console, Box::new(stderr));
        }
        reader(Stream::Console, Box::new(channels.console));
        match channels.output {
            Some((out, err)) => {
                reader(Stream::Out, Box::new(out));
                reader(Stream::Err, Box::new(err));
            }
            None => reader(Stream::Out, Box::new(channels.input)),
        }
        open += 1;
        read_control(channels.control, sender);
        Ok(Session {
            qemu,
            input,
            events,
            limit,
            deadline: Instant::now() + limit,
            exit: None,
            open,
            tail: Tail::default(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            seen: 0,
        })
    }

    /// Sets the time limit anew: `limit` from now on, whatever has passed. For a session that does several things
    /// in turn, each with a limit of its own.
    pub fn allow(&mut self, limit: Duration) {
        self.limit = limit;
        self.deadline = Instant::now() + limit;
    }

    /// Waits for what happens next.
    pub fn event(&mut self) -> Result<Event, RunError> {
        loop {
            match self.receive()? {
                Raw::Output(stream, bytes) => {
                    self.tail.add(stream, &bytes);
                    match stream {
                        Stream::Out => self.stdout.extend_from_slice(&bytes),
                        Stream::Err => self.stderr.extend_from_slice(&bytes),
                        Stream::Console => {}
                    }
                    return Ok(Event::Output(stream, bytes));
                }
                Raw::Control(line) => {
                    if let Some(code) = parse_exit(&line) {
                        self.exit = Some(code);
                        // The command's output is on its way to us already; without QEMU the channels end
                        // behind it.
                        let _ = self.qemu.stop();
                    }
                }
                Raw::Closed => self.open -= 1,
            }
            if self.open == 0 {
                return match self.exit {
                    Some(code) => Ok(Event::Exit(code)),
                    None => Err(RunError::HostDown { tail: self.tail.text() }),
                };
            }
        }
    }

    /// Waits until the command's stdout holds `text`, behind what an earlier call found, and gives the output
    /// up to its end.
    pub fn expect(&mut self, text: &str) -> Result<String, RunError> {
        loop {
            let unseen = &self.stdout[self.seen..];
            if let Some(at) = find(unseen, text.as_bytes()) {
                let end = at + text.len();
                let passed = String::from_utf8_lossy(&unseen[..end]).into_owned();
                self.seen += end;
                return Ok(passed);
            }
            if let Event::Exit(code) = self.event()? {
                return Err(RunError::NotPrinted { expected: text.to_owned(), code, tail: self.tail.text() });
            }
        }
    }

    /// Types into the command's stdin.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        self.input.write_all(bytes).map_err(RunError::Input)
    }

    /// Ends the command's stdin, once it has read what was sent.
    pub fn close_input(&mut self) -> Result<(), RunError> {
        self.input.shutdown(Shutdown::Write).map_err(RunError::Input)
    }

    /// Another handle of the command's stdin, for a thread that copies into it.
    pub fn input(&self) -> Result<Input, RunError> {
        self.input.try_clone().map(Input).map_err(RunError::Input)
    }

    /// Waits for the end of the command.
    pub fn finish(mut self) -> Result<Outcome, RunError> {
        loop {
            if let Event::Exit(code) = self.event()? {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Ok(Outcome { code, stdout: text(&self.stdout), stderr: text(&self.stderr) });
            }
        }
    }

    /// The next thing from the threads, in time.
    fn receive(&mut self) -> Result<Raw, RunError> {
        match self.events.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok(raw) => Ok(raw),
            Err(RecvTimeoutError::Timeout) => {
                let _ = self.qemu.stop();
                Err(RunError::TimeLimit { limit: self.limit, tail: self.tail.text() })
            }
            // Every thread says `Closed` before it ends, so there is no more to wait for.
            Err(RecvTimeoutError::Disconnected) => Err(RunError::HostDown { tail: self.tail.text() }),
        }
    }
}

/// A handle of the command's stdin.
pub struct Input(UnixStream);

impl Input {
    /// Ends the command's stdin, once it has read what was sent.
    pub fn close(self) -> io::Result<()> {
        // Not a close: that would look like a hang-up, and what the command has not read yet would be lost.
        self.0.shutdown(Shutdown::Write)
    }
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn read_output(stream: Stream, mut from: Box<dyn Read + Send>, to: Sender<Raw>) {
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        // A reset connection is QEMU's end, like a closed one. Nobody listening any more is the session's
        // end.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.send(Raw::Output(stream, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
        let _ = to.send(Raw::Closed);
    });
}

fn read_control(from: UnixStream, to: Sender<Raw>) {
    thread::spawn(move || {
        for line in io::BufRead::lines(io::BufReader::new(from)).map_while(Result::ok) {
            if to.send(Raw::Control(line)).is_err() {
                return;
            }
        }
        let _ = to.send(Raw::Closed);
    });
}

/// The init's message: `exit CODE`.
fn parse_exit(line: &str) -> Option<i32> {
    line.strip_prefix("exit ")?.trim_end().parse().ok()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The last lines of everything, each stream's lines whole.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    partial: [Vec<u8>; 3],
}

impl Tail {
    fn add(&mut self, stream: Stream, bytes: &[u8]) {
        for byte in bytes {
            let partial = &mut self.partial[stream as usize];
            match byte {
                b'\n' => {
                    let line = String::from_utf8_lossy(partial).into_owned();
                    partial.clear();
                    self.push(stream, &line);
                }
                b'\r' => {}
                byte => partial.push(*byte),
            }
        }
    }

    fn push(&mut self, stream: Stream, line: &str) {
        if self.lines.len() == TAIL {
            self.lines.pop_front();
        }
        self.lines.push_back(label(stream, line));
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self.lines.iter().cloned().collect();
        for stream in [Stream::Console, Stream::Err, Stream::Out] {
            let partial = &self.partial[stream as usize];
            if !partial.is_empty() {
                lines.push(label(stream, &String::from_utf8_lossy(partial)));
            }
        }
        lines.join("\n")
    }
}

fn label(stream: Stream, line: &str) -> String {
    match stream {
        Stream::Out => format!("  out| {line}"),
        Stream::Err => format!("  err| {line}"),
        Stream::Console => format!(" host| {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exit_line_is_an_exit() {
        assert_eq!(parse_exit("exit 0"), Some(0));
        assert_eq!(parse_exit("exit 139\r"), Some(139));
        assert_eq!(parse_exit("exit"), None);
        assert_eq!(parse_exit("exit x"), None);
        assert_eq!(parse_exit("an exit 0"), None);
    }

    #[test]
    fn the_tail_keeps_the_last_lines_and_does_not_mix_streams() {
        let mut tail = Tail::default();
        for n in 0..TAIL {
            tail.add(Stream::Console, format!("line {n}\r\n").as_bytes());
        }
        tail.add(Stream::Out, b"half");
        tail.add(Stream::Err, b"whole\n");
        tail.add(Stream::Out, b" a line");
        let text = tail.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), TAIL + 1);
        assert_eq!(lines[0], " host| line 1");
        assert_eq!(lines[TAIL - 1], "  err| whole");
        assert_eq!(lines[TAIL], "  out| half a line");
    }

    #[test]
    fn text_is_found_across_pieces() {
        assert_eq!(find(b"abcabd", b"abd"), Some(3));
        assert_eq!(find(b"abc", b"abd"), None);
        assert_eq!(find(b"", b"a"), None);
        assert_eq!(find(b"x", b""), Some(0));
    }
}

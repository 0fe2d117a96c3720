//! Consoles over real pipes, sockets, files and ptys.

use super::*;
use nix::fcntl::{FcntlArg, fcntl};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, OutputFlags, Termios};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts its interrupts.
#[derive(Default)]
struct Counter(AtomicUsize);

impl irq::Sink for Counter {
    fn set(&self, _gsi: u32, level: bool) -> io::Result<()> {
        self.0.fetch_add(usize::from(level), Ordering::SeqCst);
        Ok(())
    }
}

impl Counter {
    fn on(console: &Console) -> Arc<Self> {
        let counter = Arc::new(Self::default());
        console.connect(Line::new(counter.clone(), 7));
        counter
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn has_work(console: &Console) -> bool {
    ready(console.poll_fd(), PollFlags::POLLIN)
}

/// Waits for work; a test that gets none fails.
fn wait(console: &Console) {
    let mut fds = [PollFd::new(console.poll_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 10_000_u16), Ok(1), "no input within 10 s");
}

fn drain(console: &Console) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buf = [0; 16];
    loop {
        match console.read(&mut buf) {
            0 => return all,
            count => all.extend(&buf[..count]),
        }
    }
}

fn null() -> File {
    OpenOptions::new().read(true).write(true).open("/dev/null").unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// A pipe's reading and writing end.
fn pipe() -> (File, File) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    (reader.into(), writer.into())
}

/// A console with a pipe for input.
fn piped() -> (Console, File) {
    let (reader, writer) = pipe();
    (Console::over(reader.as_fd(), null().as_fd()).unwrap(), writer)
}

/// A console with a pipe for output.
fn piping() -> (Console, File) {
    let (reader, writer) = pipe();
    (Console::over(null().as_fd(), writer.as_fd()).unwrap(), reader)
}

#[test]
fn a_pipe_passes_every_byte_unchanged_and_its_end_is_an_end_of_input_only() {
    let (console, mut peer) = piped();
    let counter = Counter::on(&console);
    assert_eq!(console.pump().unwrap(), Pump::Data);
    assert!(!has_work(&console));
    assert_eq!(counter.count(), 0, "no input, no interrupt");

    let bytes: Vec<u8> = (0..=255).chain(*b"\x01x\x01h").collect();
    peer.write_all(&bytes).unwrap();
    wait(&console);
    assert_eq!(console.pump().unwrap(), Pump::Data);
    assert_eq!(counter.count(), 1);
    assert_eq!(drain(&console), bytes);

    drop(peer);
    wait(&console);
    assert_eq!(console.pump().unwrap(), Pump::Eof);
    assert_eq!(console.pump().unwrap(), Pump::Eof);
    assert!(!has_work(&console), "an ended input is quiet");
    assert_eq!(console.write(b"still here"), 10);
}

#[test]
fn a_full_ring_holds_the_sender_back_and_loses_nothing() {
    let (console, mut peer) = piped();
    let counter = Counter::on(&console);
    let bytes = pattern(3 * ring::CAPACITY);
    peer.write_all(&bytes).unwrap();
    drop(peer);

    let mut got = Vec::new();
    let mut rounds = 0;
    while console.pump().unwrap() == Pump::Data {
        rounds += 1;
        assert_eq!(counter.count(), rounds);
        assert!(!has_work(&console), "a full ring is quiet");
        got.extend(drain(&console));
        assert!(has_work(&console), "room in a ring that was full is work");
    }
    got.extend(drain(&console));
    assert_eq!(got, bytes);
    assert_eq!(rounds, 3);
}

#[test]
fn a_regular_file_is_read_to_its_end() {
    let bytes = pattern(10_000);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.rewind().unwrap();
    let console = Console::over(file.as_fd(), null().as_fd()).unwrap();
    let mut got = Vec::new();
    loop {
        wait(&console);
        let found = console.pump().unwrap();
        got.extend(drain(&console));
        if found == Pump::Eof {
            break;
        }
    }
    assert_eq!(got, bytes);
    assert!(!has_work(&console));
}

#[test]
fn input_from_before_the_line_was_connected_interrupts() {
    let (console, mut peer) = piped();
    peer.write_all(b"early").unwrap();
    assert_eq!(console.pump().unwrap(), Pump::Data);
    assert_eq!(Counter::on(&console).count(), 1);
}

#[test]
fn a_full_pipe_is_busy_and_goes_on_when_it_is_read() {
    let (console, mut reader) = piping();
    let mut sent = 0;
    loop {
        match console.write(b"0123456789abcdef") {
            0 => break,
            count => sent += count,
        }
    }
    assert!(sent >= 4096);
    let mut buf = vec![0; sent];
    reader.read_exact(&mut buf).unwrap();
    assert_eq!(console.write(b"again"), 5);
}

#[test]
fn a_shared_socket_is_busy_when_it_is_full_and_stays_blocking_for_the_others() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let console = Console::over(null().as_fd(), ours.as_fd()).unwrap();
    while console.write(b"0123456789abcdef") != 0 {}
    let flags = OFlag::from_bits_retain(fcntl(&ours, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK));
}

#[test]
fn a_closed_output_swallows_everything() {
    let (console, reader) = piping();
    drop(reader);
    for _ in 0..3 {
        assert_eq!(console.write(b"into the void"), 13);
    }
}

#[test]
fn a_file_gets_the_output_and_has_no_input() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console.log");
    fs::write(&path, "from an earlier run").unwrap();
    let console = Console::file(&path).unwrap();
    assert_eq!(console.write(b"hello\r\n"), 7);
    assert_eq!(console.pump().unwrap(), Pump::Eof);
    assert!(!has_work(&console));
    assert_eq!(console.read(&mut [0; 8]), 0);
    assert_eq!(fs::read(&path).unwrap(), b"hello\r\n");
}

#[test]
fn a_file_that_cannot_be_made_is_named() {
    let error = Console::file(Path::new("/nowhere/console.log")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot open the console file /nowhere/console.log; its directory has to exist and be writable"
    );
}

fn attach(console: &Console) -> File {
    let path = console.pty_path().unwrap();
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).unwrap()
}

#[test]
fn a_pty_carries_bytes_both_ways_and_peers_come_and_go() {
    let console = Console::pty().unwrap();
    let counter = Counter::on(&console);
    assert_eq!(console.pump().unwrap(), Pump::Data);
    for round in 1..=2 {
        let mut peer = attach(&console);
        peer.write_all(b"ls\r\x01x\n").unwrap();
        wait(&console);
        assert_eq!(console.pump().unwrap(), Pump::Data);
        assert_eq!(drain(&console), b"ls\r\x01x\n");
        assert_eq!(counter.count(), round);

        assert_eq!(console.write(b"a\nb\r\n"), 5);
        let mut buf = [0; 5];
        peer.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"a\nb\r\n", "no line discipline in between");
        drop(peer);
        assert_eq!(console.pump().unwrap(), Pump::Data);
        assert!(!has_work(&console), "a hang-up is told once");
    }
}

#[test]
fn a_pty_without_a_peer_takes_any_output_and_is_quiet() {
    let console = Console::pty().unwrap();
    assert_eq!(console.pump().unwrap(), Pump::Data);
    for _ in 0..100_000 {
        assert_eq!(console.write(b"0123456789abcdef"), 16);
    }
    assert_eq!(console.pump().unwrap(), Pump::Data);
    assert!(!has_work(&console));
    assert_eq!(drain(&console), b"", "the output did not come back as an echo");

    let mut peer = attach(&console);
    assert_eq!(console.write(b"news"), 4);
    let mut buf = [0; 16];
    assert_eq!(peer.read(&mut buf).unwrap(), 4, "what nobody saw is gone");
}

#[test]
fn a_pty_whose_peer_does_not_read_is_busy() {
    let console = Console::pty().unwrap();
    let mut peer = attach(&console);
    let mut sent = 0;
    loop {
        match console.write(b"0123456789abcdef") {
            0 => break,
            count => sent += count,
        }
    }
    let mut buf = vec![0; sent];
    peer.read_exact(&mut buf).unwrap();
}

/// The parts of the attributes that tell raw from cooked.
fn is_raw(attributes: &Termios) -> bool {
    !attributes.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
        && !attributes.output_flags.contains(OutputFlags::OPOST)
}

/// One test: a process has one raw terminal at a time.
#[test]
fn a_terminal_is_raw_while_the_console_lives_and_has_escape_keys() {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let before = tcgetattr(&slave).unwrap();
    assert!(!is_raw(&before));
    let (mut screen, screen_end) = pipe();
    let console = Console::over(slave.as_fd(), screen_end.as_fd()).unwrap();
    assert!(is_raw(&tcgetattr(&slave).unwrap()) && terminal_is_raw());
    let second = Console::over(slave.as_fd(), screen_end.as_fd()).unwrap_err();
    assert_eq!(second.to_string(), "another console has a raw terminal");

    let mut keyboard = File::from(master);
    keyboard.write_all(b"a\x03\x1a\r\x01\x01\x01ab\x01").unwrap();
    wait(&console);
    assert_eq!(console.pump().unwrap(), Pump::Data);
    assert_eq!(drain(&console), b"a\x03\x1a\r\x01\x01b", "signal keys are the guest's");

    // The prefix came with the read before.
    keyboard.write_all(b"h\x01xlost").unwrap();
    wait(&console);
    assert_eq!(console.pump().unwrap(), Pump::Quit);
    assert_eq!(drain(&console), b"");
    let mut help = vec![0; HELP.len()];
    screen.read_exact(&mut help).unwrap();
    assert_eq!(help, HELP);

    drop(console);
    assert_eq!(tcgetattr(&slave).unwrap(), before);
    assert!(!terminal_is_raw());
}

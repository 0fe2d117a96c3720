//! The terminal's attributes come back on every way out of a process, and a process in the background does
//! not stop at the terminal. Each case is a child process: this test binary again, told by an environment
//! variable to be the program under test.

use devices::console::{Console, Pump};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

const ROLE: &str = "CEDE_TERMINAL_TEST";

/// The program under test. Without its variable it is an empty test.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    if role == "background" {
        run_in_background();
    }
    let console = Console::stdio().unwrap();
    assert_eq!(console.pump().unwrap(), Pump::Data);
    eprintln!("ready");
    let mut line = [0];
    std::io::stderr().flush().unwrap();
    match role.as_str() {
        "exit" => std::process::exit(3),
        "panic" => {
            std::panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
            // The attributes are back before anything unwinds, so the console may stay.
            std::mem::forget(console);
        }
        "abort" => std::process::abort(),
        // SAFETY: none is needed: the access is meant to fault.
        "fault" => unsafe { std::ptr::write_volatile(std::ptr::without_provenance_mut::<u8>(8), 0) },
        "background-child" => drop(console),
        // Killed from outside.
        _ => _ = std::io::stdin().read(&mut line),
    }
}

/// Starts the program in a process group of its own, which is in the background of this one's terminal.
fn run_in_background() -> ! {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(ROLE, "background-child").process_group(0);
    let pid = command.spawn().unwrap().id() as libc::pid_t;
    let mut status = 0;
    // SAFETY: waitpid writes one integer.
    unsafe { libc::waitpid(pid, &mut status, libc::WUNTRACED) };
    let stopped = libc::WIFSTOPPED(status);
    // SAFETY: the child is ours and not yet reaped if it stopped.
    unsafe { stopped.then(|| libc::kill(pid, libc::SIGKILL)) };
    eprintln!("the child {}", if stopped { "stopped" } else { "ran to its end" });
    std::process::exit(i32::from(stopped || !libc::WIFEXITED(status)));
}

struct Case {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    pty: OpenptyResult,
}

impl Case {
    /// Starts the program with a new pty as its controlling terminal and standard input.
    fn start(role: &str) -> Self {
        let pty = openpty(None, None).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, role)
            .stdin(pty.slave.try_clone().unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // SAFETY: signal, setsid and ioctl are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                // Ignored if a shell started the tests in the background, or nohup did.
                for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                libc::setsid();
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, pty }
    }

    fn wait_for(&mut self, wanted: &str) {
        for line in self.stderr.by_ref().lines() {
            if line.unwrap() == wanted {
                return;
            }
        }
        panic!("the program never said {wanted:?}");
    }

    fn cooked(&self) -> bool {
        tcgetattr(&self.pty.slave).unwrap().local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO)
    }
}

/// Ends the program in one way and checks the terminal before and after.
fn ends(role: &str, kill: Option<libc::c_int>, code: Option<i32>, signal: Option<i32>) {
    let mut case = Case::start(role);
    if kill.is_some() {
        case.wait_for("ready");
        assert!(!case.cooked(), "{role}: raw while it runs");
    }
    if let Some(kill) = kill {
        // SAFETY: the child is ours and not yet reaped.
        unsafe { libc::kill(case.child.id() as libc::pid_t, kill) };
    }
    let status = case.child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (code, signal), "{role}");
    assert!(case.cooked(), "{role}: the attributes are back");
}

#[test]
fn exit_without_a_drop() {
    ends("exit", None, Some(3), None);
}

#[test]
fn panic() {
    ends("panic", None, Some(0), None);
}

#[test]
fn abort() {
    ends("abort", None, None, Some(libc::SIGABRT));
}

#[test]
fn segmentation_fault() {
    ends("fault", None, None, Some(libc::SIGSEGV));
}

#[test]
fn signals_from_outside() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGSEGV, libc::SIGABRT] {
        ends("killed", Some(signal), None, Some(signal));
    }
}

#[test]
fn the_background_neither_stops_the_process_nor_touches_the_terminal() {
    let mut case = Case::start("background");
    case.wait_for("ready");
    assert!(case.cooked());
    case.wait_for("the child ran to its end");
    assert_eq!(case.child.wait().unwrap().code(), Some(0));
}

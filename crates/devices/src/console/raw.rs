//! The host terminal's raw mode, and its end on every way out of the process.
//!
//! Owns the terminal's attributes from before, for one terminal at a time. They come back when [`RawMode`] is
//! dropped, when the process exits without dropping it, when any thread panics (before the message is
//! printed), and when a signal is about to end the process. SIGKILL alone leaves the terminal raw.
//!
//! Invariant: [`SAVED`] is null or points to a value that was complete before it was published and is never
//! freed, so a signal handler may read it at any instant.

use nix::sys::termios::{SetArg, SpecialCharacterIndices, cfmakeraw, tcgetattr, tcsetattr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Once, OnceLock};

/// The attributes to go back to.
struct Saved {
    fd: RawFd,
    termios: libc::termios,
}

/// Null while no terminal is raw. Published with Release, read with Acquire.
static SAVED: AtomicPtr<Saved> = AtomicPtr::new(ptr::null_mut());

/// Signals that end the process because somebody asks. One who handles them has a way out of his own, so
/// they are taken only where the default is in place.
const REQUESTS: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Signals that end the process because it failed. Rust's runtime handles two of them (stack overflow); the
/// handler here goes first and hands over.
const FAULTS: [libc::c_int; 6] =
    [libc::SIGABRT, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGSYS];

/// What was in place of the handler, for each signal it was put on.
static PREVIOUS: OnceLock<Vec<(libc::c_int, libc::sigaction)>> = OnceLock::new();

/// Keeps a terminal raw.
#[derive(Debug)]
pub(super) struct RawMode {
    _tty: OwnedFd,
}

impl RawMode {
    /// Makes `tty` raw: no echo, no line editing, no signal keys, bytes as they come both ways.
    ///
    /// # Errors
    /// When the attributes cannot be read or set, or another terminal is raw already.
    pub(super) fn enter(tty: BorrowedFd<'_>) -> io::Result<Self> {
        let tty = tty.try_clone_to_owned()?;
        let mut attributes = tcgetattr(&tty)?;
        let saved =
            Box::into_raw(Box::new(Saved { fd: tty.as_raw_fd(), termios: attributes.clone().into() }));
        if SAVED.compare_exchange(ptr::null_mut(), saved, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: the pointer came from Box::into_raw just now and was not published.
            drop(unsafe { Box::from_raw(saved) });
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "another console has a raw terminal"));
        }
        let raw = Self { _tty: tty };
        static INSTALL: Once = Once::new();
        INSTALL.call_once(watch_exits);

        cfmakeraw(&mut attributes);
        attributes.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        attributes.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(raw._tty.as_fd(), SetArg::TCSANOW, &attributes)?;
        Ok(raw)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
        // The value is leaked, not freed: a handler on another thread may be reading it.
        SAVED.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Whether a terminal is raw, so that a line printed on it needs its own carriage return.
#[must_use]
pub(super) fn is_raw() -> bool {
    !SAVED.load(Ordering::Acquire).is_null()
}

/// Whether `tty` is this process's terminal and another process group has it. A terminal that is nobody's
/// controlling terminal has no background.
pub(super) fn in_background(tty: RawFd) -> bool {
    // SAFETY: both calls take and return integers; a bad descriptor gives -1.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(tty), libc::getpgrp()) };
    foreground != -1 && foreground != own
}

/// Gives the terminal its attributes back. Async-signal-safe, and may run any number of times at once.
fn restore() {
    let saved = SAVED.load(Ordering::Acquire);
    // SAFETY: non-null pointers in SAVED are complete and are never freed.
    let Some(saved) = (unsafe { saved.as_ref() }) else { return };
    // In the background the terminal is somebody else's, and has the attributes that they want.
    if in_background(saved.fd) {
        return;
    }
    // Should the foreground change now, tcsetattr would stop the process by SIGTTOU unless that is blocked.
    let mut block = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: the sets are initialised by sigemptyset and pthread_sigmask before they are read, and the
    // attributes live as long as the process.
    unsafe {
        libc::sigemptyset(block.as_mut_ptr());
        libc::sigaddset(block.as_mut_ptr(), libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, block.as_ptr(), before.as_mut_ptr());
        libc::tcsetattr(saved.fd, libc::TCSANOW, &saved.termios);
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
    }
}

/// Puts [`restore`] on every way out. Done once; without a raw terminal it does nothing.
fn watch_exits() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        print(info);
    }));
    // SAFETY: `on_exit` is a function without arguments that lives as long as the process.
    unsafe { libc::atexit(on_exit) };

    let previous = REQUESTS
        .into_iter()
        .chain(FAULTS)
        .map(|signal| (signal, current_action(signal)))
        .filter(|(signal, action)| {
            action.sa_sigaction == libc::SIG_DFL
                || (FAULTS.contains(signal) && action.sa_sigaction != libc::SIG_IGN)
        })
        .collect();
    // The handler reads this, so it has to be there before the first handler is.
    for (signal, _) in PREVIOUS.get_or_init(|| previous) {
        // SAFETY: an all-zero sigaction is valid (empty mask, no flags), and the handler is
        // async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(*signal, &action, ptr::null_mut());
        }
    }
}

/// The action in place for `signal`.
fn current_action(signal: libc::c_int) -> libc::sigaction {
    // SAFETY: sigaction writes the whole structure, and zeroes are a valid one should it fail.
    unsafe {
        let mut action = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut action);
        action
    }
}

extern "C" fn on_exit() {
    restore();
}

/// Restores the terminal, then lets the signal end the process.
extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    restore();
    // SAFETY: the kernel gives a valid siginfo to an SA_SIGINFO handler; the previous action came from
    // sigaction; signal and raise take integers.
    unsafe {
        if FAULTS.contains(&signal) && (*info).si_code > 0 {
            // The fault happens again on return, with its address, for the previous handler to see.
            let previous = PREVIOUS.get().and_then(|all| all.iter().find(|(s, _)| *s == signal));
            if let Some((_, action)) = previous {
                libc::sigaction(signal, action, ptr::null_mut());
                return;
            }
        }
        // Somebody sent it. It stays pending until this handler returns.
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

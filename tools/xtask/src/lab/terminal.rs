//! The terminal that `lab shell` runs in.

use std::io;
use std::mem::MaybeUninit;

/// A terminal in raw mode; it is put back when this goes.
pub struct Raw {
    before: libc::termios,
}

impl Raw {
    /// Makes stdin raw, so that every key reaches the host; none if it is not a terminal.
    pub fn stdin() -> io::Result<Option<Self>> {
        let mut before = MaybeUninit::uninit();
        // SAFETY: tcgetattr fills the structure, or fails.
        if unsafe { libc::tcgetattr(libc::STDIN_FILENO, before.as_mut_ptr()) } != 0 {
            return Ok(None);
        }
        // SAFETY: tcgetattr succeeded.
        let before = unsafe { before.assume_init() };
        let mut raw = before;
        // SAFETY: cfmakeraw changes the structure it is given.
        unsafe { libc::cfmakeraw(&mut raw) };
        set(&raw)?;
        Ok(Some(Raw { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone; there is nothing else to do about it.
        let _ = set(&self.before);
    }
}

fn set(attributes: &libc::termios) -> io::Result<()> {
    // SAFETY: tcsetattr reads a whole termios structure.
    match unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, attributes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The terminal's rows and columns.
pub fn size() -> Option<(u16, u16)> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: TIOCGWINSZ fills a winsize, for which all zeroes are valid too.
    let size = unsafe {
        if libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) != 0 {
            return None;
        }
        size.assume_init()
    };
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

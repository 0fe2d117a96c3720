//! How the control loop and vCPUs tell a parked vCPU what to do next.
//!
//! ```text
//!   Empty ──post──▶ Enter ──wait──▶ Empty (the vCPU runs)
//!     └──── close ──▶ Closed (the thread ends; nothing else is taken any more)
//! ```

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

enum Mail<E> {
    Empty,
    Enter(E),
    Closed,
}

/// One vCPU's mailbox. The lock is held for a few instructions, never while anybody waits or runs.
pub struct Mailbox<E> {
    mail: Mutex<Mail<E>>,
    bell: Condvar,
}

impl<E> Default for Mailbox<E> {
    fn default() -> Self {
        Self { mail: Mutex::new(Mail::Empty), bell: Condvar::new() }
    }
}

impl<E> Mailbox<E> {
    /// Leaves an entry for the vCPU. It is dropped if the mailbox is closed.
    pub fn post(&self, entry: E) {
        let mut mail = self.lock();
        if !matches!(*mail, Mail::Closed) {
            *mail = Mail::Enter(entry);
            self.bell.notify_one();
        }
    }

    /// Ends the vCPU's thread when it next looks.
    pub fn close(&self) {
        *self.lock() = Mail::Closed;
        self.bell.notify_one();
    }

    /// Waits for an entry; `None` when the mailbox is closed.
    pub fn wait(&self) -> Option<E> {
        let mut mail = self.lock();
        loop {
            match std::mem::replace(&mut *mail, Mail::Empty) {
                Mail::Enter(entry) => return Some(entry),
                Mail::Closed => {
                    *mail = Mail::Closed;
                    return None;
                }
                Mail::Empty => mail = self.bell.wait(mail).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mail<E>> {
        // No code that can panic runs under the lock.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn an_entry_wakes_the_waiter_and_close_ends_it() {
        let mailbox = Arc::new(Mailbox::default());
        let other = Arc::clone(&mailbox);
        let waiter = std::thread::spawn(move || (other.wait(), other.wait()));
        mailbox.post(7);
        while !matches!(*mailbox.lock(), Mail::Empty) {
            std::thread::yield_now();
        }
        mailbox.close();
        mailbox.post(8);
        assert_eq!(waiter.join().unwrap(), (Some(7), None));
    }
}

//! Eventfds by which somebody who cannot call (the kernel's vhost) tells of a queue's used descriptors, and their short cuts to the
//! interrupt controller.
//!
//! What must hold after any call: an eventfd is bound exactly to where its queue's interrupt leads; to nothing where that is masked, is
//! the pin, or leads nowhere, and then the backend reads it and tells by `Interrupts::used`, which keeps what is masked. Whoever
//! changes something that this depends on comes here afterwards, so the last one in sees it all.

use irq::{Line, Shortcut};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The eventfds of a function's queues.
#[derive(Default)]
pub struct Calls {
    /// By queue.
    shortcuts: Mutex<BTreeMap<u16, Shortcut>>,
    /// Whether the log has heard of a refusal.
    complained: AtomicBool,
}

impl Calls {
    /// Takes up the eventfd of `queue`, or lets go of the one that it has.
    pub fn set(&self, queue: u16, call: Option<Arc<OwnedFd>>, line: impl Fn(u16) -> Option<Line>) {
        let mut shortcuts = self.shortcuts();
        // The one of before has let go of its source when this is done.
        match call.map(Shortcut::new) {
            Some(shortcut) => drop(shortcuts.insert(queue, shortcut)),
            None => drop(shortcuts.remove(&queue)),
        }
        self.lead(&mut shortcuts, line);
    }

    /// Brings the eventfds up to what `line` says: where the interrupt of a queue leads now.
    pub fn update(&self, line: impl Fn(u16) -> Option<Line>) {
        self.lead(&mut self.shortcuts(), line);
    }

    fn lead(&self, shortcuts: &mut BTreeMap<u16, Shortcut>, line: impl Fn(u16) -> Option<Line>) {
        for (&queue, shortcut) in shortcuts {
            match shortcut.lead(line(queue)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                Err(error) => match self.complained.swap(true, Ordering::Relaxed) {
                    false => {
                        tracing::warn!(%error, queue, "interrupts go by way of a thread: KVM does not take the eventfd")
                    }
                    true => tracing::debug!(%error, queue, "KVM does not take the eventfd"),
                },
            }
        }
    }

    fn shortcuts(&self) -> MutexGuard<'_, BTreeMap<u16, Shortcut>> {
        self.shortcuts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

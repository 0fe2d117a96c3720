//! An eventfd whose way to a source leads past us, where the controller hears eventfds itself (KVM_IRQFD): its writer, the
//! kernel's vhost for one, interrupts with no thread of ours in between.
//!
//! ```text
//!         lead(a line)
//!  loose ─────────────▶ bound to the line's source
//!    ▲ lead(None), drop       │ lead(another line): loose in between
//!    └────────────────────────┘
//! ```
//!
//! What holds: no write is lost. What is written while it is loose stays in the eventfd, where a poll loop finds it, or the next
//! binding; if both do, the driver is told twice, which interrupts allow. When [`Shortcut::lead`] returns, nothing goes to the source
//! of before any more.

use crate::Line;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// An eventfd, and the source that it is bound to.
#[derive(Debug)]
pub struct Shortcut {
    event: Arc<OwnedFd>,
    to: Option<Line>,
}

impl Shortcut {
    /// Loose. Nobody else binds `event`.
    #[must_use]
    pub fn new(event: Arc<OwnedFd>) -> Self {
        Self { event, to: None }
    }

    /// Binds it to `line`, or to nothing. Costs nothing where that is as it was.
    ///
    /// # Errors
    /// When the controller does not take it: it is loose then.
    pub fn lead(&mut self, line: Option<Line>) -> io::Result<()> {
        if self.to == line {
            return Ok(());
        }
        self.loosen();
        if let Some(line) = line {
            line.bind(self.event.as_fd())?;
            self.to = Some(line);
        }
        Ok(())
    }

    fn loosen(&mut self) {
        let Some(line) = self.to.take() else { return };
        if let Err(error) = line.unbind(self.event.as_fd()) {
            // It was bound, and by nobody else.
            tracing::error!(%error, gsi = line.gsi(), "an eventfd cannot be taken from its source");
        }
    }
}

impl Drop for Shortcut {
    fn drop(&mut self) {
        self.loosen();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::tests::Recorder;
    use std::os::unix::net::UnixDatagram;

    fn loose() -> (Arc<Recorder>, Arc<OwnedFd>, Shortcut) {
        // The recorder looks at its number alone.
        let event = Arc::new(OwnedFd::from(UnixDatagram::unbound().unwrap()));
        (Arc::default(), event.clone(), Shortcut::new(event))
    }

    #[test]
    fn it_has_one_source_at_a_time() {
        let (recorder, event, mut shortcut) = loose();
        shortcut.lead(None).unwrap();
        for gsi in [5, 5, 6] {
            shortcut.lead(Some(recorder.line(gsi))).unwrap();
            assert_eq!(recorder.bound(event.as_fd()), Some(gsi));
        }
        shortcut.lead(None).unwrap();
        assert_eq!(recorder.bound(event.as_fd()), None);
        shortcut.lead(Some(recorder.line(5))).unwrap();
        drop(shortcut);
        assert_eq!(recorder.bound(event.as_fd()), None, "nothing stays bound");
    }

    #[test]
    fn a_refusal_leaves_it_loose() {
        let (recorder, event, mut shortcut) = loose();
        shortcut.lead(Some(recorder.line(5))).unwrap();
        recorder.refuse();
        let refused = shortcut.lead(Some(recorder.line(6))).unwrap_err();
        assert_eq!((refused.kind(), recorder.bound(event.as_fd())), (io::ErrorKind::Unsupported, None));
    }
}

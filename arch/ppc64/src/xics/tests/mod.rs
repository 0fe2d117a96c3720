//! The controller, alone.

mod hostile;
mod model;
mod orders;
mod stress;

use super::*;
use std::cell::RefCell;

/// The vCPUs that were told, in order.
#[derive(Default)]
struct Told(RefCell<Vec<usize>>);

impl Told {
    fn note(&self) -> impl Fn(usize) + '_ {
        |server| self.0.borrow_mut().push(server)
    }

    fn take(&self) -> Vec<usize> {
        self.0.take()
    }
}

/// Nobody is told.
fn quiet(_: usize) {}

const NOBODY: [usize; 0] = [];

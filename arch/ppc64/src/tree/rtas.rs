//! `/rtas`: the firmware that stays, and the hypercalls.
//!
//! The name of the node is fixed: Linux looks for "rtas", and for `ibm,hypertas-functions` in it to know that
//! it runs on a hypervisor. A function is there if a property of its name is, whose value is its token.

use super::{Error, TreeSpec};
use fdt::Node;

/// The RTAS blob, its functions, and the hypercall function sets.
#[derive(Debug, Clone, Copy)]
pub struct Rtas<'a> {
    /// Guest-physical address of the blob. Entered in 32-bit real mode, so below 4 GiB and in the real-mode area.
    pub base: u32,
    /// Bytes to reserve.
    pub size: u32,
    /// Address that is called.
    pub entry: u32,
    /// Name and token of each function.
    pub functions: &'a [(&'a str, u32)],
    /// `ibm,hypertas-functions`: names of sets of hypercalls, such as `hcall-set-mode`.
    pub hypercalls: &'a [&'a str],
}

/// Bytes of an error log, fixed part and extension, that a guest must have room for.
const ERROR_LOG_MAX: u32 = 2048;

/// Properties that go with a function: the guest uses the second only if it finds the first.
const COMPANIONS: &[(&str, &str)] = &[
    // ibm,os-term returns to the caller: Linux will not call one that might not.
    ("ibm,extended-os-term", "ibm,os-term"),
    // MSI-X as well as MSI.
    ("ibm,change-msix-capable", "ibm,change-msi"),
];

impl Rtas<'_> {
    pub(super) fn check(&self, spec: &TreeSpec) -> Result<(), Error> {
        let Rtas { base, size, entry, .. } = *self;
        let end = u64::from(base) + u64::from(size);
        let inside = u64::from(base)..end;
        if !inside.contains(&entry.into()) || end > spec.memory.rma.min(1 << 32) {
            return Err(Error::RtasPlace { base, size, entry });
        }
        if let Some((name, token)) = self.functions.iter().find(|(_, token)| [0, u32::MAX].contains(token)) {
            return Err(Error::Token { name: (*name).into(), token: *token });
        }
        if self.hypercalls.is_empty() { Err(Error::NoHypercalls) } else { Ok(()) }
    }

    fn has_function(&self, name: &str) -> bool {
        self.functions.iter().any(|(function, _)| *function == name)
    }

    /// Whether the hypercall function set `name` is there.
    pub(super) fn has_hypercalls(&self, name: &str) -> bool {
        self.hypercalls.contains(&name)
    }
}

pub(super) fn node(rtas: &Rtas) -> Node {
    let mut node = Node::new("rtas")
        .u32("linux,rtas-base", rtas.base)
        .u32("linux,rtas-entry", rtas.entry)
        .u32("rtas-size", rtas.size)
        .u32("rtas-error-log-max", ERROR_LOG_MAX)
        .strings("ibm,hypertas-functions", rtas.hypercalls.iter().copied());
    for (property, function) in COMPANIONS {
        node = node.when(rtas.has_function(function), |node| node.empty(*property));
    }
    rtas.functions.iter().fold(node, |node, (name, token)| node.u32(*name, *token))
}

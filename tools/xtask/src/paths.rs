//! Where things are: the workspace, and the lab's cache.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the package is two levels below the root")
        .to_owned()
}

/// The lab's cache: `target/lab`, or what `CEDE_LAB_DIR` names (several checkouts may share one).
pub fn lab() -> PathBuf {
    env::var_os("CEDE_LAB_DIR").map_or_else(|| root().join("target/lab"), PathBuf::from)
}

//! The parameters of the kernel's module `kvm`, which hold for every VM of the host.

use std::io;
use std::path::{Path, PathBuf};

/// Where Linux shows them. The tunables of halt polling are the generic module's on POWER too: `kvm_hv`
/// has none of them.
const DIRECTORY: &str = "/sys/module/kvm/parameters";

/// A module's parameters, each a file.
#[derive(Debug, Clone)]
pub struct Parameters {
    directory: PathBuf,
}

impl Default for Parameters {
    fn default() -> Self {
        Self::at(DIRECTORY)
    }
}

impl Parameters {
    /// Those in another directory.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// A parameter's file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(Path::new(name))
    }

    /// A number.
    ///
    /// # Errors
    /// As the file has them, and `InvalidData` if it holds no number.
    pub fn get(&self, name: &str) -> io::Result<u32> {
        let text = std::fs::read_to_string(self.path(name))?;
        text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Sets a number. A file that is not there is not made.
    ///
    /// # Errors
    /// As the file has them.
    pub fn set(&self, name: &str, value: u32) -> io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(self.path(name))?;
        // The kernel takes each write for the whole value.
        file.write_all(format!("{value}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written() {
        let directory = tempfile::tempdir().unwrap();
        let parameters = Parameters::at(directory.path());
        std::fs::write(parameters.path("halt_poll_ns"), "10000\n").unwrap();
        assert_eq!(parameters.get("halt_poll_ns").unwrap(), 10000);
        parameters.set("halt_poll_ns", 5).unwrap();
        assert_eq!(parameters.get("halt_poll_ns").unwrap(), 5);
        std::fs::write(parameters.path("nested"), "Y\n").unwrap();
        assert_eq!(parameters.get("nested").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(parameters.get("other").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(parameters.set("other", 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

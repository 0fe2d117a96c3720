//! The powerpc64le cross compiler as a judge of assertions, one on each line.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TRIPLE: &str = "powerpc64le-linux-gnu";

/// What the compiler says of a line that it does not accept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The headers have another value.
    Denied,
    /// The headers have no such name.
    Unknown,
}

pub struct Compiler {
    program: PathBuf,
    uapi: Option<PathBuf>,
}

impl Compiler {
    /// The compiler of `CEDE_PPC64_CC`, else the usual one if PATH has it.
    pub fn find() -> Option<Self> {
        let uapi = env::var_os("CEDE_PPC64_UAPI").map(PathBuf::from);
        if let Some(program) = env::var_os("CEDE_PPC64_CC") {
            return Some(Compiler { program: program.into(), uapi });
        }
        let name = format!("{TRIPLE}-gcc");
        let path = env::var_os("PATH")?;
        let program = env::split_paths(&path).map(|dir| dir.join(&name)).find(|program| program.is_file())?;
        Some(Compiler { program, uapi })
    }

    /// Names the headers in a message.
    pub fn headers(&self) -> String {
        let (major, minor, patch) = self.kernel();
        let place = match &self.uapi {
            Some(dir) => dir.display().to_string(),
            None => format!("those of {}", self.program.display()),
        };
        format!("the headers of Linux {major}.{minor}.{patch} ({place})")
    }

    /// The version of the kernel that the headers come from.
    pub fn kernel(&self) -> (u32, u32, u32) {
        let output = self.run(&["-E", "-P"], "#include <linux/version.h>\nLINUX_VERSION_CODE\n");
        assert!(output.status.success(), "linux/version.h: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let code: u32 = text.trim().parse().unwrap_or_else(|_| panic!("'{text}' is not LINUX_VERSION_CODE"));
        (code >> 16, code >> 8 & 0xff, code & 0xff)
    }

    /// Compiles the program without output and returns the lines that it refuses.
    pub fn check(&self, program: &str) -> BTreeMap<usize, Verdict> {
        let output = self.run(&["-fsyntax-only", "-std=gnu11"], program);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let mut verdicts = BTreeMap::new();
        for (line, message) in stderr.lines().filter_map(error) {
            if message.starts_with("static assertion failed") {
                verdicts.insert(line, Verdict::Denied);
            } else if unknown_name(message) {
                verdicts.entry(line).or_insert(Verdict::Unknown);
            } else {
                assert!(verdicts.contains_key(&line), "{}: {stderr}", self.program.display());
            }
        }
        assert!(output.status.success() || !verdicts.is_empty(), "{}: {stderr}", self.program.display());
        verdicts
    }

    fn run(&self, options: &[&str], program: &str) -> Output {
        let file = SourceFile::new(program);
        let mut command = Command::new(&self.program);
        command.env("LC_ALL", "C").args(options);
        if let Some(uapi) = &self.uapi {
            command.arg("-isystem").arg(uapi.join(TRIPLE)).arg("-isystem").arg(uapi);
        }
        let output = command.arg(&file.0).output();
        output.unwrap_or_else(|error| panic!("{}: {error} (see CEDE_PPC64_CC)", self.program.display()))
    }
}

/// Takes `FILE:LINE:COLUMN: error: MESSAGE` apart.
fn error(line: &str) -> Option<(usize, &str)> {
    let (place, message) = line.split_once(": error: ")?;
    let mut numbers = place.rsplit(':');
    let _column = numbers.next()?;
    Some((numbers.next()?.parse().ok()?, message))
}

fn unknown_name(message: &str) -> bool {
    ["undeclared", "has no member named", "incomplete type", "undefined type"]
        .iter()
        .any(|m| message.contains(m))
}

/// A C file in cargo's directory for this test, removed when done with.
struct SourceFile(PathBuf);

impl SourceFile {
    fn new(program: &str) -> Self {
        let thread = std::thread::current().id();
        let name = format!("bindings-{}-{thread:?}.c", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, program).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        SourceFile(path)
    }
}

impl Drop for SourceFile {
    fn drop(&mut self) {
        // A file left behind in target/ does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

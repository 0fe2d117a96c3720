//! Compares every size, alignment, offset and number of the powerpc64 bindings with the kernel's headers.
//!
//! The generated file states each structure's layout in assertions that rustc checks when it compiles the crate.
//! This test reads those figures and the constants out of the file's text, so nothing generated can be left out,
//! writes each as a C `_Static_assert` on the kernel's own names, and lets the powerpc64le cross compiler judge.
//! No powerpc code runs.
//!
//! - `CEDE_PPC64_CC` names the compiler; without it, `powerpc64le-linux-gnu-gcc` is looked up in PATH, and the
//!   comparison is skipped aloud if there is none.
//! - `CEDE_PPC64_UAPI` names a directory of headers as Debian's linux-libc-dev installs them under /usr/include;
//!   without it the compiler's own are used. With headers older than those the bindings were made from, the names
//!   they do not know yet are listed instead of checked.

mod cc;
mod source;

use std::fmt::Write as _;
use std::io::Write as _;

use cc::{Compiler, Verdict};
use source::{Bindings, Field};

const GENERATED: &str = include_str!("../../src/bindings/ppc64.rs");

/// Prints past the harness's capture: a skipped check must be seen without `--nocapture`.
fn announce(message: &str) {
    writeln!(std::io::stderr(), "bindings: {message}").expect("stderr takes the message");
}

/// One C expression and the value that Rust has for it.
struct Claim {
    c: String,
    value: u64,
}

impl Claim {
    fn new(c: String, value: u64) -> Self {
        Claim { c, value }
    }

    fn assertion(&self) -> String {
        format!("_Static_assert((unsigned long long)({}) == {:#x}ULL, \"\");", self.c, self.value)
    }
}

/// Walks a structure and whatever is nested in it, claiming where each member lies and how large it is.
struct Walk<'a> {
    bindings: &'a Bindings,
    /// The C name of the outermost structure.
    root: String,
    claims: Vec<Claim>,
    /// How many of the generated structures and unions the walk has been through.
    visited: usize,
}

impl Walk<'_> {
    /// `path` leads in C from the root to the object of type `name`, which lies `base` bytes into it.
    fn aggregate(&mut self, name: &str, path: &str, base: u64) {
        self.visited += 1;
        let bindings = self.bindings;
        for field in bindings.fields(name) {
            let offset = base + bindings.offset(name, field);
            let path = if field.is_anonymous() { path.to_owned() } else { join(path, field) };
            if !field.is_anonymous() {
                self.member(field, &path, offset);
            }
            let element = field.element();
            if bindings.is_nested(element, name) {
                let path = if field.is_array() { format!("{path}[0]") } else { path };
                self.aggregate(element, &path, offset);
            }
        }
    }

    fn member(&mut self, field: &Field, path: &str, offset: u64) {
        let root = &self.root;
        self.claims.push(Claim::new(format!("__builtin_offsetof({root}, {path})"), offset));
        if let Some(size) = self.bindings.size_of(&field.ty) {
            self.claims.push(Claim::new(format!("sizeof((({root} *)0)->{path})"), size));
        }
    }
}

fn join(path: &str, field: &Field) -> String {
    if path.is_empty() { field.c_name().to_owned() } else { format!("{path}.{}", field.c_name()) }
}

fn claims(bindings: &Bindings) -> Vec<Claim> {
    let mut claims: Vec<Claim> =
        bindings.constants.iter().map(|(name, value)| Claim::new(name.clone(), *value)).collect();
    claims.extend(
        kvm::ioctl::ppc64::ALL
            .iter()
            .map(|(name, number)| Claim::new((*name).to_owned(), u64::from(*number))),
    );
    let mut visited = 0;
    for name in bindings.roots() {
        let root = format!("struct {name}");
        claims.push(Claim::new(format!("sizeof({root})"), bindings.size(name)));
        claims.push(Claim::new(format!("_Alignof({root})"), bindings.alignment(name)));
        let mut walk = Walk { bindings, root, claims: Vec::new(), visited: 0 };
        walk.aggregate(name, "", 0);
        visited += walk.visited;
        claims.append(&mut walk.claims);
    }
    assert_eq!(
        visited,
        bindings.aggregates(),
        "every generated structure and union is reached from a named one"
    );
    claims
}

/// Asks the compiler about all claims at once and returns those it denies and those its headers do not know.
fn judge<'a>(compiler: &Compiler, claims: &'a [Claim]) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut program = String::from("#include <linux/kvm.h>\n");
    let first_line = program.lines().count() + 1;
    for claim in claims {
        writeln!(program, "{}", claim.assertion()).expect("a String takes it");
    }
    let verdicts = compiler.check(&program);
    let of = |wanted: Verdict| {
        let lines = verdicts.iter().filter(|(_, verdict)| **verdict == wanted);
        lines.map(|(line, _)| claims[line - first_line].c.as_str()).collect()
    };
    (of(Verdict::Denied), of(Verdict::Unknown))
}

fn compiler() -> Option<Compiler> {
    let found = Compiler::find();
    if found.is_none() {
        announce(
            "SKIPPED: no powerpc64le-linux-gnu-gcc in PATH and CEDE_PPC64_CC not set; nothing was compared",
        );
    }
    found
}

#[test]
fn bindings_match_the_kernels_headers() {
    let Some(compiler) = compiler() else { return };
    let bindings = Bindings::parse(GENERATED);
    let claims = claims(&bindings);
    let (denied, unknown) = judge(&compiler, &claims);
    assert!(denied.is_empty(), "{} have other values for: {denied:#?}", compiler.headers());

    let (theirs, ours) = (compiler.kernel(), bindings.kernel);
    if theirs < ours {
        announce(&format!(
            "{} of {} items NOT compared: {} predate Linux {}.{}.{}; set CEDE_PPC64_UAPI to newer ones. Not known: {}",
            unknown.len(),
            claims.len(),
            compiler.headers(),
            ours.0,
            ours.1,
            ours.2,
            unknown.join(", ")
        ));
        return;
    }
    assert!(unknown.is_empty(), "{} lack: {unknown:#?}", compiler.headers());
}

/// The comparison is only worth something if it notices a wrong figure.
#[test]
fn wrong_figures_are_noticed() {
    let Some(compiler) = compiler() else { return };
    let mut claims = claims(&Bindings::parse(GENERATED));
    let last = claims.len() - 1;
    claims[0].value ^= 1;
    claims[last].value += 4;
    let (denied, _) = judge(&compiler, &claims);
    assert_eq!(denied, [claims[0].c.as_str(), claims[last].c.as_str()]);
}

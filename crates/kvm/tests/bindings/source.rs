//! Reads the generated bindings as text: constants, structures, and the layout figures that rustc has checked.

use std::collections::{BTreeMap, BTreeSet};

/// A member of a structure or union.
pub struct Field {
    pub name: String,
    pub ty: String,
}

impl Field {
    /// In C the members of an unnamed structure or union belong to the one around it.
    pub fn is_anonymous(&self) -> bool {
        self.name.starts_with("__bindgen_anon")
    }

    pub fn is_array(&self) -> bool {
        self.ty.starts_with('[')
    }

    /// The type, or an array's element type.
    pub fn element(&self) -> &str {
        array(&self.ty).map_or(&self.ty, |(element, _)| element)
    }

    /// A C name that is a Rust keyword has an underscore behind it in Rust.
    pub fn c_name(&self) -> &str {
        self.name.strip_suffix('_').unwrap_or(&self.name)
    }
}

/// What the generated file says.
pub struct Bindings {
    /// The version of the headers it was made from.
    pub kernel: (u32, u32, u32),
    pub constants: Vec<(String, u64)>,
    fields: BTreeMap<String, Vec<Field>>,
    unions: BTreeSet<String>,
    /// Figures by bindgen's label, such as `Size of kvm_regs`.
    layout: BTreeMap<String, u64>,
}

impl Bindings {
    pub fn parse(text: &str) -> Self {
        let bindings = Bindings {
            kernel: kernel(text),
            constants: text.lines().filter_map(constant).collect(),
            fields: aggregates(text),
            unions: text
                .lines()
                .filter_map(|line| line.strip_prefix("pub union ")?.strip_suffix(" {"))
                .map(str::to_owned)
                .collect(),
            layout: layout(text),
        };
        assert!(
            !bindings.constants.is_empty() && !bindings.fields.is_empty(),
            "the generated file was understood"
        );
        bindings
    }

    /// How many structures and unions there are.
    pub fn aggregates(&self) -> usize {
        self.fields.len()
    }

    /// The structures that have a name of their own in C.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.fields
            .keys()
            .map(String::as_str)
            .filter(|name| !self.fields.keys().any(|o| self.is_nested(name, o)))
    }

    /// Whether `inner` is declared inside `outer`: bindgen then puts the outer name before it.
    pub fn is_nested(&self, inner: &str, outer: &str) -> bool {
        let inside = inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('_'));
        inside && self.fields.get(outer).is_some_and(|fields| fields.iter().any(|f| f.element() == inner))
    }

    /// The members; none for a type whose inside the bindings leave out.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &Field> {
        self.fields[name].iter().filter(|field| field.name != "_bindgen_opaque_blob")
    }

    /// Where a member lies. bindgen asserts nothing of an anonymous one: `repr(C)` puts it behind the member before.
    pub fn offset(&self, name: &str, field: &Field) -> u64 {
        if !field.is_anonymous() {
            return self.figure(&format!("Offset of field: {name}::{}", field.name));
        }
        let before = self.fields(name).take_while(|other| other.name != field.name).last();
        let end = |before: &Field| {
            self.offset(name, before) + self.size_of(&before.ty).expect("a flexible array is last")
        };
        match before {
            Some(before) if !self.unions.contains(name) => {
                end(before).next_multiple_of(self.alignment(field.element()))
            }
            _ => 0,
        }
    }

    pub fn size(&self, name: &str) -> u64 {
        self.figure(&format!("Size of {name}"))
    }

    pub fn alignment(&self, name: &str) -> u64 {
        self.figure(&format!("Alignment of {name}"))
    }

    /// The size of a member's type; none for a flexible array, which has no size in C.
    pub fn size_of(&self, ty: &str) -> Option<u64> {
        if let Some((element, count)) = array(ty) {
            return self.size_of(element).map(|size| size * count);
        }
        match ty {
            "u8" => Some(1),
            "u16" | "i16" => Some(2),
            "u32" | "i32" => Some(4),
            "u64" | "i64" => Some(8),
            _ if ty.starts_with("*mut ") => Some(8),
            _ if ty.starts_with("__IncompleteArrayField<") => None,
            _ => Some(self.size(ty)),
        }
    }

    fn figure(&self, label: &str) -> u64 {
        *self.layout.get(label).unwrap_or_else(|| panic!("the generated file has no assertion \"{label}\""))
    }
}

/// Takes `[T; 8usize]` apart.
fn array(ty: &str) -> Option<(&str, u64)> {
    let (element, count) = ty.strip_prefix('[')?.strip_suffix("usize]")?.rsplit_once("; ")?;
    Some((element, count.parse().expect("an array length")))
}

fn kernel(text: &str) -> (u32, u32, u32) {
    let (_, rest) = text.split_once("uapi headers of Linux ").expect("the head names the kernel");
    let mut numbers = rest.split([' ', '.']).map_while(|n| n.parse().ok());
    let mut next = || numbers.next().expect("three numbers in the kernel's version");
    (next(), next(), next())
}

fn constant(line: &str) -> Option<(String, u64)> {
    let (name, rest) = line.strip_prefix("pub const ")?.split_once(": ")?;
    let (_, value) = rest.strip_suffix(';')?.split_once(" = ")?;
    let parsed = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    Some((name.to_owned(), parsed.unwrap_or_else(|_| panic!("{name}: '{value}' is not a plain number"))))
}

fn aggregates(text: &str) -> BTreeMap<String, Vec<Field>> {
    let mut all = BTreeMap::new();
    let mut open: Option<(String, Vec<Field>)> = None;
    for line in text.lines() {
        let head = line.strip_prefix("pub struct ").or(line.strip_prefix("pub union "));
        if let Some(name) = head.and_then(|rest| rest.strip_suffix(" {")) {
            open = Some((name.to_owned(), Vec::new()));
        } else if let Some(name) = head.and_then(|rest| rest.strip_suffix(" {}")) {
            all.insert(name.to_owned(), Vec::new());
        } else if line == "}" {
            all.extend(open.take());
        } else if let Some((_, fields)) = &mut open {
            let member = line.trim().strip_prefix("pub ").and_then(|rest| rest.strip_suffix(','));
            let (name, ty) = member.and_then(|m| m.split_once(": ")).expect("one member on each line");
            fields.push(Field { name: name.to_owned(), ty: ty.to_owned() });
        }
    }
    all
}

/// The figures of `["label"][expression - 8usize];`, however rustfmt has broken it over lines.
fn layout(text: &str) -> BTreeMap<String, u64> {
    let figure = |chunk: &str| {
        let (label, rest) = chunk.split_once("\"]")?;
        let (expression, _) = rest.split_once("usize")?;
        let (_, number) = expression.rsplit_once("- ")?;
        Some((label.to_owned(), number.parse().ok()?))
    };
    text.split("[\"").skip(1).map(|chunk| figure(chunk).expect("a layout assertion")).collect()
}

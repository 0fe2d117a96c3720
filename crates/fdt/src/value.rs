//! Property values, and how each is encoded (Devicetree Specification, section 2.2.4).

/// Names one node of a [`Tree`](crate::Tree), so that another can refer to it.
///
/// Made by [`Tree::new_phandle`](crate::Tree::new_phandle); given to its node with
/// [`Node::phandle`](crate::Node::phandle).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phandle(pub(crate) u32);

impl Phandle {
    /// The number that the blob holds.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// One 32-bit cell: a number, or a reference that must resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// A plain number.
    U32(u32),
    /// The phandle of another node.
    Phandle(Phandle),
}

impl Cell {
    pub(crate) fn get(self) -> u32 {
        match self {
            Cell::U32(n) => n,
            Cell::Phandle(p) => p.0,
        }
    }
}

impl From<u32> for Cell {
    fn from(n: u32) -> Self {
        Cell::U32(n)
    }
}

impl From<Phandle> for Cell {
    fn from(p: Phandle) -> Self {
        Cell::Phandle(p)
    }
}

/// The value of a property. Numbers are big endian in the blob, strings end in a NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// No bytes: the property's presence is its meaning.
    Empty,
    /// Two cells that are one number, the high cell first.
    U64(u64),
    /// Any number of cells, one included.
    Cells(Vec<Cell>),
    /// One string.
    String(String),
    /// Strings one after the other.
    StringList(Vec<String>),
    /// Bytes as they are.
    Bytes(Vec<u8>),
}

impl Value {
    /// The bytes that the blob holds for this value.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Value::Empty => Vec::new(),
            Value::U64(n) => n.to_be_bytes().to_vec(),
            Value::Cells(cells) => cells.iter().flat_map(|c| c.get().to_be_bytes()).collect(),
            Value::String(s) => terminated(s).collect(),
            Value::StringList(list) => list.iter().flat_map(|s| terminated(s)).collect(),
            Value::Bytes(bytes) => bytes.clone(),
        }
    }

    /// The value as cells: what a reader that expects an array of u32 sees. `None` when it is not whole cells.
    pub fn to_cells(&self) -> Option<Vec<u32>> {
        if let Value::Cells(cells) = self {
            return Some(cells.iter().map(|c| c.get()).collect());
        }
        let bytes = self.to_bytes();
        let cells = bytes.chunks_exact(4);
        cells
            .remainder()
            .is_empty()
            .then(|| cells.map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]])).collect())
    }

    /// The strings in this value, for the check that none holds a NUL.
    pub(crate) fn strings(&self) -> &[String] {
        match self {
            Value::String(s) => std::slice::from_ref(s),
            Value::StringList(list) => list,
            _ => &[],
        }
    }

    /// The phandles that this value refers to.
    pub(crate) fn references(&self) -> impl Iterator<Item = Phandle> + '_ {
        let cells: &[Cell] = match self {
            Value::Cells(cells) => cells,
            _ => &[],
        };
        cells.iter().filter_map(|c| match c {
            Cell::Phandle(p) => Some(*p),
            Cell::U32(_) => None,
        })
    }
}

fn terminated(s: &str) -> impl Iterator<Item = u8> + '_ {
    s.bytes().chain(std::iter::once(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let cells = Value::Cells(vec![Cell::U32(0x1100), Cell::Phandle(Phandle(7))]);
        assert_eq!(cells.to_bytes(), [0, 0, 0x11, 0, 0, 0, 0, 7]);
        assert_eq!(Value::U64(0x1_0000_0002).to_bytes(), [0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(Value::String("ok".into()).to_bytes(), *b"ok\0");
        assert_eq!(Value::StringList(vec!["a".into(), "".into(), "b".into()]).to_bytes(), *b"a\0\0b\0");
        assert!(Value::Empty.to_bytes().is_empty());
        assert_eq!(Value::Bytes(vec![1, 0, 0]).to_bytes(), [1, 0, 0]);
    }

    #[test]
    fn cells_of_other_values() {
        assert_eq!(Value::U64(0x1_0000_0002).to_cells(), Some(vec![1, 2]));
        assert_eq!(Value::Bytes(vec![0, 0, 0, 9]).to_cells(), Some(vec![9]));
        assert_eq!(Value::Bytes(vec![1, 0, 0]).to_cells(), None);
    }
}

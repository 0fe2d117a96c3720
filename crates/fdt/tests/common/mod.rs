//! Reads a flattened device tree back, from the specification's description of the format alone.

/// What a blob says.
#[derive(Debug, PartialEq, Eq)]
pub struct Blob {
    pub boot_cpuid_phys: u32,
    pub reservations: Vec<(u64, u64)>,
    pub root: Parsed,
}

/// A node as the blob has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    pub name: String,
    pub properties: Vec<(String, Vec<u8>)>,
    pub children: Vec<Parsed>,
}

/// Parses `dtb`; panics, with the offset, on anything that the format does not allow.
pub fn parse(dtb: &[u8]) -> Blob {
    assert_eq!(u32_at(dtb, 0), 0xd00d_feed, "magic");
    assert_eq!(u32_at(dtb, 4) as usize, dtb.len(), "totalsize");
    assert_eq!((u32_at(dtb, 20), u32_at(dtb, 24)), (17, 16), "version, last compatible version");
    let (structure, strings) = (u32_at(dtb, 8) as usize, u32_at(dtb, 12) as usize);
    let (strings_size, structure_size) = (u32_at(dtb, 32) as usize, u32_at(dtb, 36) as usize);
    let mut reader = Reader {
        structure: &dtb[structure..structure + structure_size],
        strings: &dtb[strings..strings + strings_size],
        at: 0,
    };
    assert_eq!(reader.token(), 1, "the tree begins with a node");
    let root = reader.node();
    assert_eq!(reader.token(), 9, "FDT_END follows the root");
    assert_eq!(reader.at, structure_size, "nothing follows FDT_END");
    Blob { boot_cpuid_phys: u32_at(dtb, 28), reservations: reservations(dtb), root }
}

fn reservations(dtb: &[u8]) -> Vec<(u64, u64)> {
    let block = u32_at(dtb, 16) as usize;
    assert_eq!(block % 8, 0, "the reservation block is on 8 bytes");
    dtb[block..]
        .chunks_exact(16)
        .map(|e| {
            (u64::from_be_bytes(e[..8].try_into().unwrap()), u64::from_be_bytes(e[8..].try_into().unwrap()))
        })
        .take_while(|entry| *entry != (0, 0))
        .collect()
}

struct Reader<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn token(&mut self) -> u32 {
        self.at += 4;
        u32_at(self.structure, self.at - 4)
    }

    fn padded(&mut self, len: usize) -> Vec<u8> {
        let bytes = self.structure[self.at..self.at + len].to_vec();
        self.at += len.next_multiple_of(4);
        bytes
    }

    fn node(&mut self) -> Parsed {
        let name = c_string(&self.structure[self.at..]);
        self.padded(name.len() + 1);
        let mut node = Parsed { name, properties: Vec::new(), children: Vec::new() };
        loop {
            match self.token() {
                1 => node.children.push(self.node()),
                2 => return node,
                3 => {
                    assert!(node.children.is_empty(), "properties come before children at {:#x}", self.at);
                    let (len, name) = (self.token() as usize, self.token() as usize);
                    node.properties.push((c_string(&self.strings[name..]), self.padded(len)));
                }
                other => panic!("token {other} at {:#x}", self.at - 4),
            }
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn c_string(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|b| *b == 0).expect("a string ends");
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}
